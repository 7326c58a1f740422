/* SPDX-License-Identifier: Apache-2.0 */
/* What pelton.await_() waits with: a core parks until it is woken, and a cut ends that. A lock of Python's would do,
 * but for the cut: CPython goes on waiting for it after any signal.
 *
 * wake may come at any time, from any thread: before the wait, or after a wait that ended otherwise. The two
 * fields are read and written crosswise, so one of the two sides sees the other. */
#include <stdlib.h>

#include "gateway/internal.h"

#include "base/mem.h"

#define NAME    "pelton.waiter"
#define NO_WAIT UINT64_MAX

struct waiter {
    struct pn_core *core;
    _Atomic uint64_t number; /* of the wait under way, or NO_WAIT: the core may have gone */
    atomic_bool woken;
};

static void destroy(PyObject *capsule)
{
    free(PyCapsule_GetPointer(capsule, NAME));
}

PyObject *pn__waiter_new(void)
{
    struct pn_core *core = pn_core_self();
    if (!core)
        Py_RETURN_NONE;
    struct waiter *w = pn_try_malloc(sizeof *w);
    if (!w)
        return PyErr_NoMemory();
    w->core = core;
    atomic_init(&w->number, NO_WAIT);
    atomic_init(&w->woken, false);
    PyObject *capsule = PyCapsule_New(w, NAME, destroy);
    if (!capsule)
        free(w);
    return capsule;
}

/* Detached. */
static int park(struct waiter *w)
{
    uint32_t number = pn_core_wait_begin(w->core);
    atomic_store(&w->number, number);
    int rc = atomic_load(&w->woken) ? PN_WAIT_READY : pn_core_park(w->core, number, PN_NEVER_NS);
    atomic_store(&w->number, NO_WAIT);
    return rc;
}

PyObject *pn__waiter_wait(PyObject *capsule)
{
    struct waiter *w = PyCapsule_GetPointer(capsule, NAME);
    int rc;
    if (!w)
        return NULL;
    if (w->core != pn_core_self()) {
        PyErr_SetString(PyExc_RuntimeError, "this waiter is another core's");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS rc = park(w);
    Py_END_ALLOW_THREADS if (rc == PN_WAIT_INTERRUPTED && PyErr_CheckSignals() < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *pn__waiter_wake(PyObject *capsule)
{
    struct waiter *w = PyCapsule_GetPointer(capsule, NAME);
    if (!w)
        return NULL;
    atomic_store(&w->woken, true);
    uint64_t number = atomic_load(&w->number);
    if (number != NO_WAIT)
        pn_core_unpark(w->core, (uint32_t)number);
    Py_RETURN_NONE;
}
