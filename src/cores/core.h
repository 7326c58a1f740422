/* SPDX-License-Identifier: Apache-2.0 */
/* Cores: what carries one request each, and who may touch the loop (the baton).
 *
 * To the application a core looks like a thread. Three carriers stand behind this header:
 *   inline   the worker's only thread; it waits by really blocking
 *   threads  an OS thread each; one that would block offers the loop to another and then blocks
 *   fibers   an own stack and thread state each, all on one OS thread; one that would block parks
 * N cores may carry requests at once; one carrier more exists, so the loop always has a runner.
 *
 * The baton (threads) is one atomic word: the runner, what it is doing, and whether it is lent.
 *
 *   FREE --take--> ACTIVE(X) --enter_app--> INSIDE(X) --leave_app--> ACTIVE(X)
 *    ^               |  ^                      |  |
 *    |          sleep|  |woken                 |  +--offer (X is about to block)--> FREE, an idle core takes
 *    |               v  |                      +-----steal (lease over, watchdog)-> FREE, an idle core takes
 *    +--stop------ POLLING(X)
 *
 *   In FREE, INSIDE and POLLING a follower (a core that came back and is not the runner) may borrow
 *   the baton for a short piece of C: the word keeps its runner and state and gets a LENT bit. A runner
 *   that comes back and finds it lent waits the few microseconds; one that finds another
 *   runner is a follower.
 *   Order of locks: GIL first, then baton. Nobody blocks, and nobody runs Python code, while ACTIVE or
 *   on loan: enter_app comes before.
 * With fibers and inline there is one OS thread: whoever runs owns the loop, and the word is only read
 * by the watchdog.
 *
 * This room knows no sockets and no Python: what it needs of Python is struct pn_core_host. */
#pragma once

#include "base/list.h"
#include "loop/loop.h"

struct pn_cores;
struct pn_core;

enum pn_carrier {
    PN_CARRIER_INLINE = 0,
    PN_CARRIER_THREADS = 1,
    PN_CARRIER_FIBERS = 2,
};

/* --- What cores needs of Python (src/gateway fills it; C tests pass their own or NULL) --------- */

/* "Attached" means: holds the GIL with this core's thread state. Any function may be NULL. */
struct pn_core_host {
    void *ctx;
    /* A new core's state. Called detached, on the new core itself, before it does anything else
     * (pn_core_self() is CORE already, so pthread_self's answer is the core's own). Never called for home.
     * Returns 0 and *state, or negative errno (EAGAIN, ENOMEM). */
    int (*state_new)(void *ctx, struct pn_core *core, void **state);
    /* Ends the state. Called on the core itself, attached; returns detached. */
    void (*state_end)(void *ctx, void *state);
    void (*attach)(void *ctx, void *state);
    void (*detach)(void *ctx, void *state);
    /* True when the calling thread is attached to this very state: then a redirected call must not
     * wait in the core, it goes straight on. */
    bool (*attached)(void *ctx, void *state);
    /* A fiber goes on after a switch, detached: CPython's thread-specific keys follow the state here
     * (findings-2, first correction). Called before the waiting call returns. */
    void (*resumed)(void *ctx, void *state);
    /* A fiber's sleep will be over soon, and of what it goes on with nothing is in the near caches: asks for some of
     * it (pn_prefetch), and no more. Called up to three times, with some other fiber's work in between, STEP 1 first: what
     * was asked for in one step may be read in the next. REQUEST is pn_core_request's, or NULL. Owner. */
    void (*fetch)(void *ctx, const void *state, const void *request, unsigned step);
    /* Raises the server's own exception in the core at its next bytecode. Called from the watchdog's
     * thread, which has no state: it may block there for the GIL. The host says pn_core_cut_seen when it comes out. */
    void (*raise)(void *ctx, void *state);
    /* Takes back a raise that came too late, so that it does not hit the core's next request
     * (SetAsyncExc with NULL). Called attached, on the core itself, inside. May be NULL. */
    void (*unraise)(void *ctx, void *state);
    /* The watchdog found a stall: writes the Python stack of STATE to the log, unless that place was
     * written just before. Called from the watchdog's thread, again each second of a long stay. The
     * core may go on meanwhile, STATE stays. */
    void (*stalled)(void *ctx, void *state, struct pn_core *core, int64_t for_ns);
};

