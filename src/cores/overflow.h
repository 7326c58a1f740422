/* SPDX-License-Identifier: Apache-2.0 */
/* Says which fiber overflowed its stack before the process dies of it: a handler for SIGSEGV, on a stack
 * of its own, that looks whether the running core's guard page was touched. It then puts back what was
 * there before (faulthandler, a sanitizer, the default), which gets the same fault. */
#pragma once

/* On the thread whose fibers are meant. Without memory nothing is watched. One a process. */
void pn__overflow_watch(void);
/* On the same thread. */
void pn__overflow_unwatch(void);
