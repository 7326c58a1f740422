/* SPDX-License-Identifier: Apache-2.0 */
/* A thread for one call that nothing but blocking can make: a fiber's pthread_join, barrier, file lock. */
#pragma once

#include "cores/core.h"

/* Runs RUN(ARG) on a thread of its own, with all signals blocked, while CORE (a fiber, detached) is
 * parked, and returns when it is over: it is never cut, so ARG may lie on the fiber's stack. 0, or negative
 * errno: there is no thread to be had, and nothing was run. */
int pn__helper_run(struct pn_core *core, void (*run)(void *arg), void *arg);
/* A thread of that kind that nobody waits for. */
int pn__helper_start(void *(*run)(void *arg), void *arg);
