/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the HTTP/1.1 wire: its structs and what its files call of each other.
 *
 *   h1.c          the wire itself: making, adopting, draining, figures
 *   h1_conn.c     a connection's states and the frame that works through its input
 *   h1_close.c    refusals, cuts, time-outs, the lingering close
 *   h1_request.c  from a head to an exchange; the body on its way in
 *   h1_answer.c   the answer on its way out: framing, bytes, files, trailers, tunnels
 *   h1_head.c     an answer's head as text
 *
 * Who frees what: the connection's struct goes back to its pool at the end of the turn in which it was
 * closed and its last pin went; each exchange pins it. The wire's pin of an exchange is dropped by
 * the frame that started it, or, when no frame is under way, by whoever finds the exchange over. */
#pragma once

#include "base/check.h"
#include "base/mem.h"
#include "http/h1.h"
#include "http/h1_chunk.h"
#include "http/h1_parse.h"
#include "http/http_date.h"

enum {
    PN__H1_HELD_MAX = 1024,  /* a longer head gets memory of its own */
    PN__H1_TEXT_MAX = 512,   /* a longer request head that must be kept gets memory of its own */
    PN__H1_SLACK = 16,       /* behind texts that are copied sixteen bytes at a time */
    PN__H1_COPY_MAX = 16384, /* a body piece up to this is copied behind its head */
    PN__H1_DRAIN_MAX = 64 * 1024, /* read from an unwanted body to keep its connection */
    PN__H1_POOL_KEEP = 256,       /* objects that an idle wire holds for reuse */
    PN__H1_SERVER_MAX = 128,      /* value of Server */
    PN__H1_FRAME_LINES_MAX = 128, /* Content-Length, Transfer-Encoding, Connection, empty line */
};

/* Where the request's body comes from. */
enum pn__h1_body {
    PN__H1_BODY_NONE = 0,
    PN__H1_BODY_LENGTH = 1,
    PN__H1_BODY_CHUNKED = 2,
    PN__H1_BODY_RAW = 3, /* a tunnel: everything, up to the end of data */
};

/* How the answer's body is delimited. */
enum pn__h1_framing {
    PN__H1_FRAMING_NONE = 0,     /* no head yet */
    PN__H1_FRAMING_HELD = 1,     /* the head is formatted; the first write or the end decides */
    PN__H1_FRAMING_LENGTH = 2,   /* out_left bytes are still owed */
    PN__H1_FRAMING_CHUNKED = 3,  /* out_left bytes of the chunk that is open are still owed */
    PN__H1_FRAMING_CLOSE = 4,    /* the connection's end is the body's end */
    PN__H1_FRAMING_BODILESS = 5, /* HEAD, 204, 304: bytes are dropped */
    PN__H1_FRAMING_RAW = 6,      /* a tunnel */
};

/* What the application's fields said of those that the wire handles. */
struct pn__h1_said {
    int64_t length; /* -1: nothing */
    bool date;
    bool server;
    bool close;
    bool upgrade;
};

enum { PN__H1_KEPT = 16, PN__H1_KEPT_SIZE = 256 };

/* A formatted head of fields that have a number (pn_exchange.fields_id). */
struct pn__h1_kept {
    uint64_t id; /* 0: none */
    struct pn__h1_said said;
    uint16_t status;
    uint16_t len;
    char text[PN__H1_KEPT_SIZE + PN__H1_SLACK];
};

struct pn__h1_conn;

struct pn__h1_exchange {
    struct pn_exchange x; /* first: the seam's pointer is ours */
    struct pn__h1_conn *hc;
    uint32_t head_len;
    uint8_t body;      /* enum pn__h1_body */
    bool keep_alive;   /* the client's wish */
    int64_t body_left; /* LENGTH: not yet taken by the handler */
    int64_t length;    /* of the answer, announced by the handler; -1 */

    /* From TEXT to HELD_BIG: zero at first. */

