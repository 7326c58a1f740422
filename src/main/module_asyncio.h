/* SPDX-License-Identifier: Apache-2.0 */
/* --asyncio, for module_serve.c: free of Python.h. */
#pragma once

#include "main/worker.h"

struct pn_aio_home;

/* Attached, before the application is imported. NULL: it was said why. */
struct pn_aio_home *pn__asyncio_create(struct pn_log *log);
/* What the worker calls; HOME is borrowed. */
struct pn__worker_calls pn__asyncio_calls(struct pn_aio_home *home);
