/* SPDX-License-Identifier: Apache-2.0 */
/* A loop, a net and an HTTP/1.1 wire over in-memory connections, with a handler that the test
 * writes: set START, and answer in it or later. Time is virtual and stands still unless a test lets it go on. */
#pragma once

#include "http/h1.h"
#include "support/sim_link.h"

enum { H1_FIXTURE_SEEN_MAX = 64 };

struct h1_fixture {
    struct pn_handler handler; /* first */
    struct sim_poller *sim;
    struct pn_loop *loop;
    struct pn_net *net;
    struct pn_h1 *h1;
    struct pn_h1_config config; /* as the wire has it; change it before h1_fixture_open */
    struct pn_net_config times;

    /* What START does with a request; it may keep the exchange (pn_exchange_pin). NULL: 200 "hello\n". */
    void (*start)(struct h1_fixture *f, struct pn_exchange *x);
    /* Every exchange gets this notify when set. */
    void (*notify)(struct pn_exchange *x, unsigned why);
    void *arg; /* the test's own */

    unsigned starts;
    unsigned peers_gone;
    bool may_continue;
    struct pn_exchange *kept; /* what h1_fixture_keep kept last */
    unsigned notified;        /* bits of all notifies of kept ones */
    unsigned cancels;         /* CANCELLED notifies */

    /* The request log. */
    unsigned accesses;
    struct {
        unsigned status;
        const char *error;
        uint64_t sent_size;
        int64_t duration_ns;
        bool had_exchange;
    } seen[H1_FIXTURE_SEEN_MAX];
};

/* Fills the defaults of bounds.h. */
void h1_fixture_init(struct h1_fixture *f);
void h1_fixture_open(struct h1_fixture *f);
/* Closes what is left; every exchange must be finished or cancelled and unpinned by then. */
void h1_fixture_close(struct h1_fixture *f);

/* A new connection, adopted at once: with what FIRST (NULL: nothing) sends already there. */
struct sim_link *h1_fixture_connect(struct h1_fixture *f, const char *first);
void h1_fixture_send(struct h1_fixture *f, struct sim_link *l, const char *text);
/* Runs the loop until nothing is left to do at this time. */
void h1_fixture_run(struct h1_fixture *f);
/* Lets time go on. */
void h1_fixture_advance(struct h1_fixture *f, int64_t ms);
/* What the server has sent on L so far, NUL-terminated; it stays there. */
const char *h1_fixture_output(struct sim_link *l);
/* Runs, and gives back the output and takes it: good until the next call. */
const char *h1_fixture_answer(struct h1_fixture *f, struct sim_link *l);

/* For START: keeps the exchange for the test, with a notify that notes its reasons. */
void h1_fixture_keep(struct h1_fixture *f, struct pn_exchange *x);
/* Drops the kept exchange. */
void h1_fixture_drop(struct h1_fixture *f);
/* A whole answer with a Content-Length. */
void h1_fixture_reply(struct pn_exchange *x, unsigned status, const char *body);
/* A START that answers with the request's body, which must be whole. */
void h1_fixture_echo(struct h1_fixture *f, struct pn_exchange *x);
/* A START that keeps the exchange and does nothing. */
void h1_fixture_start_later(struct h1_fixture *f, struct pn_exchange *x);
