/* SPDX-License-Identifier: Apache-2.0 */
/* poll, select, epoll_wait and their kin in cores of both carriers that wait. */
#include <sys/time.h>

#include "../support/io_fixture.h"
#include "test_base.h"

/* --- Many ways to wait until fd[0] can be read --------------------------------------------------- */

/* 1: ready, 0: not within TIMEOUT_MS (negative: for ever), -1 with errno. */
typedef int watcher(struct meeting *m, int timeout_ms);

static struct timespec *span_of(int ms, struct timespec *t)
{
    if (ms < 0)
        return NULL;
    *t = pn_ns_timespec(ms * PN_NS_PER_MS);
    return t;
}

static int by_poll(struct meeting *m, int timeout_ms)
{
    struct pollfd p = {.fd = m->fd[0], .events = POLLIN, .revents = 77};
    int r = io->poll(&p, 1, timeout_ms);
    REQUIRE(r < 0 || (r == 1 ? p.revents != 0 : p.revents == 0));
    return r == 1 && (p.revents & POLLNVAL) ? (errno = EBADF, -1) : r;
}

static int by_poll_chk(struct meeting *m, int timeout_ms)
{
    struct pollfd p = {.fd = m->fd[0], .events = POLLIN};
    return io->poll_chk(&p, 1, timeout_ms, sizeof p);
}

/* With others that never get ready, one of them not looked at and one twice. */
static int by_poll_of_many(struct meeting *m, int timeout_ms)
{
    int idle[2];
    stream_pair(idle);
    struct pollfd p[5] = {{.fd = idle[0], .events = POLLIN},
                          {.fd = -1, .events = POLLIN},
                          {.fd = m->fd[0], .events = POLLPRI},
                          {.fd = m->fd[0], .events = POLLIN},
                          {.fd = idle[1], .events = POLLIN}};
    int r = io->poll(p, 5, timeout_ms);
    int error = errno;
    REQUIRE(p[0].revents == 0 && p[1].revents == 0 && p[4].revents == 0);
    REQUIRE(r < 1 || p[3].revents != 0);
    close_pair(idle);
    errno = error;
    return r > 1 ? 1 : r;
}

static int by_ppoll(struct meeting *m, int timeout_ms)
{
    struct timespec t;
    struct pollfd p = {.fd = m->fd[0], .events = POLLIN};
    return io->ppoll(&p, 1, span_of(timeout_ms, &t), NULL);
}

static int by_ppoll_with_mask(struct meeting *m, int timeout_ms)
{
    sigset_t none;
    sigemptyset(&none);
    struct timespec t;
    struct pollfd p = {.fd = m->fd[0], .events = POLLIN};
    return io->ppoll_chk(&p, 1, span_of(timeout_ms, &t), &none, sizeof p);
}

static int by_select(struct meeting *m, int timeout_ms)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(m->fd[0], &set);
    struct timeval t = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    int r = io->select(m->fd[0] + 1, &set, NULL, NULL, timeout_ms < 0 ? NULL : &t);
    REQUIRE(r < 0 || FD_ISSET(m->fd[0], &set) == (r == 1));
    /* Linux says how much was left. */
    REQUIRE(timeout_ms <= 0 || t.tv_sec * 1000 + t.tv_usec / 1000 < timeout_ms);
    return r;
}

static int by_select_of_many(struct meeting *m, int timeout_ms)
{
    int idle[2];
    stream_pair(idle);
    fd_set readable, special;
    FD_ZERO(&readable);
    FD_ZERO(&special);
    FD_SET(m->fd[0], &readable);
    FD_SET(idle[0], &readable);
    FD_SET(idle[1], &special);
    int most = m->fd[0] > idle[1] ? m->fd[0] : idle[1];
    struct timeval t = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    int r = io->select(most + 1, &readable, NULL, &special, timeout_ms < 0 ? NULL : &t);
    int error = errno;
    REQUIRE(r < 0 || (!FD_ISSET(idle[0], &readable) && !FD_ISSET(idle[1], &special)));
    close_pair(idle);
    errno = error;
    return r;
}

static int by_pselect(struct meeting *m, int timeout_ms)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(m->fd[0], &set);
    struct timespec t, given;
    const struct timespec *span = span_of(timeout_ms, &t);
    given = timeout_ms < 0 ? (struct timespec){0} : t;
    int r = io->pselect(m->fd[0] + 1, &set, NULL, NULL, span, NULL);
    REQUIRE(!span || memcmp(&t, &given, sizeof t) == 0);
    return r;
}

