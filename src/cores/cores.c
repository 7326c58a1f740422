/* SPDX-License-Identifier: Apache-2.0 */
/* The part of cores that is the same for every carrier: making and ending them, entering and leaving the
 * application, home's work, the end, figures, forks.
 *
 * A pn_cores is made by the worker on home and lives as long as the worker serves. Structs of cores are
 * never freed before it, since wakes may still name them: one whose thread or fiber has ended is
 * retired, and its struct is the next new core. */
#include "cores/core.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cores/cores_impl.h"

__thread struct pn_core *pn__core_self __attribute__((tls_model("initial-exec")));

static const struct pn_core_host no_host;

/* --- Cores as structs ------------------------------------------------------------------------------ */

static struct pn_core *core_alloc(struct pn_cores *cores)
{
    unsigned n = atomic_load_explicit(&cores->all_count, memory_order_relaxed);
    if (n == cores->all_max)
        return NULL;
    struct pn_core *core = pn_try_malloc_lines(sizeof(*core));
    if (!core)
        return NULL;
    memset(core, 0, sizeof(*core));
    core->magic = PN__CORE_MAGIC;
    core->number = n;
    core->cores = cores;
    pn_list_init(&core->node);
    pn__slot_init(&core->slot);
    cores->all[n] = core;
    /* The watchdog reads the table without the lock. */
    atomic_store_explicit(&cores->all_count, n + 1, memory_order_release);
    return core;
}

/* The struct may have been another core's. Wait numbers and what wakes hang on go on. */
static void begin_life(struct pn_core *core)
{
    core->state = NULL;
    core->request = NULL;
    core->overtaken = NULL;
    core->on_loan = false;
    core->was_cut = false;
    core->wait_was_cut = false;
    atomic_store(&core->wait_due, false);
    atomic_store(&core->raises, 0);
    atomic_store(&core->busy, false);
    atomic_store(&core->cut, false);
    atomic_store(&core->cut_wait, false);
    atomic_store(&core->raise_due, false);
    atomic_store(&core->leaving, false);
}

struct pn_core *pn__core_new(struct pn_cores *cores)
{
    pn__lock_take(&cores->lock);
    struct pn_list *node = pn_list_pop_front(&cores->retired);
    struct pn_core *core = node ? pn_list_entry(node, struct pn_core, node) : core_alloc(cores);
    if (core)
        cores->carriers++;
    pn__lock_drop(&cores->lock);
    if (core)
        begin_life(core);
    return core;
}

void pn__core_retire(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    core->state = NULL;
    pn__lock_take(&cores->lock);
    cores->carriers--;
    pn_list_push_front(&cores->retired, &core->node);
    pn__lock_drop(&cores->lock);
}

struct pn_core *pn__idle_pop(struct pn_cores *cores)
{
    pn__lock_take(&cores->lock);
    struct pn_list *node = pn_list_pop_front(&cores->idle);
    if (node && --cores->idle_count < cores->idle_low)
        cores->idle_low = cores->idle_count;
    pn__lock_drop(&cores->lock);
    return node ? pn_list_entry(node, struct pn_core, node) : NULL;
}

void pn__idle_push(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    pn__lock_take(&cores->lock);
    pn_list_push_front(&cores->idle, &core->node);
    cores->idle_count++;
    pn__lock_drop(&cores->lock);
}

void pn__cores_complain(struct pn_cores *cores, int error)
{
    if (atomic_exchange(&cores->complained, true))
        return;
    pn_log_warning(NULL,
                   "cores: another %s cannot be had (%s), going on with %u: fewer requests are "
                   "carried at once",
                   cores->config.carrier == PN_CARRIER_FIBERS ? "fiber" : "thread",
                   strerror(error < 0 ? -error : error), cores->carriers);
}

void pn__cores_lower_limit(struct pn_cores *cores)
{
    if (!atomic_load_explicit(&cores->complained, memory_order_relaxed))
        return;
    pn__lock_take(&cores->lock);
    unsigned can = cores->carriers > 2 ? cores->carriers - 1 : 1;
    pn__lock_drop(&cores->lock);
    if (can < cores->limit)
        cores->limit = can;
}

/* --- Around the loop's sleep ------------------------------------------------------------------------ */

static void before_sleep(void *ctx)
{
    struct pn_cores *cores = ctx;
    struct pn_core *core = pn__core_self;
    pn__baton_move(&cores->baton, core->number, PN__BATON_POLLING);
    pn__detach(core);
}

