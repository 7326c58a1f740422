/* SPDX-License-Identifier: Apache-2.0 */
/* One connection's bytes in and out: the transport, the input buffer, the output queue, its
 * watch, its time-out and its state. Wires (src/http/h1.c) embed struct pn_conn and drive it.
 *
 * Input. Reads go into the worker's one scratch buffer (64 kB, always warm), and requests are
 * parsed there in place. Only what must outlive the turn is copied to an own block of its exact
 * size: an incomplete head, or a request whose core waits (pn_conn_pin). So an idle connection
 * holds no buffer, and a request that never waits allocates none. While a frame that uses the
 * scratch is inside the application and another core takes the loop without its help (the
 * watchdog), the scratch is still marked busy and the next reader gets another one. in.data may
 * change whenever the loop is given away: reload it.
 *
 * Output. Gathered in one queue, sent once for a batch, and at the latest in the turn's FLUSH
 * phase; what the socket does not take waits for the edge. Above PN_CONN_OUT_HIGH_WATER the
 * writer is told to wait.
 *
 * A state is a const struct that names its ready, closed and time-out handlers and its time-out
 * class: no state can lack one. States change through pn_conn_set_state only.
 *
 * Closing is two-phase: pn_conn_close takes it off the loop and closes the fd at once, and frees
 * it at the end of the turn when its last pin is gone. */
#pragma once

#include "base/bytes.h"
#include "loop/loop.h"
#include "net/listener.h"
#include "net/transport.h"

struct pn_conn;
struct pn_net;

/* Classes of connection time-outs, one FIFO list each. */
enum pn_conn_timer {
    PN_CONN_TIMER_HEADER = 0,
    PN_CONN_TIMER_BODY = 1,
    PN_CONN_TIMER_KEEPALIVE = 2,
    PN_CONN_TIMER_WRITE = 3,
    PN_CONN_TIMER_LINGER = 4,
    PN_CONN_TIMER_NONE = 5, /* a request is in the application: its own deadlines hold */
    PN_CONN_TIMERS = 6,
};

struct pn_conn_state {
    const char *name;
    void (*readable)(
        struct pn_conn *c); /* bytes may be read: try until WANT_READ or a short read */
    /* The queue fell below the low-water mark after write or send_file took less than all, or is
     * empty after flush answered WANT_WRITE. Never from inside one of these three. */
    void (*writable)(struct pn_conn *c);
    /* The peer reset or is gone in both directions (ERROR 0: it closed in order), or the
     * transport broke while the queue was sent in the background. Not called for what a function
     * below reports itself. */
    void (*closed)(struct pn_conn *c, int error);
    void (*timed_out)(struct pn_conn *c);
    enum pn_conn_timer timer;
};

struct pn_scratch;

struct pn_conn {
    unsigned magic;
    unsigned pins; /* exchanges and frames that still refer to it */
    const struct pn_conn_state *state;
    struct pn_net *net;
    struct pn_transport transport;
    struct pn_watch watch;
    struct pn_timeout timeout;
    enum pn_conn_timer timer; /* the class that timeout stands in */
    struct pn_task flush;     /* in the turn's flush list while output is gathered */
    struct pn_task resume;    /* go on with this connection soon: state->readable */
    struct pn_closing closing;
    struct pn_list all; /* of the net, for shutdown and figures */

    /* Input not yet used: data[pos..len). In the scratch or in an own block. */
    char *in_data;
    uint32_t in_pos;
    uint32_t in_len;
    uint32_t in_capacity;       /* of the own block; 0: in the scratch or none */
    struct pn_scratch *scratch; /* held while in_data lies in it */

    struct pn_bytes out;
    bool readable;      /* true at first; an edge was seen, and no WANT_READ or short read since */
    bool writable;      /* the last write did not end in WANT_WRITE */
    bool write_blocked; /* the writer was told to wait: state->writable is due */
    bool peer_closed;   /* end of data was read */
    bool dead;          /* closed; only pins keep the memory */
    bool
        flush_waits; /* flush answered WANT_WRITE: state->writable is due when the queue is empty */
    bool eof_due;    /* the peer's end was announced: a short read does not use up the edge */
    bool hung_up;    /* gone in both directions: state->closed is due after one more readable */
    bool read_wants_write; /* TLS: the read goes on when the fd is writable; and vice versa */
    bool write_wants_read;
    bool freeing; /* stands among the loop's closings */
    bool is_unix;
    struct pn_listener *listener;    /* borrowed */
    void (*free)(struct pn_conn *c); /* the wire's: frees the embedding struct */
};

