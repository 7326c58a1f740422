/* SPDX-License-Identifier: Apache-2.0 */
/* A library like any C driver: it calls libc by its import table, by a table of pointers in its data
 * and by a pointer that it took at run time. Built twice, with eager and with lazy binding. */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PROBE __attribute__((visibility("default")))

PROBE int probe_nanosleep(long ms);
PROBE int probe_nanosleep_by_table(long ms);
PROBE int probe_clock_nanosleep(clockid_t clock, int flags, const struct timespec *t);
PROBE int probe_usleep(unsigned us);
PROBE unsigned probe_sleep(unsigned s);
PROBE int probe_sem_wait(sem_t *sem);
PROBE int probe_sem_timedwait(sem_t *sem, const struct timespec *deadline);
PROBE int probe_sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *deadline);
PROBE int probe_sem_post(sem_t *sem);
PROBE pthread_t probe_self(void);
PROBE int probe_getattr(pthread_t t, pthread_attr_t *attr);
PROBE int probe_kill(pthread_t t, int signo);
PROBE int probe_cpuclock(pthread_t t, clockid_t *clock);

/* What a test wants done while the linker is at it: the function's address by the environment, since a
 * library cannot import it from the test's program. */
__attribute__((constructor)) static void constructed(void)
{
    const char *address = getenv("WAIT_PROBE_CONSTRUCTED");
    void (*hook)(void);
    if (address && sscanf(address, "%p", (void **)&hook) == 1)
        hook();
}

/* As sqlite's table of system calls: a 64-bit data relocation. */
static struct {
    const char *name;
    int (*call)(const struct timespec *, struct timespec *);
} table[] = {{"nanosleep", nanosleep}};

int probe_nanosleep(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    return nanosleep(&t, NULL);
}

int probe_nanosleep_by_table(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    return table[0].call(&t, NULL);
}

int probe_clock_nanosleep(clockid_t clock, int flags, const struct timespec *t)
{
    return clock_nanosleep(clock, flags, t, NULL);
}

int probe_usleep(unsigned us)
{
    return usleep(us);
}

unsigned probe_sleep(unsigned s)
{
    return sleep(s);
}

int probe_sem_wait(sem_t *sem)
{
    return sem_wait(sem);
}

int probe_sem_timedwait(sem_t *sem, const struct timespec *deadline)
{
    return sem_timedwait(sem, deadline);
}

int probe_sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *deadline)
{
    return sem_clockwait(sem, clock, deadline);
}

int probe_sem_post(sem_t *sem)
{
    return sem_post(sem);
}

pthread_t probe_self(void)
{
    return pthread_self();
}

int probe_getattr(pthread_t t, pthread_attr_t *attr)
{
    return pthread_getattr_np(t, attr);
}

int probe_kill(pthread_t t, int signo)
{
    return pthread_kill(t, signo);
}

int probe_cpuclock(pthread_t t, clockid_t *clock)
{
    return pthread_getcpuclockid(t, clock);
}
