/* SPDX-License-Identifier: Apache-2.0 */
/* recv, read and their kin in cores of both carriers that wait. */
#include "../support/io_fixture.h"
#include "test_base.h"

/* --- Nine ways to read -------------------------------------------------------------------------- */

typedef ssize_t reader(int fd, void *buf, size_t size, int flags);

static ssize_t by_recv(int fd, void *buf, size_t size, int flags)
{
    return io->recv(fd, buf, size, flags);
}

static ssize_t by_recvfrom(int fd, void *buf, size_t size, int flags)
{
    struct sockaddr_storage from;
    socklen_t from_size = sizeof from;
    ssize_t r = io->recvfrom(fd, buf, size, flags, (struct sockaddr *)&from, &from_size);
    REQUIRE(r <= 0 || from_size == 0); /* a pair's ends have no names */
    return r;
}

static ssize_t by_recvmsg(int fd, void *buf, size_t size, int flags)
{
    struct iovec parts[2] = {{buf, 1}, {(char *)buf + 1, size - 1}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
    return io->recvmsg(fd, &m, flags);
}

static ssize_t by_recvmmsg(int fd, void *buf, size_t size, int flags)
{
    struct iovec part = {buf, size};
    struct mmsghdr m = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
    int r = io->recvmmsg(fd, &m, 1, flags, NULL);
    return r == 1 ? (ssize_t)m.msg_len : r;
}

static ssize_t by_recv_chk(int fd, void *buf, size_t size, int flags)
{
    return io->recv_chk(fd, buf, size, size, flags);
}

static ssize_t by_recvfrom_chk(int fd, void *buf, size_t size, int flags)
{
    return io->recvfrom_chk(fd, buf, size, size, flags, NULL, NULL);
}

static ssize_t by_read(int fd, void *buf, size_t size, int flags)
{
    (void)flags;
    return io->read(fd, buf, size);
}

static ssize_t by_readv(int fd, void *buf, size_t size, int flags)
{
    struct iovec parts[2] = {{buf, 1}, {(char *)buf + 1, size - 1}};
    (void)flags;
    return io->readv(fd, parts, 2);
}

static ssize_t by_read_chk(int fd, void *buf, size_t size, int flags)
{
    (void)flags;
    return io->read_chk(fd, buf, size, size);
}

static reader *const readers[] = {by_recv,     by_recvfrom, by_recvmsg,
                                  by_recvmmsg, by_recv_chk, by_recvfrom_chk,
                                  by_read,     by_readv,    by_read_chk};
enum { FLAGLESS = 6 }; /* from here on they read from anything, and take no flags */

enum end { STREAM = 0, DATAGRAM = 1, PIPE = 2, ENDS = 3 };

static void make_pair(enum end end, int fd[2])
{
    if (end == PIPE)
        REQUIRE(pipe2(fd, O_CLOEXEC) == 0);
    else
        REQUIRE(socketpair(AF_UNIX, end == STREAM ? SOCK_STREAM : SOCK_DGRAM, 0, fd) == 0);
}

/* Each way on each kind of descriptor, in both carriers. */
static void for_each_reader(void (*one)(enum pn_carrier carrier, reader *op, enum end end))
{
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (size_t i = 0; i < PN_ARRAY_LEN(readers); i++)
            for (enum end end = STREAM; end < ENDS; end++)
                if (end != PIPE || i >= FLAGLESS)
                    one(wait_carriers[c], readers[i], end);
}

static void first_reads(struct meeting *m)
{
    char buf[16] = "";
    reader *op = (reader *)m->op;
    MEETING_CALL(m, op(m->fd[0], buf, sizeof buf, 0));
    if (m->result > 0)
        REQUIRE(m->result == 4 && memcmp(buf, "ping", 5) == 0);
}

static void second_pings(struct meeting *m)
{
    ping_the_first(m, "ping");
}

static void waits_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads, .second = second_pings};
    make_pair(end, m.fd);
    assert_true(meet(&m, carrier, 2) > 0);
    assert_int_equal(m.result, 4);
    assert_int_equal(m.error, 1234);
    close_pair(m.fd);
}

static void what_is_not_there_is_waited_for(void **state)
{
    (void)state;
    for_each_reader(waits_one);
}

