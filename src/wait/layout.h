/* SPDX-License-Identifier: Apache-2.0 */
/* What glibc keeps in the memory of its locks (struct_mutex.h and kin), learned once by looking at locks
 * made for the purpose: what does not look as expected is not relied upon. */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>

#include "base/defs.h"

struct pn__layout {
    bool mutex_owner; /* __owner is the holder's thread, and __list is free for an owner's mark */
    int mutex_robust; /* bits of __kind */
    int mutex_shared;
    bool rwlock_writer;   /* __cur_writer is the holder's thread, and __pad2 is free */
    unsigned cond_shared; /* bits of __wrefs; 0: not found */
    unsigned cond_monotonic;
    int once_done;     /* what a pthread_once_t is afterwards */
    int sem_shared_at; /* offset of the byte that tells; negative: not found */
    unsigned char sem_shared_value;
};
extern struct pn__layout pn__layout;

void pn__layout_learn(void);

/* The kernel's number of the calling thread, kept. */
int pn__thread_id(void);
void pn__layout_after_fork_child(void);

static inline bool pn__mutex_is_shared(const pthread_mutex_t *m)
{
    return (m->__data.__kind & (pn__layout.mutex_shared | pn__layout.mutex_robust)) != 0;
}

static inline bool pn__sem_is_shared(const sem_t *sem)
{
    int at = pn__layout.sem_shared_at;
    return at < 0 || ((const unsigned char *)sem)[at] == pn__layout.sem_shared_value;
}
