/* SPDX-License-Identifier: Apache-2.0 */
/* fork(2), wherever it comes from: our own for the process tree, or the application's in the middle
 * of a request (docs/lifecycle.md, part 5). Handlers of pthread_atfork(3) know only the process, so
 * that there is one record of what is alive in it. */
#pragma once

#include "main/start.h"

struct pn_cores;
struct pn_loop;
struct pn_manager;

/* What a child must not go on with. NULL where there is none. Borrowed; whoever makes one sets it
 * here and takes it back before it goes. */
struct pn__forks {
    struct pn__start *start;
    struct pn_manager *manager;
    struct pn_loop *loop; /* the worker's */
    struct pn_cores *cores;
    bool redirected;                /* pn_wait_install was called */
    void (*after_child)(void *ctx); /* the Python side: pieces of lines; needs no thread state */
    void *ctx;
    bool own; /* the fork under way is ours: the child goes on as a process of the server */
};

/* FORKS (borrowed until the process ends, or NULL) stands for this process from now on. The handlers
 * themselves are installed once. 0 or negative errno. */
int pn__forks_watch(struct pn__forks *forks);