static void ready_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads};
    make_pair(end, m.fd);
    assert_int_equal(write(m.fd[1], "ping", 4), 4);
    assert_int_equal(meet(&m, carrier, 1), 0);
    assert_int_equal(m.result, 4);
    close_pair(m.fd);
}

static void what_is_there_is_read_at_once(void **state)
{
    (void)state;
    for_each_reader(ready_one);
}

static void timeout_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads};
    if (end == PIPE)
        return;
    make_pair(end, m.fd);
    set_timeout(m.fd[0], SO_RCVTIMEO, 30);
    assert_true(meet(&m, carrier, 1) > 0);
    assert_int_equal(m.result, -1);
    assert_int_equal(m.error, EAGAIN);
    assert_true(m.took_ns >= 25 * PN_NS_PER_MS);
    close_pair(m.fd);
}

static void a_socket_s_time_out_counts(void **state)
{
    (void)state;
    for_each_reader(timeout_one);
}

static void nonblocking_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads};
    make_pair(end, m.fd);
    set_nonblocking(m.fd[0]);
    assert_int_equal(meet(&m, carrier, 1), 0);
    assert_int_equal(m.result, -1);
    assert_int_equal(m.error, EAGAIN);
    close_pair(m.fd);
}

static void a_nonblocking_descriptor_says_so(void **state)
{
    (void)state;
    for_each_reader(nonblocking_one);
}

static void second_hangs_up(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    close(m->fd[1]);
    m->fd[1] = -1;
}

static void end_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads, .second = second_hangs_up};
    if (end == DATAGRAM)
        return;
    make_pair(end, m.fd);
    meet(&m, carrier, 2);
    assert_int_equal(m.result, 0);
    close_pair(m.fd);
}

static void the_end_ends_a_wait(void **state)
{
    (void)state;
    for_each_reader(end_one);
}

/* --- Signals and cuts ----------------------------------------------------------------------------- */

static void signal_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads, .second = signal_the_first};
    if (carrier == PN_CARRIER_FIBERS)
        return; /* a fiber has no thread that could be interrupted */
    make_pair(end, m.fd);
    if (end == STREAM)
        set_timeout(m.fd[0], SO_RCVTIMEO, 20000);
    meet(&m, carrier, 2);
    assert_int_equal(m.result, -1);
    assert_int_equal(m.error, EINTR);
    close_pair(m.fd);
}

static void a_signal_interrupts_a_thread(void **state)
{
    (void)state;
    handle_signals(0);
    for_each_reader(signal_one);
}

static void second_signals_and_pings(struct meeting *m)
{
    for (int i = 0; i < 10; i++) {
        pthread_kill(atomic_load(&m->thread), SIGUSR1);
        pause_ms(1);
    }
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(write(m->fd[1], "ping", 4) == 4);
}

static void restart_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads, .second = second_signals_and_pings};
    make_pair(end, m.fd);
    meet(&m, carrier, 2);
    assert_int_equal(m.result, 4);
    close_pair(m.fd);
}

static void restarted_calls_go_on(void **state)
{
    (void)state;
    handle_signals(SA_RESTART);
    for_each_reader(restart_one);
    assert_true(atomic_load(&io_signals) > 0);
}

static void cut_one(enum pn_carrier carrier, reader *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_reads, .second = cut_the_first};
    make_pair(end, m.fd);
    meet(&m, carrier, 2);
    assert_int_equal(m.result, -1);
    assert_int_equal(m.error, ETIMEDOUT);
    close_pair(m.fd);
}

static void a_cut_is_a_time_out(void **state)
{
    (void)state;
    for_each_reader(cut_one);
}

/* --- Closed under it ------------------------------------------------------------------------------ */

static void *close_elsewhere(void *arg)
{
    struct meeting *m = arg;
    REQUIRE(io->close(m->fd[0]) == 0);
    return NULL;
}

enum { BY_CLOSE = 0, BY_DUP2 = 1, BY_DUP3 = 2, BY_RANGE = 3, BY_THREAD = 4, WAYS = 5 };