static int by_pselect_with_mask(struct meeting *m, int timeout_ms)
{
    sigset_t none;
    sigemptyset(&none);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(m->fd[0], &set);
    struct timespec t;
    return io->pselect(m->fd[0] + 1, &set, NULL, NULL, span_of(timeout_ms, &t), &none);
}

static int with_epoll(struct meeting *m, int timeout_ms, int kind)
{
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 4711}, got[2];
    struct timespec t;
    sigset_t none;
    sigemptyset(&none);
    REQUIRE(epoll_ctl(set, EPOLL_CTL_ADD, m->fd[0], &e) == 0);
    int r;
    if (kind == 0)
        r = io->epoll_wait(set, got, 2, timeout_ms);
    else if (kind == 1)
        r = io->epoll_pwait(set, got, 2, timeout_ms, NULL);
    else if (kind == 2)
        r = io->epoll_pwait(set, got, 2, timeout_ms, &none);
    else
        r = io->epoll_pwait2(set, got, 2, span_of(timeout_ms, &t), kind == 3 ? NULL : &none);
    int error = errno;
    REQUIRE(r < 1 || (r == 1 && got[0].data.u64 == 4711));
    close(set);
    errno = error;
    return r;
}

static int by_epoll(struct meeting *m, int timeout_ms)
{
    return with_epoll(m, timeout_ms, 0);
}

static int by_epoll_pwait(struct meeting *m, int timeout_ms)
{
    return with_epoll(m, timeout_ms, 1);
}

static int by_epoll_with_mask(struct meeting *m, int timeout_ms)
{
    return with_epoll(m, timeout_ms, 2);
}

static int by_epoll_pwait2(struct meeting *m, int timeout_ms)
{
    return with_epoll(m, timeout_ms, 3);
}

static int by_epoll_pwait2_with_mask(struct meeting *m, int timeout_ms)
{
    return with_epoll(m, timeout_ms, 4);
}

static watcher *const watchers[] = {by_poll,
                                    by_poll_chk,
                                    by_poll_of_many,
                                    by_ppoll,
                                    by_ppoll_with_mask,
                                    by_select,
                                    by_select_of_many,
                                    by_pselect,
                                    by_pselect_with_mask,
                                    by_epoll,
                                    by_epoll_pwait,
                                    by_epoll_with_mask,
                                    by_epoll_pwait2,
                                    by_epoll_pwait2_with_mask};

static void for_each_watcher(void (*one)(enum pn_carrier carrier, watcher *op))
{
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (size_t i = 0; i < PN_ARRAY_LEN(watchers); i++)
            one(wait_carriers[c], watchers[i]);
}

static void first_watches(struct meeting *m)
{
    watcher *op = (watcher *)m->op;
    MEETING_CALL(m, op(m, m->kind));
}

static void second_pings(struct meeting *m)
{
    ping_the_first(m, "x");
}

static void waits_one(enum pn_carrier carrier, watcher *op)
{
    /* Without a limit, and with one that is far away. */
    for (int timeout_ms = -1; timeout_ms < 60000; timeout_ms += 30001) {
        struct meeting m = {
            .op = (void *)op, .kind = timeout_ms, .first = first_watches, .second = second_pings};
        stream_pair(m.fd);
        assert_true(meet(&m, carrier, 2) > 0);
        assert_int_equal(m.result, 1);
        assert_int_equal(m.error, 1234);
        close_pair(m.fd);
    }
}

static void what_is_not_ready_is_waited_for(void **state)
{
    (void)state;
    for_each_watcher(waits_one);
}

static void ready_one(enum pn_carrier carrier, watcher *op)
{
    static const int timeouts[] = {-1, 0, 1000};
    for (size_t i = 0; i < PN_ARRAY_LEN(timeouts); i++) {
        struct meeting m = {.op = (void *)op, .kind = timeouts[i], .first = first_watches};
        stream_pair(m.fd);
        assert_int_equal(write(m.fd[1], "x", 1), 1);
        assert_int_equal(meet(&m, carrier, 1), 0);
        assert_int_equal(m.result, 1);
        close_pair(m.fd);
    }
}

static void what_is_ready_is_said_at_once(void **state)
{
    (void)state;
    for_each_watcher(ready_one);
}

