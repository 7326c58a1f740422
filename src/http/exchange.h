/* SPDX-License-Identifier: Apache-2.0 */
/* The seam between wires and gateways: one request and its answer.
 *
 * Wires (HTTP/1.1 now; HTTP/2, WebSocket tunnels, FastCGI, uwsgi later) fill struct pn_exchange and
 * implement struct pn_wire_ops; handlers (site, gateway) consume it and cannot tell the wires apart.
 *
 * Ownership. The wire allocates the exchange and holds one pin; the handler takes one (pn_exchange_pin) at start and drops it
 * when it will never touch the exchange again; the last unpin frees it. All functions need the
 * loop's ownership (src/cores): a handler that went into the application has given it away, and
 * has it again after pn_core_leave_app. The request's text (method, target, headers) lies in the
 * wire's buffer, which may move while the handler does not own the loop: so it is kept as offsets and read through pn_exchange_text,
 * and views got from it are good only until the ownership is given away.
 *
 *            wire: head parsed          handler: head()        handler: end()
 *   (none) ----------------> RECEIVED ----------------> STARTED ----------------> ENDED
 *                               |                          |                        |
 *                               +--- cancel(reason), either side, at any time ------+--> CANCELLED
 *
 * After CANCELLED or ENDED every answer function returns -EPIPE or -EINVAL and does nothing. The request's text
 * is good until the handler's start, or the call or notify that ended the exchange, has returned.
 * A handler's start may finish the whole answer before it returns, or return and go on later (a core
 * that waits, a coroutine): notify tells it what it waits for.
 *
 * Paper sketches of later fillers and users:
 *   HTTP/2     one exchange a stream; body window updates on body_consume; head/write become frames,
 *              high water is the stream's window; trailers as HEADERS; cancel is RST_STREAM. extended CONNECT is upgrade.
 *   WebSocket  upgrade() turns the exchange into a tunnel: body_* and write carry raw bytes both ways
 *              until end or cancel; RFC 6455 lives above in ws_conn.h, over h1 and h2 alike.
 *   FastCGI    params become headers; stdin is the body; stdout the answer; aborts are cancel.
 *   sendfile   pn_exchange_send_file with a range; an h2 or TLS filler reads and writes instead.
 *   ASGI       receive() = body_peek or a future resolved by notify; send() = head/write with drained. disconnect = CANCELLED.
 *   push/103   pn_exchange_info with any 1xx. */
#pragma once

#include <sys/types.h>

#include "base/list.h"
#include "base/str.h"

struct pn_exchange;
struct pn_listener;
struct pn_loop;

/* One header of a request: offsets into pn_exchange.head_base. ID is enum pn_header_id of
 * http/h1_names.h (0: not a known name). Names are as the client wrote them. */
struct pn_header {
    uint32_t name_off;
    uint32_t value_off;
    uint32_t value_len;
    uint16_t name_len;
    uint16_t id;
};

/* A piece of the request's text. */
struct pn_span {
    uint32_t off;
    uint32_t len;
};

/* One header of an answer; both views are borrowed for the call. */
struct pn_field {
    struct pn_str name;
    struct pn_str value;
};

/* Who is on the other side of the connection, formatted once a connection. */
struct pn_peer {
    char address[64]; /* "192.0.2.1", "2001:db8::1", "" for a unix socket */
    uint16_t address_len;
    uint16_t port; /* 0 for a unix socket */
    bool is_unix;
    bool trusted;                       /* in --forwarded-allow-ips */
    const struct pn_listener *listener; /* where it was accepted, for SERVER_NAME; may be NULL */
    void *handler_cache; /* the gateway's own (Python strings of the two); freed by peer_gone */
};

enum pn_cancel {
    PN_CANCEL_NONE = 0,
    PN_CANCEL_CLIENT_GONE = 1, /* closed or reset */
    PN_CANCEL_TIMEOUT = 2,     /* body or write time-out */
    PN_CANCEL_PROTOCOL = 3,    /* a bad body framing */
    PN_CANCEL_TOO_LARGE = 4,   /* the body passed its limit */
    PN_CANCEL_HANDLER = 5,     /* the handler gave up after the head */
    PN_CANCEL_SHUTDOWN = 6,
};

