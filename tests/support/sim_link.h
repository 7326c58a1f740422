/* SPDX-License-Identifier: Apache-2.0 */
/* An in-memory connection: a pn_transport on the server's side, a test's hands on the other, readiness by the
 * virtual poller. The test says how much goes through at once, and when it breaks. A link lives
 * until sim_link_free, also after the server has closed its side. */
#pragma once

#include "base/bytes.h"
#include "net/transport.h"
#include "support/sim_poller.h"

struct sim_link {
    struct sim_poller *sim;
    int fd; /* -1: the server has closed */
    struct pn_bytes to_server;
    struct pn_bytes to_client; /* all that the server has sent and the test has not taken */
    size_t read_max;           /* bytes a readv gives at most; 0: no bound */
    size_t write_max;          /* bytes a writev takes at most; 0: no bound */
    size_t window;             /* bytes that to_client may hold before writes block */
    unsigned cross_every;      /* of so many calls one wants the other direction first; 0: none */
    unsigned calls;            /* counted for that */
    bool read_crossed, write_crossed;
    bool eof;            /* the client has shut its direction down */
    bool broken;         /* reset by the client */
    bool fin;            /* the server has shut its direction down, or closed */
    bool reset;          /* the server closed by RST */
    size_t unread;       /* bytes that the server had not read when it closed */
    int64_t moved_at_ns; /* when the server last read or wrote bytes */
    int64_t fin_at_ns;   /* when FIN was set */
    int64_t closed_at_ns;
    unsigned writes;      /* that moved bytes */
    unsigned reads;       /* that moved bytes, or found the end */
    unsigned read_blocks; /* that found nothing */
};

/* Opens an fd of SIM, writable from the start. */
struct sim_link *sim_link_open(struct sim_poller *sim);
/* The transport of the server's side; moved into a connection. */
struct pn_transport sim_link_transport(struct sim_link *l);
/* The client sends; nothing happens once it has shut down or the server has closed. */
void sim_link_send(struct sim_link *l, const void *data, size_t n);
/* Ends the client's direction. */
void sim_link_shutdown(struct sim_link *l);
void sim_link_break(struct sim_link *l);
/* The client takes N bytes of to_client: makes room. */
void sim_link_take(struct sim_link *l, size_t n);
void sim_link_set_window(struct sim_link *l, size_t window);
void sim_link_free(struct sim_link *l);
