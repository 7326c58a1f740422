/* SPDX-License-Identifier: Apache-2.0 */
/* send, write and their kin, sendfile and splice in cores of both carriers that wait. */
#include <pty.h>
#include <stdlib.h>
#include <sys/un.h>
#include <termios.h>

#include "../support/io_fixture.h"
#include "test_base.h"

enum { BIG = 700000 };

static char big[BIG];

static void fill_big(void)
{
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 31 + i / 257);
}

/* --- Six ways to write ------------------------------------------------------------------------------ */

typedef ssize_t writer(int fd, const void *buf, size_t size);

static ssize_t by_send(int fd, const void *buf, size_t size)
{
    return io->send(fd, buf, size, MSG_NOSIGNAL);
}

static ssize_t by_sendto(int fd, const void *buf, size_t size)
{
    return io->sendto(fd, buf, size, MSG_NOSIGNAL, NULL, 0);
}

/* In more parts than are given to the kernel at once after the first time. */
enum { PARTS = 150 };

static int split(struct iovec parts[PARTS], const void *buf, size_t size)
{
    size_t each = size / PARTS + 1, at = 0;
    int count = 0;
    for (; at < size; count++) {
        size_t length = pn_min_size(each, size - at);
        parts[count] = (struct iovec){(char *)buf + at, length};
        at += length;
    }
    return count;
}

static ssize_t by_sendmsg(int fd, const void *buf, size_t size)
{
    struct iovec parts[PARTS];
    struct msghdr m = {.msg_iov = parts};
    m.msg_iovlen = (size_t)split(parts, buf, size);
    return io->sendmsg(fd, &m, MSG_NOSIGNAL);
}

static ssize_t by_sendmmsg(int fd, const void *buf, size_t size)
{
    struct iovec parts[3] = {{(char *)buf, size / 3},
                             {(char *)buf + size / 3, size / 3},
                             {(char *)buf + size / 3 * 2, size - size / 3 * 2}};
    struct mmsghdr messages[3] = {0};
    for (int i = 0; i < 3; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    int r = io->sendmmsg(fd, messages, 3, MSG_NOSIGNAL);
    ssize_t total = 0;
    for (int i = 0; i < r; i++)
        total += (ssize_t)messages[i].msg_len;
    return r < 0 ? r : total;
}

static ssize_t by_write(int fd, const void *buf, size_t size)
{
    return io->write(fd, buf, size);
}

static ssize_t by_writev(int fd, const void *buf, size_t size)
{
    struct iovec parts[PARTS];
    return io->writev(fd, parts, split(parts, buf, size));
}

static writer *const writers[] = {by_send, by_sendto, by_sendmsg, by_sendmmsg, by_write, by_writev};
enum { FLAGLESS = 4 };

enum end { STREAM = 0, TCP = 1, PIPE = 2, ENDS = 3 };

/* fd[0] reads, fd[1] writes. */
static void make_pair(enum end end, int fd[2])
{
    if (end == PIPE)
        REQUIRE(pipe2(fd, O_CLOEXEC) == 0);
    else if (end == TCP)
        tcp_pair(fd);
    else
        stream_pair(fd);
    int small = 20000;
    if (end != PIPE)
        REQUIRE(setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
}

static void for_each_writer(void (*one)(enum pn_carrier carrier, writer *op, enum end end))
{
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (size_t i = 0; i < PN_ARRAY_LEN(writers); i++)
            for (enum end end = STREAM; end < ENDS; end++)
                if (end != PIPE || i >= FLAGLESS)
                    one(wait_carriers[c], writers[i], end);
}

static void first_writes(struct meeting *m)
{
    writer *op = (writer *)m->op;
    MEETING_CALL(m, op(m->fd[1], big, m->kind ? (size_t)m->kind : BIG));
}

/* All that comes until there is no more, compared. */
static size_t drain(int fd, size_t until)
{
    static char buf[9973];
    size_t got = 0;
    while (got < until) {
        ssize_t r = io->read(fd, buf, pn_min_size(sizeof buf, until - got));
        if (r <= 0)
            break;
        REQUIRE(memcmp(buf, big + got, (size_t)r) == 0);
        got += (size_t)r;
    }
    return got;
}

static void second_drains(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(drain(m->fd[0], BIG) == BIG);
}

static void whole_one(enum pn_carrier carrier, writer *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_writes, .second = second_drains};
    make_pair(end, m.fd);
    assert_true(meet(&m, carrier, 2) > 0);
    assert_int_equal(m.result, BIG);
    assert_int_equal(m.error, 1234);
    close_pair(m.fd);
}

static void a_blocking_write_goes_on_to_the_end(void **state)
{
    (void)state;
    for_each_writer(whole_one);
}

/* One that is ready has room for a byte: a fiber always waits, and from a thread the loop is taken. */
static void a_terminal_takes_all(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (size_t i = FLAGLESS; i < PN_ARRAY_LEN(writers); i++) {
            struct meeting m = {
                .op = (void *)writers[i], .first = first_writes, .second = second_drains};
            struct termios raw;
            assert_int_equal(openpty(&m.fd[0], &m.fd[1], NULL, NULL, NULL), 0);
            assert_int_equal(tcgetattr(m.fd[1], &raw), 0);
            cfmakeraw(&raw);
            assert_int_equal(tcsetattr(m.fd[1], TCSANOW, &raw), 0);
            uint64_t waited = meet(&m, wait_carriers[c], 2);
            assert_true(waited > 0 || wait_carriers[c] == PN_CARRIER_THREADS);
            assert_int_equal(m.result, BIG);
            assert_int_equal(m.error, 1234);
            close_pair(m.fd);
        }
}

static void small_one(enum pn_carrier carrier, writer *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .kind = 100, .first = first_writes};
    make_pair(end, m.fd);
    assert_int_equal(meet(&m, carrier, 1), 0);
    assert_int_equal(m.result, 100);
    assert_int_equal(drain(m.fd[0], 100), 100);
    close_pair(m.fd);
}

