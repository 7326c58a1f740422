/* SPDX-License-Identifier: Apache-2.0 */
/* Each kind of lock is made in its variants, and the difference is the mark. */
#include "wait/layout.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

struct pn__layout pn__layout = {.sem_shared_at = -1};

static __thread int thread_id;

int pn__thread_id(void)
{
    if (pn_unlikely(thread_id == 0))
        thread_id = gettid();
    return thread_id;
}

void pn__layout_after_fork_child(void)
{
    thread_id = 0;
}

static int mutex_kind(int type, int robust, int shared)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t m;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutexattr_setrobust(&attr, robust);
    pthread_mutexattr_setpshared(&attr, shared);
    pthread_mutex_init(&m, &attr);
    int kind = m.__data.__kind;
    pthread_mutex_destroy(&m);
    pthread_mutexattr_destroy(&attr);
    return kind;
}

/* A mark in __list outlives the calls of one that holds the mutex, and __owner says who that is. */
static bool try_owner(int type)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t m;
    void *mark = &attr;
    bool right = true;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutex_init(&m, &attr);
    right = m.__data.__owner == 0 && m.__data.__list.__prev == NULL;
    pthread_mutex_lock(&m);
    m.__data.__list.__prev = mark;
    right = right && m.__data.__owner == gettid() && m.__data.__count <= 1;
    if (type == PTHREAD_MUTEX_RECURSIVE) {
        right = right && pthread_mutex_trylock(&m) == 0 && m.__data.__count == 2;
        pthread_mutex_unlock(&m);
        right = right && m.__data.__count == 1;
    }
    pthread_mutex_unlock(&m);
    right = right && m.__data.__owner == 0 && m.__data.__list.__prev == mark;
    pthread_mutex_destroy(&m);
    pthread_mutexattr_destroy(&attr);
    return right;
}

static void learn_mutex(void)
{
    int plain = mutex_kind(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE);
    pn__layout.mutex_shared =
        plain ^ mutex_kind(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED);
    /* glibc marks robust ones as shared too: the kernel walks both kinds. */
    pn__layout.mutex_robust =
        (plain ^ mutex_kind(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_PRIVATE)) &
        ~pn__layout.mutex_shared;
    pn__layout.mutex_owner = try_owner(PTHREAD_MUTEX_RECURSIVE) &&
                             try_owner(PTHREAD_MUTEX_ERRORCHECK) && try_owner(PTHREAD_MUTEX_NORMAL);
}

static void learn_rwlock(void)
{
    pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
    bool right = l.__data.__cur_writer == 0 && l.__data.__pad2 == 0;
    pthread_rwlock_wrlock(&l);
    l.__data.__pad2 = 1;
    right = right && l.__data.__cur_writer == gettid();
    pthread_rwlock_unlock(&l);
    pn__layout.rwlock_writer = right && l.__data.__cur_writer == 0 && l.__data.__pad2 == 1;
    pthread_rwlock_destroy(&l);
}

static unsigned cond_word(int shared, clockid_t clock)
{
    pthread_condattr_t attr;
    pthread_cond_t c;
    pthread_condattr_init(&attr);
    pthread_condattr_setpshared(&attr, shared);
    pthread_condattr_setclock(&attr, clock);
    pthread_cond_init(&c, &attr);
    unsigned word = c.__data.__wrefs;
    pthread_cond_destroy(&c);
    pthread_condattr_destroy(&attr);
    return word;
}

static void learn_cond(void)
{
    unsigned plain = cond_word(PTHREAD_PROCESS_PRIVATE, CLOCK_REALTIME);
    pn__layout.cond_shared = plain ^ cond_word(PTHREAD_PROCESS_SHARED, CLOCK_REALTIME);
    pn__layout.cond_monotonic = plain ^ cond_word(PTHREAD_PROCESS_PRIVATE, CLOCK_MONOTONIC);
}

static void learn_sem(void)
{
    sem_t alone, shared;
    memset(&alone, 0, sizeof alone);
    memset(&shared, 0, sizeof shared);
    sem_init(&alone, 0, 0);
    sem_init(&shared, 1, 0);
    pn__layout.sem_shared_at = -1;
    for (size_t i = 0; i < sizeof alone; i++) {
        if (((unsigned char *)&alone)[i] != ((unsigned char *)&shared)[i]) {
            pn__layout.sem_shared_at = (int)i;
            pn__layout.sem_shared_value = ((unsigned char *)&shared)[i];
            break;
        }
    }
    sem_destroy(&alone);
    sem_destroy(&shared);
}

static void nothing(void)
{
}

static void learn_once(void)
{
    pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, nothing);
    pn__layout.once_done = once;
}

void pn__layout_learn(void)
{
    /* Other threads may still be in a call of the time before: what they read must stand still. */
    static bool learnt;
    if (learnt)
        return;
    learnt = true;
    learn_once();
    learn_mutex();
    learn_rwlock();
    learn_cond();
    learn_sem();
}
