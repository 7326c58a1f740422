/* SPDX-License-Identifier: Apache-2.0 */
/* --asyncio and ASGI, for module_serve.c: free of Python.h. */
#pragma once

#include "main/worker.h"

struct pn_aio_home;

/* A worker's home loop, and what is done with it. Owned by whoever loads the application. */
struct pn__asyncio {
    struct pn_aio_home *home; /* NULL: there is none */
    struct pn_gateway *gateway;
    struct pn_log *log;
    bool is_asgi;
    int64_t left_ns; /* at the end: of the grace */
};

/* Attached, before the application is imported, or when it is found to speak ASGI. 0, or -1: it was said
 * why. */
int pn__asyncio_create(struct pn__asyncio *a, struct pn_gateway *gateway, struct pn_log *log);
/* The application speaks KIND, an ASGI. An enum pn_exit_status; it was said why. */
int pn__asyncio_use_asgi(struct pn__asyncio *a, const struct pn__start *start);
/* In the worker, before it runs: ASGI's lifespan. As use_asgi. */
int pn__asyncio_start_up(struct pn__asyncio *a);
/* What the worker calls; A is borrowed. */
struct pn__worker_calls pn__asyncio_calls(struct pn__asyncio *a);
