/* SPDX-License-Identifier: Apache-2.0 */
/* A poller without a kernel: a virtual clock, descriptors whose readiness the test sets, and a
 * script of things that happen at given times. Waiting costs no time: the clock jumps to what
 * comes next. One thread only.
 *
 * Edges are the kernel's: a bit that was set while it stood already (more bytes came) is an edge
 * too. */
#pragma once

#include "loop/loop.h"

struct sim_poller;

/* Owned by the loop that is made with it. The clock starts at one second. */
struct sim_poller *sim_poller_create(void);
struct pn_poller *sim_poller_base(struct sim_poller *sim);

/* SEED other than 0: events come in random order and in batches of random size. */
void sim_poller_seed(struct sim_poller *sim, uint64_t seed);
/* The next number of that generator: for scripts that must replay. */
uint64_t sim_poller_random(struct sim_poller *sim);

/* Descriptors: the lowest free number from 3 on, as open(2) has it. Closing forgets
 * registrations. */
int sim_fd_open(struct sim_poller *sim);
void sim_fd_close(struct sim_poller *sim, int fd);
/* What the fd is ready for now (EPOLLIN, EPOLLOUT, EPOLLRDHUP, ...). Each bit of EVENTS is an
 * edge. */
void sim_fd_raise(struct sim_poller *sim, int fd, uint32_t events);
void sim_fd_lower(struct sim_poller *sim, int fd, uint32_t events);
uint32_t sim_fd_ready(const struct sim_poller *sim, int fd);
/* Further adds and changes of FD fail with -ERROR; 0: no more. */
void sim_fd_refuse(struct sim_poller *sim, int fd, int error);
/* How many descriptors are open. */
size_t sim_fd_count(const struct sim_poller *sim);

int64_t sim_now_ns(const struct sim_poller *sim);
/* The clock goes on without anything else happening (a long computation). */
void sim_advance(struct sim_poller *sim, int64_t ns);

/* FN is called from inside a wait at AT_NS, or as soon as one comes. Those of one time keep
 * their order. Freed by the poller. */
void sim_at(struct sim_poller *sim, int64_t at_ns, void (*fn)(void *ctx), void *ctx);
/* Drops what of the script has not happened. */
void sim_script_clear(struct sim_poller *sim);

/* True after a wait that could have lasted for ever: nothing is ready, no deadline, no script. The
 * driver ends or raises something. */
bool sim_idle(const struct sim_poller *sim);

struct sim_poller_stats {
    uint64_t waits; /* all */
    uint64_t looks; /* of them, with a deadline in the past */
    uint64_t wakes;
    uint64_t adds;
    uint64_t modifies;
    uint64_t removes;
};
struct sim_poller_stats sim_poller_stats(const struct sim_poller *sim);
