/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1.1 wire: keep-alive, pipelining, answers and their framing, back-pressure, time-outs, drain. */
#include "unit/h1_test.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"

/* --- keep-alive and closing ------------------------------------------------------------------------ */

static void test_hello(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, GET);
    /* Answered inside the accept: the request was there. */
    assert_string_equal(h1_fixture_output(l), "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                              "Server: pelton\r\n"
                                              "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                              "Content-Length: 6\r\n\r\nhello\n");
    assert_int_equal(l->writes, 1);
    sim_link_take(l, pn_bytes_len(&l->to_client));
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "\r\n\r\nhello\n");
    assert_int_equal(l->writes, 2);
    assert_int_equal(f->starts, 2);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    assert_int_equal(l->fd, -1);
    assert_false(l->reset);
    assert_int_equal(f->peers_gone, 1);
    assert_int_equal(f->accesses, 2);
    assert_int_equal(f->seen[0].status, 200);
    sim_link_free(l);
}

static void test_date_goes_on(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(h1_fixture_answer(f, l), "08:49:37");
    h1_fixture_advance(f, 1500);
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "08:49:38");
    h1_fixture_advance(f, 61000);
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "08:50:39");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_close_asked(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l =
        h1_fixture_connect(f, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_has(h1_fixture_output(l), "Connection: close\r\n\r\nhello\n");
    /* Nothing was left to read: closed at once, and never watched. */
    assert_int_equal(l->fd, -1);
    assert_false(l->reset);
    assert_int_equal(sim_poller_stats(f->sim).adds, 0);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_version_1_0(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, "GET / HTTP/1.0\r\n\r\n");
    assert_has(h1_fixture_output(l), "HTTP/1.1 200 OK");
    assert_has(h1_fixture_output(l), "Connection: close\r\n");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
    l = h1_fixture_connect(f, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert_has(h1_fixture_output(l), "Connection: keep-alive\r\n");
    assert_int_not_equal(l->fd, -1);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_keepalive_requests_max(void **state)
{
    struct h1_fixture *f = *state;
    f->config.keepalive_requests_max = 2;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has_not(h1_fixture_answer(f, l), "Connection");
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "Connection: close");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_byte_by_byte(void **state)
{
    struct h1_fixture *f = *state;
    const char *text = "GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n" GET;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    for (size_t i = 0; i < strlen(text); i++) {
        sim_link_send(l, text + i, 1);
        h1_fixture_run(f);
    }
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "hello\n"), 2);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* --- pipelining -------------------------------------------------------------------------------------- */

static void test_pipeline_one_send(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    h1_fixture_run(f);
    h1_fixture_send(f, l, GET GET GET GET GET);
    assert_int_equal(l->writes, 1);
    assert_int_equal(l->reads, 1);
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "HTTP/1.1 200 OK"), 5);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* Sixty-four requests, then others get their turn. */
static void test_pipeline_long(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    h1_fixture_run(f);
    for (int i = 0; i < 200; i++)
        sim_link_send(l, GET, strlen(GET));
    h1_fixture_run(f);
    assert_int_equal(f->starts, 200);
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "HTTP/1.1 200 OK"), 200);
    assert_int_equal(l->writes, 4);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_pipeline_bad_one_after_good(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, GET GET "BAD\r\n\r\n" GET);
    const char *out = h1_fixture_answer(f, l);
    assert_int_equal(h1_count(out, "HTTP/1.1 200 OK"), 2);
    assert_int_equal(h1_count(out, "HTTP/1.1"), 3);
    assert_has(out, "hello\nHTTP/1.1 400 Bad Request\r\n");
    assert_has(out, "Connection: close\r\n\r\nBad Request\n");
    assert_int_equal(f->starts, 2);
    assert_int_equal(f->accesses, 3);
    assert_int_equal(f->seen[2].status, 400);
    assert_false(f->seen[2].had_exchange);
    assert_non_null(f->seen[2].error);
    /* It lingers: what comes is read and dropped. */
    assert_true(l->fin);
    assert_int_not_equal(l->fd, -1);
    h1_fixture_send(f, l, GET);
    assert_int_equal(pn_bytes_len(&l->to_server), 0);
    assert_int_equal(f->starts, 2);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* A peer that sends requests and takes no answers stops being read. */
