/* SPDX-License-Identifier: Apache-2.0 */
/* src/cores as one core on one thread, for tests of the gateway without a server. It knows who owns
 * the loop and aborts when the contract is broken: that is what it is for. A wait of the threads and
 * fibers carriers lets the wire make progress, which is what another core would do. */
#include "stub_cores.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

struct pn_core {
    struct pn_cores *cores;
    void *state;
    void *request;
    void (*overtaken)(void *arg);
    void *overtaken_arg;
    uint32_t wait_number;
    bool woken;
    bool cut;
};

struct pn_cores {
    enum pn_carrier carrier;
    const struct pn_core_host *host;
    struct pn_core core;
    struct stub_wire *wire;
    pthread_t thread;
    pid_t pid;
    bool inside;
    bool full;
    bool queue;
    struct pn_job *queued;
    unsigned under_way;
    struct stub_counts counts;
};

static struct pn_cores *current;

struct pn_cores *stub_cores_create(enum pn_carrier carrier, const struct pn_core_host *host)
{
    static struct pn_cores one;
    one = (struct pn_cores){.carrier = carrier, .host = host, .pid = getpid()};
    one.core.cores = &one;
    one.thread = pthread_self();
    current = &one;
    if (host->state_new(host->ctx, &one.core, &one.core.state) < 0)
        return NULL;
    return &one;
}

void stub_cores_destroy(struct pn_cores *cores)
{
    PN_BUG_ON(cores->under_way || cores->inside);
    current = NULL;
}

void stub_cores_set_wire(struct pn_cores *cores, struct stub_wire *wire)
{
    cores->wire = wire;
}

void stub_cores_admission(struct pn_cores *cores, bool full, bool queue)
{
    cores->full = full;
    cores->queue = queue;
}

void stub_cores_run_queued(struct pn_cores *cores, bool drop)
{
    struct pn_job *job = cores->queued;
    cores->queued = NULL;
    if (!job)
        return;
    if (drop) {
        job->dropped(job);
        return;
    }
    cores->under_way++;
    job->run(job);
}

struct stub_counts stub_cores_take_counts(struct pn_cores *cores)
{
    struct stub_counts counts = cores->counts;
    cores->counts = (struct stub_counts){0};
    return counts;
}

bool stub_is_inside(void)
{
    return current && current->inside;
}

void stub_must_own(const char *what)
{
    if (!current || current->inside)
        pn_bug(__FILE__, __LINE__, what, "called without owning the loop");
}

/* --- core.h --- */

enum pn_carrier pn_cores_carrier(const struct pn_cores *cores)
{
    return cores->carrier;
}

struct pn_core *pn_core_self(void)
{
    if (!current || !pthread_equal(current->thread, pthread_self()) || current->pid != getpid())
        return NULL;
    return &current->core;
}

struct pn_cores *pn_core_cores(struct pn_core *core)
{
    return core->cores;
}

struct pn_core *pn_cores_home(struct pn_cores *cores)
{
    return &cores->core;
}

bool pn_core_owns_loop(const struct pn_core *core)
{
    return !core->cores->inside;
}

/* The stub has no loop: what stands on one is tested against the real server. */
struct pn_loop *pn_cores_loop(struct pn_cores *cores)
{
    (void)cores;
    return NULL;
}

void pn_cores_set_home_work(struct pn_cores *cores, const struct pn_home_work *work)
{
    (void)cores;
    (void)work;
    PN_WRONG("the stub has no home work");
}

unsigned pn_core_number(const struct pn_core *core)
{
    (void)core;
    return 0;
}

void *pn_core_state(const struct pn_core *core)
{
    return core->state;
}

uintptr_t pn_core_ident(const struct pn_core *core)
{
    return (uintptr_t)core->cores->thread;
}

void pn_core_trim_stack(const struct pn_core *core)
{
    (void)core;
}

bool pn_core_stack(const struct pn_core *core, void **base, size_t *size)
{
    (void)core;
    (void)base;
    (void)size;
    return false;
}

void pn_core_set_request(struct pn_core *core, void *request)
{
    stub_must_own(__func__);
    core->request = request;
}

void *pn_core_request(const struct pn_core *core)
{
    return core->request;
}

