/* SPDX-License-Identifier: Apache-2.0 */
/* The plain transport: results translated, nothing moved twice, no signal, resets that are
 * resets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/transport.h"

static struct pn_transport t;
static int peer;

static int unix_pair(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    pn_transport_plain_init(&t, fds[0], true);
    peer = fds[1];
    return 0;
}

static int tcp_pair(void **state)
{
    (void)state;
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t n = sizeof(in);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int l = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(l, (struct sockaddr *)&in, n), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&in, &n), 0);
    peer = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(peer, (struct sockaddr *)&in, n), 0);
    int fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    assert_true(fd >= 0);
    close(l);
    pn_transport_plain_init(&t, fd, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (t.fd >= 0)
        t.ops->close(&t, false);
    close(peer);
    return 0;
}

static void reading(void **state)
{
    (void)state;
    char a[4], b[8];
    struct iovec iov[2] = {{a, sizeof(a)}, {b, sizeof(b)}};
    size_t done = 99;
    assert_int_equal(t.ops->readv(&t, iov, 1, &done), PN_IO_WANT_READ);
    assert_int_equal(t.ops->readv(&t, iov, 2, &done), PN_IO_WANT_READ);
    assert_int_equal(write(peer, "hello", 5), 5);
    assert_int_equal(t.ops->readv(&t, iov, 2, &done), PN_IO_OK);
    assert_int_equal(done, 5);
    assert_memory_equal(a, "hell", 4);
    assert_memory_equal(b, "o", 1);
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    assert_int_equal(t.ops->readv(&t, iov, 1, &done), PN_IO_OK);
    assert_int_equal(done, 0);
    assert_int_equal(t.ops->pending(&t), 0);
    assert_true(t.ops->short_read_drains);
}

static void writing_until_full(void **state)
{
    (void)state;
    static char block[65536];
    struct iovec iov[2] = {{(void *)"ab", 2}, {block, sizeof(block)}};
    size_t done = 0, total = 0;
    enum pn_io io;
    assert_int_equal(t.ops->writev(&t, iov, 1, &done), PN_IO_OK);
    assert_int_equal(done, 2);
    while ((io = t.ops->writev(&t, iov, 2, &done)) == PN_IO_OK)
        total += done;
    assert_int_equal(io, PN_IO_WANT_WRITE);
    assert_true(total > 0);
    assert_int_equal(t.ops->shutdown(&t), PN_IO_OK);
    size_t got = 0;
    ssize_t n;
    fcntl(peer, F_SETFL, 0);
    while ((n = read(peer, block, sizeof(block))) > 0)
        got += (size_t)n;
    assert_int_equal(got, total + 2);
}

static void a_peer_that_has_gone_is_an_error_and_no_signal(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_DFL);
    struct iovec iov = {(void *)"x", 1};
    size_t done;
    close(peer);
    enum pn_io io = PN_IO_OK;
    for (int i = 0; i < 100 && io == PN_IO_OK; i++) {
        io = t.ops->writev(&t, &iov, 1, &done);
        usleep(1000); /* TCP: the reset takes its time */
    }
    assert_int_equal(io, PN_IO_ERROR);
    assert_true(t.error == EPIPE || t.error == ECONNRESET);
    peer = -1;
}

static void files(void **state)
{
    (void)state;
    char name[] = "/tmp/pn_transportXXXXXX";
    int file = mkstemp(name);
    unlink(name);
    assert_int_equal(write(file, "0123456789", 10), 10);
    off_t offset = 2;
    size_t done = 0;
    assert_int_equal(t.ops->sendfile(&t, file, &offset, 5, &done), PN_IO_OK);
    assert_int_equal(done, 5);
    assert_int_equal(offset, 7);
    offset = 10;
    assert_int_equal(t.ops->sendfile(&t, file, &offset, 5, &done), PN_IO_OK);
    assert_int_equal(done, 0); /* ended early */
    char got[16];
    assert_int_equal(read(peer, got, sizeof(got)), 5);
    assert_memory_equal(got, "23456", 5);
    /* A pipe can not be sent so; the owner reads and writes it. */
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    offset = 0;
    assert_int_equal(t.ops->sendfile(&t, pipes[0], &offset, 5, &done), PN_IO_ERROR);
    assert_int_equal(t.error, EINVAL);
    close(pipes[0]);
    close(pipes[1]);
    close(file);
}

static void a_reset_is_seen_as_one(void **state)
{
    (void)state;
    char c;
    t.ops->close(&t, true);
    assert_int_equal(t.fd, -1);
    t.ops->close(&t, true); /* harmless */
    assert_int_equal(read(peer, &c, 1), -1);
    assert_int_equal(errno, ECONNRESET);
}

static void an_orderly_close_is_no_reset(void **state)
{
    (void)state;
    char c;
    t.ops->close(&t, false);
    assert_int_equal(read(peer, &c, 1), 0);
}

#define UNIX(fn) cmocka_unit_test_setup_teardown(fn, unix_pair, tear_down)
#define TCP(fn)  cmocka_unit_test_setup_teardown(fn, tcp_pair, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIX(reading),
        TCP(reading),
        UNIX(writing_until_full),
        TCP(writing_until_full),
        UNIX(a_peer_that_has_gone_is_an_error_and_no_signal),
        TCP(a_peer_that_has_gone_is_an_error_and_no_signal),
        UNIX(files),
        TCP(files),
        TCP(a_reset_is_seen_as_one),
        TCP(an_orderly_close_is_no_reset),
        UNIX(an_orderly_close_is_no_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
