/* SPDX-License-Identifier: Apache-2.0 */
/* sys.path, first to last: --pythonpath's directories in their order, the application's directory
 * (that of the file, or the current one for a module), the virtual environment's packages, and what
 * was there before: Pelton's own environment. */
#include "main/module_path.h"

#include "gateway/pycompat.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "main/module_app.h"

/* --- The virtual environment ------------------------------------------------------------------ */

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* HOME's directory of packages for this version. False when the path is too long. */
static bool site_packages(const char *home, char *out, size_t size)
{
    int n = snprintf(out, size, "%s/lib/python%d.%d/site-packages", home, PY_MAJOR_VERSION,
                     PY_MINOR_VERSION);
    return n > 0 && (size_t)n < size;
}

/* The version that HOME was made for, "3.12", when it is another one. */
static bool other_version(const char *home, char *out, size_t size)
{
    char pattern[PATH_MAX];
    glob_t found;
    bool any = false;
    snprintf(pattern, sizeof pattern, "%s/lib/python[0-9]*/site-packages", home);
    if (glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc > 0) {
        const char *version = strstr(found.gl_pathv[0] + strlen(home), "/python");
        if (version) {
            version += strlen("/python");
            snprintf(out, size, "%.*s", (int)strcspn(version, "/"), version);
            any = true;
        }
    }
    globfree(&found);
    return any;
}

int pn__app_check_home(const struct pn__start *start)
{
    const char *home = start->settings.app.home;
    char path[PATH_MAX];
    char version[32];
    if (!home)
        return 0;
    snprintf(path, sizeof path, "%s/pyvenv.cfg", home);
    bool is_venv = exists(path);
    if (is_venv && site_packages(home, path, sizeof path) && exists(path))
        return 0;
    if (!exists(home))
        pn__start_error(start, "option '--home': there is no directory '%s'", home);
    else if (other_version(home, version, sizeof version))
        pn__start_error(start,
                        "option '--home': '%s' is a virtual environment of Python %s, and Pelton "
                        "runs on %d.%d: install it there (%s/bin/pip install pelton)",
                        home, version, PY_MAJOR_VERSION, PY_MINOR_VERSION, home);
    else
        pn__start_error(start,
                        "option '--home': '%s' is no virtual environment (no %s in it): make one "
                        "with 'python3 -m venv %s'",
                        home, is_venv ? "site-packages" : "pyvenv.cfg", home);
    return -EINVAL;
}

/* Prepends DIRECTORY to an environment variable's list, or sets it. */
static int set_environ(const char *name, const char *value)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *map = os ? PyObject_GetAttrString(os, "environ") : NULL;
    PyObject *text = map ? PyUnicode_DecodeFSDefault(value) : NULL;
    int rc = text ? PyMapping_SetItemString(map, name, text) : -1;
    Py_XDECREF(text);
    Py_XDECREF(map);
    Py_XDECREF(os);
    return rc;
}

/* What the environment's bin/activate would have done for programs that the application starts. */
static int activate(const char *home)
{
    char list[PATH_MAX * 2];
    const char *before = getenv("PATH");
    int n =
        snprintf(list, sizeof list, "%s/bin%s%s", home, before ? ":" : "", before ? before : "");
    if (set_environ("VIRTUAL_ENV", home) < 0)
        return -1;
    return n < 0 || (size_t)n >= sizeof list ? 0 : set_environ("PATH", list);
}

/* Adds HOME's packages before everything in PATH (sys.path), .pth files included. */
static int add_home(PyObject *path, const char *home_setting)
{
    char home[PATH_MAX];
    char packages[PATH_MAX];
    if (!realpath(home_setting, home) || !site_packages(home, packages, sizeof packages))
        return 0; /* checked before: it went away meanwhile */
    PyObject *site = PyImport_ImportModule("site");
    PyObject *before = site ? PyList_GetSlice(path, 0, PyList_GET_SIZE(path)) : NULL;
    PyObject *done = before ? PyObject_CallMethod(site, "addsitedir", "s", packages) : NULL;
    int rc = done ? 0 : -1;
    /* addsitedir appends: what is new comes first. */
    for (Py_ssize_t i = 0, to = 0; rc == 0 && i < PyList_GET_SIZE(path); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(path, i));
        int known = PySequence_Contains(before, item);
        if (known == 0) {
            rc = PySequence_DelItem(path, i);
            if (rc == 0)
                rc = PyList_Insert(path, to++, item);
        } else if (known < 0) {
            rc = -1;
        }
        Py_DECREF(item);
    }
    Py_XDECREF(done);
    Py_XDECREF(before);
    Py_XDECREF(site);
    return rc < 0 ? -1 : activate(home);
}

/* --- Directories ------------------------------------------------------------------------------ */

/* Puts DIRECTORY at the front, made absolute; one that stands there already moves. */
static int put_first(PyObject *path, const char *directory)
{
    char absolute[PATH_MAX];
    PyObject *item =
        PyUnicode_DecodeFSDefault(realpath(directory, absolute) ? absolute : directory);
    if (!item)
        return -1;
    Py_ssize_t at = PySequence_Index(path, item);
    if (at < 0)
        PyErr_Clear();
    int rc = at < 0 ? 0 : PySequence_DelItem(path, at);
    if (rc == 0)
        rc = PyList_Insert(path, 0, item);
    Py_DECREF(item);
    return rc;
}

static int put_app_directory(PyObject *path, const struct pn_settings_app *app)
{
    char directory[PATH_MAX] = ".";
    if (app->kind == PN_APP_FILE && realpath(app->target, directory)) {
        char *slash = strrchr(directory, '/');
        if (slash && slash != directory)
            *slash = '\0';
    }
    return put_first(path, directory);
}

int pn__path_setup(const struct pn__start *start)
{
    const struct pn_settings_app *app = &start->settings.app;
    PyObject *path = PySys_GetObject("path"); /* borrowed */
    if (!path || !PyList_Check(path)) {
        PyErr_SetString(PyExc_RuntimeError, "sys.path is no list");
        return -1;
    }
    Py_INCREF(path);
    int rc = app->home ? add_home(path, app->home) : 0;
    if (rc == 0)
        rc = put_app_directory(path, app);
    for (size_t i = app->python_path.count; rc == 0 && i > 0; i--)
        rc = put_first(path, app->python_path.items[i - 1]);
    Py_DECREF(path);
    return rc;
}