static void what_has_room_goes_at_once(void **state)
{
    (void)state;
    for_each_writer(small_one);
}

static void first_writes_twice(struct meeting *m)
{
    writer *op = (writer *)m->op;
    ssize_t r = op(m->fd[1], big, BIG);
    REQUIRE(r > 0 && r < BIG);
    for (ssize_t sent = r; r > 0; sent += r) /* TCP takes more as the peer's buffer grows */
        r = op(m->fd[1], big + sent, (size_t)(BIG - sent));
    REQUIRE(r == -1 && errno == EAGAIN);
}

static void nonblocking_one(enum pn_carrier carrier, writer *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_writes_twice};
    make_pair(end, m.fd);
    set_nonblocking(m.fd[1]);
    assert_int_equal(meet(&m, carrier, 1), 0);
    close_pair(m.fd);
}

static void a_nonblocking_descriptor_takes_a_part(void **state)
{
    (void)state;
    for_each_writer(nonblocking_one);
}

static void timeout_one(enum pn_carrier carrier, writer *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_writes};
    if (end == PIPE)
        return;
    make_pair(end, m.fd);
    set_timeout(m.fd[1], SO_SNDTIMEO, 30);
    assert_true(meet(&m, carrier, 1) > 0);
    assert_true(m.result > 0 && m.result < BIG);
    assert_true(m.took_ns >= 25 * PN_NS_PER_MS);
    size_t sent = (size_t)m.result;
    /* Full from the beginning now (TCP may have found room after all). */
    do {
        meet(&m, carrier, 1);
    } while (m.result > 0);
    assert_int_equal(m.result, -1);
    assert_int_equal(m.error, EAGAIN);
    assert_int_equal(drain(m.fd[0], sent), sent);
    close_pair(m.fd);
}

static void a_time_out_leaves_a_part(void **state)
{
    (void)state;
    for_each_writer(timeout_one);
}

/* --- The reader goes, a signal, a cut ---------------------------------------------------------------- */

static void second_goes(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(drain(m->fd[0], 50000) == 50000);
    give_way_ms(5);
    close(m->fd[0]);
    m->fd[0] = -1;
}

static void gone_one(enum pn_carrier carrier, writer *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_writes, .second = second_goes};
    make_pair(end, m.fd);
    meet(&m, carrier, 2);
    /* What went before is the result; the error is the next call's. */
    assert_true(m.result >= 50000 && m.result < BIG);
    meet(&m, carrier, 1);
    assert_int_equal(m.result, -1);
    assert_true(m.error == EPIPE || m.error == ECONNRESET);
    close_pair(m.fd);
}

