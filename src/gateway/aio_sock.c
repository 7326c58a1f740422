/* SPDX-License-Identifier: Apache-2.0 */
/* The awaitables of sock_recv and its kin. See aio_sock.h. */
#include "gateway/aio_sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"

enum state { NEW = 0, RUNNING = 1, WAITING = 2, OVER = 3 };
enum outcome { DONE = 0, AGAIN = 1, FAILED = 2 };

struct sock_call;
typedef enum outcome attempt_fn(struct sock_call *c, PyObject **result);

struct sock_call {
    PyObject ob_base;
    struct pn__aio *aio; /* owned */
    PyObject *sock;      /* owned, like all that follow; NULL once it is over */
    PyObject *arg;       /* what recv, recv_into and sendall were given */
    PyObject *method;    /* of the socket, for the others, with its arguments in arg, a tuple */
    PyObject *future;    /* while it waits */
    PyObject *iterator;  /* over the future */
    struct pn_list node; /* in aio->sock_waits, which owns a reference then */
    struct pn_watch watch;
    struct pn_aio_call woken;
    attempt_fn *attempt;
    Py_buffer view; /* sendall's */
    size_t sent;
    uint32_t events;
    int fd; /* that is watched */
    enum state state;
};

/* --- Ending ------------------------------------------------------------------------------------ */

/* Nothing watches or wakes it any more. The list's reference goes: the caller has one. */
static void stop_waiting(struct sock_call *c)
{
    if (c->watch.fd >= 0 && c->aio->loop)
        pn_watch_remove(c->aio->loop, &c->watch);
    pn_list_remove(&c->watch.node);
    pn_list_remove(&c->woken.node);
    if (pn_list_linked(&c->node)) {
        pn_list_remove(&c->node);
        Py_DECREF(c);
    }
    Py_CLEAR(c->iterator);
    Py_CLEAR(c->future);
}

static void over(struct sock_call *c)
{
    c->state = OVER;
    stop_waiting(c);
    if (c->view.obj)
        PyBuffer_Release(&c->view);
    Py_CLEAR(c->sock);
    Py_CLEAR(c->arg);
    Py_CLEAR(c->method);
}

static int call_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct sock_call *c = (struct sock_call *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)c->aio);
    Py_VISIT(c->sock);
    Py_VISIT(c->arg);
    Py_VISIT(c->method);
    Py_VISIT(c->future);
    Py_VISIT(c->iterator);
    Py_VISIT(c->view.obj);
    return 0;
}

static int call_clear(PyObject *self)
{
    Py_INCREF(self);
    over((struct sock_call *)self);
    Py_DECREF(self);
    return 0;
}

static void call_dealloc(PyObject *self)
{
    struct sock_call *c = (struct sock_call *)self;
    PyTypeObject *type = Py_TYPE(self);
    struct pn__aio *aio = c->aio;
    PyObject_GC_UnTrack(self);
    PN_ASSERT(!pn_list_linked(&c->node));
    if (c->state != OVER)
        over(c);
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_DECREF((PyObject *)aio);
}

/* --- Waiting ----------------------------------------------------------------------------------- */

/* One that was cancelled stays so; its task is on its way to throw(). */
static int resolve(struct pn__aio *aio, PyObject *future)
{
    PyObject *args[2] = {future, Py_None};
    PyObject *is_done = PyObject_VectorcallMethod(aio->words[PN__L_DONE], args, 1, NULL);
    PyObject *set = NULL;
    if (is_done == Py_False)
        set = PyObject_VectorcallMethod(aio->words[PN__L_SET_RESULT], args, 2, NULL);
    int rc = PyErr_Occurred() ? -1 : 0;
    Py_XDECREF(is_done);
    Py_XDECREF(set);
    return rc;
}

/* In the HOME phase. The task will try again. */
static int wake(struct pn_aio_call *call)
{
    struct sock_call *c = pn_container_of(call, struct sock_call, woken);
    struct pn__aio *aio = c->aio;
    PyObject *future = Py_XNewRef(c->future);
    Py_INCREF((PyObject *)aio);
    if (pn_list_linked(&c->node)) {
        pn_list_remove(&c->node);
        Py_DECREF(c); /* C may be gone */
    }
    int rc = future ? resolve(aio, future) : 0;
    if (rc < 0) { /* nobody but the loop's own code can have raised it */
        PyErr_WriteUnraisable(future);
        rc = 0;
    }
    Py_XDECREF(future);
    Py_DECREF((PyObject *)aio);
    return rc;
}

