/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog: one thread that owns nothing and looks at the others.
 *
 *   threads            takes the baton from a core that has been in the application longer than the lease,
 *                      when the loop has something to do
 *   fibers, inline     reports such a stay, after log_blocking_ns
 *   all                raises in cores that are to be cut, and ends their waits; cuts all at the end of the grace time
 *
 * It looks every half lease while something goes on and sleeps otherwise: the first core that comes back from
 * the loop's sleep kicks it (pn__watchdog_rouse). It sees a stay by the count in the baton's word, so entering the
 * application costs no clock. */
#include <poll.h>
#include <signal.h>

#include "base/clock.h"
#include "base/log.h"
#include "cores/cores_impl.h"

#define QUIET_LOOKS 40 /* in a row without a stay: then it sleeps */
#define POKE_FIRST_NS \
    (2 * PN_NS_PER_MS) /* a signal can be lost before the call that it is to end */
#define POKE_LAST_NS    (64 * PN_NS_PER_MS) /* doubled up to this */
#define POKE_GIVE_UP_NS (20 * PN_NS_PER_MS) /* the core isn't waiting: its exception is enough */
#define RECUT_NS        PN_NS_PER_SEC       /* the application went on: once more */
#define REPORT_NS       PN_NS_PER_SEC       /* between two reports of one stay */
#define LOOK_MIN_NS     PN_NS_PER_MS

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* --- Stays in the application ------------------------------------------------------------------------- */

static bool loop_has_work(struct pn_cores *cores)
{
    struct pn_poller *poller = pn_loop_poller(cores->loop);
    if (pn_loop_has_work(cores->loop) ||
        pn_loop_next_deadline_ns(cores->loop) <= poller->now_ns(poller))
        return true;
    struct pollfd p = {.fd = poller->fd(poller), .events = POLLIN};
    return p.fd < 0 || poll(&p, 1, 0) != 0;
}

static void say_robbed(unsigned number, const struct pn_core *next)
{
    if (next)
        pn_log_debug(NULL, "cores: core %u computes; core %u has taken the loop over", number,
                     next->number);
    else
        pn_log_debug(NULL, "cores: core %u computes; the next core has taken the loop over",
                     number);
}

static void rob(struct pn_cores *cores)
{
    struct pn__watchdog *dog = &cores->dog;
    /* Borrowed, to look at the loop; who comes back now waits for microseconds. */
    if (pn__baton_try(&cores->baton, PN__WATCHDOG_NUMBER, false) != PN__GOT_LOAN)
        return;
    bool work =
        (pn__baton_load(&cores->baton) & ~PN__BATON_LENT) == dog->seen_word && loop_has_work(cores);
    pn__baton_unlend(&cores->baton);
    /* The successor first: this thread cannot be the runner if there is none. */
    struct pn_core *next;
    if (!work || !pn__threads_find(cores, &next))
        return;
    /* A new thread may have taken a while to make: the stay may be over. */
    if (pn__baton_try(&cores->baton, PN__WATCHDOG_NUMBER, false) == PN__GOT_LOAN &&
        pn__baton_steal(&cores->baton, dog->seen_word)) {
        pn__count(&cores->steals);
        if (next)
            pn__threads_designate(next);
        else
            pn__threads_freed(cores);
        say_robbed(pn__baton_runner_of(dog->seen_word), next);
    } else if (next) {
        pn__threads_push_back(next);
    }
}

/* The state of CORE stays while this returned true, until unwatch. */
static bool watch(struct pn_core *core)
{
    atomic_store(&core->watched, true);
    if (!atomic_load(&core->leaving))
        return true;
    atomic_store(&core->watched, false);
    return false;
}

static void unwatch(struct pn_core *core)
{
    atomic_store(&core->watched, false);
}

static void report(struct pn_cores *cores, struct pn_core *core, int64_t now_ns)
{
    const struct pn_core_host *host = cores->host;
    struct pn__watchdog *dog = &cores->dog;
    bool recently = dog->reported_word == dog->seen_word && now_ns - dog->reported_ns < REPORT_NS;
    /* Really blocking is the inline carrier's ordinary wait. */
    bool ordinary = cores->config.carrier == PN_CARRIER_INLINE && atomic_load(&core->blocking);
    if (recently || ordinary || !host->stalled || !watch(core))
        return;
    if ((pn__baton_load(&cores->baton) & ~PN__BATON_LENT) == dog->seen_word) {
        dog->reported_word = dog->seen_word;
        dog->reported_ns = now_ns;
        host->stalled(host->ctx, core->state, core, now_ns - dog->seen_ns);
    }
    unwatch(core);
}

static int64_t look_span_ns(const struct pn_cores *cores)
{
    bool threads = cores->config.carrier == PN_CARRIER_THREADS;
    int64_t span = threads ? cores->config.lease_ns : cores->config.log_blocking_ns;
    return span / 2 > LOOK_MIN_NS ? span / 2 : LOOK_MIN_NS;
}

