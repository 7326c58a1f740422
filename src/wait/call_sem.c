/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX semaphores in a core: what threading.Lock, and with it queue.Queue and most of Python's
 * locks, are made of (CPython 3.11 to 3.13).
 *
 * A thread that finds the semaphore taken offers the loop and blocks in the same call. A fiber parks in the
 * queue of its semaphore (wait/queue.h); sem_post, redirected in every thread, posts first and then wakes
 * the oldest fiber there. A process-shared one (multiprocessing's) may be posted where nothing tells us. */
#include <errno.h>

#include "wait/gate.h"
#include "wait/layout.h"
#include "wait/queue.h"

static int try_parked(void *arg)
{
    if (sem_trywait(arg) == 0)
        return 0;
    return errno == EAGAIN ? EBUSY : errno;
}

/* Which of the three libc calls a thread repeats. */
enum sem_call {
    SEM_WAIT = 0,
    SEM_TIMEDWAIT = 1,
    SEM_CLOCKWAIT = 2,
};

static int libc_call(enum sem_call call, sem_t *sem, clockid_t clock,
                     const struct timespec *deadline)
{
    switch (call) {
    case SEM_WAIT:
        return sem_wait(sem);
    case SEM_TIMEDWAIT:
        return sem_timedwait(sem, deadline);
    case SEM_CLOCKWAIT:
        return sem_clockwait(sem, clock, deadline);
    }
    return -1;
}

static int wait_thread(struct pn_core *core, enum sem_call call, sem_t *sem, clockid_t clock,
                       const struct timespec *deadline)
{
    int r;
    do {
        if (!pn_core_block_begin(core, -1, 0))
            return 0;
        r = libc_call(call, sem, clock, deadline);
        int saved = errno;
        pn_core_block_end(core);
        errno = saved;
        /* The signal that cuts a core doesn't end its waits for locks. */
    } while (r < 0 && errno == EINTR && pn_core_is_cut(core));
    return r;
}

static int wait_any(enum sem_call call, sem_t *sem, clockid_t clock,
                    const struct timespec *deadline)
{
    struct pn_core *core = pn__wait_gate();
    struct pn__until until = {clock, deadline};
    if (!core || !pn__until_is_valid(until))
        return libc_call(call, sem, clock, deadline);
    int saved = errno;
    if (sem_trywait(sem) == 0)
        return 0;
    if (errno != EAGAIN) /* EINVAL: not a semaphore */
        return -1;
    errno = saved;
    pn__wait_count();
    if (!pn__core_is_fiber(core))
        return wait_thread(core, call, sem, clock, deadline);
    int r = pn__park_until(core, sem, try_parked, sem, until,
                           pn__sem_is_shared(sem) ? PN__LOOKS_SHARED : PN__LOOKS_PRIVATE);
    errno = r ? r : saved;
    return r ? -1 : 0;
}

int pn__call_sem_wait(sem_t *sem)
{
    return wait_any(SEM_WAIT, sem, CLOCK_REALTIME, NULL);
}

int pn__call_sem_timedwait(sem_t *sem, const struct timespec *deadline)
{
    return wait_any(SEM_TIMEDWAIT, sem, CLOCK_REALTIME, deadline);
}

int pn__call_sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *deadline)
{
    if (!pn__is_lock_clock(clock))
        return sem_clockwait(sem, clock, deadline);
    return wait_any(SEM_CLOCKWAIT, sem, clock, deadline);
}

int pn__call_sem_post(sem_t *sem)
{
    /* Once posted, the semaphore may be freed by its new owner: only its address is used after. */
    int r = sem_post(sem);
    pn__wake(sem, 1);
    return r;
}
