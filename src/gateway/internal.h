/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share: the gateway's state and one request's.
 *
 * Rules of this room:
 *  - Python objects are touched attached. Python code (calls, __del__) runs only between
 *    pn_core_enter_app and pn_core_leave_app: "inside". Outside of that we own the loop, where only
 *    exact dicts, strs, bytes and our own types are made and dropped.
 *  - The exchange is touched only while we own the loop; views of its text die when we give it away.
 *  - In prototypes, "new" and "borrowed" say what kind of reference a PyObject pointer is. */
#pragma once

#include "gateway/pycompat.h"

#include <stdatomic.h>

#include "base/bounds.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/mem.h"
#include "gateway/aio.h"
#include "gateway/gateway.h"
#include "http/h1_names.h"

/* Bounds of this room. */
enum {
    PN__OTHER_NAMES = 256,     /* slots for header names that are not in h1_names.h */
    PN__OTHER_NAME_MAX = 40,   /* longer ones are made anew each time */
    PN__VALUES = 512,          /* slots for header values */
    PN__VALUE_MAX = 120,       /* bytes; longer ones are made anew */
    PN__BLOCKS = 256,          /* slots for requests that come again: blocks.c */
    PN__BLOCK_TEXT_MAX = 2048, /* bytes of their lines, without secret values */
    PN__BLOCK_LINES_MAX = 40,
    PN__BLOCK_MISSES = 16,      /* of no use so often, and a slot is another's */
    PN__FREE_OBJECTS_MAX = 64,  /* start_response and input objects kept for reuse */
    PN__REQUESTS_KEEP = 256,    /* request structs kept for reuse */
    PN__FIELDS_INLINE = 24,     /* answer fields without an allocation */
    PN__STALLS = 64,            /* places remembered that held the loop */
    PN__ERRORS_LINE_MAX = 8192, /* of wsgi.errors, before a line is broken */
};

/* Interned strings, by enum; pn__word_text in names.c has the same order. */
enum pn__word {
    PN__W_REQUEST_METHOD = 0,
    PN__W_SCRIPT_NAME,
    PN__W_PATH_INFO,
    PN__W_QUERY_STRING,
    PN__W_REQUEST_URI,
    PN__W_CONTENT_LENGTH,
    PN__W_SERVER_NAME,
    PN__W_SERVER_PORT,
    PN__W_SERVER_PROTOCOL,
    PN__W_SERVER_SOFTWARE,
    PN__W_REMOTE_ADDR,
    PN__W_REMOTE_PORT,
    PN__W_HTTP_HOST,
    PN__W_WSGI_VERSION,
    PN__W_URL_SCHEME,
    PN__W_INPUT,
    PN__W_INPUT_TERMINATED,
    PN__W_ERRORS,
    PN__W_MULTITHREAD,
    PN__W_MULTIPROCESS,
    PN__W_RUN_ONCE,
    PN__W_FILE_WRAPPER,
    PN__W_UWSGI_VERSION,
    PN__W_UWSGI_NODE,
    /* values */
    PN__W_EMPTY,
    PN__W_SLASH,
    PN__W_GET,
    PN__W_HTTP,
    PN__W_HTTPS,
    PN__W_HTTP_1_0,
    PN__W_HTTP_1_1,
    PN__W_HTTP_2,
    PN__W_ZERO,
    /* attributes */
    PN__W_CLOSE,
    PN__W_READ,
    PN__W_TELL,
    PN__W_FILENO,
    PN__W_FLUSH,
    PN__W_RAW,
    PN__W_FILE,
    PN__W_STATUS,
    PN__W_RESPONSE_HEADERS,
    PN__W_HEADERS,
    PN__W_EXC_INFO,
    PN__W_CODE,
    PN__W_COUNT,
};

struct pn__other_name {
    PyObject *key; /* owned; not interned: strings that a peer chose would live for ever in 3.12 */
    uint8_t len;
    char name[PN__OTHER_NAME_MAX];
};

struct pn__value {
    PyObject *str; /* owned */
    const char *data;
    size_t len;
};

struct pn__server {
    const struct pn_listener *listener;
    PyObject *environ; /* owned: the template that a request's environ is copied from */
    char *unix_path;   /* owned; NULL: it is no unix socket */
};

