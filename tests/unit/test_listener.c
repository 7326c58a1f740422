/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners on real sockets, and the acceptor on a real loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/log.h"
#include "net/listener.h"

static char dir[] = "/tmp/pn_listenXXXXXX";
static char path[128];
static char err[512];

static int make_dir(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "unix:%s/s", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir); /* fails when a test left something behind */
}

static int open_it(const char *text, const struct pn_listener_config *config,
                   struct pn_listener **l)
{
    struct pn_address a;
    const struct pn_listener_config none = {0};
    err[0] = '\0';
    assert_int_equal(pn_address_parse(text, &a, err, sizeof(err)), 0);
    return pn_listener_open(&a, config ? config : &none, l, err, sizeof(err));
}

static struct pn_listener *must_open(const char *text, const struct pn_listener_config *config)
{
    struct pn_listener *l = NULL;
    int rc = open_it(text, config, &l);
    if (rc != 0)
        print_error("%s: %s\n", text, err);
    assert_int_equal(rc, 0);
    return l;
}

static int connect_to(const struct pn_listener *l)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof(a);
    assert_int_equal(getsockname(pn_listener_fd(l), (struct sockaddr *)&a, &n), 0);
    int fd = socket(a.ss_family, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, n), 0);
    return fd;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t n = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &n), 0);
    return value;
}

