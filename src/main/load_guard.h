/* SPDX-License-Identifier: Apache-2.0 */
/* Notes a SIGTERM or SIGINT that comes before the process has its own handlers (a worker's or a
 * manager's loop), so that none is lost and none kills it: its sockets' files would stay.
 *
 *   begin --> HOLDING <--pass(true), pass(false)--> PASSING        end: the handlers of before
 *
 * HOLDING only notes; whoever comes to a point where the end is possible looks at what was noted.
 * PASSING, while the application's code runs, also passes it on: Python makes an exception of it.
 * Whoever runs at that moment may swallow that: a bare except of the application's, a __del__, a
 * question of the server's own for which any exception is a no. The note is not lost. The handlers
 * of loops stand in front of this one, and put it back when they go.
 *
 * One a process. Python's own table of handlers is not touched: what it shows to the application,
 * and what it has to undo, would be a moment in which the signal has its default action. */
#pragma once

#include "base/defs.h"

/* INTERRUPT (async-signal-safe) is what a signal is passed on to whose action was the default; what
 * is ignored is left alone. */
void pn__load_guard_begin(void (*interrupt)(void));
/* PASSING, or HOLDING again, in front of the handlers that the application may have set meanwhile.
 * True: a signal has come. */
bool pn__load_guard_pass(bool on);
/* A signal has come since begin, also after the end. */
bool pn__load_guard_came(void);
/* Puts back what is still its own to put back. Harmless when repeated. */
void pn__load_guard_end(void);
/* After the handlers of loops were put back, signals still blocked. OWN: the child goes on as a
 * process of the server, HOLDING; any other child has the handlers of before. */
void pn__load_guard_after_fork_child(bool own);
