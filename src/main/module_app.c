/* SPDX-License-Identifier: Apache-2.0 */
/* From what the user named to a callable. Whatever goes wrong is told in one sentence that says what
 * to do, and with the traceback where the application's own code failed. */
#include "main/module_app.h"

#include "gateway/pycompat.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/gateway.h"
#include "main/module_path.h"

enum {
    NAMES_SHOWN_MAX = 10, /* callables listed when none of the expected ones is there */
    MESSAGE_MAX = 1024,
};

struct loading {
    const struct pn__start *start;
    const struct pn_settings_app *app;
    int status;
};

/* --- What went wrong -------------------------------------------------------------------------- */

/* The loader's own frames say nothing about the application. */
static void cut_traceback(PyObject *exc)
{
    PyObject *tb = PyException_GetTraceback(exc); /* new, or NULL */
    while (tb && tb != Py_None) {
        PyObject *frame = PyObject_GetAttrString(tb, "tb_frame");
        PyObject *code = frame ? PyObject_GetAttrString(frame, "f_code") : NULL;
        PyObject *file = code ? PyObject_GetAttrString(code, "co_filename") : NULL;
        const char *name = file ? PyUnicode_AsUTF8(file) : NULL;
        bool ours = name && strncmp(name, "<frozen importlib", strlen("<frozen importlib")) == 0;
        PyObject *next = ours ? PyObject_GetAttrString(tb, "tb_next") : NULL;
        Py_XDECREF(file);
        Py_XDECREF(code);
        Py_XDECREF(frame);
        if (!next)
            break;
        (void)PyException_SetTraceback(exc, next);
        Py_SETREF(tb, next);
    }
    Py_XDECREF(tb);
    PyErr_Clear();
}

/* "TARGET cannot be loaded: WHY", and EXC's traceback below it in one piece. */
static void say_exception(struct loading *l, PyObject *exc, const char *why)
{
    cut_traceback(exc);
    PyObject *text = pn_gateway_format_exception(exc);
    pn__start_error(l->start, "the application '%s' cannot be loaded: %s", l->app->target, why);
    if (text) {
        pn_log_raw(l->start->log, PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text));
        pn_log_flush(l->start->log);
    }
    Py_XDECREF(text);
}

/* An exception that came out of the application's own code. Takes it off the thread state. */
static void say_failure(struct loading *l, const char *what)
{
    PyObject *exc = pn_pycompat_take_exception();
    char why[MESSAGE_MAX];
    if (PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        l->status = PN_EXIT_INTERRUPTED;
        pn_log_info(l->start->log, "interrupted while the application was being loaded");
        Py_DECREF(exc);
        return;
    }
    const char *type = Py_TYPE(exc)->tp_name;
    snprintf(why, sizeof why, "%s %s %s", what,
             strchr("AEIOUaeiou", type[0]) ? "raised an" : "raised a", type);
    say_exception(l, exc, why);
    Py_DECREF(exc);
}

/* Whether EXC says that TARGET itself, or a package that it lies in, is not there. */
static bool is_missing_target(PyObject *exc, const char *target)
{
    if (!PyErr_GivenExceptionMatches(exc, PyExc_ModuleNotFoundError))
        return false;
    PyObject *name = PyObject_GetAttrString(exc, "name");
    const char *missing = name && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
    size_t n = missing ? strlen(missing) : 0;
    bool is = n > 0 && strncmp(target, missing, n) == 0 && (target[n] == '.' || target[n] == '\0');
    Py_XDECREF(name);
    PyErr_Clear();
    return is;
}

/* --- The module ------------------------------------------------------------------------------- */

static PyObject *import_module(struct loading *l)
{
    const char *target = l->app->target;
    PyObject *module = PyImport_ImportModule(target);
    if (module)
        return module;
    PyObject *exc = pn_pycompat_take_exception();
    char directory[PATH_MAX];
    if (!is_missing_target(exc, target)) {
        pn_pycompat_restore_exception(exc);
        say_failure(l, "importing it");
        return NULL;
    }
    Py_DECREF(exc);
    if (!getcwd(directory, sizeof directory))
        strcpy(directory, "?");
    pn__start_error(l->start,
                    "no module named '%s' in '%s' or elsewhere on sys.path: is the directory right "
                    "(--chdir, --pythonpath), and the virtual environment (--home)?",
                    target, directory);
    return NULL;
}

