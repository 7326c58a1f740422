/* SPDX-License-Identifier: Apache-2.0 */
/* Time and events from the kernel: epoll(7), CLOCK_MONOTONIC, and an eventfd for wake-ups.
 *
 * The eventfd is registered edge-triggered and never read: each write is an edge, and its counter
 * would overflow after 2^64 of them. All calls here go to libc's own functions: src/wait redirects
 * other images' import tables only, never the one that this file is linked into. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/loop.h"

#define WAKE_TOKEN UINT64_MAX

struct epoll_poller {
    struct pn_poller base;
    int epoll_fd;
    int wake_fd;
    bool no_pwait2; /* an old kernel, or a container that forbids it */
};

static struct epoll_poller *of(struct pn_poller *poller)
{
    return pn_container_of(poller, struct epoll_poller, base);
}

static int64_t now_ns(struct pn_poller *poller)
{
    (void)poller;
    return pn_clock_mono_ns();
}

static int control(struct pn_poller *poller, int op, int fd, uint32_t events, uint64_t token)
{
    struct epoll_event ev = {.events = events, .data.u64 = token};
    return epoll_ctl(of(poller)->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

static int add(struct pn_poller *poller, int fd, uint32_t events, uint64_t token)
{
    return control(poller, EPOLL_CTL_ADD, fd, events, token);
}

static int modify(struct pn_poller *poller, int fd, uint32_t events, uint64_t token)
{
    return control(poller, EPOLL_CTL_MOD, fd, events, token);
}

static int forget(struct pn_poller *poller, int fd)
{
    return control(poller, EPOLL_CTL_DEL, fd, 0, 0);
}

/* Rounded up: a sleep that ends early would spin until its deadline. */
static int span_ms(int64_t span_ns)
{
    if (span_ns >= (int64_t)INT_MAX * PN_NS_PER_MS)
        return INT_MAX;
    return (int)((span_ns + PN_NS_PER_MS - 1) / PN_NS_PER_MS);
}

/* Waits SPAN_NS > 0. epoll_pwait2 (Linux 5.11) counts nanoseconds. */
static int wait_span(struct epoll_poller *p, struct epoll_event *events, int max, int64_t span_ns)
{
#ifdef SYS_epoll_pwait2
    if (!p->no_pwait2) {
        struct timespec t = pn_ns_timespec(span_ns);
        int n = (int)syscall(SYS_epoll_pwait2, p->epoll_fd, events, max, &t, NULL, (size_t)0);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM))
            return n;
        p->no_pwait2 = true;
    }
#endif
    return epoll_wait(p->epoll_fd, events, max, span_ms(span_ns));
}

static int wait_events(struct pn_poller *poller, struct epoll_event *events, int max,
                       int64_t deadline_ns)
{
    struct epoll_poller *p = of(poller);
    int64_t span_ns = 0;
    int n;
    if (deadline_ns == PN_NEVER_NS) {
        n = epoll_wait(p->epoll_fd, events, max, -1);
    } else if (deadline_ns <= 0 || (span_ns = deadline_ns - pn_clock_mono_ns()) <= 0) {
        n = epoll_wait(p->epoll_fd, events, max, 0);
    } else {
        n = wait_span(p, events, max, span_ns);
    }
    if (pn_unlikely(n < 0))
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        if (pn_unlikely(events[i].data.u64 == WAKE_TOKEN)) {
            events[i] = events[--n]; /* it is there once at most */
            break;
        }
    }
    return n;
}

static void wake(struct pn_poller *poller)
{
    int saved = errno;
    uint64_t one = 1;
    /* Fails only when the counter is full, and then the wake is pending anyway. */
    ssize_t n = write(of(poller)->wake_fd, &one, sizeof(one));
    (void)n;
    errno = saved;
}

static int poller_fd(struct pn_poller *poller)
{
    return of(poller)->epoll_fd;
}

static void close_fds(struct pn_poller *poller)
{
    struct epoll_poller *p = of(poller);
    if (p->epoll_fd >= 0)
        close(p->epoll_fd);
    if (p->wake_fd >= 0)
        close(p->wake_fd);
    p->epoll_fd = p->wake_fd = -1;
}

static void destroy(struct pn_poller *poller)
{
    close_fds(poller);
    free(of(poller));
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
    .after_fork_child = close_fds,
};

struct pn_poller *pn_poller_epoll_create(void)
{
    struct epoll_poller *p = pn_xcalloc(1, sizeof(*p));
    p->base = functions;
    p->wake_fd = -1;
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll_fd < 0)
        goto fail;
    p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->wake_fd < 0)
        goto fail;
    if (control(&p->base, EPOLL_CTL_ADD, p->wake_fd, EPOLLIN | EPOLLET, WAKE_TOKEN) < 0)
        goto fail;
    return &p->base;
fail:;
    int error = errno;
    destroy(&p->base);
    errno = error;
    return NULL;
}
