/* SPDX-License-Identifier: Apache-2.0 */
/* Signals: a handler that sets a flag and wakes the loop, and nothing more. The signal mask is
 * never touched.
 *
 * Handlers belong to the process, so the table is the one mutable thing in this room that does
 * not hang on a loop. A slot's loop and pending are atomic, for the handler; the rest belongs to
 * the loop that watches. */
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "loop/loop_state.h"

enum { SIGNALS = 65 }; /* Linux: 1..64 */

struct slot {
    _Atomic(struct pn_loop *) loop; /* who watches; NULL: nobody */
    atomic_bool pending;
    void (*fn)(void *ctx, int signo);
    void *ctx;
    struct sigaction before;
};

static struct slot slots[SIGNALS];
/* Handlers that run now, in any thread: a loop may not go while one may still wake it. */
static atomic_int in_handlers;

static void handle(int signo)
{
    int saved = errno;
    atomic_fetch_add(&in_handlers, 1);
    struct slot *s = &slots[signo];
    struct pn_loop *loop = atomic_load(&s->loop);
    if (loop) {
        atomic_store(&s->pending, true);
        atomic_store(&loop->signalled, true);
        loop->poller->wake(loop->poller);
    }
    atomic_fetch_sub(&in_handlers, 1);
    errno = saved;
}

/* SLOT is watched. */
static void release(struct slot *s, int signo)
{
    sigaction(signo, &s->before, NULL);
    atomic_store(&s->loop, NULL);
    atomic_store(&s->pending, false);
    /* Microseconds: a handler does one write to an eventfd. */
    while (atomic_load(&in_handlers) > 0)
        sched_yield();
}

int pn_signal_watch(struct pn_loop *loop, int signo, void (*fn)(void *ctx, int signo), void *ctx)
{
    if (signo < 1 || signo >= SIGNALS)
        return -EINVAL;
    struct slot *s = &slots[signo];
    struct pn_loop *watcher = atomic_load(&s->loop);
    if (watcher && watcher != loop)
        return -EBUSY;
    if (!fn) {
        if (watcher)
            release(s, signo);
        return 0;
    }
    s->fn = fn;
    s->ctx = ctx;
    if (watcher)
        return 0;
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    atomic_store(&s->pending, false);
    atomic_store(&s->loop, loop);
    if (sigaction(signo, &action, &s->before) < 0) {
        atomic_store(&s->loop, NULL);
        return -errno;
    }
    return 0;
}

void pn_signal_unwatch_all(struct pn_loop *loop)
{
    for (int signo = 1; signo < SIGNALS; signo++) {
        if (atomic_load(&slots[signo].loop) == loop)
            release(&slots[signo], signo);
    }
}

void pn__signal_after_fork_child(void)
{
    /* The threads that may have been inside the handler are not here. */
    atomic_store(&in_handlers, 0);
}

bool pn__signal_step(struct pn_loop *loop)
{
    /* Down before the look, so that a signal that comes meanwhile puts it up again. */
    atomic_store(&loop->signalled, false);
    for (int signo = 1; signo < SIGNALS; signo++) {
        struct slot *s = &slots[signo];
        if (atomic_load(&s->loop) != loop || !atomic_exchange(&s->pending, false))
            continue;
        /* Perhaps more are pending: look again in the next step. */
        atomic_store(&loop->signalled, true);
        s->fn(s->ctx, signo);
        return true;
    }
    return false;
}
