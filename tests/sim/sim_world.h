/* SPDX-License-Identifier: Apache-2.0 */
/* The simulation's world: one loop on a virtual clock, a wire under test, a few in-memory connections,
 * and for each of them a plan of requests drawn from a seed. Everything that happens is a function of that
 * seed, so a failure prints it and replays with it.
 *
 *   sim_world.c    seeds, plans, the run of one history, the command line
 *   sim_handler.c  the handler behind exchange.h: reads, waits, answers, gives up, as the plan says
 *   sim_client.c   the client's end of a connection: bytes, pauses, trouble
 *   sim_h1.c       HTTP/1.1: plans as requests, the wire, what holds between two steps
 *   sim_model.c    what must have come back over HTTP/1.1
 *   sim_triple.c   a wire of the test's own with three exchanges a connection
 *
 * One history is one seed: up to SIM_CONNS_MAX connections at once. */
#pragma once

#include "base/bounds.h"
#include "http/exchange.h"
#include "net/conn.h"
#include "support/sim_link.h"

enum {
    SIM_CONNS_MAX = 3,
    SIM_PLANS_MAX = 6,
    SIM_NEST_MAX = 3, /* frames that have given the loop away at once */
};

enum sim_body { SIM_BODY_NONE = 0, SIM_BODY_LENGTH = 1, SIM_BODY_CHUNKED = 2 };

/* What is wrong with a request. */
enum sim_flaw {
    SIM_FLAW_NONE = 0,
    SIM_FLAW_HEAD = 1,      /* refused with flaw_status, never started */
    SIM_FLAW_TOO_LARGE = 2, /* its body is above the limit */
    SIM_FLAW_CHUNK = 3,     /* bad chunked coding after some good chunks */
    SIM_FLAW_TRAILER = 4,   /* a bad trailer */
};

enum sim_reading { SIM_READ_NOTHING = 0, SIM_READ_SOME = 1, SIM_READ_ALL = 2 };
enum sim_length { SIM_LENGTH_KNOWN = 0, SIM_LENGTH_NO_MORE = 1, SIM_LENGTH_UNKNOWN = 2 };
enum sim_ending {
    SIM_END_PROPER = 0,
    SIM_END_SHORT = 1,        /* fewer bytes than announced */
    SIM_END_CANCEL_EARLY = 2, /* before the head */
    SIM_END_CANCEL_LATE = 3,  /* after some of the body */
};

struct sim_conn;

/* One request and what the handler does with it. */
struct sim_plan {
    struct sim_conn *conn;
    unsigned id;
    const char *method;
    bool is_head;
    uint8_t minor;
    uint8_t body;       /* enum sim_body */
    uint8_t connection; /* 0: nothing said, 1: close, 2: keep-alive */
    uint8_t flaw;       /* enum sim_flaw */
    bool expect;
    bool waits;       /* the client sends the body when it is told to, or is answered */
    uint8_t form;     /* of the target: 0 origin, 1 with a query, 2 absolute */
    size_t body_at;   /* offset of the body in the connection's request stream */
    unsigned headers; /* extra lines */
    uint32_t body_size;
    unsigned flaw_status;
    const char *flaw_head;

    uint8_t reading; /* enum sim_reading */
    uint8_t length;  /* enum sim_length */
    uint8_t ending;  /* enum sim_ending */
    uint16_t status;
    uint32_t answer_size;
    uint32_t piece_size; /* what one write gets */
    bool bites;          /* takes less of the body than is there */
    bool info;           /* a 103 first */
    bool flushes;        /* after each piece */
    bool sends_file;     /* the body comes from a file */
    bool trailers;       /* one, where the framing has them */
    bool asks_close;
    bool wakes_later; /* a notify is acted on by a task, as by a core */
    bool nests;       /* gives the loop away inside start */
    bool nests_later; /* and in a frame of its own */
    bool stays;       /* gives it away once more before start returns, when all is over */
    bool keeps;       /* and has the text moved first */
    uint8_t delays;   /* in percent: how likely it waits between two steps */

    bool started;
    bool over; /* ended or cancelled, as the handler has seen it */
    bool was_cancelled;
    int64_t started_ns;
    int64_t over_ns;
    int64_t left_ns; /* when start returned; 0: before it was over */

    /* What the request log said. */
    unsigned logs;
    unsigned log_status;
    uint64_t log_size;
    bool log_error;
};

/* Why a stream may be less than the plans promise. */
enum sim_trouble {
    SIM_TROUBLE_NONE = 0,
    SIM_TROUBLE_RESET = 1, /* the client breaks the connection */
    SIM_TROUBLE_STALL = 2, /* the client stops sending */
    SIM_TROUBLE_CUT = 3,   /* the client ends its direction in the middle */
    SIM_TROUBLE_DEAF = 4,  /* the client stops reading */
};

struct sim_world;

