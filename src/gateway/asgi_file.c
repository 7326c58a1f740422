/* SPDX-License-Identifier: Apache-2.0 */
/* http.response.pathsend and http.response.zerocopysend: from a message to a descriptor and a range. The
 * descriptor is our own, so the application may close its file as soon as it likes. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/asgi.h"

/* KEY's number, from 0 on, in *OUT; untouched when there is none. 0, or -1 with an exception. */
static int number(const struct pn__asgi *asgi, const struct pn__message *message,
                  enum pn__asgi_word key, int64_t *out)
{
    PyObject *value = pn__asgi_field(asgi, message, key); /* borrowed */
    if (!value || value == Py_None)
        return PyErr_Occurred() ? -1 : 0;
    long long n = PyLong_AsLongLong(value);
    if (n == -1 && PyErr_Occurred())
        return -1;
    if (n < 0) {
        PyErr_Format(PyExc_ValueError, "http.response.zerocopysend: %U must not be negative",
                     asgi->words[key]);
        return -1;
    }
    *out = n;
    return 0;
}

static int open_path(const struct pn__asgi *asgi, const struct pn__message *message)
{
    PyObject *path = pn__asgi_field(asgi, message, PN__A_PATH); /* borrowed */
    PyObject *bytes = NULL;
    if (!path) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "path");
        return -1;
    }
    Py_INCREF(path); /* its __fspath__ may change the message */
    int fd = -1;
    if (PyUnicode_FSConverter(path, &bytes)) {
        fd = open(PyBytes_AS_STRING(bytes), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
        Py_DECREF(bytes);
    }
    Py_DECREF(path);
    return fd;
}

static int open_file(const struct pn__asgi *asgi, const struct pn__message *message)
{
    PyObject *file = pn__asgi_field(asgi, message, PN__A_FILE); /* borrowed */
    if (!file) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "file");
        return -1;
    }
    Py_INCREF(file); /* its fileno() may change the message */
    int given = PyObject_AsFileDescriptor(file);
    Py_DECREF(file);
    int fd = given < 0 ? -1 : fcntl(given, F_DUPFD_CLOEXEC, 0);
    if (given >= 0 && fd < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    return fd;
}

/* The range of a file of SIZE bytes. 0, or -1 with an exception. */
static int choose_range(const struct pn__asgi *asgi, const struct pn__message *message,
                        int64_t size, struct pn__awaitable *a)
{
    int64_t offset = -1;
    int64_t count = -1;
    if (number(asgi, message, PN__A_OFFSET, &offset) < 0 ||
        number(asgi, message, PN__A_COUNT, &count) < 0)
        return -1;
    bool from_position = offset < 0;
    if (from_position)
        offset = lseek(a->fd, 0, SEEK_CUR);
    if (offset < 0)
        offset = 0;
    int64_t left = offset < size ? size - offset : 0;
    a->offset = offset;
    a->size = (size_t)(count >= 0 && count < left ? count : left);
    if (from_position)
        (void)lseek(a->fd, offset + (off_t)a->size, SEEK_SET); /* as a read would leave it */
    return 0;
}

int pn__asgi_open_file(struct pn__asgi *asgi, const struct pn__message *message, bool is_path,
                       struct pn__awaitable *a)
{
    struct stat st;
    a->sent = 0;
    a->fd = is_path ? open_path(asgi, message) : open_file(asgi, message);
    if (a->fd < 0)
        return -1;
    if (fstat(a->fd, &st) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISREG(st.st_mode)) {
        PyErr_SetString(PyExc_ValueError, "only a plain file can be sent");
        return -1;
    }
    a->offset = 0;
    a->size = (size_t)st.st_size;
    return is_path ? 0 : choose_range(asgi, message, st.st_size, a);
}
