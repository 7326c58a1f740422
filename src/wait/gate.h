/* SPDX-License-Identifier: Apache-2.0 */
/* Which calls wait in a core, and the functions that stand in for libc's (inside the room only).
 *
 * The replacements have libc's own prototypes and semantics; each file says which part of POSIX it
 * keeps. Onward calls are ordinary calls of this image, whose import table nobody patches. */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <time.h>

#include "wait/wait.h"

/* True between install and uninstall, false in the child of a fork. */
extern _Atomic bool pn__wait_on;

/* True when a call that would block is to wait in CORE, which is the current one: server code never waits through here,
 * and who holds the GIL must not let others run. */
static inline bool pn__wait_here(const struct pn_core *core)
{
    return atomic_load_explicit(&pn__wait_on, memory_order_relaxed) && pn_core_may_wait(core);
}
/* The core in which the calling thread's call must wait, or NULL: the call goes straight on. The calls that are made
 * most ask in two steps instead, so that a thread that is no core passes in half a dozen instructions. */
static inline struct pn_core *pn__wait_gate(void)
{
    struct pn_core *core = pn__core_self;
    return pn_unlikely(core != NULL) && pn__wait_here(core) ? core : NULL;
}
/* The cores whose fibers have idents of their own; NULL when nothing does. */
struct pn_cores *pn__wait_cores(void);
/* Counts one wait (figures). */
void pn__wait_count(void);

static inline bool pn__core_is_fiber(struct pn_core *core)
{
    return pn_cores_carrier(pn_core_cores(core)) == PN_CARRIER_FIBERS;
}

/* call_dl.c: loads what was asked for, then scans. */
void *pn__call_dlopen(const char *file, int mode);

/* call_time.c */
int pn__call_nanosleep(const struct timespec *request, struct timespec *rest);
int pn__call_clock_nanosleep(clockid_t clock, int flags, const struct timespec *request,
                             struct timespec *rest);
int pn__call_usleep(useconds_t us);
unsigned pn__call_sleep(unsigned seconds);
/* call_sem.c */
int pn__call_sem_wait(sem_t *sem);
int pn__call_sem_timedwait(sem_t *sem, const struct timespec *deadline);
int pn__call_sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *deadline);
int pn__call_sem_post(sem_t *sem);

int pn__call_sched_yield(void);

/* call_key.c: thread-specific values of fibers */
int pn__call_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
void *pn__call_pthread_getspecific(pthread_key_t key);
int pn__call_pthread_setspecific(pthread_key_t key, const void *value);

/* call_self.c: idents of fibers */
bool pn__is_fiber_ident(pthread_t thread);
void pn__self_after_fork_child(void);
pthread_t pn__call_pthread_self(void);
int pn__call_pthread_kill(pthread_t thread, int signo);
int pn__call_pthread_sigqueue(pthread_t thread, int signo, const union sigval value);
int pn__call_pthread_getcpuclockid(pthread_t thread, clockid_t *clock);
int pn__call_pthread_getattr_np(pthread_t thread, pthread_attr_t *attr);
int pn__call_pthread_getname_np(pthread_t thread, char *name, size_t size);
int pn__call_pthread_setname_np(pthread_t thread, const char *name);
int pn__call_pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *set);
int pn__call_pthread_setaffinity_np(pthread_t thread, size_t size, const cpu_set_t *set);
int pn__call_pthread_getschedparam(pthread_t thread, int *policy, struct sched_param *param);
int pn__call_pthread_setschedparam(pthread_t thread, int policy, const struct sched_param *param);
int pn__call_pthread_setschedprio(pthread_t thread, int priority);
int pn__call_pthread_detach(pthread_t thread);
int pn__call_pthread_cancel(pthread_t thread);
