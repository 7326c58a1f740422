/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of a start: what serves what, where and how. */
#pragma once

#include "main/start.h"

/* Before the application is loaded. */
void pn__describe_start(const struct pn__start *start);
/* When requests are served: the line that names the addresses, and what the carrier means. */
void pn__describe_serving(const struct pn__start *start);
/* How many requests run at once in a process, in what, and what delays them: sentences for people. OUT
 * is cut at SIZE; PN__EXPLANATION_MAX is enough. */
void pn__describe_carrier(const struct pn_settings *settings, char *out, size_t size);

enum { PN__EXPLANATION_MAX = 768 };
