/* SPDX-License-Identifier: Apache-2.0 */
/* add_reader, add_writer and their removal, as the private methods that SelectorEventLoop's own code
 * (sockets, pipes, subprocesses) calls. Each fd has two level-triggered watches; a ready one puts its handle
 * in the ready queue, once, however often the loop reports it before the callback runs. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "gateway/aio_sock.h"

#include "base/mem.h"

enum { TABLE_MIN = 64 };

static void ready(struct pn_watch *watch, uint32_t revents)
{
    struct pn__aio_end *end = pn_container_of(watch, struct pn__aio_end, watch);
    struct pn__handle *h = end->handle;
    if (!h || h->queued)
        return;
    /* After PN_WATCH_CLOSED nothing watches any more; the handle goes when it is removed, or with
     * the loop, as asyncio has it. */
    if (revents & PN_WATCH_CLOSED)
        return;
    Py_INCREF(h);
    pn__handles_push(&end->aio->ready, h);
}

static void end_init(struct pn__aio_end *end, struct pn__aio *aio)
{
    pn_watch_init(&end->watch, ready);
    end->handle = NULL;
    end->aio = aio;
}

static int grow(struct pn__aio *aio, size_t fd)
{
    size_t count = pn_max_size(aio->fd_count, TABLE_MIN);
    while (count <= fd)
        count *= 2;
    struct pn__aio_fd **fds = pn_try_realloc(aio->fds, count * sizeof(struct pn__aio_fd *));
    if (!fds)
        return -1;
    for (size_t i = aio->fd_count; i < count; i++)
        fds[i] = NULL;
    aio->fds = fds;
    aio->fd_count = count;
    return 0;
}

/* The entry of FD, made if need be; NULL without memory. */
static struct pn__aio_fd *entry_for(struct pn__aio *aio, int fd)
{
    if ((size_t)fd >= aio->fd_count && grow(aio, (size_t)fd) < 0)
        return NULL;
    struct pn__aio_fd *e = aio->fds[fd];
    if (!e) {
        e = pn_try_malloc(sizeof(*e));
        if (!e)
            return NULL;
        end_init(&e->read, aio);
        end_init(&e->write, aio);
        e->transport = NULL;
        aio->fds[fd] = e;
    }
    return e;
}

static struct pn__aio_fd *entry_of(const struct pn__aio *aio, int fd)
{
    return fd >= 0 && (size_t)fd < aio->fd_count ? aio->fds[fd] : NULL;
}

/* int(FD.fileno()), as selectors has it: fileno() may give what is only like an int. */
PN_COLD static int number_of_rare(PyObject *fd)
{
    PyObject *fileno = PyObject_CallMethod(fd, "fileno", NULL);
    PyObject *number = fileno ? PyNumber_Long(fileno) : NULL;
    int n = number ? PyObject_AsFileDescriptor(number) : -1;
    Py_XDECREF(number);
    Py_XDECREF(fileno);
    return n;
}

/* -1 with ValueError, as selectors has it. */
static int number_of(PyObject *fd)
{
    int n = PyObject_AsFileDescriptor(fd);
    if (pn_likely(n >= 0) || !PyErr_ExceptionMatches(PyExc_TypeError))
        return n;
    PyErr_Clear();
    n = number_of_rare(fd);
    if (n < 0 && !PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "Invalid file object: %R", fd);
    }
    return n;
}

static int check_touch(const struct pn__aio *aio)
{
    if (pn_likely(!aio->loop || pn__aio_may_touch(aio)))
        return 0;
    PyErr_SetString(PyExc_RuntimeError,
                    "descriptors of this event loop are watched from its own "
                    "thread or from a request only: use call_soon_threadsafe()");
    return -1;
}

