/* SPDX-License-Identifier: Apache-2.0 */
/* The edges of the baton's word that are not on the fast path, and the short waits for it.
 *
 * A wait is short by the rules in docs/lifecycle.md: nobody blocks while ACTIVE or on a loan. It spins a
 * little, gives the processor away, and at last naps: the holder may have been preempted. */
#include "cores/baton.h"

#include "cores/sys.h"

enum {
    SPINS = 64,
    YIELDS = 256,
    LET_IN_YIELDS = 64, /* a runner that lets others in waits no longer */
};
#define NAP_NS (20 * PN_NS_PER_US)

void pn__baton_init(struct pn__baton *b, unsigned runner)
{
    PN_BUG_ON(runner > PN__BATON_RUNNER_MAX);
    atomic_init(&b->word, pn__baton_who(runner, PN__BATON_ACTIVE));
    atomic_init(&b->wanted, 0);
}

static bool replace(struct pn__baton *b, uint64_t *word, uint64_t by)
{
    return atomic_compare_exchange_strong_explicit(&b->word, word, by, memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* The count of entries goes on, so that no two stays have the same word. */
static uint64_t with(uint64_t word, unsigned runner, enum pn__baton_state state)
{
    return (word & ~UINT64_C(0xffffffff)) | pn__baton_who(runner, state);
}

bool pn__baton_take(struct pn__baton *b, unsigned runner)
{
    uint64_t w = pn__baton_load(b);
    while (!(w & (PN__BATON_LENT | PN__BATON_DEAD)) && pn__baton_state_of(w) == PN__BATON_FREE) {
        if (replace(b, &w, with(w, runner, PN__BATON_ACTIVE)))
            return true;
    }
    return false;
}

bool pn__baton_offer(struct pn__baton *b, unsigned runner)
{
    uint64_t w = pn__baton_load(b);
    while ((w & PN__BATON_WHO_MASK) == pn__baton_who(runner, PN__BATON_INSIDE)) {
        if (replace(b, &w, with(w, 0, PN__BATON_FREE) | (w & PN__BATON_LENT)))
            return true;
    }
    return false;
}

enum pn__baton_got pn__baton_try(struct pn__baton *b, unsigned runner, bool take_free)
{
    uint64_t w = pn__baton_load(b);
    for (;;) {
        enum pn__baton_state state = pn__baton_state_of(w);
        bool own = state != PN__BATON_FREE && pn__baton_runner_of(w) == runner;
        if (w & (PN__BATON_LENT | PN__BATON_DEAD))
            return PN__GOT_NOTHING;
        if (own || (state == PN__BATON_FREE && take_free)) {
            PN_BUG_ON(own && state == PN__BATON_ACTIVE);
            if (replace(b, &w, with(w, runner, PN__BATON_ACTIVE)))
                return PN__GOT_RUNNER;
        } else if (state == PN__BATON_ACTIVE) {
            return PN__GOT_NOTHING;
        } else if (replace(b, &w, w | PN__BATON_LENT)) {
            return PN__GOT_LOAN;
        }
    }
}

static void pause_for(unsigned round)
{
    if (round < SPINS) {
        pn__cpu_relax();
    } else if (round < SPINS + YIELDS) {
        sched_yield();
    } else {
        static const _Atomic uint32_t nobody_wakes;
        pn__futex_wait(&nobody_wakes, 0, pn_clock_mono_ns() + NAP_NS);
    }
}

enum pn__baton_got pn__baton_get(struct pn__baton *b, unsigned runner, bool take_free,
                                 const atomic_bool *stop)
{
    enum pn__baton_got got = pn__baton_try(b, runner, take_free);
    if (pn_likely(got != PN__GOT_NOTHING))
        return got;
    atomic_fetch_add_explicit(&b->wanted, 1, memory_order_relaxed);
    for (unsigned round = 0;; round++) {
        got = pn__baton_try(b, runner, take_free);
        if (got != PN__GOT_NOTHING || (pn__baton_load(b) & PN__BATON_DEAD))
            break;
        if (stop && atomic_load_explicit(stop, memory_order_relaxed))
            break;
        pause_for(round);
    }
    atomic_fetch_sub_explicit(&b->wanted, 1, memory_order_relaxed);
    return got;
}

uint64_t pn__baton_unlend(struct pn__baton *b)
{
    uint64_t w = atomic_fetch_and_explicit(&b->word, ~PN__BATON_LENT, memory_order_acq_rel);
    PN_BUG_ON(!(w & PN__BATON_LENT));
    return w & ~PN__BATON_LENT;
}

bool pn__baton_steal(struct pn__baton *b, uint64_t seen)
{
    uint64_t w = pn__baton_load(b);
    PN_ASSERT(w & PN__BATON_LENT);
    if ((w & ~PN__BATON_LENT) == seen && replace(b, &w, with(w, 0, PN__BATON_FREE)))
        return true;
    pn__baton_unlend(b);
    return false;
}

void pn__baton_let_in(struct pn__baton *b, unsigned runner)
{
    pn__baton_enter(b, runner);
    for (unsigned i = 0; i < LET_IN_YIELDS && pn__baton_wanted(b); i++)
        sched_yield();
    /* INSIDE can be stolen only after a lease; the caller looks whether it still is the runner. */
    while (!pn__baton_leave(b, runner) && pn__baton_is(b, runner, PN__BATON_INSIDE))
        sched_yield();
}

void pn__baton_kill(struct pn__baton *b)
{
    atomic_store_explicit(&b->word, PN__BATON_DEAD, memory_order_release);
}
