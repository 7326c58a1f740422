/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting, as far as the carriers do it alike: wait numbers and wakes, cuts, and the waits in which an OS
 * thread really blocks. The functions of core.h keep errno here, for all carriers.
 *
 *   core->wait:  OVER --wait_begin--> ARMED --park--> PARKED or BLOCKED --(end of the wait)--> OVER
 *                                       |                   |
 *                                       +----unpark---------+--> WOKEN --> OVER
 *
 * A sleep of the thread carrier, whose end the loop keeps: BLOCKED --promised the baton--> GRANTED --has it--> WOKEN.
 *
 * The number stands in the same word, so that a wake and a wait agree in one compare-and-swap. */
#include <poll.h>
#include <unistd.h>

#include "cores/cores_impl.h"
#include "cores/sys.h"

PN_STATIC_ASSERT(POLLIN == EPOLLIN && POLLPRI == EPOLLPRI && POLLOUT == EPOLLOUT,
                 "poll and epoll use the same bits");
PN_STATIC_ASSERT(POLLERR == EPOLLERR && POLLHUP == EPOLLHUP && POLLRDHUP == EPOLLRDHUP,
                 "poll and epoll use the same bits");

/* --- The public functions: errno is the caller's ------------------------------------------------------ */

int pn_core_wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    int saved = errno;
    int rc = core->cores->carrier->wait_fd(core, fd, events, deadline_ns);
    errno = saved;
    return rc;
}

int pn_core_sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    int saved = errno;
    int rc = core->cores->carrier->sleep_until(core, deadline_ns);
    errno = saved;
    return rc;
}

void pn_core_yield(struct pn_core *core)
{
    int saved = errno;
    core->cores->carrier->yield(core);
    errno = saved;
}

bool pn_core_block_begin(struct pn_core *core, int fd, uint32_t events)
{
    int saved = errno;
    bool offered = core->cores->carrier->block_begin(core, fd, events);
    errno = saved;
    return offered;
}

void pn_core_block_end(struct pn_core *core)
{
    int saved = errno;
    core->cores->carrier->block_end(core);
    errno = saved;
}

uint32_t pn_core_wait_begin(struct pn_core *core)
{
    uint32_t number = ++core->wait_number;
    atomic_store_explicit(&core->wait, pn__wait_word(number, PN__WAIT_ARMED), memory_order_release);
    return number;
}

int pn_core_park(struct pn_core *core, uint32_t wait_number, int64_t deadline_ns)
{
    int saved = errno;
    int rc = PN_WAIT_READY; /* a wake that came before: nobody needs to sleep */
    uint64_t w = atomic_load_explicit(&core->wait, memory_order_acquire);
    PN_ASSERT(w >> PN__WAIT_BITS == wait_number);
    if (w == pn__wait_word(wait_number, PN__WAIT_ARMED))
        rc = core->cores->carrier->park(core, wait_number, deadline_ns);
    w = atomic_exchange_explicit(&core->wait, pn__wait_word(wait_number, PN__WAIT_OVER),
                                 memory_order_acq_rel);
    if (w == pn__wait_word(wait_number, PN__WAIT_WOKEN))
        rc = PN_WAIT_READY;
    errno = saved;
    return rc;
}

void pn_core_unpark(struct pn_core *core, uint32_t wait_number)
{
    uint64_t w = atomic_load_explicit(&core->wait, memory_order_acquire);
    enum pn__wait_state state;
    do {
        state = (enum pn__wait_state)(w & ((1u << PN__WAIT_BITS) - 1));
        if (w >> PN__WAIT_BITS != wait_number || state == PN__WAIT_OVER || state == PN__WAIT_WOKEN)
            return;
    } while (!atomic_compare_exchange_weak_explicit(&core->wait, &w,
                                                    pn__wait_word(wait_number, PN__WAIT_WOKEN),
                                                    memory_order_acq_rel, memory_order_acquire));
    if (state == PN__WAIT_BLOCKED) {
        pn__futex_wake((const _Atomic uint32_t *)(const void *)&core->wait, 1);
    } else if (state == PN__WAIT_PARKED) {
        int saved = errno;
        core->cores->carrier->wake(core);
        errno = saved;
    }
}

void pn__wait_private(struct pn_core *core)
{
    uint32_t number = ++core->wait_number;
    atomic_store_explicit(&core->wait, pn__wait_word(number, PN__WAIT_OVER), memory_order_release);
}

/* --- Cuts ---------------------------------------------------------------------------------------------- */

void pn_core_cut(struct pn_core *core)
{
    if (pn__core_busy(core))
        pn__watchdog_cut(core);
}

bool pn_core_is_cut(const struct pn_core *core)
{
    return atomic_load_explicit(&core->cut, memory_order_relaxed);
}

