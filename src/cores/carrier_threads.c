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
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cores/cores_impl.h"

#define STATE_RETRY_NS (10 * PN_NS_PER_MS)
#define STUCK_NS       (10 * PN_NS_PER_MS) /* between two tries to find a successor */
#define QUIET_NS       (200 * PN_NS_PER_US)

/* How a wait beside the loop ended. */
enum beside {
    BESIDE_FD = 0,     /* the fd is ready: the baton stayed */
    BESIDE_TIME = 1,   /* the deadline has come: it stayed */
    BESIDE_SIGNAL = 2, /* a signal or a cut: it stayed */
    BESIDE_GONE = 3,   /* given away, or not had: block */
    BESIDE_NOBODY = 4, /* the loop has work, and nobody could be had to do it */
    BESIDE_BAD_FD = 5,
};

/* --- Idle threads and successors ------------------------------------------------------------------- */

static void designate(struct pn_core *core)
{
    atomic_store_explicit(&core->designated, 1, memory_order_release);
    pn__futex_wake(&core->designated, 1);
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

void pn__threads_push_back(struct pn_core *core)
{
    pn__lock_take(&core->cores->lock);
    push_locked(core);
    pn__lock_drop(&core->cores->lock);
}

static void count_coming(struct pn_cores *cores, int by)
{
    pn__lock_take(&cores->lock);
    cores->coming += (unsigned)by;
    pn__lock_drop(&cores->lock);
}

/* An idle core, from now on coming. UNLESS_COMING: none if another one is; then *COMING is true. */
static struct pn_core *pop_idle(struct pn_cores *cores, bool unless_coming, bool *coming)
{
    struct pn_core *core = NULL;
    pn__lock_take(&cores->lock);
    *coming = cores->coming > 0;
    if (!pn_list_empty(&cores->idle) && !(unless_coming && *coming)) {
        core = pn_list_entry(pn_list_pop_front(&cores->idle), struct pn_core, node);
        cores->idle_count--;
        cores->coming++;
    }
    pn__lock_drop(&cores->lock);
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
    if (rc == 0)
        rc = pthread_create(&core->join_handle, &attr, thread_main, core);
    pthread_attr_destroy(&attr);
    core->joinable = rc == 0;
    return -rc;
}

static struct pn_core *spawn_coming(struct pn_cores *cores)
{
    struct pn_core *core = pn__core_new(cores);
    count_coming(cores, 1);
    int rc = core ? spawn(core) : -EAGAIN;
    if (rc == 0)
        return core;
    count_coming(cores, -1);
    if (core)
        pn__core_retire(core);
    pn__cores_complain(cores, rc);
    return NULL;
}

/* An idle thread, or a new one; NULL. */
static struct pn_core *successor(struct pn_cores *cores)
{
    bool coming;
    struct pn_core *core = pop_idle(cores, false, &coming);
    return core ? core : spawn_coming(cores);
}

bool pn__threads_find(struct pn_cores *cores, struct pn_core **next)
{
    bool coming;
    *next = pop_idle(cores, true, &coming);
    if (!*next && !coming)
        *next = spawn_coming(cores);
    return coming || *next;
}

void pn__threads_freed(struct pn_cores *cores)
{
    bool coming;
    /* It may have looked just before the baton was freed, and be idle again. If it is neither coming nor
     * idle, it has the baton. */
    struct pn_core *core = pop_idle(cores, true, &coming);
    if (core)
        designate(core);
}

/* --- A thread's life ---------------------------------------------------------------------------------- */

/* A designated core's one look at the baton. False: somebody else has it, this one is idle again. */
static bool take_or_idle(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    for (;;) {
        pn__lock_take(&cores->lock);
        bool taken = pn__baton_take(&cores->baton, core->number);
        bool lent = !taken && pn__baton_state_of(pn__baton_load(&cores->baton)) == PN__BATON_FREE;
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
        enum pn_step step = pn_loop_step(cores->loop);
        if (pn_likely(step == PN_STEP_AGAIN && !cores->end_wanted))
            continue;
        if (!pn_core_is_runner(core))
            break;
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
    bool needed = pn__baton_state_of(pn__baton_load(&cores->baton)) == PN__BATON_FREE;
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

static int start(struct pn_cores *cores)
{
    struct pn_core *first = pn__core_new(cores);
    int rc = first ? spawn(first) : -ENOMEM;
    if (rc == 0)
        pn__idle_push(first);
    else if (first)
        pn__core_retire(first);
    return rc;
}

/* Home has the baton, ACTIVE: it goes to one that runs the loop. */
static void pass_on(struct pn_core *home)
{
    struct pn_cores *cores = home->cores;
    while (pn_core_is_runner(home)) {
        struct pn_core *next = successor(cores);
        if (next) {
            pn__baton_drop(&cores->baton);
            designate(next);
            return;
        }
        let_others_unwind(home);
    }
    pn_core_return_loan(home);
}

static int run(struct pn_cores *cores)
{
    struct pn_core *home = cores->home;
    struct pn_core *next = successor(cores);
    if (!next)
        return -EAGAIN;
    pn__baton_drop(&cores->baton);
    designate(next);
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

/* --- Waiting ---------------------------------------------------------------------------------------------- */

/* INSIDE and detached, about to block. True: given away, or stolen before. */
static bool offer(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    bool coming;
    if (!pn__baton_offer(&cores->baton, core->number))
        return true;
    struct pn_core *next = pop_idle(cores, true, &coming);
    if (coming)
        return true;
    if (!next)
        next = spawn_coming(cores);
    if (next) {
        designate(next);
        return true;
    }
    /* FREE and nobody to be had: this core stays the runner, unless a follower was quicker. */
    while (!pn__baton_take(&cores->baton, core->number)) {
        if (pn__baton_state_of(pn__baton_load(&cores->baton)) != PN__BATON_FREE)
            return true;
        sched_yield();
    }
    pn_core_enter_app(core);
    return false;
}

/* INSIDE -> ACTIVE for a look at the loop; false: it was stolen. */
static bool look_in(struct pn_core *core)
{
    struct pn__baton *b = &core->cores->baton;
    while (!pn__baton_leave(b, core->number)) {
        if (!pn__baton_is(b, core->number, PN__BATON_INSIDE))
            return false;
        sched_yield(); /* lent */
    }
    return true;
}

/* POLLING: sleeps on the fd and on the loop's poller at once. */
static enum beside poll_both(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns,
                             int64_t loop_deadline_ns)
{
    struct pn_cores *cores = core->cores;
    struct pn_poller *poller = pn_loop_poller(cores->loop);
    struct pollfd p[2] = {{.fd = poller->fd(poller), .events = POLLIN},
                          {.fd = fd, .events = (short)events}};
    int64_t until_ns = deadline_ns < loop_deadline_ns ? deadline_ns : loop_deadline_ns;
    struct timespec t;
    pn__baton_move(&cores->baton, core->number, PN__BATON_POLLING);
    pn__blocking_begin(core);
    int n = -1;
    if (!atomic_load(&core->cut_wait)) {
        int64_t left = until_ns == PN_NEVER_NS ? 0 : until_ns - pn_clock_mono_ns();
        t = pn_ns_timespec(left > 0 ? left : 0);
        n = ppoll(p, fd >= 0 ? 2 : 1, until_ns == PN_NEVER_NS ? NULL : &t, NULL);
    }
    pn__blocking_end(core);
    if (pn__baton_get(&cores->baton, core->number, false, NULL) != PN__GOT_RUNNER)
        PN_WRONG("only the poller itself ends its POLLING");
    pn__watchdog_rouse(cores);
    if (n < 0)
        return BESIDE_SIGNAL;
    if (fd >= 0 && p[1].revents)
        return p[1].revents & POLLNVAL ? BESIDE_BAD_FD : BESIDE_FD;
    if (n == 0 && deadline_ns <= loop_deadline_ns)
        return BESIDE_TIME;
    return BESIDE_GONE;
}

/* Detached, inside the application. If this is the runner, waits for FD and for the loop at once while
 * DEADLINE_NS is ahead, and gives the baton away as soon as the loop has something to do. WATCH false: gives it
 * away without waiting, when there is anybody else at all. ALWAYS: whatever ended the wait, unless
 * it was the fd. */
static enum beside wait_beside(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns,
                               bool watch, bool always)
{
    struct pn_cores *cores = core->cores;
    struct pn_poller *poller = pn_loop_poller(cores->loop);
    enum beside how = BESIDE_GONE;
    int64_t loop_deadline_ns;
    PN_ASSERT(!pn_core_owns_loop(core));
    if (!look_in(core))
        return BESIDE_GONE;
    if (watch && poller->fd(poller) >= 0 && pn_loop_sleep_begin(cores->loop, &loop_deadline_ns)) {
        how = poll_both(core, fd, events, deadline_ns, loop_deadline_ns);
        pn_loop_sleep_end(cores->loop);
    }
    bool give = how == BESIDE_GONE || (always && how != BESIDE_FD && how != BESIDE_BAD_FD);
    if (give)
        pn__core_overtake(core);
    pn_core_enter_app(core);
    if (!give)
        return how;
    if (offer(core))
        return BESIDE_GONE;
    if (look_in(core)) {
        pn__cores_lower_limit(cores);
        pn_core_enter_app(core);
    }
    return BESIDE_NOBODY;
}

/* From here the thread blocks as any thread does. */
static void away_begin(struct pn_core *core)
{
    pn__count(&core->cores->waits);
    pn__slots_put(&core->cores->slots, &core->slot);
}

static void away_end(struct pn_core *core)
{
    (void)pn__slots_get(&core->cores->slots, &core->slot, PN_CORE_SLOT_WAIT_MS * PN_NS_PER_MS);
}

static int wait_signal(struct pn_core *core)
{
    return pn__wait_take_cut(core) ? PN_WAIT_CUT : PN_WAIT_INTERRUPTED;
}

static int wait_any(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    for (;;) {
        enum beside how = wait_beside(core, fd, events, deadline_ns, true, false);
        switch (how) {
        case BESIDE_FD:
            return PN_WAIT_READY;
        case BESIDE_TIME:
            return PN_WAIT_TIMEOUT;
        case BESIDE_SIGNAL:
            return wait_signal(core);
        case BESIDE_BAD_FD:
            return -EBADF;
        case BESIDE_GONE:
        case BESIDE_NOBODY:
            break;
        }
        int64_t until_ns = deadline_ns;
        if (how == BESIDE_NOBODY) {
            int64_t next_try_ns = pn_clock_mono_ns() + STUCK_NS;
            until_ns = deadline_ns < next_try_ns ? deadline_ns : next_try_ns;
        }
        away_begin(core);
        int rc = fd >= 0 ? pn__os_wait_fd(core, fd, events, until_ns)
                         : pn__os_sleep_until(core, until_ns);
        away_end(core);
        if (rc != PN_WAIT_TIMEOUT || until_ns == deadline_ns)
            return rc;
    }
}

static int wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    if (fd < 0)
        return -EBADF;
    pn__wait_private(core);
    return wait_any(core, fd, events, deadline_ns);
}

static int sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    pn__wait_private(core);
    return wait_any(core, -1, 0, deadline_ns);
}

static int park(struct pn_core *core, uint32_t number, int64_t deadline_ns)
{
    /* A wait without an fd cannot be polled beside the loop. Where nobody can take over, the watchdog
     * goes on trying: the stay is INSIDE. */
    (void)wait_beside(core, -1, 0, PN_NEVER_NS, false, false);
    away_begin(core);
    int rc = pn__os_park(core, number, deadline_ns);
    away_end(core);
    return rc;
}

static void yield(struct pn_core *core)
{
    bool work = false;
    if (look_in(core)) {
        work = pn_loop_has_work(core->cores->loop);
        pn_core_enter_app(core);
    }
    if (!work) {
        sched_yield();
        return;
    }
    (void)wait_beside(core, -1, 0, PN_NEVER_NS, false, false);
    away_begin(core);
    sched_yield();
    away_end(core);
}

static bool block_begin(struct pn_core *core, int fd, uint32_t events)
{
    int64_t until_ns = pn_deadline_ns(pn_clock_mono_ns(), core->cores->config.lease_ns);
    enum beside how = wait_beside(core, fd, events, until_ns, fd >= 0, true);
    if (how == BESIDE_FD)
        return false;
    away_begin(core);
    pn__blocking_begin(core);
    return true;
}

static void block_end(struct pn_core *core)
{
    pn__blocking_end(core);
    (void)pn__wait_take_cut(core); /* whoever made the call looks at pn_core_is_cut */
    away_end(core);
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
    .wait_fd = wait_fd,
    .sleep_until = sleep_until,
    .park = park,
    .yield = yield,
    .block_begin = block_begin,
    .block_end = block_end,
    .wake = wake,
    .poke = pn__watchdog_signal,
};
