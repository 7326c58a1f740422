/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the application: sys.path, the virtual environment, the module or file, the callable. Free
 * of Python.h: struct _object is what Python.h calls PyObject. */
#pragma once

#include "main/start.h"

struct _object;

/* Looks, without Python, whether --home is a virtual environment of this Python. 0, or a sentence
 * has been said and -EINVAL. */
int pn__app_check_home(const struct pn__start *start);

/* Attached. Loads what the settings name: a new reference to a callable. NULL: it has been said why,
 * and *STATUS is how the process should end. *KIND gets what it speaks, never AUTO. May run for long, and runs the application's code. */
struct _object *pn__app_load(const struct pn__start *start, enum pn_interface *kind, int *status);