/* pn_peer.handler_cache: what a connection's requests have in common. */
struct pn__peer {
    PyObject *address;        /* owned */
    PyObject *port;           /* owned */
    PyObject *environ;        /* borrowed of gw->servers */
    PyObject *client;         /* owned: ASGI's (host, port), or NULL */
    size_t server;            /* index into gw->servers */
    struct pn__block *block;  /* the last request's slot of gw->blocks, or NULL */
    struct pn__peer *dropped; /* in gw->dropped_peers */
};

struct pn__types {
    PyTypeObject *start_response;
    PyTypeObject *writer;
    PyTypeObject *input;
    PyTypeObject *errors;
    PyTypeObject *file_wrapper;
};

/* A place that was reported as holding the loop. */
struct pn__stall {
    uint64_t place; /* hash of file, line and function */
    int64_t said_ns;
};

/* What src/cores keeps for each core. */
struct pn__state {
    PyThreadState *ts;
    struct pn_gateway *gw;
    bool is_home; /* the thread state is the interpreter's, not ours to end */
    bool begun;   /* pn__host_begin has been here */
    /* aio_home.c, both owned: the event loop policy, and this core's dict of its thread-local. */
    PyObject *aio_policy;
    PyObject *aio_locals;
    PyObject *thread; /* owned: what threading has for this core; NULL: nothing yet */
};

/* The application's signal handlers, run by home: src/gateway/home_signals.c. */
struct pn__home_signals {
    bool on;
    int fds[2]; /* CPython writes to the second */
    struct pn_watch watch;
    atomic_bool due;
};

struct pn_gateway {
    unsigned magic;
    struct pn_handler handler;
    struct pn_core_host host;
    struct pn__state home_state;
    struct pn__home_signals home_signals;
    struct pn_cores *cores; /* borrowed; NULL before start */
    struct pn_log *log;     /* borrowed */
    enum pn_carrier carrier;
    unsigned cores_count;
    unsigned processes;
    unsigned worker_id;
    pid_t master_pid;
    pid_t home_tid; /* of the thread that serves; gettid */
    bool stopped;
    int64_t body_timeout_ns;
    int64_t write_timeout_ns;
    bool (*is_trusted)(void *ctx, const struct sockaddr *address, socklen_t len);
    void *trust_ctx;
    struct pn_aio_home *aio_home;    /* borrowed; NULL without --asyncio */
    struct pn__asgi *asgi;           /* owned; NULL: the application speaks WSGI */
    struct pn_ws_server *websockets; /* borrowed, or NULL */
    bool websockets_warned;
    uint64_t requests_total; /* written by the loop's owner, read anywhere */
    struct pn_pool requests;
    struct pn__peer *dropped_peers; /* freed when next attached */

    PyObject *app;          /* owned */
    PyObject *base_context; /* owned: each request gets a copy */
    PyObject *client_disconnected;
    PyObject *request_cut;
    PyObject *core_type; /* pelton._threads.Core; NULL with the inline carrier */
    PyObject *uwsgi;     /* the module; owned */
    PyObject *errors;
    PyObject *no_input; /* wsgi.input of every request without a body */
    struct pn__types types;
    PyObject *free_start_response[PN__FREE_OBJECTS_MAX]; /* owned */
    PyObject *free_input[PN__FREE_OBJECTS_MAX];
    unsigned free_start_response_count;
    unsigned free_input_count;
    struct pn_bytes errors_line; /* of wsgi.errors outside a request */
    /* A state for the watchdog, and who may use it: src/gateway/host.c. */
    PyThreadState *watch_state;
    pthread_mutex_t watch_lock;
    struct pn__stall stalls[PN__STALLS]; /* the watchdog's */

    struct pn__server *servers;
    size_t server_count;
    PyObject *words[PN__W_COUNT];
    PyObject *keys[PN_HEADER_COUNT]; /* by header id; NULL: dropped */
    struct pn__other_name other_names[PN__OTHER_NAMES];
    struct pn__value values[PN__VALUES];
    struct pn__block *blocks; /* owned; blocks.c */
    struct pn__block *block_last;
};

enum { PN__GATEWAY_MAGIC = 0x47415445 };

/* What start_response was told, or what the server says itself. */
struct pn__answer {
    unsigned status; /* 0: start_response has not been called */
    unsigned flags;  /* PN_HEAD_* */
    int64_t length;  /* the application's Content-Length, or -1 */
    size_t count;
    size_t capacity;
    PyObject *status_text;   /* owned exact str; reason lies in it */
    struct pn_str reason;    /* view */
    struct pn_field *fields; /* views into held; inline_fields or of PyMem */
    PyObject **held;         /* owned exact strs: name and value of each field */
    struct pn_field inline_fields[PN__FIELDS_INLINE];
    PyObject *inline_held[2 * PN__FIELDS_INLINE];
};

