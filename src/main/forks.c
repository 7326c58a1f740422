/* SPDX-License-Identifier: Apache-2.0 */
/* Before a fork the log's lines leave, so that nobody writes them twice. In the child nothing of the
 * parent's loop, cores, signals or listeners is touched or kept. */
#include "main/forks.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "cores/core.h"
#include "main/load_guard.h"
#include "main/stop_guard.h"
#include "manager/manager.h"
#include "net/transport.h"
#include "wait/wait.h"

/* The mask of the thread that forks, while it does. A signal that reaches the child before its
 * handlers are its own would go to the parent's loop and be lost. */
static __thread sigset_t mask_before;

/* pthread_atfork hands over no argument and cannot be undone. */
static struct pn__forks *watched;
static bool installed;

static void before(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask_before);
    const struct pn__start *start = watched ? watched->start : NULL;
    if (!start || !start->log)
        return;
    pn_log_flush(start->log);
    if (start->out != start->log)
        pn_log_flush(start->out);
}

static void in_parent(void)
{
    if (watched && !watched->own)
        pn_transport_plain_forked();
    pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
}

/* The descriptors only: the memory is the parent's copy, and nobody here uses it again. */
static void close_listeners(struct pn__start *start)
{
    for (size_t i = 0; i < start->listener_count; i++) {
        if (start->listeners[i])
            close(pn_listener_fd(start->listeners[i]));
        start->listeners[i] = NULL;
    }
}

static void become_child(struct pn__forks *forks)
{
    struct pn__start *start = forks->start;
    if (start->log) {
        pn_log_after_fork_child(start->log);
        if (start->out != start->log)
            pn_log_after_fork_child(start->out);
    }
    if (forks->redirected)
        pn_wait_after_fork_child();
    if (forks->cores)
        (void)pn_cores_after_fork_child(forks->cores);
    if (forks->loop)
        pn_loop_after_fork_child(forks->loop);
    if (forks->manager)
        pn_manager_after_fork_child(forks->manager);
    pn__stop_guard_after_fork_child();
    pn__load_guard_after_fork_child(forks->own);
    if (forks->after_child)
        forks->after_child(forks->ctx);
    if (!forks->own)
        close_listeners(start);
}

static void in_child(void)
{
    if (watched)
        become_child(watched);
    pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
}

int pn__forks_watch(struct pn__forks *forks)
{
    watched = forks;
    if (installed)
        return 0;
    int rc = pthread_atfork(before, in_parent, in_child);
    installed = rc == 0;
    return -rc;
}