static void tcp(void **state)
{
    (void)state;
    struct pn_listener *l =
        must_open("127.0.0.1:0", &(struct pn_listener_config){.defer_accept = true});
    char text[64];
    assert_true(pn_listener_port(l) > 0);
    snprintf(text, sizeof(text), "127.0.0.1:%u", pn_listener_port(l));
    assert_string_equal(pn_listener_text(l), text);
    assert_string_equal(pn_listener_host(l), "127.0.0.1");
    assert_false(pn_listener_is_unix(l));
    assert_true(fcntl(pn_listener_fd(l), F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(pn_listener_fd(l), F_GETFD) & FD_CLOEXEC);
    assert_true(option(pn_listener_fd(l), IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0);

    struct pn_listener *second;
    assert_int_equal(open_it(text, NULL, &second), -EADDRINUSE);
    assert_non_null(strstr(err, text));
    assert_non_null(strstr(err, "the port is in use"));
    assert_non_null(strstr(err, "choose another"));
    pn_listener_close(l, true);
    second = must_open(text, NULL); /* at once: SO_REUSEADDR */
    pn_listener_close(second, true);
    pn_listener_close(NULL, true);
}

static void accepted_sockets_inherit_nodelay(void **state)
{
    (void)state;
    struct pn_listener *l = must_open("127.0.0.1:0", NULL);
    int client = connect_to(l);
    int fd = accept(pn_listener_fd(l), NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    close(fd);
    close(client);
    pn_listener_close(l, true);
}

static void two_share_a_port_when_asked(void **state)
{
    (void)state;
    const struct pn_listener_config share = {.reuse_port = true};
    struct pn_listener *a = must_open("127.0.0.1:0", &share);
    struct pn_listener *b = must_open(pn_listener_text(a), &share);
    assert_int_equal(pn_listener_port(a), pn_listener_port(b));
    pn_listener_close(a, true);
    pn_listener_close(b, true);
}

static void ipv6_takes_ipv4_too(void **state)
{
    (void)state;
    struct pn_listener *l = NULL;
    int rc = open_it("[::]:0", NULL, &l);
    if (rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL) {
        print_message("no IPv6 here: %s\n", err);
        return;
    }
    assert_int_equal(rc, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(pn_listener_port(l))};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    close(fd);
    pn_listener_close(l, true);
}

static void not_ours(void **state)
{
    (void)state;
    struct pn_listener *l;
    assert_int_equal(open_it("192.0.2.1:0", NULL, &l), -EADDRNOTAVAIL);
    assert_non_null(strstr(err, "none of this machine's"));
}

static void the_backlog_has_a_note(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    struct pn_log *log = pn_log_create(pipes[1], PN_LOG_INFO);
    pn_log_set_default(log);
    struct pn_listener *l =
        must_open("127.0.0.1:0", &(struct pn_listener_config){.backlog = 1 << 30});
    pn_listener_close(l, true);
    pn_log_flush(log);
    char line[512] = "";
    assert_true(read(pipes[0], line, sizeof(line) - 1) > 0);
    assert_non_null(strstr(line, "backlog of 1073741824"));
    assert_non_null(strstr(line, "somaxconn"));
    pn_log_set_default(NULL);
    pn_log_destroy(log);
    close(pipes[0]);
    close(pipes[1]);
}

/* --- Unix sockets --- */

static void unix_mode_and_removal(void **state)
{
    (void)state;
    struct stat st;
    char owner[64];
    snprintf(owner, sizeof(owner), "%u:%u", getuid(), getgid());
    const struct pn_listener_config config = {.set_mode = true, .mode = 0620, .owner = owner};
    mode_t mask = umask(022);
    struct pn_listener *l = must_open(path, &config);
    assert_int_equal(umask(mask), 022); /* as before */
    assert_int_equal(stat(path + 5, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0620);
    assert_true(pn_listener_is_unix(l));
    assert_string_equal(pn_listener_text(l), path);
    close(connect_to(l));
    pn_listener_close(l, true);
    assert_int_equal(stat(path + 5, &st), -1);
}

static void a_stale_socket_is_replaced(void **state)
{
    (void)state;
    struct pn_listener *l = must_open(path, NULL);
    pn_listener_close(l, false); /* the file stays, nobody accepts */
    assert_int_equal(access(path + 5, F_OK), 0);
    l = must_open(path, NULL);
    close(connect_to(l));
    struct pn_listener *second;
    assert_int_equal(open_it(path, NULL, &second), -EADDRINUSE);
    assert_non_null(strstr(err, "another server accepts there"));
    assert_int_equal(access(path + 5, F_OK), 0);
    pn_listener_close(l, true);
}

static void what_is_no_socket_stays(void **state)
{
    (void)state;
    struct pn_listener *l;
    close(open(path + 5, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(open_it(path, NULL, &l), -ENOTSOCK);
    assert_non_null(strstr(err, "no socket"));
    assert_int_equal(unlink(path + 5), 0);
    assert_int_equal(open_it("unix:/no/such/dir/s", NULL, &l), -ENOENT);
    assert_non_null(strstr(err, "directory"));
}

static void a_socket_of_somebody_else_stays(void **state)
{
    (void)state;
    struct pn_listener *l = must_open(path, NULL);
    assert_int_equal(unlink(path + 5), 0);
    struct pn_listener *other = must_open(path, NULL);
    pn_listener_close(l, true); /* not its file any more */
    assert_int_equal(access(path + 5, F_OK), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pn_listener_close(other, true); /* a worker: not the maker */
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    assert_int_equal(access(path + 5, F_OK), 0);
    pn_listener_close(other, true);
    assert_int_equal(access(path + 5, F_OK), -1);
}

static void a_failed_open_leaves_no_file(void **state)
{
    (void)state;
    struct pn_listener *l;
    const struct pn_listener_config config = {.owner = "no_such_user_here"};
    assert_int_equal(open_it(path, &config, &l), -EINVAL);
    assert_non_null(strstr(err, "no_such_user_here"));
    assert_int_equal(access(path + 5, F_OK), -1);
}

static void abstract_names(void **state)
{
    (void)state;
    char name[64];
    snprintf(name, sizeof(name), "@pn_test_%d", getpid());
    struct pn_listener *l = must_open(name, NULL);
    assert_string_equal(pn_listener_text(l), name);
    close(connect_to(l));
    struct pn_listener *second;
    assert_int_equal(open_it(name, NULL, &second), -EADDRINUSE);
    pn_listener_close(l, true);
}

static void inherited_descriptors_are_checked(void **state)
{
    (void)state;
    struct pn_listener *made = must_open("127.0.0.1:0", NULL), *l;
    char text[64];
    int fd = dup(pn_listener_fd(made));
    snprintf(text, sizeof(text), "fd://%d", fd);
    l = must_open(text, NULL);
    assert_string_equal(pn_listener_text(l), pn_listener_text(made));
    assert_int_equal(pn_listener_port(l), pn_listener_port(made));
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    pn_listener_close(l, true);
    pn_listener_close(made, true);
    assert_true(open_it(text, NULL, &l) < 0);
    assert_non_null(strstr(err, "no such descriptor"));
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    snprintf(text, sizeof(text), "fd://%d", udp);
    assert_true(open_it(text, NULL, &l) < 0);
    assert_non_null(strstr(err, "not a stream socket"));
    close(udp);
    int tcp_fd = socket(AF_INET, SOCK_STREAM, 0);
    snprintf(text, sizeof(text), "fd://%d", tcp_fd);
    assert_true(open_it(text, NULL, &l) < 0);
    assert_non_null(strstr(err, "nobody has called listen"));
    assert_int_equal(close(tcp_fd), 0); /* still the caller's */
    snprintf(text, sizeof(text), "fd://%d", open("/dev/null", O_RDONLY));
    assert_true(open_it(text, NULL, &l) < 0);
    assert_non_null(strstr(err, "no socket"));
    close(atoi(text + 5));
}

/* --- Accepting --- */

struct counter {
    unsigned accepted;
    unsigned in_turn;
    unsigned most_in_turn;
    uint64_t turn;
    struct pn_loop *loop;
    struct pn_listener *last;
};

static void on_accept(void *ctx, const struct pn_accepted *a)
{
    struct counter *c = ctx;
    struct pn_loop_stats s;
    pn_loop_stats(c->loop, &s);
    c->in_turn = s.turns == c->turn ? c->in_turn + 1 : 1;
    c->turn = s.turns;
    c->most_in_turn = c->in_turn > c->most_in_turn ? c->in_turn : c->most_in_turn;
    c->accepted++;
    c->last = a->listener;
    assert_true(fcntl(a->fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(a->fd, F_GETFD) & FD_CLOEXEC);
    assert_true(a->peer_len <= sizeof(a->peer));
    close(a->fd);
}

static void stop_loop(struct pn_timer *t)
{
    (void)t;
}

/* Runs for a while, or until N are accepted. */
static void run(struct counter *c, unsigned n, int64_t ms)
{
    struct pn_timer stop;
    pn_timer_init(&stop, stop_loop);
    assert_int_equal(pn_timer_set(c->loop, &stop, pn_loop_update_now(c->loop) + ms * PN_NS_PER_MS),
                     0);
    while (pn_timer_is_set(&stop) && c->accepted < n)
        pn_loop_step(c->loop);
    pn_timer_cancel(c->loop, &stop);
}

static void accepting_is_bounded_and_fair(void **state)
{
    (void)state;
    struct pn_listener *l[2] = {must_open("127.0.0.1:0", NULL), must_open(path, NULL)};
    struct counter c = {.loop = pn_loop_create(pn_poller_epoll_create())};
    struct pn_acceptor *a = pn_acceptor_create(c.loop, l, 2, on_accept, &c);
    assert_non_null(a);
    int fds[100];
    for (int i = 0; i < 100; i++)
        fds[i] = connect_to(l[i == 99]);
    run(&c, 100, 2000);
    assert_int_equal(c.accepted, 100);
    assert_true(c.most_in_turn <= PN_TURN_ACCEPTS_MAX);
    for (int i = 0; i < 100; i++)
        close(fds[i]);
    /* Both ready: they take turns, so the second is not the last. */
    while (pn_acceptor_pending(a))
        pn_loop_step(c.loop);
    c.accepted = 0;
    c.last = NULL;
    for (int i = 0; i < 10; i++)
        fds[i] = connect_to(l[i == 9]);
    for (unsigned last_at = 0; c.accepted < 10;) {
        pn_loop_step(c.loop);
        if (c.last == l[1] && last_at == 0 && c.accepted > 0)
            last_at = c.accepted;
        assert_true(c.accepted < 5 || last_at > 0);
    }
    for (int i = 0; i < 10; i++)
        close(fds[i]);
    pn_acceptor_stop(a, false);
    pn_acceptor_destroy(a);
    pn_loop_destroy(c.loop);
    pn_listener_close(l[0], true);
    pn_listener_close(l[1], true);
}

static void stopping_leaves_or_drains_the_queue(void **state)
{
    (void)state;
    struct pn_listener *l = must_open("127.0.0.1:0", NULL);
    struct counter c = {.loop = pn_loop_create(pn_poller_epoll_create())};
    struct pn_acceptor *a = pn_acceptor_create(c.loop, &l, 1, on_accept, &c);
    int fds[3];
    for (int i = 0; i < 3; i++)
        fds[i] = connect_to(l);
    pn_acceptor_stop(a, false);
    assert_false(pn_acceptor_pending(a));
    run(&c, 1, 30);
    assert_int_equal(c.accepted, 0);
    pn_acceptor_destroy(a);
    a = pn_acceptor_create(c.loop, &l, 1, on_accept, &c);
    pn_acceptor_stop(a, true);
    while (pn_acceptor_pending(a))
        pn_loop_step(c.loop);
    assert_int_equal(c.accepted, 3);
    pn_acceptor_destroy(a);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    pn_loop_destroy(c.loop);
    pn_listener_close(l, true);
}

static void without_descriptors_it_rests(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    struct pn_log *log = pn_log_create(pipes[1], PN_LOG_INFO);
    pn_log_set_default(log);
    struct pn_listener *l = must_open("127.0.0.1:0", NULL);
    struct counter c = {.loop = pn_loop_create(pn_poller_epoll_create())};
    struct pn_acceptor *a = pn_acceptor_create(c.loop, &l, 1, on_accept, &c);
    int client = connect_to(l);
    struct rlimit old, low;
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = (rlim_t)client + 1;
    setrlimit(RLIMIT_NOFILE, &low);
    struct pn_loop_stats before, after;
    pn_loop_stats(c.loop, &before);
    run(&c, 1, 350);
    pn_loop_stats(c.loop, &after);
    assert_int_equal(c.accepted, 0);
    assert_true(after.turns - before.turns < 40); /* no spinning */
    setrlimit(RLIMIT_NOFILE, &old);
    run(&c, 1, 2000);
    assert_int_equal(c.accepted, 1);
    pn_log_flush(log);
    char lines[2048] = "";
    assert_true(read(pipes[0], lines, sizeof(lines) - 1) > 0);
    char *said = strstr(lines, "new connections have to wait");
    assert_non_null(said);
    assert_null(strstr(said + 1, "new connections have to wait")); /* once */
    pn_log_set_default(NULL);
    pn_log_destroy(log);
    close(pipes[0]);
    close(pipes[1]);
    close(client);
    pn_acceptor_destroy(a);
    pn_loop_destroy(c.loop);
    pn_listener_close(l, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp),
        cmocka_unit_test(accepted_sockets_inherit_nodelay),
        cmocka_unit_test(two_share_a_port_when_asked),
        cmocka_unit_test(ipv6_takes_ipv4_too),
        cmocka_unit_test(not_ours),
        cmocka_unit_test(the_backlog_has_a_note),
        cmocka_unit_test(unix_mode_and_removal),
        cmocka_unit_test(a_stale_socket_is_replaced),
        cmocka_unit_test(what_is_no_socket_stays),
        cmocka_unit_test(a_socket_of_somebody_else_stays),
        cmocka_unit_test(a_failed_open_leaves_no_file),
        cmocka_unit_test(abstract_names),
        cmocka_unit_test(inherited_descriptors_are_checked),
        cmocka_unit_test(accepting_is_bounded_and_fair),
        cmocka_unit_test(stopping_leaves_or_drains_the_queue),
        cmocka_unit_test(without_descriptors_it_rests),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
