/* SPDX-License-Identifier: Apache-2.0 */
/* connect, accept, eventfd_read, getaddrinfo and getnameinfo in cores of both carriers that wait. */
#include <netinet/in.h>
#include <sys/un.h>

#include "../support/io_fixture.h"
#include "test_base.h"

static void listen_tcp(int *listener, struct sockaddr_in *at, int backlog)
{
    socklen_t size = sizeof *at;
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(*listener, (struct sockaddr *)at, size) == 0 && listen(*listener, backlog) == 0);
    REQUIRE(getsockname(*listener, (struct sockaddr *)at, &size) == 0);
}

static int tcp(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    return fd;
}

/* --- connect ------------------------------------------------------------------------------------------ */

static void first_connects(struct meeting *m)
{
    struct sockaddr_in at;
    int listener, fd = tcp();
    (void)m;
    listen_tcp(&listener, &at, 5);
    errno = 1234;
    REQUIRE(io->connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    REQUIRE(errno == 1234);
    REQUIRE(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    REQUIRE(write(fd, "x", 1) == 1);
    REQUIRE(io->connect(fd, (struct sockaddr *)&at, sizeof at) == -1 && errno == EISCONN);
    close(fd);
    fd = tcp();
    set_nonblocking(fd);
    REQUIRE(io->connect(fd, (struct sockaddr *)&at, sizeof at) == -1 && errno == EINPROGRESS);
    REQUIRE(fcntl(fd, F_GETFL) & O_NONBLOCK);
    close(fd);
    close(listener);
    fd = tcp();
    REQUIRE(io->connect(fd, (struct sockaddr *)&at, sizeof at) == -1 && errno == ECONNREFUSED);
    REQUIRE(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    close(fd);
    REQUIRE(io->connect(-1, (struct sockaddr *)&at, sizeof at) == -1 && errno == EBADF);
    /* Datagram sockets don't wait. */
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    REQUIRE(io->connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    close(fd);
}

static void connecting_says_what_it_always_said(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_connects};
        meet(&m, wait_carriers[c], 1);
    }
}

/* A listener whose queue is full drops what comes: the connection waits for its next try, a second later. */
static int fill_queue(const struct sockaddr_in *at)
{
    int fd = tcp();
    REQUIRE(connect(fd, (const struct sockaddr *)at, sizeof *at) == 0);
    return fd;
}

static struct sockaddr_in full_at;

static void first_connects_slowly(struct meeting *m)
{
    int fd = tcp();
    if (m->kind)
        set_timeout(fd, SO_SNDTIMEO, m->kind);
    MEETING_CALL(m, io->connect(fd, (struct sockaddr *)&full_at, sizeof full_at));
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    REQUIRE((getpeername(fd, (struct sockaddr *)&peer, &size) == 0) == (m->result == 0));
    if (m->kind)
        REQUIRE(io->connect(fd, (struct sockaddr *)&full_at, sizeof full_at) == -1 &&
                errno == EALREADY);
    close(fd);
}

static void second_makes_room(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    for (int i = 0; i < 2; i++) {
        int fd = io->accept(m->fd[0], NULL, NULL);
        REQUIRE(fd >= 0);
        close(fd);
    }
}

static void run_full(enum pn_carrier carrier, struct meeting *m)
{
    listen_tcp(&m->fd[0], &full_at, 0);
    m->fd[1] = fill_queue(&full_at);
    assert_true(meet(m, carrier, 2) > 0);
    close_pair(m->fd);
}

static void a_connection_is_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_connects_slowly, .second = second_makes_room};
        run_full(wait_carriers[c], &m);
        assert_int_equal(m.result, 0);
        m = (struct meeting){.kind = 40, .first = first_connects_slowly};
        run_full(wait_carriers[c], &m);
        assert_int_equal(m.result, -1);
        assert_int_equal(m.error, EINPROGRESS);
        assert_true(m.took_ns >= 35 * PN_NS_PER_MS);
        m = (struct meeting){.first = first_connects_slowly, .second = cut_the_first};
        run_full(wait_carriers[c], &m);
        assert_int_equal(m.result, -1);
        assert_int_equal(m.error, ETIMEDOUT);
    }
}

