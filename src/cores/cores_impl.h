/* SPDX-License-Identifier: Apache-2.0 */
/* What a pn_cores and a pn_core consist of: private to src/cores (and its unit tests).
 *
 * Every field says who may touch it:
 *   [owner]  whoever owns the loop            [self]   the core itself, on its own thread or fiber
 *   [lock]   under cores->lock                [atomic] anybody
 *   [dog]    the watchdog's thread            [const]  set once before anybody else looks
 *
 * Who wakes whom: an idle core sleeps on core->designated (threads) or lies switched away from (fibers) and has
 * exactly one wake to expect, from the one who took it off the idle list. */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/bounds.h"
#include "base/check.h"
#include "cores/baton.h"
#include "cores/core.h"
#include "cores/fiber.h"
#include "cores/fiber_memory.h"
#include "cores/slots.h"
#include "cores/stack.h"

enum {
    PN__CORES_MAGIC = 0x434f5253,
    PN__CORE_MAGIC = 0x434f5245,
    /* The watchdog borrows the baton under this number. */
    PN__WATCHDOG_NUMBER = PN__BATON_RUNNER_MAX,
    /* Carriers above N + 1 that a table has room for: waits that no request stands behind. */
    PN__CARRIERS_EXTRA = 8,
    PN__EXIT_FORKED = 70, /* EX_SOFTWARE: a forked child came back from the application */
};
#define PN__IDLE_SPAN_NS \
    (10 * PN_NS_PER_SEC)               /* an idle thread above the kept ones leaves after it */
#define PN__TRIM_SPAN_NS PN_NS_PER_SEC /* how often idle fibers are looked at */

/* The low bits of core->wait; the number stands above them. */
enum pn__wait_state {
    PN__WAIT_OVER = 0,
    PN__WAIT_ARMED = 1,   /* taken, not yet parked */
    PN__WAIT_WOKEN = 2,   /* a wake came for this number */
    PN__WAIT_PARKED = 3,  /* a fiber that is switched away from */
    PN__WAIT_BLOCKED = 4, /* its OS thread sleeps on the word */
    PN__WAIT_GRANTED = 5, /* the same, but nothing ends it any more than the baton, which comes */
};
#define PN__WAIT_BITS 3

static inline uint64_t pn__wait_word(uint32_t number, enum pn__wait_state state)
{
    return (uint64_t)number << PN__WAIT_BITS | (uint64_t)state;
}

/* What a fiber's sleep touches stands first, in three cache lines: with a thousand of them none is near. */
struct pn_core {
    unsigned magic;
    unsigned number;        /* [const] index in cores->all */
    struct pn_cores *cores; /* [const] */
    void *state;            /* [self] the host's; readable while the core isn't leaving */
    void *request;          /* [self] */
    bool on_loan;           /* [self] */
    bool was_cut;           /* [self] a cut request is over: settle before the next one */
    bool wait_was_cut;      /* [self] and nobody has said how its call ended */
    atomic_bool
        parked; /* fibers [owner]: waits for resume: further reasons are dropped; the watchdog reads */
    bool inside; /* fibers [owner]: was inside the application when it was switched away from */
    atomic_bool busy;      /* [self] carries a request (home: is in a step); others read */
    atomic_bool blocking;  /* its OS thread is in a call that waits, or about to enter it */
    atomic_bool cut;       /* from pn_core_cut until the request ends */
    atomic_bool cut_wait;  /* the wait under way, or the next, ends as cut */
    int reason;            /* fibers [owner]: why it was resumed: enum pn_wait or negative errno */
    uint32_t wait_number;  /* [self] */
    _Atomic uint64_t wait; /* number and enum pn__wait_state */

    struct pn_list node;       /* idle list, retired list [lock]; fibers: or resumed list [owner] */
    struct pn__fiber fiber;    /* fibers [owner] */
    struct pn_core *return_to; /* fibers [owner]: whom to switch to when it ends */

    struct pn_timer timer;        /* [owner] fibers; threads: a sleep */
    void (*overtaken)(void *arg); /* [self] */
    void *overtaken_arg;