static void timeout_one(enum pn_carrier carrier, watcher *op)
{
    static const int timeouts[] = {0, 30};
    for (size_t i = 0; i < PN_ARRAY_LEN(timeouts); i++) {
        struct meeting m = {.op = (void *)op, .kind = timeouts[i], .first = first_watches};
        stream_pair(m.fd);
        uint64_t waited = meet(&m, carrier, 1);
        assert_int_equal(waited, timeouts[i] > 0);
        assert_int_equal(m.result, 0);
        assert_int_equal(m.error, 1234);
        assert_true(m.took_ns >= timeouts[i] * PN_NS_PER_MS);
        close_pair(m.fd);
    }
}

static void time_outs_are_kept(void **state)
{
    (void)state;
    for_each_watcher(timeout_one);
}

static void signal_one(enum pn_carrier carrier, watcher *op)
{
    struct meeting m = {
        .op = (void *)op, .kind = 20000, .first = first_watches, .second = signal_the_first};
    if (carrier == PN_CARRIER_FIBERS)
        return;
    stream_pair(m.fd);
    meet(&m, carrier, 2);
    assert_int_equal(m.result, -1);
    assert_int_equal(m.error, EINTR);
    close_pair(m.fd);
}

/* None of them is ever restarted. */
static void a_signal_interrupts_a_thread(void **state)
{
    (void)state;
    handle_signals(SA_RESTART);
    for_each_watcher(signal_one);
}

static void cut_one(enum pn_carrier carrier, watcher *op)
{
    struct meeting m = {
        .op = (void *)op, .kind = -1, .first = first_watches, .second = cut_the_first};
    stream_pair(m.fd);
    meet(&m, carrier, 2);
    assert_int_equal(m.result, 0);
    close_pair(m.fd);
}

static void a_cut_is_a_time_out(void **state)
{
    (void)state;
    for_each_watcher(cut_one);
}

/* --- Particulars ------------------------------------------------------------------------------------- */

static void second_closes(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(io->close(m->fd[0]) == 0);
}

/* A look after the close says what poll and select say of such a number. */
static void a_closed_descriptor_is_said(void **state)
{
    static watcher *const of_one[] = {by_poll, by_select, by_pselect};
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(of_one); i++) {
        struct meeting m = {
            .op = (void *)of_one[i], .kind = -1, .first = first_watches, .second = second_closes};
        stream_pair(m.fd);
        meet(&m, PN_CARRIER_FIBERS, 2);
        assert_int_equal(m.result, -1);
        assert_int_equal(m.error, EBADF);
        close(m.fd[1]);
    }
}

static void first_particular(struct meeting *m)
{
    struct timespec bad = {.tv_nsec = -1};
    struct timeval bad_too = {.tv_sec = -1};
    struct epoll_event e;
    fd_set set;
    int64_t start_ns = pn_clock_mono_ns();
    /* No descriptors: only the time. */
    REQUIRE(io->poll(NULL, 0, 10) == 0);
    REQUIRE(io->select(0, NULL, NULL, NULL, &(struct timeval){.tv_usec = 10000}) == 0);
    REQUIRE(pn_clock_mono_ns() - start_ns >= 20 * PN_NS_PER_MS);
    /* What the kernel refuses, and what it knows at once. */
    REQUIRE(io->ppoll(NULL, 0, &bad, NULL) == -1 && errno == EINVAL);
    REQUIRE(io->pselect(0, NULL, NULL, NULL, &bad, NULL) == -1 && errno == EINVAL);
    REQUIRE(io->select(0, NULL, NULL, NULL, &bad_too) == -1 && errno == EINVAL);
    REQUIRE(io->select(-1, NULL, NULL, NULL, NULL) == -1 && errno == EINVAL);
    REQUIRE(io->epoll_wait(m->fd[0], &e, 1, 10) == -1 && errno == EINVAL);
    REQUIRE(io->epoll_wait(-1, &e, 1, -1) == -1 && errno == EBADF);
    struct pollfd closed = {.fd = 999, .events = POLLIN};
    REQUIRE(io->poll(&closed, 1, -1) == 1 && closed.revents == POLLNVAL);
    FD_ZERO(&set);
    FD_SET(60, &set);
    REQUIRE(io->select(61, &set, NULL, NULL, NULL) == -1 && errno == EBADF);
    /* A file is always ready; so is the writer of an empty pair. */
    int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct pollfd ready[2] = {{.fd = file, .events = POLLIN}, {.fd = m->fd[0], .events = POLLOUT}};
    REQUIRE(io->poll(ready, 2, -1) == 2);
    close(file);
    /* A hang-up that select isn't asked about must not keep it from sleeping. */
    int hung[2];
    stream_pair(hung);
    close(hung[1]);
    FD_ZERO(&set);
    FD_SET(hung[0], &set);
    struct timeval t = {.tv_usec = 40000};
    REQUIRE(io->select(hung[0] + 1, NULL, NULL, &set, &t) == 0);
    REQUIRE(!FD_ISSET(hung[0], &set));
    close(hung[0]);
}