struct pn_cores_config {
    enum pn_carrier carrier;
    unsigned count;           /* N: requests under way at most; 1..PN_CORES_MAX */
    size_t stack_size;        /* fibers and threads; bytes of address space, guard page included */
    unsigned queue_max;       /* ready requests that wait for a core */
    int64_t queue_timeout_ns; /* <= 0: none */
    int64_t lease_ns;         /* inside the application before the watchdog acts */
    int64_t log_blocking_ns;  /* holds the loop longer: reported (fibers, inline); <= 0: never */
    unsigned run_slots; /* threads: cores that may be on their way back to CPython at once; 0: 2 */
    const struct pn_core_host *host; /* borrowed, outlives the cores; NULL: nothing to attach */
    void *home_state; /* the host's state of the calling thread (home's); borrowed, never ended */
};

/* The calling thread becomes home (core 0), attached. Borrows LOOP and sets its sleep hooks. NULL
 * with errno set (EAGAIN, ENOMEM, ENOSYS when the carrier's self-test fails). */
struct pn_cores *pn_cores_create(struct pn_loop *loop, const struct pn_cores_config *config);

/* Runs the loop until pn_loop_stop, on as many cores as needed; returns on home, which owns the loop
 * again, when no core is inside a request or the deadline given to pn_cores_stop has passed: 0, or -ETIMEDOUT
 * when cores are still busy (the caller must not finalise Python then). pn_loop_stop while requests
 * are under way starts no new ones and goes on stepping until they are over, so it may be called
 * right after pn_cores_stop. -EAGAIN when the first carrier cannot be made. */
int pn_cores_run(struct pn_cores *cores);

/* Asks for the end, owner only: no new request starts (queued jobs are dropped); cores may finish until GRACE_NS from
 * now, then each parked or computing one gets host->raise and its wait is cut; HARD_NS after that
 * the loop is stopped and run gives up. Does not stop the loop before: the caller says
 * pn_loop_stop when its connections are done. Negative spans: never. */
void pn_cores_stop(struct pn_cores *cores, int64_t grace_ns, int64_t hard_ns);
/* Cut at once what still runs (a second signal). */
void pn_cores_stop_now(struct pn_cores *cores);
/* The same without stopping, and without the loop: async-signal-safe, any thread. For a signal handler that finds
 * the loop held by a request that computes. No effect where no watchdog runs (inline). */
void pn_cores_cut_all(struct pn_cores *cores);

/* On home, attached, after run: ends idle cores (their states, threads, stacks) and frees. When run gave
 * up (-ETIMEDOUT) it leaves everything as it is, since cores still use it. */
void pn_cores_destroy(struct pn_cores *cores);

enum pn_carrier pn_cores_carrier(const struct pn_cores *cores);
struct pn_loop *pn_cores_loop(struct pn_cores *cores);

/* --- Home --------------------------------------------------------------------------------------- */

/* Work that must run on home (asyncio's callbacks, Python's signal handlers): while pending says true,
 * the runner lets home do step, at most BUDGET times a turn. Owner only. step is called owning the loop, attached,
 * and may enter the application and wait like any core. pending is also called by the watchdog, which
 * borrows the loop for it: plain C, no GIL. */
struct pn_home_work {
    bool (*pending)(void *ctx);
    void (*step)(void *ctx);
    void *ctx;
    unsigned budget;
};
void pn_cores_set_home_work(struct pn_cores *cores, const struct pn_home_work *work);
struct pn_core *pn_cores_home(struct pn_cores *cores);

/* --- The current core ----------------------------------------------------------------------------- */

/* The core that the calling thread or fiber is; NULL in every other thread, and in the child of a
 * fork. One thread-local load. */
struct pn_core *pn_core_self(void);
/* What it returns, for the one place where even the call would be in everybody's way (wait/gate.h). */
extern __thread struct pn_core *pn__core_self __attribute__((tls_model("initial-exec")));
/* True when a call of the application that would block is to wait in CORE (the current one): not while it runs
 * server code or is attached, and not with the inline carrier. Asked at every redirected call. */
bool pn_core_may_wait(const struct pn_core *core);
unsigned pn_core_number(const struct pn_core *core); /* 0 is home */
struct pn_cores *pn_core_cores(struct pn_core *core);
void *pn_core_state(const struct pn_core *core); /* the host's */
/* host->attached for this core; false without such a function. Call it on the core itself. */
bool pn_core_attached(const struct pn_core *core);
/* host->detach and host->attach for this core, on the core itself: a redirected call that must let others
 * run although its caller is attached. */