/* H's reference becomes the end's, unless this fails. */
static int watch_end(struct pn__aio *aio, struct pn__aio_end *end, int fd, uint32_t events,
                     struct pn__handle *h)
{
    struct pn__handle *before = end->handle;
    int rc = 0;
    end->handle = NULL;
    if (aio->loop) {
        /* Taken off and put on again also for the same fd: its number may mean another file by now. */
        pn_watch_remove(aio->loop, &end->watch);
        rc = pn_watch_add(aio->loop, &end->watch, fd, events);
    }
    if (rc == 0)
        end->handle = h;
    if (before && pn__handle_cancel(before) < 0)
        PyErr_WriteUnraisable((PyObject *)before);
    Py_XDECREF((PyObject *)before);
    if (rc == 0)
        return 0;
    errno = -rc;
    if (rc == -ENOMEM)
        PyErr_NoMemory();
    else
        PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Steals H, which may be NULL with an exception. */
static int watch(struct pn__aio *aio, int fd, uint32_t events, struct pn__handle *h)
{
    if (!h)
        return -1;
    struct pn__aio_fd *e = NULL;
    int rc = pn__aio_check_closed(aio); /* a collection did it */
    if (rc == 0) {
        e = entry_for(aio, fd);
        if (e)
            rc = watch_end(aio, events == EPOLLIN ? &e->read : &e->write, fd, events, h);
        else
            PyErr_NoMemory();
    }
    if (e && rc == 0)
        return 0;
    Py_DECREF(h);
    return -1;
}

static PyObject *add(PyObject *self, PyObject *const *args, Py_ssize_t n, uint32_t events)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    if (n < 2) {
        PyErr_SetString(PyExc_TypeError, "a descriptor and a callback are needed");
        return NULL;
    }
    if (pn__aio_check_closed(aio) < 0 || check_touch(aio) < 0)
        return NULL;
    int fd = number_of(args[0]);
    if (fd < 0)
        return NULL;
    struct pn__handle *h = pn__handle_new(aio, false, args[1], args + 2, n - 2, NULL);
    Py_XINCREF(h);
    if (watch(aio, fd, events, h) == 0)
        return (PyObject *)h;
    Py_XDECREF(h);
    return NULL;
}

int pn__aio_watch(struct pn__aio *aio, int fd, uint32_t events, PyObject *callback,
                  int (*native)(PyObject *self))
{
    PN_ASSERT(!native || PyCFunction_Check(callback));
    if (pn__aio_check_closed(aio) < 0 || check_touch(aio) < 0)
        return -1;
    struct pn__handle *h = pn__handle_new(aio, false, callback, NULL, 0, NULL);
    if (h)
        h->native = native;
    return watch(aio, fd, events, h);
}

int pn__aio_unwatch(struct pn__aio *aio, int fd, uint32_t events)
{
    if (aio->closed)
        return 0;
    if (check_touch(aio) < 0)
        return -1;
    struct pn__aio_fd *e = entry_of(aio, fd);
    struct pn__aio_end *end = !e ? NULL : events == EPOLLIN ? &e->read : &e->write;
    if (!end || !end->handle)
        return 0;
    struct pn__handle *h = end->handle;
    end->handle = NULL;
    if (aio->loop)
        pn_watch_remove(aio->loop, &end->watch);
    int rc = pn__handle_cancel(h);
    Py_DECREF(h);
    return rc < 0 ? -1 : 1;
}

static PyObject *take_off(PyObject *self, PyObject *number, uint32_t events)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    if (aio->closed)
        Py_RETURN_FALSE;
    if (check_touch(aio) < 0)
        return NULL;
    int fd = number_of(number);
    int rc = fd < 0 ? -1 : pn__aio_unwatch(aio, fd, events);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

PyObject *pn__aio_add_reader(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return add(self, args, n, EPOLLIN);
}

PyObject *pn__aio_add_writer(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return add(self, args, n, EPOLLOUT);
}

PyObject *pn__aio_remove_reader(PyObject *self, PyObject *fd)
{
    return take_off(self, fd, EPOLLIN);
}

PyObject *pn__aio_remove_writer(PyObject *self, PyObject *fd)
{
    return take_off(self, fd, EPOLLOUT);
}

static PyObject *or_none(struct pn__handle *h)
{
    return h ? (PyObject *)h : Py_None;
}

PyObject *pn__aio_watched(PyObject *self, PyObject *number)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    int fd = number_of(number);
    if (fd < 0)
        return NULL;
    struct pn__aio_fd *e = entry_of(aio, fd);
    if (!e || (!e->read.handle && !e->write.handle))
        Py_RETURN_NONE;
    return PyTuple_Pack(2, or_none(e->read.handle), or_none(e->write.handle));
}

