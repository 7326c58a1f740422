/* SPDX-License-Identifier: Apache-2.0 */
/* The thread carrier: each core is an OS thread; one of them, the runner, has the baton.
 *
 *   idle --designated--> attach, take --> runner: loop steps, requests --offers, or robbed--> follower
 *    ^                     |not FREE                                                             |
 *    +---------------------+-------------- back at its base: idle list, loan returned -----------+
 *
 * Somebody is always on the way to a FREE baton: whoever frees it looks, under the lock, whether a designated core
 * is still coming, and designates one if not (an idle thread, or a new one). A designated core looks at the baton under
 * the same lock, once: it takes it, or is idle again (a follower came first). So one that frees it
 * either meets a core that has yet to look, or finds it on the idle list; nobody is made for want of one
 * that is merely late. Home waits on its own futex for the baton to be moved to it: for its work, and at the end. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "cores/cores_impl.h"

#define STATE_RETRY_NS (10 * PN_NS_PER_MS)
#define QUIET_NS       (200 * PN_NS_PER_US)

enum { FUTEX_LISTS_MAX = 8192 };

/* Linux 6.16 */
#ifndef PR_FUTEX_HASH
#define PR_FUTEX_HASH           78
#define PR_FUTEX_HASH_SET_SLOTS 1
#endif

/* --- Idle threads and successors ------------------------------------------------------------------- */

static void designate(struct pn_core *core)
{
    atomic_store_explicit(&core->designated, 1, memory_order_release);
    pn__futex_wake(&core->designated, 1);
}

static bool is_free(struct pn_cores *cores)
{
    return pn__baton_state_of(pn__baton_load(&cores->baton)) == PN__BATON_FREE;
}

void pn__threads_designate(struct pn_core *core)
{
    designate(core);
}

static void push_locked(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    cores->coming--;
    pn_list_push_front(&cores->idle, &core->node);
    cores->idle_count++;
}

static void uncount_coming(struct pn_cores *cores)
{
    pn__lock_take(&cores->lock);
    cores->coming--;
    pn__lock_drop(&cores->lock);
}

/* An idle core, from now on coming. *COMING: another one is already, and NULL is returned. Where there is
 * none and MAKE is not NULL, *MAKE says that the caller is to make one, which counts as coming already: two who
 * find nobody at the same time are not to make two. */
static struct pn_core *pop_idle(struct pn_cores *cores, bool *coming, bool *make)
{
    struct pn_core *core = NULL;
    pn__lock_take(&cores->lock);
    *coming = cores->coming > 0;
    bool wanted = !*coming;
    if (wanted && !pn_list_empty(&cores->idle)) {
        core = pn_list_entry(pn_list_pop_front(&cores->idle), struct pn_core, node);
        cores->idle_count--;
        cores->coming++;
    } else if (make && wanted) {
        cores->coming++;
    }
    pn__lock_drop(&cores->lock);
    if (make)
        *make = wanted && !core;
    return core;
}

static bool try_leave(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    atomic_store(&core->leaving, true);
    pn__lock_take(&cores->lock);
    bool leave = pn_list_linked(&core->node) && cores->idle_count > PN_CORE_IDLE_KEEP &&
                 !atomic_load(&core->watched);
    if (leave) {
        pn_list_remove(&core->node);
        cores->idle_count--;
    }
    pn__lock_drop(&cores->lock);
    if (!leave)
        atomic_store(&core->leaving, false);
    return leave;
}

/* Detached, on the idle list or in somebody's hand. False: it is to end. */
static bool wait_designated(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    int64_t deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), cores->idle_span_ns);
    while (!atomic_exchange_explicit(&core->designated, 0, memory_order_acquire)) {
        if (atomic_load(&cores->ending))
            return false;
        if (pn__futex_wait(&core->designated, 0, deadline_ns) != -ETIMEDOUT)
            continue;
        if (try_leave(core))
            return false;
        deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), cores->idle_span_ns);
    }
    return !atomic_load(&cores->ending);
}

static void *thread_main(void *arg);

