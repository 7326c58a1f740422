/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of connections: one connection on an in-memory link, behind a transport that
 * fails to order, with a wire that only counts. The objects are globals of the test program,
 * made anew for each test. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/bounds.h"
#include "base/mem.h"
#include "net/conn.h"
#include "support/sim_link.h"
#include "support/sim_poller.h"

/* In front of a link. */
struct fault {
    struct pn_transport inner;
    unsigned op;      /* counts readv, writev, sendfile */
    unsigned fail_at; /* this one answers ERROR */
    int error;        /* with this */
    bool swap_reads;  /* one readv answers WANT_WRITE */
    bool swap_writes; /* one writev answers WANT_READ */
    bool no_sendfile; /* ENOTSUP */
    unsigned writevs; /* with more than one part */
};

/* Reads by records: a short read says nothing. */
extern const struct pn_transport_ops record_ops;

/* Counts its calls; closes the connection when told that it is gone. */
struct wire {
    struct pn_conn c;
    unsigned readable, writable, closed, timed_out;
    int closed_error;
    int64_t timed_out_ns;
    bool *freed;
    void (*on_readable)(struct wire *w);
};

enum { HEADER_S = 10, WRITE_S = 20 };

/* Time-outs: HEADER, WRITE, none. */
extern const struct pn_conn_state reading, writing, busy;

extern struct sim_poller *sim;
extern struct pn_loop *loop;
extern struct pn_net *net;
extern struct sim_link *far_end; /* of the connection */
extern struct fault fault;       /* its transport */
extern struct wire *w;
extern struct pn_conn *c; /* w's */
extern bool freed;

int set_up(void **state);
int tear_down(void **state);

struct wire *wire_of(struct pn_conn *conn);
struct wire *new_wire(const struct pn_transport *t, struct pn_net *n, bool *freed_flag);
/* N turns without a sleep. */
void turns(int n);
/* The unused input is TEXT. */
void expect_input(const char *text);
/* The client sends. */
void send_text(const char *text);
/* The client has got TEXT and no more. */
void expect_sent(const char *text);
/* Into the output queue. */
void gather_text(const char *text);