static void test_pipeline_back_pressure(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    sim_link_set_window(l, 1000);
    for (int i = 0; i < 20000; i++)
        sim_link_send(l, GET, strlen(GET));
    h1_fixture_run(f);
    assert_true(f->starts < 5000);
    assert_true(pn_bytes_len(&l->to_server) > 0);
    sim_link_set_window(l, SIZE_MAX);
    h1_fixture_run(f);
    assert_int_equal(f->starts, 20000);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_follower_starts_no_other(void **state)
{
    struct h1_fixture *f = *state;
    f->may_continue = false;
    struct sim_link *l = h1_fixture_connect(f, GET GET GET);
    /* One a frame; the others come by tasks. */
    assert_int_equal(f->starts, 1);
    assert_int_equal(l->writes, 1);
    h1_fixture_run(f);
    assert_int_equal(f->starts, 3);
    assert_int_equal(l->writes, 3);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* --- answers later, in pieces ----------------------------------------------------------------------- */

static void test_answer_later(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, "GET /later?q HTTP/1.1\r\nHost: a\r\n\r\n" GET);
    h1_fixture_run(f);
    assert_int_equal(f->starts, 1);
    struct pn_exchange *x = f->kept;
    /* The text was moved out of the shared buffer and is still good. */
    struct pn_str target = pn_exchange_text(x, x->target);
    assert_int_equal(target.n, 8);
    assert_memory_equal(target.p, "/later?q", 8);
    f->start = NULL;
    h1_fixture_reply(x, 200, "late\n");
    /* What is whole leaves at once, without waiting for the next turn. */
    assert_has(h1_fixture_output(l), "late\n");
    h1_fixture_drop(f);
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "200 OK"), 2);
    assert_int_equal(f->starts, 2);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_pieces(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, -1, 0), 0);
    assert_int_equal(pn_exchange_write(x, "one", 3), 3);
    assert_int_equal(pn_exchange_write(x, "", 0), 0);
    assert_int_equal(pn_exchange_write(x, "twotwo", 6), 6);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
    assert_int_equal(pn_exchange_write(x, "x", 1), -EPIPE);
    assert_int_equal(pn_exchange_end(x, NULL, 0), -EPIPE);
}

static void test_chunked_answer(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_pieces;
    struct sim_link *l = h1_fixture_connect(f, GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n6\r\ntwotwo\r\n0\r\n\r\n");
    assert_has_not(out, "Content-Length");
    assert_int_equal(l->writes, 1);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
    /* A 1.0 client gets the same bytes and the connection's end. */
    l = h1_fixture_connect(f, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    out = h1_fixture_output(l);
    assert_has(out, "Connection: close\r\n\r\nonetwotwo");
    assert_has_not(out, "Transfer-Encoding");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void start_no_more(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_head(x, 201, PN_STR("Made"), NULL, 0, -1, PN_HEAD_NO_MORE), 0);
    assert_int_equal(pn_exchange_write(x, "whole", 5), 5);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

static void start_empty(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, -1, 0), 0);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

static void test_length_found(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_no_more;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 201 Made\r\n");
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "Content-Length: 5\r\n\r\nwhole");
    f->start = start_empty;
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "Content-Length: 0\r\n\r\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_trailers(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct pn_field trailers[] = {{PN_STR("X-Sum"), PN_STR("1")},
                                        {PN_STR("Content-Length"), PN_STR("9")},
                                        {PN_STR("X-Bad"), PN_STR("a\r\nb")}};
    (void)f;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, -1, 0), 0);
    assert_int_equal(pn_exchange_write(x, "a", 1), 1);
    assert_int_equal(pn_exchange_end(x, trailers, 3), 0);
}