PyObject *pn__aio_watched_all(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    PyObject *list = PyList_New(0);
    for (size_t fd = 0; list && fd < aio->fd_count; fd++) {
        struct pn__aio_fd *e = aio->fds[fd];
        if (!e || (!e->read.handle && !e->write.handle))
            continue;
        PyObject *row =
            Py_BuildValue("iOO", (int)fd, or_none(e->read.handle), or_none(e->write.handle));
        if (!row || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

int pn__aio_fds_traverse(struct pn__aio *aio, visitproc visit, void *arg)
{
    for (size_t fd = 0; fd < aio->fd_count; fd++) {
        if (!aio->fds[fd])
            continue;
        Py_VISIT(aio->fds[fd]->read.handle);
        Py_VISIT(aio->fds[fd]->write.handle);
    }
    return 0;
}

void pn__aio_fds_watch(struct pn__aio *aio)
{
    for (size_t fd = 0; fd < aio->fd_count; fd++) {
        struct pn__aio_fd *e = aio->fds[fd];
        /* One that was closed without a word is nobody's any more: it stays unwatched. */
        if (e && e->read.handle)
            (void)pn_watch_add(aio->loop, &e->read.watch, (int)fd, EPOLLIN);
        if (e && e->write.handle)
            (void)pn_watch_add(aio->loop, &e->write.watch, (int)fd, EPOLLOUT);
    }
    pn__sock_watch_all(aio);
}

void pn__aio_fds_unwatch(struct pn__aio *aio)
{
    for (size_t fd = 0; fd < aio->fd_count; fd++) {
        if (!aio->fds[fd])
            continue;
        pn_watch_remove(aio->loop, &aio->fds[fd]->read.watch);
        pn_watch_remove(aio->loop, &aio->fds[fd]->write.watch);
    }
    pn__sock_unwatch_all(aio);
}

static void drop_end(struct pn__aio *aio, struct pn__aio_end *end, struct pn__handles *dropped)
{
    if (aio->loop)
        pn_watch_remove(aio->loop, &end->watch);
    struct pn__handle *h = end->handle;
    end->handle = NULL;
    if (!h)
        return;
    /* One that is in the ready queue already has a reference there, which goes to DROPPED with it. */
    if (h->queued)
        Py_DECREF(h);
    else
        pn__handles_push(dropped, h);
}

PyObject *pn__aio_transport_of(PyObject *self, PyObject *fd)
{
    int overflow;
    long n = PyLong_Check(fd) ? PyLong_AsLongAndOverflow(fd, &overflow) : -1;
    const struct pn__aio_fd *e =
        n >= 0 && n <= INT_MAX ? entry_of((struct pn__aio *)self, (int)n) : NULL;
    return Py_NewRef(e && e->transport ? e->transport : Py_None);
}

bool pn__aio_has_transport(const struct pn__aio *aio, int fd)
{
    const struct pn__aio_fd *e = entry_of(aio, fd);
    return e && e->transport;
}

int pn__aio_set_transport(struct pn__aio *aio, int fd, PyObject *t)
{
    struct pn__aio_fd *e = entry_for(aio, fd);
    if (!e) {
        PyErr_NoMemory();
        return -1;
    }
    e->transport = t;
    return 0;
}

void pn__aio_unset_transport(struct pn__aio *aio, int fd, PyObject *t)
{
    struct pn__aio_fd *e = entry_of(aio, fd);
    if (e && e->transport == t)
        e->transport = NULL;
}

void pn__aio_fds_drop(struct pn__aio *aio, struct pn__handles *dropped)
{
    for (size_t fd = 0; fd < aio->fd_count; fd++) {
        struct pn__aio_fd *e = aio->fds[fd];
        if (!e)
            continue;
        drop_end(aio, &e->read, dropped);
        drop_end(aio, &e->write, dropped);
        free(e);
    }
    free(aio->fds);
    aio->fds = NULL;
    aio->fd_count = 0;
}