/* uWSGI's name for a file: modules that look at __name__ go on finding what they expect. */
static PyObject *file_module_name(const char *path)
{
    char name[PATH_MAX + sizeof "uwsgi_file_"];
    size_t n = strlen(path);
    if (n > 3 && strcmp(path + n - 3, ".py") == 0)
        n -= 3;
    if (n >= PATH_MAX)
        n = PATH_MAX - 1;
    size_t at = strlen(strcpy(name, "uwsgi_file_"));
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)path[i];
        name[at++] = isalnum(c) || c >= 0x80 ? (char)c : '_';
    }
    return PyUnicode_DecodeFSDefaultAndSize(name, (Py_ssize_t)at);
}

/* Runs the file as module NAME, which stands in sys.modules meanwhile and afterwards: so what it
 * defines can be pickled. New reference, or NULL with an exception. */
static PyObject *run_file(PyObject *name, PyObject *path)
{
    PyObject *machinery = PyImport_ImportModule("importlib.machinery");
    PyObject *util = machinery ? PyImport_ImportModule("importlib.util") : NULL;
    PyObject *loader =
        util ? PyObject_CallMethod(machinery, "SourceFileLoader", "OO", name, path) : NULL;
    PyObject *spec =
        loader ? PyObject_CallMethod(util, "spec_from_loader", "OO", name, loader) : NULL;
    PyObject *module = spec ? PyObject_CallMethod(util, "module_from_spec", "O", spec) : NULL;
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    if (module && PyDict_SetItem(modules, name, module) == 0) {
        PyObject *done = PyObject_CallMethod(loader, "exec_module", "O", module);
        if (!done) {
            PyObject *exc = pn_pycompat_take_exception();
            if (PyDict_DelItem(modules, name) < 0)
                PyErr_Clear();
            pn_pycompat_restore_exception(exc);
            Py_CLEAR(module);
        }
        Py_XDECREF(done);
    } else {
        Py_CLEAR(module);
    }
    Py_XDECREF(spec);
    Py_XDECREF(loader);
    Py_XDECREF(util);
    Py_XDECREF(machinery);
    return module;
}

static PyObject *load_file(struct loading *l)
{
    const char *target = l->app->target;
    char path[PATH_MAX];
    struct stat st;
    if (!realpath(target, path) || stat(path, &st) < 0) {
        pn__start_error(l->start, "the application '%s' cannot be loaded: %s", target,
                        strerror(errno));
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        pn__start_error(l->start, "the application '%s' is no file: name a module with --module",
                        target);
        return NULL;
    }
    PyObject *name = file_module_name(target);
    PyObject *file = name ? PyUnicode_DecodeFSDefault(path) : NULL;
    PyObject *module = file ? run_file(name, file) : NULL;
    Py_XDECREF(file);
    Py_XDECREF(name);
    if (!module)
        say_failure(l, "running it");
    return module;
}

/* --- The callable ----------------------------------------------------------------------------- */

/* Names of MODULE that could be meant: callables that it defines itself. */
static void list_callables(PyObject *module, char *out, size_t size)
{
    PyObject *dict = PyModule_GetDict(module); /* borrowed */
    PyObject *own = dict ? PyDict_GetItemString(dict, "__name__") : NULL;
    PyObject *name, *value;
    Py_ssize_t pos = 0;
    size_t used = 0;
    unsigned count = 0;
    out[0] = '\0';
    while (dict && count < NAMES_SHOWN_MAX && PyDict_Next(dict, &pos, &name, &value)) {
        const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
        if (!text || text[0] == '_' || !PyCallable_Check(value))
            continue;
        PyObject *home = PyObject_GetAttrString(value, "__module__");
        /* Instances have their class's module: an application object made here may be of any. */
        bool is_own = !home || !(PyFunction_Check(value) || PyType_Check(value)) ||
                      (own && PyObject_RichCompareBool(home, own, Py_EQ) == 1);
        Py_XDECREF(home);
        PyErr_Clear();
        if (!is_own)
            continue;
        int n = snprintf(out + used, size - used, "%s%s", count ? ", " : "", text);
        if (n < 0 || (size_t)n >= size - used)
            break;
        used += (size_t)n;
        count++;
    }
    PyErr_Clear();
}

static void say_not_found(struct loading *l, PyObject *module, const char *wanted)
{
    char names[MESSAGE_MAX / 2];
    list_callables(module, names, sizeof names);
    pn__start_error(l->start, "'%s' has no %s%s%s; name the application's callable with --callable",
                    l->app->target, wanted,
                    names[0] ? ", but these callables: " : ", and no other callable", names);
}

