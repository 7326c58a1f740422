/* SPDX-License-Identifier: Apache-2.0 */
/* See slots.h. A slot is handed from holder to waiter directly: no newcomer can come between. */
#include "cores/slots.h"

#include "base/check.h"

void pn__slots_init(struct pn__slots *s, unsigned count)
{
    pn__lock_init(&s->lock);
    s->free_count = count;
    pn_list_init(&s->queue);
}

void pn__slot_init(struct pn__slot *slot)
{
    pn_list_init(&slot->node);
    atomic_init(&slot->granted, 0);
    slot->held = false;
}

static bool granted(const struct pn__slot *slot)
{
    return atomic_load_explicit(&slot->granted, memory_order_acquire) != 0;
}

/* Takes a free slot or a place in the queue. */
static bool get_or_queue(struct pn__slots *s, struct pn__slot *slot)
{
    pn__lock_take(&s->lock);
    bool got = s->free_count > 0;
    if (got) {
        s->free_count--;
    } else {
        atomic_store_explicit(&slot->granted, 0, memory_order_relaxed);
        pn_list_push_back(&s->queue, &slot->node);
    }
    pn__lock_drop(&s->lock);
    return got;
}

bool pn__slots_get(struct pn__slots *s, struct pn__slot *slot, int64_t span_ns)
{
    if (slot->held)
        return true;
    if (get_or_queue(s, slot))
        return slot->held = true;
    int64_t deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), span_ns);
    while (!granted(slot)) {
        if (pn__futex_wait(&slot->granted, 0, deadline_ns) != -ETIMEDOUT)
            continue;
        pn__lock_take(&s->lock);
        pn_list_remove(&slot->node); /* off the queue already: it was granted just now */
        pn__lock_drop(&s->lock);
        break;
    }
    return slot->held = granted(slot);
}

void pn__slots_put(struct pn__slots *s, struct pn__slot *slot)
{
    if (!slot->held)
        return;
    slot->held = false;
    pn__lock_take(&s->lock);
    struct pn_list *node = pn_list_pop_front(&s->queue);
    struct pn__slot *next = NULL;
    if (node) {
        next = pn_list_entry(node, struct pn__slot, node);
        /* Under the lock: a waiter whose time is over decides by this flag, with the lock held. */
        atomic_store_explicit(&next->granted, 1, memory_order_release);
    } else {
        s->free_count++;
    }
    pn__lock_drop(&s->lock);
    if (next)
        pn__futex_wake(&next->granted, 1);
}