static void test_answer_trailers(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_trailers;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(h1_fixture_answer(f, l), "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_info(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct pn_field hints[] = {{PN_STR("Link"), PN_STR("</a.css>; rel=preload")}};
    (void)f;
    assert_int_equal(pn_exchange_info(x, 103, hints, 1), 0);
    assert_int_equal(pn_exchange_info(x, 101, NULL, 0), -EINVAL);
    assert_int_equal(pn_exchange_info(x, 200, NULL, 0), -EINVAL);
    h1_fixture_reply(x, 200, "ok");
    assert_int_equal(pn_exchange_info(x, 103, hints, 1), -EPIPE);
}

static void test_early_hints(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_info;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(
        h1_fixture_answer(f, l),
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
    l = h1_fixture_connect(f, "GET / HTTP/1.0\r\n\r\n");
    assert_has_not(h1_fixture_output(l), "103");
    sim_link_free(l);
}

/* --- large answers, files, a slow reader --------------------------------------------------------------- */

static char big[1 << 20];

static void start_big(struct h1_fixture *f, struct pn_exchange *x)
{
    h1_fixture_keep(f, x);
    assert_int_equal(
        pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, f->arg ? -1 : (int64_t)sizeof big, 0), 0);
}

/* Writes on until the output is full; true when the body is whole. */
static bool write_on(struct pn_exchange *x, size_t *done)
{
    while (*done < sizeof big) {
        ssize_t n = pn_exchange_write(x, big + *done, sizeof big - *done);
        assert_true(n >= 0);
        if (n == 0)
            return false;
        *done += (size_t)n;
    }
    return true;
}

static void slow_reader(struct h1_fixture *f, bool chunked)
{
    size_t done = 0, got = 0;
    f->start = start_big;
    f->arg = chunked ? f : NULL;
    memset(big, 'x', sizeof big);
    struct sim_link *l = h1_fixture_connect(f, GET);
    sim_link_set_window(l, 20000);
    while (!write_on(f->kept, &done)) {
        assert_true(done - got <= PN_CONN_OUT_HIGH_WATER + 65536 + 20000);
        f->notified = 0;
        for (int i = 0; i < 1000 && !(f->notified & PN_NOTIFY_DRAINED); i++) {
            size_t n = pn_bytes_len(&l->to_client);
            got += n;
            sim_link_take(l, n);
            h1_fixture_run(f);
        }
        assert_true(f->notified & PN_NOTIFY_DRAINED);
    }
    assert_int_equal(pn_exchange_end(f->kept, NULL, 0), 0);
    h1_fixture_drop(f);
    for (int i = 0; i < 200; i++) {
        h1_fixture_run(f);
        got += pn_bytes_len(&l->to_client);
        sim_link_take(l, pn_bytes_len(&l->to_client));
    }
    assert_true(got >= sizeof big && got < sizeof big + 4096);
    f->start = NULL;
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "hello\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_slow_reader(void **state)
{
    slow_reader(*state, false);
}

static void test_slow_reader_chunked(void **state)
{
    slow_reader(*state, true);
}

static void start_file(struct h1_fixture *f, struct pn_exchange *x)
{
    FILE *file = tmpfile();
    off_t offset = 100;
    ssize_t n, sum = 0;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(fwrite("0123456789", 1, 10, file), 10);
    fflush(file);
    int64_t length = f->arg ? -1 : 5000;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, length, 0), 0);
    while (sum < 5000) {
        n = pn_exchange_send_file(x, fileno(file), &offset, (size_t)(5000 - sum));
        assert_true(n > 0);
        sum += n;
    }
    assert_int_equal(offset, 5100);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
    fclose(file);
}

static void test_send_file(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_file;
    struct sim_link *l = h1_fixture_connect(f, GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "Content-Length: 5000\r\n\r\n0123456789");
    assert_int_equal(h1_count(out, "0123456789"), 500);
    f->arg = f;
    h1_fixture_send(f, l, GET);
    out = h1_fixture_answer(f, l);
    assert_has(out, "chunked\r\n\r\n1388\r\n0123456789");
    assert_has(out, "6789\r\n0\r\n\r\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* Every size of what goes through at once gives the same bytes. */
static void test_partial_reads_and_writes(void **state)
{
    struct h1_fixture *f = *state;
    static char expected[8192];
    for (size_t step = 0; step < 60; step++) {
        struct sim_link *l = h1_fixture_connect(f, NULL);
        l->read_max = l->write_max = step;
        f->start = start_pieces;
        h1_fixture_send(f, l, GET "GET /b HTTP/1.1\r\nHost: b\r\n\r\n");
        const char *out = h1_fixture_output(l);
        if (step == 0)
            strcpy(expected, out);
        assert_string_equal(out, expected);
        sim_link_shutdown(l);
        h1_fixture_run(f);
        assert_int_equal(l->fd, -1);
        sim_link_free(l);
    }
}

/* --- cuts ---------------------------------------------------------------------------------------------------- */

static void start_short(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 10, 0), 0);
    assert_int_equal(pn_exchange_write(x, "1234", 4), 4);
    assert_int_equal(pn_exchange_write(x, "1234567", 7), -EMSGSIZE);
    assert_int_equal(pn_exchange_end(x, NULL, 0), -EMSGSIZE);
    assert_int_equal(x->state, PN_EXCHANGE_CANCELLED);
}

static void test_shorter_than_announced(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_short;
    struct sim_link *l = h1_fixture_connect(f, GET GET);
    const char *out = h1_fixture_output(l);
    assert_has(out, "Content-Length: 10\r\n\r\n1234");
    assert_int_equal(h1_count(out, "HTTP/1.1"), 1);
    assert_int_equal(l->fd, -1);
    assert_int_equal(f->starts, 1);
    assert_string_equal(f->seen[0].error, "answer shorter than announced");
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_longer(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 3, 0), 0);
    assert_int_equal(pn_exchange_write(x, "1234", 4), -EMSGSIZE);
    assert_int_equal(pn_exchange_write(x, "123", 3), 3);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

