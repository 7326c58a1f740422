/* SPDX-License-Identifier: Apache-2.0 */
/* sys.stdout and sys.stderr inside the server: text streams that hand whole lines to a log sink.
 *
 * What the application prints is gathered with the server's own lines and leaves in one write(2) at
 * the end of the turn, so a print costs no system call, and lines of several cores, threads and
 * processes never mix. A piece without a newline is kept, for each thread state by itself, until the
 * rest of its line comes or the writer flushes. These leave at once instead: stderr's lines, lines of
 * threads that are no cores, lines for a terminal, and everything in the child of a fork.
 *
 * To Python the type looks like io.TextIOWrapper; its .buffer takes bytes and shares its lines. */
#pragma once

#include <Python.h>

#include "base/log.h"

struct pn_logstream;

/* In the module's state. */
struct pn_logstream_state {
    PyTypeObject *text_type; /* all owned */
    PyTypeObject *bytes_type;
    struct pn_logstream *out; /* sys.stdout's, once installed */
    struct pn_logstream *err;
};

/* Makes the types. 0, or -1 with an exception set. Part of the module's exec. */
int pn_logstream_init(PyObject *module, struct pn_logstream_state *state);
int pn_logstream_traverse(struct pn_logstream_state *state, visitproc visit, void *arg);
void pn_logstream_clear(struct pn_logstream_state *state);

/* Puts streams for descriptors 1 and 2 in sys.stdout, sys.__stdout__, sys.stderr and sys.__stderr__,
 * after flushing what stood there. OUT and ERR are the sinks of the two (may be the same one);
 * borrowed until detach. 0, or -1 with an exception set. */
int pn_logstream_install(struct pn_logstream_state *state, struct pn_log *out, struct pn_log *err);
/* The sinks are about to go: pieces of lines are written out, and from now on every write goes
 * straight to the descriptor (what runs while the interpreter ends may still print). */
void pn_logstream_detach(struct pn_logstream_state *state);
/* Child of a fork: pieces of lines belong to the parent. Needs no thread state. */
void pn_logstream_after_fork_child(struct pn_logstream_state *state);
