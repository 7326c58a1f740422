/* SPDX-License-Identifier: Apache-2.0 */
/* Timers in a 4-ary heap. Each knows its place, so moving and cancelling cost O(log n);
 * deadlines stand in the slots, so comparing touches a timer only when two are equal. Slots are
 * numbered from 0, heap_pos from 1. */
#include <errno.h>

#include "base/mem.h"
#include "loop/loop_state.h"

enum { HEAP_MIN = 64, HEAP_ARITY = 4 };

static bool before(const struct pn__heap_slot *a, const struct pn__heap_slot *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns;
    return a->timer->sequence < b->timer->sequence;
}

static void place(struct pn_loop *loop, size_t i, struct pn__heap_slot slot)
{
    loop->heap[i] = slot;
    slot.timer->heap_pos = i + 1;
}

static void sift_up(struct pn_loop *loop, size_t i, struct pn__heap_slot slot)
{
    while (i > 0) {
        size_t parent = (i - 1) / HEAP_ARITY;
        if (!before(&slot, &loop->heap[parent]))
            break;
        place(loop, i, loop->heap[parent]);
        i = parent;
    }
    place(loop, i, slot);
}

static void sift_down(struct pn_loop *loop, size_t i, struct pn__heap_slot slot)
{
    for (;;) {
        size_t child = i * HEAP_ARITY + 1;
        if (child >= loop->heap_count)
            break;
        size_t end = pn_min_size(child + HEAP_ARITY, loop->heap_count);
        size_t least = child;
        while (++child < end) {
            if (before(&loop->heap[child], &loop->heap[least]))
                least = child;
        }
        if (!before(&loop->heap[least], &slot))
            break;
        place(loop, i, loop->heap[least]);
        i = least;
    }
    place(loop, i, slot);
}

/* Puts SLOT where slot I is free. */
static void settle(struct pn_loop *loop, size_t i, struct pn__heap_slot slot)
{
    if (i > 0 && before(&slot, &loop->heap[(i - 1) / HEAP_ARITY]))
        sift_up(loop, i, slot);
    else
        sift_down(loop, i, slot);
}

static int grow(struct pn_loop *loop)
{
    size_t capacity = loop->heap_capacity ? loop->heap_capacity * 2 : HEAP_MIN;
    struct pn__heap_slot *heap = pn_try_realloc(loop->heap, capacity * sizeof(*heap));
    if (!heap)
        return -ENOMEM;
    loop->heap = heap;
    loop->heap_capacity = capacity;
    return 0;
}

int pn_timer_set(struct pn_loop *loop, struct pn_timer *timer, int64_t deadline_ns)
{
    struct pn__heap_slot slot = {.deadline_ns = deadline_ns, .timer = timer};
    if (timer->heap_pos == 0 && loop->heap_count == loop->heap_capacity && grow(loop) < 0)
        return -ENOMEM;
    timer->deadline_ns = deadline_ns;
    timer->sequence = ++loop->timer_sequence;
    if (timer->heap_pos) {
        PN_ASSERT(loop->heap[timer->heap_pos - 1].timer == timer);
        settle(loop, timer->heap_pos - 1, slot);
    } else {
        sift_up(loop, loop->heap_count++, slot);
    }
    if (pn_unlikely(atomic_load_explicit(&loop->sleeping, memory_order_relaxed)) &&
        deadline_ns < loop->sleep_deadline_ns)
        pn__loop_wake(loop);
    return 0;
}

void pn_timer_cancel(struct pn_loop *loop, struct pn_timer *timer)
{
    if (timer->heap_pos == 0)
        return;
    size_t i = timer->heap_pos - 1;
    PN_ASSERT(i < loop->heap_count && loop->heap[i].timer == timer);
    timer->heap_pos = 0;
    struct pn__heap_slot last = loop->heap[--loop->heap_count];
    if (i < loop->heap_count)
        settle(loop, i, last);
}

int64_t pn_loop_next_deadline_ns(const struct pn_loop *loop)
{
    return loop->heap_count ? loop->heap[0].deadline_ns : PN_NEVER_NS;
}

struct pn_timer *pn_loop_next_timer(const struct pn_loop *loop)
{
    return loop->heap_count ? loop->heap[0].timer : NULL;
}

void pn_loop_rest_timers(struct pn_loop *loop)
{
    if (loop->phase == PN__TURN_TIMERS)
        loop->phase_done = PN_TURN_TIMERS_MAX;
}

bool pn__timer_step(struct pn_loop *loop)
{
    if (pn_loop_next_deadline_ns(loop) > loop->now_ns || loop->heap_count == 0 ||
        loop->phase_done >= PN_TURN_TIMERS_MAX)
        return false;
    struct pn_timer *timer = loop->heap[0].timer;
    pn_timer_cancel(loop, timer);
    loop->phase_done++;
    loop->stats.timers_fired++;
    timer->fire(timer);
    return true;
}