static void second_closes(struct meeting *m)
{
    pthread_t other;
    int fd = m->fd[0];
    REQUIRE(atomic_load(&m->inside));
    switch (m->kind) {
    case BY_CLOSE:
        REQUIRE(io->close(fd) == 0);
        break;
    case BY_DUP2:
        REQUIRE(io->dup2(m->fd[1], fd) == fd);
        break;
    case BY_DUP3:
        REQUIRE(io->dup3(m->fd[1], fd, O_CLOEXEC) == fd);
        break;
    case BY_RANGE:
        REQUIRE(io->close_range((unsigned)fd, (unsigned)fd, 0) == 0);
        break;
    default:
        REQUIRE(pthread_create(&other, NULL, close_elsewhere, m) == 0);
        REQUIRE(pthread_join(other, NULL) == 0);
    }
}

/* Fibers: told at once. */
static void a_closed_descriptor_wakes_its_fibers(void **state)
{
    (void)state;
    for (int kind = 0; kind < WAYS; kind++) {
        struct meeting m = {
            .op = (void *)by_recv, .kind = kind, .first = first_reads, .second = second_closes};
        stream_pair(m.fd);
        meet(&m, PN_CARRIER_FIBERS, 2);
        assert_int_equal(m.result, -1);
        assert_int_equal(m.error, EBADF);
        if (kind != BY_DUP2 && kind != BY_DUP3)
            m.fd[0] = -1;
        close_pair(m.fd);
    }
}

/* Another file is opened at the number at once: what comes for it is not the old waiter's. */
static void second_closes_and_reuses(struct meeting *m)
{
    int other[2];
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(io->close(m->fd[0]) == 0);
    stream_pair(other);
    REQUIRE(other[0] == m->fd[0]);
    REQUIRE(write(other[1], "ping", 4) == 4);
    give_way_ms(5);
    char buf[4];
    REQUIRE(io->recv(other[0], buf, sizeof buf, 0) == 4);
    close(other[1]);
}

static void a_number_used_again_is_another_file(void **state)
{
    (void)state;
    struct meeting m = {
        .op = (void *)by_recv, .first = first_reads, .second = second_closes_and_reuses};
    stream_pair(m.fd);
    meet(&m, PN_CARRIER_FIBERS, 2);
    assert_int_equal(m.result, -1);
    assert_int_equal(m.error, EBADF);
    close_pair(m.fd);
}

/* Threads: the kernel's call holds the file, as without Pelton (unless the close came before it). */
static void second_closes_then_pings(struct meeting *m)
{
    pause_ms(20);
    REQUIRE(io->close(m->fd[0]) == 0);
    m->fd[0] = -1;
    (void)!send(m->fd[1], "ping", 4, MSG_NOSIGNAL);
}

static void a_thread_waits_on_in_the_kernel(void **state)
{
    (void)state;
    struct meeting m = {
        .op = (void *)by_recv, .first = first_reads, .second = second_closes_then_pings};
    stream_pair(m.fd);
    meet(&m, PN_CARRIER_THREADS, 2);
    assert_true(m.result == 4 || (m.result == -1 && m.error == EBADF));
    close_pair(m.fd);
}

/* A vfork's child has the parent's memory and its own descriptors. */
static void second_forks_and_pings(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    pid_t child = vfork();
    if (child == 0) {
        io->close(m->fd[0]);
        _exit(0);
    }
    REQUIRE(child > 0);
    REQUIRE(waitpid(child, NULL, 0) == child);
    give_way_ms(5);
    REQUIRE(write(m->fd[1], "ping", 4) == 4);
}

static void a_child_closes_its_own_descriptors_only(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {
            .op = (void *)by_recv, .first = first_reads, .second = second_forks_and_pings};
        stream_pair(m.fd);
        meet(&m, wait_carriers[c], 2);
        assert_int_equal(m.result, 4);
        close_pair(m.fd);
    }
}

/* --- Flags ------------------------------------------------------------------------------------------ */

enum { ALL = 0, ALL_TO_THE_END = 1, PEEK = 2, PEEK_ALL = 3, NO_WAIT = 4, NOTHING = 5, KINDS = 6 };