enum pn_exchange_state {
    PN_EXCHANGE_RECEIVED = 0,
    PN_EXCHANGE_STARTED = 1,
    PN_EXCHANGE_ENDED = 2,
    PN_EXCHANGE_CANCELLED = 3,
};

/* Why notify was called (bits). */
enum {
    PN_NOTIFY_BODY = 1,      /* body_peek has news: bytes, the end, an error */
    PN_NOTIFY_DRAINED = 2,   /* output fell below the low-water mark */
    PN_NOTIFY_CANCELLED = 4, /* cancel says why; it comes once */
    /* The peer will send nothing more, behind what it may have sent of the body: it has left, or it
     * half-closed and still reads. Only where tell_end was set; it comes once. */
    PN_NOTIFY_PEER_ENDED = 8,
};

enum pn_body {
    PN_BODY_DATA = 0,  /* *view has at least one byte */
    PN_BODY_END = 1,   /* whole; trailers (if any) are known */
    PN_BODY_AGAIN = 2, /* not here yet: notify comes */
    PN_BODY_ERROR = 3, /* cut short, bad framing, time-out or too large: the exchange is CANCELLED,
                          cancel says why, and the wire has answered where that was possible */
};

/* Flags of pn_exchange_head. */
enum {
    PN_HEAD_NO_MORE =
        1, /* the end follows with the first write: body is whole (sets Content-Length) */
    PN_HEAD_HAS_LENGTH = 2, /* the fields contain a Content-Length, value in LENGTH */
    PN_HEAD_HAS_DATE = 4,   /* the fields contain these; the wire adds none of its own */
    PN_HEAD_HAS_SERVER = 8,
    PN_HEAD_CLOSE = 16, /* the fields ask for Connection: close (not passed on, the wire says it) */
};

/* What a wire implements; called through the inline functions below only. */
struct pn_wire_ops {
    const char *name; /* "http/1.1" */
    enum pn_body (*body_peek)(struct pn_exchange *x, struct pn_str *view);
    void (*body_consume)(struct pn_exchange *x, size_t n);
    int (*info)(struct pn_exchange *x, unsigned status, const struct pn_field *f, size_t n);
    int (*head)(struct pn_exchange *x, unsigned status, struct pn_str reason,
                const struct pn_field *fields, size_t count, int64_t length, unsigned flags);
    ssize_t (*write)(struct pn_exchange *x, const void *data, size_t n);
    ssize_t (*send_file)(struct pn_exchange *x, int fd, off_t *offset, size_t n);
    int (*flush)(struct pn_exchange *x);
    int (*end)(struct pn_exchange *x, const struct pn_field *trailers, size_t n);
    int (*upgrade)(struct pn_exchange *x, unsigned status, const struct pn_field *f, size_t n);
    void (*cancel)(struct pn_exchange *x, enum pn_cancel why);
    int (*wait_fd)(struct pn_exchange *x);
    int (*keep)(struct pn_exchange *x);
    void (*fetch)(const struct pn_exchange *x); /* may be NULL */
    void (*release)(struct pn_exchange *x);     /* the last pin has gone */
};

enum { PN_EXCHANGE_HEADERS_INLINE = 24 };

struct pn_exchange {
    unsigned magic;
    unsigned pins;
    const struct pn_wire_ops *ops;
    struct pn_peer *peer; /* of the connection; valid while pinned */