    /* The rest. */
    atomic_bool leaving;   /* its state is about to end: the watchdog keeps away */
    atomic_bool watched;   /* [dog] the watchdog uses its state now */
    atomic_bool cut_seen;  /* the exception has come out: cut_wait means nothing any more */
    atomic_bool raise_due; /* the watchdog has to raise */
    atomic_uint raises;    /* so often it did for this request */
    atomic_bool poking;    /* [dog] it is about to end the wait: whoever has taken cut_wait waits */
    atomic_bool wait_due;  /* the watchdog has to end one more wait, without raising */
    int64_t cut_ns;        /* [dog] when it was raised */
    int64_t pokes_ns;      /* [dog] since when it pokes */
    int64_t next_poke_ns;  /* [dog] */
    int64_t poke_span_ns;  /* [dog] */

    /* threads */
    pthread_t os_thread;   /* [self] at its start: who it is */
    pthread_t join_handle; /* whoever made it, if joinable */
    bool joinable;
    _Atomic uint32_t designated; /* 1: wake up, the baton is for you */
    struct pn__slot slot;
    uint32_t sleep_number;   /* [owner] the wait that the timer stands for */
    struct pn_core *to_call; /* [self] was granted the baton and is to be woken */

    /* fibers, all [owner] */
    struct pn__fiber_memory memory; /* thread-local memory of its own, while it doesn't run */
    void *values;                   /* src/wait's, see pn_core_values */
    struct pn__stack stack;
    struct pn_watch watch;
    struct pn_task yield_task;
    struct pn_message message; /* wakes from other threads */
    atomic_bool message_sent;
};

/* What the carriers do differently. Waits are called detached, with errno kept by the caller. */
struct pn__carrier {
    int (*start)(struct pn_cores *cores); /* makes the first carrier; 0 or negative errno */
    int (*run)(
        struct pn_cores *cores); /* on home, attached, ACTIVE; the same after. 0 or -EAGAIN */
    void (*end)(struct pn_cores *cores); /* ends every carrier; on home, detached, POLLING */
    bool (*quiet)(
        struct pn_cores *cores); /* owner: nobody but the runner has frames to go on with */
    int (*wait_fd)(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns);
    int (*sleep_until)(struct pn_core *core, int64_t deadline_ns);
    int (*park)(struct pn_core *core, uint32_t number, int64_t deadline_ns);
    void (*yield)(struct pn_core *core);
    bool (*block_begin)(struct pn_core *core, int fd, uint32_t events);
    void (*block_end)(struct pn_core *core);
    void (*wake)(struct pn_core *core); /* any thread: core->wait went from PARKED to WOKEN */
    void (*poke)(struct pn_core *core); /* watchdog: core->cut_wait is set, end its wait */
};

struct pn__watchdog {
    pthread_t thread;
    atomic_bool running;
    atomic_bool quit;
    atomic_bool asleep;         /* nothing to watch: somebody who starts something kicks */
    _Atomic uint32_t kicks;     /* what it sleeps on */
    atomic_bool cuts_due;       /* some core has cut set */
    _Atomic int64_t cut_all_ns; /* when cores that still carry requests are cut; PN_NEVER_NS */
    /* [dog] */
    uint64_t
        seen_word; /* the stay that was seen, since when, and how many quiet looks there were */
    int64_t seen_ns;
    unsigned quiet_looks;
    uint64_t reported_word; /* the stay that was reported last, and when */
    int64_t reported_ns;
    int64_t next_cuts_ns;
    bool signal_set;
};

struct pn_cores {
    unsigned magic;
    struct pn_cores_config config; /* [const] */
    const struct pn__carrier *carrier;
    const struct pn_core_host *host; /* [const] never NULL */
    struct pn_loop *loop;
    struct pn_core *home;

    struct pn__baton baton;

    struct pn__lock lock;
    struct pn_core **all; /* by number; [lock] to add, entries stay */
    _Atomic unsigned all_count;
    unsigned all_max;       /* [const] */
    struct pn_list idle;    /* [lock] last in, first out */
    struct pn_list retired; /* [lock] structs without thread or stack */
    unsigned idle_count;    /* [lock] */
    unsigned carriers;      /* [lock] exist, home not counted */
    sigset_t signals;       /* [const] threads: what home has blocked, each begins with */
    unsigned coming;        /* [lock] threads: designated, have not looked at the baton yet */

