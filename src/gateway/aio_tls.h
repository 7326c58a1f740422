/* SPDX-License-Identifier: Apache-2.0 */
/* TLS on pelton.Loop: what asyncio's sslproto is, in C, over a transport of aio_transport.h.
 *
 * One object is the transport that the application has and the protocol of the transport below it. Encryption is
 * Python's: an ssl.SSLObject between two ssl.MemoryBIO, which the application's SSLContext made.
 *
 *   socket --> lower transport --received()--> incoming BIO --SSLObject.read()--> data_received(), buffer_updated()
 *   socket <-- lower transport <--write()----- outgoing BIO <--SSLObject.write()-- out <-- write()
 *
 *   UNWRAPPED --connection_made--> HANDSHAKE --done--> WRAPPED --close(), close_notify, EOF--> FLUSHING --> SHUTDOWN
 *       ^            a failure, abort(), connection_lost() of the lower transport: from everywhere                |
 *       +---------------------------------------------------------------------------------------------------------+
 *
 * Who holds it: the lower transport, as its protocol, until that is closed; it holds the lower one until then.
 *
 * Calls that raise are dear: a read() that finds nothing costs as much as the decryption of a kilobyte. So nothing is
 * read unless the incoming BIO has something, and what is known to be empty is not asked again.
 *
 * Methods of the SSL object run Python code when its context has callbacks, or when it is of a class of the
 * application's: `busy` is set meanwhile, and then nothing enters the SSL object a second time; writes are queued.
 *
 * Python's part (pelton/_tls.py) makes the SSL object, and writes what is for people. */
#pragma once

#include "gateway/aio_transport.h"

enum {
    PN__TLS_SEAL_MAX = 64 * 1024,        /* encrypted at once, before it is handed on */
    PN__TLS_RECORD_MAX = 16 * 1024,      /* what one record carries (RFC 8446, 5.1) */
    PN__TLS_RECORD_ROOM = 17 * 1024,     /* and its size at most, encrypted */
    PN__TLS_OUT_HIGH_WATER = 512 * 1024, /* asyncio's own defaults */
    PN__TLS_IN_HIGH_WATER = 256 * 1024,
};

enum pn__tls_state {
    PN__TLS_UNWRAPPED = 0,
    PN__TLS_HANDSHAKE,
    PN__TLS_WRAPPED,
    PN__TLS_FLUSHING,
    PN__TLS_SHUTDOWN,
};

/* What the application's protocol has heard of. */
enum pn__tls_app {
    PN__TLS_APP_INIT = 0,
    PN__TLS_APP_MADE,
    PN__TLS_APP_EOF,
    PN__TLS_APP_LOST,
};

struct pn__tls {
    PyObject ob_base;
    /* Where asyncio's _FlowControlMixin, the base class, has its five slots: see struct pn__transport. */
    PyObject *extra;      /* a dict, as a rule */
    PyObject *protocol;   /* the application's; NULL once the connection is lost */
    PyObject *sslobj;     /* ssl.SSLObject */
    PyObject *sslcontext; /* what the application gave */
    PyObject *waiter;     /* the future of the handshake, or NULL */
    struct pn__aio *aio;
    struct pn__transport
        *lower; /* NULL before connection_made(), and once the connection is lost */
    PyObject *dict;
    PyObject *weakrefs;
    PyObject *incoming; /* ssl.MemoryBIO, both */
    PyObject *outgoing;
    PyObject *feed;      /* incoming.write */
    PyObject *drain;     /* outgoing.read */
    PyObject *read;      /* of the SSL object */
    PyObject *write;     /* of the SSL object */
    PyObject *again;     /* the exceptions that say: not now */
    PyObject *ssl_error; /* ssl.SSLError */
    PyObject *handshake_timeout_s;
    PyObject *shutdown_timeout_s;
    struct pn__handle *handshake_timer; /* or NULL */
    struct pn__handle *shutdown_timer;
    struct pn__gathered gathered;
    struct pn__out out; /* not encrypted yet */
    size_t in_pending;  /* bytes in incoming */
    size_t in_hidden;   /* at most so many has the SSL object taken from there and not returned */
    size_t sealed;      /* encrypted since the outgoing BIO was emptied last */
    size_t out_high;
    size_t out_low;
    size_t in_high;
    size_t in_low;
    uint64_t wrote_in;       /* the callback that wrote last */
    int64_t handshake_at_ns; /* debug mode: when it began */
    unsigned conn_lost;
    uint8_t state;     /* enum pn__tls_state */
    uint8_t app_state; /* enum pn__tls_app */
    bool direct;       /* read and write are _ssl's own: they take a window */
    bool buffered;     /* the application's protocol is a BufferedProtocol */
    bool closed;       /* to the application */
    bool busy;         /* inside the SSL object */
    bool let_go;       /* close() was called again: the application needs it no more */
    bool drained;      /* nothing can be in outgoing that isn't kept there on purpose */
    bool eof_received; /* from below */
    bool app_reading_paused;
    bool app_writing_paused;
    bool ssl_reading_paused; /* the lower transport */
    bool ssl_writing_paused; /* by the lower transport */
};

