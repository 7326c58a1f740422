/* SPDX-License-Identifier: Apache-2.0 */
/* Where another thread of this process is: for reports of what blocks. */
#pragma once

#include <sys/types.h>

#include "base/defs.h"

enum { PN_WHERE_TEXT_MAX = 160 };

/* Writes what thread TID (gettid) does at this moment, without stopping it: "in poll() of libpq.so.5.15" when
 * it is in a system call, the library being the innermost one on its stack that is neither libc nor Pelton;
 * "computing" when it runs. Empty where the kernel doesn't tell (/proc/PID/task/TID/syscall). Always ends
 * with a zero byte. Takes no lock and waits for nothing, so TID may hold the linker's. */
void pn_where(pid_t tid, char text[PN_WHERE_TEXT_MAX]);
