/* SPDX-License-Identifier: Apache-2.0 */
/* Accepting, in one worker: watches the listeners it shares with the others (EPOLLEXCLUSIVE: the
 * kernel wakes one worker, or a few), and takes their connections one a step in the turn's
 * ACCEPT phase, at most PN_TURN_ACCEPTS_MAX a turn, from each listener in its turn.
 *
 *   WATCHING --EMFILE and kin--> RESTING --back-off timer--> WATCHING
 *   any --stop--> STOPPED, or DRAINING until every queue is empty */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/listener.h"

enum { ACCEPTOR_MAGIC = 0x41434350 };

/* A shortage that goes on is said again after this. */
#define SAY_AGAIN_NS (60 * PN_NS_PER_SEC)

struct source {
    struct pn_watch watch;
    struct pn_acceptor *acceptor;
    struct pn_listener *listener;
    bool ready; /* accept until EAGAIN */
};

struct pn_acceptor {
    unsigned magic;
    struct pn_loop *loop;
    void (*on_accept)(void *ctx, const struct pn_accepted *a);
    void *ctx;
    struct pn_timer backoff; /* always set, so that it never needs memory */
    int64_t said_ns;         /* when a shortage was last said; 0: not yet */
    bool stopped;
    bool resting;
    unsigned drain_left; /* accepts that are left after a stop with DRAIN */
    size_t ready_count;
    size_t next; /* whose turn it is */
    size_t count;
    struct source sources[];
};

static void set_ready(struct source *s, bool ready)
{
    if (s->ready == ready)
        return;
    s->ready = ready;
    s->acceptor->ready_count += ready ? 1 : (size_t)-1;
}

static void on_ready(struct pn_watch *watch, uint32_t events)
{
    (void)events;
    set_ready(pn_container_of(watch, struct source, watch), true);
}

