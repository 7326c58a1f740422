/* SPDX-License-Identifier: Apache-2.0 */
/* The baton: one atomic word that says who may touch the loop. This file knows the word and its edges,
 * nothing of threads, fibers or Python.
 *
 *   bits 0-1   FREE, ACTIVE, INSIDE, POLLING
 *   bit  2     LENT: somebody else does a short piece of C (never together with ACTIVE)
 *   bit  3     DEAD: this process is the child of a fork; nobody gets anything any more
 *   bits 8-31  the runner's number (0 when FREE)
 *   bits 32-63 counts the entries into the application: the watchdog sees that a stay is the same one
 *
 * Edges: take FREE->ACTIVE; enter ACTIVE->INSIDE; back INSIDE or POLLING->ACTIVE (not while LENT);
 * poll ACTIVE->POLLING; offer INSIDE->FREE (LENT stays); drop ACTIVE->FREE; hand ACTIVE->POLLING or INSIDE of another;
 * lend and unlend in FREE, INSIDE, POLLING; steal INSIDE+LENT (lent by the thief)->FREE.
 * Who is ACTIVE is the only one who may change the word: so entering is a plain store. */
#pragma once

#include <stdatomic.h>

#include "base/check.h"

enum pn__baton_state {
    PN__BATON_FREE = 0,
    PN__BATON_ACTIVE = 1,
    PN__BATON_INSIDE = 2,
    PN__BATON_POLLING = 3,
};

#define PN__BATON_STATE_MASK UINT64_C(3)
#define PN__BATON_LENT       UINT64_C(4)
#define PN__BATON_DEAD       UINT64_C(8)
#define PN__BATON_WHO_MASK   UINT64_C(0xffffff03) /* runner and state */
#define PN__BATON_RUNNER_MAX 0xffffffu

struct pn__baton {
    _Alignas(64) _Atomic uint64_t word;
    _Atomic uint32_t wanted; /* cores that wait for an ACTIVE runner to let them in */
};

/* What pn__baton_back_slow and pn__baton_borrow came to. */
enum pn__baton_got {
    PN__GOT_RUNNER = 0, /* ACTIVE now */
    PN__GOT_LOAN = 1,   /* the word is LENT to the caller */
    PN__GOT_NOTHING = 2 /* it is held; or DEAD */
};

static inline uint64_t pn__baton_who(unsigned runner, enum pn__baton_state state)
{
    return (uint64_t)runner << 8 | (uint64_t)state;
}

static inline enum pn__baton_state pn__baton_state_of(uint64_t word)
{
    return (enum pn__baton_state)(word & PN__BATON_STATE_MASK);
}

static inline unsigned pn__baton_runner_of(uint64_t word)
{
    return (unsigned)(word >> 8) & PN__BATON_RUNNER_MAX;
}

static inline uint64_t pn__baton_load(const struct pn__baton *b)
{
    return atomic_load_explicit(&b->word, memory_order_acquire);
}

/* RUNNER is ACTIVE. Nobody else may use the baton yet. */
void pn__baton_init(struct pn__baton *b, unsigned runner);

/* True only where no one but RUNNER could make it false. Relaxed: about oneself. */
static inline bool pn__baton_is(const struct pn__baton *b, unsigned runner,
                                enum pn__baton_state state)
{
    uint64_t w = atomic_load_explicit(&b->word, memory_order_relaxed);
    return (w & PN__BATON_WHO_MASK) == pn__baton_who(runner, state);
}

/* ACTIVE(RUNNER) -> INSIDE(RUNNER). */
static inline void pn__baton_enter(struct pn__baton *b, unsigned runner)
{
    uint64_t w = atomic_load_explicit(&b->word, memory_order_relaxed);
    PN_ASSERT((w & (PN__BATON_WHO_MASK | PN__BATON_LENT)) ==
              pn__baton_who(runner, PN__BATON_ACTIVE));
    (void)runner;
    w += (UINT64_C(1) << 32) + (PN__BATON_INSIDE - PN__BATON_ACTIVE);
    atomic_store_explicit(&b->word, w, memory_order_release);
}

/* INSIDE(RUNNER) -> ACTIVE(RUNNER); false: lent, stolen, or dead. */
static inline bool pn__baton_leave(struct pn__baton *b, unsigned runner)
{
    uint64_t w = atomic_load_explicit(&b->word, memory_order_relaxed);
    if (pn_unlikely((w & UINT64_C(0xffffffff)) != pn__baton_who(runner, PN__BATON_INSIDE)))
        return false;
    return atomic_compare_exchange_strong_explicit(&b->word, &w,
                                                   w - (PN__BATON_INSIDE - PN__BATON_ACTIVE),
                                                   memory_order_acq_rel, memory_order_relaxed);
}

/* ACTIVE(FROM) -> STATE of TO, by FROM: POLLING to hand over (TO then calls back), INSIDE to one that waits in the
 * application, any state where one OS thread
 * has all the runners (fibers). A plain store; counts as an entry. */
static inline void pn__baton_move(struct pn__baton *b, unsigned to, enum pn__baton_state state)
{
    uint64_t w = atomic_load_explicit(&b->word, memory_order_relaxed);
    w = ((w >> 32) + 1) << 32 | pn__baton_who(to, state);
    atomic_store_explicit(&b->word, w, memory_order_release);
}

/* ACTIVE(me) -> FREE. */
static inline void pn__baton_drop(struct pn__baton *b)
{
    pn__baton_move(b, 0, PN__BATON_FREE);
}

/* FREE, not lent -> ACTIVE(RUNNER). */
bool pn__baton_take(struct pn__baton *b, unsigned runner);

/* INSIDE(RUNNER) -> FREE, a loan stays. False: not the runner any more. */
bool pn__baton_offer(struct pn__baton *b, unsigned runner);

/* One try. TAKE_FREE: may become the runner where the baton is FREE. Of oneself (INSIDE or POLLING): back to ACTIVE. */
enum pn__baton_got pn__baton_try(struct pn__baton *b, unsigned runner, bool take_free);

/* Tries until it has got the baton one way or the other; GOT_NOTHING only when it is DEAD, or when
 * STOP becomes true while a runner that never comes back is ACTIVE. Waits microseconds, see rule 1. */
enum pn__baton_got pn__baton_get(struct pn__baton *b, unsigned runner, bool take_free,
                                 const atomic_bool *stop);

/* Ends a loan. Returns the word as it is from now on. */
uint64_t pn__baton_unlend(struct pn__baton *b);

/* The watchdog holds the loan: INSIDE of the stay SEEN -> FREE, loan ended. False: it has gone on meanwhile
 * (offered); the loan is ended as well. */
bool pn__baton_steal(struct pn__baton *b, uint64_t seen);

/* ACTIVE runner, between two steps: lets those in who wait. */
void pn__baton_let_in(struct pn__baton *b, unsigned runner);

static inline bool pn__baton_wanted(const struct pn__baton *b)
{
    return atomic_load_explicit(&b->wanted, memory_order_relaxed) != 0;
}

/* Child of a fork. */
void pn__baton_kill(struct pn__baton *b);
