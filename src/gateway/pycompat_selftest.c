/* SPDX-License-Identifier: Apache-2.0 */
/* Start-up checks of what the carriers take for granted of CPython. They run in a fraction of a
 * millisecond, on the thread that starts, before any core exists. */
#include <stdio.h>

#include "gateway/pycompat.h"

static int refuse(char *err, size_t err_size, const char *text)
{
    snprintf(err, err_size, "%s (Python %d.%d.%d)", text, PY_MAJOR_VERSION, PY_MINOR_VERSION,
             PY_MICRO_VERSION);
    return -1;
}

static int check_interpreter(char *err, size_t err_size)
{
    if (Py_Version >> 16 != PY_VERSION_HEX >> 16)
        return refuse(err, err_size, "this copy of Pelton was built for another version of Python");
    if (PyInterpreterState_Get() != PyInterpreterState_Main())
        return refuse(err, err_size, "Pelton runs in the main interpreter only");
    return 0;
}

/* Does what a callback out of a C library does: takes the GIL by PyGILState and runs something. */
static bool gilstate_is(PyThreadState *ts)
{
    if (PyGILState_GetThisThreadState() != ts)
        return false;
    PyGILState_STATE held = PyGILState_Ensure();
    bool right = pn_pycompat_current() == ts;
    PyObject *probe = PyDict_New();
    right = right && probe != NULL;
    Py_XDECREF(probe);
    PyGILState_Release(held);
    return right;
}

/* Detached with state TS as the thread's: Ensure must take the GIL with it and give it back. */
static const char *probe_detached(PyThreadState *ts)
{
    pn_pycompat_state_resumed(ts);
    if (pn_pycompat_current() != NULL)
        return "a fiber's thread state stays attached after its resume";
    if (!gilstate_is(ts))
        return "PyGILState_Ensure does not take a fiber's own thread state";
    if (pn_pycompat_current() != NULL)
        return "PyGILState_Release does not detach a fiber's thread state";
    return NULL;
}

/* Attached with TS: a second state of the same OS thread, as every fiber has one. */
static const char *probe_attached(PyThreadState *ts, uintptr_t ident)
{
    if (pn_pycompat_current() != ts || PyThreadState_Get() != ts)
        return "a second thread state of one thread cannot be attached";
    if (ts->thread_id != ident)
        return "a thread state does not keep the ident that it was given";
    if (!gilstate_is(ts))
        return "PyGILState does not follow the attached thread state";
    PyObject *globals = PyDict_New();
    PyObject *value =
        globals ? PyRun_String("sum(i for i in (1, 2, 3))", Py_eval_input, globals, globals) : NULL;
    bool right = value && PyLong_AsLong(value) == 6;
    Py_XDECREF(value);
    Py_XDECREF(globals);
    if (!right) {
        PyErr_Clear();
        return "bytecode does not run on a second thread state";
    }
    return NULL;
}

static int check_fibers(char *err, size_t err_size)
{
    const uintptr_t ident = 0x706e0001; /* no thread of this process has it */
    PyThreadState *main_ts = PyThreadState_Get();
    PyThreadState *ts = pn_pycompat_state_new(ident, NULL, 0);
    if (!ts)
        return refuse(err, err_size, "no memory for a thread state");
    PyEval_SaveThread();
    const char *wrong = probe_detached(ts);
    PyEval_RestoreThread(ts);
    if (!wrong)
        wrong = probe_attached(ts, ident);
    pn_pycompat_state_end(ts);
    pn_pycompat_state_resumed(main_ts);
    PyEval_RestoreThread(main_ts);
    if (!wrong && !gilstate_is(main_ts))
        wrong = "the first thread state is not found again after a fiber ended";
    if (!wrong)
        return 0;
    char text[256];
    snprintf(text, sizeof text, "fibers (--async, --asyncio) cannot be used: %s", wrong);
    return refuse(err, err_size, text);
}

int pn_pycompat_selftest(enum pn_carrier carrier, char *err, size_t err_size)
{
    if (check_interpreter(err, err_size) < 0)
        return -1;
    if (carrier == PN_CARRIER_FIBERS)
        return check_fibers(err, err_size);
    return 0;
}
