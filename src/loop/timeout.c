/* SPDX-License-Identifier: Apache-2.0 */
/* Time-outs of many objects with one span. All of a class last equally long, so its list is
 * sorted by itself: starting or restarting one puts it at the end. The class has one timer in
 * the heap, always set and moved lazily: it fires at the deadline that stood first some time
 * ago, and looks again. */
#include "loop/loop_state.h"

/* Moving a timer that is set, or setting one that was taken off just now, never allocates. */
static void move_timer(struct pn_timeout_class *c, int64_t deadline_ns)
{
    int rc = pn_timer_set(c->loop, &c->timer, deadline_ns);
    PN_BUG_ON(rc != 0);
}

static int64_t first_deadline_ns(const struct pn_timeout_class *c)
{
    if (pn_list_empty(&c->list))
        return PN_NEVER_NS;
    return pn_list_entry(c->list.next, struct pn_timeout, node)->deadline_ns;
}

/* One a call, so one a step of the loop: expired may give the loop away. */
static void fire(struct pn_timer *timer)
{
    struct pn_timeout_class *c = pn_container_of(timer, struct pn_timeout_class, timer);
    struct pn_timeout *due = NULL;
    if (first_deadline_ns(c) <= pn_loop_now_ns(c->loop)) {
        due = pn_list_entry(pn_list_pop_front(&c->list), struct pn_timeout, node);
        due->deadline_ns = PN_NEVER_NS;
    }
    move_timer(c, first_deadline_ns(c));
    if (due)
        c->expired(due);
}

void pn_timeout_class_init(struct pn_timeout_class *c, struct pn_loop *loop, int64_t span_ns,
                           void (*expired)(struct pn_timeout *))
{
    *c = (struct pn_timeout_class){.loop = loop, .span_ns = span_ns, .expired = expired};
    pn_list_init(&c->list);
    pn_timer_init(&c->timer, fire);
    /* Set for good, so that no later start can fail for want of memory. */
    move_timer(c, PN_NEVER_NS);
}

void pn_timeout_class_fini(struct pn_timeout_class *c)
{
    PN_ASSERT(pn_list_empty(&c->list));
    pn_timer_cancel(c->loop, &c->timer);
}

void pn_timeout_start(struct pn_timeout_class *c, struct pn_timeout *t)
{
    if (c->span_ns <= 0)
        return;
    int64_t now_ns = pn_loop_now_ns(c->loop);
    int64_t deadline_ns = c->span_ns > PN_NEVER_NS - now_ns ? PN_NEVER_NS : now_ns + c->span_ns;
    if (t->deadline_ns == deadline_ns && pn_list_linked(&t->node))
        return;
    t->deadline_ns = deadline_ns;
    pn_list_remove(&t->node);
    pn_list_push_back(&c->list, &t->node);
    if (deadline_ns < c->timer.deadline_ns)
        move_timer(c, deadline_ns);
}