void pn_core_cut_seen(struct pn_core *core)
{
    atomic_store(&core->cut_seen, true);
    core->wait_was_cut = false;
    pn__wait_out_pokes(core);
}

bool pn__wait_take_cut(struct pn_core *core)
{
    if (pn_likely(!pn__cut_is_due(core)) || !atomic_exchange(&core->cut_wait, false))
        return false;
    /* What the application waits for next, in a clean-up, is not to be interrupted. */
    pn__wait_out_pokes(core);
    core->wait_was_cut = true;
    return true;
}

void pn_core_cut_passed(struct pn_core *core)
{
    if (pn_likely(!core->wait_was_cut))
        return;
    core->wait_was_cut = false;
    pn__watchdog_cut_wait(core);
}

void pn_core_cut_failed(struct pn_core *core)
{
    const struct pn_core_host *host = core->cores->host;
    if (!core->wait_was_cut)
        return;
    core->wait_was_cut = false;
    /* A second one is meant for who has gone on behind the first. */
    if (!host->unraise || atomic_load(&core->raises) != 1 || atomic_load(&core->cut_seen))
        return;
    int saved = errno;
    pn__attach(core);
    host->unraise(host->ctx, core->state);
    pn__detach(core);
    errno = saved;
}

void pn__wait_out_pokes(struct pn_core *core)
{
    while (atomic_load(&core->poking))
        sched_yield();
    (void)getppid(); /* a signal that was sent is delivered at the end of any system call */
}

/* --- Really blocking ----------------------------------------------------------------------------------- */

void pn__blocking_begin(struct pn_core *core)
{
    /* Before cut_wait is read; the watchdog writes that and then reads this: one of the two sees the other. */
    atomic_store(&core->blocking, true);
    atomic_fetch_add_explicit(&core->cores->waiting, 1, memory_order_relaxed);
}

void pn__blocking_end(struct pn_core *core)
{
    atomic_fetch_sub_explicit(&core->cores->waiting, 1, memory_order_relaxed);
    atomic_store(&core->blocking, false);
}

int pn__wait_poll_result(short revents)
{
    return revents & POLLNVAL ? -EBADF : PN_WAIT_READY;
}

static struct timespec *span_until(int64_t deadline_ns, struct timespec *t)
{
    if (deadline_ns == PN_NEVER_NS)
        return NULL;
    int64_t left = deadline_ns - pn_clock_mono_ns();
    *t = pn_ns_timespec(left > 0 ? left : 0);
    return t;
}

/* FD -1: nothing but the time, a signal or a cut. */
static int os_wait(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = (short)events};
    struct timespec t;
    int rc;
    pn__blocking_begin(core);
    if (pn__wait_take_cut(core)) {
        rc = PN_WAIT_CUT;
    } else {
        int n = ppoll(&p, fd >= 0 ? 1 : 0, span_until(deadline_ns, &t), NULL);
        if (n > 0)
            rc = pn__wait_poll_result(p.revents);
        else if (n == 0)
            rc = PN_WAIT_TIMEOUT;
        else if (pn__wait_take_cut(core))
            rc = PN_WAIT_CUT;
        else
            rc = errno == EINTR ? PN_WAIT_INTERRUPTED : -errno;
    }
    pn__blocking_end(core);
    return rc;
}

int pn__os_wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    pn__wait_private(core);
    return fd < 0 ? -EBADF : os_wait(core, fd, events, deadline_ns);
}

int pn__os_sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    pn__wait_private(core);
    return os_wait(core, -1, 0, deadline_ns);
}

int pn__os_park(struct pn_core *core, uint32_t number, int64_t deadline_ns)
{
    const uint64_t blocked = pn__wait_word(number, PN__WAIT_BLOCKED);
    uint64_t w = atomic_load_explicit(&core->wait, memory_order_acquire);
    do {
        if (w == pn__wait_word(number, PN__WAIT_WOKEN))
            return PN_WAIT_READY;
    } while (!atomic_compare_exchange_weak_explicit(&core->wait, &w, blocked, memory_order_acq_rel,
                                                    memory_order_acquire));
    int rc = PN_WAIT_READY;
    pn__blocking_begin(core);
    while (rc == PN_WAIT_READY &&
           atomic_load_explicit(&core->wait, memory_order_acquire) == blocked) {
        if (pn__wait_take_cut(core)) {
            rc = PN_WAIT_CUT;
            break;
        }
        /* The low half of the word: x86-64 is little-endian. */
        int e = pn__futex_wait((const _Atomic uint32_t *)(const void *)&core->wait,
                               (uint32_t)blocked, deadline_ns);
        if (e == -ETIMEDOUT)
            rc = PN_WAIT_TIMEOUT;
        else if (e == -EINTR)
            rc = pn__wait_take_cut(core) ? PN_WAIT_CUT : PN_WAIT_INTERRUPTED;
    }
    pn__blocking_end(core);
    return rc;
}
