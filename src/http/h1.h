/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1.1 wire (RFC 9112): connections in, exchanges out.
 *
 *        accept
 *          v            head whole            start() returned, answer ended
 *      [READING] -------------------> [SERVING] ------------------------------+
 *        ^  |  idle: keep-alive time-out  |  start() returned, not ended       |
 *        |  +-> [IDLE] --byte--> READING  +-> waits: notify / resume goes on   |
 *        |                                                                     |
 *        +---------- keep-alive: next pipelined request, or IDLE --------------+
 *        |                                                                     |
 *        +<--- unread body drained (bounded)            close: [LINGERING] <---+--> freed
 *
 * One exchange at a time is under way on a connection; pipelined requests wait in the input buffer
 * and their answers leave in one send. Errors in framing answer with their status and close. */
#pragma once

#include "http/exchange.h"
#include "net/conn.h"

struct pn_h1;

/* One finished request, for the log: views are good for the call only. */
struct pn_access {
    const struct pn_exchange *x; /* NULL: the head could not be parsed */
    const struct pn_peer *peer;
    unsigned status;
    uint64_t sent_size;  /* head and body */
    int64_t duration_ns; /* head whole to end, by the loop's clock (good to half a millisecond) */
    int64_t time_s;      /* real time of the end, seconds since 1970 */
    const char *error;   /* a constant: why it was refused or cut; NULL */
};

struct pn_h1_config {
    size_t head_size_max;
    size_t target_size_max;
    size_t line_size_max;
    unsigned headers_max;
    int64_t body_size_max;           /* --limit-post */
    size_t body_buffer_size;         /* read before the handler is called, at most */
    unsigned keepalive_requests_max; /* 0: no bound */
    const char *server_header;       /* value of Server, NULL: none is sent */
    /* NULL: no request log. Called owning the loop, once a request. */
    void (*on_access)(void *ctx, const struct pn_access *a);
    /* Whether a peer's Forwarded headers are believed; NULL: nobody's. */
    bool (*is_trusted)(void *ctx, const struct sockaddr *address, socklen_t len);
    /* Asked when start has returned and its answer is over: false when this frame must not start
     * another request (a core that came back as a follower, on loan): the next one is then begun by
     * a task. NULL: always. */
    bool (*may_continue)(void *ctx);
    /* Real time for Date and the log, asked once a second; NULL: pn_clock_real_ns. */
    int64_t (*real_ns)(void *ctx);
    void *ctx;
};

/* Idle connections live this long after pn_h1_drain, for a request that is on its way. */
enum { PN_H1_DRAIN_GRACE_MS = 100 };

/* Borrows NET and HANDLER, copies CONFIG (server_header too). */
struct pn_h1 *pn_h1_create(struct pn_net *net, const struct pn_h1_config *config,
                           struct pn_handler *handler);
/* Takes the accepted socket over and reads at once: the request is often there. */
void pn_h1_accept(struct pn_h1 *h1, const struct pn_accepted *accepted);
/* The same for a transport that is no socket (simulation, later TLS): moves *TRANSPORT in. */
void pn_h1_adopt(struct pn_h1 *h1, const struct pn_transport *transport, const struct pn_peer *peer,
                 struct pn_listener *listener);
/* No new request on any connection: idle ones close now (after a short grace for a request that is on its way),
 * others after their answer, which says Connection: close. */
void pn_h1_drain(struct pn_h1 *h1);
/* Closes every connection; exchanges that live are cancelled with PN_CANCEL_SHUTDOWN. */
void pn_h1_close_all(struct pn_h1 *h1);
size_t pn_h1_connections(const struct pn_h1 *h1);
void pn_h1_destroy(struct pn_h1 *h1);

struct pn_h1_stats {
    uint64_t requests;
    uint64_t accepted;
    uint64_t bad_requests; /* refused by the wire, 4xx and 5xx of its own */
    uint64_t cancelled;    /* the client left or a time-out ended it */
};
void pn_h1_stats(const struct pn_h1 *h1, struct pn_h1_stats *out);
