/* SPDX-License-Identifier: Apache-2.0 */
/* Waits for one descriptor, and what happens when it is closed under them.
 *
 * Who closes may be any thread, a signal handler, or the child of a vfork, and none of these may touch the
 * loop: it sets a bit for the descriptor and sends one message. Whoever owns the loop then asks the kernel
 * which registrations are gone. A closer costs one load when nobody waits for that number. */
#include "wait/fds.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/clock.h"

#define STALE_SLEEP_MAX_NS (20 * PN_NS_PER_MS)

enum {
    FD_BUCKETS = 1024,  /* by descriptor; two in one bucket cost a look too many */
    FD_HINTS = 1 << 14, /* descriptors above have no hint */
};

/* Process-wide, as descriptors are. */
static struct {
    _Atomic uint32_t waiting[FD_BUCKETS]; /* fibers */
    _Atomic uint64_t closed[FD_BUCKETS / 64];
    atomic_bool told; /* the message is on its way */
    struct pn_message message;
    _Atomic(struct pn_loop *) loop;
    _Atomic uint8_t no_socket[FD_HINTS];
} fds;

static unsigned bucket_of(int fd)
{
    return (unsigned)fd % FD_BUCKETS;
}

/* --- Waiting ------------------------------------------------------------------------------------------ */

bool pn__fd_ready(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, 0) != 0;
}

int pn__fd_park(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    if (!pn__core_is_fiber(core) || fd < 0)
        return pn_core_wait_fd(core, fd, events, deadline_ns);
    /* Counted before the descriptor is registered: who closes it later sees the count. */
    _Atomic uint32_t *waiting = &fds.waiting[bucket_of(fd)];
    atomic_fetch_add(waiting, 1);
    int r = pn_core_wait_fd(core, fd, events, deadline_ns);
    atomic_fetch_sub(waiting, 1);
    return r;
}

int pn__fd_error(int reason)
{
    switch (reason) {
    case PN_WAIT_READY:
    case PN_WAIT_TIMEOUT:
        return 0;
    case PN_WAIT_CUT:
        return ETIMEDOUT;
    case PN_WAIT_INTERRUPTED:
        return EINTR;
    default:
        return -reason;
    }
}

int pn__fd_failure(struct pn_core *core, int reason)
{
    if (reason == PN_WAIT_CUT)
        pn_core_cut_failed(core);
    return pn__fd_error(reason);
}

/* -1: none, or no socket. */
static int64_t socket_timeout_ns(int fd, uint32_t events)
{
    struct timeval t = {0};
    socklen_t size = sizeof t;
    int option = events & POLLOUT ? SO_SNDTIMEO : SO_RCVTIMEO;
    if (getsockopt(fd, SOL_SOCKET, option, &t, &size) < 0)
        return -1;
    pn__fd_set_hint(fd, false);
    if (t.tv_sec == 0 && t.tv_usec == 0)
        return -1;
    if (t.tv_sec > PN_NEVER_NS / PN_NS_PER_SEC - 1)
        return -1;
    return t.tv_sec * PN_NS_PER_SEC + t.tv_usec * PN_NS_PER_US;
}

bool pn__fd_begin(struct pn__fd_wait *w)
{
    int flags = fcntl(w->fd, F_GETFL);
    if (flags < 0)
        return false;
    /* The wrong end of a pipe would never be ready. */
    bool wrong_end = (flags & O_ACCMODE) == (w->events & POLLOUT ? O_RDONLY : O_WRONLY);
    if (wrong_end || (flags & O_NONBLOCK)) {
        errno = wrong_end ? EBADF : EAGAIN;
        return false;
    }
    int64_t span_ns = socket_timeout_ns(w->fd, w->events);
    if (span_ns >= 0)
        w->deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), span_ns);
    w->begun = true;
    pn__wait_count();
    return true;
}

/* poll(2) says ready and the call says no: a datagram socket whose receiver is full, or another process
 * that is always quicker. Looking at once again would never end. */
static int wait_stale(struct pn__fd_wait *w)
{
    int64_t span_ns = PN_NS_PER_MS << (w->stale - PN__FD_STALE_MAX);
    int64_t now_ns = pn_clock_mono_ns();
    if (span_ns >= STALE_SLEEP_MAX_NS)
        span_ns = STALE_SLEEP_MAX_NS;
    else
        w->stale++;
    if (now_ns >= w->deadline_ns)
        return PN_WAIT_TIMEOUT;
    int64_t until_ns = now_ns + span_ns < w->deadline_ns ? now_ns + span_ns : w->deadline_ns;
    int r = pn_core_sleep_until(w->core, until_ns);
    return r == PN_WAIT_TIMEOUT ? PN_WAIT_READY : r;
}

