/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of calls that wait for descriptors: two visitors, one that waits and one that ends its wait. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/io_probe.h"
#include "wait_fixture.h"

/* The library's calls: redirected while a server of wait_serve runs. */
static const struct io_calls *io;

static inline int io_load(int argc, char **argv)
{
    io = wait_probe(argc, argv, "io_probe");
    return io ? 0 : -1;
}

/* What the two share. */
struct meeting {
    struct world *world;
    int fd[2];
    void *op; /* the call under test */
    int kind; /* a variant, the test's */
    _Atomic(struct pn_core *) core;
    _Atomic pthread_t thread;
    atomic_bool inside; /* the first one is in its call */
    atomic_bool over;
    atomic_int count;
    ssize_t result;
    int error;
    int64_t took_ns;
    void (*first)(struct meeting *m);
    void (*second)(struct meeting *m);
};

static inline void meeting_app(struct visitor *v)
{
    struct meeting *m = v->world->arg;
    if (v->number == 0) {
        atomic_store(&m->core, pn_core_self());
        atomic_store(&m->thread, pthread_self());
        m->first(m);
        atomic_store(&m->over, true);
    } else if (m->second) {
        m->second(m);
    }
}

/* Visitor 0 does FIRST, visitors 1 to COUNT - 1 SECOND. Returns how many calls waited. */
static inline uint64_t meet(struct meeting *m, enum pn_carrier carrier, int count)
{
    static struct world w;
    w = (struct world){.arg = m};
    m->world = &w;
    wait_serve(&w, carrier, count, meeting_app);
    return w.calls_waited;
}

/* FIRST's frame around the call under test: what it returns, its errno (1234 if it leaves that alone), how long
 * it took, and that it is under way. */
#define MEETING_CALL(m, call)                          \
    do {                                               \
        int64_t start_ns_ = pn_clock_mono_ns();        \
        errno = 1234;                                  \
        atomic_store(&(m)->inside, true);              \
        (m)->result = (call);                          \
        (m)->error = errno;                            \
        atomic_store(&(m)->inside, false);             \
        (m)->took_ns = pn_clock_mono_ns() - start_ns_; \
    } while (0)

static inline void stream_pair(int fd[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
}

static inline void tcp_pair(int fd[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(listener, (struct sockaddr *)&at, size) == 0 && listen(listener, 1) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&at, &size) == 0);
    fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(fd[1], (struct sockaddr *)&at, size) == 0);
    fd[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    REQUIRE(fd[0] >= 0);
    close(listener);
}

static inline void close_pair(const int fd[2])
{
    for (int i = 0; i < 2; i++)
        if (fd[i] >= 0)
            close(fd[i]);
}

static inline void set_nonblocking(int fd)
{
    REQUIRE(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

static inline void set_timeout(int fd, int option, int ms)
{
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    REQUIRE(setsockopt(fd, SOL_SOCKET, option, &t, sizeof t) == 0);
}

/* A real wait of this thread: libc's own, which nobody redirects here. */
static inline void pause_ms(int ms)
{
    struct timespec t = pn_ns_timespec(ms * PN_NS_PER_MS);
    nanosleep(&t, NULL);
}

/* Lets the others run: this core waits. */
static inline void give_way_ms(int ms)
{
    (void)pn_core_sleep_until(pn_core_self(), pn_clock_mono_ns() + ms * PN_NS_PER_MS);
}

/* --- What the second one does ------------------------------------------------------------------- */

/* The first one gave way, and goes on waiting; then comes TEXT. */
static inline void ping_the_first(struct meeting *m, const char *text)
{
    ssize_t size = (ssize_t)strlen(text);
    REQUIRE(atomic_load(&m->inside));
    give_way_ms(5);
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(write(m->fd[1], text, (size_t)size) == size);
}

static inline void cut_the_first(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    pn_core_cut(atomic_load(&m->core));
}

/* Until it has an effect: a signal may come before the wait. */
static inline void signal_the_first(struct meeting *m)
{
    for (int i = 0; i < 30000 && !atomic_load(&m->over); i++) {
        pthread_kill(atomic_load(&m->thread), SIGUSR1);
        pause_ms(2);
    }
    REQUIRE(atomic_load(&m->over));
}

static atomic_int io_signals;

static inline void count_signal(int signo)
{
    (void)signo;
    atomic_fetch_add(&io_signals, 1);
}

/* SIGUSR1 is counted in io_signals from now on. */
static inline void handle_signals(int flags)
{
    struct sigaction sa = {.sa_handler = count_signal, .sa_flags = flags};
    REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
    atomic_store(&io_signals, 0);
}
