/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever differs between the versions of CPython, or is not its public API, stands behind these
 * functions; nowhere else in the room is a version compared. The self-test at start-up checks what
 * the carriers take for granted, and refuses with a sentence where it does not hold. */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "cores/core.h"

#if PY_VERSION_HEX < 0x030b0000
#error "Pelton needs Python 3.11 or later"
#endif
#ifdef Py_GIL_DISABLED
#error "Free-threaded builds of Python are not supported yet"
#endif

/* Whether asyncio.Task takes eager_start: its first step is then made by its constructor. */
#define PN_PYCOMPAT_EAGER_TASKS (PY_VERSION_HEX >= 0x030c0000)

/* The thread state that is attached to the calling thread; NULL when there is none. Never fails. */
static inline PyThreadState *pn_pycompat_current(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

/* From 3.12 on the garbage collector runs between bytecodes only. In 3.11 any allocation of a
 * container may run it, and finalisers with it: between these two calls it does not, so that
 * containers can be made while the loop is owned. The token goes from one to the other. */
static inline int pn_pycompat_hold_gc(void)
{
#if PY_VERSION_HEX < 0x030c0000
    return PyGC_Disable();
#else
    return 0;
#endif
}

static inline void pn_pycompat_release_gc(int token)
{
#if PY_VERSION_HEX < 0x030c0000
    if (token)
        PyGC_Enable();
#else
    (void)token;
#endif
}

/* Whether O, of a type that declares where they are, has weak references, or a namespace of its own. */
static inline bool pn_pycompat_has_weakrefs(PyObject *o)
{
    Py_ssize_t at = Py_TYPE(o)->tp_weaklistoffset;
    return at <= 0 || *(PyObject **)((char *)o + at) != NULL;
}

static inline bool pn_pycompat_has_dict(PyObject *o)
{
    Py_ssize_t at = Py_TYPE(o)->tp_dictoffset;
    return at <= 0 || *(PyObject **)((char *)o + at) != NULL;
}

/* 1 and a new reference, 0 and NULL when there is no such attribute (no exception is set), or -1. */
static inline int pn_pycompat_get_optional_attr(PyObject *o, PyObject *name, PyObject **out)
{
#if PY_VERSION_HEX >= 0x030d0000
    return PyObject_GetOptionalAttr(o, name, out);
#else
    return _PyObject_LookupAttr(o, name, out);
#endif
}

/* asyncio's Server counts its transports; from 3.13 on it knows them. METHOD is "_attach" or "_detach". 0, or -1 with
 * an exception. */
int pn_pycompat_tell_server(PyObject *server, PyObject *method, PyObject *transport);

/* Asks for the memory of the innermost frames of TS, which is near (pn_prefetch). */
static inline void pn_pycompat_fetch_frames(const PyThreadState *ts)
{
    enum { FRAMES_FETCHED = 320 };
    pn_prefetch((const char *)ts->datastack_top - FRAMES_FETCHED, FRAMES_FETCHED + 64);
}

/* The current exception, normalised, taken off the thread state: a new reference, or NULL. */
PyObject *pn_pycompat_take_exception(void);
/* Puts it back; steals EXC. */
void pn_pycompat_restore_exception(PyObject *exc);

/* Strings of 3.11 may still be in a form without a canonical buffer. 0, or -1 with an exception. */
static inline int pn_pycompat_unicode_ready(PyObject *s)
{
#if PY_VERSION_HEX < 0x030c0000
    return PyUnicode_READY(s);
#else
    (void)s;
    return 0;
#endif
}

/* A thread state for a core of the main interpreter; not attached. IDENT is what pthread_self() says in the
 * core (0: leave it alone): async exceptions are delivered by it. STACK may be NULL; from
 * 3.14 on CPython checks bounds. NULL without memory. Attached or not. */
PyThreadState *pn_pycompat_state_new(uintptr_t ident, void *stack, size_t stack_size);
/* Clears and deletes the attached state; returns detached. Runs Python code (thread-locals die). */
void pn_pycompat_state_end(PyThreadState *ts);
/* A fiber that goes on after a switch, detached: PyGILState and its kin answer with TS from here on.
 * 3.11 sets a thread-specific key; later ones follow the state last attached. */
void pn_pycompat_state_resumed(PyThreadState *ts);
/* PyEval_RestoreThread, after which PyGILState_Ensure finds TS: several states share fibers' thread. */
void pn_pycompat_attach(PyThreadState *ts);

/* Raises EXC (borrowed; NULL: takes back what was not raised yet) in the core of TS at its next
 * bytecode. Attached. */
void pn_pycompat_raise_in(PyThreadState *ts, PyObject *exc);

/* Writes the Python stack of TS, the innermost frame first, a line each, and returns its length: 0 when no
 * Python code runs there. Detached; AS is a state that nobody else uses. Waits for the GIL: another thread
 * runs TS, and what it pops is unmapped. faulthandler's way, which doesn't wait, has crashed here. */
size_t pn_pycompat_dump_stack(PyThreadState *ts, PyThreadState *as, char *text, size_t size);

/* 0, or -1 with a sentence in ERR: this interpreter cannot be used with CARRIER. Attached. */
int pn_pycompat_selftest(enum pn_carrier carrier, char *err, size_t err_size);

/* 3.11: the gilstate key of the calling thread. A no-op in later versions. In pycompat_tss.c, which
 * alone is compiled against CPython's internal headers. */
void pn__pycompat_set_tss(PyThreadState *ts);