static int spawn(struct pn_core *core)
{
    const struct pn_cores *cores = core->cores;
    pthread_attr_t attr;
    if (core->joinable)
        pthread_join(core->join_handle, NULL); /* it has left already, or is about to return */
    core->joinable = false;
    if (pthread_attr_init(&attr) != 0)
        return -ENOMEM;
    int rc = 0;
    if (cores->config.stack_size > 0)
        rc = pthread_attr_setstacksize(&attr, (cores->config.stack_size + 4095) & ~(size_t)4095);
    /* Whoever makes it may have signals blocked, as the watchdog has: its waits could not be cut, and the children of
     * its requests would inherit that. */
    if (rc == 0)
        rc = pthread_attr_setsigmask_np(&attr, &cores->signals);
    if (rc == 0)
        rc = pthread_create(&core->join_handle, &attr, thread_main, core);
    pthread_attr_destroy(&attr);
    core->joinable = rc == 0;
    return -rc;
}

/* One that pop_idle has counted. */
static struct pn_core *spawn_coming(struct pn_cores *cores)
{
    struct pn_core *core = pn__core_new(cores);
    int rc = core ? spawn(core) : -EAGAIN;
    if (rc == 0)
        return core;
    uncount_coming(cores);
    if (core)
        pn__core_retire(core);
    pn__cores_complain(cores, rc);
    return NULL;
}

bool pn__threads_find(struct pn_cores *cores, struct pn_core **next)
{
    bool coming, make;
    *next = pop_idle(cores, &coming, &make);
    if (make)
        *next = spawn_coming(cores);
    return coming || *next;
}

void pn__threads_freed(struct pn_cores *cores)
{
    bool coming;
    /* It may have looked just before the baton was freed, and be idle again. If it is neither coming nor
     * idle, it has the baton. */
    struct pn_core *core = pop_idle(cores, &coming, NULL);
    if (core)
        designate(core);
}

void pn__threads_push_back(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    pn__lock_take(&cores->lock);
    push_locked(core);
    pn__lock_drop(&cores->lock);
    /* Who freed the baton while this one counted as coming has called nobody. */
    if (is_free(cores))
        pn__threads_freed(cores);
}

void pn__threads_revive(struct pn_cores *cores)
{
    struct pn_core *next;
    if (is_free(cores) && pn__threads_find(cores, &next) && next)
        designate(next);
}

/* --- A thread's life ---------------------------------------------------------------------------------- */

/* A designated core's one look at the baton. False: somebody else has it, this one is idle again. */
static bool take_or_idle(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    for (;;) {
        pn__lock_take(&cores->lock);
        bool taken = pn__baton_take(&cores->baton, core->number);
        bool lent = !taken && is_free(cores);
        if (taken)
            cores->coming--;
        else if (!lent)
            push_locked(core);
        pn__lock_drop(&cores->lock);
        if (taken)
            pn__count(&cores->switches);
        if (!lent)
            return taken;
        sched_yield(); /* FREE, but lent for a moment; the lender may want the lock */
    }
}

/* Runner, at its base: the baton is home's; this core is idle before home can look for a successor. */
static void hand_to_home(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    struct pn_core *home = cores->home;
    pn__idle_push(core);
    pn__count(&cores->switches);
    /* POLLING and not ACTIVE, since home has to wait for the GIL before it can come. */
    pn__baton_move(&cores->baton, home->number, PN__BATON_POLLING);
    designate(home);
}

/* Runner, at its base: a sleeper's time is over. It is woken once this thread has let go of everything. */
static void hand_to_due(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    core->to_call = cores->due;
    cores->due = NULL;
    pn__idle_push(core);
    pn__threads_grant(core->to_call);
}

/* All requests are over but some thread still has frames to unwind: it needs the baton for a moment. */
static void let_others_unwind(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    pn_task_post(cores->loop, &cores->nudge_task);
    pn_core_enter_app(core);
    pn__detach(core);
    (void)pn__os_sleep_until(core, pn_clock_mono_ns() + QUIET_NS);
    pn__attach(core);
    pn_core_leave_app(core);
}