    /* The request's text: good while the loop is owned. */
    const char *head_base;
    struct pn_span method;
    struct pn_span target;    /* as sent */
    struct pn_span path;      /* within target; still percent-encoded */
    struct pn_span query;     /* after '?'; len 0 without one */
    struct pn_span authority; /* of an absolute-form target, else the Host value */
    struct pn_header *headers;
    uint16_t header_count;
    uint8_t version_minor; /* HTTP/1.x */
    uint8_t version_major;
    bool is_head;
    bool scheme_https;    /* the connection is TLS */
    bool expect_continue; /* the wire sends 100 at the first body_peek that finds nothing */
    bool upgrade_asked;
    bool has_body;          /* a body was announced, perhaps of unknown length */
    int64_t content_length; /* -1: none announced, or chunked */
    int64_t received_ns;    /* loop time at which the head was whole */

    /* The answer, for the access log: kept by the wire. */
    enum pn_exchange_state state;
    enum pn_cancel cancel;
    uint16_t status; /* 0 before head */
    uint64_t sent_body_size;
    uint64_t received_body_size;

    /* The handler's side. notify is called owning the loop, never from inside a call that the handler made; it may finish
     * the exchange. NULL: nobody listens. */
    void (*notify)(struct pn_exchange *x, unsigned why);
    void *handler;
    /* Of head's fields; not 0: this handler gives the same number with the same fields, length and flags only, so that a
     * wire may keep what it makes of them. Set before head, which takes it back. */
    uint64_t fields_id;
    bool tell_end; /* PN_NOTIFY_PEER_ENDED is wanted: set in start */
    bool
        ends_with_next; /* PN_HEAD_NO_MORE of a handler that learns it after head, before a write */

    struct pn_header headers_inline[PN_EXCHANGE_HEADERS_INLINE];
};

enum { PN_EXCHANGE_MAGIC = 0x45584348 };

/* What a wire hands its exchanges to. One a server: the chain of src/site with the gateway at its end. */
struct pn_handler {
    /* The head is here and the first part of the body (up to the buffering bound) is read. May answer whole, or later.
     * Always takes a pin of its own if it keeps X. Never fails: what goes wrong becomes an answer or a cancel. */
    void (*start)(struct pn_handler *h, struct pn_exchange *x);
    /* A connection's peer record is about to be freed: drop handler_cache. */
    void (*peer_gone)(struct pn_handler *h, struct pn_peer *peer);
};

static inline struct pn_str pn_exchange_text(const struct pn_exchange *x, struct pn_span s)
{
    return (struct pn_str){x->head_base + s.off, s.len};
}

static inline struct pn_str pn_header_name(const struct pn_exchange *x, const struct pn_header *h)
{
    return (struct pn_str){x->head_base + h->name_off, h->name_len};
}

static inline struct pn_str pn_header_value(const struct pn_exchange *x, const struct pn_header *h)
{
    return (struct pn_str){x->head_base + h->value_off, h->value_len};
}

/* The first header with this id, or NULL. */
const struct pn_header *pn_exchange_find(const struct pn_exchange *x, uint16_t id);

static inline void pn_exchange_pin(struct pn_exchange *x)
{
    x->pins++;
}

static inline void pn_exchange_unpin(struct pn_exchange *x)
{
    if (--x->pins == 0)
        x->ops->release(x);
}

/* --- The request's body, pulled --- */

/* What is here now, without taking it. The view is good until the next call on X or until the loop is given away. Asks the
 * peer to go on (100-continue) when nothing is here yet. */
static inline enum pn_body pn_exchange_body_peek(struct pn_exchange *x, struct pn_str *view)
{
    return x->ops->body_peek(x, view);
}

/* Takes N bytes of the last peek's view. */
static inline void pn_exchange_body_consume(struct pn_exchange *x, size_t n)
{
    x->ops->body_consume(x, n);
}

/* --- The answer, pushed. All return 0 (or a count) or negative errno --- */

/* An interim response, 100..199 but 101. Ignored for HTTP/1.0 clients. */
static inline int pn_exchange_info(struct pn_exchange *x, unsigned status,
                                   const struct pn_field *fields, size_t count)
{
    return x->ops->info(x, status, fields, count);
}