    /* Admission, all [owner]. */
    unsigned under_way;
    unsigned limit; /* N, or less when carriers could not be made */
    unsigned queue_length;
    struct pn_list queue;
    struct pn_timer queue_timer;
    struct pn_task queue_task;
    bool stopping; /* no request starts any more */

    /* Home and the end, [owner]. */
    struct pn_home_work home_work;
    bool home_due;
    bool end_wanted; /* pn_loop_stop was said */
    bool gave_up;    /* the hard deadline has passed */
    bool finished;   /* run is to return, with result */
    int result;
    int64_t hard_span_ns;
    struct pn_timer hard_timer;
    struct pn_task nudge_task; /* keeps the loop from sleeping */
    atomic_bool abandoned;     /* run returned while cores were busy */
    atomic_bool ending;        /* destroy */
    bool dead;                 /* child of a fork */

    /* threads */
    struct pn__slots slots;
    _Atomic int64_t idle_span_ns; /* tests shorten it */
    struct pn_core *due;          /* [owner] promised the baton by the timer that fired just now */
    uint64_t sleepers_turn;       /* [owner] the turn that the next field is about */
    unsigned sleepers_run;        /* [owner] sleepers that went on in it */

    unsigned resumed_run; /* [owner] cores that went on since the last step of the loop */

    /* fibers, all [owner] */
    struct pn__stack_pool stacks;
    struct pn__fiber_regions regions;
    struct pn_list resumed;
    unsigned parked_count;
    unsigned idle_low; /* fewest idle fibers since the last look */
    struct pn_timer trim_timer;
    bool trim_due;
    bool stillborn;        /* a fiber could not get its state and has come back */
    struct pn_core *ended; /* its stack is to be put back by whom it switched to */
    int64_t trim_span_ns;  /* tests shorten it */

    struct pn__watchdog dog;

    _Atomic uint64_t waits, switches, steals, rechecks;
    uint64_t queued; /* [owner] */
    _Atomic unsigned waiting;
    atomic_bool complained; /* about carriers that could not be made: once */
};

extern const struct pn__carrier pn__carrier_inline;
extern const struct pn__carrier pn__carrier_threads;
extern const struct pn__carrier pn__carrier_fibers;

/* --- cores.c --- */

/* A core with a number and nothing else: a retired one, or new. NULL: no memory or the table is full. Counts
 * as a carrier from now on. Any thread. */
struct pn_core *pn__core_new(struct pn_cores *cores);
/* The reverse. The struct stays for stale wakes. */
void pn__core_retire(struct pn_core *core);
/* Off the idle list, last in first; NULL when there is none. Any thread. */
struct pn_core *pn__idle_pop(struct pn_cores *cores);
void pn__idle_push(struct pn_core *core);
/* A carrier could not be made: N becomes what can be carried. Said once. Any thread. */
void pn__cores_complain(struct pn_cores *cores, int error);
/* Owner. How many requests may be under way, with the carriers that could be made. */
void pn__cores_lower_limit(struct pn_cores *cores);
/* Owner, on home: as many steps of home's work as the budget says. */
void pn__home_steps(struct pn_cores *cores);
/* Runner, between steps, when the loop is stopped or the end is wanted: true when run is to return now (finished and
 * result are set). */
bool pn__cores_end_reached(struct pn_cores *cores);
/* After a cut request: takes the exception back if it is still to come. Attached, not owning. */
void pn__core_settle(struct pn_core *core);
/* Runner at its base, attached: settles if that is due. */
void pn__core_settle_as_runner(struct pn_core *core);
/* Calls what pn_core_on_overtaken left, once. Owner. */
void pn__core_overtake(struct pn_core *core);

/* --- admission.c --- */
void pn__admission_init(struct pn_cores *cores);
void pn__admission_fini(struct pn_cores *cores);

/* --- core_wait.c --- */

