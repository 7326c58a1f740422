/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway: runs a WSGI application (PEP 3333) on a core for each exchange that reaches it, or an ASGI
 * application on home, in a task each.
 *
 * The only room with Python.h; this header is free of it, so that main's C files can include it:
 * struct _object is what Python.h calls PyObject.
 *
 *   process that loads the application           each worker
 *   pn_gateway_create (module `uwsgi` is there)  pn_cores_create(.host = pn_gateway_host)
 *   import the application                       pn_gateway_start(cores)
 *   pn_gateway_set_app                           ... requests by pn_gateway_handler ...
 *        --- fork, or not ---                    pn_gateway_stop, pn_cores_destroy
 *                                                pn_gateway_destroy
 *
 * Every function is called attached (GIL held) unless it says otherwise. */
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include "base/log.h"
#include "cores/core.h"
#include "http/exchange.h"

struct _object;
struct pn_gateway;
struct pn_ws_server;

/* What SERVER_NAME and SERVER_PORT are for requests that came in by LISTENER. */
struct pn_gateway_server {
    const struct pn_listener *listener; /* compared with pn_peer.listener only */
    const char *name;                   /* empty (unix sockets): "localhost" */
    unsigned port;                      /* 0 (unix sockets): 80 */
    const char *unix_path;              /* of a unix socket; NULL: it is none */
};

/* One entry of uwsgi.opt: key and value become bytes, as in uWSGI. */
struct pn_gateway_option {
    const char *name;
    const char *value; /* NULL: True */
};

struct pn_gateway_config {
    enum pn_carrier carrier;
    unsigned cores;     /* N, for uwsgi.cores */
    unsigned processes; /* for uwsgi.numproc and wsgi.multiprocess */
    /* How long a core of the inline carrier waits for the peer; <= 0: for ever. The other carriers
     * leave that to the connection's own time-outs. */
    int64_t body_timeout_ns;
    int64_t write_timeout_ns;
    /* The first one stands for peers without a listener. All are copied. At least one. */
    const struct pn_gateway_server *servers;
    size_t server_count;
    const struct pn_gateway_option *options;
    size_t option_count;
    /* Whether a hop in X-Forwarded-For or Forwarded is one of our own proxies; asked only when
     * peer->trusted is set. NULL: no hop is. */
    bool (*is_trusted)(void *ctx, const struct sockaddr *address, socklen_t len);
    void *trust_ctx;
    struct pn_log *log; /* borrowed; NULL: the default sink */
};

/* Makes types, interned names and the module `uwsgi` in sys.modules, after a self-test of what the
 * carrier needs of this interpreter. NULL with a sentence in ERR. One a process. */
struct pn_gateway *pn_gateway_create(const struct pn_gateway_config *config, char *err,
                                     size_t err_size);

/* APP is a new reference to a callable and is stolen in any case; the contexts of requests start as
 * copies of the caller's. 0, or -EINVAL when it cannot be called, -ENOMEM. */
int pn_gateway_set_app(struct pn_gateway *gw, struct _object *app);

/* Before each request HOME's loop is made its core's current event loop. Borrowed; NULL: none. */
struct pn_aio_home;
void pn_gateway_set_aio_home(struct pn_gateway *gw, struct pn_aio_home *home);

/* --- ASGI: asgi.c ------------------------------------------------------------------------------- */

/* Extensions of the specification (bits). */
enum {
    PN_ASGI_TRAILERS = 1,
    PN_ASGI_PATHSEND = 2,
    PN_ASGI_ZEROCOPYSEND = 4,
    PN_ASGI_EARLY_HINT = 8,
    PN_ASGI_DEBUG = 16,
    PN_ASGI_WEBSOCKET_RESPONSE = 32,
};
struct pn_gateway_asgi {
    unsigned version;      /* 3, or 2: app(scope) gives a callable of (receive, send) */
    const char *root_path; /* copied; "" */
    unsigned extensions;
    bool lifespan;            /* the application is told of start and end */
    bool lifespan_required;   /* one that raises an exception at that has failed */
    struct pn_aio_home *home; /* borrowed: the application runs there */
};

/* Before start: the application speaks ASGI, and CARRIER, inline or fibers, with COUNT cores, is what the worker
 * will have. 0, or -1 with a sentence in ERR. */
int pn_gateway_use_asgi(struct pn_gateway *gw, const struct pn_gateway_asgi *config,
                        enum pn_carrier carrier, unsigned count, char *err, size_t err_size);

/* In the worker, on home, before the home loop is bound: tells the application to start up, and runs the home
 * loop alone until it has. 0; or -1: it failed, which was said in the log; or -EINTR: KeyboardInterrupt. */
int pn_gateway_lifespan_startup(struct pn_gateway *gw);
/* When no request runs any more, and home's loop runs itself: the reverse, for at most TIMEOUT_NS. */
void pn_gateway_lifespan_shutdown(struct pn_gateway *gw, int64_t timeout_ns);

/* Requests whose application has not come to its end; owner. 0 under WSGI, whose requests are cores'. */
unsigned pn_gateway_open(const struct pn_gateway *gw);
/* Owner. The server ends them: receive() gives a disconnection, and their tasks are cancelled. */
void pn_gateway_cut(struct pn_gateway *gw);

/* What src/cores needs of Python; lives as long as the gateway. */
const struct pn_core_host *pn_gateway_host(struct pn_gateway *gw);

/* In the worker, on home, before the first request. WORKER_ID counts from 1, as in uWSGI; MASTER_PID
 * 0: there is no manager. Borrows CORES. 0 or -ENOMEM. */
int pn_gateway_start(struct pn_gateway *gw, struct pn_cores *cores, unsigned worker_id,
                     pid_t master_pid);

/* In the worker, before the first request: who keeps WebSockets. Borrowed, until stop; NULL, and without
 * this: there are none, and who asks for one gets an answer of HTTP. */
void pn_gateway_set_websockets(struct pn_gateway *gw, struct pn_ws_server *websockets);

/* The handler for a wire or for the end of site's chain. start and peer_gone need the loop; start
 * is called attached. */
struct pn_handler *pn_gateway_handler(struct pn_gateway *gw);

/* Requests that have been started, ever. Any thread. */
uint64_t pn_gateway_requests(const struct pn_gateway *gw);

/* The exception classes ClientDisconnected and RequestCut, for main's module; borrowed. */
struct _object *pn_gateway_client_disconnected(struct pn_gateway *gw);
struct _object *pn_gateway_request_cut(struct pn_gateway *gw);

/* EXC and its traceback as text for the log, no line of which can pass for one of the log's own: new
 * bytes (UTF-8, whole lines), or NULL without an exception set. */
struct _object *pn_gateway_format_exception(struct _object *exc);

/* When pn_cores_run has come back: drops the application and everything that may run Python code. No
 * request may be under way. */
void pn_gateway_stop(struct pn_gateway *gw);
/* After pn_cores_destroy, whose cores still use the host; takes `uwsgi` out of sys.modules. */
void pn_gateway_destroy(struct pn_gateway *gw);