static void after_sleep(void *ctx)
{
    struct pn_cores *cores = ctx;
    struct pn_core *core = pn__core_self;
    pn__attach(core);
    if (pn__baton_get(&cores->baton, core->number, false, NULL) != PN__GOT_RUNNER)
        _exit(PN__EXIT_FORKED); /* the baton is dead: a fork by a signal handler */
    pn__watchdog_rouse(cores);
}

/* --- Making and ending ------------------------------------------------------------------------------ */

static bool home_pending(void *ctx)
{
    struct pn_cores *cores = ctx;
    const struct pn_home_work *work = &cores->home_work;
    return work->step && !cores->home_due && !pn__core_busy(cores->home) &&
           work->pending(work->ctx);
}

/* The base of the core sees the flag when this step is over: nobody is switched to from inside the loop. */
static void home_step(void *ctx)
{
    struct pn_cores *cores = ctx;
    cores->home_due = true;
}

static void hard_deadline(struct pn_timer *timer)
{
    struct pn_cores *cores = pn_container_of(timer, struct pn_cores, hard_timer);
    cores->gave_up = true;
    pn_loop_stop(cores->loop);
}

static void nudge(struct pn_task *task)
{
    (void)task;
}

static const struct pn__carrier *carrier_of(enum pn_carrier which)
{
    switch (which) {
    case PN_CARRIER_INLINE:
        return &pn__carrier_inline;
    case PN_CARRIER_THREADS:
        return &pn__carrier_threads;
    case PN_CARRIER_FIBERS:
        return &pn__carrier_fibers;
    }
    PN_WRONG("there is no fourth carrier");
}

static void hook_loop(struct pn_cores *cores)
{
    const struct pn_sleep_hooks hooks = {before_sleep, after_sleep, cores};
    const struct pn_phase_handler home = {home_pending, home_step, cores, 1};
    pn_loop_set_sleep_hooks(cores->loop, &hooks);
    pn_loop_set_phase(cores->loop, PN_PHASE_HOME, &home);
}

static void init_fields(struct pn_cores *cores, struct pn_loop *loop,
                        const struct pn_cores_config *config)
{
    cores->magic = PN__CORES_MAGIC;
    cores->config = *config;
    cores->carrier = carrier_of(config->carrier);
    cores->host = config->host ? config->host : &no_host;
    cores->loop = loop;
    cores->all_max = config->count + 1 + PN__CARRIERS_EXTRA;
    cores->limit = config->count;
    cores->idle_span_ns = PN__IDLE_SPAN_NS;
    cores->trim_span_ns = PN__TRIM_SPAN_NS;
    cores->hard_span_ns = -1;
    pn__lock_init(&cores->lock);
    pn_list_init(&cores->idle);
    pn_list_init(&cores->retired);
    pn_list_init(&cores->resumed);
    pn_timer_init(&cores->hard_timer, hard_deadline);
    pn_task_init(&cores->nudge_task, nudge);
    pn__slots_init(&cores->slots, config->run_slots ? config->run_slots : 2);
    pn__watchdog_init(cores);
    pn__admission_init(cores);
}

static void free_all(struct pn_cores *cores)
{
    unsigned n = atomic_load(&cores->all_count);
    for (unsigned i = 0; i < n; i++) {
        cores->all[i]->magic = 0;
        free(cores->all[i]->values);
        free(cores->all[i]);
    }
    free(cores->all);
    cores->magic = 0;
    free(cores);
}

static void unhook_loop(struct pn_cores *cores)
{
    pn_loop_set_sleep_hooks(cores->loop, NULL);
    pn_loop_set_phase(cores->loop, PN_PHASE_HOME, NULL);
}

struct pn_cores *pn_cores_create(struct pn_loop *loop, const struct pn_cores_config *config)
{
    PN_BUG_ON(config->count < 1 || config->count > PN_CORES_MAX);
    PN_BUG_ON(pn__core_self);
    struct pn_cores *cores = pn_xcalloc(1, sizeof(*cores));
    init_fields(cores, loop, config);
    cores->all = pn_xcalloc(cores->all_max, sizeof(*cores->all));
    struct pn_core *home = core_alloc(cores);
    int error = home ? 0 : ENOMEM;
    if (home) {
        cores->home = home;
        home->state = config->home_state;
        home->os_thread = pthread_self();
        pn__baton_init(&cores->baton, home->number);
        pn__core_self = home;
        hook_loop(cores);
        error = -cores->carrier->start(cores);
    }
    if (!error)
        return cores;
    if (home)
        unhook_loop(cores);
    pn__core_self = NULL;
    free_all(cores);
    errno = error;
    return NULL;
}