/* "a.b.c" in MODULE: new, or NULL and it has been said what is missing. */
static PyObject *find_dotted(struct loading *l, PyObject *module, const char *dotted)
{
    char wanted[MESSAGE_MAX / 4];
    PyObject *found = Py_NewRef(module);
    for (const char *at = dotted; found && *at;) {
        size_t n = strcspn(at, ".");
        PyObject *name = PyUnicode_DecodeUTF8(at, (Py_ssize_t)n, "replace");
        PyObject *next = NULL;
        int rc = name ? pn_pycompat_get_optional_attr(found, name, &next) : -1;
        Py_XDECREF(name);
        Py_SETREF(found, next);
        at += n;
        at += *at == '.';
        if (rc < 0) {
            say_failure(l, "looking for its callable");
        } else if (rc == 0) {
            snprintf(wanted, sizeof wanted, "'%s'", dotted);
            say_not_found(l, module, wanted);
        }
    }
    return found;
}

/* "application", then "app": as uWSGI and everybody else. */
static PyObject *find_usual(struct loading *l, PyObject *module)
{
    static const char *const names[] = {"application", "app"};
    for (size_t i = 0; i < PN_ARRAY_LEN(names); i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        PyObject *found = NULL;
        int rc = name ? pn_pycompat_get_optional_attr(module, name, &found) : -1;
        Py_XDECREF(name);
        if (rc > 0)
            return found;
        if (rc < 0) {
            say_failure(l, "looking for its callable");
            return NULL;
        }
    }
    say_not_found(l, module, "'application' and no 'app'");
    return NULL;
}

/* ASGI's: async def app(scope, receive, send), an object whose __call__ is one, or a class that is made
 * with these three and awaited. */
static bool is_asgi(PyObject *callable)
{
    PyObject *inspect = PyImport_ImportModule("inspect");
    PyObject *call = PyObject_GetAttrString(callable, "__call__");
    bool is = PyType_Check(callable) && PyObject_HasAttrString(callable, "__await__");
    for (int i = 0; inspect && call && i < 2 && !is; i++) {
        PyObject *answer =
            PyObject_CallMethod(inspect, "iscoroutinefunction", "O", i == 0 ? callable : call);
        is = answer && PyObject_IsTrue(answer) == 1;
        Py_XDECREF(answer);
    }
    Py_XDECREF(call);
    Py_XDECREF(inspect);
    PyErr_Clear();
    return is;
}

/* Steals FOUND; a callable, or NULL and it has been said that it is none. */
static PyObject *check_callable(struct loading *l, PyObject *found)
{
    const char *name = l->app->callable_name ? l->app->callable_name : "application";
    if (PyCallable_Check(found))
        return found;
    pn__start_error(l->start, "'%s' in '%s' cannot be called: it is of type %s", name,
                    l->app->target, Py_TYPE(found)->tp_name);
    Py_DECREF(found);
    return NULL;
}

/* Steals FACTORY. */
static PyObject *call_factory(struct loading *l, PyObject *factory)
{
    if (!PyCallable_Check(factory))
        return check_callable(l, factory);
    PyObject *made = PyObject_CallNoArgs(factory);
    Py_DECREF(factory);
    if (!made)
        say_failure(l, "calling its factory");
    return made;
}

struct _object *pn__app_load(const struct pn__start *start, enum pn_interface *kind, int *status)
{
    struct loading l = {start, &start->settings.app, PN_EXIT_APP};
    int64_t began_ns = pn_clock_mono_ns();
    PyObject *module = NULL, *found = NULL;
    if (pn__path_setup(start) < 0)
        say_failure(&l, "setting up sys.path");
    else
        module = l.app->kind == PN_APP_FILE ? load_file(&l) : import_module(&l);
    if (module)
        found = l.app->callable_name ? find_dotted(&l, module, l.app->callable_name)
                                     : find_usual(&l, module);
    if (found && l.app->call_factory)
        found = call_factory(&l, found);
    if (found)
        found = check_callable(&l, found);
    *kind = start->settings.asgi.kind;
    if (found && *kind == PN_INTERFACE_AUTO)
        *kind = is_asgi(found) ? PN_INTERFACE_ASGI : PN_INTERFACE_WSGI;
    if (found) {
        int64_t took_ms = (pn_clock_mono_ns() - began_ns) / PN_NS_PER_MS;
        pn_log_info(start->log, "application '%s' loaded in %lld.%03lld s", l.app->target,
                    (long long)(took_ms / 1000), (long long)(took_ms % 1000));
    }
    Py_XDECREF(module);
    *status = l.status;
    return found;
}
