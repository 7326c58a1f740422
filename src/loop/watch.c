/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors and who waits for them: a table by fd, one kernel registration an entry, a ring of
 * watches.
 *
 * Registrations outlive waits. A one-shot wait that is over leaves its registration in the
 * kernel, disarmed or with one stale event to come, and the next wait re-arms it by one MOD.
 * What the kernel forgot meanwhile (the fd was closed, its number means another file now)
 * answers ENOENT and is added anew. An edge-triggered one (a connection) is left to close(2).
 * Only level-triggered registrations must be deleted: they would report for ever. Events carry
 * the entry's generation, so one for an earlier life of the number is dropped. */
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "loop/loop_state.h"

enum { TABLE_MIN = 64 };
#define MODE_FLAGS (EPOLLET | EPOLLONESHOT)
#define ALWAYS     (EPOLLERR | EPOLLHUP)

static uint64_t token_of(const struct pn__fd *e, int fd)
{
    return (uint64_t)e->generation << 32 | (uint32_t)fd;
}

static struct pn_watch *next_of(struct pn_watch *w)
{
    return pn_list_entry(w->node.next, struct pn_watch, node);
}

static int grow(struct pn_loop *loop, int fd)
{
    size_t count = pn_max_size(loop->fd_count, TABLE_MIN);
    while (count <= (size_t)fd)
        count *= 2;
    struct pn__fd *fds = pn_try_realloc(loop->fds, count * sizeof(*fds));
    if (!fds)
        return -ENOMEM;
    memset(fds + loop->fd_count, 0, (count - loop->fd_count) * sizeof(*fds));
    loop->fds = fds;
    loop->fd_count = count;
    return 0;
}

static void link_watch(struct pn_loop *loop, struct pn__fd *e, struct pn_watch *w, int fd)
{
    if (e->first)
        pn_list_insert_before(&e->first->node, &w->node);
    else
        e->first = w;
    w->fd = fd;
    e->waiters++;
    loop->watches++;
}

static void unlink_watch(struct pn_loop *loop, struct pn__fd *e, struct pn_watch *w)
{
    if (e->first == w)
        e->first = e->waiters > 1 ? next_of(w) : NULL;
    pn_list_remove(&w->node);
    w->fd = -1;
    e->waiters--;
    loop->watches--;
}

/* Level wins over edge, since a level watch may leave bytes unread; edge wins over one-shot, which
 * is safe because each one-shot wait re-arms, and that reports what is ready already. */
static uint32_t union_events(const struct pn__fd *e)
{
    if (e->waiters == 1)
        return e->first->events;
    uint32_t mask = 0;
    uint32_t mode = EPOLLONESHOT;
    const struct pn_watch *w = e->first;
    for (uint32_t i = 0; i < e->waiters; i++) {
        mask |= w->events & ~(uint32_t)(MODE_FLAGS | EPOLLEXCLUSIVE);
        if (!(w->events & MODE_FLAGS))
            mode = 0;
        else if ((w->events & EPOLLET) && mode)
            mode = EPOLLET;
        w = pn_list_entry(w->node.next, struct pn_watch, node);
    }
    return mask | mode;
}

/* Tells the kernel what the ring wants now. -ENOENT: the registration that we knew has gone. */
static int arm(struct pn_loop *loop, struct pn__fd *e, int fd)
{
    struct pn_poller *poller = loop->poller;
    uint32_t events = union_events(e);
    uint64_t token = token_of(e, fd);
    int rc;
    if (e->registered && ((events | e->kernel_events) & EPOLLEXCLUSIVE)) {
        /* The kernel refuses to modify these. */
        poller->remove(poller, fd);
        e->registered = false;
    }
    if (e->registered) {
        rc = poller->modify(poller, fd, events, token);
    } else {
        rc = poller->add(poller, fd, events, token);
        if (rc == -EEXIST)
            rc = poller->modify(poller, fd, events, token);
    }
    if (rc < 0) {
        if (rc == -ENOENT)
            e->registered = false;
        return rc;
    }
    e->registered = true;
    e->armed = true;
    e->kernel_events = events;
    return 0;
}

