/* SPDX-License-Identifier: Apache-2.0 */
/* 3.11 only: PyGILState_Ensure and its kin look at a thread-specific key that CPython sets when a
 * thread state is made. All fibers share a thread, so the key must follow the fiber. The key lies in
 * the runtime's private struct: a file of its own, so that nothing else sees those headers. */
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030c0000
#define Py_BUILD_CORE 1
#endif
#include <Python.h>
#if PY_VERSION_HEX < 0x030c0000
#include <internal/pycore_gil.h>
#include <internal/pycore_runtime.h>
#endif

void pn__pycompat_set_tss(PyThreadState *ts);

void pn__pycompat_set_tss(PyThreadState *ts)
{
#if PY_VERSION_HEX < 0x030c0000
    /* It can fail only for a key that was not created. */
    (void)PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, ts);
#else
    (void)ts;
#endif
}
