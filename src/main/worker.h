/* SPDX-License-Identifier: Apache-2.0 */
/* One worker: the process that serves requests. It owns the loop and every room on it, from the first
 * connection to the last; what lives longer (settings, log, listeners, gateway) is borrowed. */
#pragma once

#include <sys/types.h>

#include "board/board.h"
#include "gateway/gateway.h"
#include "main/forks.h"
#include "main/start.h"

/* --asyncio, and ASGI: what the worker needs of the event loop that requests schedule on (src/gateway/aio.h).
 * All are called attached, on home, or owning the loop. */
struct pn__worker_calls {
    int (*begin)(void *ctx, struct pn_cores *cores); /* before the first request; 0 or -1, said */
    size_t (*scheduled)(void *ctx);                  /* calls that are due, or will be */
    void (*say_dropped)(void *ctx);                  /* the end is near, and some are left */
    void (*end)(void *ctx,
                int64_t left_ns); /* no request runs any more; what is left of the grace */
    void *ctx;
};

struct pn__worker_config {
    struct pn__start *start;
    struct pn__forks *forks;
    struct pn_gateway *gateway; /* started and stopped by the worker; it has its application */
    struct pn_board *board;
    const struct pn__worker_calls *calls; /* NULL without --asyncio */
    unsigned slot;                        /* in the board */
    pid_t manager_pid;                    /* 0: there is no manager */
    void (*interrupt)(void);              /* raises in the main thread; async-signal-safe */
    void (*ready)(void *ctx);             /* the worker takes connections: once */
    void *ctx;
};

/* Serves until the process is told to stop. Called attached, on Python's main thread. Returns an
 * enum pn_exit_status; PN_EXIT_CUT means that cores are still inside requests: then the caller must
 * flush and _exit, since Python cannot be finalised. */
int pn__worker_run(const struct pn__worker_config *config);