static socklen_t unix_name(struct sockaddr_un *at)
{
    static const char name[] = "pelton-test-queue";
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(at->sun_path + 1, name, sizeof name);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof name);
}

static int unix_stream(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void first_connects_unix(struct meeting *m)
{
    struct sockaddr_un at;
    socklen_t size = unix_name(&at);
    int fd = unix_stream();
    if (m->kind)
        set_timeout(fd, SO_SNDTIMEO, m->kind);
    MEETING_CALL(m, io->connect(fd, (struct sockaddr *)&at, size));
    close(fd);
}

static void second_accepts_two(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    give_way_ms(3);
    REQUIRE(atomic_load(&m->inside));
    for (int i = 0; i < 2; i++) {
        int fd = io->accept4(m->fd[0], NULL, NULL, SOCK_CLOEXEC);
        REQUIRE(fd >= 0);
        close(fd);
    }
}

static void a_full_unix_listener_is_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (int timeout_ms = 0; timeout_ms <= 30; timeout_ms += 30) {
            struct sockaddr_un at;
            socklen_t size = unix_name(&at);
            struct meeting m = {.kind = timeout_ms, .first = first_connects_unix};
            m.second = timeout_ms ? NULL : second_accepts_two;
            m.fd[0] = unix_stream();
            m.fd[1] = unix_stream();
            assert_int_equal(bind(m.fd[0], (struct sockaddr *)&at, size), 0);
            assert_int_equal(listen(m.fd[0], 0), 0);
            assert_int_equal(connect(m.fd[1], (struct sockaddr *)&at, size), 0);
            assert_true(meet(&m, wait_carriers[c], 2) > 0);
            assert_int_equal(m.result, timeout_ms ? -1 : 0);
            assert_int_equal(m.error, timeout_ms ? EAGAIN : 1234);
            close_pair(m.fd);
        }
}

/* --- accept ------------------------------------------------------------------------------------------- */

enum { ACCEPT = 0, ACCEPT4 = 1, TIMED = 2, NONBLOCKING = 3, KINDS = 4 };

static struct sockaddr_in accept_at;

static void first_accepts(struct meeting *m)
{
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    if (m->kind == TIMED)
        set_timeout(m->fd[0], SO_RCVTIMEO, 30);
    if (m->kind == NONBLOCKING)
        set_nonblocking(m->fd[0]);
    errno = 1234;
    atomic_store(&m->inside, true);
    int fd = m->kind == ACCEPT
                 ? io->accept(m->fd[0], (struct sockaddr *)&from, &size)
                 : io->accept4(m->fd[0], (struct sockaddr *)&from, &size, SOCK_NONBLOCK);
    atomic_store(&m->inside, false);
    if (m->kind >= TIMED) {
        REQUIRE(fd == -1 && errno == EAGAIN);
        return;
    }
    REQUIRE(fd >= 0 && errno == 1234);
    REQUIRE(size == sizeof from && from.sin_family == AF_INET);
    REQUIRE(!(fcntl(fd, F_GETFL) & O_NONBLOCK) == (m->kind == ACCEPT));
    close(fd);
}

static void second_connects(struct meeting *m)
{
    if (m->kind >= TIMED)
        return;
    REQUIRE(atomic_load(&m->inside));
    give_way_ms(3);
    REQUIRE(atomic_load(&m->inside));
    m->fd[1] = tcp();
    REQUIRE(io->connect(m->fd[1], (struct sockaddr *)&accept_at, sizeof accept_at) == 0);
}

static void a_visitor_is_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++)
        for (int kind = 0; kind < KINDS; kind++) {
            struct meeting m = {
                .kind = kind, .fd = {-1, -1}, .first = first_accepts, .second = second_connects};
            listen_tcp(&m.fd[0], &accept_at, 5);
            uint64_t waited = meet(&m, wait_carriers[c], 2);
            assert_true((waited > 0) == (kind != NONBLOCKING));
            close_pair(m.fd);
        }
}

/* --- eventfd_read, eventfd_write -------------------------------------------------------------------------------------- */

