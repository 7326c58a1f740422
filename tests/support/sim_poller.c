/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual poller: see sim_poller.h. */
#include "support/sim_poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

struct sim_fd {
    bool open;
    bool registered;
    bool queued; /* an edge (or a level) is to be reported */
    int refuse;
    uint32_t ready;
    uint32_t interest; /* 0 and registered: a one-shot that fired */
    uint64_t token;
};

struct sim_event {
    struct pn_list node;
    int64_t at_ns;
    void (*fn)(void *ctx);
    void *ctx;
};

struct sim_poller {
    struct pn_poller base;
    int64_t now_ns;
    struct sim_fd *fds;
    size_t fd_count;
    size_t open_count;
    struct pn_list script; /* sorted by time */
    bool woken;
    bool idle;
    uint64_t random; /* 0: orderly */
    size_t turn;     /* where the next scan for events begins */
    struct sim_poller_stats stats;
};

enum { FIRST_FD = 3 };
#define MODE_FLAGS (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE)

static struct sim_poller *of(struct pn_poller *poller)
{
    return pn_container_of(poller, struct sim_poller, base);
}

static struct sim_fd *fd_of(const struct sim_poller *sim, int fd)
{
    if (fd < FIRST_FD || (size_t)fd >= sim->fd_count || !sim->fds[fd].open)
        return NULL;
    return &sim->fds[fd];
}

static uint32_t reportable(const struct sim_fd *f)
{
    if (!f->registered || f->interest == 0)
        return 0;
    return f->ready & ((f->interest & ~(uint32_t)MODE_FLAGS) | EPOLLERR | EPOLLHUP);
}

uint64_t sim_poller_random(struct sim_poller *sim)
{
    /* xorshift64*: good enough to shuffle, and the same everywhere. */
    uint64_t x = sim->random ? sim->random : UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    sim->random = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

void sim_poller_seed(struct sim_poller *sim, uint64_t seed)
{
    sim->random = seed;
    for (int i = 0; seed && i < 4; i++)
        sim_poller_random(sim);
}

/* --- struct pn_poller ------------------------------------------------------------------------ */

static int64_t now_ns(struct pn_poller *poller)
{
    return of(poller)->now_ns;
}

static void set_interest(struct sim_fd *f, uint32_t events, uint64_t token)
{
    f->registered = true;
    f->interest = events;
    f->token = token;
    f->queued = reportable(f) != 0;
}

static int add(struct pn_poller *poller, int fd, uint32_t events, uint64_t token)
{
    struct sim_poller *sim = of(poller);
    struct sim_fd *f = fd_of(sim, fd);
    sim->stats.adds++;
    if (!f)
        return -EBADF;
    if (f->refuse)
        return -f->refuse;
    if (f->registered)
        return -EEXIST;
    set_interest(f, events, token);
    return 0;
}

static int modify(struct pn_poller *poller, int fd, uint32_t events, uint64_t token)
{
    struct sim_poller *sim = of(poller);
    struct sim_fd *f = fd_of(sim, fd);
    sim->stats.modifies++;
    if (!f)
        return -EBADF;
    if (f->refuse)
        return -f->refuse;
    if (!f->registered)
        return -ENOENT;
    if ((events | f->interest) & EPOLLEXCLUSIVE)
        return -EINVAL;
    set_interest(f, events, token);
    return 0;
}

static int forget(struct pn_poller *poller, int fd)
{
    struct sim_poller *sim = of(poller);
    struct sim_fd *f = fd_of(sim, fd);
    sim->stats.removes++;
    if (!f)
        return -EBADF;
    if (!f->registered)
        return -ENOENT;
    f->registered = f->queued = false;
    return 0;
}

/* Reports F as the kernel does; false when it has nothing. */
static bool report(struct sim_fd *f, struct epoll_event *event)
{
    uint32_t events = f->queued ? reportable(f) : 0;
    if (!events) {
        f->queued = false;
        return false;
    }
    *event = (struct epoll_event){.events = events, .data.u64 = f->token};
    if (f->interest & (EPOLLET | EPOLLONESHOT))
        f->queued = false;
    if (f->interest & EPOLLONESHOT)
        f->interest = 0;
    return true;
}

static void shuffle(struct sim_poller *sim, struct epoll_event *events, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = (int)(sim_poller_random(sim) % (unsigned)(i + 1));
        struct epoll_event swap = events[i];
        events[i] = events[j];
        events[j] = swap;
    }
}

/* A batch that is too small goes on, next time, where this one ended: nobody starves. */
static int collect(struct sim_poller *sim, struct epoll_event *events, int max)
{
    int n = 0;
    if (sim->random)
        max = 1 + (int)(sim_poller_random(sim) % (unsigned)max);
    for (size_t i = 0; i < sim->fd_count && n < max; i++) {
        size_t fd = (sim->turn + i) % sim->fd_count;
        n += report(&sim->fds[fd], &events[n]);
        if (n == max)
            sim->turn = fd + 1;
    }
    if (sim->random)
        shuffle(sim, events, n);
    return n;
}

/* What the script has for now or earlier. */
static void play(struct sim_poller *sim)
{
    while (!pn_list_empty(&sim->script)) {
        struct sim_event *e = pn_list_entry(sim->script.next, struct sim_event, node);
        if (e->at_ns > sim->now_ns)
            return;
        pn_list_remove(&e->node);
        e->fn(e->ctx);
        free(e);
    }
}