/* Attached, ACTIVE. Until it is not the runner any more; true: it is on the idle list already. */
static bool run_loop(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    while (pn_core_is_runner(core)) {
        if (!cores->due)
            cores->due = pn__threads_take_overdue(cores);
        if (pn_unlikely(cores->due)) {
            hand_to_due(core);
            return true;
        }
        if (pn_unlikely(core->was_cut)) {
            pn__core_settle_as_runner(core);
            continue;
        }
        if (pn_unlikely(pn__baton_wanted(&cores->baton))) {
            pn__baton_let_in(&cores->baton, core->number);
            continue;
        }
        if (cores->home_due) {
            hand_to_home(core);
            return true;
        }
        cores->resumed_run = 0;
        enum pn_step step = pn_loop_step(cores->loop);
        if (pn_likely(step == PN_STEP_AGAIN && !cores->end_wanted))
            continue;
        if (!pn_core_is_runner(core))
            break;
        if (cores->due)
            continue;
        if (pn__cores_end_reached(cores)) {
            hand_to_home(core);
            return true;
        }
        if (cores->end_wanted && cores->under_way == 0)
            let_others_unwind(core);
    }
    return false;
}

/* For a designated core that cannot come: true when it isn't needed any more. */
static bool hand_on(struct pn_cores *cores)
{
    struct pn_core *other = NULL;
    pn__lock_take(&cores->lock);
    bool needed = is_free(cores);
    if (!needed) {
        cores->coming--;
    } else if (!pn_list_empty(&cores->idle)) {
        other = pn_list_entry(pn_list_pop_front(&cores->idle), struct pn_core, node);
        cores->idle_count--; /* it is the one that is coming now */
    }
    pn__lock_drop(&cores->lock);
    if (other)
        designate(other);
    return !needed || other;
}

/* Detached, designated, and without a state: another idle one takes over, or a new try does. */
static bool retry_state(struct pn_core *core, int error)
{
    struct pn_cores *cores = core->cores;
    const struct pn_core_host *host = cores->host;
    pn__cores_complain(cores, error);
    while (!hand_on(cores)) {
        (void)pn__os_sleep_until(core, pn_clock_mono_ns() + STATE_RETRY_NS);
        if (host->state_new(host->ctx, core, &core->state) == 0)
            return true;
    }
    return false;
}

/* Attached, neither runner nor idle: a follower whose frames have ended. */
static void go_idle(struct pn_core *core)
{
    pn__idle_push(core);
    pn_core_return_loan(core);
}

static void serve(struct pn_core *core)
{
    while (wait_designated(core)) {
        pn__attach(core);
        pn__core_settle(core);
        if (take_or_idle(core) && !run_loop(core))
            go_idle(core);
        pn__slots_put(&core->cores->slots, &core->slot);
        pn__detach(core);
        if (core->to_call) {
            pn__threads_call(core->to_call);
            core->to_call = NULL;
        }
    }
}

static void *thread_main(void *arg)
{
    struct pn_core *core = arg;
    const struct pn_core_host *host = core->cores->host;
    char name[16];
    pn__core_self = core;
    core->os_thread = pthread_self();
    snprintf(name, sizeof(name), "pn-core-%u", core->number % 1000000);
    (void)pthread_setname_np(pthread_self(), name);
    int error = host->state_new ? host->state_new(host->ctx, core, &core->state) : 0;
    bool ready = error == 0;
    if (!ready && wait_designated(core)) {
        ready = retry_state(core, error);
        if (ready)
            designate(core);
    }
    if (ready) {
        serve(core);
        atomic_store(&core->leaving, true);
        pn__attach(core);
        pn__core_settle(core); /* it may have gone from its last request to the idle ones */
        if (host->state_end)
            host->state_end(host->ctx, core->state);
        else
            pn__detach(core);
    }
    pn__core_self = NULL;
    pn__core_retire(core);
    return NULL;
}

/* --- On home -------------------------------------------------------------------------------------------- */

/* Each sleeping thread is an entry of the kernel's table of futexes, which has a few lists a process on new kernels
 * however many threads there are: a wake then looks through dozens that are not meant. Older ones
 * know no such call, and need none. */
static void widen_futex_table(unsigned threads)
{
    unsigned long lists = 16;
    if (threads <= lists)
        return;
    while (lists < 2ul * threads && lists < FUTEX_LISTS_MAX)
        lists *= 2;
    (void)prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, lists, 0, 0);
}