void pn_cores_destroy(struct pn_cores *cores)
{
    PN_CHECK_MAGIC(cores, PN__CORES_MAGIC);
    if (atomic_load(&cores->abandoned) || cores->dead)
        return;
    PN_BUG_ON(pn__core_self != cores->home || cores->under_way > 0);
    struct pn_core *home = cores->home;
    /* POLLING, so that a thread that has only its frames to unwind can still come back, and nobody
     * steals from home. */
    pn__baton_move(&cores->baton, home->number, PN__BATON_POLLING);
    pn__detach(home);
    pn__watchdog_stop(cores);
    cores->carrier->end(cores);
    pn__attach(home);
    (void)pn__baton_get(&cores->baton, home->number, false, NULL);
    pn__admission_fini(cores);
    pn_timer_cancel(cores->loop, &cores->hard_timer);
    for (unsigned i = 0; i < atomic_load(&cores->all_count); i++)
        pn_timer_cancel(cores->loop, &cores->all[i]->timer); /* of a sleep that was cut short */
    pn_task_cancel(&cores->nudge_task);
    unhook_loop(cores);
    pn__core_self = NULL;
    free_all(cores);
}

/* --- Running and stopping ---------------------------------------------------------------------------- */

int pn_cores_run(struct pn_cores *cores)
{
    PN_CHECK_MAGIC(cores, PN__CORES_MAGIC);
    PN_BUG_ON(pn__core_self != cores->home);
    cores->finished = false;
    cores->end_wanted = false;
    if (cores->config.carrier != PN_CARRIER_INLINE || cores->config.log_blocking_ns > 0) {
        int rc = pn__watchdog_start(cores);
        if (rc < 0)
            pn_log_warning(NULL, "cores: no watchdog (%s): a request that computes delays others",
                           strerror(-rc));
    }
    int rc = cores->carrier->run(cores);
    if (rc < 0)
        return rc;
    pn_timer_cancel(cores->loop, &cores->hard_timer);
    if (cores->result < 0) {
        atomic_store(&cores->abandoned, true);
        return cores->result;
    }
    /* An exception of a cut that came too late must not hit who takes the server down. */
    pn__core_settle_as_runner(cores->home);
    return 0;
}

bool pn__cores_end_reached(struct pn_cores *cores)
{
    bool stopped = pn_loop_stopping(cores->loop);
    if (stopped && !cores->end_wanted) {
        cores->end_wanted = true;
        if (!cores->stopping)
            pn_cores_stop(cores, -1, -1);
    }
    if (!cores->end_wanted)
        return false;
    bool home_busy = cores->config.carrier != PN_CARRIER_INLINE && pn__core_busy(cores->home);
    bool over = cores->under_way == 0 && cores->queue_length == 0 && cores->carrier->quiet(cores);
    if (!home_busy && (over || cores->gave_up)) {
        pn_loop_stop(cores->loop);
        cores->result = over ? 0 : -ETIMEDOUT;
        cores->finished = true;
        return true;
    }
    if (stopped)
        pn_loop_resume(cores->loop);
    return false;
}

void pn_cores_stop(struct pn_cores *cores, int64_t grace_ns, int64_t hard_ns)
{
    int64_t now = pn_loop_update_now(cores->loop);
    cores->stopping = true;
    if (cores->queue_length > 0)
        pn_task_post(cores->loop, &cores->queue_task);
    cores->hard_span_ns = hard_ns;
    int64_t cut_ns = pn_deadline_ns(now, grace_ns);
    if (cut_ns == PN_NEVER_NS)
        return;
    int64_t hard_at_ns = pn_deadline_ns(cut_ns, hard_ns);
    if (hard_at_ns != PN_NEVER_NS && pn_timer_set(cores->loop, &cores->hard_timer, hard_at_ns) < 0)
        pn_log_warning(NULL, "cores: no memory for the last deadline of the end");
    atomic_store(&cores->dog.cut_all_ns, cut_ns);
    if (pn__watchdog_start(cores) < 0)
        pn_log_warning(NULL, "cores: no watchdog: requests are not cut after the grace time");
    pn__watchdog_kick(cores);
}

void pn_cores_stop_now(struct pn_cores *cores)
{
    pn_cores_stop(cores, 0, cores->hard_span_ns);
}

