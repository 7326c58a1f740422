/* SPDX-License-Identifier: Apache-2.0 */
/* See aio_accept.h. */
#include "gateway/aio_accept.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/defs.h"
#include "gateway/aio_transport.h"
#include "gateway/pycompat.h"

struct call {
    struct pn__aio *aio;
    PyObject *factory; /* all borrowed */
    PyObject *sock;
    PyObject *server;
    PyObject *backlog;
    PyObject *family;
    PyObject *proto;
};

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
    struct sockaddr_storage all;
};

/* --- Addresses, as the module socket has them ---------------------------------------------------- */

/* inet_ntop's is printf's work. */
static size_t put_v4(char *to, const struct in_addr *address)
{
    const uint8_t *byte = (const uint8_t *)address;
    char *p = to;
    for (int i = 0; i < 4; i++) {
        uint8_t b = byte[i];
        if (i > 0)
            *p++ = '.';
        if (b >= 100)
            *p++ = (char)('0' + b / 100);
        if (b >= 10)
            *p++ = (char)('0' + b / 10 % 10);
        *p++ = (char)('0' + b % 10);
    }
    return (size_t)(p - to);
}

static PyObject *v4_name(const struct sockaddr_in *in)
{
    char text[INET_ADDRSTRLEN];
    PyObject *host = PyUnicode_DecodeASCII(text, (Py_ssize_t)put_v4(text, &in->sin_addr), NULL);
    PyObject *port = PyLong_FromLong(ntohs(in->sin_port));
    PyObject *name = host && port ? PyTuple_Pack(2, host, port) : NULL;
    Py_XDECREF(host);
    Py_XDECREF(port);
    return name;
}

static PyObject *v6_name(const struct sockaddr_in6 *in)
{
    char text[INET6_ADDRSTRLEN];
    if (!inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text))
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("(siII)", text, (int)ntohs(in->sin6_port),
                         (unsigned)ntohl(in->sin6_flowinfo), (unsigned)in->sin6_scope_id);
}

/* Abstract names are bytes with their zero, paths are text, and who has no name has "". */
static PyObject *unix_name(const struct sockaddr_un *un, socklen_t size)
{
    size_t n = size > offsetof(struct sockaddr_un, sun_path)
                   ? size - offsetof(struct sockaddr_un, sun_path)
                   : 0;
    if (n > 0 && un->sun_path[0] == 0)
        return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)n);
    return PyUnicode_DecodeFSDefaultAndSize(un->sun_path, (Py_ssize_t)strnlen(un->sun_path, n));
}

static PyObject *name_of(const union address *address, socklen_t size)
{
    if (size < sizeof address->any.sa_family)
        return Py_NewRef(Py_None);
    switch (address->any.sa_family) {
    case AF_INET:
        return v4_name(&address->v4);
    case AF_INET6:
        return v6_name(&address->v6);
    case AF_UNIX:
        return unix_name(&address->un, size);
    default:
        return Py_NewRef(Py_None);
    }
}

/* --- One connection ---------------------------------------------------------------------------------- */

/* A socket.socket without a time-out, as after setblocking(False). FD is its own, or closed. */
static PyObject *make_socket(const struct call *c, int fd)
{
    PyObject *kind = PyLong_FromLong(SOCK_STREAM | SOCK_NONBLOCK);
    PyObject *number = PyLong_FromLong(fd);
    PyObject *args[] = {c->family, kind, c->proto, number};
    PyObject *conn = kind && number ? PyObject_Vectorcall((PyObject *)c->aio->socket_type, args,
                                                          PN_ARRAY_LEN(args), NULL)
                                    : NULL;
    Py_XDECREF(kind);
    Py_XDECREF(number);
    if (!conn)
        close(fd);
    return conn;
}

static int put(PyObject *dict, PyObject *name, PyObject *value)
{
    int rc = value ? PyDict_SetItem(dict, name, value) : -1;
    Py_XDECREF(value);
    return rc;
}

