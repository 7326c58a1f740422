/* SPDX-License-Identifier: Apache-2.0 */
/* A WebSocket connection over an exchange that was upgraded: what its handler (the gateway) sees of it.
 *
 * An HTTP/1.1 connection that is upgraded stays the wire's: its transport, time-out of writing, end and
 * log line are as before, and its exchange is a tunnel of raw bytes (pn_exchange_upgrade). Here, above the
 * seam, stand frames, pings and the closing handshake: so whatever wire has tunnels serves WebSocket.
 *
 *   upgrade          close sent, by us          both closes are there, or failed      the bytes have left
 *  -------> OPEN ----------------------> CLOSING -----------------------------> ENDING ------> GONE
 *             |                                  (or: close time-out)              ^              ^
 *             +--- the peer's close, answered; a broken rule, said with its status-+              |
 *             +--- the peer's end without a close; the exchange is cancelled: 1006 --------------+
 *
 * In: bytes are read as they come, up to PN_WS_QUEUE_SIZE_MAX of whole messages that the handler has not
 * taken; then reading stops, and the peer's kernel stops it. Pings are answered, and a close is found,
 * while reading goes on. A message that nothing stands before or behind is never copied.
 * Out: a message is taken whole or not at all. What the wire does not take of it is held here, and the
 * connection is full until that has left: the wire's write time-out is what ends a peer that takes nothing.
 * While pongs wait in there, no more than PN_WS_PONGS_SIZE_MAX, reading stops as well.
 * Time: PING_INTERVAL after the last sign of life a ping leaves, and without a byte from the peer within
 * PING_TIMEOUT the connection is failed with 1011; while reading stands still, a peer that is not heard is not
 * dead. PN_WS_CLOSE_TIMEOUT_MS after our close its end is not waited for any longer.
 *
 * Ownership: the connection holds a pin of the exchange until GONE, and has its notify and handler. It
 * frees itself when it is GONE and released. All functions need the loop's ownership. */
#pragma once

#include "http/exchange.h"
#include "http/ws_handshake.h"
#include "http/ws_message.h"

struct pn_ws;
struct pn_ws_server;

struct pn_ws_config {
    struct pn_ws_limits limits;
    int64_t ping_interval_ns; /* <= 0: no pings */
    int64_t ping_timeout_ns;  /* <= 0: nobody looks for the answer */
    bool compression;
    struct pn_ws_deflate_policy deflate;
};

/* The WebSocket connections of one worker: their time-outs, and the list of all. Aborts without memory. */
struct pn_ws_server *pn_ws_server_create(struct pn_loop *loop, const struct pn_ws_config *config);
/* Every connection must be released; those that are left are forgotten with their exchanges. */
void pn_ws_server_destroy(struct pn_ws_server *server);
/* Open connections are closed with 1012, and each one that opens from now on. Their handlers hear of it. */
void pn_ws_server_stop(struct pn_ws_server *server);
size_t pn_ws_server_connections(const struct pn_ws_server *server); /* not GONE */

/* What news was called for (bits). */
enum {
    PN_WS_NEWS_IN = 1,   /* take has a message, or the end */
    PN_WS_NEWS_ROOM = 2, /* it is full no more */
};

struct pn_ws_opening {
    const char *accept;            /* PN_WS_ACCEPT_SIZE bytes, of pn_ws_accept */
    struct pn_str subprotocol;     /* empty: none; else a token */
    const struct pn_field *fields; /* the application's, beside those of the handshake */
    size_t count;
    /* Owner of the loop; never from inside a call of the handler's. It may release the connection. */
    void (*news)(struct pn_ws *ws, unsigned what);
    void *owner; /* pn_ws_owner */
};

/* Answers the handshake of X, which asked for it properly, with 101; X's notify and handler are the
 * connection's from here on. 0 and *OUT; -EINVAL: the wire refuses a field; -ENOMEM; -EPIPE: X is over.
 * After -EINVAL and -ENOMEM nothing was sent and X is the caller's as before. */
int pn_ws_open(struct pn_ws_server *server, struct pn_exchange *x,
               const struct pn_ws_opening *opening, struct pn_ws **out);
void *pn_ws_owner(const struct pn_ws *ws);

/* The next message: PN_WS_TEXT or PN_WS_BINARY; PN_WS_MORE: there is none yet, NEWS_IN comes; PN_WS_CLOSE:
 * there will be none any more, status and reason are what it was closed with, by either side (1006: by
 * nobody). Views are good until taken, or until the loop is given away. */
int pn_ws_take(struct pn_ws *ws, struct pn_ws_message *out);
/* What take gave has been copied: its memory goes. */
void pn_ws_taken(struct pn_ws *ws);

/* Sends a message, OPCODE TEXT or BINARY, and flushes. 0; -EAGAIN: it is full, NEWS_ROOM comes; -EPIPE: it is
 * closed, by either side; -ENOMEM: nothing was sent. */
int pn_ws_send(struct pn_ws *ws, unsigned opcode, const void *data, size_t n);
/* Part of what was sent waits for the peer. Who cares for back-pressure waits for NEWS_ROOM. */
bool pn_ws_is_full(const struct pn_ws *ws);
/* Tries to get rid of what waits: for who has waited for the descriptor himself. */
void pn_ws_push(struct pn_ws *ws);
/* For the same: when a ping of an open connection is due, or the answer to one, by the loop's clock; PN_NEVER_NS. */
int64_t pn_ws_due_ns(const struct pn_ws *ws);
/* What is due now is done, as the loop would do it: a ping leaves, or the connection is closed. Nothing may be there to be
 * read. False: nothing was due. */
bool pn_ws_see_due(struct pn_ws *ws);
/* Our close, with at most PN_WS_REASON_MAX bytes of reason. Harmless when it is closed already. */
void pn_ws_close(struct pn_ws *ws, unsigned status, struct pn_str reason);
/* Neither side has closed it. */
bool pn_ws_is_open(const struct pn_ws *ws);

/* The handler lets go: no news any more. One that is open is closed with 1000. */
void pn_ws_release(struct pn_ws *ws);

enum { PN_WS_REASON_MAX = PN_WS_CONTROL_MAX - 2 };