/* Returns when to look next; PN_NEVER_NS: when kicked. */
static int64_t look_at_baton(struct pn_cores *cores, int64_t now_ns)
{
    struct pn__watchdog *dog = &cores->dog;
    bool threads = cores->config.carrier == PN_CARRIER_THREADS;
    int64_t limit_ns = threads ? cores->config.lease_ns : cores->config.log_blocking_ns;
    if (limit_ns <= 0)
        return PN_NEVER_NS;
    uint64_t word = pn__baton_load(&cores->baton) & ~PN__BATON_LENT;
    enum pn__baton_state state = pn__baton_state_of(word);
    if (word != dog->seen_word) {
        dog->seen_word = word;
        dog->seen_ns = now_ns;
        dog->quiet_looks = 0;
    } else if (state == PN__BATON_INSIDE && now_ns - dog->seen_ns >= limit_ns) {
        if (threads)
            rob(cores);
        else
            report(cores, cores->all[pn__baton_runner_of(word)], now_ns);
    } else if (state == PN__BATON_FREE && threads && now_ns - dog->seen_ns >= limit_ns) {
        pn__threads_revive(cores);
    } else if (state == PN__BATON_POLLING && ++dog->quiet_looks >= QUIET_LOOKS) {
        /* Who ends this POLLING changes the word and then reads asleep. */
        dog->quiet_looks = 0;
        atomic_store(&dog->asleep, true);
        if ((atomic_load(&cores->baton.word) & ~PN__BATON_LENT) == word)
            return PN_NEVER_NS;
        atomic_store(&dog->asleep, false);
    }
    return now_ns + look_span_ns(cores);
}

/* --- Cuts ------------------------------------------------------------------------------------------------ */

void pn__watchdog_cut(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    /* Once more at once would hit its clean-up; RECUT_NS later it is meant. */
    if (atomic_load(&core->cut))
        return;
    atomic_store(&core->raise_due, true);
    atomic_store(&core->cut, true);
    atomic_store(&cores->dog.cuts_due, true);
    if (pn__watchdog_start(cores) < 0)
        pn_log_warning(NULL, "cores: no watchdog: a request cannot be cut");
    pn__watchdog_kick(cores);
}

void pn__watchdog_cut_wait(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    atomic_store(&core->wait_due, true);
    atomic_store(&cores->dog.cuts_due, true);
    pn__watchdog_kick(cores);
}

static void nothing(int signo)
{
    (void)signo;
}

/* SIGURG is ignored by default, so nobody misses it; whoever has a handler for it keeps it. */
static void set_signal(struct pn__watchdog *dog)
{
    struct sigaction old;
    if (dog->signal_set || sigaction(SIGURG, NULL, &old) < 0)
        return;
    dog->signal_set = true;
    if ((old.sa_flags & SA_SIGINFO) || (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN))
        return;
    struct sigaction sa = {.sa_handler = nothing}; /* no SA_RESTART: waits are to end */
    (void)sigaction(SIGURG, &sa, NULL);
}

static void unset_signal(void)
{
    struct sigaction old;
    if (sigaction(SIGURG, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) &&
        old.sa_handler == nothing) {
        struct sigaction sa = {.sa_handler = SIG_DFL};
        (void)sigaction(SIGURG, &sa, NULL);
    }
}

void pn__watchdog_signal(struct pn_core *core)
{
    set_signal(&core->cores->dog);
    if (atomic_load(&core->blocking))
        (void)pthread_kill(core->os_thread, SIGURG);
}

/* Watched. The wait under way, or the next one soon, is to end. */
static void begin_pokes(struct pn_core *core, int64_t now_ns)
{
    core->pokes_ns = now_ns;
    core->poke_span_ns = POKE_FIRST_NS;
    core->next_poke_ns = now_ns;
    atomic_store(&core->cut_wait, true);
}

static void end_one_more(struct pn_core *core, int64_t now_ns)
{
    if (!watch(core))
        return;
    if (atomic_load(&core->cut) && atomic_exchange(&core->wait_due, false))
        begin_pokes(core, now_ns);
    unwatch(core);
}

static void raise_in(struct pn_core *core, int64_t now_ns)
{
    const struct pn_core_host *host = core->cores->host;
    if (!watch(core))
        return;
    /* The request may have ended; pn__core_settle waits until it is not watched. */
    if (atomic_load(&core->cut) && atomic_exchange(&core->raise_due, false)) {
        atomic_store(&core->cut_seen, false);
        atomic_fetch_add(&core->raises, 1);
        if (host->raise)
            host->raise(host->ctx, core->state);
        core->cut_ns = now_ns;
        begin_pokes(core, now_ns);
    }
    unwatch(core);
}