static void test_more_than_announced(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_longer;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(h1_fixture_answer(f, l), "Content-Length: 3\r\n\r\n123");
    assert_int_not_equal(l->fd, -1);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_cancel(struct h1_fixture *f, struct pn_exchange *x)
{
    bool close_delimited = f->arg != NULL;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, close_delimited ? -1 : 10, 0),
                     0);
    assert_int_equal(pn_exchange_write(x, "part", 4), 4);
    pn_exchange_cancel(x, PN_CANCEL_HANDLER);
    assert_int_equal(x->state, PN_EXCHANGE_CANCELLED);
    assert_int_equal(pn_exchange_write(x, "part", 4), -EPIPE);
    assert_int_equal(pn_exchange_end(x, NULL, 0), -EPIPE);
    pn_exchange_cancel(x, PN_CANCEL_HANDLER);
}

static void test_cancel_cuts(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_cancel;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(h1_fixture_output(l), "\r\n\r\npart");
    assert_int_equal(l->fd, -1);
    assert_false(l->reset);
    h1_fixture_run(f);
    sim_link_free(l);
    /* Where the end would look like the body's end, it is a reset. */
    f->arg = f;
    l = h1_fixture_connect(f, "GET / HTTP/1.0\r\n\r\n");
    assert_int_equal(l->fd, -1);
    assert_true(l->reset);
    h1_fixture_run(f);
    sim_link_free(l);
    assert_int_equal(f->accesses, 2);
}

static void test_client_resets(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, GET GET);
    h1_fixture_run(f);
    sim_link_break(l);
    h1_fixture_run(f);
    assert_int_equal(f->cancels, 1);
    assert_int_equal(f->kept->cancel, PN_CANCEL_CLIENT_GONE);
    assert_int_equal(f->kept->state, PN_EXCHANGE_CANCELLED);
    assert_int_equal(l->fd, -1);
    assert_int_equal(pn_exchange_wait_fd(f->kept), -1);
    assert_int_equal(pn_exchange_head(f->kept, 200, PN_STR_NONE, NULL, 0, -1, 0), -EPIPE);
    /* Its text is still there for the log of the application. */
    assert_int_equal(pn_exchange_text(f->kept, f->kept->target).n, 1);
    h1_fixture_drop(f);
    h1_fixture_run(f);
    assert_int_equal(f->starts, 1);
    sim_link_free(l);
}

static void test_half_close_gets_answer(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, GET);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    assert_int_equal(f->cancels, 0);
    h1_fixture_reply(f->kept, 200, "late\n");
    h1_fixture_drop(f);
    assert_has(h1_fixture_answer(f, l), "late\n");
    h1_fixture_run(f);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_cut_head(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, "GET / HTTP/1.1\r\nHo");
    sim_link_shutdown(l);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 400 Bad Request");
    assert_int_equal(l->fd, -1);
    assert_int_equal(f->starts, 0);
    sim_link_free(l);
}

/* --- time-outs ----------------------------------------------------------------------------------------------- */

static void test_timeout_silent(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    h1_fixture_advance(f, PN_HTTP_HEADER_TIMEOUT_MS - 1);
    assert_int_not_equal(l->fd, -1);
    h1_fixture_advance(f, 2);
    assert_int_equal(l->fd, -1);
    assert_int_equal(pn_bytes_len(&l->to_client), 0);
    assert_int_equal(f->accesses, 0);
    sim_link_free(l);
}

/* Bytes that drip in do not make the time for the head longer. */
static void test_timeout_partial_head(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < 14; i++) {
        h1_fixture_advance(f, 1000);
        h1_fixture_send(f, l, "X: y\r\n");
    }
    h1_fixture_advance(f, 1100);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 408 Request Timeout");
    assert_string_equal(f->seen[0].error, "header time-out");
    assert_true(l->fin);
    h1_fixture_advance(f, PN_HTTP_LINGER_TIMEOUT_MS + 1);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_timeout_keepalive(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, GET);
    h1_fixture_answer(f, l);
    h1_fixture_advance(f, PN_HTTP_KEEPALIVE_TIMEOUT_MS - 1);
    assert_int_not_equal(l->fd, -1);
    h1_fixture_advance(f, 2);
    assert_int_equal(l->fd, -1);
    assert_int_equal(pn_bytes_len(&l->to_client), 0);
    sim_link_free(l);
}