/* What get_extra_info() tells: as described() of pelton/_transport.py. */
static PyObject *describe(const struct call *c, int fd, PyObject *conn, const union address *peer,
                          socklen_t peer_size)
{
    PyObject *const *words = c->aio->words;
    union address own;
    socklen_t own_size = sizeof own;
    PyObject *extra = PyDict_New();
    if (!extra)
        return NULL;
    if (getsockname(fd, &own.any, &own_size) < 0)
        own_size = 0;
    if (put(extra, words[PN__L_PEERNAME], name_of(peer, peer_size)) == 0 &&
        put(extra, words[PN__L_SOCKET], PyObject_CallOneArg(c->aio->transport_socket, conn)) == 0 &&
        put(extra, words[PN__L_SOCKNAME], name_of(&own, own_size)) == 0)
        return extra;
    Py_DECREF(extra);
    return NULL;
}

/* In the connection's context. 0 or -1 with an exception. */
static int begin(const struct call *c, int fd, PyObject *conn, const union address *peer,
                 socklen_t peer_size)
{
    PyObject *protocol = PyObject_CallNoArgs(c->factory);
    PyObject *extra = protocol ? describe(c, fd, conn, peer, peer_size) : NULL;
    PyObject *args[] = {conn, protocol, Py_None, extra, c->server};
    PyObject *transport = extra ? pn__transport_make((PyObject *)c->aio, args, true) : NULL;
    Py_XDECREF(transport); /* it is held by what it has scheduled */
    Py_XDECREF(extra);
    Py_XDECREF(protocol);
    return transport ? 0 : -1;
}

/* No transport came of it: the exception that is set is for nobody, as in asyncio, unless it ends the loop. 0, or -1. */
static PN_COLD int fail(PyObject *conn)
{
    PyObject *exc = pn__transport_ends_the_loop() ? pn_pycompat_take_exception() : NULL;
    PyErr_Clear();
    PyObject *r = PyObject_CallMethod(conn, "close", NULL);
    if (!r)
        PyErr_WriteUnraisable(conn);
    Py_XDECREF(r);
    if (!exc)
        return 0;
    pn_pycompat_restore_exception(exc);
    return -1;
}

/* FD is taken over. 0 or -1 with an exception. */
static int take(const struct call *c, int fd, const union address *peer, socklen_t peer_size)
{
    PyObject *conn = make_socket(c, fd);
    PyObject *context = conn ? PyContext_CopyCurrent() : NULL;
    int rc = context ? PyContext_Enter(context) : -1;
    if (rc == 0) {
        rc = begin(c, fd, conn, peer, peer_size);
        PyObject *exc = rc < 0 ? pn_pycompat_take_exception() : NULL;
        if (PyContext_Exit(context) < 0)
            PyErr_WriteUnraisable(context);
        if (rc < 0)
            pn_pycompat_restore_exception(exc);
    }
    if (pn_unlikely(rc < 0 && conn))
        rc = fail(conn);
    Py_XDECREF(context);
    Py_XDECREF(conn);
    return rc;
}

/* --- All that wait ------------------------------------------------------------------------------------- */

static PyObject *slowly(const struct call *c)
{
    return PyObject_CallMethod((PyObject *)c->aio, "_accept_connection", "OOOOO", c->factory,
                               c->sock, Py_None, c->server, c->backlog);
}

/* The exception of accept4() is set. */
static PN_COLD PyObject *failed(const struct call *c)
{
    PyObject *exc = pn_pycompat_take_exception();
    PyObject *r = PyObject_CallMethod((PyObject *)c->aio, "_accept_failed", "OOOOO", exc,
                                      c->factory, c->sock, c->server, c->backlog);
    Py_XDECREF(exc);
    return r;
}

PyObject *pn__aio_accept(PyObject *loop, PyObject *const *args, Py_ssize_t n)
{
    if (n != 6) {
        PyErr_SetString(PyExc_TypeError,
                        "factory, sock, server, backlog, family and proto are needed");
        return NULL;
    }
    const struct call c = {
        (struct pn__aio *)loop, args[0], args[1], args[2], args[3], args[4], args[5]};
    long most = PyLong_AsLong(c.backlog);
    if (most == -1 && PyErr_Occurred())
        return NULL;
    if (c.aio->debug)
        return slowly(&c);
    for (long i = 0; i < most; i++) {
        union address peer;
        socklen_t peer_size = sizeof peer;
        int listener = PyObject_AsFileDescriptor(c.sock);
        if (listener < 0) {
            PyErr_Clear(); /* the factory has closed it */
            break;
        }
        int fd = accept4(listener, &peer.any, &peer_size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
            break;
        if (fd < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return failed(&c);
        }
        if (take(&c, fd, &peer, peer_size) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}
