/* SPDX-License-Identifier: Apache-2.0 */
/* How a core of the thread carrier waits: beside the loop while it can, and else by giving the baton away.
 *
 * The baton goes to who has use for it, and wakes nobody in vain:
 *
 *   a sleeping core whose time is over   INSIDE of that core, which wakes with it: its deadline is a timer of the loop
 *   the first in the queue for a slot    the same
 *   an idle core, or a new one           FREE: it has no frames to go on with, and begins with the loop
 *
 * So with many sleepers a request costs two wake-ups: one to go on with, and one for whoever takes the loop over
 * while it sleeps; and they are one and the same where the other request's time is over just then. */
#include <poll.h>

#include "cores/cores_impl.h"

#define STUCK_NS (10 * PN_NS_PER_MS) /* between two tries to find a successor */
/* A sleeper whose time is over so long goes on before anything else of the loop. */
#define OVERDUE_NS (PN_CORE_SLOT_WAIT_MS * PN_NS_PER_MS)
/* It looks for itself after this, though somebody must have given it the baton long before. Not sooner: a time-out
 * that is the next of the kernel's timers costs each time that it is set aside. */
#define RECHECK_NS (PN_CORE_RECHECK_MS * PN_NS_PER_MS)

/* Given straight to others between two steps of the loop, which is not to starve. */
enum { GIVEN_MAX = 4 };

/* How a wait beside the loop ended. */
enum beside {
    BESIDE_FD = 0,     /* the fd is ready: the baton stayed */
    BESIDE_TIME = 1,   /* the deadline has come: it stayed */
    BESIDE_SIGNAL = 2, /* a signal or a cut: it stayed */
    BESIDE_GONE = 3,   /* given away, or not had: block */
    BESIDE_NOBODY = 4, /* the loop has work, and nobody could be had to do it */
    BESIDE_BAD_FD = 5,
};

/* --- Sleepers whose time is over ------------------------------------------------------------------------- */

static const _Atomic uint32_t *low_half(const struct pn_core *core)
{
    return (const _Atomic uint32_t *)(const void *)&core->wait; /* x86-64 is little-endian */
}

/* Owner. From here CORE sleeps until it is given the baton. False: its sleep has ended otherwise. */
static bool promise(struct pn_core *core)
{
    uint64_t w = pn__wait_word(core->sleep_number, PN__WAIT_BLOCKED);
    return atomic_compare_exchange_strong_explicit(
        &core->wait, &w, pn__wait_word(core->sleep_number, PN__WAIT_GRANTED), memory_order_acq_rel,
        memory_order_relaxed);
}

/* A sleeper goes on. More than the turn has had events: nobody is left whose request begins to wait, and who could
 * have given it the baton by the way. A look for new events pays, since what has gone on makes some. */
static void count_sleeper(struct pn_cores *cores)
{
    uint64_t turn = pn_loop_turn(cores->loop);
    if (cores->sleepers_turn != turn) {
        cores->sleepers_turn = turn;
        cores->sleepers_run = 0;
    }
    if (++cores->sleepers_run > pn_loop_turn_events(cores->loop))
        pn_loop_rest_timers(cores->loop);
}

/* The timer of a sleep, fired by the loop: the runner's base sees it at once. */
static void time_over(struct pn_timer *timer)
{
    struct pn_core *core = pn_container_of(timer, struct pn_core, timer);
    struct pn_cores *cores = core->cores;
    PN_ASSERT(!cores->due);
    if (!promise(core))
        return;
    cores->due = core;
    count_sleeper(cores);
}

/* ACTIVE -> INSIDE of CORE, which is promised the baton. It sleeps until pn__threads_call. */
void pn__threads_grant(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    pn__count(&cores->switches);
    pn__baton_move(&cores->baton, core->number, PN__BATON_INSIDE);
}

void pn__threads_call(struct pn_core *core)
{
    atomic_store_explicit(&core->wait, pn__wait_word(core->sleep_number, PN__WAIT_WOKEN),
                          memory_order_release);
    pn__futex_wake(low_half(core), 1);
}

/* Owner. A sleeper whose time has been over for SPAN_NS, promised the baton. */
static struct pn_core *take_due(struct pn_cores *cores, int64_t span_ns)
{
    struct pn_loop *loop = cores->loop;
    struct pn_timer *timer;
    while ((timer = pn_loop_next_timer(loop)) && timer->fire == time_over &&
           timer->deadline_ns + span_ns <= pn_loop_update_now(loop)) {
        struct pn_core *core = pn_container_of(timer, struct pn_core, timer);
        pn_timer_cancel(loop, timer);
        if (promise(core))
            return core;
    }
    return NULL;
}