void pn_cores_cut_all(struct pn_cores *cores)
{
    atomic_store(&cores->dog.cut_all_ns, 0);
    pn__watchdog_kick(cores);
}

/* --- Home -------------------------------------------------------------------------------------------- */

void pn_cores_set_home_work(struct pn_cores *cores, const struct pn_home_work *work)
{
    cores->home_work = work ? *work : (struct pn_home_work){0};
}

void pn__home_steps(struct pn_cores *cores)
{
    struct pn_core *home = cores->home;
    cores->home_due = false;
    atomic_store_explicit(&home->busy, true, memory_order_release);
    for (unsigned i = 0; i < cores->home_work.budget; i++) {
        /* A step may wait, and another core may set other work meanwhile. */
        const struct pn_home_work work = cores->home_work;
        if (!work.step || !work.pending(work.ctx))
            break;
        work.step(work.ctx);
    }
    atomic_store_explicit(&home->busy, false, memory_order_relaxed);
    if (atomic_exchange(&home->cut, false))
        home->was_cut = true;
    /* The runner may have gone to sleep while home was busy, and so not to be had. */
    const struct pn_home_work work = cores->home_work;
    if (cores->end_wanted || (work.step && work.pending(work.ctx)))
        pn_task_post(cores->loop, &cores->nudge_task);
}

/* --- The current core -------------------------------------------------------------------------------- */

enum pn_carrier pn_cores_carrier(const struct pn_cores *cores)
{
    return cores->config.carrier;
}

struct pn_loop *pn_cores_loop(struct pn_cores *cores)
{
    return cores->loop;
}

struct pn_core *pn_cores_home(struct pn_cores *cores)
{
    return cores->home;
}

unsigned pn_core_number(const struct pn_core *core)
{
    return core->number;
}

struct pn_cores *pn_core_cores(struct pn_core *core)
{
    return core->cores;
}

void *pn_core_state(const struct pn_core *core)
{
    return core->state;
}

bool pn_core_attached(const struct pn_core *core)
{
    const struct pn_core_host *host = core->cores->host;
    return host->attached && host->attached(host->ctx, core->state);
}

struct pn_core *pn_core_self(void)
{
    return pn__core_self;
}

bool pn_core_may_wait(const struct pn_core *core)
{
    const struct pn_cores *cores = core->cores;
    if (cores->config.carrier == PN_CARRIER_INLINE || core->on_loan ||
        pn__baton_is(&cores->baton, core->number, PN__BATON_ACTIVE))
        return false;
    const struct pn_core_host *host = cores->host;
    return !host->attached || !host->attached(host->ctx, core->state);
}

void pn_core_detach(struct pn_core *core)
{
    PN_ASSERT(core == pn__core_self);
    pn__detach(core);
}

void pn_core_attach(struct pn_core *core)
{
    PN_ASSERT(core == pn__core_self);
    pn__attach(core);
}

uintptr_t pn_core_ident(const struct pn_core *core)
{
    if (core->cores->config.carrier == PN_CARRIER_FIBERS && core != core->cores->home)
        return (uintptr_t)core;
    return (uintptr_t)core->os_thread;
}

bool pn_core_stack(const struct pn_core *core, void **base, size_t *size)
{
    if (!core->stack.mapping)
        return false;
    *base = pn__stack_base(&core->cores->stacks, &core->stack);
    *size = pn__stack_usable(&core->cores->stacks);
    return true;
}

void pn_core_trim_stack(const struct pn_core *core)
{
    enum { IN_USE = 1024 }; /* by this function and what it calls */
    PN_ASSERT(core == pn__core_self);
    if (core->stack.mapping)
        pn__stack_trim(&core->cores->stacks, &core->stack,
                       (const char *)__builtin_frame_address(0) - IN_USE);
}

bool pn_core_owns_loop(const struct pn_core *core)
{
    return core->on_loan || pn_core_is_runner(core);
}

bool pn_core_is_runner(const struct pn_core *core)
{
    return pn__baton_is(&core->cores->baton, core->number, PN__BATON_ACTIVE);
}

void pn_core_set_request(struct pn_core *core, void *request)
{
    core->request = request;
}

void *pn_core_request(const struct pn_core *core)
{
    return core->request;
}

/* --- Into the application and back --------------------------------------------------------------------- */

void pn_core_enter_app(struct pn_core *core)
{
    if (pn_unlikely(core->on_loan))
        pn_core_return_loan(core);
    else
        pn__baton_enter(&core->cores->baton, core->number);
}