struct sim_conn {
    struct sim_world *world;
    unsigned number;
    struct sim_link *link;
    struct sim_plan plans[SIM_PLANS_MAX];
    unsigned plan_count;
    unsigned next_id; /* of the request that may start next */
    uint8_t trouble;  /* enum sim_trouble */
    size_t trouble_at;
    size_t sent;
    unsigned small_sends;
    unsigned polls; /* since all was sent: how often it looked for more */
    bool shut;
    unsigned in_start; /* how many requests of it have start on a stack */
    bool calm;         /* all is there at once and answered at once: one send */
    unsigned refusals; /* logged without an exchange */
    unsigned refusal_status;
    uint64_t refusal_size;
    int64_t opened_ns;
    int64_t sent_ns;          /* when the client did something last */
    bool shuts_early;         /* half-closes as soon as all is sent */
    bool gone;                /* the client has nothing more to do */
    struct pn_bytes request;  /* all that the client would send */
    struct pn_bytes received; /* all that it got */
    void *wire;               /* a wire's own */
};

struct sim_world {
    struct pn_handler handler; /* first */
    uint64_t seed;
    uint64_t random;
    bool verbose;
    struct sim_poller *sim;
    struct pn_loop *loop;
    struct pn_net *net;
    size_t body_limit;
    size_t body_buffer;
    bool follower;      /* what may_continue is asked for */
    bool out_of_memory; /* allocations fail: anything may be refused */
    int64_t drained_ns; /* when the wire was told to drain; 0: not */
    bool closed_all;    /* the wire was told to close everything */
    unsigned peers_gone;
    unsigned nested;
    bool one_at_a_time;    /* no request begins while start of the one before is on a stack */
    unsigned requests_max; /* of a connection; 0: no bound */
    unsigned jobs;         /* of handlers, alive */
    unsigned starts;
    unsigned finishes; /* ended or cancelled */
    struct sim_conn conns[SIM_CONNS_MAX];
    unsigned conn_count;
};

/* The time-outs of every history. */
#define SIM_HEADER_NS    (2 * PN_NS_PER_SEC)
#define SIM_BODY_NS      (2 * PN_NS_PER_SEC)
#define SIM_KEEPALIVE_NS (3 * PN_NS_PER_SEC)
#define SIM_WRITE_NS     (2 * PN_NS_PER_SEC)
#define SIM_LINGER_NS    (PN_NS_PER_SEC / 2)

/* What a wire under test brings. */
struct sim_wire {
    const char *name;
    /* Makes the wire in W, whose loop and net are there. */
    void (*create)(struct sim_world *w);
    /* Renders the plans of C to C->request, makes the connection, and lets the client begin. */
    void (*connect)(struct sim_conn *c);
    /* Invariants that hold between any two steps of the loop. */
    void (*check)(struct sim_world *w);
    /* Judges what C has received, when everything is over. */
    void (*judge)(struct sim_conn *c);
    /* Everything must be gone. */
    void (*destroy)(struct sim_world *w);
    /* Plans that the wire cannot have are changed here; NULL: none. */
    void (*adapt)(struct sim_plan *p);
};

/* --- sim_world.c --- */

int sim_main(int argc, char **argv, const struct sim_wire *wire);
/* The next random number below N (N > 0); true in PERCENT of the cases; one of a list. */
uint64_t sim_random(struct sim_world *w, uint64_t n);
bool sim_chance(struct sim_world *w, unsigned percent);
#define SIM_PICK(w, ...) \
    (((const long[]){    \
        __VA_ARGS__})[sim_random(w, sizeof((const long[]){__VA_ARGS__}) / sizeof(long))])
/* Prints the seed and what is wrong, and ends the program. */
PN_NORETURN void sim_fail(const struct sim_world *w, const char *fmt, ...) PN_PRINTF(2, 3);
/* With --verbose: what happens, with the virtual time. */
void sim_say(const struct sim_world *w, const char *fmt, ...) PN_PRINTF(2, 3);
/* One step of the loop, with the wire's invariants behind it. */
void sim_step(struct sim_world *w);
void sim_append(struct pn_bytes *b, const void *data, size_t n);

enum { SIM_BODY_MAX = 600000 };

/* A request's body, or its answer's, from byte K on: as much as SIM_BODY_MAX allows. */
const char *sim_text(const struct sim_plan *p, size_t k, bool answer);
/* The same as a file: where the answer begins in it. */
int sim_file(const struct sim_plan *p, off_t *offset);

/* True when the answer has no bytes whatever the handler writes. */
bool sim_bodiless(const struct sim_plan *p);
/* The handler announces more than it sends, and that counts. */
bool sim_is_short(const struct sim_plan *p);

/* --- sim_handler.c --- */

/* The plan that a target means. */
struct sim_plan *sim_find_plan(struct sim_world *w, struct pn_str path);
/* The start of struct pn_handler: the exchange's target says which plan it is. */
void sim_handler_start(struct pn_handler *h, struct pn_exchange *x);