static int start(struct pn_cores *cores)
{
    widen_futex_table(cores->config.count);
    pthread_sigmask(SIG_SETMASK, NULL, &cores->signals);
    struct pn_core *first = pn__core_new(cores);
    int rc = first ? spawn(first) : -ENOMEM;
    if (rc == 0)
        pn__idle_push(first);
    else if (first)
        pn__core_retire(first);
    return rc;
}

/* Home has the baton, ACTIVE: it is free for NEXT, or for one that was on its way already (pn__threads_find). */
static void drop_for(struct pn_cores *cores, struct pn_core *next)
{
    pn__baton_drop(&cores->baton);
    if (next)
        designate(next);
    else
        pn__threads_freed(cores);
}

/* Home has the baton, ACTIVE: it goes to one that runs the loop. */
static void pass_on(struct pn_core *home)
{
    struct pn_cores *cores = home->cores;
    struct pn_core *next;
    while (pn_core_is_runner(home)) {
        if (pn__threads_find(cores, &next)) {
            drop_for(cores, next);
            return;
        }
        let_others_unwind(home);
    }
    pn_core_return_loan(home);
}

static int run(struct pn_cores *cores)
{
    struct pn_core *home = cores->home;
    struct pn_core *next;
    if (!pn__threads_find(cores, &next))
        return -EAGAIN;
    drop_for(cores, next);
    for (;;) {
        pn__detach(home);
        while (!atomic_exchange_explicit(&home->designated, 0, memory_order_acquire))
            pn__futex_wait(&home->designated, 0, PN_NEVER_NS);
        pn__attach(home);
        if (pn__baton_get(&cores->baton, home->number, false, NULL) != PN__GOT_RUNNER)
            PN_WRONG("home was called without being given the baton");
        if (cores->finished)
            return 0;
        pn__core_settle_as_runner(home);
        pn__home_steps(cores);
        pass_on(home);
    }
}

static void end(struct pn_cores *cores)
{
    pn__lock_take(&cores->lock);
    atomic_store(&cores->ending, true);
    struct pn_list *node;
    while ((node = pn_list_pop_front(&cores->idle))) {
        cores->idle_count--;
        designate(pn_list_entry(node, struct pn_core, node));
    }
    pn__lock_drop(&cores->lock);
    unsigned n = atomic_load(&cores->all_count);
    for (unsigned i = 0; i < n; i++) {
        struct pn_core *core = cores->all[i];
        if (core->joinable)
            pthread_join(core->join_handle, NULL);
        core->joinable = false;
    }
}

static bool quiet(struct pn_cores *cores)
{
    pn__lock_take(&cores->lock);
    bool all_idle = cores->idle_count + 1 >= cores->carriers;
    pn__lock_drop(&cores->lock);
    return all_idle;
}

/* --- The baton given away -------------------------------------------------------------------------------- */

/* INSIDE and detached, about to block. True: given away, or stolen before. */
bool pn__threads_offer(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    bool coming, make;
    if (!pn__baton_offer(&cores->baton, core->number))
        return true;
    struct pn_core *next = pop_idle(cores, &coming, &make);
    if (coming)
        return true;
    if (make)
        next = spawn_coming(cores);
    if (next) {
        designate(next);
        return true;
    }
    /* FREE and nobody to be had: this core stays the runner, unless a follower was quicker. */
    while (!pn__baton_take(&cores->baton, core->number)) {
        if (!is_free(cores))
            return true;
        sched_yield();
    }
    pn_core_enter_app(core);
    return false;
}

static void wake(struct pn_core *core)
{
    (void)core;
    PN_WRONG("a thread blocks, it is never parked");
}

const struct pn__carrier pn__carrier_threads = {
    .start = start,
    .run = run,
    .end = end,
    .quiet = quiet,
    .wait_fd = pn__threads_wait_fd,
    .sleep_until = pn__threads_sleep_until,
    .park = pn__threads_park,
    .yield = pn__threads_yield,
    .block_begin = pn__threads_block_begin,
    .block_end = pn__threads_block_end,
    .wake = wake,
    .poke = pn__watchdog_signal,
};
