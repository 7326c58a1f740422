/* SPDX-License-Identifier: Apache-2.0 */
/* libc's locks, and whatever else is waited for without a descriptor, as a library calls it: each field is filled by a relocation of that library. */
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define CALL(name) __typeof__(name) *name

struct lock_probe {
    CALL(usleep);
    CALL(pthread_mutex_lock);
    CALL(pthread_mutex_trylock);
    CALL(pthread_mutex_timedlock);
    CALL(pthread_mutex_clocklock);
    CALL(pthread_mutex_unlock);
    CALL(pthread_cond_wait);
    CALL(pthread_cond_timedwait);
    CALL(pthread_cond_clockwait);
    CALL(pthread_cond_signal);
    CALL(pthread_cond_broadcast);
    CALL(pthread_rwlock_rdlock);
    CALL(pthread_rwlock_wrlock);
    CALL(pthread_rwlock_timedrdlock);
    CALL(pthread_rwlock_timedwrlock);
    CALL(pthread_rwlock_clockrdlock);
    CALL(pthread_rwlock_clockwrlock);
    CALL(pthread_rwlock_trywrlock);
    CALL(pthread_rwlock_tryrdlock);
    CALL(pthread_rwlock_unlock);
    CALL(mtx_lock);
    CALL(mtx_trylock);
    CALL(mtx_timedlock);
    CALL(mtx_unlock);
    CALL(cnd_wait);
    CALL(cnd_timedwait);
    CALL(cnd_signal);
    CALL(cnd_broadcast);
    CALL(thrd_sleep);
    CALL(thrd_current);
    CALL(pthread_join);
    CALL(pthread_timedjoin_np);
    CALL(pthread_clockjoin_np);
    CALL(pthread_barrier_wait);
    CALL(pthread_once);
    CALL(pthread_self);
    CALL(thrd_join);
    CALL(call_once);
    CALL(sched_yield);
    CALL(clock_nanosleep);
    CALL(wait);
    CALL(wait3);
    CALL(wait4);
    CALL(waitpid);
    CALL(waitid);
    CALL(system);
    CALL(sigwait);
    CALL(sigwaitinfo);
    CALL(sigtimedwait);
    CALL(sigsuspend);
    CALL(pause);
    CALL(flock);
    CALL(fcntl);
    CALL(lockf);
    CALL(syscall);
    CALL(sem_wait);
};
#undef CALL