static int failure(const struct pn__fd_wait *w, int reason)
{
    if (reason != PN_WAIT_CUT || !w->moved)
        return pn__fd_failure(w->core, reason);
    pn_core_cut_passed(w->core);
    return pn__fd_error(reason);
}

enum pn__fd_next pn__fd_wait(struct pn__fd_wait *w)
{
    if (!w->begun && !pn__fd_begin(w))
        return PN__FD_FAILED;
    if (w->stale >= PN__FD_STALE_MAX && !pn__fd_ready(w->fd, (short)w->events))
        w->stale = 0; /* others were quicker, that is all */
    bool stale = w->stale >= PN__FD_STALE_MAX;
    int r;
    if (!pn__core_is_fiber(w->core) && w->deadline_ns == PN_NEVER_NS) {
        if (pn_core_block_begin(w->core, stale ? -1 : w->fd, w->events))
            return PN__FD_BLOCK;
        w->stale++;
        return PN__FD_AGAIN;
    }
    /* A socket with a time-out is not restarted after a signal, whatever SA_RESTART says, so a wait by poll
     * behaves as the call itself. */
    if (stale) {
        r = wait_stale(w);
    } else {
        r = pn__fd_park(w->core, w->fd, w->events, w->deadline_ns);
        w->stale++;
    }
    if (r == PN_WAIT_READY)
        return PN__FD_AGAIN;
    errno = r == PN_WAIT_TIMEOUT ? EAGAIN : failure(w, r);
    return PN__FD_FAILED;
}

ssize_t pn__fd_blocked(struct pn__fd_wait *w, ssize_t r)
{
    int error = errno;
    pn_core_block_end(w->core);
    if (r >= 0) {
        pn_core_cut_passed(w->core);
        return pn__fd_done(w, r);
    }
    errno = error == EINTR && pn_core_is_cut(w->core) ? failure(w, PN_WAIT_CUT) : error;
    return r;
}

/* --- Sockets or not ----------------------------------------------------------------------------------- */

bool pn__fd_hint_no_socket(int fd)
{
    return (unsigned)fd < FD_HINTS &&
           atomic_load_explicit(&fds.no_socket[fd], memory_order_relaxed);
}

void pn__fd_set_hint(int fd, bool no_socket)
{
    if ((unsigned)fd < FD_HINTS)
        atomic_store_explicit(&fds.no_socket[fd], no_socket, memory_order_relaxed);
}

/* --- Closing ------------------------------------------------------------------------------------------ */

static void look_at_closed(struct pn_message *message)
{
    struct pn_loop *loop = atomic_load(&fds.loop);
    (void)message;
    /* First, so that whoever closes from now on tells again. */
    atomic_store(&fds.told, false);
    for (unsigned word = 0; word < PN_ARRAY_LEN(fds.closed); word++) {
        uint64_t bits = atomic_exchange(&fds.closed[word], 0);
        for (; bits && loop; bits &= bits - 1)
            pn_loop_fds_check(loop, (int)(word * 64) + __builtin_ctzll(bits), FD_BUCKETS);
    }
}

static bool mark(unsigned bucket)
{
    if (pn_likely(atomic_load(&fds.waiting[bucket]) == 0))
        return false;
    atomic_fetch_or(&fds.closed[bucket / 64], UINT64_C(1) << bucket % 64);
    return true;
}

static void tell(void)
{
    struct pn_loop *loop = atomic_load(&fds.loop);
    int saved = errno;
    if (loop && atomic_load(&pn__wait_on) && !atomic_exchange(&fds.told, true))
        pn_message_send(loop, &fds.message);
    errno = saved;
}

void pn__fd_closed(int fd)
{
    pn__fd_set_hint(fd, false);
    if (pn_unlikely(mark(bucket_of(fd))))
        tell();
}

void pn__fd_closed_range(unsigned first, unsigned last)
{
    bool any = false;
    unsigned count = last - first >= FD_BUCKETS ? FD_BUCKETS : last - first + 1;
    for (unsigned i = 0; i < count; i++) {
        pn__fd_set_hint((int)(first + i), false);
        any |= mark((first + i) % FD_BUCKETS);
    }
    if (any)
        tell();
}

/* --- Install ------------------------------------------------------------------------------------------ */

void pn__fds_install(struct pn_cores *cores)
{
    bool fibers = cores && pn_cores_carrier(cores) == PN_CARRIER_FIBERS;
    for (unsigned i = 0; i < FD_BUCKETS; i++)
        atomic_store(&fds.waiting[i], 0);
    for (unsigned word = 0; word < PN_ARRAY_LEN(fds.closed); word++)
        atomic_store(&fds.closed[word], 0);
    fds.message.deliver = look_at_closed;
    atomic_store(&fds.told, false);
    atomic_store(&fds.loop, fibers ? pn_cores_loop(cores) : NULL);
}

void pn__fds_uninstall(void)
{
    atomic_store(&fds.loop, NULL);
}
