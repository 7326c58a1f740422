/* SPDX-License-Identifier: Apache-2.0 */
/* What the two files of the worker share: inside worker*.c only. */
#pragma once

#include "http/access_log.h"
#include "http/h1.h"
#include "main/worker.h"

/* How far the end has come. */
enum pn__worker_stage {
    PN__WORKER_SERVING = 0,
    PN__WORKER_DRAINING = 1, /* no new connections; requests under way may finish */
    PN__WORKER_CUTTING = 2,  /* time is up, or a second signal came */
};

struct pn__worker {
    const struct pn__worker_config *config;
    struct pn_loop *loop;
    struct pn_cores *cores;
    struct pn_net *net;
    struct pn_h1 *h1;
    struct pn_ws_server *websockets;
    struct pn_acceptor *acceptor;
    struct pn_access_log access_log;
    struct pn_handler handler; /* the first in the chain */
    struct pn_handler *next;   /* the gateway's */
    bool came_in;              /* something, in this turn */
    bool gateway_started;
    bool calls_begun;
    enum pn__worker_stage stage;
    int64_t deadline_ns;       /* of the stage */
    int64_t calls_deadline_ns; /* until then scheduled calls are waited for */
    struct pn_timer stop_look; /* looks whether the stage is over */
};

/* SIGTERM, SIGINT, SIGQUIT, SIGHUP, and the guard before them. An enum pn_exit_status. */
int pn__worker_watch_signals(struct pn__worker *w);
void pn__worker_unwatch_signals(struct pn__worker *w);
/* Which requests the hard deadline costs. */
void pn__worker_say_lost(struct pn__worker *w);
