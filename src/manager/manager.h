/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps a number of child processes alive until it is told to stop.
 *
 * The tree is made of two of these (src/main): the manager keeps one generation, which keeps the
 * workers. Neither serves a request; this room knows no application and no Python, only processes.
 *
 *   child:   WAITING --fork--> RUNNING --ended--> WAITING (back-off, when it died early)
 *                                 |                  |
 *                                 |                  +--stop--> GONE
 *                                 +--ended with a final status--> GONE (src/manager/exit_status.h)
 *
 * Signals: SIGTERM and SIGINT stop gracefully (SIGTERM to each child, again every second until it
 * has gone), a second one or SIGQUIT at once (SIGQUIT to each child); what is still there at the
 * deadline gets SIGKILL. Children get SIGTERM from the kernel when their parent dies. Only own
 * children are reaped, but PID 1 reaps all. */
#pragma once

#include <sys/types.h>

#include "base/log.h"
#include "board/board.h"
#include "loop/loop.h"
#include "manager/exit_status.h"

struct pn_manager;

struct pn_manager_config {
    const char *what;       /* "worker": in lines of the log, with its number from 1 on */
    unsigned count;         /* children, 1..PN_WORKERS_MAX */
    struct pn_board *board; /* where children say that they are ready; NULL: nobody looks */
    struct pn_log *log;
    bool is_top;              /* nobody above sends a signal twice: the second one counts */
    int64_t shutdown_ns;      /* what a child has for a graceful end */
    int64_t margin_ns;        /* how much later than it should have ended it is killed */
    int64_t respawn_delay_ns; /* after the first early death; doubled with each one that follows */
    int64_t respawn_delay_max_ns;
    /* fork(2) with what must stand around it. In the child pn_manager_after_fork_child must have been
     * called before it returns. */
    pid_t (*fork)(void *ctx);
    void (*ready)(void *ctx);    /* every child was ready, for the first time; may be NULL */
    void (*stopping)(void *ctx); /* the end begins, children are signalled next; may be NULL */
    const struct pn_sleep_hooks *sleep_hooks; /* NULL: none */
    void *ctx;
};

/* Copies CONFIG, borrows what it points to, watches signals. NULL with errno set. */
struct pn_manager *pn_manager_create(const struct pn_manager_config *config);

enum pn_manager_end {
    PN_MANAGER_STOPPED = 0, /* no child is left; VALUE is an enum pn_exit_status */
    PN_MANAGER_CHILD = 1,   /* this is the child with number VALUE (from 0 on) */
};
/* Returns once in the process that called it, and once in each child: there the manager is dead and
 * wants to be destroyed. */
enum pn_manager_end pn_manager_run(struct pn_manager *m, int *value);
/* Restores signals; in a child the parent's descriptors are not touched. NULL is fine. */
void pn_manager_destroy(struct pn_manager *m);

/* In the child of any fork (pthread_atfork); harmless when called twice. */
void pn_manager_after_fork_child(struct pn_manager *m);

/* For the child's side of "ready": a descriptor of its own (to be given to pn_manager_say_ready,
 * which closes it), taken before the manager is destroyed. -1 with errno set. */
int pn_manager_ready_fd(const struct pn_manager *m);
/* Wakes the parent, who looks at the board. FD -1 is fine. */
void pn_manager_say_ready(int fd);