/* Each request gives it all of its time again, also one that is answered in the frame that read it. */
static void test_timeout_keepalive_begins_anew(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, GET);
    for (int i = 0; i < 4; i++) {
        assert_has(h1_fixture_answer(f, l), "hello\n");
        h1_fixture_advance(f, PN_HTTP_KEEPALIVE_TIMEOUT_MS - 1);
        assert_int_not_equal(l->fd, -1);
        h1_fixture_send(f, l, GET);
    }
    assert_has(h1_fixture_answer(f, l), "hello\n");
    h1_fixture_advance(f, PN_HTTP_KEEPALIVE_TIMEOUT_MS + 1);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* A second request that begins while the connection idles has the header's time. */
static void test_timeout_second_head(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, GET);
    h1_fixture_answer(f, l);
    h1_fixture_advance(f, 60000);
    h1_fixture_send(f, l, "GET /");
    h1_fixture_advance(f, PN_HTTP_HEADER_TIMEOUT_MS - 10);
    assert_int_equal(pn_bytes_len(&l->to_client), 0);
    h1_fixture_advance(f, 20);
    assert_has(h1_fixture_answer(f, l), "408");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_timeout_write(void **state)
{
    struct h1_fixture *f = *state;
    size_t done = 0;
    f->start = start_big;
    struct sim_link *l = h1_fixture_connect(f, GET);
    sim_link_set_window(l, 1000);
    assert_false(write_on(f->kept, &done));
    h1_fixture_advance(f, PN_HTTP_WRITE_TIMEOUT_MS - 10);
    assert_int_not_equal(l->fd, -1);
    h1_fixture_advance(f, 20);
    assert_int_equal(l->fd, -1);
    assert_true(l->reset);
    assert_int_equal(f->kept->cancel, PN_CANCEL_TIMEOUT);
    assert_int_equal(f->cancels, 1);
    assert_string_equal(f->seen[0].error, "write time-out");
    h1_fixture_drop(f);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* The whole answer waits in the output: the time-out is the same. */
static void test_timeout_flushing(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    sim_link_set_window(l, 50);
    h1_fixture_send(f, l, GET);
    assert_int_equal(pn_bytes_len(&l->to_client), 50);
    h1_fixture_advance(f, PN_HTTP_WRITE_TIMEOUT_MS - 10);
    sim_link_take(l, 50);
    h1_fixture_run(f);
    h1_fixture_advance(f, PN_HTTP_WRITE_TIMEOUT_MS - 10);
    assert_int_not_equal(l->fd, -1); /* it took something meanwhile */
    h1_fixture_advance(f, 20);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* A request in the application has no time-out of the connection's. */
static void test_no_timeout_while_serving(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, GET);
    h1_fixture_advance(f, 3600 * 1000);
    h1_fixture_reply(f->kept, 200, "an hour\n");
    h1_fixture_drop(f);
    assert_has(h1_fixture_answer(f, l), "an hour\n");
    assert_int_equal(f->seen[0].duration_ns / PN_NS_PER_MS / 1000, 3600);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        h1_test(test_hello),
        h1_test(test_date_goes_on),
        h1_test(test_close_asked),
        h1_test(test_version_1_0),
        h1_test(test_keepalive_requests_max),
        h1_test(test_byte_by_byte),
        h1_test(test_pipeline_one_send),
        h1_test(test_pipeline_long),
        h1_test(test_pipeline_bad_one_after_good),
        h1_test(test_pipeline_back_pressure),
        h1_test(test_follower_starts_no_other),
        h1_test(test_answer_later),
        h1_test(test_chunked_answer),
        h1_test(test_length_found),
        h1_test(test_answer_trailers),
        h1_test(test_early_hints),
        h1_test(test_slow_reader),
        h1_test(test_slow_reader_chunked),
        h1_test(test_send_file),
        h1_test(test_partial_reads_and_writes),
        h1_test(test_shorter_than_announced),
        h1_test(test_more_than_announced),
        h1_test(test_cancel_cuts),
        h1_test(test_client_resets),
        h1_test(test_half_close_gets_answer),
        h1_test(test_cut_head),
        h1_test(test_timeout_silent),
        h1_test(test_timeout_partial_head),
        h1_test(test_timeout_keepalive),
        h1_test(test_timeout_keepalive_begins_anew),
        h1_test(test_timeout_second_head),
        h1_test(test_timeout_write),
        h1_test(test_timeout_flushing),
        h1_test(test_no_timeout_while_serving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