struct pn_core *pn__threads_take_overdue(struct pn_cores *cores)
{
    if (cores->resumed_run >= GIVEN_MAX)
        return NULL;
    struct pn_core *core = take_due(cores, OVERDUE_NS);
    if (core)
        cores->resumed_run++;
    return core;
}

/* ACTIVE: to one that can go on with its request. False: there is none, or it is the loop's turn. */
static bool give_to_waiting(struct pn_cores *cores)
{
    if (cores->resumed_run >= GIVEN_MAX)
        return false;
    struct pn_core *sleeper = take_due(cores, 0);
    struct pn__slot *slot = sleeper ? NULL : pn__slots_pop(&cores->slots);
    if (!sleeper && !slot)
        return false;
    cores->resumed_run++;
    if (sleeper) {
        count_sleeper(cores);
        pn__threads_grant(sleeper);
        pn__threads_call(sleeper);
    } else {
        pn__threads_grant(pn_container_of(slot, struct pn_core, slot));
        pn__slots_release(slot);
    }
    return true;
}

/* ACTIVE and detached, about to block. False: nobody could be had, and it is INSIDE again. */
static bool give_away(struct pn_core *core)
{
    if (give_to_waiting(core->cores))
        return true;
    pn_core_enter_app(core);
    return pn__threads_offer(core);
}

