/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of pycompat.h that are not inline: thread states, exceptions, presized dicts, stacks. The
 * self-test is in pycompat_selftest.c. */
#include "gateway/pycompat.h"

#include <dlfcn.h>
#include <stdio.h>

PyObject *pn_pycompat_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb && value)
        PyException_SetTraceback(value, tb);
    Py_DECREF(type);
    Py_XDECREF(tb);
    return value;
#endif
}

void pn_pycompat_restore_exception(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030c0000
    PyErr_SetRaisedException(exc);
#else
    if (!exc)
        return;
    PyObject *type = Py_NewRef((PyObject *)Py_TYPE(exc));
    PyErr_Restore(type, exc, PyException_GetTraceback(exc));
#endif
}

int pn_pycompat_tell_server(PyObject *server, PyObject *method, PyObject *transport)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *r = PyObject_CallMethodOneArg(server, method, transport);
#else
    PyObject *r = PyObject_CallMethodNoArgs(server, method);
    (void)transport;
#endif
    Py_XDECREF(r);
    return r ? 0 : -1;
}

PyThreadState *pn_pycompat_state_new(uintptr_t ident, void *stack, size_t stack_size)
{
    PyThreadState *ts = PyThreadState_New(PyInterpreterState_Main());
    if (!ts)
        return NULL;
    if (ident)
        ts->thread_id = (unsigned long)ident;
    if (stack) {
        /* Since a patch release of 3.14, so it is looked for by name. */
        int (*set_protection)(PyThreadState *, void *, size_t);
        *(void **)&set_protection =
            dlsym(RTLD_DEFAULT, "PyUnstable_ThreadState_SetStackProtection");
        if (set_protection)
            (void)set_protection(ts, stack, stack_size);
    }
    return ts;
}

void pn_pycompat_state_end(PyThreadState *ts)
{
    PyThreadState_Clear(ts);
    PyThreadState_DeleteCurrent();
}

void pn_pycompat_state_resumed(PyThreadState *ts)
{
#if PY_VERSION_HEX < 0x030c0000
    pn__pycompat_set_tss(ts);
#else
    PyEval_RestoreThread(ts);
    PyEval_SaveThread();
#endif
}

void pn_pycompat_attach(PyThreadState *ts)
{
    PyEval_RestoreThread(ts);
#if PY_VERSION_HEX < 0x030c0000
    pn__pycompat_set_tss(ts);
#endif
}

void pn_pycompat_raise_in(PyThreadState *ts, PyObject *exc)
{
    /* Returns how many states it found: none when the core has just ended, which is no error. */
    (void)PyThreadState_SetAsyncExc(ts->thread_id, exc);
}

/* Returns how much of TEXT is used; what has no room is left out. */
static size_t write_frame(PyFrameObject *frame, char *text, size_t size)
{
    PyCodeObject *code = PyFrame_GetCode(frame); /* new reference */
    const char *file = PyUnicode_AsUTF8(code->co_filename);
    const char *name = PyUnicode_AsUTF8(code->co_name);
    PyErr_Clear();
    int n = snprintf(text, size, "  File \"%s\", line %d in %s\n", file ? file : "?",
                     PyFrame_GetLineNumber(frame), name ? name : "?");
    Py_DECREF(code);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

static size_t write_frames(PyThreadState *ts, char *text, size_t size)
{
    size_t used = 0;
    PyFrameObject *frame = PyThreadState_GetFrame(ts); /* new reference */
    while (frame) {
        size_t n = write_frame(frame, text + used, size - used);
        PyFrameObject *back = n > 0 ? PyFrame_GetBack(frame) : NULL; /* new reference */
        Py_DECREF(frame);
        frame = back;
        used += n;
    }
    return used;
}

size_t pn_pycompat_dump_stack(PyThreadState *ts, PyThreadState *as, char *text, size_t size)
{
    PyEval_RestoreThread(as);
    /* Frame objects are made here, which lets 3.11 collect: no finaliser is to run in this state. */
    int collects = PyGC_Disable();
    size_t used = write_frames(ts, text, size);
    if (collects)
        (void)PyGC_Enable();
    PyEval_SaveThread();
    return used;
}