/* One request from its exchange to its end. From the gateway's pool; lives as long as its frame on
 * the core, or while it waits in the queue. */
struct pn__request {
    struct pn_job job;
    struct pn_gateway *gw;
    struct pn_exchange *x; /* pinned */
    struct pn_core *core;  /* NULL while queued */
    uint32_t wait_number;
    bool queued;
    bool waiting; /* parked until notify: wait_number is the wait */
    bool head_sent;
    bool gone;         /* the peer left, or the exchange was cancelled: nothing more is sent */
    bool cut;          /* the server ends this request */
    bool disconnected; /* uwsgi.disconnect(): the answer is over, the application goes on */
    bool truncated;    /* the application gave more than its Content-Length */
    bool ws_failed;    /* the application of a WebSocket */
    struct pn_ws *ws;  /* owned, from the handshake to the application's end; NULL: none */
    int64_t sent_size; /* body bytes that the wire took */
    int ready_fd;      /* of the last uwsgi.wait_fd_*; -1: timed out */
    uint64_t id;
    PyObject *environ;        /* borrowed of its frame until that drops it; may be NULL */
    PyObject *start_response; /* owned */
    PyObject *input;          /* owned; NULL without a body */
    struct pn_bytes errors_line;
    struct pn__answer answer;
};

/* --- names.c --- */
int pn__names_init(struct pn_gateway *gw);
void pn__names_fini(struct pn_gateway *gw);
/* environ's key for a header that is in no list: new; NULL without memory. */
PyObject *pn__other_key(struct pn_gateway *gw, struct pn_str name);
/* A str of a value's bytes (latin-1), from the cache where ID's values may be kept: new. */
PyObject *pn__value(struct pn_gateway *gw, unsigned id, struct pn_str value);
static inline PyObject *pn__latin1(struct pn_str s)
{
    return PyUnicode_DecodeLatin1(s.p, (Py_ssize_t)s.n, NULL);
}

/* For the caches. Of the first and last eight bytes and the length: values differ there, and an attacker
 * who makes two collide gains that one of them is made anew. */
static inline uint64_t pn__hash_bytes(const char *p, size_t n)
{
    uint64_t a = 0, b = 0;
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
    } else if (n >= 4) {
        uint32_t x, y;
        memcpy(&x, p, 4);
        memcpy(&y, p + n - 4, 4);
        a = x;
        b = y;
    } else if (n) {
        a = (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << 8 |
            (uint64_t)(unsigned char)p[n - 1] << 16;
    }
    uint64_t h = (a * UINT64_C(0x9e3779b97f4a7c15)) ^ ((b + n) * UINT64_C(0xc2b2ae3d27d4eb4f));
    return h >> 32;
}

/* What lies between the first name and the last value of X's headers, of which there is one at least: equal
 * bytes are parsed equally. */
static inline struct pn_str pn__lines_text(const struct pn_exchange *x)
{
    const struct pn_header *last = &x->headers[x->header_count - 1];
    uint32_t begin = x->headers[0].name_off;
    return (struct pn_str){x->head_base + begin, last->value_off + last->value_len - begin};
}

/* Headers whose values come again and again and are no secrets. */
extern const uint8_t pn__keep_value[PN_HEADER_COUNT];

/* --- blocks.c --- */
void pn__blocks_init(struct pn_gateway *gw);
void pn__blocks_fini(struct pn_gateway *gw);
/* Owner. What pn__environ_build makes of PEER and the header lines of X, where a request like it has
 * been before: new, or NULL without an exception. Either way PEER has X's slot. */
PyObject *pn__block_copy(struct pn_gateway *gw, struct pn__peer *peer, const struct pn_exchange *x,
                         bool *forwarded);
/* Owner. Remembers ENV (borrowed) in that slot, if that may pay. No two lines of X have one name. */
void pn__block_keep(struct pn_gateway *gw, struct pn__peer *peer, const struct pn_exchange *x,
                    PyObject *env, bool forwarded);

/* --- environ.c --- */
int pn__environ_init(struct pn_gateway *gw, const struct pn_gateway_config *config);
void pn__environ_fini(struct pn_gateway *gw);
/* Owner. What PEER's requests have in common: borrowed of the connection; NULL with an exception. */
struct pn__peer *pn__peer_of(struct pn_gateway *gw, struct pn_peer *peer);
/* Owner. A request's environ: new; NULL with an exception (memory). Makes r->input when there is a
 * body. */