enum { PN_CONN_MAGIC = 0x434f4e4e };

struct pn_net_config {
    int64_t header_timeout_ns;
    int64_t body_timeout_ns;
    int64_t keepalive_timeout_ns;
    int64_t write_timeout_ns;
    int64_t linger_timeout_ns;
};

/* The connections of one worker: scratch buffers, time-out classes, the list of all. */
struct pn_net *pn_net_create(struct pn_loop *loop, const struct pn_net_config *config);
/* Every connection must be closed. */
void pn_net_destroy(struct pn_net *net);
struct pn_loop *pn_net_loop(struct pn_net *net);
size_t pn_net_connections(const struct pn_net *net);
/* Calls FN for each open connection; FN may close it. */
void pn_net_each(struct pn_net *net, void (*fn)(struct pn_conn *c, void *ctx), void *ctx);

/* C->transport is set up by the caller. The watch is added lazily: at the first WANT_*, so that a
 * connection whose answer leaves at once never meets epoll. STATE is the first one. */
void pn_conn_init(struct pn_conn *c, struct pn_net *net, const struct pn_conn_state *state,
                  void (*free_fn)(struct pn_conn *c));
void pn_conn_set_state(struct pn_conn *c, const struct pn_conn_state *state);
/* Restarts the state's time-out (progress was made). */
void pn_conn_touch(struct pn_conn *c);

static inline void pn_conn_pin(struct pn_conn *c)
{
    c->pins++;
}
/* Frees (at the end of the turn) when it is dead and this was the last pin. */
void pn_conn_unpin(struct pn_conn *c);

/* Reads once. PN_IO_OK: at least one byte was added at in_len (or peer_closed was set with
 * none). WANT_READ: the watch is armed (also when the transport wants to write first). MAX
 * bounds what is here unused afterwards; when that much is here already, or memory is out,
 * PN_IO_ERROR with ENOMEM in transport.error; else PN_IO_ERROR with the transport's own. The
 * bytes may lie elsewhere than before: reload in_data. */
enum pn_io pn_conn_read(struct pn_conn *c, size_t max_size);
/* True when a read may bring something: an edge is not used up, or nobody watches the fd yet. A
 * connection must not rest before this is false: only a read that answers WANT_READ begins to
 * watch. */
static inline bool pn_conn_may_read(const struct pn_conn *c)
{
    return !c->peer_closed && (c->readable || c->watch.fd < 0);
}
static inline struct pn_str pn_conn_input(const struct pn_conn *c)
{
    /* Without input there is no data: C has no NULL + 0. */
    return c->in_data ? (struct pn_str){c->in_data + c->in_pos, c->in_len - c->in_pos}
                      : PN_STR_NONE;
}
/* N bytes are used up. When none is left the scratch or block goes back, so views die here. */
void pn_conn_consume(struct pn_conn *c, size_t n);
/* Moves the unused input out of the scratch into an own block: before the frame that works on it
 * gives the loop away, and at the end of a turn with an incomplete head. Returns 0, or -ENOMEM
 * (nothing changed). in_data changes. */
int pn_conn_keep_input(struct pn_conn *c);

/* Room for N bytes of output; NULL without memory, or dead. Then pn_conn_out_commit. */
char *pn_conn_out_reserve(struct pn_conn *c, size_t n);
/* N reserved bytes were filled in; they leave by pn_conn_flush or in the FLUSH phase. */
void pn_conn_out_commit(struct pn_conn *c, size_t n);
/* Gathers or sends: returns how many bytes of DATA were taken, fewer above the high-water mark;
 * the state's writable comes then. Large data is sent together with the queue by one writev,
 * without a copy of what the socket takes. -EPIPE when broken, -ENOMEM when nothing could be
 * taken or kept. */
ssize_t pn_conn_write(struct pn_conn *c, const void *data, size_t n);
/* As write, for a file; the queue leaves first. Takes a bounded part a call, however fast the
 * peer is. -ENODATA at the file's early end, -EIO and the like when it cannot be read. */
ssize_t pn_conn_send_file(struct pn_conn *c, int fd, off_t *offset, size_t n);
/* Sends what is queued. PN_IO_OK: the queue is empty; WANT_WRITE: the edge goes on with it. */
enum pn_io pn_conn_flush(struct pn_conn *c);

/* Ends both directions now; RESET by RST. Pending output is lost. Harmless when dead. */
void pn_conn_close(struct pn_conn *c, bool reset);
