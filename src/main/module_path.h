/* SPDX-License-Identifier: Apache-2.0 */
/* Where Python looks for the application's modules. */
#pragma once

#include "main/start.h"

/* Attached. Puts --pythonpath's directories, the application's own and those of the virtual
 * environment into sys.path. 0, or -1 with an exception set (site's .pth files may run code). */
int pn__path_setup(const struct pn__start *start);
