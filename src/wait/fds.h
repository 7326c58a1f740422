/* SPDX-License-Identifier: Apache-2.0 */
/* How a redirected call waits for one descriptor: what recv, send, read, write, accept and their kin
 * have in common.
 *
 *   try without waiting --EAGAIN--> pn__fd_wait --AGAIN--> try again (threads: ready beside the loop; fibers: woken)
 *                                       |-------BLOCK--> the very same call, then pn__fd_blocked (threads)
 *                                       +------FAILED--> -1: errno is what the libc call would say
 *
 * A wake-up may be stale (another waiter was quicker), so every caller loops. */
#pragma once

#include <errno.h>
#include <poll.h>

#include "wait/gate.h"

struct pn__fd_wait {
    struct pn_core *core;
    int64_t deadline_ns; /* SO_RCVTIMEO or SO_SNDTIMEO; the whole call's, as in the kernel */
    int fd;
    int saved_errno; /* the caller's, for a call that succeeds in the end */
    uint32_t events; /* POLLIN or POLLOUT */
    unsigned stale;  /* times in a row that poll(2) said ready and the call did not */
    bool begun;
    bool moved; /* something, which the call returns, however this ends */
};

enum { PN__FD_STALE_MAX = 2 }; /* then poll(2) and the call disagree */

enum pn__fd_next {
    PN__FD_AGAIN = 0,
    PN__FD_BLOCK = 1,
    PN__FD_FAILED = 2,
};

static inline struct pn__fd_wait pn__fd_waiter(struct pn_core *core, int fd, uint32_t events,
                                               int saved_errno)
{
    return (struct pn__fd_wait){.core = core,
                                .deadline_ns = PN_NEVER_NS,
                                .fd = fd,
                                .saved_errno = saved_errno,
                                .events = events};
}

/* The call found that it would wait. FAILED at once, with EAGAIN, for an O_NONBLOCK descriptor; EAGAIN also
 * when the socket's time-out has passed, EINTR after a signal, ETIMEDOUT after a cut, EBADF when the
 * descriptor was closed meanwhile. */
enum pn__fd_next pn__fd_wait(struct pn__fd_wait *w);
/* Only the beginning of it: true when the descriptor's calls may wait, deadline_ns is set then; else errno. */
bool pn__fd_begin(struct pn__fd_wait *w);
/* The same for a call that fails then: its errno is what the application hears of a cut (pn_core_cut_failed). */
int pn__fd_failure(struct pn_core *core, int reason);
/* After BLOCK and the call: R is its result, errno its error. Returns R. */
ssize_t pn__fd_blocked(struct pn__fd_wait *w, ssize_t r);
/* The call moved something: later waits are not stale ones. */
static inline void pn__fd_progress(struct pn__fd_wait *w)
{
    w->stale = 0;
    w->moved = true;
}
static inline ssize_t pn__fd_done(const struct pn__fd_wait *w, ssize_t r)
{
    errno = w->saved_errno;
    return r;
}

/* True when poll(2) would report EVENTS, an error or a hang-up now. */
bool pn__fd_ready(int fd, short events);

/* pn_core_wait_fd, for calls with a deadline of their own: the waiter can be found by pn__fd_closed. */
int pn__fd_park(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns);
/* The errno for a wait that ended by REASON; READY and TIMEOUT have none (0). */
int pn__fd_error(int reason);

/* A hint, which may be wrong: FD was no socket when it was last looked at. */
bool pn__fd_hint_no_socket(int fd);
void pn__fd_set_hint(int fd, bool no_socket);

/* Any thread, also a signal handler: FD has just been closed, or means another file now. Fibers that wait
 * for it are woken (EBADF); threads wait on in the kernel, as they would without Pelton. */
void pn__fd_closed(int fd);
/* The same for FIRST to LAST. */
void pn__fd_closed_range(unsigned first, unsigned last);

void pn__fds_install(struct pn_cores *cores);
void pn__fds_uninstall(void);
