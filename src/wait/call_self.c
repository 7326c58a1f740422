/* SPDX-License-Identifier: Apache-2.0 */
/* Who am I, for fibers: pthread_self() answers by core, so that threading.get_ident, the owner of an
 * RLock and every library's "is it my lock?" see each fiber as a thread of its own.
 *
 * An ident of a fiber is no address of a thread descriptor: whatever takes a pthread_t gets the
 * OS thread behind it instead. */
#include <errno.h>

#include "wait/gate.h"

static struct pn_core *fiber_of(pthread_t thread)
{
    struct pn_cores *cores = pn__wait_cores();
    return cores ? pn_cores_by_ident(cores, (uintptr_t)thread) : NULL;
}

/* The OS thread that THREAD means. */
static pthread_t os_thread(pthread_t thread)
{
    struct pn_core *fiber = fiber_of(thread);
    if (!fiber)
        return thread;
    /* All fibers of a worker run on home's thread, and home has that thread's own ident. */
    return (pthread_t)pn_core_ident(pn_cores_home(pn_core_cores(fiber)));
}

/* The child of a fork has one thread, which goes on as who it was: the locks that CPython took around
 * the fork are released by the ident that took them (3.13 ends the process otherwise), and
 * threading finds its current thread. Threads that the child starts have 0 here. */
static __thread uintptr_t forked_ident;

void pn__self_after_fork_child(void)
{
    struct pn_core *core = pn_core_self();
    if (core && pn__wait_cores())
        forked_ident = pn_core_ident(core);
}

pthread_t pn__call_pthread_self(void)
{
    struct pn_core *core = pn_core_self();
    if (core)
        return (pthread_t)pn_core_ident(core);
    return pn_likely(!forked_ident) ? pthread_self() : (pthread_t)forked_ident;
}

int pn__call_pthread_kill(pthread_t thread, int signo)
{
    return pthread_kill(os_thread(thread), signo);
}

int pn__call_pthread_sigqueue(pthread_t thread, int signo, const union sigval value)
{
    return pthread_sigqueue(os_thread(thread), signo, value);
}

int pn__call_pthread_getcpuclockid(pthread_t thread, clockid_t *clock)
{
    return pthread_getcpuclockid(os_thread(thread), clock);
}

int pn__call_pthread_getattr_np(pthread_t thread, pthread_attr_t *attr)
{
    struct pn_core *fiber = fiber_of(thread);
    void *base;
    size_t size;
    int r = pthread_getattr_np(os_thread(thread), attr);
    if (r != 0 || !fiber || !pn_core_stack(fiber, &base, &size))
        return r;
    r = pthread_attr_setstack(attr, base, size);
    if (r != 0)
        pthread_attr_destroy(attr);
    return r;
}

int pn__call_pthread_getname_np(pthread_t thread, char *name, size_t size)
{
    return pthread_getname_np(os_thread(thread), name, size);
}

/* A fiber that names "its" thread would rename the worker: accepted, without effect. */
int pn__call_pthread_setname_np(pthread_t thread, const char *name)
{
    return fiber_of(thread) ? 0 : pthread_setname_np(thread, name);
}

int pn__call_pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *set)
{
    return pthread_getaffinity_np(os_thread(thread), size, set);
}

int pn__call_pthread_setaffinity_np(pthread_t thread, size_t size, const cpu_set_t *set)
{
    return pthread_setaffinity_np(os_thread(thread), size, set);
}

int pn__call_pthread_getschedparam(pthread_t thread, int *policy, struct sched_param *param)
{
    return pthread_getschedparam(os_thread(thread), policy, param);
}

int pn__call_pthread_setschedparam(pthread_t thread, int policy, const struct sched_param *param)
{
    return pthread_setschedparam(os_thread(thread), policy, param);
}

int pn__call_pthread_setschedprio(pthread_t thread, int priority)
{
    return pthread_setschedprio(os_thread(thread), priority);
}

/* Nobody detaches or cancels a core, nor joins one (call_thread.c): the server does that. */
bool pn__is_fiber_ident(pthread_t thread)
{
    return fiber_of(thread) != NULL;
}

int pn__call_pthread_detach(pthread_t thread)
{
    return fiber_of(thread) ? EINVAL : pthread_detach(thread);
}

int pn__call_pthread_cancel(pthread_t thread)
{
    return fiber_of(thread) ? ESRCH : pthread_cancel(thread);
}
