/* SPDX-License-Identifier: Apache-2.0 */
/* A poller that flushes the log before each wait: so what a turn gathered leaves in one write(2) at
 * its end, whoever owns the loop then, and nothing lies in memory while the worker sleeps. */
#pragma once

#include "base/log.h"
#include "loop/loop.h"

/* Takes INNER over; LOG and OUT (NULL, or another sink than LOG) are borrowed. Aborts without
 * memory. */
struct pn_poller *pn__flush_poller_create(struct pn_poller *inner, struct pn_log *log,
                                          struct pn_log *out);