/* A wait that nobody else wakes: earlier numbers are over from now on. */
void pn__wait_private(struct pn_core *core);
/* The wait under way, or the next, is to end as cut. */
static inline bool pn__cut_is_due(struct pn_core *core)
{
    return pn_unlikely(atomic_load(&core->cut_wait)) && !atomic_load(&core->cut_seen);
}
/* True once a cut: the wait is to end with PN_WAIT_CUT. No signal for it is still to come then. */
bool pn__wait_take_cut(struct pn_core *core);
/* On the core's own OS thread, after cut_wait became false: the watchdog's last signal has come. */
void pn__wait_out_pokes(struct pn_core *core);
/* The OS thread really blocks; results are enum pn_wait or negative errno. */
int pn__os_wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns);
int pn__os_sleep_until(struct pn_core *core, int64_t deadline_ns);
/* NUMBER is ARMED, or PARKED already. */
int pn__os_park(struct pn_core *core, uint32_t number, int64_t deadline_ns);
/* What revents of poll(2) mean for a wait. */
int pn__wait_poll_result(short revents);
/* Brackets a call in which the OS thread waits. */
void pn__blocking_begin(struct pn_core *core);
void pn__blocking_end(struct pn_core *core);

/* --- watchdog.c --- */
void pn__watchdog_init(struct pn_cores *cores);
/* 0 or negative errno; harmless when it runs. */
int pn__watchdog_start(struct pn_cores *cores);
/* Detached: the watchdog may be waiting for the GIL. */
void pn__watchdog_stop(struct pn_cores *cores);
void pn__watchdog_kick(struct pn_cores *cores);
/* Any thread: CORE's cut flags are set. */
void pn__watchdog_cut(struct pn_core *core);
/* The core itself, whose wait was cut: so is the next one, unless the exception has come out. */
void pn__watchdog_cut_wait(struct pn_core *core);
/* A signal that ends the call in which CORE's thread waits. Watchdog only. */
void pn__watchdog_signal(struct pn_core *core);

/* --- carrier_threads.c, for the watchdog and for waits --- */

/* Whether somebody can take the baton. *NEXT: an idle thread, or a new one; it counts as coming, and must
 * be designated or pushed back. NULL: one is on its way already, see pn__threads_freed. */
bool pn__threads_find(struct pn_cores *cores, struct pn_core **next);
/* The baton was freed for one that was on its way: it comes, or another idle one is sent. */
void pn__threads_freed(struct pn_cores *cores);
void pn__threads_designate(struct pn_core *core);
/* It is not needed after all: idle, unless the baton was freed meanwhile. */
void pn__threads_push_back(struct pn_core *core);
/* The baton has been FREE for long. Where no thread could be made for it, one is tried again. */
void pn__threads_revive(struct pn_cores *cores);

/* INSIDE and detached, about to block. True: given away, or stolen before. False: nobody could be had. */
bool pn__threads_offer(struct pn_core *core);

/* --- threads_wait.c --- */

/* ACTIVE -> INSIDE of CORE, which is promised it. Any thread calls it then: until that it sleeps. */
void pn__threads_grant(struct pn_core *core);
void pn__threads_call(struct pn_core *core);
/* Runner. A sleeper that the events of a long turn have kept waiting, promised the baton; NULL. */
struct pn_core *pn__threads_take_overdue(struct pn_cores *cores);
/* What struct pn__carrier says. */
int pn__threads_wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns);
int pn__threads_sleep_until(struct pn_core *core, int64_t deadline_ns);
int pn__threads_park(struct pn_core *core, uint32_t number, int64_t deadline_ns);
void pn__threads_yield(struct pn_core *core);
bool pn__threads_block_begin(struct pn_core *core, int fd, uint32_t events);
void pn__threads_block_end(struct pn_core *core);

/* --- small ones --- */

static inline void pn__attach(struct pn_core *core)
{
    const struct pn_core_host *host = core->cores->host;
    if (host->attach)
        host->attach(host->ctx, core->state);
}

static inline void pn__detach(struct pn_core *core)
{
    const struct pn_core_host *host = core->cores->host;
    if (host->detach)
        host->detach(host->ctx, core->state);
}

static inline void pn__count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Acquire, as it was set by a release: the watchdog that cuts a busy core goes on to read its state, which
 * the core's own thread or fiber wrote. */
static inline bool pn__core_busy(const struct pn_core *core)
{
    return atomic_load_explicit(&core->busy, memory_order_acquire);
}

/* After the loop has slept: the watchdog may have gone to sleep too. */
static inline void pn__watchdog_rouse(struct pn_cores *cores)
{
    if (pn_unlikely(atomic_load(&cores->dog.asleep)))
        pn__watchdog_kick(cores);
}
