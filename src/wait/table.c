/* SPDX-License-Identifier: Apache-2.0 */
/* The table itself. Its order is checked by tests/unit/test_wait_table.c. */
#include "wait/table.h"

#include <string.h>

#include "wait/gate.h"
#include "wait/io.h"
#include "wait/locks.h"
#include "wait/processes.h"

enum {
    INTERPRETER = PN__IMAGE_INTERPRETER,
    OTHER =
        PN__IMAGE_OTHER, /* mutexes and condition variables: the interpreter's GIL is made of them */
    ALL = PN__IMAGE_INTERPRETER | PN__IMAGE_OTHER,
};

/* Few enough of them are set that hardly another name is taken for one of these. */
enum { BEGINNINGS_BITS_LOG2 = 12, BEGINNINGS_BITS = 1 << BEGINNINGS_BITS_LOG2 };

#define ROW(name, images, fibers_only)                      \
    {                                                       \
#name, (void *)pn__call_##name, images, fibers_only \
    }

/* Another name of the same call. */
#define ROW_AS(name, other, images)                    \
    {                                                  \
#name, (void *)pn__call_##other, images, false \
    }

const struct pn__redirect pn__redirects[] = {
    ROW(__poll_chk, ALL, false),
    ROW(__ppoll_chk, ALL, false),
    ROW(__read_chk, ALL, false),
    ROW(__recv_chk, ALL, false),
    ROW(__recvfrom_chk, ALL, false),
    ROW(accept, ALL, false),
    ROW(accept4, ALL, false),
    ROW(call_once, ALL, false),
    ROW(clock_nanosleep, ALL, false),
    ROW(close, ALL, false),
    ROW(close_range, ALL, false),
    ROW(cnd_broadcast, OTHER, true),
    ROW(cnd_signal, OTHER, true),
    ROW(cnd_timedwait, OTHER, false),
    ROW(cnd_wait, OTHER, false),
    ROW(connect, ALL, false),
    /* Only the interpreter's: dlopen looks at its caller's RUNPATH, which would be ours. */
    ROW(dlopen, INTERPRETER, false),
    ROW(dup2, ALL, false),
    ROW(dup3, ALL, false),
    ROW(epoll_pwait, ALL, false),
    ROW(epoll_pwait2, ALL, false),
    ROW(epoll_wait, ALL, false),
    ROW(eventfd_read, ALL, false),
    ROW(eventfd_write, ALL, false),
    ROW(fcntl, ALL, false),
    ROW(fcntl64, ALL, false),
    ROW(flock, ALL, false),
    ROW(getaddrinfo, ALL, false),
    ROW(getnameinfo, ALL, false),
    ROW(lockf, ALL, false),
    ROW(lockf64, ALL, false),
    ROW(mtx_lock, OTHER, false),
    ROW(mtx_timedlock, OTHER, false),
    ROW(mtx_trylock, OTHER, true),
    ROW(mtx_unlock, OTHER, true),
    ROW(nanosleep, ALL, false),
    ROW(pause, ALL, false),
    ROW(poll, ALL, false),
    ROW(ppoll, ALL, false),
    ROW(pselect, ALL, false),
    ROW(pthread_barrier_wait, ALL, false),
    ROW(pthread_cancel, ALL, true),
    ROW(pthread_clockjoin_np, ALL, false),
    ROW(pthread_cond_broadcast, OTHER, true),
    ROW(pthread_cond_clockwait, OTHER, false),
    ROW(pthread_cond_signal, OTHER, true),
    ROW(pthread_cond_timedwait, OTHER, false),
    ROW(pthread_cond_wait, OTHER, false),
    ROW(pthread_detach, ALL, true),
    ROW(pthread_getaffinity_np, ALL, true),
    ROW(pthread_getattr_np, ALL, true),
    ROW(pthread_getcpuclockid, ALL, true),
    ROW(pthread_getname_np, ALL, true),
    ROW(pthread_getschedparam, ALL, true),
    ROW(pthread_getspecific, OTHER, true),
    ROW(pthread_join, ALL, false),
    ROW(pthread_key_create, OTHER, true),
    ROW(pthread_kill, ALL, true),
    ROW(pthread_mutex_clocklock, OTHER, false),
    ROW(pthread_mutex_lock, OTHER, false),
    ROW(pthread_mutex_timedlock, OTHER, false),
    ROW(pthread_mutex_trylock, OTHER, true),
    ROW(pthread_mutex_unlock, OTHER, true),
    ROW(pthread_once, ALL, false),
    ROW(pthread_rwlock_clockrdlock, ALL, false),
    ROW(pthread_rwlock_clockwrlock, ALL, false),
    ROW(pthread_rwlock_rdlock, ALL, false),
    ROW(pthread_rwlock_timedrdlock, ALL, false),
    ROW(pthread_rwlock_timedwrlock, ALL, false),
    ROW(pthread_rwlock_trywrlock, ALL, true),
    ROW(pthread_rwlock_unlock, ALL, true),
    ROW(pthread_rwlock_wrlock, ALL, false),
    ROW(pthread_self, ALL, true),
    ROW(pthread_setaffinity_np, ALL, true),
    ROW(pthread_setname_np, ALL, true),
    ROW(pthread_setschedparam, ALL, true),
    ROW(pthread_setschedprio, ALL, true),
    ROW(pthread_setspecific, OTHER, true),
    ROW(pthread_sigqueue, ALL, true),
    ROW(pthread_timedjoin_np, ALL, false),
    ROW(read, ALL, false),
    ROW(readv, ALL, false),
    ROW(recv, ALL, false),
    ROW(recvfrom, ALL, false),
    ROW(recvmmsg, ALL, false),
    ROW(recvmsg, ALL, false),
    ROW(sched_yield, ALL, true),
    ROW(select, ALL, false),
    ROW(sem_clockwait, ALL, false),
    ROW(sem_post, ALL, false),
    ROW(sem_timedwait, ALL, false),
    ROW(sem_wait, ALL, false),
    ROW(send, ALL, false),
    ROW(sendfile, ALL, false),
    ROW_AS(sendfile64, sendfile, ALL), /* off_t has 64 bits on x86-64 */
    ROW(sendmmsg, ALL, false),
    ROW(sendmsg, ALL, false),
    ROW(sendto, ALL, false),
    ROW(sigsuspend, ALL, false),
    ROW(sigtimedwait, ALL, false),
    ROW(sigwait, ALL, false),
    ROW(sigwaitinfo, ALL, false),
    ROW(sleep, ALL, false),
    ROW(splice, ALL, false),
    ROW(syscall, ALL, false),
    ROW(system, ALL, false),
    ROW(thrd_current, ALL, true),
    ROW(thrd_join, ALL, false),
    ROW(thrd_sleep, ALL, false),
    ROW(usleep, ALL, false),
    ROW(wait, ALL, false),
    ROW(wait3, ALL, false),
    ROW(wait4, ALL, false),
    ROW(waitid, ALL, false),
    ROW(waitpid, ALL, false),
    ROW(write, ALL, false),
    ROW(writev, ALL, false),
};

