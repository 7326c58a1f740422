/* SPDX-License-Identifier: Apache-2.0 */
/* Notes a SIGTERM or SIGINT that comes while the application is loaded. Python makes an exception of
 * it, and whoever runs at that moment may swallow that: a bare except of the application's, a
 * __del__, a question of the server's own for which any exception is a no. The note is not lost.
 *
 * It stands in front of Python's handlers and passes signals on. One a process. */
#pragma once

#include "base/defs.h"

/* A signal that has its default action, or is ignored, is left alone. */
void pn__load_guard_begin(void);
/* Puts the handlers back, but for those that the application has replaced. True: a signal came. */
bool pn__load_guard_end(void);