/* The server has ended around this core, or this is a child that came back from the application. */
PN_NORETURN PN_COLD static void never_back(struct pn_core *core)
{
    if (core->cores->dead)
        _exit(PN__EXIT_FORKED);
    if (pn_core_attached(core))
        pn__detach(core);
    for (;;) {
        static const _Atomic uint32_t nobody_wakes;
        pn__futex_wait(&nobody_wakes, 0, PN_NEVER_NS);
    }
}

PN_COLD static void come_back(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    PN_BUG_ON(core->on_loan);
    /* Home never runs the loop of a worker with threads: it borrows, even from nobody. */
    bool take_free = cores->config.carrier != PN_CARRIER_THREADS || core != cores->home;
    switch (pn__baton_get(&cores->baton, core->number, take_free, &cores->abandoned)) {
    case PN__GOT_RUNNER:
        return;
    case PN__GOT_LOAN:
        core->on_loan = true;
        return;
    case PN__GOT_NOTHING:
        never_back(core);
    }
}

void pn_core_leave_app(struct pn_core *core)
{
    if (pn_unlikely(!pn__baton_leave(&core->cores->baton, core->number)))
        come_back(core);
}

void pn_core_return_loan(struct pn_core *core)
{
    if (!core->on_loan)
        return;
    core->on_loan = false;
    pn__baton_unlend(&core->cores->baton);
}

void pn_core_on_overtaken(struct pn_core *core, void (*fn)(void *arg), void *arg)
{
    core->overtaken = fn;
    core->overtaken_arg = arg;
}

void pn__core_overtake(struct pn_core *core)
{
    void (*fn)(void *arg) = core->overtaken;
    core->overtaken = NULL;
    if (fn)
        fn(core->overtaken_arg);
}

void pn__core_settle(struct pn_core *core)
{
    const struct pn_core_host *host = core->cores->host;
    if (pn_likely(!core->was_cut))
        return;
    core->was_cut = false;
    /* cut is false: the watchdog raises nothing new, but may be in the middle of it, waiting for the GIL. */
    while (atomic_load(&core->watched)) {
        pn__detach(core);
        sched_yield();
        pn__attach(core);
    }
    atomic_store(&core->cut_wait, false);
    atomic_store(&core->raise_due, false);
    core->wait_was_cut = false;
    atomic_store(&core->wait_due, false);
    atomic_store(&core->raises, 0);
    pn__wait_out_pokes(core);
    if (host->unraise)
        host->unraise(host->ctx, core->state);
}

void pn__core_settle_as_runner(struct pn_core *core)
{
    if (pn_likely(!core->was_cut))
        return;
    pn_core_enter_app(core);
    pn__core_settle(core);
    pn_core_leave_app(core);
}

/* --- Figures, forks --------------------------------------------------------------------------------------- */

void pn_core_count_recheck(struct pn_core *core)
{
    pn__count(&core->cores->rechecks);
}

void pn_cores_stats(const struct pn_cores *cores, struct pn_cores_stats *out)
{
    *out = (struct pn_cores_stats){
        .waits = atomic_load_explicit(&cores->waits, memory_order_relaxed),
        .switches = atomic_load_explicit(&cores->switches, memory_order_relaxed),
        .steals = atomic_load_explicit(&cores->steals, memory_order_relaxed),
        .rechecks_needed = atomic_load_explicit(&cores->rechecks, memory_order_relaxed),
        .queued = cores->queued,
        .under_way = cores->under_way,
        .waiting = atomic_load_explicit(&cores->waiting, memory_order_relaxed),
        .queue_length = cores->queue_length,
    };
    struct pn__lock *lock = (struct pn__lock *)&cores->lock; /* a lock is no part of the value */
    pn__lock_take(lock);
    out->carriers = cores->carriers;
    pn__lock_drop(lock);
    if (cores->queue_length > 0) {
        const struct pn_job *first = pn_list_entry(cores->queue.next, struct pn_job, node);
        out->queue_age_ns = pn_loop_now_ns(cores->loop) - first->queued_ns;
    }
}

bool pn_cores_after_fork_child(struct pn_cores *cores)
{
    struct pn_core *core = pn__core_self;
    pn__core_self = NULL;
    cores->dead = true;
    /* Whoever comes back from the application finds a dead baton, and ends the child. */
    pn__baton_kill(&cores->baton);
    return core && pn__core_busy(core);
}
