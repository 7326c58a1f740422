/* SPDX-License-Identifier: Apache-2.0 */
/* asyncio: the type behind pelton.Loop, and the worker's home loop.
 *
 * pelton.Loop is asyncio.SelectorEventLoop whose scheduling half (pelton._pelton.LoopCore, a C base class)
 * stands on src/loop; pelton/_loop.py puts the two together. Anybody may make one: it has a pn_loop and an
 * epoll set of its own. In a worker with --asyncio there is one more, the home loop, which stands on the
 * worker's pn_loop: its callbacks run on home only, and requests schedule on it from their cores.
 *
 *   process that loads the application      each worker
 *   pn_aio_home_create                      pn_aio_home_bind(cores)     after pn_cores_create
 *   import the application                  pn_aio_home_begin           before pn_cores_run
 *        --- fork, or not ---                 pn_aio_home_prepare_request, before each request
 *                                             pn_aio_home_scheduled, pn_aio_home_say_dropped at the end
 *                                           pn_aio_home_end             after pn_cores_run
 *                                           pn_aio_home_destroy         before pn_cores_destroy
 *
 * What the application schedules between create and bind waits, and is set when the loop is bound.
 * This header is free of Python.h, for main: struct _object is PyObject. Every function is called attached. */
#pragma once

#include "base/list.h"
#include "base/log.h"
#include "cores/core.h"

struct _object;
struct pn_aio_home;

/* For the module's exec: adds LoopCore. 0, or -1 with an exception set. */
int pn_aio_add_types(struct _object *module);

struct pn_aio_home_config {
    /* A callback raised SystemExit or KeyboardInterrupt: main begins the graceful end of this
     * process. Called on home, owning the loop, once. May be NULL. */
    void (*exit_wanted)(void *ctx);
    void *ctx;
    struct pn_log *log; /* borrowed; NULL: the default sink */
};

/* Makes the loop and makes it the calling thread's current one (asyncio.get_event_loop). NULL with an
 * exception set. One a process. */
struct pn_aio_home *pn_aio_home_create(const struct pn_aio_home_config *config);

/* In the worker, on home, with the loop owned. Borrows CORES and its loop until end; becomes the cores' home work.
 * The calling thread's current loop is home's again, in case the application changed it.
 * 0, or -1 with an exception set. */
int pn_aio_home_bind(struct pn_aio_home *home, struct pn_cores *cores);
/* From here on the loop is running, in asyncio's sense, on home's thread state. 0, or -1 with an
 * exception set. */
int pn_aio_home_begin(struct pn_aio_home *home);

/* On a request's core, inside the application, before it is called: asyncio.get_event_loop() in this
 * core is home's loop, also when the core's last request changed that. About a hundred instructions
 * when nothing changed. 0, or -1 with an exception set. */
int pn_aio_home_prepare_request(struct pn_aio_home *home, struct pn_core *core);

/* A call from C: run on home, inside the application, before the callbacks of the same turn. Embedded in
 * what it is for; run may free that. run returns 0, or -1 with SystemExit or KeyboardInterrupt set. */
struct pn_aio_call {
    struct pn_list node;
    int (*run)(struct pn_aio_call *call);
};
static inline void pn_aio_call_init(struct pn_aio_call *call, int (*run)(struct pn_aio_call *))
{
    pn_list_init(&call->node);
    call->run = run;
}
/* Owner, after bind. CALL may stand there already. Before it has run it may be withdrawn with
 * pn_list_remove, owning the loop or inside on home. */
void pn_aio_home_call(struct pn_aio_home *home, struct pn_aio_call *call);
/* Between bind and end: cores run beside it. */
bool pn_aio_home_serving(const struct pn_aio_home *home);
/* The loop object; borrowed. */
struct _object *pn_aio_home_loop(struct pn_aio_home *home);
/* On home, inside. TYPE(*ARGS, **NAMED), which is asyncio.Task with home's loop and, from 3.12 on, eager_start:
 * *TASK is it, a new reference, whose first step has been made, or NULL with an exception (then 0 is returned).
 * As pn_aio_call.run. Then task_started says whether that step was the last. */
int pn_aio_home_start_task(struct pn_aio_home *home, struct _object *type, struct _object *args,
                           struct _object *named, struct _object **task);
void pn_aio_home_task_started(struct pn_aio_home *home, struct _object *task, bool over);
/* Drops the caller's reference to a TASK of that TYPE, which is over. Runs Python code. */
void pn_aio_home_drop_task(struct pn_aio_home *home, struct _object *type, struct _object *task);

/* Calls that are due or will be: call_soon, call_later, call_at, not cancelled. Owner. */
size_t pn_aio_home_scheduled(const struct pn_aio_home *home);
/* One line in the log when there are any. */
void pn_aio_home_say_dropped(struct pn_aio_home *home);

/* Once, before end: WIND_UP is called there, attached, when no request runs any more and everything that
 * is scheduled still is; it may run the loop by its run_until_complete. */
void pn_aio_home_on_end(struct pn_aio_home *home, void (*wind_up)(void *ctx), void *ctx);

/* On home, attached, after pn_cores_run came back with 0, before gateway and cores go: what is scheduled is
 * dropped, tasks are cancelled and may run their finally blocks for at most TIMEOUT_NS, the loop is
 * closed. Errors are logged. */
void pn_aio_home_end(struct pn_aio_home *home, int64_t timeout_ns);
/* Frees what is left; without end before it, nothing is touched but memory. */
void pn_aio_home_destroy(struct pn_aio_home *home);
/* Child of a fork, which is no worker: the loop is closed to everybody there. Needs no thread state. */
void pn_aio_home_after_fork_child(struct pn_aio_home *home);
