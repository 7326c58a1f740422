/* SPDX-License-Identifier: Apache-2.0 */
/* Ends a worker whose loop cannot: one that is told to stop while the application holds the loop (a
 * blocking worker in the middle of a request, a fiber that computes for ever).
 *
 * It stands in front of the loop's own signal handlers, passes every signal on to them, and keeps the
 * time by a POSIX timer, all in signal handlers and without a thread:
 *
 *   first signal ---> grace ---------> interrupt: raises in the request ---> last: _exit(75)
 *   second one, or SIGQUIT ---> soon --^
 *
 * A worker whose loop still turns cuts its requests itself and takes over before that; one that
 * stops by itself removes the guard. One a process. */
#pragma once

#include "base/log.h"

struct pn__stop_guard_config {
    int64_t grace_ns;   /* from the first signal on */
    int64_t last_ns;    /* from the interruption, or the taking over, to _exit */
    bool repeats_count; /* a second SIGTERM or SIGINT ends the grace; SIGQUIT always does */
    void (*interrupt)(void *ctx); /* async-signal-safe; NULL: there is nothing to interrupt */
    void *ctx;
    struct pn_log *log; /* both borrowed; flushed before _exit where that is possible */
    struct pn_log *out;
};

/* After SIGTERM, SIGINT and SIGQUIT got the handlers that they are passed on to. 0 or negative
 * errno. */
int pn__stop_guard_install(const struct pn__stop_guard_config *config);
/* The loop turns and cuts what still runs: no interruption any more, only the last deadline. */
void pn__stop_guard_taken_over(void);
/* The application was interrupted, or the loop has taken over: nothing new is to begin. */
bool pn__stop_guard_is_last(void);
/* Puts those handlers back and forgets the time. Harmless when not installed. */
void pn__stop_guard_remove(void);
/* Child of a fork: its handlers were put back by the loop, the timer is not there. */
void pn__stop_guard_after_fork_child(void);