void pn_core_detach(struct pn_core *core);
void pn_core_attach(struct pn_core *core);
/* What pthread_self() answers in this core: the OS thread's, but a fiber has its own. Any core. */
uintptr_t pn_core_ident(const struct pn_core *core);
/* The fiber that has this ident, or NULL (an OS thread's, or nobody's). Any thread. */
struct pn_core *pn_cores_by_ident(struct pn_cores *cores, uintptr_t ident);
/* Thread-local memory of this OS thread that every fiber is to have as its own from now on; one that has not
 * run since finds the INITIAL bytes there, and zeros behind them. Called on a core, or by home before the
 * run; SIZE bytes at ADDRESS stay, and so does INITIAL. 0 (in the other carriers too), or -ENOSPC. */
int pn_cores_own_memory(struct pn_cores *cores, void *address, size_t size, const void *initial,
                        size_t initial_size);
/* One pointer of src/wait's for each core, NULL at first; from malloc, and freed with the core. */
void **pn_core_values(struct pn_core *core);
/* A fiber's stack, lowest address first (false for the others): for pthread_getattr_np. */
bool pn_core_stack(const struct pn_core *core, void **base, size_t *size);
/* After work that goes deeper than requests do: gives what a fiber's stack has below the caller's frame back to the kernel.
 * Called on the core itself; no effect in the other carriers. */
void pn_core_trim_stack(const struct pn_core *core);
/* True when this core runs server code and may touch the loop: as the runner, or on loan. False inside the application
 * in every carrier: that is how redirected calls tell the two apart. (With fibers and inline a core
 * inside may touch the loop all the same, since nobody else runs.) */
bool pn_core_owns_loop(const struct pn_core *core);
/* True when it is the runner and not a follower on loan. */
bool pn_core_is_runner(const struct pn_core *core);
/* One slot for the gateway: the request that the core carries. */
void pn_core_set_request(struct pn_core *core, void *request);
void *pn_core_request(const struct pn_core *core);

/* --- Admission ------------------------------------------------------------------------------------ */

/* A request that wants a core. Embedded in the gateway's request. */
struct pn_job {
    struct pn_list node;
    int64_t queued_ns;
    void (*run)(struct pn_job *job);     /* on a core, owning the loop, counted as under way */
    void (*dropped)(struct pn_job *job); /* queue time-out or shutdown: answer 503; not counted */
};
enum pn_admit {
    PN_ADMIT_RUN = 0,    /* counted as under way: the caller runs it now, itself */
    PN_ADMIT_QUEUED = 1, /* run or dropped comes later */
    PN_ADMIT_FULL = 2,   /* nothing was taken: answer 503 */
};
/* Owner only. A core on loan never gets RUN. */
enum pn_admit pn_cores_admit(struct pn_cores *cores, struct pn_job *job);
/* The request is over (exactly once for each counted one). Owner only, on the core that carried it. */
void pn_cores_done(struct pn_cores *cores);
/* Takes a queued job off (the client has gone). Harmless for one that is not queued, or all zero. */
void pn_cores_withdraw(struct pn_cores *cores, struct pn_job *job);

/* --- Inside the application ------------------------------------------------------------------------ */

/* From here the core runs code that may take long, wait, or run Python; it may not touch the loop.
 * Needs the loop; attached or not does not matter. */
void pn_core_enter_app(struct pn_core *core);
/* Back: owns the loop again, as the runner or on loan. A follower may wait here for microseconds,
 * attached or not. */
void pn_core_leave_app(struct pn_core *core);
/* A core on loan gives the loop back (no effect for the runner). The base of a core does this by
 * itself; a follower that goes on in the application uses enter_app instead. */
void pn_core_return_loan(struct pn_core *core);

/* Called once, owning the loop, before the first time in a request that the core's frame may be
 * overtaken (it parks or offers the baton): the net room moves shared buffers that the request uses. FN is cleared
 * when it was called; NULL takes it off. */
void pn_core_on_overtaken(struct pn_core *core, void (*fn)(void *arg), void *arg);

/* --- Waiting ---------------------------------------------------------------------------------------- */

/* All are called by the core itself, detached, inside the application. They block the OS thread
 * (inline), offer the baton and block (threads), or park (fibers). errno is preserved. Deadlines are
 * of CLOCK_MONOTONIC; PN_NEVER_NS waits for ever. */