static int64_t script_ns(const struct sim_poller *sim)
{
    if (pn_list_empty(&sim->script))
        return PN_NEVER_NS;
    return pn_list_entry(sim->script.next, struct sim_event, node)->at_ns;
}

static int wait_events(struct pn_poller *poller, struct epoll_event *events, int max,
                       int64_t deadline_ns)
{
    struct sim_poller *sim = of(poller);
    sim->stats.waits++;
    sim->stats.looks += deadline_ns <= sim->now_ns;
    sim->idle = false;
    for (;;) {
        play(sim);
        int n = collect(sim, events, max);
        bool woken = sim->woken;
        sim->woken = false;
        if (n > 0 || woken || deadline_ns <= sim->now_ns)
            return n;
        int64_t next_ns = script_ns(sim);
        if (next_ns > deadline_ns)
            next_ns = deadline_ns;
        if (next_ns == PN_NEVER_NS) {
            sim->idle = true;
            return 0;
        }
        sim->now_ns = next_ns;
    }
}

static void wake(struct pn_poller *poller)
{
    of(poller)->woken = true;
    of(poller)->stats.wakes++;
}

static int poller_fd(struct pn_poller *poller)
{
    (void)poller;
    return -1;
}

static void destroy(struct pn_poller *poller)
{
    struct sim_poller *sim = of(poller);
    sim_script_clear(sim);
    free(sim->fds);
    free(sim);
}

static void after_fork_child(struct pn_poller *poller)
{
    (void)poller;
}

static const struct pn_poller functions = {
    .now_ns = now_ns,
    .add = add,
    .modify = modify,
    .remove = forget,
    .wait = wait_events,
    .wake = wake,
    .fd = poller_fd,
    .destroy = destroy,
    .after_fork_child = after_fork_child,
};

/* --- What the test sees ---------------------------------------------------------------------- */

struct sim_poller *sim_poller_create(void)
{
    struct sim_poller *sim = pn_xcalloc(1, sizeof(*sim));
    sim->base = functions;
    sim->now_ns = PN_NS_PER_SEC;
    pn_list_init(&sim->script);
    return sim;
}

struct pn_poller *sim_poller_base(struct sim_poller *sim)
{
    return &sim->base;
}

int sim_fd_open(struct sim_poller *sim)
{
    size_t fd = FIRST_FD;
    while (fd < sim->fd_count && sim->fds[fd].open)
        fd++;
    if (fd >= sim->fd_count) {
        size_t count = sim->fd_count ? sim->fd_count * 2 : 16;
        sim->fds = pn_xrealloc(sim->fds, count * sizeof(*sim->fds));
        memset(sim->fds + sim->fd_count, 0, (count - sim->fd_count) * sizeof(*sim->fds));
        sim->fd_count = count;
    }
    sim->fds[fd] = (struct sim_fd){.open = true};
    sim->open_count++;
    return (int)fd;
}

void sim_fd_close(struct sim_poller *sim, int fd)
{
    struct sim_fd *f = fd_of(sim, fd);
    PN_BUG_ON(!f);
    *f = (struct sim_fd){0};
    sim->open_count--;
}

void sim_fd_raise(struct sim_poller *sim, int fd, uint32_t events)
{
    struct sim_fd *f = fd_of(sim, fd);
    PN_BUG_ON(!f);
    f->ready |= events;
    if (reportable(f) & events)
        f->queued = true;
}

void sim_fd_lower(struct sim_poller *sim, int fd, uint32_t events)
{
    struct sim_fd *f = fd_of(sim, fd);
    PN_BUG_ON(!f);
    f->ready &= ~events;
}

uint32_t sim_fd_ready(const struct sim_poller *sim, int fd)
{
    const struct sim_fd *f = fd_of(sim, fd);
    return f ? f->ready : 0;
}

void sim_fd_refuse(struct sim_poller *sim, int fd, int error)
{
    struct sim_fd *f = fd_of(sim, fd);
    PN_BUG_ON(!f);
    f->refuse = error;
}

size_t sim_fd_count(const struct sim_poller *sim)
{
    return sim->open_count;
}

int64_t sim_now_ns(const struct sim_poller *sim)
{
    return sim->now_ns;
}

void sim_advance(struct sim_poller *sim, int64_t ns)
{
    PN_BUG_ON(ns < 0);
    sim->now_ns += ns;
}

void sim_at(struct sim_poller *sim, int64_t at_ns, void (*fn)(void *ctx), void *ctx)
{
    struct sim_event *e = pn_xmalloc(sizeof(*e));
    *e = (struct sim_event){.at_ns = at_ns, .fn = fn, .ctx = ctx};
    struct pn_list *pos = &sim->script;
    while (pos->prev != &sim->script &&
           pn_list_entry(pos->prev, struct sim_event, node)->at_ns > at_ns)
        pos = pos->prev;
    pn_list_insert_before(pos, &e->node);
}

void sim_script_clear(struct sim_poller *sim)
{
    struct pn_list *node;
    while ((node = pn_list_pop_front(&sim->script)))
        free(pn_list_entry(node, struct sim_event, node));
}

bool sim_idle(const struct sim_poller *sim)
{
    return sim->idle;
}

struct sim_poller_stats sim_poller_stats(const struct sim_poller *sim)
{
    return sim->stats;
}
