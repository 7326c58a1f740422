/* SPDX-License-Identifier: Apache-2.0 */
/* The extension pelton._pelton: main(argv), which is the whole server, and its version. */
#include "main/module.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "gateway/aio.h"
#include "gateway/gateway.h"
#include "main/describe.h"
#include "main/load_guard.h"
#include "main/module_app.h"

static struct pn__module *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* "CPython 3.11.2". */
static void python_version(char *out, size_t size)
{
    const char *version = Py_GetVersion();
    snprintf(out, size, "CPython %.*s", (int)strcspn(version, " "), version);
}

/* What Python does for Ctrl-C, also when SIGTERM comes. Async-signal-safe. */
static void interrupt(void)
{
    (void)PyErr_SetInterruptEx(SIGINT);
}

/* A shell starts what it puts into the background with SIGINT ignored, and CPython then has no handler for it:
 * but the server stops by it, and interrupts the application with it. Attached, on the main thread. */
static void heed_sigint(void)
{
    PyObject *module = PyImport_ImportModule("signal");
    PyObject *handler = module ? PyObject_GetAttrString(module, "default_int_handler") : NULL;
    struct sigaction now;
    if (handler && sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler == SIG_IGN) {
        PyObject *before = PyObject_CallMethod(module, "signal", "iO", SIGINT, handler);
        Py_XDECREF(before);
    }
    Py_XDECREF(handler);
    Py_XDECREF(module);
    PyErr_Clear();
}

static int serve(struct pn__module *module, struct pn__start *start)
{
    module->start = start;
    int status = pn__serve(module, start);
    module->start = NULL;
    return status;
}

/* From the command line to an exit status. */
static int run(struct pn__module *module, int argc, char *const *argv)
{
    struct pn__start start;
    char python[32];
    int status = PN_EXIT_OK;
    python_version(python, sizeof python);
    if (pn__start_read(&start, argc, argv, python, &status) == PN__NEXT_GO_ON) {
        heed_sigint();
        pn__load_guard_begin(interrupt);
        if (pn__app_check_home(&start) < 0)
            status = PN_EXIT_CONFIG;
        else if (pn__start_open(&start, &status) == PN__NEXT_GO_ON) {
            if (pn_logstream_install(&module->streams, start.out, start.log) == 0)
                status = serve(module, &start);
            else
                status = -1; /* an exception is set */
            pn_logstream_detach(&module->streams);
        }
    }
    pn__start_close(&start);
    pn__load_guard_end();
    return status;
}

/* ARGUMENTS is a sequence of str: as the operating system gave them, undecodable bytes included. */
static PyObject *module_main(PyObject *self, PyObject *arguments)
{
    PyObject *list = PySequence_List(arguments);
    if (!list)
        return NULL;
    Py_ssize_t argc = PyList_GET_SIZE(list);
    char **argv = pn_xcalloc((size_t)argc + 1, sizeof *argv);
    Py_ssize_t i;
    for (i = 0; i < argc; i++) {
        PyObject *bytes = NULL;
        if (!PyUnicode_FSConverter(PyList_GET_ITEM(list, i), &bytes))
            break;
        argv[i] = pn_xstrdup(PyBytes_AS_STRING(bytes));
        Py_DECREF(bytes);
    }
    Py_DECREF(list);
    int status = i == argc ? run(state_of(self), (int)argc, argv) : -1;
    for (i = 0; i < argc; i++)
        free(argv[i]);
    free(argv);
    return status < 0 ? NULL : PyLong_FromLong(status);
}

static PyObject *module_explain(PyObject *self, PyObject *unused PN_UNUSED)
{
    char text[PN__EXPLANATION_MAX];
    const struct pn__start *start = state_of(self)->start;
    if (!start)
        return PyUnicode_FromString("This process is no server of Pelton's.");
    pn__describe_carrier(&start->settings, text, sizeof text);
    return PyUnicode_FromString(text);
}

/* For the server's own handler of logging, where it is the application's last resort. */
static PyObject *module_format_exception(PyObject *self PN_UNUSED, PyObject *exc)
{
    PyObject *bytes = pn_gateway_format_exception(exc);
    if (!bytes)
        return PyUnicode_FromString(Py_TYPE(exc)->tp_name);
    PyObject *text =
        PyUnicode_DecodeUTF8(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), "replace");
    Py_DECREF(bytes);
    return text;
}

PyDoc_STRVAR(format_exception_doc, "_format_exception(exc, /)\n--\n\n"
                                   "The traceback as it stands in the server's log.");

PyDoc_STRVAR(explain_doc, "explain()\n--\n\n"
                          "Say in words how many requests this process serves at once, in what, "
                          "and what delays them.");

PyDoc_STRVAR(main_doc, "main(argv, /)\n--\n\n"
                       "Run the server with these arguments (without the program's name) until it "
                       "is told to stop;\nreturn the exit status.");

static PyMethodDef methods[] = {
    {"_format_exception", module_format_exception, METH_O, format_exception_doc},
    {"explain", module_explain, METH_NOARGS, explain_doc},
    {"main", module_main, METH_O, main_doc},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *self)
{
    struct pn__module *module = state_of(self);
    if (pn_logstream_init(self, &module->streams) < 0 || pn_aio_add_types(self) < 0)
        return -1;
    return PyModule_AddStringConstant(self, "version", PELTON_VERSION);
}

static int module_traverse(PyObject *self, visitproc visit, void *arg)
{
    return pn_logstream_traverse(&state_of(self)->streams, visit, arg);
}

static int module_clear(PyObject *self)
{
    pn_logstream_clear(&state_of(self)->streams);
    return 0;
}

static void module_free(void *self)
{
    (void)module_clear(self);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,         .m_name = "pelton._pelton",
    .m_doc = "Pelton's server.",   .m_size = sizeof(struct pn__module),
    .m_methods = methods,          .m_slots = slots,
    .m_traverse = module_traverse, .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__pelton(void);
PyMODINIT_FUNC PyInit__pelton(void)
{
    return PyModuleDef_Init(&definition);
}