const size_t pn__redirects_count = PN_ARRAY_LEN(pn__redirects);

/* Bits by the hash of a name's first four letters: nearly all names of a library go by with one look. */
static uint64_t beginnings[BEGINNINGS_BITS / 64];

/* NAME has four letters, or three and its end. */
static unsigned beginning_of(const char *name)
{
    uint32_t letters;
    memcpy(&letters, name, sizeof letters);
    return (letters * UINT32_C(0x9e3779b1)) >> (32 - BEGINNINGS_BITS_LOG2);
}

/* False: no name in the table begins as this one does. */
static bool may_be_found(const char *name)
{
    if (!name[0] || !name[1] || !name[2])
        return false;
    unsigned bit = beginning_of(name);
    return (beginnings[bit / 64] >> (bit % 64) & 1) != 0;
}

void pn__redirects_prepare(void)
{
    for (size_t i = 0; i < pn__redirects_count; i++) {
        unsigned bit = beginning_of(pn__redirects[i].name);
        beginnings[bit / 64] |= UINT64_C(1) << (bit % 64);
    }
}

const struct pn__redirect *pn__redirect_find(const char *name)
{
    if (!may_be_found(name))
        return NULL;
    size_t low = 0, high = pn__redirects_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, pn__redirects[middle].name);
        if (order == 0)
            return &pn__redirects[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
