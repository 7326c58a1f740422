/* SPDX-License-Identifier: Apache-2.0 */
/* Cuts what is written to one descriptor into whole lines, per thread state; inside logstream*.c
 * only. Every function needs the GIL, but the one that says otherwise. */
#pragma once

#include <Python.h>

#include "base/log.h"

struct pn__lines;

/* LOG is borrowed until pn__lines_detach. AT_ONCE: no line waits for the end of a turn.
 * One reference is the caller's; NULL without memory (no exception is set). */
struct pn__lines *pn__lines_new(int fd, struct pn_log *log, bool at_once);
struct pn__lines *pn__lines_ref(struct pn__lines *lines);
/* What is left of pieces is written out with the last reference. NULL is fine. */
void pn__lines_unref(struct pn__lines *lines);

int pn__lines_fd(const struct pn__lines *lines);
/* Whole lines go to the sink; what follows the last newline is kept for this thread state.
 * Without memory for that, the piece leaves as it is. */
void pn__lines_write(struct pn__lines *lines, const char *p, size_t n);
/* This thread state's piece of a line, and all that waits in the sink, leaves now. */
void pn__lines_flush(struct pn__lines *lines);
/* Every thread state's piece. */
void pn__lines_flush_all(struct pn__lines *lines);
/* Flushes all; from now on everything is written to the descriptor directly. */
void pn__lines_detach(struct pn__lines *lines);
/* Drops the pieces, which are the parent's. Needs no GIL: the child has one thread. */
void pn__lines_after_fork_child(struct pn__lines *lines);