    /* The request. While TEXT is NULL the head lies at the front of the connection's input, and behind it the
     * whole body, if there is one; with a copy of its own the input begins with what is left of the body. */
    char *text;
    bool text_block;   /* TEXT is memory of its own */
    uint32_t body_pos; /* TEXT NULL: of the body, taken by the handler */
    bool started;      /* handler->start was called */
    bool body_whole;   /* chunked: the last chunk and the trailers have come */
    bool body_wanted;  /* peek found nothing: PN_NOTIFY_BODY is due */
    bool continued;    /* 100 was sent, or came to be pointless */
    bool in_call;      /* one of the handler's calls is under way: no notify */
    bool logged;

    /* The answer. */
    uint8_t framing;  /* enum pn__h1_framing */
    bool no_more;     /* the first write is the last */
    bool ask_close;   /* the handler wants the connection to end */
    bool has_upgrade; /* an Upgrade field: Connection must name it */
    bool has_date;
    bool has_server;
    bool out_blocked; /* a write took less: PN_NOTIFY_DRAINED is due */
    int64_t out_left;
    uint64_t head_sent;      /* bytes of head, for the log */
    const char *error;       /* a constant; NULL */
    struct pn_bytes decoded; /* CHUNKED: what the handler has not taken */
    char *held_big;          /* the held head when it is longer than HELD */

    /* Not set at first. */
    struct pn_h1_chunk chunk; /* CHUNKED only */
    uint32_t held_len;
    uint32_t held_max; /* bytes of HELD for a head: behind them a short TEXT may lie */
    char held[PN__H1_HELD_MAX + PN__H1_SLACK];
};

struct pn__h1_conn {
    struct pn_conn c; /* first: the net's pointer is ours */
    struct pn_h1 *h1;
    struct pn_list node;        /* of the wire */
    struct pn__h1_exchange *hx; /* under way, or over and not yet put away */
    uint32_t scanned;           /* bytes of an incomplete head that the parser has seen */
    uint32_t requests;
    uint32_t drained; /* bytes thrown away of an unwanted body, or while lingering */
    bool in_frame;    /* run_frame is on somebody's stack: requests begin there only */
    bool close_after; /* the answer under way is the last */
    bool closing;     /* nothing more is served; the output leaves, then the end */
    bool linger;      /* bytes may still come: read them before the close */
    struct pn_peer peer;
};

struct pn_h1 {
    struct pn_net *net;
    struct pn_loop *loop;
    struct pn_handler *handler;
    struct pn_h1_config config;
    struct pn_h1_limits limits;
    struct pn_header *headers; /* the parser's, limits.headers_max of them */
    struct pn_pool conns;
    struct pn_pool exchanges;
    struct pn_list all;
    size_t connections; /* open */
    bool draining;
    struct pn_timer grace;
    struct pn_h1_stats stats;
    /* Real time and the texts that depend on it, refreshed once a second. */
    int64_t second_ends_ns;
    int64_t time_s;
    uint64_t tsc; /* when the loop's time was last refreshed by us */
    uint32_t date_line_len;
    uint32_t server_line_len;
    /* "Server: ...\r\nDate: ...\r\n": one copy puts both. */
    char lines[PN__H1_SERVER_MAX + 16 + PN_HTTP_DATE_LEN + 16 + PN__H1_SLACK];
    char server[PN__H1_SERVER_MAX];
    struct pn__h1_kept kept[PN__H1_KEPT];
};

/* --- h1.c --- */

extern const struct pn_wire_ops pn__h1_ops;

/* Refreshes what changes once a second. */
PN_COLD void pn__h1_new_second(struct pn_h1 *h1);
static inline void pn__h1_check_second(struct pn_h1 *h1)
{
    if (pn_unlikely(pn_loop_now_ns(h1->loop) >= h1->second_ends_ns))
        pn__h1_new_second(h1);
}

/* The application may have computed for long: then the loop's time is asked anew, since deadlines
 * and durations are reckoned from it. The processor's counter tells without a system call whether half a
 * millisecond or so has gone by (between 2 and 5 GHz); that is all it is used for. */
static inline void pn__h1_check_time(struct pn_h1 *h1)
{
    uint64_t now = __builtin_ia32_rdtsc();
    if (pn_unlikely(now - h1->tsc > UINT64_C(1500000))) {
        h1->tsc = now;
        pn_loop_update_now(h1->loop);
    }
}