PyObject *pn__environ_build(struct pn__request *r);
void pn__peer_gone(struct pn_handler *h, struct pn_peer *peer);
void pn__peers_free_dropped(struct pn_gateway *gw);

/* --- forwarded.c --- */
enum pn__forwarded_scheme {
    PN__FORWARDED_NO_SCHEME = 0,
    PN__FORWARDED_HTTP = 1,
    PN__FORWARDED_HTTPS = 2,
};
/* What proxies of ours say of a request. */
struct pn__forwarded {
    char address[46]; /* the client's; empty: nothing was said of it */
    unsigned port;    /* 0: not known */
    enum pn__forwarded_scheme scheme;
    struct pn_str host;   /* view of the exchange's text; empty: not said */
    unsigned server_port; /* 0: not said */
};
/* Owner. For exchanges of a trusted peer. */
void pn__forwarded_find(const struct pn_gateway *gw, const struct pn_exchange *x,
                        struct pn__forwarded *out);
/* Owner. Applies X-Forwarded-* or Forwarded of a trusted peer to ENV: 0, or -1 with an exception. */
int pn__forwarded_apply(struct pn__request *r, PyObject *env);

/* --- start_response.c --- */
int pn__start_response_init(struct pn_gateway *gw);
/* New, bound to R. */
PyObject *pn__start_response_new(struct pn__request *r);
/* Unbinds and drops or keeps: steals O. Inside, or owner: runs no Python code. */
void pn__start_response_release(struct pn_gateway *gw, PyObject *o);
void pn__answer_init(struct pn__answer *a);
/* Room for COUNT fields in an empty answer: 0, or -1 with an exception. WHAT names who gave them. */
int pn__answer_reserve(struct pn__answer *a, size_t count, const char *what);
/* What a field of the application's says of framing. 1: it goes out, 0: it does not, -1 with an exception. */
int pn__answer_judge(struct pn__answer *a, struct pn_str name, struct pn_str value,
                     const char *what);
/* Which field the wire refuses; COUNT: none of them. */
size_t pn__answer_bad_field(const struct pn__answer *a);
/* Drops every reference: exact strs only, so also while owning the loop. */
void pn__answer_clear(struct pn__answer *a);

/* --- response.c --- */
/* The one block of RESULT when it is the whole answer (list or tuple of at most one bytes object): 1
 * and *BODY borrowed (NULL: empty), else 0. */
int pn__response_single(PyObject *result, PyObject **body);
/* Owner. Sends the whole answer; BODY (borrowed; NULL: empty) is exact bytes. Leaves owning. */
void pn__response_whole(struct pn__request *r, PyObject *body);
/* Inside, and again inside on return. Iterates RESULT (borrowed), sends, ends the exchange. 0, or
 * -1 with an exception that is the application's. Doesn't close RESULT. */
int pn__response_stream(struct pn__request *r, PyObject *result);
/* Inside. Calls close() where there is one; exceptions are logged. */
void pn__response_close(struct pn__request *r, PyObject *result);
/* Inside. Sends the head if it is due, then N bytes, and flushes: 0, or -1 with an exception. */
int pn__response_write(struct pn__request *r, const char *p, size_t n);
/* Inside. 500, or a cut connection when the head has gone. */
void pn__response_fail(struct pn__request *r);
/* Owner, for file_wrapper.c. */
int pn__response_head(struct pn__request *r, int64_t length, unsigned flags);
/* Owner on entry and return. Waits until WHY (PN_NOTIFY_BODY, PN_NOTIFY_DRAINED) may hold. 0, or
 * negative errno; then r->gone or r->cut is set. */
int pn__request_wait(struct pn__request *r, unsigned why);
/* Raises what a broken exchange means for the application. */
void pn__raise_gone(struct pn__request *r);
/* Attached. ClientDisconnected, with what CANCEL means in words. */
void pn__raise_disconnected(struct pn_gateway *gw, enum pn_cancel cancel);

/* --- input.c, errors.c, file_wrapper.c --- */
int pn__input_init(struct pn_gateway *gw);
PyObject *pn__input_new(struct pn_gateway *gw, struct pn__request *r); /* new; R NULL: empty */
void pn__input_release(struct pn_gateway *gw, PyObject *o);            /* steals */
int pn__errors_init(struct pn_gateway *gw);
/* What is left of a line without its end. */
void pn__errors_finish(struct pn_gateway *gw, struct pn_bytes *line);
int pn__file_wrapper_init(struct pn_gateway *gw);
/* Inside. 1: O is a wrapper of a plain file, *FD, *OFFSET and *SIZE say what of it is left; 0: read
 * it; -1 with an exception. */
