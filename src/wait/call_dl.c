/* SPDX-License-Identifier: Apache-2.0 */
/* dlopen(3) of the interpreter: an import inside a request must find its library redirected before
 * the first call into it. Libraries that load others by themselves are noticed at the turn's end. */
#include <dlfcn.h>
#include <errno.h>

#include "wait/gate.h"

void *pn__call_dlopen(const char *file, int mode)
{
    void *handle = dlopen(file, mode);
    int saved = errno;
    if (handle)
        (void)pn_wait_scan();
    errno = saved;
    return handle;
}