static inline struct pn__h1_exchange *pn__h1_exchange_of(struct pn_exchange *x)
{
    PN_CHECK_MAGIC(x, PN_EXCHANGE_MAGIC);
    return (struct pn__h1_exchange *)x;
}

static inline struct pn__h1_conn *pn__h1_conn_of(struct pn_conn *c)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    return (struct pn__h1_conn *)c;
}

/* Neither ended nor cancelled. */
static inline bool pn__h1_is_live(const struct pn__h1_exchange *hx)
{
    return hx->x.state <= PN_EXCHANGE_STARTED;
}

/* --- h1_conn.c --- */

extern const struct pn_conn_state pn__h1_state_reading;
extern const struct pn_conn_state pn__h1_state_idle;
extern const struct pn_conn_state pn__h1_state_body;
extern const struct pn_conn_state pn__h1_state_serving;
extern const struct pn_conn_state pn__h1_state_writing;
extern const struct pn_conn_state pn__h1_state_flushing;
extern const struct pn_conn_state pn__h1_state_draining;
extern const struct pn_conn_state pn__h1_state_lingering;

/* Works through the input as far as it goes: a no-op while another frame does. The connection may be
 * dead afterwards; its memory stays to the end of the turn. */
void pn__h1_run(struct pn__h1_conn *hc);
/* Sets the state that a live, started exchange's waits ask for. */
void pn__h1_serving_state(struct pn__h1_conn *hc);
/* True when a read may bring something: an edge is not used up, or nobody watches the fd yet. */
static inline bool pn__h1_may_read(const struct pn__h1_conn *hc)
{
    return !hc->c.peer_closed && (hc->c.readable || hc->c.watch.fd < 0);
}
/* Nothing has come of a request, be it the first or the next one. */
static inline bool pn__h1_is_silent(const struct pn__h1_conn *hc)
{
    return hc->c.state == &pn__h1_state_idle ||
           (hc->c.state == &pn__h1_state_reading && pn_conn_input(&hc->c).n == 0);
}
/* Drops the wire's pin of the exchange, unless a frame will. */
void pn__h1_drop(struct pn__h1_conn *hc);

/* --- h1_close.c --- */

/* Answers a request that never became an exchange, and ends the connection. REASON is a constant. */
PN_COLD void pn__h1_refuse(struct pn__h1_conn *hc, unsigned status, bool is_head,
                           const char *reason);
/* Ends a live exchange because of the peer or the wire: with an answer of STATUS when nothing of
 * another one has left, else by a cut. The handler is notified, unless it is in one of its calls. */
PN_COLD void pn__h1_fail(struct pn__h1_exchange *hx, unsigned status, enum pn_cancel why,
                         const char *reason);
/* The transport is gone. */
PN_COLD void pn__h1_gone(struct pn__h1_conn *hc, const char *reason);
/* The end at once: what is gathered leaves if the socket takes it. */
PN_COLD void pn__h1_end_now(struct pn__h1_conn *hc, bool reset);
/* The answer cannot be completed: what is gathered leaves, as fast as the peer takes it, then the end. */
PN_COLD void pn__h1_cut(struct pn__h1_conn *hc);
/* Marks a live exchange as cancelled, logs it and tells the handler. */
PN_COLD void pn__h1_cancelled(struct pn__h1_exchange *hx, enum pn_cancel why, const char *reason);
/* Sends what is gathered, then closes, lingering where bytes may still come. Goes on by itself. */
void pn__h1_close(struct pn__h1_conn *hc);
void pn__h1_on_closed(struct pn_conn *c, int error);
void pn__h1_on_header_timeout(struct pn_conn *c);
void pn__h1_on_idle_timeout(struct pn_conn *c);
void pn__h1_on_body_timeout(struct pn_conn *c);
void pn__h1_on_write_timeout(struct pn_conn *c);
void pn__h1_on_last_timeout(struct pn_conn *c);
void pn__h1_on_lingering(struct pn_conn *c);

/* --- h1_request.c --- */

