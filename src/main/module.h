/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the extension pelton._pelton share: inside module*.c only. */
#pragma once

#include "gateway/logstream.h"
#include "main/forks.h"
#include "main/start.h"

/* The module's state. */
struct pn__module {
    struct pn_logstream_state streams;
    const struct pn__start *start; /* borrowed; NULL: nothing is served */
};

/* Serves as the settings say, in whatever process of the tree this is or becomes: so it may return
 * more than once, in different processes, each time with the exit status of that one. Attached, on
 * Python's main thread. */
int pn__serve(struct pn__module *module, struct pn__start *start);

/* fork(2) as os.fork() does it: with CPython's own hooks and those of os.register_at_fork. */
pid_t pn__fork_python(struct pn__forks *forks);