static int watch_all(struct pn_acceptor *a)
{
    for (size_t i = 0; i < a->count; i++) {
        struct source *s = &a->sources[i];
        int rc =
            pn_watch_add(a->loop, &s->watch, pn_listener_fd(s->listener), EPOLLIN | EPOLLEXCLUSIVE);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void unwatch_all(struct pn_acceptor *a)
{
    for (size_t i = 0; i < a->count; i++) {
        pn_watch_remove(a->loop, &a->sources[i].watch);
        set_ready(&a->sources[i], false);
    }
}

static void set_backoff(struct pn_acceptor *a, int64_t deadline_ns)
{
    int rc = pn_timer_set(a->loop, &a->backoff, deadline_ns);
    PN_BUG_ON(rc != 0);
}

/* Nothing can be accepted for want of descriptors or memory: trying on would spin. */
static void rest(struct pn_acceptor *a, int error)
{
    int64_t now_ns = pn_loop_now_ns(a->loop);
    if (a->said_ns == 0 || now_ns - a->said_ns > SAY_AGAIN_NS) {
        a->said_ns = now_ns;
        pn_log_error(
            NULL, "new connections have to wait: %s%s; accepting is tried again every %d ms",
            strerror(error), error == EMFILE ? " (raise the limit: ulimit -n, LimitNOFILE=)" : "",
            PN_ACCEPT_BACKOFF_MS);
    }
    a->resting = true;
    unwatch_all(a);
    set_backoff(a, now_ns + PN_ACCEPT_BACKOFF_MS * PN_NS_PER_MS);
}

static void on_backoff(struct pn_timer *timer)
{
    struct pn_acceptor *a = pn_container_of(timer, struct pn_acceptor, backoff);
    set_backoff(a, PN_NEVER_NS);
    if (!a->resting || a->stopped)
        return;
    a->resting = false;
    int rc = watch_all(a);
    if (rc < 0)
        rest(a, -rc);
}

static void accept_failed(struct source *s, int error)
{
    switch (error) {
    case EAGAIN:
        set_ready(s, false);
        return;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        rest(s->acceptor, error);
        return;
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
        /* Not our socket any more: somebody closed it under us. */
        pn_log_error(NULL, "the listener %s is lost: %s", pn_listener_text(s->listener),
                     strerror(error));
        pn_watch_remove(s->acceptor->loop, &s->watch);
        set_ready(s, false);
        return;
    default:
        /* The connection died while it waited (ECONNABORTED, or an error of its network): next. */
        return;
    }
}

static void accept_one(struct source *s)
{
    struct pn_acceptor *a = s->acceptor;
    struct pn_accepted accepted;
    accepted.listener = s->listener;
    accepted.peer_len = sizeof(accepted.peer);
    accepted.peer.ss_family = AF_UNSPEC; /* unnamed unix peers may leave it alone */
    accepted.fd = accept4(pn_listener_fd(s->listener), (struct sockaddr *)&accepted.peer,
                          &accepted.peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (pn_likely(accepted.fd >= 0))
        a->on_accept(a->ctx, &accepted);
    else
        accept_failed(s, errno);
}

bool pn_acceptor_pending(const struct pn_acceptor *a)
{
    PN_CHECK_MAGIC(a, ACCEPTOR_MAGIC);
    return a->ready_count > 0;
}

static bool phase_pending(void *ctx)
{
    return pn_acceptor_pending(ctx);
}

static void phase_step(void *ctx)
{
    struct pn_acceptor *a = ctx;
    PN_ASSERT(a->ready_count > 0);
    do {
        a->next = a->next + 1 < a->count ? a->next + 1 : 0;
    } while (!a->sources[a->next].ready);
    if (pn_unlikely(a->stopped) && a->drain_left-- == 0)
        unwatch_all(a);
    else
        accept_one(&a->sources[a->next]);
}

struct pn_acceptor *pn_acceptor_create(struct pn_loop *loop, struct pn_listener **listeners,
                                       size_t count,
                                       void (*on_accept)(void *ctx, const struct pn_accepted *a),
                                       void *ctx)
{
    PN_ASSERT(count <= PN_LISTENERS_MAX);
    struct pn_acceptor *a = pn_xcalloc(1, sizeof(*a) + count * sizeof(a->sources[0]));
    a->magic = ACCEPTOR_MAGIC;
    a->loop = loop;
    a->on_accept = on_accept;
    a->ctx = ctx;
    a->count = count;
    for (size_t i = 0; i < count; i++) {
        struct source *s = &a->sources[i];
        s->acceptor = a;
        s->listener = listeners[i];
        pn_watch_init(&s->watch, on_ready);
    }
    pn_timer_init(&a->backoff, on_backoff);
    set_backoff(a, PN_NEVER_NS);
    int rc = watch_all(a);
    if (rc < 0) {
        unwatch_all(a);
        pn_timer_cancel(loop, &a->backoff);
        free(a);
        errno = -rc;
        return NULL;
    }
    const struct pn_phase_handler handler = {
        .pending = phase_pending,
        .step = phase_step,
        .ctx = a,
        .budget = PN_TURN_ACCEPTS_MAX,
    };
    pn_loop_set_phase(loop, PN_PHASE_ACCEPT, &handler);
    return a;
}

void pn_acceptor_stop(struct pn_acceptor *a, bool drain)
{
    PN_CHECK_MAGIC(a, ACCEPTOR_MAGIC);
    if (a->stopped)
        return;
    a->stopped = true;
    a->drain_left = PN_ACCEPT_DRAIN_MAX;
    unwatch_all(a);
    for (size_t i = 0; drain && i < a->count; i++)
        set_ready(&a->sources[i], true);
}

void pn_acceptor_destroy(struct pn_acceptor *a)
{
    PN_CHECK_MAGIC(a, ACCEPTOR_MAGIC);
    unwatch_all(a);
    pn_timer_cancel(a->loop, &a->backoff);
    pn_loop_set_phase(a->loop, PN_PHASE_ACCEPT, NULL);
    a->magic = 0;
    free(a);
}
