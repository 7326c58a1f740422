/* SPDX-License-Identifier: Apache-2.0 */
/* The transport of a stream socket (TCP, unix) on pelton.Loop: what asyncio's _SelectorSocketTransport is, in C.
 *
 *   pn__transport_new            close(), EOF, write error            connection_lost was called
 *      made --_start--> open ----------------------------> closing -------------------------> closed
 *                       reads, unless paused               writes what is left, reads no more   (aio NULL, sock NULL)
 *
 * Who holds it: the loop, through the handles of the ends that it watches and of what it scheduled; the protocol and
 * the application as they like. One that nobody holds any more while it is open is closed by its
 * finaliser, with a ResourceWarning.
 *
 * Python's part (pelton/_transport.py) is a base class: text for people (repr, debug mode's log), and what
 * asyncio's own class has as attributes of its class.
 *
 * Output. The first write of a callback goes to the socket at once. What the same callback writes after that is
 * gathered, and leaves by one sendmsg when the callback is over (or at close(), write_eof(), or above
 * PN__OUT_GATHER_MAX bytes), so that ten small writes are two system calls. What the socket doesn't take waits until it is
 * writable; the protocol's pause_writing() and resume_writing() are called at the water marks, which is how
 * output has a bound: the queue holds references to bytes objects, and copies of everything else.
 *
 * All functions are called attached, by whoever may touch the loop (pn__aio_may_touch), or refuse. */
#pragma once

#include "gateway/aio_loop.h"
#include "gateway/aio_out.h"

enum {
    PN__OUT_IOV_MAX = 64,           /* pieces a system call */
    PN__OUT_CALLS_MAX = 16,         /* system calls in a row, before others have their turn */
    PN__OUT_GATHER_MAX = 64 * 1024, /* more than that isn't worth waiting for */
    PN__OUT_HIGH_WATER = 64 * 1024, /* asyncio's own defaults */
    PN__LOST_WRITES_SAID = 5, /* writes after the connection went, before the log hears of it */
};

struct pn__transport {
    PyObject ob_base;
    /* Where asyncio's _FlowControlMixin, the base class, has its five slots; all owned. Any object is good for any
     * of them, as far as memory goes, in case somebody uses the slots' descriptors. */
    PyObject *extra;        /* a dict, as a rule */
    PyObject *protocol;     /* NULL once the connection is lost */
    PyObject *server;       /* NULL: none */
    PyObject *sock;         /* NULL once the connection is lost */
    PyObject *empty_waiter; /* a future, while sendfile waits for the output's end; or NULL */
    struct pn__aio *aio;    /* owned; NULL once the connection is lost */
    PyObject *dict;
    PyObject *weakrefs;
    struct pn__gathered gathered;
    /* Not NULL: the protocol is a C object, and this is its data_received(). */
    int (*received)(PyObject *protocol, const char *data, size_t size);
    struct pn__out out;
    size_t high_water;
    size_t low_water;
    size_t last_size;  /* of the last read */
    size_t alike;      /* the size of the last two, if it was the same; or 0 */
    uint64_t wrote_in; /* the callback that wrote last */
    unsigned conn_lost;
    int fd;
    bool buffered;  /* the protocol is a BufferedProtocol */
    bool connected; /* a protocol was set */
    bool closing;
    bool paused;          /* reading */
    bool eof;             /* write_eof() was called */
    bool writing;         /* the loop watches for room */
    bool protocol_paused; /* pause_writing() was called */
    bool has_io_ref;      /* the socket object counts us: see aio_transport.c */
};

/* --- aio_transport.c: the type, its life, its attributes --- */

/* LoopCore._make_transport_type(base): a new type on BASE, which derives from _FlowControlMixin without slots. */
PyObject *pn__transport_make_type(PyObject *unused, PyObject *base);
/* The same for the type of SPEC, whose own fields begin at OFFSET: a new reference, or NULL with an exception. */
PyObject *pn__transport_type_on(PyType_Spec *spec, PyObject *base, size_t offset);
/* loop._new_transport(sock, protocol, waiter, extra, server). EXTRA is kept; WAITER and SERVER may be None. */
PyObject *pn__transport_new(PyObject *loop, PyObject *const *args, Py_ssize_t n);
/* The same, of five ARGS. ALONE: the transport is all that has SOCK, so nobody else can close it. */
PyObject *pn__transport_make(PyObject *loop, PyObject *const *args, bool alone);
/* set_write_buffer_limits() and its kin: FORMAT is as PyArg_ParseTupleAndKeywords has it, *HIGH the
 * default. 0 or -1. */