static void a_reader_that_goes_ends_it(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    for_each_writer(gone_one);
    signal(SIGPIPE, SIG_DFL);
}

static void signal_one(enum pn_carrier carrier, writer *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_writes, .second = signal_the_first};
    if (carrier == PN_CARRIER_FIBERS)
        return;
    make_pair(end, m.fd);
    meet(&m, carrier, 2);
    assert_true(m.result > 0 && m.result < BIG);
    close_pair(m.fd);
}

static void a_signal_leaves_a_part(void **state)
{
    (void)state;
    handle_signals(0);
    for_each_writer(signal_one);
}

static void cut_one(enum pn_carrier carrier, writer *op, enum end end)
{
    struct meeting m = {.op = (void *)op, .first = first_writes, .second = cut_the_first};
    make_pair(end, m.fd);
    meet(&m, carrier, 2);
    assert_true(m.result > 0 && m.result < BIG);
    close_pair(m.fd);
}

static void a_cut_leaves_a_part(void **state)
{
    (void)state;
    for_each_writer(cut_one);
}

/* --- A datagram whose receiver is full: poll(2) says ready all the time ------------------------------- */

static void first_floods(struct meeting *m)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "@pelton-test-full"};
    to.sun_path[0] = 0;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 17);
    atomic_store(&m->inside, true);
    for (int i = 0; i < 1000; i++)
        REQUIRE(io->sendto(m->fd[1], "x", 1, 0, (struct sockaddr *)&to, size) == 1);
    atomic_store(&m->inside, false);
}

static void second_takes(struct meeting *m)
{
    char c;
    REQUIRE(atomic_load(&m->inside));
    for (int i = 0; i < 1000; i++)
        REQUIRE(io->recv(m->fd[0], &c, 1, 0) == 1);
}

static void a_full_receiver_is_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_floods, .second = second_takes};
        struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "@pelton-test-full"};
        at.sun_path[0] = 0;
        for (int i = 0; i < 2; i++)
            m.fd[i] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 17);
        assert_int_equal(bind(m.fd[0], (struct sockaddr *)&at, size), 0);
        assert_true(meet(&m, wait_carriers[c], 2) > 0);
        close_pair(m.fd);
    }
}

/* --- Descriptors that came with the bytes -------------------------------------------------------------- */

static void first_passes(struct meeting *m)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {big, BIG};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &(int){0}, sizeof(int));
    atomic_store(&m->inside, true);
    REQUIRE(io->sendmsg(m->fd[1], &message, 0) == BIG);
}

static void second_unpacks(struct meeting *m)
{
    size_t got = 0;
    int passed = 0;
    while (got < BIG) {
        static char buf[50000];
        char room[CMSG_SPACE(sizeof(int))];
        struct iovec part = {buf, sizeof buf};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
        ssize_t r = io->recvmsg(m->fd[0], &message, 0);
        REQUIRE(r > 0 && memcmp(buf, big + got, (size_t)r) == 0);
        got += (size_t)r;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        if (c) {
            int fd;
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
            close(fd);
            passed++;
        }
    }
    REQUIRE(passed == 1);
}

static void ancillary_data_go_once(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_passes, .second = second_unpacks};
        make_pair(STREAM, m.fd);
        meet(&m, wait_carriers[c], 2);
        close_pair(m.fd);
    }
}

/* --- From one descriptor to another ------------------------------------------------------------------- */

static void first_sends_file(struct meeting *m)
{
    char path[] = "/tmp/pelton-test-XXXXXX";
    int file = mkostemp(path, O_CLOEXEC);
    REQUIRE(file >= 0 && unlink(path) == 0 && write(file, big, BIG) == BIG);
    atomic_store(&m->inside, true);
    if (m->kind == 0) {
        off_t offset = 0;
        REQUIRE(lseek(file, 17, SEEK_SET) == 17);
        REQUIRE(io->sendfile(m->fd[1], file, &offset, BIG + 1000) == BIG);
        REQUIRE(offset == BIG && lseek(file, 0, SEEK_CUR) == 17);
    } else {
        REQUIRE(lseek(file, 0, SEEK_SET) == 0);
        REQUIRE(io->sendfile64(m->fd[1], file, NULL, BIG) == BIG);
        REQUIRE(lseek(file, 0, SEEK_CUR) == BIG);
        REQUIRE(io->sendfile(m->fd[1], file, NULL, BIG) == 0);
    }
    close(file);
}