/* --- Beside the loop ---------------------------------------------------------------------------------------- */

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
    if (poller->settle)
        poller->settle(poller);
    int n = -1;
    if (!pn__cut_is_due(core)) {
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

/* ACTIVE. Waits for FD and for the loop at once while neither has anything to do. Home may be due though the loop
 * is at rest: a sleeper was given the baton before its turn. */
static enum beside poll_beside(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    struct pn_loop *loop = core->cores->loop;
    struct pn_poller *poller = pn_loop_poller(loop);
    int64_t loop_deadline_ns;
    if (core->cores->home_due)
        return BESIDE_GONE;
    if (poller->fd(poller) < 0 || !pn_loop_sleep_begin(loop, &loop_deadline_ns))
        return BESIDE_GONE;
    enum beside how = poll_both(core, fd, events, deadline_ns, loop_deadline_ns);
    pn_loop_sleep_end(loop);
    return how;
}

/* Nobody could be had for the baton, and this core is INSIDE again, unless it was robbed meanwhile (false). */
static bool stuck(struct pn_core *core)
{
    if (!look_in(core))
        return false;
    pn__cores_lower_limit(core->cores);
    return true;
}

/* Detached, inside the application. If this is the runner, waits for FD and for the loop at once while
 * DEADLINE_NS is ahead, and gives the baton away as soon as the loop has something to do. WATCH false: gives it
 * away without waiting, when there is anybody else at all. ALWAYS: whatever ended the wait, unless
 * it was the fd. */
static enum beside wait_beside(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns,
                               bool watch, bool always)
{
    enum beside how = BESIDE_GONE;
    PN_ASSERT(!pn_core_owns_loop(core));
    if (!look_in(core))
        return BESIDE_GONE;
    if (watch)
        how = poll_beside(core, fd, events, deadline_ns);
    if (how != BESIDE_GONE && (!always || how == BESIDE_FD || how == BESIDE_BAD_FD)) {
        pn_core_enter_app(core);
        return how;
    }
    pn__core_overtake(core);
    if (give_away(core))
        return BESIDE_GONE;
    if (stuck(core))
        pn_core_enter_app(core);
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

int pn__threads_wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    if (fd < 0)
        return -EBADF;
    pn__wait_private(core);
    return wait_any(core, fd, events, deadline_ns);
}

/* --- Sleeping ------------------------------------------------------------------------------------------------ */

/* BLOCKED, and at an end for another reason than the baton. False: that is on its way after all. */
static bool leave_sleep(struct pn_core *core)
{
    uint64_t w = pn__wait_word(core->wait_number, PN__WAIT_BLOCKED);
    return atomic_compare_exchange_strong_explicit(&core->wait, &w,
                                                   pn__wait_word(core->wait_number, PN__WAIT_OVER),
                                                   memory_order_acq_rel, memory_order_relaxed);
}

/* Its thread sleeps until it is given the baton, which TRUE says, or *HOW has come about. */
static bool sleep_for_baton(struct pn_core *core, int64_t deadline_ns, int *how)
{
    const uint64_t blocked = pn__wait_word(core->wait_number, PN__WAIT_BLOCKED);
    const uint64_t woken = pn__wait_word(core->wait_number, PN__WAIT_WOKEN);
    const int64_t until_ns = pn_deadline_ns(deadline_ns, RECHECK_NS);
    uint64_t w;
    while ((w = atomic_load_explicit(&core->wait, memory_order_acquire)) != woken) {
        int e = -EINTR;
        if (w != blocked || !pn__cut_is_due(core))
            e = pn__futex_wait(low_half(core), (uint32_t)w, w == blocked ? until_ns : PN_NEVER_NS);
        if (w != blocked || (e != -EINTR && e != -ETIMEDOUT))
            continue;
        if (e == -EINTR)
            *how = wait_signal(core);
        else
            pn_core_count_recheck(core);
        if (leave_sleep(core))
            return false;
    }
    return true;
}

/* The timer of the loop is set and the baton given away. */
static int sleep_away(struct pn_core *core, int64_t deadline_ns)
{
    int how = PN_WAIT_TIMEOUT;
    away_begin(core);
    pn__blocking_begin(core);
    bool given = sleep_for_baton(core, deadline_ns, &how);
    pn__blocking_end(core);
    if (!given)
        away_end(core);
    return how;
}

/* ACTIVE: from here whoever has the baton may give it to this core when its time is over. 0 or -ENOMEM. */
static int sleep_begin(struct pn_core *core, int64_t deadline_ns)
{
    if (!core->timer.fire)
        pn_timer_init(&core->timer,
                      time_over); /* once a struct: it may still be set of a former life */
    int rc = pn_timer_set(core->cores->loop, &core->timer, deadline_ns);
    if (rc < 0)
        return rc;
    core->sleep_number = core->wait_number;
    atomic_store_explicit(&core->wait, pn__wait_word(core->wait_number, PN__WAIT_BLOCKED),
                          memory_order_release);
    return 0;
}

/* ACTIVE: nobody sleeps after all. */
static void sleep_cancel(struct pn_core *core)
{
    pn_timer_cancel(core->cores->loop, &core->timer);
    pn__wait_private(core);
}

int pn__threads_sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    pn__wait_private(core);
    PN_ASSERT(!pn_core_owns_loop(core));
    /* A follower doesn't own the loop, whose timer it would be. */
    if (deadline_ns == PN_NEVER_NS || !look_in(core))
        return wait_any(core, -1, 0, deadline_ns);
    enum beside how = poll_beside(core, -1, 0, deadline_ns);
    if (how == BESIDE_GONE && sleep_begin(core, deadline_ns) == 0) {
        pn__core_overtake(core);
        if (give_away(core) || !stuck(core))
            return sleep_away(core, deadline_ns);
        sleep_cancel(core);
    }
    pn_core_enter_app(core);
    switch (how) {
    case BESIDE_TIME:
        return PN_WAIT_TIMEOUT;
    case BESIDE_SIGNAL:
        return wait_signal(core);
    default:
        return wait_any(core, -1, 0, deadline_ns);
    }
}

/* --- The other waits ------------------------------------------------------------------------------------------ */

int pn__threads_park(struct pn_core *core, uint32_t number, int64_t deadline_ns)
{
    /* A wait without an fd cannot be polled beside the loop. Where nobody can take over, the watchdog
     * goes on trying: the stay is INSIDE. */
    (void)wait_beside(core, -1, 0, PN_NEVER_NS, false, false);
    away_begin(core);
    int rc = pn__os_park(core, number, deadline_ns);
    away_end(core);
    return rc;
}

void pn__threads_yield(struct pn_core *core)
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

bool pn__threads_block_begin(struct pn_core *core, int fd, uint32_t events)
{
    int64_t until_ns = pn_deadline_ns(pn_clock_mono_ns(), core->cores->config.lease_ns);
    enum beside how = wait_beside(core, fd, events, until_ns, fd >= 0, true);
    if (how == BESIDE_FD)
        return false;
    away_begin(core);
    pn__blocking_begin(core);
    return true;
}

void pn__threads_block_end(struct pn_core *core)
{
    pn__blocking_end(core);
    (void)pn__wait_take_cut(core); /* whoever made the call looks at pn_core_is_cut */
    away_end(core);
}
