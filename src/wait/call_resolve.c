/* SPDX-License-Identifier: Apache-2.0 */
/* getaddrinfo and getnameinfo (RFC 3493) in a core.
 *
 * A thread makes the very same call. A fiber gives it to a helper: at most HELPERS_MAX of them, made when
 * there is work, gone when there is none for a while. What needs no name service (numbers) is answered at
 * once. The job is the helper's and the fiber's together, on the heap: a fiber that is cut goes, and the
 * helper throws the answer away. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "wait/io.h"

enum job_state {
    JOB_UNDER_WAY = 0,
    JOB_DONE = 1,
    JOB_ABANDONED = 2,
};

struct job {
    struct pn_list node;
    enum job_state state; /* [lock] */
    struct pn_core *core;
    uint32_t number; /* [lock] of its wait */
    void (*run)(struct job *job);
    int result;
    int error; /* errno */
    union {
        struct {
            char *node, *service; /* NULL: none */
            struct addrinfo hints, *list;
            bool hinted;
        } to_address;
        struct {
            struct sockaddr_storage address;
            socklen_t size;
            char host[NI_MAXHOST], service[NI_MAXSERV];
            socklen_t host_size, service_size; /* 0: not wanted */
            int flags;
        } to_name;
    };
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool made;
    struct pn_list queue;
    unsigned helpers;
    unsigned idle;
    unsigned leaving; /* idle ones that are asked to go */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- Jobs --------------------------------------------------------------------------------------------- */

static void run_to_address(struct job *job)
{
    job->result =
        getaddrinfo(job->to_address.node, job->to_address.service,
                    job->to_address.hinted ? &job->to_address.hints : NULL, &job->to_address.list);
}

static void run_to_name(struct job *job)
{
    job->result =
        getnameinfo((const struct sockaddr *)&job->to_name.address, job->to_name.size,
                    job->to_name.host_size ? job->to_name.host : NULL, job->to_name.host_size,
                    job->to_name.service_size ? job->to_name.service : NULL,
                    job->to_name.service_size, job->to_name.flags);
}

static void job_free(struct job *job)
{
    if (job->run == run_to_address) {
        free(job->to_address.node);
        free(job->to_address.service);
        if (job->to_address.list)
            freeaddrinfo(job->to_address.list);
    }
    free(job);
}

/* --- Helpers ------------------------------------------------------------------------------------------ */

static void finish(struct job *job)
{
    pthread_mutex_lock(&pool.lock);
    bool abandoned = job->state == JOB_ABANDONED;
    struct pn_core *core = job->core;
    uint32_t number = job->number;
    job->state = JOB_DONE;
    pthread_mutex_unlock(&pool.lock);
    /* From here on a fiber that looks for itself may have freed it. */
    if (abandoned)
        job_free(job);
    else
        pn_core_unpark(core, number);
}

/* [lock] The next job, or NULL when this helper is to go. */
static struct job *next_job(void)
{
    while (pn_list_empty(&pool.queue)) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until = pn_ns_timespec(pn_timespec_ns(&until) + PN_RESOLVE_IDLE_MS * PN_NS_PER_MS);
        pool.idle++;
        int r = pthread_cond_clockwait(&pool.work, &pool.lock, CLOCK_MONOTONIC, &until);
        pool.idle--;
        if (pn_list_empty(&pool.queue) && (r == ETIMEDOUT || pool.leaving > 0)) {
            if (pool.leaving > 0)
                pool.leaving--;
            return NULL;
        }
    }
    return pn_list_entry(pn_list_pop_front(&pool.queue), struct job, node);
}