int pn__file_wrapper_range(struct pn_gateway *gw, PyObject *o, int *fd, off_t *offset,
                           int64_t *size);

/* --- waiter.c --- */

/* For the calling core; None where it is none. New reference or NULL with an exception. */
PyObject *pn__waiter_new(void);
/* Until it is woken, once for all, or the request is cut; may come back sooner. The core that made it. */
PyObject *pn__waiter_wait(PyObject *waiter);
PyObject *pn__waiter_wake(PyObject *waiter);

/* --- spawn.c --- */
/* CALLABLE(True) in a core of its own, soon, or CALLABLE(False). Any core or thread, attached. None, or NULL with an
 * exception. */
PyObject *pn__spawn(struct pn_gateway *gw, PyObject *callable);
/* Home, attached, owning the loop, which makes no step any more, when gw->stopped is set: what is on its way is
 * refused. */
void pn__spawn_stop(struct pn_gateway *gw);

/* --- failure.c --- */
/* Inside. Takes the current exception and logs it with its traceback, in one piece. WHAT is a
 * sentence's begin, "application failed". R may be NULL. */
void pn__log_exception(struct pn_gateway *gw, struct pn__request *r, const char *what);
/* The same for an exchange, or NULL; X's text is good. */
void pn__log_exception_of(struct pn_gateway *gw, const struct pn_exchange *x, const char *what);
/* And for a request whose exchange has gone: NAME is "GET /path", as it came. */
void pn__log_exception_at(struct pn_gateway *gw, struct pn_str name, const char *what);
/* Attached. Whether the exception that is set is ClientDisconnected, or was caused by it. It stays set. */
bool pn__is_disconnection(struct pn_gateway *gw);
/* Inside, in the child of a fork: ends the process. */
PN_NORETURN void pn__leave_child(void);

/* --- websocket.c --- */
/* Inside. The answer to a client's KEY (PN_WS_ACCEPT_SIZE bytes at ACCEPT): 0, or -1 with an exception. */
int pn__ws_accept(const char *key, char *accept);

/* --- uwsgi_websocket.c: functions of the module, and the request's end --- */
PyObject *pn__uwsgi_ws_handshake(PyObject *module, PyObject *args);
PyObject *pn__uwsgi_ws_recv(PyObject *module, PyObject *unused);
PyObject *pn__uwsgi_ws_recv_nb(PyObject *module, PyObject *unused);
PyObject *pn__uwsgi_ws_send(PyObject *module, PyObject *message);
PyObject *pn__uwsgi_ws_send_binary(PyObject *module, PyObject *message);
/* Owner. Closes r->ws and lets it go. */
void pn__uwsgi_ws_end(struct pn__request *r);

/* --- asgi.c --- */
void pn__asgi_stop(struct pn_gateway *gw);
void pn__asgi_destroy(struct pn_gateway *gw);

/* --- module_uwsgi.c, host.c, wsgi.c --- */
int pn__uwsgi_init(struct pn_gateway *gw, const struct pn_gateway_config *config);
void pn__uwsgi_started(struct pn_gateway *gw);
/* Attached, on home, while the loop is there. 0 or negative errno. */
int pn__home_signals_start(struct pn_gateway *gw);
void pn__home_signals_stop(struct pn_gateway *gw);
void pn__uwsgi_fini(struct pn_gateway *gw);
void pn__host_init(struct pn_gateway *gw);
/* On home, attached. Imports threading, whose main thread is whoever does so first. */
void pn__host_start(struct pn_gateway *gw);
void pn__host_fini(struct pn_gateway *gw);
/* Before CORE's first request, on it, inside: threading has a thread for it then, and its state the trace and
 * the profile function that threading has for new threads. A failure is logged. */
void pn__host_begin(struct pn_gateway *gw, struct pn_core *core, struct pn__state *s);
/* host->stalled: stalls.c. */
void pn__host_stalled(void *ctx, void *state, struct pn_core *core, int64_t for_ns);
void pn__wsgi_start(struct pn_handler *h, struct pn_exchange *x);
/* The request of the calling core, NULL outside of one. */
struct pn__request *pn__request_current(void);