/* A core that ends its wait by itself meanwhile writes cut_wait or cut_seen and then reads poking: one of the two
 * sees the other, so that no signal is left over for its next wait. */
static void poke(struct pn_core *core)
{
    atomic_store(&core->poking, true);
    if (pn__cut_is_due(core))
        core->cores->carrier->poke(core);
    atomic_store(&core->poking, false);
}

/* A parked fiber waits, however long the others keep the loop from telling it so. */
static bool waits(struct pn_core *core)
{
    return atomic_load(&core->blocking) || atomic_load(&core->parked);
}

static int64_t cut_core(struct pn_core *core, int64_t now_ns)
{
    if (!atomic_load(&core->cut))
        return PN_NEVER_NS;
    if (atomic_load(&core->raise_due))
        raise_in(core, now_ns);
    else if (now_ns - core->cut_ns >= RECUT_NS)
        atomic_store(&core->raise_due, true);
    else if (atomic_load(&core->wait_due))
        end_one_more(core, now_ns);
    if (!pn__cut_is_due(core))
        return core->cut_ns + RECUT_NS;
    if (now_ns - core->pokes_ns >= POKE_GIVE_UP_NS && !waits(core)) {
        /* It computes. Its clean-up may wait: that wait is not the one that was meant. */
        atomic_store(&core->cut_wait, false);
        return core->cut_ns + RECUT_NS;
    }
    if (now_ns >= core->next_poke_ns) {
        if (watch(core)) {
            poke(core);
            unwatch(core);
        }
        core->next_poke_ns = now_ns + core->poke_span_ns;
        core->poke_span_ns = earlier(core->poke_span_ns * 2, POKE_LAST_NS);
    }
    return core->next_poke_ns;
}

/* Returns when to come again. */
static int64_t deliver_cuts(struct pn_cores *cores, int64_t now_ns)
{
    struct pn__watchdog *dog = &cores->dog;
    unsigned n = atomic_load_explicit(&cores->all_count, memory_order_acquire);
    int64_t all_ns = atomic_load(&dog->cut_all_ns);
    if (now_ns >= all_ns) {
        atomic_compare_exchange_strong(&dog->cut_all_ns, &all_ns, PN_NEVER_NS);
        for (unsigned i = 0; i < n; i++)
            pn_core_cut(cores->all[i]);
    }
    int64_t next_ns = atomic_load(&dog->cut_all_ns);
    if (!atomic_exchange(&dog->cuts_due, false) && now_ns < dog->next_cuts_ns)
        return earlier(next_ns, dog->next_cuts_ns);
    dog->next_cuts_ns = PN_NEVER_NS;
    for (unsigned i = 0; i < n; i++)
        dog->next_cuts_ns = earlier(dog->next_cuts_ns, cut_core(cores->all[i], now_ns));
    return earlier(next_ns, dog->next_cuts_ns);
}

/* --- Its thread --------------------------------------------------------------------------------------------- */

static void *watchdog_main(void *arg)
{
    struct pn_cores *cores = arg;
    struct pn__watchdog *dog = &cores->dog;
    (void)pthread_setname_np(pthread_self(), "pn-watchdog");
    while (!atomic_load(&dog->quit)) {
        uint32_t kicks = atomic_load(&dog->kicks);
        int64_t now_ns = pn_clock_mono_ns();
        int64_t next_ns = deliver_cuts(cores, now_ns);
        next_ns = earlier(next_ns, look_at_baton(cores, now_ns));
        pn__futex_wait(&dog->kicks, kicks, next_ns);
        atomic_store(&dog->asleep, false);
    }
    return NULL;
}

void pn__watchdog_kick(struct pn_cores *cores)
{
    atomic_fetch_add(&cores->dog.kicks, 1);
    pn__futex_wake(&cores->dog.kicks, 1);
}

void pn__watchdog_init(struct pn_cores *cores)
{
    atomic_store(&cores->dog.cut_all_ns, PN_NEVER_NS);
    cores->dog.next_cuts_ns = PN_NEVER_NS;
}

int pn__watchdog_start(struct pn_cores *cores)
{
    struct pn__watchdog *dog = &cores->dog;
    if (atomic_exchange(&dog->running, true))
        return 0;
    atomic_store(&dog->quit, false);
    /* All signals are other threads' business: Python's handlers belong to the main thread anyway. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&dog->thread, NULL, watchdog_main, cores);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        atomic_store(&dog->running, false);
    return -rc;
}

void pn__watchdog_stop(struct pn_cores *cores)
{
    struct pn__watchdog *dog = &cores->dog;
    if (!atomic_exchange(&dog->running, false))
        return;
    atomic_store(&dog->quit, true);
    pn__watchdog_kick(cores);
    pthread_join(dog->thread, NULL);
    if (dog->signal_set)
        unset_signal();
}