/* The descriptor has something, or is another file now, which the next try finds out. */
static void ready(struct pn_watch *watch, uint32_t revents PN_UNUSED)
{
    struct sock_call *c = pn_container_of(watch, struct sock_call, watch);
    if (pn_list_linked(&c->woken.node))
        return;
    pn_list_push_back(&c->aio->calls, &c->woken.node);
    __atomic_store_n(&c->aio->calls_due, true, __ATOMIC_RELAXED);
}

/* The number of C's socket; -1 with an exception. */
static int number_of(const struct sock_call *c)
{
    PyObject *o = PyObject_CallMethodNoArgs(c->sock, c->aio->words[PN__L_FILENO]);
    long fd = o ? PyLong_AsLong(o) : -1;
    Py_XDECREF(o);
    if (o && fd >= 0 && fd <= INT_MAX)
        return (int)fd;
    if (!PyErr_Occurred()) { /* it is closed */
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return -1;
}

/* Of asyncio's own transports. 1, 0, or -1 with an exception. */
static int has_slow_transport(const struct sock_call *c, int fd)
{
    PyObject *loop = (PyObject *)c->aio;
    PyObject *table = PyObject_GetAttr(loop, c->aio->words[PN__L_TRANSPORTS]);
    PyObject *data = table ? PyObject_GetAttr(table, c->aio->words[PN__L_DATA]) : NULL;
    int used = -1;
    if (data) {
        PyObject *key = PyLong_FromLong(fd);
        used = key ? PySequence_Contains(data, key) : -1;
        Py_XDECREF(key);
    }
    Py_XDECREF(data);
    Py_XDECREF(table);
    return used;
}

/* Refuses a descriptor that a transport has. 0, or -1 with an exception. */
static int check_transport(const struct sock_call *c, int fd)
{
    int used = pn__aio_has_transport(c->aio, fd) ? 1 : has_slow_transport(c, fd);
    if (used <= 0)
        return used;
    PyObject *r = PyObject_CallMethod((PyObject *)c->aio, "_ensure_fd_no_transport", "i", fd);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int start_waiting(struct sock_call *c)
{
    struct pn__aio *aio = c->aio;
    PyObject *args[1] = {(PyObject *)aio};
    c->fd = number_of(c);
    if (c->fd < 0 || check_transport(c, c->fd) < 0)
        return -1;
    c->future = PyObject_Vectorcall(aio->future_type, args, 0, aio->future_names);
    c->iterator = c->future ? PyObject_GetIter(c->future) : NULL;
    if (!c->iterator || pn__aio_check_closed(aio) < 0)
        return -1;
    if (!pn__aio_may_touch(aio)) {
        PyErr_SetString(PyExc_RuntimeError, "this event loop's own thread only may wait here");
        return -1;
    }
    int rc = aio->loop ? pn_watch_add(aio->loop, &c->watch, c->fd, c->events | EPOLLONESHOT) : 0;
    if (rc < 0) {
        errno = -rc;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    pn_list_push_back(&aio->sock_waits, &c->node);
    Py_INCREF(c);
    c->state = WAITING;
    return 0;
}

/* --- The calls --------------------------------------------------------------------------------- */

/* What a system call returned, if it was an error. */
static enum outcome failed(void)
{
    if (errno == EAGAIN || errno == EINTR)
        return AGAIN;
    PyErr_SetFromErrno(PyExc_OSError);
    return FAILED;
}

static enum outcome found(PyObject *value, PyObject **result)
{
    *result = value;
    return value ? DONE : FAILED;
}

static enum outcome try_recv(struct sock_call *c, PyObject **result)
{
    Py_ssize_t size = PyLong_AsSsize_t(c->arg);
    int fd = number_of(c);
    if (fd < 0)
        return FAILED;
    if (pn_likely(size <= PN__AIO_SCRATCH)) {
        char *scratch = pn__aio_scratch(c->aio);
        if (!scratch)
            return FAILED;
        ssize_t n = recv(fd, scratch, (size_t)size, MSG_DONTWAIT);
        return n < 0 ? failed() : found(PyBytes_FromStringAndSize(scratch, n), result);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (!bytes)
        return FAILED;
    ssize_t n = recv(fd, PyBytes_AS_STRING(bytes), (size_t)size, MSG_DONTWAIT);
    if (n < 0) {
        enum outcome outcome = failed();
        Py_DECREF(bytes);
        return outcome;
    }
    if (n < size && _PyBytes_Resize(&bytes, n) < 0)
        return FAILED;
    return found(bytes, result);
}

static enum outcome try_recv_into(struct sock_call *c, PyObject **result)
{
    Py_buffer view;
    int fd = number_of(c);
    if (fd < 0)
        return FAILED;
    if (PyObject_GetBuffer(c->arg, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Format(PyExc_TypeError, "a read-write bytes-like object is needed, not %.100s",
                     Py_TYPE(c->arg)->tp_name);
        return FAILED;
    }
    ssize_t n = recv(fd, view.buf, (size_t)view.len, MSG_DONTWAIT);
    int error = errno;
    PyBuffer_Release(&view);
    errno = error;
    return n < 0 ? failed() : found(PyLong_FromSsize_t(n), result);
}

static enum outcome try_sendall(struct sock_call *c, PyObject **result)
{
    int fd = number_of(c);
    if (fd < 0 || (!c->view.obj && PyObject_GetBuffer(c->arg, &c->view, PyBUF_SIMPLE) < 0))
        return FAILED;
    size_t left = (size_t)c->view.len - c->sent;
    ssize_t n = send(fd, (const char *)c->view.buf + c->sent, left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (pn_unlikely(n < 0))
        return failed();
    c->sent += (size_t)n;
    if (pn_unlikely((size_t)n < left))
        return AGAIN;
    return found(Py_NewRef(Py_None), result);
}

/* The socket's own method says BlockingIOError for AGAIN. */
static enum outcome try_method(struct sock_call *c, PyObject **result)
{
    *result = PyObject_CallObject(c->method, c->arg);
    if (*result)
        return DONE;
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
        !PyErr_ExceptionMatches(PyExc_InterruptedError))
        return FAILED;
    PyErr_Clear();
    return AGAIN;
}

static enum outcome try_accept(struct sock_call *c, PyObject **result)
{
    enum outcome outcome = try_method(c, result);
    if (outcome != DONE)
        return outcome;
    PyObject *conn = PySequence_GetItem(*result, 0);
    PyObject *r = conn ? PyObject_CallMethod(conn, "setblocking", "i", 0) : NULL;
    Py_XDECREF(conn);
    if (r) {
        Py_DECREF(r);
        return DONE;
    }
    Py_CLEAR(*result);
    return FAILED;
}

/* ERROR, an errno, with the text that asyncio gives it: NULL is the system's own. */
static PN_COLD enum outcome refused(struct sock_call *c, int error, bool late)
{
    PyObject *address = PyTuple_GET_ITEM(c->arg, 0);
    PyObject *text = late ? PyUnicode_FromFormat("Connect call failed %S", address)
                          : PyUnicode_FromString(strerror(error));
    PyObject *exc = text ? PyObject_CallFunction(PyExc_OSError, "iO", error, text) : NULL;
    if (exc)
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_XDECREF(exc);
    Py_XDECREF(text);
    return FAILED;
}

/* connect_ex() begins, SO_ERROR tells how it has ended (connect(2)). A unix socket whose server's backlog is full says
 * EAGAIN, and nothing tells when there is room. */
static enum outcome try_connect(struct sock_call *c, PyObject **result)
{
    bool late = c->sent > 0;
    int error = 0;
    if (!late) {
        PyObject *number = PyObject_CallObject(c->method, c->arg);
        error = number ? (int)PyLong_AsLong(number) : -1;
        Py_XDECREF(number);
        c->sent = 1;
        if (error == -1 && PyErr_Occurred())
            return FAILED;
    } else {
        socklen_t size = sizeof error;
        int fd = number_of(c);
        if (fd < 0)
            return FAILED;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
            error = errno;
    }
    if (error == 0)
        return found(Py_NewRef(Py_None), result);
    if (!late && (error == EINPROGRESS || error == EINTR))
        return AGAIN;
    return refused(c, error, late);
}

/* --- Steps ------------------------------------------------------------------------------------- */

/* Tries until it is done, or has a future to yield. The caller has a reference to C. */
static PySendResult go_on(struct sock_call *c, PyObject **result)
{
    for (;;) {
        c->state = RUNNING;
        *result = NULL;
        enum outcome outcome = c->attempt(c, result);
        if (pn_likely(outcome == DONE)) {
            over(c);
            return PYGEN_RETURN;
        }
        if (outcome == FAILED || start_waiting(c) < 0)
            break;
        PySendResult r = PyIter_Send(c->iterator, Py_None, result);
        if (pn_likely(r == PYGEN_NEXT))
            return r;
        Py_CLEAR(*result);
        if (r == PYGEN_ERROR)
            break;
        stop_waiting(c);
    }
    PyObject *type, *exc, *tb;
    PyErr_Fetch(&type, &exc, &tb);
    over(c);
    PyErr_Restore(type, exc, tb);
    *result = NULL;
    return PYGEN_ERROR;
}

static PySendResult resumed(struct sock_call *c, PyObject *value, PyObject **result)
{
    PySendResult r = PyIter_Send(c->iterator, value, result);
    if (r == PYGEN_NEXT)
        return r;
    Py_CLEAR(*result);
    if (r == PYGEN_RETURN) {
        stop_waiting(c);
        return go_on(c, result);
    }
    PyObject *type, *exc, *tb;
    PyErr_Fetch(&type, &exc, &tb);
    over(c);
    PyErr_Restore(type, exc, tb);
    return r;
}

static PySendResult call_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct sock_call *c = (struct sock_call *)self;
    PySendResult r = PYGEN_ERROR;
    *result = NULL;
    Py_INCREF(self);
    if (c->state == NEW && value != Py_None)
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
    else if (c->state == NEW)
        r = go_on(c, result);
    else if (c->state == WAITING)
        r = resumed(c, value, result);
    else if (c->state == RUNNING)
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    else
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    Py_DECREF(self);
    return r;
}

/* As a generator returns: StopIteration with the value, or nothing set for None. */
static PyObject *returned(PySendResult r, PyObject *result)
{
    if (r == PYGEN_NEXT)
        return result;
    if (r == PYGEN_RETURN) {
        if (PyTuple_Check(result)) { /* whose items would be taken for the exception's arguments */
            PyObject *exc = PyObject_CallOneArg(PyExc_StopIteration, result);
            if (exc)
                PyErr_SetObject(PyExc_StopIteration, exc);
            Py_XDECREF(exc);
        } else if (result != Py_None) {
            PyErr_SetObject(PyExc_StopIteration, result);
        }
        Py_DECREF(result);
    }
    return NULL;
}

static PyObject *call_next(PyObject *self)
{
    PyObject *result;
    PySendResult r = call_am_send(self, Py_None, &result);
    return returned(r, result);
}

static PyObject *call_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult r = call_am_send(self, value, &result);
    PyObject *yielded = returned(r, result);
    if (!yielded && r == PYGEN_RETURN && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopIteration);
    return yielded;
}

/* Whether it may be ended now. */
static int check_end(const struct sock_call *c)
{
    if (c->state != RUNNING)
        return 0;
    PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    return -1;
}

/* throw(value), or the older throw(type, value, traceback): raises it. */
static PyObject *call_throw(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct sock_call *c = (struct sock_call *)self;
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    if (check_end(c) < 0)
        return NULL;
    if (c->state == OVER) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return NULL;
    }
    PyObject *exc = n > 1 && args[1] != Py_None ? args[1] : args[0];
    Py_INCREF(self);
    over(c);
    Py_DECREF(self);
    if (PyExceptionInstance_Check(exc))
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    else if (PyExceptionClass_Check(exc))
        PyErr_SetNone(exc);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    return NULL;
}

static PyObject *call_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (check_end((struct sock_call *)self) < 0)
        return NULL;
    Py_INCREF(self);
    over((struct sock_call *)self);
    Py_DECREF(self);
    Py_RETURN_NONE;
}

/* --- All that wait ----------------------------------------------------------------------------- */

int pn__sock_traverse(struct pn__aio *aio, visitproc visit, void *arg)
{
    struct pn_list *node;
    pn_list_for_each(node, &aio->sock_waits)
        Py_VISIT((PyObject *)pn_list_entry(node, struct sock_call, node));
    return 0;
}

void pn__sock_unwatch_all(struct pn__aio *aio)
{
    struct pn_list *node;
    pn_list_for_each(node, &aio->sock_waits)
        pn_watch_remove(aio->loop, &pn_list_entry(node, struct sock_call, node)->watch);
}

void pn__sock_watch_all(struct pn__aio *aio)
{
    struct pn_list *node;
    pn_list_for_each(node, &aio->sock_waits)
    {
        struct sock_call *c = pn_list_entry(node, struct sock_call, node);
        if (c->watch.fd < 0 && !pn_list_linked(&c->woken.node))
            (void)pn_watch_add(aio->loop, &c->watch, c->fd, c->events | EPOLLONESHOT);
    }
}

void pn__sock_take_all(struct pn__aio *aio, struct pn_list *dropped)
{
    if (aio->loop)
        pn__sock_unwatch_all(aio);
    struct pn_list *node;
    while ((node = pn_list_pop_front(&aio->sock_waits))) {
        pn_list_remove(&pn_list_entry(node, struct sock_call, node)->woken.node);
        pn_list_push_back(dropped, node);
    }
}

void pn__sock_let_go(struct pn_list *dropped)
{
    struct pn_list *node;
    while ((node = pn_list_pop_front(dropped)))
        Py_DECREF(pn_list_entry(node, struct sock_call, node));
}

/* --- Making ------------------------------------------------------------------------------------ */

/* Whether C can do it: a plain socket, on a loop that runs or will. */
static bool usable(const struct pn__aio *aio, PyObject *sock)
{
    return aio->loop && !aio->closed && !aio->debug && Py_IS_TYPE(sock, aio->socket_type);
}

/* asyncio's own coroutine. */
static PyObject *slowly(PyObject *loop, const char *name, PyObject *const *args, Py_ssize_t n,
                        PyObject *names)
{
    PyObject *method = PyObject_GetAttrString(loop, name);
    PyObject *r = method ? PyObject_Vectorcall(method, args, (size_t)n, names) : NULL;
    Py_XDECREF(method);
    return r;
}

static struct sock_call *make(struct pn__aio *aio, attempt_fn *attempt, uint32_t events,
                              PyObject *sock, PyObject *arg)
{
    struct sock_call *c = PyObject_GC_New(struct sock_call, aio->sock_call_type);
    if (!c)
        return NULL;
    c->aio = (struct pn__aio *)Py_NewRef((PyObject *)aio);
    c->sock = Py_NewRef(sock);
    c->arg = Py_XNewRef(arg);
    c->method = c->future = c->iterator = NULL;
    pn_list_init(&c->node);
    pn_watch_init(&c->watch, ready);
    pn_aio_call_init(&c->woken, wake);
    c->attempt = attempt;
    c->view.obj = NULL;
    c->sent = 0;
    c->events = events;
    c->fd = -1;
    c->state = NEW;
    PyObject_GC_Track(c);
    return c;
}

/* One that calls the method NAME of args[0] with the other arguments. */
static PyObject *make_by_method(PyObject *loop, attempt_fn *attempt, uint32_t events,
                                const char *name, PyObject *const *args, Py_ssize_t n)
{
    struct sock_call *c = make((struct pn__aio *)loop, attempt, events, args[0], NULL);
    if (!c)
        return NULL;
    c->method = PyObject_GetAttrString(args[0], name);
    c->arg = PyTuple_New(n - 1);
    if (!c->method || !c->arg) {
        Py_DECREF(c);
        return NULL;
    }
    for (Py_ssize_t i = 1; i < n; i++)
        PyTuple_SET_ITEM(c->arg, i - 1, Py_NewRef(args[i]));
    return (PyObject *)c;
}

PyObject *pn__sock_recv(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    struct pn__aio *aio = (struct pn__aio *)loop;
    if (pn_unlikely(n != 2 || names || !usable(aio, args[0]) || !PyLong_Check(args[1])))
        return slowly(loop, "_slow_sock_recv", args, n, names);
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    if (size < 0) {
        PyErr_Clear();
        return slowly(loop, "_slow_sock_recv", args, n, names);
    }
    return (PyObject *)make(aio, try_recv, EPOLLIN, args[0], args[1]);
}

PyObject *pn__sock_recv_into(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    struct pn__aio *aio = (struct pn__aio *)loop;
    if (n != 2 || names || !usable(aio, args[0]))
        return slowly(loop, "_slow_sock_recv_into", args, n, names);
    return (PyObject *)make(aio, try_recv_into, EPOLLIN, args[0], args[1]);
}

PyObject *pn__sock_sendall(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    struct pn__aio *aio = (struct pn__aio *)loop;
    if (n != 2 || names || !usable(aio, args[0]))
        return slowly(loop, "_slow_sock_sendall", args, n, names);
    return (PyObject *)make(aio, try_sendall, EPOLLOUT, args[0], args[1]);
}

PyObject *pn__sock_accept(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    if (n != 1 || names || !usable((struct pn__aio *)loop, args[0]))
        return slowly(loop, "_slow_sock_accept", args, n, names);
    return make_by_method(loop, try_accept, EPOLLIN, "accept", args, n);
}

/* Whether nothing has to be looked up in ADDRESS, which SOCK of such a family can take as it is. */
static bool is_resolved(PyObject *sock, PyObject *address)
{
    int family = 0;
    socklen_t size = sizeof family;
    struct in6_addr in;
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0) {
        PyErr_Clear();
        return false;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0)
        return false;
    if (family != AF_INET && family != AF_INET6)
        return family == AF_UNIX;
    if (!PyTuple_Check(address) || PyTuple_GET_SIZE(address) < 2 ||
        !PyUnicode_Check(PyTuple_GET_ITEM(address, 0)) ||
        !PyLong_Check(PyTuple_GET_ITEM(address, 1)))
        return false;
    const char *host = PyUnicode_AsUTF8(PyTuple_GET_ITEM(address, 0));
    if (!host)
        PyErr_Clear();
    return host && inet_pton(family, host, &in) == 1;
}