/* --- aio_tls.c: the type, its life, its attributes --- */

/* LoopCore._make_tls_type(base): as pn__transport_make_type. */
PyObject *pn__tls_make_type(PyObject *unused, PyObject *base);
/* loop._new_tls(protocol, waiter, sslcontext, sslobj, incoming, outgoing, read, write, direct, call_connection_made,
 * handshake_timeout, shutdown_timeout). */
PyObject *pn__tls_new(PyObject *loop, PyObject *const *args, Py_ssize_t n);

/* When the connection is lost, and close() was called twice, an application that keeps the transport does not keep the
 * SSL object and its context with it, as asyncio has it. */
void pn__tls_let_go(struct pn__tls *t);

/* --- aio_tls_io.c: records, in and out. 0, or -1 with an exception, if nothing else is said --- */

/* What the lower transport received, to what it has as its protocol. DATA is borrowed. */
int pn__tls_received(PyObject *self, const char *data, size_t size);
/* Decrypts what is there and gives it to the application. An Exception ends the connection, and is none here. */
int pn__tls_read(struct pn__tls *t);
/* Encrypts what waits; unless ALL, only as long as the lower transport takes more. Hands it on. */
int pn__tls_send(struct pn__tls *t, bool all);
/* What is in the outgoing BIO goes to the lower transport, if that takes more; then as control_writing. */
int pn__tls_hand_on(struct pn__tls *t);
/* Asks the incoming BIO how much it has, after somebody else read from it. */
int pn__tls_look(struct pn__tls *t);
/* Calls pause_writing() or resume_writing() of the application. */
int pn__tls_control_writing(struct pn__tls *t);
/* Pauses or resumes the lower transport. */
int pn__tls_control_reading(struct pn__tls *t);
/* Bytes that wait, encrypted or not; -1 with an exception. */
Py_ssize_t pn__tls_out_size(struct pn__tls *t);
PyObject *pn__tls_write(PyObject *self, PyObject *data);
PyObject *pn__tls_writelines(PyObject *self, PyObject *list);

/* --- aio_tls_state.c: handshake, shutdown, errors --- */

/* The exception that is set: true when it says that there is nothing to do now, and then it is gone. */
bool pn__tls_again(struct pn__tls *t);
/* The exception that is set ends the connection, if it is an Exception: 0. -1 for others, which go on. */
int pn__tls_failed(struct pn__tls *t, const char *message);
int pn__tls_step_handshake(struct pn__tls *t);
/* WRAPPED to FLUSHING and further, with its time-out; nothing in the states after that. */
int pn__tls_start_shutdown(struct pn__tls *t);
/* FLUSHING: what is there to read and to write, and then SHUTDOWN. */
int pn__tls_flush(struct pn__tls *t);
int pn__tls_step_shutdown(struct pn__tls *t);
/* eof_received(), once. */
int pn__tls_say_eof(struct pn__tls *t);
int pn__tls_abort(struct pn__tls *t, PyObject *exc);
/* connection_lost(EXC) of the lower transport; EXC may be NULL. */
int pn__tls_lost(struct pn__tls *t, PyObject *exc);
PyObject *pn__tls_connection_made(PyObject *self, PyObject *lower);
PyObject *pn__tls_eof_received(PyObject *self, PyObject *unused);
PyObject *pn__tls_check_handshake_timeout(PyObject *self, PyObject *unused);
PyObject *pn__tls_check_shutdown_timeout(PyObject *self, PyObject *unused);
