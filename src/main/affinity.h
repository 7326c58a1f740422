/* SPDX-License-Identifier: Apache-2.0 */
/* --cpu-affinity: which processors a worker's threads may run on (sched_setaffinity(2)).
 *
 * A worker of threads computes on one processor at a time, since the GIL lets one thread through: where the
 * kernel wakes the next one on another processor, each hand-over interrupts that one, which is dear in virtual machines. */
#pragma once

#include <sched.h>
#include <stddef.h>

/* Which processors worker SLOT (from 0 on) gets of ALLOWED: COUNT of them, the workers in turns, from the first
 * again when they come to the end; all of ALLOWED when it has no more than COUNT. Both sets have SIZE bytes.
 * Returns how many were chosen. */
unsigned pn__affinity_choose(const cpu_set_t *allowed, size_t size, unsigned slot, unsigned count,
                             cpu_set_t *chosen);

/* Binds the calling thread, and those that it makes from now on, to COUNT (at least 1) of the processors that it may use.
 * Writes their numbers ("2, 3") to TEXT, cut to SIZE bytes. 0 or negative errno: then nothing has changed. */
int pn__affinity_bind(unsigned slot, unsigned count, char *text, size_t size);