int pn__transport_parse_limits(PyObject *args, PyObject *kw, const char *format, size_t *high,
                               size_t *low);
/* PROTOCOL is borrowed. 0 or -1. */
int pn__transport_use_protocol(struct pn__transport *t, PyObject *protocol);

/* Whether CALLBACK, an attribute of a transport, is still the type's METHOD: an instance may have one of its own. */
static inline bool pn__transport_is_method(PyObject *callback, PyCFunction method)
{
    return PyCFunction_Check(callback) && PyCFunction_GET_FUNCTION(callback) == method;
}

/* --- aio_transport_read.c --- */

/* Watches, unless it is paused or closing. 0 or -1. */
int pn__transport_start_reading(struct pn__transport *t);
/* 0 or -1. */
int pn__transport_stop_reading(struct pn__transport *t);
/* The room that PROTOCOL, a BufferedProtocol, offers, which is not empty. 0 or -1. */
int pn__transport_get_room(struct pn__aio *aio, PyObject *protocol, Py_ssize_t hint,
                           Py_buffer *room);
PyObject *pn__transport_read_ready(PyObject *self, PyObject *unused);
PyObject *pn__transport_pause_reading(PyObject *self, PyObject *unused);
PyObject *pn__transport_resume_reading(PyObject *self, PyObject *unused);

/* --- aio_transport_write.c --- */

PyObject *pn__transport_write(PyObject *self, PyObject *data);
PyObject *pn__transport_writelines(PyObject *self, PyObject *list);
PyObject *pn__transport_write_eof(PyObject *self, PyObject *unused);
PyObject *pn__transport_write_ready(PyObject *self, PyObject *unused);
/* What was gathered goes to the socket. 0, also when the connection was lost by it, or -1. */
int pn__transport_flush(struct pn__transport *t);
int pn__transport_stop_writing(struct pn__transport *t);
/* Calls the protocol's pause_writing or resume_writing when a mark was passed. 0, or -1 with SystemExit or
 * KeyboardInterrupt. */
int pn__transport_maybe_pause(struct pn__transport *t);
int pn__transport_maybe_resume(struct pn__transport *t);

/* --- aio_transport_end.c --- */

/* Whether the exception that is set is SystemExit or KeyboardInterrupt. */
bool pn__transport_ends_the_loop(void);
/* The exception that is set ends the connection: it goes to the loop's exception handler, unless it is an
 * OSError, and to connection_lost(). 0, or -1 with one that is to go on (SystemExit, KeyboardInterrupt). */
int pn__transport_failed(struct pn__transport *t, const char *message);
/* As abort(): connection_lost(EXC) soon; EXC is borrowed, may be NULL. 0 or -1. */
int pn__transport_force_close(struct pn__transport *t, PyObject *exc);
/* As close(). 0 or -1. */
int pn__transport_close(struct pn__transport *t);
/* connection_lost(EXC) now. 0 or -1. */
int pn__transport_lost(struct pn__transport *t, PyObject *exc);
/* Nobody holds it: closes the socket. Runs Python code. */
void pn__transport_drop_socket(struct pn__transport *t);
/* Debug mode: TEXT has one %r, for the transport. */
int pn__transport_say(struct pn__transport *t, const char *text);
/* The future of sendfile: EXC NULL is success. 0 or -1. */
int pn__transport_wake_empty(struct pn__transport *t, PyObject *exc);
/* The loop's exception handler hears of the exception that is set. 0, or -1 as pn__transport_failed. */
int pn__transport_report(struct pn__transport *t, const char *message);
/* The same for a transport of any type: calls its _report(). */
int pn__aio_report(PyObject *transport, const char *message);