static void first_reads_event(struct meeting *m)
{
    eventfd_t value = 0;
    atomic_store(&m->inside, true);
    REQUIRE(io->eventfd_read(m->fd[0], &value) == 0 && value == 7);
    set_nonblocking(m->fd[0]);
    REQUIRE(io->eventfd_read(m->fd[0], &value) == -1 && errno == EAGAIN);
}

static void second_writes_event(struct meeting *m)
{
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(eventfd_write(m->fd[0], 7) == 0);
}

static void first_writes_event(struct meeting *m)
{
    REQUIRE(io->eventfd_write(m->fd[0], UINT64_MAX - 1) == 0);
    atomic_store(&m->inside, true);
    REQUIRE(io->eventfd_write(m->fd[0], 7) == 0);
}

static void second_reads_event(struct meeting *m)
{
    eventfd_t value = 0;
    REQUIRE(atomic_load(&m->inside));
    REQUIRE(eventfd_read(m->fd[0], &value) == 0 && value == UINT64_MAX - 1);
}

static void an_event_is_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct meeting m = {.first = first_reads_event, .second = second_writes_event};
        m.fd[0] = eventfd(0, EFD_CLOEXEC);
        m.fd[1] = -1;
        assert_true(meet(&m, wait_carriers[c], 2) > 0);
        close(m.fd[0]);
        m = (struct meeting){.first = first_writes_event, .second = second_reads_event};
        m.fd[0] = eventfd(0, EFD_CLOEXEC);
        m.fd[1] = -1;
        assert_true(meet(&m, wait_carriers[c], 2) > 0);
        close_pair(m.fd);
    }
}

/* --- Names --------------------------------------------------------------------------------------------- */

static void look_up(struct visitor *v)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list = NULL;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char host[NI_MAXHOST], service[NI_MAXSERV];
    (void)v;
    REQUIRE(io->getaddrinfo("localhost", "80", &hints, &list) == 0);
    REQUIRE(list && list->ai_family == AF_INET);
    REQUIRE(((struct sockaddr_in *)(void *)list->ai_addr)->sin_port == htons(80));
    freeaddrinfo(list);
    REQUIRE(io->getnameinfo((struct sockaddr *)&at, sizeof at, host, sizeof host, service,
                            sizeof service, NI_NUMERICSERV) == 0);
    REQUIRE(strcmp(service, "0") == 0 && strlen(host) > 0);
    REQUIRE(io->getaddrinfo("localhost", "no such service", &hints, &list) == EAI_SERVICE);
    /* Too little room is said, not written over. */
    REQUIRE(io->getnameinfo((struct sockaddr *)&at, sizeof at, host, 2, NULL, 0, 0) ==
            EAI_OVERFLOW);
}

static void names_are_looked_up_beside_each_other(void **state)
{
    static struct world w;
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        w = (struct world){0};
        wait_serve(&w, wait_carriers[c], 40, look_up);
        assert_int_equal(w.calls_waited, 40 * 4);
    }
}

static void look_up_numbers(struct visitor *v)
{
    static const char *const numbers[] = {"127.0.0.1", "::1", NULL};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct addrinfo *list = NULL;
    char host[NI_MAXHOST];
    (void)v;
    for (size_t i = 0; i < PN_ARRAY_LEN(numbers); i++) {
        REQUIRE(io->getaddrinfo(numbers[i], "80", NULL, &list) == 0);
        freeaddrinfo(list);
    }
    REQUIRE(io->getnameinfo((struct sockaddr *)&at, sizeof at, host, sizeof host, NULL, 0,
                            NI_NUMERICHOST) == 0);
    REQUIRE(strcmp(host, "127.0.0.1") == 0);
}

static void numbers_need_nobody(void **state)
{
    static struct world w;
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        w = (struct world){0};
        wait_serve(&w, wait_carriers[c], 2, look_up_numbers);
        assert_int_equal(w.calls_waited, 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connecting_says_what_it_always_said),
        cmocka_unit_test(a_connection_is_waited_for),
        cmocka_unit_test(a_full_unix_listener_is_waited_for),
        cmocka_unit_test(a_visitor_is_waited_for),
        cmocka_unit_test(an_event_is_waited_for),
        cmocka_unit_test(names_are_looked_up_beside_each_other),
        cmocka_unit_test(numbers_need_nobody),
    };
    if (io_load(argc, argv) < 0)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