static void *helper_main(void *arg)
{
    struct job *job;
    (void)arg;
    (void)pthread_setname_np(pthread_self(), "pn-resolve");
    pthread_mutex_lock(&pool.lock);
    while ((job = next_job())) {
        pthread_mutex_unlock(&pool.lock);
        errno = 0;
        job->run(job);
        job->error = errno;
        finish(job);
        pthread_mutex_lock(&pool.lock);
    }
    pool.helpers--;
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* [lock] */
static bool make_helper(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, old;
    if (pthread_attr_init(&attr) != 0)
        return false;
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool made = pthread_create(&thread, &attr, helper_main, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    pool.helpers += made;
    return made;
}

/* False: there is no helper at all. */
static bool submit(struct job *job)
{
    pthread_mutex_lock(&pool.lock);
    if (!pool.made) {
        pn_list_init(&pool.queue);
        pool.made = true;
    }
    pn_list_push_back(&pool.queue, &job->node);
    bool helped = true;
    if (pool.idle == 0 && pool.helpers < PN_RESOLVE_HELPERS_MAX && !make_helper())
        helped = pool.helpers > 0;
    if (!helped)
        pn_list_remove(&job->node);
    pthread_cond_signal(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    return helped;
}

/* True when JOB is done and this fiber's again; false: it was cut, and the job is not its any more. */
static bool wait_for(struct pn_core *core, struct job *job)
{
    for (;;) {
        uint32_t number = pn_core_wait_begin(core);
        pthread_mutex_lock(&pool.lock);
        job->number = number;
        bool done = job->state == JOB_DONE;
        pthread_mutex_unlock(&pool.lock);
        if (done)
            return true;
        if (pn_core_park(core, number, PN_NEVER_NS) != PN_WAIT_CUT)
            continue;
        pthread_mutex_lock(&pool.lock);
        done = job->state == JOB_DONE;
        bool queued = !done && pn_list_linked(&job->node);
        if (queued)
            pn_list_remove(&job->node);
        else if (!done)
            job->state = JOB_ABANDONED;
        pthread_mutex_unlock(&pool.lock);
        if (queued)
            job_free(job);
        return done;
    }
}

/* --- The calls ---------------------------------------------------------------------------------------- */

static bool is_number(const char *node)
{
    unsigned char room[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, node, room) == 1 || inet_pton(AF_INET6, node, room) == 1;
}

static bool asks_nobody(const char *node, const struct addrinfo *hints)
{
    return !node || (hints && (hints->ai_flags & AI_NUMERICHOST)) || is_number(node);
}

static char *copy(const char *text, bool *failed)
{
    char *own = text ? strdup(text) : NULL;
    *failed |= text && !own;
    return own;
}

static struct job *job_new(struct pn_core *core, void (*run)(struct job *job))
{
    struct job *job = pn_try_realloc(NULL, sizeof *job);
    if (!job)
        return NULL;
    *job = (struct job){.core = core, .run = run};
    pn_list_init(&job->node);
    return job;
}

static int to_address_fiber(struct pn_core *core, const char *node, const char *service,
                            const struct addrinfo *hints, struct addrinfo **result)
{
    bool failed = false;
    struct job *job = job_new(core, run_to_address);
    if (!job)
        return EAI_MEMORY;
    job->to_address.node = copy(node, &failed);
    job->to_address.service = copy(service, &failed);
    if (hints) {
        job->to_address.hints = *hints;
        job->to_address.hinted = true;
    }
    if (failed || !submit(job)) {
        job_free(job);
        return failed ? EAI_MEMORY : getaddrinfo(node, service, hints, result);
    }
    if (!wait_for(core, job))
        return EAI_AGAIN;
    int r = job->result;
    int error = job->error;
    if (r == 0) {
        *result = job->to_address.list;
        job->to_address.list = NULL;
    }
    job_free(job);
    if (r == EAI_SYSTEM)
        errno = error;
    return r;
}

int pn__call_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                         struct addrinfo **result)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || asks_nobody(node, hints))
        return getaddrinfo(node, service, hints, result);
    pn__wait_count();
    if (pn__core_is_fiber(core))
        return to_address_fiber(core, node, service, hints, result);
    if (!pn_core_block_begin(core, -1, 0))
        return getaddrinfo(node, service, hints, result);
    int r = getaddrinfo(node, service, hints, result);
    int error = errno;
    pn_core_block_end(core);
    errno = error;
    return r;
}

static int to_name_fiber(struct pn_core *core, const struct sockaddr *address, socklen_t size,
                         char *host, socklen_t host_size, char *service, socklen_t service_size,
                         int flags)
{
    struct job *job = job_new(core, run_to_name);
    if (!job)
        return EAI_MEMORY;
    memcpy(&job->to_name.address, address, size);
    job->to_name.size = size;
    job->to_name.host_size = host ? host_size : 0;
    job->to_name.service_size = service ? service_size : 0;
    job->to_name.flags = flags;
    if (!submit(job)) {
        job_free(job);
        return getnameinfo(address, size, host, host_size, service, service_size, flags);
    }
    if (!wait_for(core, job))
        return EAI_AGAIN;
    int r = job->result;
    int error = job->error;
    if (r == 0 && job->to_name.host_size)
        strcpy(host, job->to_name.host);
    if (r == 0 && job->to_name.service_size)
        strcpy(service, job->to_name.service);
    job_free(job);
    if (r == EAI_SYSTEM)
        errno = error;
    return r;
}

int pn__call_getnameinfo(const struct sockaddr *address, socklen_t size, char *host,
                         socklen_t host_size, char *service, socklen_t service_size, int flags)
{
    struct pn_core *core = pn__wait_gate();
    bool numeric = (flags & NI_NUMERICHOST) || !host || host_size == 0;
    if (!core || numeric || size > sizeof(struct sockaddr_storage) || host_size > NI_MAXHOST ||
        service_size > NI_MAXSERV)
        return getnameinfo(address, size, host, host_size, service, service_size, flags);
    pn__wait_count();
    if (pn__core_is_fiber(core))
        return to_name_fiber(core, address, size, host, host_size, service, service_size, flags);
    if (!pn_core_block_begin(core, -1, 0))
        return getnameinfo(address, size, host, host_size, service, service_size, flags);
    int r = getnameinfo(address, size, host, host_size, service, service_size, flags);
    int error = errno;
    pn_core_block_end(core);
    errno = error;
    return r;
}

/* Idle helpers go; one that waits for a name server is not waited for. */
void pn__resolve_uninstall(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.leaving = pool.idle;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

/* The helpers stayed in the parent, maybe in the middle of something. */
void pn__resolve_after_fork_child(void)
{
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.work, NULL);
    pool.made = false;
    pool.helpers = pool.idle = pool.leaving = 0;
}