static void files_are_sent_whole(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (enum end end = STREAM; end < PIPE; end++)
            for (int kind = 0; kind < 2; kind++) {
                struct meeting m = {
                    .kind = kind, .first = first_sends_file, .second = second_drains};
                make_pair(end, m.fd);
                assert_true(meet(&m, wait_carriers[c], 2) > 0);
                close_pair(m.fd);
            }
}

/* To a pipe sendfile waits for some room and fills that. */
static void first_sends_to_pipe(struct meeting *m)
{
    int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    off_t offset = 0;
    REQUIRE(write(file, big, BIG) == BIG);
    atomic_store(&m->inside, true);
    while (offset < BIG) {
        ssize_t r = io->sendfile(m->fd[1], file, &offset, BIG);
        REQUIRE(r > 0);
    }
    close(file);
}

static void files_go_into_pipes(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_sends_to_pipe, .second = second_drains};
        make_pair(PIPE, m.fd);
        assert_true(meet(&m, wait_carriers[c], 2) > 0);
        close_pair(m.fd);
    }
}

static void first_splices(struct meeting *m)
{
    int sock[2];
    char buf[8];
    stream_pair(sock);
    errno = 1234;
    atomic_store(&m->inside, true);
    REQUIRE(io->splice(m->fd[0], NULL, sock[1], NULL, 4, 0) == 4);
    REQUIRE(errno == 1234);
    REQUIRE(recv(sock[0], buf, 8, 0) == 4 && memcmp(buf, "ping", 4) == 0);
    REQUIRE(io->splice(m->fd[0], NULL, sock[1], NULL, 4, SPLICE_F_NONBLOCK) == -1);
    REQUIRE(errno == EAGAIN);
    close_pair(sock);
}

static void second_pings(struct meeting *m)
{
    ping_the_first(m, "ping");
}

static void a_splice_waits_for_its_pipe(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_splices, .second = second_pings};
        make_pair(PIPE, m.fd);
        assert_true(meet(&m, wait_carriers[c], 2) > 0);
        close_pair(m.fd);
    }
}

static void first_refused(struct meeting *m)
{
    REQUIRE(io->write(-1, "x", 1) == -1 && errno == EBADF);
    REQUIRE(io->send(-1, "x", 1, 0) == -1 && errno == EBADF);
    REQUIRE(io->write(m->fd[0], "x", 1) == -1 && errno == EBADF);
    REQUIRE(io->write(m->fd[0], big, BIG) == -1 && errno == EBADF);
    REQUIRE(io->send(m->fd[1], "x", 1, 0) == -1 && errno == ENOTSOCK);
    REQUIRE(io->write(m->fd[1], "x", 0) == 0);
    REQUIRE(io->sendmmsg(m->fd[1], NULL, 0, 0) == -1 && errno == ENOTSOCK);
    REQUIRE(io->sendfile(m->fd[1], -1, NULL, 10) == -1 && errno == EBADF);
    /* Files: any size, never a wait. */
    int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    REQUIRE(io->write(file, big, BIG) == BIG && io->write(file, "x", 1) == 1);
    REQUIRE(by_writev(file, big, BIG) == BIG);
    REQUIRE(lseek(file, 0, SEEK_SET) == 0 && drain(file, BIG) == BIG);
    close(file);
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
        cmocka_unit_test(a_blocking_write_goes_on_to_the_end),
        cmocka_unit_test(a_terminal_takes_all),
        cmocka_unit_test(what_has_room_goes_at_once),
        cmocka_unit_test(a_nonblocking_descriptor_takes_a_part),
        cmocka_unit_test(a_time_out_leaves_a_part),
        cmocka_unit_test(a_reader_that_goes_ends_it),
        cmocka_unit_test(a_signal_leaves_a_part),
        cmocka_unit_test(a_cut_leaves_a_part),
        cmocka_unit_test(a_full_receiver_is_waited_for),
        cmocka_unit_test(ancillary_data_go_once),
        cmocka_unit_test(files_are_sent_whole),
        cmocka_unit_test(files_go_into_pipes),
        cmocka_unit_test(a_splice_waits_for_its_pipe),
        cmocka_unit_test(what_libc_refuses_is_refused),
    };
    if (io_load(argc, argv) < 0)
        return 2;
    fill_big();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
