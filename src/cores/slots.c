/* SPDX-License-Identifier: Apache-2.0 */
/* See slots.h. A slot is handed from holder to waiter directly: no newcomer can come between. */
#include "cores/slots.h"

#include "base/check.h"

void pn__slots_init(struct pn__slots *s, unsigned count)
{
    pn__lock_init(&s->lock);
    s->free_count = count;
    s->queued = 0;
    s->grants = 0;
    pn_list_init(&s->queue);
}

void pn__slot_init(struct pn__slot *slot)
{
    pn_list_init(&slot->node);
    atomic_init(&slot->granted, PN__SLOT_QUEUED);
    slot->held = false;
}

static enum pn__slot_grant grant_of(const struct pn__slot *slot)
{
    return atomic_load_explicit(&slot->granted, memory_order_acquire);
}

/* Takes a free slot, or a place in the queue: then *SEEN is how far the queue had come, and the span
 * grows with those in front. */
static bool get_or_queue(struct pn__slots *s, struct pn__slot *slot, unsigned *seen,
                         int64_t *span_ns)
{
    pn__lock_take(&s->lock);
    bool got = s->free_count > 0;
    if (got) {
        s->free_count--;
    } else {
        *seen = s->grants;
        *span_ns += s->queued / PN__SLOTS_AHEAD * *span_ns;
        s->queued++;
        atomic_store_explicit(&slot->granted, PN__SLOT_QUEUED, memory_order_relaxed);
        pn_list_push_back(&s->queue, &slot->node);
    }
    pn__lock_drop(&s->lock);
    return got;
}

/* The time is over. True: the queue stands still, SLOT is off it (or was granted just now). */
static bool give_up(struct pn__slots *s, struct pn__slot *slot, unsigned *seen)
{
    pn__lock_take(&s->lock);
    /* Off the queue and not granted: that is about to come. */
    bool queued = pn_list_linked(&slot->node);
    bool moved = (s->grants != *seen || !queued) && grant_of(slot) == PN__SLOT_QUEUED;
    *seen = s->grants;
    if (!moved && queued) {
        pn_list_remove(&slot->node);
        s->queued--;
    }
    pn__lock_drop(&s->lock);
    return !moved;
}

bool pn__slots_get(struct pn__slots *s, struct pn__slot *slot, int64_t span_ns)
{
    unsigned seen;
    if (slot->held)
        return true;
    if (get_or_queue(s, slot, &seen, &span_ns))
        return slot->held = true;
    int64_t deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), span_ns);
    while (grant_of(slot) == PN__SLOT_QUEUED) {
        if (pn__futex_wait(&slot->granted, PN__SLOT_QUEUED, deadline_ns) != -ETIMEDOUT)
            continue;
        if (give_up(s, slot, &seen))
            break;
        deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), span_ns);
    }
    return slot->held = grant_of(slot) == PN__SLOT_HAD;
}

static struct pn__slot *pop(struct pn__slots *s)
{
    struct pn_list *node = pn_list_pop_front(&s->queue);
    if (!node)
        return NULL;
    s->queued--;
    s->grants++;
    return pn_list_entry(node, struct pn__slot, node);
}

void pn__slots_put(struct pn__slots *s, struct pn__slot *slot)
{
    if (!slot->held)
        return;
    slot->held = false;
    pn__lock_take(&s->lock);
    struct pn__slot *next = pop(s);
    if (next) {
        /* Under the lock: a waiter whose time is over decides by this flag, with the lock held. */
        atomic_store_explicit(&next->granted, PN__SLOT_HAD, memory_order_release);
    } else {
        s->free_count++;
    }
    pn__lock_drop(&s->lock);
    if (next)
        pn__futex_wake(&next->granted, 1);
}

struct pn__slot *pn__slots_pop(struct pn__slots *s)
{
    pn__lock_take(&s->lock);
    struct pn__slot *slot = pop(s);
    pn__lock_drop(&s->lock);
    return slot;
}

void pn__slots_release(struct pn__slot *slot)
{
    atomic_store_explicit(&slot->granted, PN__SLOT_SPARED, memory_order_release);
    pn__futex_wake(&slot->granted, 1);
}