enum pn_admit pn_cores_admit(struct pn_cores *cores, struct pn_job *job)
{
    stub_must_own(__func__);
    if (cores->full)
        return PN_ADMIT_FULL;
    if (cores->queue) {
        cores->queued = job;
        return PN_ADMIT_QUEUED;
    }
    cores->under_way++;
    return PN_ADMIT_RUN;
}

void pn_cores_done(struct pn_cores *cores)
{
    stub_must_own(__func__);
    PN_BUG_ON(cores->under_way != 1 || cores->core.request || cores->core.overtaken);
    cores->under_way--;
    cores->core.cut = false;
}

void pn_cores_withdraw(struct pn_cores *cores, struct pn_job *job)
{
    stub_must_own(__func__);
    if (cores->queued == job)
        cores->queued = NULL;
}

void pn_core_enter_app(struct pn_core *core)
{
    stub_must_own(__func__);
    core->cores->inside = true;
    core->cores->counts.entered++;
}

void pn_core_leave_app(struct pn_core *core)
{
    PN_BUG_ON(!core->cores->inside);
    core->cores->inside = false;
}

void pn_core_on_overtaken(struct pn_core *core, void (*fn)(void *arg), void *arg)
{
    stub_must_own(__func__);
    core->overtaken = fn;
    core->overtaken_arg = arg;
}

static void begin_wait(struct pn_core *core)
{
    PN_BUG_ON(!core->cores->inside);
    PN_BUG_ON(core->cores->host->attached(core->cores->host->ctx, core->state));
    core->cores->counts.waits++;
    if (core->overtaken) {
        void (*fn)(void *) = core->overtaken;
        core->overtaken = NULL;
        core->cores->inside = false;
        fn(core->overtaken_arg);
        core->cores->inside = true;
    }
}

int pn_core_wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    begin_wait(core);
    if (core->cut)
        return PN_WAIT_CUT;
    struct pollfd p = {.fd = fd, .events = (short)(events & EPOLLIN ? POLLIN : POLLOUT)};
    int64_t left_ns = deadline_ns - pn_clock_mono_ns();
    int ms = deadline_ns == PN_NEVER_NS ? 10000 : left_ns > 0 ? (int)(left_ns / 1000000) + 1 : 0;
    int rc = poll(&p, 1, ms);
    if (rc < 0)
        return errno == EINTR ? PN_WAIT_INTERRUPTED : -errno;
    if (p.revents & POLLNVAL)
        return -EBADF;
    return rc ? PN_WAIT_READY : PN_WAIT_TIMEOUT;
}

int pn_core_sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    begin_wait(core);
    struct timespec t = pn_ns_timespec(deadline_ns);
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR ? PN_WAIT_INTERRUPTED
                                                                              : PN_WAIT_TIMEOUT;
}

void pn_core_yield(struct pn_core *core)
{
    begin_wait(core);
}

uint32_t pn_core_wait_begin(struct pn_core *core)
{
    stub_must_own(__func__);
    core->woken = false;
    return ++core->wait_number;
}

int pn_core_park(struct pn_core *core, uint32_t wait_number, int64_t deadline_ns)
{
    (void)deadline_ns;
    begin_wait(core);
    PN_BUG_ON(core->cores->carrier == PN_CARRIER_INLINE); /* nobody could wake it */
    PN_BUG_ON(wait_number != core->wait_number);
    if (core->cut)
        return PN_WAIT_CUT;
    core->cores->inside = false;
    stub_wire_progress(core->cores->wire);
    core->cores->inside = true;
    PN_BUG_ON(!core->woken);
    return PN_WAIT_READY;
}

void pn_core_unpark(struct pn_core *core, uint32_t wait_number)
{
    if (wait_number == core->wait_number)
        core->woken = true;
}

/* The stub's cut stays: the next wait is one that is cut again. */
void pn_core_cut_seen(struct pn_core *core)
{
    (void)core;
}

bool pn_core_is_cut(const struct pn_core *core)
{
    return core->cut;
}

void stub_cut(void)
{
    current->core.cut = true;
}

struct pn_core *stub_core(struct pn_cores *cores)
{
    return &cores->core;
}
