/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of a start: what serves what, where and how. */
#pragma once

#include "main/start.h"

/* Before the application is loaded. */
void pn__describe_start(const struct pn__start *start);
/* When requests are served: the line that names the addresses. */
void pn__describe_serving(const struct pn__start *start);
