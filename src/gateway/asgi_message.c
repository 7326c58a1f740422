/* SPDX-License-Identifier: Apache-2.0 */
/* What an application's message says. One walk over the dict finds all fields of the usual messages, whose
 * keys are interned by the compiler as ours are: they are compared as pointers. A dict with any other key is
 * asked for each field as it is needed. */
#include "gateway/asgi.h"

void pn__asgi_raise_order(PyObject *type, const char *expected)
{
    PyErr_Format(PyExc_RuntimeError, "Expected ASGI message %s, but got '%S'.", expected, type);
}

/* Fills M->fields; false: there is more than these in it. */
static bool walk(const struct pn__asgi *asgi, struct pn__message *m)
{
    Py_ssize_t at = 0;
    PyObject *key, *value; /* borrowed */
    memset(m->fields, 0, sizeof m->fields);
    for (Py_ssize_t n = PyDict_GET_SIZE(m->dict); n > 0; n--) {
        if (pn_unlikely(!PyDict_Next(m->dict, &at, &key, &value)))
            return false;
        unsigned i = 0;
        while (i < PN__ASGI_FIELDS && key != asgi->words[i])
            i++;
        if (pn_unlikely(i == PN__ASGI_FIELDS))
            return false;
        m->fields[i] = value;
    }
    return true;
}

/* Which of ours TYPE is; PN__A_WORDS: none of them. The object that an application has in its code
 * comes again. */
static int which_of(struct pn__asgi *asgi, PyObject *type)
{
    for (int i = 0; i < PN__ASGI_TYPES; i++)
        if (type == asgi->seen[i])
            return PN__ASGI_TYPE_FIRST + i;
    for (int i = 0; i < PN__ASGI_TYPES; i++) {
        if (PyUnicode_Compare(type, asgi->words[PN__ASGI_TYPE_FIRST + i]) == 0) {
            if (PyUnicode_CheckExact(type))
                Py_XSETREF(asgi->seen[i], Py_NewRef(type));
            return PN__ASGI_TYPE_FIRST + i;
        }
    }
    return PN__A_WORDS;
}

int pn__asgi_read(struct pn__asgi *asgi, PyObject *message, struct pn__message *m)
{
    if (pn_unlikely(!PyDict_Check(message))) {
        PyErr_Format(PyExc_TypeError, "an ASGI message must be a dict, not %.100s",
                     Py_TYPE(message)->tp_name);
        return -1;
    }
    m->dict = message;
    m->read = walk(asgi, m);
    m->type = pn__asgi_field(asgi, m, PN__A_TYPE);
    if (pn_unlikely(!m->type)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "type");
        return -1;
    }
    if (pn_unlikely(!PyUnicode_Check(m->type))) {
        PyErr_Format(PyExc_TypeError, "an ASGI message's type must be str, not %.100s",
                     Py_TYPE(m->type)->tp_name);
        return -1;
    }
    m->which = which_of(asgi, m->type);
    return 0;
}

int pn__asgi_flag(const struct pn__asgi *asgi, struct pn__message *m, enum pn__asgi_word key,
                  bool default_value)
{
    PyObject *value = pn__asgi_field(asgi, m, key); /* borrowed */
    if (!value)
        return PyErr_Occurred() ? -1 : default_value;
    if (pn_likely(value == Py_True || value == Py_False))
        return value == Py_True;
    m->read = false; /* code of the application's runs, which may change the dict */
    Py_INCREF(value);
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}
