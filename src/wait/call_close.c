/* SPDX-License-Identifier: Apache-2.0 */
/* close, dup2, dup3 and close_range, in every thread: who waits in a fiber for a descriptor that is closed
 * is told (wait/fds.h). libc's own closing (fclose) is not seen. */
#include <linux/close_range.h>
#include <unistd.h>

#include "wait/fds.h"
#include "wait/io.h"

int pn__call_close(int fd)
{
    int r = close(fd);
    pn__fd_closed(fd);
    return r;
}

int pn__call_dup2(int old, int new)
{
    int r = dup2(old, new);
    if (r >= 0 && old != new)
        pn__fd_closed(new);
    return r;
}

int pn__call_dup3(int old, int new, int flags)
{
    int r = dup3(old, new, flags);
    if (r >= 0)
        pn__fd_closed(new);
    return r;
}

int pn__call_close_range(unsigned first, unsigned last, int flags)
{
    int r = close_range(first, last, flags);
    if (r == 0 && first <= last && !(flags & CLOSE_RANGE_CLOEXEC))
        pn__fd_closed_range(first, last);
    return r;
}
