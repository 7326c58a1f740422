/* SPDX-License-Identifier: Apache-2.0 */
/* The type of the windows: see aio_window.h. */
#include "gateway/aio_window.h"

static int get_buffer(PyObject *self, Py_buffer *view, int flags)
{
    struct pn__window *w = (struct pn__window *)self;
    if (w->data)
        return PyBuffer_FillInfo(view, self, w->data, w->size, !w->writable, flags);
    view->obj = NULL;
    PyErr_SetString(PyExc_BufferError, "the window is shut");
    return -1;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc},
    {Py_bf_getbuffer, get_buffer},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pelton._pelton.Window",
    .basicsize = sizeof(struct pn__window),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyObject *pn__window_make_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}

PyObject *pn__window_new(PyTypeObject *type)
{
    return type->tp_alloc(type, 0); /* zeroed: shut */
}