/* The head, once. Fields are checked by the wire: a name that is no token, or CR, LF or NUL in a value:
 * -EINVAL and nothing is sent. Hop-by-hop fields are the wire's business: -EINVAL for Transfer-Encoding.
 * LENGTH is the body's length if known, else -1: then the wire frames (chunked, or close). REASON empty: the
 * standard phrase. Nothing leaves before write, flush or end. */
static inline int pn_exchange_head(struct pn_exchange *x, unsigned status, struct pn_str reason,
                                   const struct pn_field *fields, size_t count, int64_t length,
                                   unsigned flags)
{
    return x->ops->head(x, status, reason, fields, count, length, flags);
}

/* Takes up to N bytes; returns how many were taken, which is fewer (also 0) when the output is above
 * its high-water mark: notify(DRAINED) comes. Bytes past an announced Content-Length are
 * refused: -EMSGSIZE. For HEAD and bodiless statuses the bytes are counted as taken and dropped. -EPIPE
 * when the exchange is cancelled. */
static inline ssize_t pn_exchange_write(struct pn_exchange *x, const void *data, size_t n)
{
    return x->ops->write(x, data, n);
}

/* N bytes of the file FD from *OFFSET on, advanced by what was taken; as write. -ENODATA when the file
 * ended early. FD stays the caller's. */
static inline ssize_t pn_exchange_send_file(struct pn_exchange *x, int fd, off_t *offset, size_t n)
{
    return x->ops->send_file(x, fd, offset, n);
}

/* Sends now what is gathered, instead of at the end of the turn: PEP 3333 wants each
 * block of an iterable to leave before the next is asked for. 0, or -EPIPE. */
static inline int pn_exchange_flush(struct pn_exchange *x)
{
    return x->ops->flush(x);
}

/* The answer is whole. -EMSGSIZE when fewer bytes than announced came: the wire then cuts the
 * connection. Trailers may be NULL; they are sent only where the framing has them. */
static inline int pn_exchange_end(struct pn_exchange *x, const struct pn_field *trailers,
                                  size_t count)
{
    return x->ops->end(x, trailers, count);
}

/* 101 (h1) and from then on raw bytes both ways through body_* and write. */
static inline int pn_exchange_upgrade(struct pn_exchange *x, unsigned status,
                                      const struct pn_field *fields, size_t count)
{
    return x->ops->upgrade(x, status, fields, count);
}

/* The handler gives up: before the head the caller should answer 500 instead; after it the
 * connection is cut so that the client sees that the answer is not whole. No notify is called. */
static inline void pn_exchange_cancel(struct pn_exchange *x, enum pn_cancel why)
{
    x->ops->cancel(x, why);
}

/* Moves the request's text and what has come of its body out of buffers that others will want: called
 * (once is enough, more is harmless) owning the loop, before the handler's frame gives it away
 * (pn_core_on_overtaken). The wire does it by itself when start returns without an end. Views die,
 * offsets stay. -ENOMEM is harmless: the shared buffer then stays taken until the exchange is over. */
static inline int pn_exchange_keep(struct pn_exchange *x)
{
    return x->ops->keep(x);
}

/* X's request has waited and will soon go on: asks for the memory that it goes on with (pn_prefetch), and no more.
 * Reads the first PN_EXCHANGE_FETCHED bytes of X. */
static inline void pn_exchange_fetch(const struct pn_exchange *x)
{
    if (x->ops->fetch)
        x->ops->fetch(x);
}
#define PN_EXCHANGE_FETCHED offsetof(struct pn_exchange, headers_inline)

/* A short plain answer with a standard text body, for errors: head, write and end. CLOSE: the
 * connection ends with it. 0 or the first error. */
int pn_exchange_answer_status(struct pn_exchange *x, unsigned status, bool close);

/* The socket below, for a core that waits for the peer by really blocking (inline carrier); -1 when it has gone. */
static inline int pn_exchange_wait_fd(struct pn_exchange *x)
{
    return x->ops->wait_fd(x);
}