/* Takes W off and has it called with REVENTS in the next RESUMED phase: never from inside the call
 * that found it out, whose caller need not expect callbacks. */
static void fire_later(struct pn_loop *loop, struct pn__fd *e, struct pn_watch *w, uint32_t revents)
{
    unlink_watch(loop, e, w);
    w->events = revents;
    pn_list_push_back(&loop->fired, &w->node);
}

/* Every watch but KEEP waits for a file that is no longer at this number. */
static void orphan_all(struct pn_loop *loop, struct pn__fd *e, const struct pn_watch *keep)
{
    for (uint32_t n = e->waiters; n > 0; n--) {
        struct pn_watch *w = e->first;
        if (w == keep)
            e->first = next_of(w);
        else
            fire_later(loop, e, w, PN_WATCH_CLOSED);
    }
    e->generation++;
    pn__loop_nudge(loop);
}

int pn_watch_add(struct pn_loop *loop, struct pn_watch *watch, int fd, uint32_t events)
{
    PN_ASSERT(watch->fd == -1);
    PN_ASSERT((events & MODE_FLAGS) != MODE_FLAGS);
    if (fd < 0)
        return -EBADF;
    if ((size_t)fd >= loop->fd_count && grow(loop, fd) < 0)
        return -ENOMEM;
    struct pn__fd *e = &loop->fds[fd];
    pn_list_remove(&watch->node); /* it may still stand among the fired */
    watch->events = events;
    if (!e->first)
        e->generation++;
    link_watch(loop, e, watch, fd);
    int rc = arm(loop, e, fd);
    if (rc == -ENOENT) {
        if (e->waiters > 1)
            orphan_all(loop, e, watch);
        rc = arm(loop, e, fd);
    }
    if (rc < 0)
        unlink_watch(loop, e, watch);
    return rc;
}

/* After a watch went: a one-shot registration that fired is re-armed for those that it was not
 * for; a level-triggered one is narrowed or deleted, since a mask that is too wide would never
 * let the loop sleep. An edge-triggered one at worst brings an event that nobody wants. */
static void relax(struct pn_loop *loop, struct pn__fd *e, int fd)
{
    bool level = !(e->kernel_events & MODE_FLAGS);
    if (!e->first) {
        if (level && e->registered)
            loop->poller->remove(loop->poller, fd);
        if (!(e->kernel_events & EPOLLONESHOT))
            e->registered = false;
        return;
    }
    if (e->armed && !(level && union_events(e) != e->kernel_events))
        return;
    if (arm(loop, e, fd) == -ENOENT)
        orphan_all(loop, e, NULL);
}

void pn_watch_remove(struct pn_loop *loop, struct pn_watch *watch)
{
    int fd = watch->fd;
    if (fd < 0) {
        pn_list_remove(&watch->node);
        return;
    }
    struct pn__fd *e = &loop->fds[fd];
    unlink_watch(loop, e, watch);
    relax(loop, e, fd);
}

void pn_loop_fd_closed(struct pn_loop *loop, int fd)
{
    if (fd < 0 || (size_t)fd >= loop->fd_count)
        return;
    struct pn__fd *e = &loop->fds[fd];
    if (!e->registered && !e->first)
        return;
    /* close(2) does this by itself, unless a dup or a child keeps the file open: then a
     * level-triggered registration would go on reporting, and could never be deleted. */
    if (e->registered && e->first && !(e->kernel_events & MODE_FLAGS))
        loop->poller->remove(loop->poller, fd);
    e->registered = false;
    if (e->first)
        orphan_all(loop, e, NULL);
}

