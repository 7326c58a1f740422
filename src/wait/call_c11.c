/* SPDX-License-Identifier: Apache-2.0 */
/* C11's names (ISO/IEC 9899:2011, 7.26) for what POSIX calls otherwise: in glibc the same objects, so the
 * calls are the POSIX ones with their results translated. */
#include <errno.h>

#include "wait/locks.h"

PN_STATIC_ASSERT(sizeof(mtx_t) == sizeof(pthread_mutex_t), "glibc: a mtx_t is a pthread_mutex_t");
PN_STATIC_ASSERT(sizeof(cnd_t) == sizeof(pthread_cond_t), "glibc: a cnd_t is a pthread_cond_t");
PN_STATIC_ASSERT(sizeof(once_flag) == sizeof(pthread_once_t),
                 "glibc: a once_flag is a pthread_once_t");

static int to_thrd(int error)
{
    switch (error) {
    case 0:
        return thrd_success;
    case ENOMEM:
        return thrd_nomem;
    case ETIMEDOUT:
        return thrd_timedout;
    case EBUSY:
        return thrd_busy;
    default:
        return thrd_error;
    }
}

static pthread_mutex_t *mutex_of(mtx_t *m)
{
    return (pthread_mutex_t *)(void *)m;
}

static pthread_cond_t *cond_of(cnd_t *c)
{
    return (pthread_cond_t *)(void *)c;
}

int pn__call_mtx_lock(mtx_t *m)
{
    return to_thrd(pn__call_pthread_mutex_lock(mutex_of(m)));
}

int pn__call_mtx_trylock(mtx_t *m)
{
    return to_thrd(pn__call_pthread_mutex_trylock(mutex_of(m)));
}

int pn__call_mtx_timedlock(mtx_t *restrict m, const struct timespec *restrict deadline)
{
    return to_thrd(pn__call_pthread_mutex_timedlock(mutex_of(m), deadline));
}

int pn__call_mtx_unlock(mtx_t *m)
{
    return to_thrd(pn__call_pthread_mutex_unlock(mutex_of(m)));
}

int pn__call_cnd_wait(cnd_t *c, mtx_t *m)
{
    return to_thrd(pn__call_pthread_cond_wait(cond_of(c), mutex_of(m)));
}

int pn__call_cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m,
                           const struct timespec *restrict deadline)
{
    return to_thrd(pn__call_pthread_cond_timedwait(cond_of(c), mutex_of(m), deadline));
}

int pn__call_cnd_signal(cnd_t *c)
{
    return to_thrd(pn__call_pthread_cond_signal(cond_of(c)));
}

int pn__call_cnd_broadcast(cnd_t *c)
{
    return to_thrd(pn__call_pthread_cond_broadcast(cond_of(c)));
}

void pn__call_call_once(once_flag *flag, void (*routine)(void))
{
    (void)pn__call_pthread_once((pthread_once_t *)(void *)flag, routine);
}

int pn__call_thrd_join(thrd_t thread, int *result)
{
    void *value = NULL;
    int r = pn__call_pthread_join(thread, &value);
    if (r == 0 && result)
        *result = (int)(intptr_t)value;
    return to_thrd(r);
}

/* As glibc has it: -1 for a signal, -2 for what is refused. */
int pn__call_thrd_sleep(const struct timespec *request, struct timespec *rest)
{
    int r = pn__call_clock_nanosleep(CLOCK_REALTIME, 0, request, rest);
    if (r == 0)
        return 0;
    return r == EINTR ? -1 : -2;
}

thrd_t pn__call_thrd_current(void)
{
    return pn__call_pthread_self();
}
