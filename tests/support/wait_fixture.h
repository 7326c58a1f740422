/* SPDX-License-Identifier: Apache-2.0 */
/* A server without sockets: visitors come all at once, each in a core of its own, and run one
 * function inside the application with libc calls redirected. */
#pragma once

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "wait/wait.h"

enum { VISITORS_MAX = 64 };

struct world;
struct visitor {
    struct pn_task task;
    struct pn_job job;
    struct world *world;
    int number;
};

struct world {
    struct pn_loop *loop;
    struct pn_cores *cores;
    enum pn_carrier carrier;
    void (*app)(struct visitor *v);
    void *arg; /* the test's */
    struct visitor visitors[VISITORS_MAX];
    int count;
    int done;
    uint64_t calls_waited;
    struct pn_wait_stats wait_stats;
    struct pn_cores_stats cores_stats;
};

/* The carriers in which a call can wait beside others. */
enum { WAIT_CARRIERS = 2 };
extern const enum pn_carrier wait_carriers[WAIT_CARRIERS];

/* cmocka's own assertions jump off the stack, which must not happen on a core. */
#define REQUIRE(cond)                                                                      \
    do {                                                                                   \
        if (!(cond)) {                                                                     \
            fprintf(stderr, "%s:%d: not true on a core: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

/* SYMBOL of the library that the command line names, loaded as any library is; NULL, said, if it has none. */
void *wait_probe(int argc, char **argv, const char *symbol);

/* MS from now on by CLOCK. */
struct timespec wait_in_ms(clockid_t clock, int ms);

/* Serves COUNT visitors with APP in W, all zero but for arg. */
void wait_serve(struct world *w, enum pn_carrier carrier, int count,
                void (*app)(struct visitor *v));

/* Counts who is inside at once; most_ever is what overlap is judged by. */
struct gauge {
    atomic_int inside;
    atomic_int most_ever;
};
static inline int gauge_enter(struct gauge *g)
{
    int now = atomic_fetch_add(&g->inside, 1) + 1;
    int most = atomic_load(&g->most_ever);
    while (most < now && !atomic_compare_exchange_weak(&g->most_ever, &most, now))
        continue;
    return now;
}
static inline void gauge_leave(struct gauge *g)
{
    atomic_fetch_sub(&g->inside, 1);
}

/* ONE again and again until COUNT were in PRESENT at once, which ONE enters and leaves; for a minute at most. */
void wait_until_met(struct visitor *v, const struct gauge *present, int count,
                    void (*one)(struct visitor *v));

/* ONE again and again until all visitors were in it at once, for a minute at most: nobody's waits keep
 * the others out. */
void wait_together(struct visitor *v, struct gauge *present, void (*one)(struct visitor *v));