static void first_flags(struct meeting *m)
{
    char buf[8] = "";
    int fd = m->fd[0];
    atomic_store(&m->inside, true);
    switch (m->kind) {
    case ALL:
        REQUIRE(io->recv(fd, buf, 8, MSG_WAITALL) == 8 && memcmp(buf, "pingpong", 8) == 0);
        break;
    case ALL_TO_THE_END:
        REQUIRE(by_recvmsg(fd, buf, 8, MSG_WAITALL) == 6 && memcmp(buf, "pingpo", 6) == 0);
        break;
    case PEEK:
        REQUIRE(io->recv(fd, buf, 8, MSG_PEEK) >= 2);
        REQUIRE(io->recv(fd, buf, 8, MSG_WAITALL) == 8 && memcmp(buf, "pingpong", 8) == 0);
        break;
    case PEEK_ALL:
        REQUIRE(io->recv(fd, buf, 8, MSG_PEEK | MSG_WAITALL) == 8);
        REQUIRE(io->recv(fd, buf, 8, MSG_DONTWAIT) == 8 && memcmp(buf, "pingpong", 8) == 0);
        break;
    case NO_WAIT:
        for (size_t i = 0; i < FLAGLESS; i++)
            REQUIRE(readers[i](fd, buf, 8, MSG_DONTWAIT) == -1 && errno == EAGAIN);
        break;
    case NOTHING:
        REQUIRE(io->read(fd, buf, 0) == 0);
        REQUIRE(io->readv(fd, NULL, 0) == 0);
        REQUIRE(io->recvmmsg(fd, NULL, 0, 0, NULL) == 0);
        break;
    }
    atomic_store(&m->inside, false);
}

static void second_flags(struct meeting *m)
{
    static const char *const parts[] = {"pi", "ng", "po", "ng"};
    int count = m->kind == ALL_TO_THE_END ? 3 : 4;
    if (m->kind >= NO_WAIT)
        return;
    for (int i = 0; i < count; i++) {
        REQUIRE(write(m->fd[1], parts[i], 2) == 2);
        give_way_ms(3);
    }
    close(m->fd[1]);
    m->fd[1] = -1;
}

static void flags_mean_what_they_mean(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (int kind = 0; kind < KINDS; kind++) {
            struct meeting m = {.kind = kind, .first = first_flags, .second = second_flags};
            /* MSG_WAITALL with MSG_PEEK means nothing to a unix socket. */
            if (kind == PEEK_ALL)
                tcp_pair(m.fd);
            else
                stream_pair(m.fd);
            meet(&m, wait_carriers[c], 2);
            close_pair(m.fd);
        }
}

/* --- Several ---------------------------------------------------------------------------------------- */

enum { SHARERS = 10 };

static void share(struct meeting *m)
{
    char c;
    if (m->kind == PIPE)
        REQUIRE(io->read(m->fd[0], &c, 1) == 1);
    else
        REQUIRE(io->recv(m->fd[0], &c, 1, 0) == 1);
    atomic_fetch_add(&m->count, 1);
}

static void share_or_feed(struct visitor *v)
{
    struct meeting *m = v->world->arg;
    if (v->number < SHARERS) {
        share(m);
        return;
    }
    for (int i = 0; i < SHARERS; i++) {
        REQUIRE(write(m->fd[1], "x", 1) == 1);
        if (i % 3 == 0)
            give_way_ms(1);
    }
}

static void many_may_wait_for_one_descriptor(void **state)
{
    static struct world w;
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (enum end end = STREAM; end < ENDS; end++) {
            struct meeting m = {.kind = (int)end};
            make_pair(end, m.fd);
            w = (struct world){.arg = &m};
            wait_serve(&w, wait_carriers[c], SHARERS + 1, share_or_feed);
            assert_int_equal(atomic_load(&m.count), SHARERS);
            close_pair(m.fd);
        }
}

