/* SPDX-License-Identifier: Apache-2.0 */
/* Every function passes on to the inner poller; wait flushes first. */
#include "main/flush_poller.h"

#include <stdlib.h>

#include "base/mem.h"

struct flush_poller {
    struct pn_poller poller;
    struct pn_poller *inner; /* owned */
    struct pn_log *log;
    struct pn_log *out;
};

static struct flush_poller *outer(struct pn_poller *poller)
{
    return pn_container_of(poller, struct flush_poller, poller);
}

static int64_t flush_now_ns(struct pn_poller *poller)
{
    struct pn_poller *inner = outer(poller)->inner;
    return inner->now_ns(inner);
}

static int flush_add(struct pn_poller *poller, int fd, uint32_t events, uint64_t token)
{
    struct pn_poller *inner = outer(poller)->inner;
    return inner->add(inner, fd, events, token);
}

static int flush_modify(struct pn_poller *poller, int fd, uint32_t events, uint64_t token)
{
    struct pn_poller *inner = outer(poller)->inner;
    return inner->modify(inner, fd, events, token);
}

static int flush_remove(struct pn_poller *poller, int fd)
{
    struct pn_poller *inner = outer(poller)->inner;
    return inner->remove(inner, fd);
}

static void flush_logs(struct pn_poller *poller)
{
    struct flush_poller *f = outer(poller);
    pn_log_flush(f->log);
    if (f->out)
        pn_log_flush(f->out);
}

static int flush_wait(struct pn_poller *poller, struct epoll_event *events, int max,
                      int64_t deadline_ns)
{
    struct flush_poller *f = outer(poller);
    flush_logs(poller);
    return f->inner->wait(f->inner, events, max, deadline_ns);
}

static void flush_wake(struct pn_poller *poller)
{
    struct pn_poller *inner = outer(poller)->inner;
    inner->wake(inner);
}

static int flush_fd(struct pn_poller *poller)
{
    struct pn_poller *inner = outer(poller)->inner;
    return inner->fd(inner);
}

static void flush_destroy(struct pn_poller *poller)
{
    struct flush_poller *f = outer(poller);
    f->inner->destroy(f->inner);
    free(f);
}

static void flush_after_fork_child(struct pn_poller *poller)
{
    struct pn_poller *inner = outer(poller)->inner;
    inner->after_fork_child(inner);
}

struct pn_poller *pn__flush_poller_create(struct pn_poller *inner, struct pn_log *log,
                                          struct pn_log *out)
{
    struct flush_poller *f = pn_xcalloc(1, sizeof *f);
    *f = (struct flush_poller){
        .poller =
            {
                .now_ns = flush_now_ns,
                .add = flush_add,
                .modify = flush_modify,
                .remove = flush_remove,
                .wait = flush_wait,
                .settle = flush_logs,
                .wake = flush_wake,
                .fd = flush_fd,
                .destroy = flush_destroy,
                .after_fork_child = flush_after_fork_child,
            },
        .inner = inner,
        .log = log,
        .out = out == log ? NULL : out,
    };
    return &f->poller;
}
