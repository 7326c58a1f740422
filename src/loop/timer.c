/* SPDX-License-Identifier: Apache-2.0 */
/* Timers. Each stands in one of two places: at the end of a line, where no timer in it is due later, or else in
 * a 4-ary heap. Waits of one length are set in the order in which they end, so that a thousand sleepers stand in
 * the line, where nobody else's memory is touched but the neighbours'; and who comes next is known ahead.
 *
 * In the heap each knows its place, so moving and cancelling cost O(log n); deadlines stand in the slots, so
 * comparing touches a timer only when two are equal. Slots are numbered from 0, heap_pos from 1. The heap always
 * has room for the line, too. */
#include <errno.h>

#include "base/mem.h"
#include "loop/loop_state.h"

enum {
    HEAP_MIN = 64,
    HEAP_ARITY = 4,
    MOVES_MAX = 4 /* from the line to the heap, for one that is due before its end */
};

/* --- The heap --- */

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

static void heap_push(struct pn_loop *loop, struct pn_timer *timer)
{
    struct pn__heap_slot slot = {.deadline_ns = timer->deadline_ns, .timer = timer};
    PN_ASSERT(loop->heap_count < loop->heap_capacity);
    sift_up(loop, loop->heap_count++, slot);
}

static void heap_remove(struct pn_loop *loop, size_t i)
{
    PN_ASSERT(i < loop->heap_count);
    struct pn__heap_slot last = loop->heap[--loop->heap_count];
    if (i < loop->heap_count)
        settle(loop, i, last);
}

/* --- The line --- */

static struct pn_timer *timer_of(struct pn_list *node)
{
    return pn_list_entry(node, struct pn_timer, node);
}

static bool in_line(const struct pn_timer *timer)
{
    return timer->heap_pos == PN__TIMER_IN_LINE;
}

static void line_push(struct pn_loop *loop, struct pn_timer *timer)
{
    timer->heap_pos = PN__TIMER_IN_LINE;
    pn_list_push_back(&loop->line, &timer->node);
    loop->line_count++;
}

static void line_remove(struct pn_loop *loop, struct pn_timer *timer)
{
    pn_list_remove(&timer->node);
    loop->line_count--;
}

/* Whether one that is due at DEADLINE_NS may stand at the end. Some that are due later go to the heap for it: so a
 * few long waits don't keep the short ones out. */
static bool line_takes(struct pn_loop *loop, int64_t deadline_ns)
{
    for (int moves = 0; loop->line_count > 0; moves++) {
        struct pn_timer *last = timer_of(loop->line.prev);
        if (last->deadline_ns <= deadline_ns)
            break;
        if (moves == MOVES_MAX)
            return false;
        line_remove(loop, last);
        heap_push(loop, last);
    }
    return deadline_ns != PN_NEVER_NS;
}

/* --- Setting and firing --- */

/* Room for one more. Moving a timer never needs any. */
static int make_room(struct pn_loop *loop)
{
    return loop->heap_count + loop->line_count < loop->heap_capacity ? 0 : grow(loop);
}

int pn_timer_set(struct pn_loop *loop, struct pn_timer *timer, int64_t deadline_ns)
{
    bool in_heap = timer->heap_pos && !in_line(timer);
    if (timer->heap_pos == 0 && make_room(loop) < 0)
        return -ENOMEM;
    if (in_line(timer))
        line_remove(loop, timer);
    timer->deadline_ns = deadline_ns;
    timer->sequence = ++loop->timer_sequence;
    if (in_heap) {
        struct pn__heap_slot slot = {.deadline_ns = deadline_ns, .timer = timer};
        PN_ASSERT(loop->heap[timer->heap_pos - 1].timer == timer);
        settle(loop, timer->heap_pos - 1, slot);
    } else if (line_takes(loop, deadline_ns)) {
        line_push(loop, timer);
    } else {
        heap_push(loop, timer);
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
    if (in_line(timer)) {
        line_remove(loop, timer);
    } else {
        PN_ASSERT(loop->heap[timer->heap_pos - 1].timer == timer);
        heap_remove(loop, timer->heap_pos - 1);
    }
    timer->heap_pos = 0;
}

struct pn_timer *pn_loop_next_timer(const struct pn_loop *loop)
{
    struct pn_timer *timer = loop->line_count ? timer_of(loop->line.next) : NULL;
    if (loop->heap_count == 0)
        return timer;
    const struct pn__heap_slot *top = &loop->heap[0];
    if (!timer || top->deadline_ns < timer->deadline_ns ||
        (top->deadline_ns == timer->deadline_ns && top->timer->sequence < timer->sequence))
        return top->timer;
    return timer;
}

int64_t pn_loop_next_deadline_ns(const struct pn_loop *loop)
{
    int64_t heap_ns = loop->heap_count ? loop->heap[0].deadline_ns : PN_NEVER_NS;
    int64_t line_ns = loop->line_count ? timer_of(loop->line.next)->deadline_ns : PN_NEVER_NS;
    return heap_ns < line_ns ? heap_ns : line_ns;
}

struct pn_timer *pn_loop_timer_after(const struct pn_loop *loop, const struct pn_timer *timer)
{
    if (timer && !in_line(timer))
        return NULL;
    const struct pn_list *next = timer ? timer->node.next : loop->line.next;
    return next == &loop->line ? NULL : pn_list_entry(next, struct pn_timer, node);
}

void pn_loop_rest_timers(struct pn_loop *loop)
{
    if (loop->phase == PN__TURN_TIMERS)
        loop->phase_done = PN_TURN_TIMERS_MAX;
}

bool pn__timer_step(struct pn_loop *loop)
{
    struct pn_timer *timer = pn_loop_next_timer(loop);
    if (!timer || timer->deadline_ns > loop->now_ns || loop->phase_done >= PN_TURN_TIMERS_MAX)
        return false;
    pn_timer_cancel(loop, timer);
    loop->phase_done++;
    loop->stats.timers_fired++;
    timer->fire(timer);
    return true;
}