static void particulars(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_particular};
        stream_pair(m.fd);
        meet(&m, wait_carriers[c], 1);
        close_pair(m.fd);
    }
}

/* --- What no epoll set takes ---------------------------------------------------------------------------- */

enum { ALONE, WITH_A_SOCKET, IN_SELECT, WITHOUT_A_NUMBER };

/* So that no descriptor can be opened. */
static void numbers_end_here(struct rlimit *before)
{
    int next = dup(0);
    REQUIRE(next >= 0 && close(next) == 0 && getrlimit(RLIMIT_NOFILE, before) == 0);
    struct rlimit now = {.rlim_cur = (rlim_t)next, .rlim_max = before->rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &now) == 0);
}

static void first_asks_much(struct meeting *m)
{
    int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct pollfd p[2] = {{.fd = file, .events = POLLPRI}, {.fd = m->fd[0], .events = POLLIN}};
    fd_set readable, special;
    struct rlimit limit;
    FD_ZERO(&readable);
    FD_ZERO(&special);
    FD_SET(m->fd[0], &readable);
    FD_SET(file, &special);
    REQUIRE(file >= 0);
    if (m->kind == WITHOUT_A_NUMBER) {
        p[0] = (struct pollfd){.fd = m->fd[1], .events = POLLIN};
        numbers_end_here(&limit);
    }
    if (m->kind == IN_SELECT)
        MEETING_CALL(m, io->select((file > m->fd[0] ? file : m->fd[0]) + 1, &readable, NULL,
                                   &special, NULL));
    else
        MEETING_CALL(m, io->poll(p, m->kind == ALONE ? 1 : 2, -1));
    if (m->kind == WITHOUT_A_NUMBER)
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    close(file);
}

static void second_comes_in(struct meeting *m)
{
    ping_the_first(m, "x");
}

/* The others go on meanwhile, and what can be ready ends the wait. */
static void what_no_set_takes_is_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (int kind = ALONE; kind <= WITHOUT_A_NUMBER; kind++) {
            struct meeting m = {.first = first_asks_much,
                                .second = kind == ALONE ? cut_the_first : second_comes_in,
                                .kind = kind};
            stream_pair(m.fd);
            meet(&m, wait_carriers[c], 2);
            assert_int_equal(m.result, kind == ALONE ? 0 : 1);
            close_pair(m.fd);
        }
}

/* A signal that is blocked but for the wait is delivered by it, also when it came before. */
static void first_unblocks(struct meeting *m)
{
    sigset_t usr1, none;
    sigemptyset(&none);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    struct pollfd p = {.fd = m->fd[0], .events = POLLIN};
    struct epoll_event e;
    int set = epoll_create1(EPOLL_CLOEXEC);
    REQUIRE(pthread_sigmask(SIG_BLOCK, &usr1, NULL) == 0);
    pthread_kill(pthread_self(), SIGUSR1);
    REQUIRE(io->ppoll(&p, 1, NULL, &none) == -1 && errno == EINTR);
    pthread_kill(pthread_self(), SIGUSR1);
    REQUIRE(io->pselect(0, NULL, NULL, NULL, NULL, &none) == -1 && errno == EINTR);
    pthread_kill(pthread_self(), SIGUSR1);
    REQUIRE(io->epoll_pwait(set, &e, 1, -1, &none) == -1 && errno == EINTR);
    REQUIRE(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL) == 0);
    close(set);
}

static void a_mask_lets_a_signal_in(void **state)
{
    (void)state;
    handle_signals(0);
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_unblocks};
        stream_pair(m.fd);
        meet(&m, wait_carriers[c], 1);
        close_pair(m.fd);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_ready_is_waited_for),
        cmocka_unit_test(what_is_ready_is_said_at_once),
        cmocka_unit_test(time_outs_are_kept),
        cmocka_unit_test(a_signal_interrupts_a_thread),
        cmocka_unit_test(a_cut_is_a_time_out),
        cmocka_unit_test(a_closed_descriptor_is_said),
        cmocka_unit_test(particulars),
        cmocka_unit_test(what_no_set_takes_is_waited_for),
        cmocka_unit_test(a_mask_lets_a_signal_in),
    };
    if (io_load(argc, argv) < 0)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