static void first_mmsg(struct meeting *m)
{
    char buf[3][8];
    struct iovec parts[3];
    struct mmsghdr messages[3] = {0};
    struct timespec t = {.tv_sec = 20};
    for (int i = 0; i < 3; i++) {
        parts[i] = (struct iovec){buf[i], sizeof buf[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    if (m->kind == 0) {
        REQUIRE(io->recvmmsg(m->fd[0], messages, 3, 0, &t) == 3);
        REQUIRE(messages[0].msg_len == 1 && messages[1].msg_len == 2 && messages[2].msg_len == 3);
        REQUIRE(t.tv_sec < 20);
    } else {
        REQUIRE(io->recvmmsg(m->fd[0], messages, 3, MSG_WAITFORONE, NULL) >= 1);
        REQUIRE(messages[0].msg_len == 1);
    }
}

static void second_mmsg(struct meeting *m)
{
    for (size_t i = 1; i <= 3; i++) {
        REQUIRE(write(m->fd[1], "xxx", i) == (ssize_t)i);
        give_way_ms(2);
    }
}

static void several_messages_are_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (int kind = 0; kind < 2; kind++) {
            struct meeting m = {.kind = kind, .first = first_mmsg, .second = second_mmsg};
            make_pair(DATAGRAM, m.fd);
            meet(&m, wait_carriers[c], 2);
            close_pair(m.fd);
        }
}

static void first_addressed(struct meeting *m)
{
    char buf[8];
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    REQUIRE(io->recvfrom(m->fd[0], buf, 8, 0, (struct sockaddr *)&from, &size) == 4);
    REQUIRE(from.ss_family == AF_INET && size == sizeof(struct sockaddr_in));
    /* A datagram that is longer than the room for it is cut, and MSG_TRUNC says its length. */
    REQUIRE(io->recv(m->fd[0], buf, 2, MSG_TRUNC) == 4);
    /* Longer than the room wanted, WAITALL or not: a datagram comes whole. */
    REQUIRE(io->recv(m->fd[0], buf, 8, MSG_WAITALL) == 4);
}

static void second_addressed(struct meeting *m)
{
    struct sockaddr_in to;
    socklen_t size = sizeof to;
    REQUIRE(getsockname(m->fd[0], (struct sockaddr *)&to, &size) == 0);
    for (int i = 0; i < 3; i++) {
        REQUIRE(sendto(m->fd[1], "ping", 4, 0, (struct sockaddr *)&to, size) == 4);
        give_way_ms(3);
    }
}

static void datagrams_come_with_their_address(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_addressed, .second = second_addressed};
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        for (int i = 0; i < 2; i++)
            m.fd[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(m.fd[0], (struct sockaddr *)&any, sizeof any), 0);
        meet(&m, wait_carriers[c], 2);
        close_pair(m.fd);
    }
}

static void first_refused(struct meeting *m)
{
    char c;
    (void)m;
    REQUIRE(io->read(-1, &c, 1) == -1 && errno == EBADF);
    REQUIRE(io->recv(-1, &c, 1, 0) == -1 && errno == EBADF);
    REQUIRE(io->recv(m->fd[0], &c, 1, 0) == -1 && errno == ENOTSOCK);
    REQUIRE(io->read(m->fd[1], &c, 1) == -1 && errno == EBADF); /* a pipe's other end */
    /* What was a pipe is a socket now: nothing that was learned of the number may count. */
    int pair[2];
    stream_pair(pair);
    REQUIRE(dup2(pair[0], m->fd[0]) == m->fd[0]);
    REQUIRE(write(pair[1], "x", 1) == 1);
    REQUIRE(io->read(m->fd[0], &c, 1) == 1);
    close_pair(pair);
}

static void what_libc_refuses_is_refused(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_refused};
        make_pair(PIPE, m.fd);
        assert_int_equal(meet(&m, wait_carriers[c], 1), 0);
        close_pair(m.fd);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_there_is_waited_for),
        cmocka_unit_test(what_is_there_is_read_at_once),
        cmocka_unit_test(a_socket_s_time_out_counts),
        cmocka_unit_test(a_nonblocking_descriptor_says_so),
        cmocka_unit_test(the_end_ends_a_wait),
        cmocka_unit_test(a_signal_interrupts_a_thread),
        cmocka_unit_test(restarted_calls_go_on),
        cmocka_unit_test(a_cut_is_a_time_out),
        cmocka_unit_test(a_closed_descriptor_wakes_its_fibers),
        cmocka_unit_test(a_number_used_again_is_another_file),
        cmocka_unit_test(a_thread_waits_on_in_the_kernel),
        cmocka_unit_test(a_child_closes_its_own_descriptors_only),
        cmocka_unit_test(flags_mean_what_they_mean),
        cmocka_unit_test(many_may_wait_for_one_descriptor),
        cmocka_unit_test(several_messages_are_waited_for),
        cmocka_unit_test(datagrams_come_with_their_address),
        cmocka_unit_test(what_libc_refuses_is_refused),
    };
    if (io_load(argc, argv) < 0)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
