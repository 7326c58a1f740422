/* SPDX-License-Identifier: Apache-2.0 */
/* Redirected calls that wait for children, signals and files' locks, and raw futexes (inside the room only). */
#pragma once

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>

#include "wait/gate.h"

struct rusage;

/* call_child.c */
pid_t pn__call_wait(int *status);
pid_t pn__call_wait3(int *status, int options, struct rusage *rusage);
pid_t pn__call_wait4(pid_t pid, int *status, int options, struct rusage *rusage);
pid_t pn__call_waitpid(pid_t pid, int *status, int options);
int pn__call_waitid(idtype_t idtype, id_t id, siginfo_t *info, int options);
int pn__call_system(const char *command);

/* call_signal.c */
int pn__call_sigwait(const sigset_t *restrict set, int *restrict signo);
int pn__call_sigwaitinfo(const sigset_t *restrict set, siginfo_t *restrict info);
int pn__call_sigtimedwait(const sigset_t *restrict set, siginfo_t *restrict info,
                          const struct timespec *restrict span);
int pn__call_sigsuspend(const sigset_t *mask);
int pn__call_pause(void);

/* call_filelock.c. The variadic ones take what comes as one word, as the ABI passes it. */
int pn__call_flock(int fd, int operation);
int pn__call_fcntl(int fd, int command, long arg);
int pn__call_fcntl64(int fd, int command, long arg);
int pn__call_lockf(int fd, int command, off_t length);
int pn__call_lockf64(int fd, int command, off_t length);

/* call_futex.c */
long pn__call_syscall(long number, long a, long b, long c, long d, long e, long f);