enum pn__h1_step {
    PN__H1_AGAIN = 0, /* look again */
    PN__H1_READ = 1,  /* nothing more to do with what is here */
    PN__H1_REST = 2,  /* nothing more to do in this frame */
};
/* The next request out of the input: an exchange (hc->hx), a refusal (hc->closing), or READ. */
enum pn__h1_step pn__h1_take_request(struct pn__h1_conn *hc);
/* AGAIN when the exchange is ready to be started (or has failed), else READ. */
enum pn__h1_step pn__h1_gather_body(struct pn__h1_exchange *hx);
/* What one read may keep: the bound for pn_conn_read. */
size_t pn__h1_read_max(const struct pn__h1_conn *hc);
/* Throws away what is here of an unwanted body, when that is worth it to keep the connection. */
enum pn__h1_discard {
    PN__H1_DISCARD_DONE = 0,  /* the next request begins here */
    PN__H1_DISCARD_MORE = 1,  /* there is more to come */
    PN__H1_DISCARD_NEVER = 2, /* too much, or bad framing: close */
};
enum pn__h1_discard pn__h1_discard_body(struct pn__h1_exchange *hx);
/* Bytes of the body that are neither here nor taken: 0, a number, or INT64_MAX when unknown. */
int64_t pn__h1_body_missing(const struct pn__h1_exchange *hx);
/* Gives the request's text a home of its own. 0 or -ENOMEM. */
int pn__h1_own_text(struct pn__h1_exchange *hx);
/* The input under the text is about to go: copies the text, or empties it without memory. */
void pn__h1_leave_text(struct pn__h1_exchange *hx);
/* The exchange is over and out of the input. */
void pn__h1_consume_request(struct pn__h1_exchange *hx);
enum pn_body pn__h1_body_peek(struct pn_exchange *x, struct pn_str *view);
void pn__h1_body_consume(struct pn_exchange *x, size_t n);
int pn__h1_keep(struct pn_exchange *x);
void pn__h1_fetch(const struct pn_exchange *x);
void pn__h1_release(struct pn_exchange *x);

/* --- h1_head.c --- */

/* Copies N bytes, and up to PN__H1_SLACK more that both sides must have room for: short texts of
 * unforeseen length without a call. */
static inline char *pn__h1_put_slack(char *to, const char *from, size_t n)
{
    char *end = to + n;
    do {
        memcpy(to, from, 16);
        to += 16;
        from += 16;
    } while (to < end);
    return end;
}

/* Formats status line and fields to OUT (at least pn__h1_head_bound bytes) and checks them. Returns the
 * length, or -EINVAL. SAID gets what the wire decides by itself: those lines are left out. When
 * said->length is not negative, it is what Content-Length fields say: they are not read again. */
ptrdiff_t pn__h1_format_head(char *out, unsigned status, struct pn_str reason,
                             const struct pn_field *fields, size_t count, struct pn__h1_said *said);
/* Bytes that the head can take, or 0 when it is past its bounds. */
size_t pn__h1_head_bound(struct pn_str reason, const struct pn_field *fields, size_t count);
/* The lines of the wire, and the empty line, at OUT (PN__H1_FRAME_LINES_MAX bytes). */
char *pn__h1_put_frame_lines(char *out, const struct pn__h1_exchange *hx, int64_t length,
                             bool chunked, bool close);

/* --- h1_answer.c --- */

/* Logs the request once, with what is known. */
void pn__h1_log(struct pn__h1_exchange *hx);
int pn__h1_info(struct pn_exchange *x, unsigned status, const struct pn_field *f, size_t n);
int pn__h1_head(struct pn_exchange *x, unsigned status, struct pn_str reason,
                const struct pn_field *fields, size_t count, int64_t length, unsigned flags);
ssize_t pn__h1_write(struct pn_exchange *x, const void *data, size_t n);
ssize_t pn__h1_send_file(struct pn_exchange *x, int fd, off_t *offset, size_t n);
int pn__h1_flush(struct pn_exchange *x);
int pn__h1_end(struct pn_exchange *x, const struct pn_field *trailers, size_t n);
int pn__h1_upgrade(struct pn_exchange *x, unsigned status, const struct pn_field *f, size_t n);
void pn__h1_cancel(struct pn_exchange *x, enum pn_cancel why);
int pn__h1_wait_fd(struct pn_exchange *x);