PyObject *pn__sock_connect(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    if (n != 2 || names || !usable((struct pn__aio *)loop, args[0]) ||
        !is_resolved(args[0], args[1]))
        return slowly(loop, "_slow_sock_connect", args, n, names);
    return make_by_method(loop, try_connect, EPOLLOUT, "connect_ex", args, n);
}

PyObject *pn__sock_recvfrom(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    if (n != 2 || names || !usable((struct pn__aio *)loop, args[0]))
        return slowly(loop, "_slow_sock_recvfrom", args, n, names);
    return make_by_method(loop, try_method, EPOLLIN, "recvfrom", args, n);
}

PyObject *pn__sock_recvfrom_into(PyObject *loop, PyObject *const *args, Py_ssize_t n,
                                 PyObject *names)
{
    /* Without a size, the buffer's own. */
    if (n != 2 || names || !usable((struct pn__aio *)loop, args[0]))
        return slowly(loop, "_slow_sock_recvfrom_into", args, n, names);
    return make_by_method(loop, try_method, EPOLLIN, "recvfrom_into", args, n);
}

PyObject *pn__sock_sendto(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    if (n != 3 || names || !usable((struct pn__aio *)loop, args[0]))
        return slowly(loop, "_slow_sock_sendto", args, n, names);
    return make_by_method(loop, try_method, EPOLLOUT, "sendto", args, n);
}

/* --- The type ---------------------------------------------------------------------------------- */

static PyMethodDef call_methods[] = {
    {"send", call_send, METH_O, "As a coroutine's."},
    {"throw", (PyCFunction)(void (*)(void))call_throw, METH_FASTCALL, "As a coroutine's."},
    {"close", call_close, METH_NOARGS, "As a coroutine's."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, call_next},
    {Py_tp_methods, call_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, call_am_send},
    {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "pelton._pelton.SocketCall",
    .basicsize = sizeof(struct sock_call),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};

PyObject *pn__sock_make_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &call_spec, NULL);
}