enum pn_wait {
    PN_WAIT_READY = 0,
    PN_WAIT_TIMEOUT = 1,
    PN_WAIT_CUT = 2,         /* the core is to end: the call that waits returns as finished. One
                              * wait a cut; a request that goes on is cut again after a second */
    PN_WAIT_INTERRUPTED = 3, /* a signal (threads, inline): EINTR to the caller */
};

/* Until EVENTS (EPOLLIN, EPOLLOUT, EPOLLPRI) hold on FD; HUP and ERR always count. A file that epoll
 * refuses is ready. PN_WAIT_READY may be stale: look again. Negative errno: -EBADF. */
int pn_core_wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns);
/* PN_WAIT_TIMEOUT when the time has come. */
int pn_core_sleep_until(struct pn_core *core, int64_t deadline_ns);
/* Lets the others run once; comes back in the next turn. */
void pn_core_yield(struct pn_core *core);

/* Waiting for somebody else's wake: take a number, publish (core, number), look whether the reason
 * to wait still holds, park. A wake for a number that is over is dropped, so that waker and waiter need no lock. */
uint32_t pn_core_wait_begin(struct pn_core *core);
int pn_core_park(struct pn_core *core, uint32_t wait_number, int64_t deadline_ns);
/* A wait found by itself, at a re-check, what nobody woke it for: a figure (rechecks_needed). */
void pn_core_count_recheck(struct pn_core *core);
/* Any thread, any core. CORE may be busy, idle or reused, but not freed: cores live as long as pn_cores. */
void pn_core_unpark(struct pn_core *core, uint32_t wait_number);

/* Threads: brackets a call that really blocks (the very same libc call). begin offers the baton and gives the run slot
 * back; end waits for a slot (bounded). FD >= 0: polls it and the loop together first (for a lease at most, since
 * the call's own time-out is not known here), and returns
 * false when FD got ready before anything else happened: nothing was offered then, end must not be called. In the other
 * carriers: true, and the thread blocks. */
bool pn_core_block_begin(struct pn_core *core, int fd, uint32_t events);
void pn_core_block_end(struct pn_core *core);

/* Raises in CORE and cuts the wait it is in, if any: done by the watchdog, soon. Owner, or any thread that knows that
 * the core carries a request. No effect on one that does not, or is cut already: it is raised there
 * again after a second, if the request goes on. */
void pn_core_cut(struct pn_core *core);
/* The exception has come out in CORE: called on the core itself, attached. What it waits for from now on is its
 * clean-up's, and is not cut. */
void pn_core_cut_seen(struct pn_core *core);
/* The wait that was cut makes its call fail, and the failure tells the application: what was raised with the request's
 * first cut is taken back, so that it does not come out in the failure's clean-up. Called on the core itself, inside,
 * detached; no effect where no wait was cut. errno is preserved. */
void pn_core_cut_failed(struct pn_core *core);
/* The same for a call that returns what it had done before: the exception comes out of it, unless its caller goes on
 * without looking (sendall), whose next wait is cut then. */
void pn_core_cut_passed(struct pn_core *core);
/* True from the cut until the core's request ends. */
bool pn_core_is_cut(const struct pn_core *core);

/* --- Figures, forks ------------------------------------------------------------------------------------ */

struct pn_cores_stats {
    uint64_t waits;           /* a core waited: parked, or offered the baton */
    uint64_t switches;        /* fiber switches, baton hand-overs */
    uint64_t steals;          /* by the watchdog */
    uint64_t rechecks_needed; /* a parked wait found its reason gone without a wake */
    uint64_t queued;          /* jobs that had to wait for a core */
    unsigned carriers;        /* exist now, home not counted */
    unsigned under_way;       /* requests */
    unsigned waiting;         /* of them, waiting now */
    unsigned queue_length;
    int64_t queue_age_ns; /* of the oldest */
};
void pn_cores_stats(const struct pn_cores *cores, struct pn_cores_stats *out);

/* Child of a fork (pthread_atfork): pn_core_self is NULL from now on, nothing waits in cores, the
 * watchdog is gone. True when the forking thread was a core inside pn_cores_run: returning from the application
 * must end in _exit; pn_core_leave_app does so (status 70) where nobody did before. */
bool pn_cores_after_fork_child(struct pn_cores *cores);
