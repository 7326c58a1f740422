/* SPDX-License-Identifier: Apache-2.0 */
/* A fiber: a stack and where it stopped. Knows nothing of cores, loops or Python. A fiber never changes its
 * OS thread. pn__fiber_switch is the one place that sanitizers and valgrind are told. */
#pragma once

#include "base/defs.h"

struct pn__fiber {
    void *sp; /* while it doesn't run */
    const char *stack_base;
    size_t stack_size;
    void *fake_stack; /* ASan's */
    void *tsan_fiber;
};

/* FIBER stands for the calling thread and its own stack. */
void pn__fiber_of_thread(struct pn__fiber *fiber);
/* MAIN(ARG) begins on the stack when it is switched to first; it must never return. */
void pn__fiber_init(struct pn__fiber *fiber, void *stack_base, size_t stack_size,
                    void (*main_fn)(void *arg), void *arg);
/* It will not be switched to again, and doesn't run. */
void pn__fiber_fini(struct pn__fiber *fiber);
/* The first thing that MAIN does. */
void pn__fiber_begun(struct pn__fiber *fiber);
/* Leaves FROM (which runs) for TO; comes back when somebody switches to FROM. errno is FROM's own again then. */
void pn__fiber_switch(struct pn__fiber *from, struct pn__fiber *to);
/* The same for the last time: FROM will be thrown away. */
PN_NORETURN void pn__fiber_leave(struct pn__fiber *from, struct pn__fiber *to);
