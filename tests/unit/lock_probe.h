/* SPDX-License-Identifier: Apache-2.0 */
/* libc's locks as a library calls them: each field is filled by a relocation of that library. */
#pragma once

#include <pthread.h>
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
};
#undef CALL
