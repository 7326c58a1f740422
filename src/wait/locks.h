/* SPDX-License-Identifier: Apache-2.0 */
/* Redirected calls on locks: mutexes, condition variables, rwlocks, barriers, once, joins, C11's names of
 * them, futexes (inside the room only).
 *
 * Threads: the lock is tried; would the call wait, the loop is offered and the very same call made. Identity
 * and wakes are the kernel's, so that the waking calls are redirected for fibers only.
 * Fibers: the lock is tried; would the call wait, the fiber parks in the queue of the lock's address (wait/queue.h) and
 * the waking calls, redirected in every thread, wake it. The lock itself stays glibc's: a fiber that has
 * it holds it with the OS thread's identity, and foreign threads meet it as they always did. */
#pragma once

#include <threads.h>

#include "wait/gate.h"
#include "wait/queue.h"

/* The core whose fiber the calling thread is running, whatever it may do now; NULL: no fiber. */
struct pn_core *pn__fiber_self(void);

/* A fiber that is attached wants a lock which another fiber of this thread holds: to block would be the end of both. It
 * lets go of the GIL for the wait, as if the call had been made detached. 0, or what TRY says.
 * For calls that no gate lets wait; false in *PARKED: the caller blocks. */
int pn__park_attached(struct pn_core *core, const void *key, int (*try)(void *arg), void *arg,
                      struct pn__until until, bool *parked);

/* call_mutex.c */
int pn__call_pthread_mutex_lock(pthread_mutex_t *m);
int pn__call_pthread_mutex_trylock(pthread_mutex_t *m);
int pn__call_pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *deadline);
int pn__call_pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t clock,
                                     const struct timespec *deadline);
int pn__call_pthread_mutex_unlock(pthread_mutex_t *m);

/* call_cond.c */
int pn__call_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int pn__call_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                    const struct timespec *deadline);
int pn__call_pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock,
                                    const struct timespec *deadline);
int pn__call_pthread_cond_signal(pthread_cond_t *c);
int pn__call_pthread_cond_broadcast(pthread_cond_t *c);

/* call_rwlock.c */
int pn__call_pthread_rwlock_rdlock(pthread_rwlock_t *l);
int pn__call_pthread_rwlock_wrlock(pthread_rwlock_t *l);
int pn__call_pthread_rwlock_timedrdlock(pthread_rwlock_t *l, const struct timespec *deadline);
int pn__call_pthread_rwlock_timedwrlock(pthread_rwlock_t *l, const struct timespec *deadline);
int pn__call_pthread_rwlock_clockrdlock(pthread_rwlock_t *l, clockid_t clock,
                                        const struct timespec *deadline);
int pn__call_pthread_rwlock_clockwrlock(pthread_rwlock_t *l, clockid_t clock,
                                        const struct timespec *deadline);
int pn__call_pthread_rwlock_trywrlock(pthread_rwlock_t *l);
int pn__call_pthread_rwlock_unlock(pthread_rwlock_t *l);

/* call_thread.c */
int pn__call_pthread_join(pthread_t thread, void **result);
int pn__call_pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *deadline);
int pn__call_pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock,
                                  const struct timespec *deadline);
int pn__call_pthread_barrier_wait(pthread_barrier_t *barrier);
int pn__call_pthread_once(pthread_once_t *control, void (*routine)(void));

/* call_c11.c */
void pn__call_call_once(once_flag *flag, void (*routine)(void));
int pn__call_thrd_join(thrd_t thread, int *result);
int pn__call_mtx_lock(mtx_t *m);
int pn__call_mtx_trylock(mtx_t *m);
int pn__call_mtx_timedlock(mtx_t *restrict m, const struct timespec *restrict deadline);
int pn__call_mtx_unlock(mtx_t *m);
int pn__call_cnd_wait(cnd_t *c, mtx_t *m);
int pn__call_cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m,
                           const struct timespec *restrict deadline);
int pn__call_cnd_signal(cnd_t *c);
int pn__call_cnd_broadcast(cnd_t *c);
int pn__call_thrd_sleep(const struct timespec *request, struct timespec *rest);
thrd_t pn__call_thrd_current(void);