void pn_loop_fds_check(struct pn_loop *loop, int first, int step)
{
    for (size_t fd = (size_t)first; fd < loop->fd_count; fd += (size_t)step) {
        struct pn__fd *e = &loop->fds[fd];
        /* A shared listener's registration cannot be asked about without taking it off. */
        if (!e->first || !e->registered || (e->kernel_events & EPOLLEXCLUSIVE))
            continue;
        /* Asking is arming: at worst that brings an event which was there before. */
        int rc = loop->poller->modify(loop->poller, (int)fd, union_events(e), token_of(e, (int)fd));
        if (rc == -ENOENT || rc == -EBADF) {
            e->registered = false;
            orphan_all(loop, e, NULL);
        } else if (rc == 0) {
            e->armed = true;
            e->kernel_events = union_events(e);
        }
    }
}

/* --- Dispatch -------------------------------------------------------------------------------- */

bool pn__watch_fired_step(struct pn_loop *loop)
{
    struct pn_list *node = pn_list_pop_front(&loop->fired);
    if (!node)
        return false;
    struct pn_watch *w = pn_list_entry(node, struct pn_watch, node);
    w->ready(w, w->events);
    return true;
}

static void next_event(struct pn_loop *loop)
{
    loop->event_pos++;
    loop->event_left = 0;
}

/* The event at event_pos has asked every watch. */
static void finish_event(struct pn_loop *loop, struct pn__fd *e, int fd)
{
    next_event(loop);
    relax(loop, e, fd);
}

/* Asks the watches of a shared fd, one call a step: the ring is turned, and a watch that came or
 * went between two steps at worst gets a stale wake-up. True: one was called. */
static bool ask_ring(struct pn_loop *loop, struct pn__fd *e, int fd, uint32_t revents)
{
    if (loop->event_left == 0)
        loop->event_left = e->waiters;
    while (e->first && loop->event_left > 0) {
        struct pn_watch *w = e->first;
        uint32_t hit = revents & (w->events | ALWAYS);
        e->first = next_of(w);
        bool last = --loop->event_left == 0;
        if (hit && (w->events & EPOLLONESHOT))
            unlink_watch(loop, e, w);
        if (last || !e->first)
            finish_event(loop, e, fd);
        if (hit) {
            w->ready(w, hit);
            return true;
        }
        if (last)
            return false;
    }
    PN_WRONG("an event was begun whose watches had gone");
}

/* Everything but the usual case: stale events, one-shots, shared descriptors. */
static __attribute__((noinline)) bool watch_step_slow(struct pn_loop *loop)
{
    while (loop->event_pos < loop->event_count) {
        const struct epoll_event *ev = &loop->events[loop->event_pos];
        uint64_t token = ev->data.u64;
        size_t fd = (uint32_t)token;
        PN_ASSERT(fd < loop->fd_count);
        struct pn__fd *e = &loop->fds[fd];
        if (e->generation != (uint32_t)(token >> 32) || !e->first) {
            loop->stats.stale_events++;
            next_event(loop);
            continue;
        }
        if ((e->kernel_events & EPOLLONESHOT) && loop->event_left == 0)
            e->armed = false;
        if (ask_ring(loop, e, (int)fd, ev->events))
            return true;
    }
    return false;
}

bool pn__watch_step(struct pn_loop *loop)
{
    if (loop->event_pos >= loop->event_count)
        return false;
    const struct epoll_event *ev = &loop->events[loop->event_pos];
    uint64_t token = ev->data.u64;
    const struct pn__fd *e = &loop->fds[(uint32_t)token];
    if (pn_likely(e->generation == (uint32_t)(token >> 32) && e->waiters == 1 &&
                  loop->event_left == 0)) {
        struct pn_watch *w = e->first;
        uint32_t hit = ev->events & (w->events | ALWAYS);
        if (pn_likely(hit && !(w->events & EPOLLONESHOT))) {
            loop->event_pos++;
            w->ready(w, hit);
            return true;
        }
    }
    return watch_step_slow(loop);
}
