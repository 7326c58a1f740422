/* SPDX-License-Identifier: Apache-2.0 */
/* Request bodies of the HTTP/1.1 wire: buffered, streamed, chunked, refused, cut, unread; and the answers that
 * must have none. */
#include "unit/h1_test.h"

#include <stdlib.h>

static char big[1 << 20];

static void finish(struct h1_fixture *f, struct sim_link *l)
{
    sim_link_shutdown(l);
    h1_fixture_run(f);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* Takes all that is here; returns the last result. */
static enum pn_body pull(struct pn_exchange *x, size_t *sum)
{
    struct pn_str view;
    enum pn_body r;
    while ((r = pn_exchange_body_peek(x, &view)) == PN_BODY_DATA) {
        *sum += view.n;
        pn_exchange_body_consume(x, view.n);
    }
    return r;
}

/* --- buffered ------------------------------------------------------------------------------------------ */

static void test_whole_body(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_echo;
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde" GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "Content-Length: 5\r\n\r\nabcde");
    assert_int_equal(h1_count(out, "200 OK"), 2);
    assert_int_equal(f->starts, 2);
    finish(f, l);
}

/* The handler is called when the body is whole, not before. */
static void test_body_comes_slowly(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_echo;
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    h1_fixture_send(f, l, "ab");
    h1_fixture_advance(f, 20000);
    h1_fixture_send(f, l, "cd");
    h1_fixture_advance(f, 20000);
    assert_int_equal(f->starts, 0);
    h1_fixture_send(f, l, "e" GET);
    assert_has(h1_fixture_answer(f, l), "\r\n\r\nabcdeHTTP/1.1 200 OK");
    finish(f, l);
}

static void test_body_cut_everywhere(void **state)
{
    struct h1_fixture *f = *state;
    const char *text = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
                       "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "3;x=y\r\nfgh\r\n0\r\nX-T: 1\r\n\r\n" GET;
    f->start = h1_fixture_echo;
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        struct sim_link *l = h1_fixture_connect(f, NULL);
        sim_link_send(l, text, cut);
        h1_fixture_run(f);
        h1_fixture_send(f, l, text + cut);
        const char *out = h1_fixture_answer(f, l);
        assert_int_equal(h1_count(out, "200 OK"), 3);
        assert_has(out, "\r\n\r\nabcdeHTTP");
        assert_has(out, "\r\n\r\nfghHTTP");
        finish(f, l);
    }
}

/* --- streamed, with back-pressure ------------------------------------------------------------------------ */

static void stream(struct h1_fixture *f, bool chunked)
{
    char head[200];
    size_t sent = 0, sum = 0;
    f->start = h1_fixture_start_later;
    memset(big, 'b', sizeof big);
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a\r\n%s%s\r\n\r\n",
             chunked ? "Transfer-Encoding: " : "Content-Length: ", chunked ? "chunked" : "1048576");
    struct sim_link *l = h1_fixture_connect(f, head);
    if (chunked)
        sim_link_send(l, "100000\r\n", 8);
    sim_link_send(l, big, sizeof big);
    if (chunked)
        sim_link_send(l, "\r\n0\r\n\r\n", 7);
    h1_fixture_run(f);
    assert_int_equal(f->starts, 1);
    /* Read up to the bound and no further. */
    sent = sizeof big - pn_bytes_len(&l->to_server);
    assert_true(sent >= PN_HTTP_BODY_BUFFER_DEFAULT && sent <= 3 * PN_HTTP_BODY_BUFFER_DEFAULT);
    h1_fixture_advance(f, 100000); /* the handler has time */
    assert_int_equal(pull(f->kept, &sum), PN_BODY_END);
    assert_int_equal(sum, sizeof big);
    assert_int_equal(f->kept->received_body_size, sizeof big);
    h1_fixture_reply(f->kept, 200, "thanks\n");
    h1_fixture_drop(f);
    f->start = NULL;
    h1_fixture_send(f, l, GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "thanks\n");
    assert_has(out, "hello\n");
    finish(f, l);
}

static void test_large_body_streams(void **state)
{
    stream(*state, false);
}

static void test_large_chunked_body_streams(void **state)
{
    stream(*state, true);
}

static void test_body_awaited_by_handler(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->start = h1_fixture_start_later;
    f->config.body_buffer_size = 4;
    h1_reopen(f);
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234");
    h1_fixture_run(f);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    assert_int_equal(sum, 4);
    assert_int_equal(f->notified, 0);
    h1_fixture_send(f, l, "567");
    assert_int_equal(f->notified, PN_NOTIFY_BODY);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    assert_int_equal(sum, 7);
    f->notified = 0;
    h1_fixture_send(f, l, "890" GET);
    assert_int_equal(f->notified, PN_NOTIFY_BODY);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_END);
    assert_int_equal(sum, 10);
    h1_fixture_reply(f->kept, 200, "x");
    h1_fixture_drop(f);
    f->start = NULL;
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "200 OK"), 2);
    finish(f, l);
}

/* A handler that takes a little at a time finds every byte once. */
static void test_small_bites(void **state)
{
    struct h1_fixture *f = *state;
    struct pn_str view;
    char got[64];
    size_t n = 0;
    f->start = h1_fixture_start_later;
    f->config.body_buffer_size = 1;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nabcdefghijkl");
    h1_fixture_send(f, l, "mnopqrstuvwxyz" GET);
    while (pn_exchange_body_peek(f->kept, &view) == PN_BODY_DATA) {
        size_t bite = pn_min_size(view.n, 3);
        memcpy(got + n, view.p, bite);
        n += bite;
        pn_exchange_body_consume(f->kept, bite);
        h1_fixture_run(f);
    }
    assert_int_equal(n, 26);
    assert_memory_equal(got, "abcdefghijklmnopqrstuvwxyz", 26);
    h1_fixture_reply(f->kept, 200, "x");
    h1_fixture_drop(f);
    f->start = NULL;
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "200 OK"), 2);
    finish(f, l);
}

/* The inline carrier blocks on the descriptor itself: the loop stands still, and no edge is seen. */
static void test_body_without_the_loop(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->start = h1_fixture_start_later;
    f->config.body_buffer_size = 1;
    h1_reopen(f);
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
        assert_int_equal(pn_exchange_wait_fd(f->kept), l->fd);
        sim_link_send(l, "b", 1);
    }
    assert_int_equal(pull(f->kept, &sum), PN_BODY_END);
    assert_int_equal(sum, 4);
    /* And the same for what goes out. */
    sim_link_set_window(l, 1);
    assert_int_equal(pn_exchange_head(f->kept, 200, PN_STR_NONE, NULL, 0, 0, 0), 0);
    assert_int_equal(pn_exchange_flush(f->kept), 0);
    for (int i = 0; i < 300; i++) {
        assert_true(pn_exchange_wait_fd(f->kept) >= 0);
        sim_link_take(l, pn_bytes_len(&l->to_client));
        assert_int_equal(pn_exchange_flush(f->kept), 0);
    }
    assert_int_equal(pn_bytes_len(&l->to_client), 0); /* all has gone, one byte a time */
    sim_link_set_window(l, SIZE_MAX);
    assert_int_equal(pn_exchange_end(f->kept, NULL, 0), 0);
    h1_fixture_drop(f);
    finish(f, l);
}

/* --- 100-continue ------------------------------------------------------------------------------------------ */

#define EXPECT "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

static void test_continue_when_asked_for(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, EXPECT);
    h1_fixture_run(f);
    assert_int_equal(f->starts, 1);
    assert_string_equal(h1_fixture_answer(f, l), "");
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    assert_string_equal(h1_fixture_answer(f, l), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    assert_string_equal(h1_fixture_answer(f, l), "");
    h1_fixture_send(f, l, "abc");
    assert_int_equal(pull(f->kept, &sum), PN_BODY_END);
    h1_fixture_reply(f->kept, 200, "x");
    h1_fixture_drop(f);
    assert_has_not(h1_fixture_answer(f, l), "Connection: close");
    /* gevent 2075: nothing of it is left for the next request. */
    h1_fixture_send(f, l, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab");
    assert_int_equal(f->starts, 1);
    h1_fixture_send(f, l, "c");
    assert_int_equal(f->starts, 2);
    sum = 0;
    assert_int_equal(pull(f->kept, &sum), PN_BODY_END);
    h1_fixture_reply(f->kept, 200, "x");
    h1_fixture_drop(f);
    assert_has_not(h1_fixture_answer(f, l), "100 Continue");
    finish(f, l);
}

/* A handler that sends it itself has said it. */
static void test_continue_by_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, EXPECT);
    h1_fixture_run(f);
    assert_int_equal(pn_exchange_info(f->kept, 100, NULL, 0), 0);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    assert_string_equal(h1_fixture_answer(f, l), "HTTP/1.1 100 Continue\r\n\r\n");
    h1_fixture_send(f, l, "abc");
    assert_int_equal(pull(f->kept, &sum), PN_BODY_END);
    h1_fixture_reply(f->kept, 200, "x");
    h1_fixture_drop(f);
    assert_has_not(h1_fixture_answer(f, l), "Connection: close");
    finish(f, l);
}

/* The final answer first: then no 100, and the connection ends, since nobody knows what comes next. */
static void test_continue_not_after_answer(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, EXPECT);
    const char *out = h1_fixture_answer(f, l);
    assert_has_not(out, "100 Continue");
    assert_has(out, "Connection: close");
    assert_true(l->fin);
    h1_fixture_send(f, l, "GET" GET);
    assert_int_equal(f->starts, 1);
    finish(f, l);
}

/* Half of the answer has gone: in the middle of it a 100 would be a part of its body. */
static void test_continue_not_within_answer(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, EXPECT);
    h1_fixture_run(f);
    assert_int_equal(pn_exchange_head(f->kept, 200, PN_STR_NONE, NULL, 0, 4, 0), 0);
    assert_int_equal(pn_exchange_write(f->kept, "on", 2), 2);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    h1_fixture_send(f, l, "abc");
    assert_int_equal(pull(f->kept, &sum), PN_BODY_END);
    assert_int_equal(pn_exchange_write(f->kept, "ce", 2), 2);
    assert_int_equal(pn_exchange_end(f->kept, NULL, 0), 0);
    h1_fixture_drop(f);
    assert_has(h1_fixture_answer(f, l), "\r\n\r\nonce");
    finish(f, l);
}

static void test_continue_not_when_body_is_here(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_echo;
    struct sim_link *l = h1_fixture_connect(f, EXPECT "abc" GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has_not(out, "100 Continue");
    assert_has_not(out, "Connection: close");
    assert_int_equal(h1_count(out, "200 OK"), 2);
    finish(f, l);
}

static void test_continue_too_large(void **state)
{
    struct h1_fixture *f = *state;
    f->config.body_size_max = 2;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(f, EXPECT);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "HTTP/1.1 413 ");
    assert_has_not(out, "100 Continue");
    assert_int_equal(f->starts, 0);
    finish(f, l);
}

static void test_expect_unknown(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: tea\r\n\r\nabc");
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 417 ");
    finish(f, l);
}

static void test_expect_in_1_0_is_ignored(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_echo;
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    h1_fixture_send(f, l, "abc");
    const char *out = h1_fixture_output(l);
    assert_has(out, "\r\n\r\nabc");
    assert_has_not(out, "100 Continue");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* --- limits ------------------------------------------------------------------------------------------------- */

static void test_413_before_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    f->config.body_size_max = 10;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901" GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "HTTP/1.1 413 ");
    assert_int_equal(h1_count(out, "HTTP/1.1"), 1);
    assert_int_equal(f->starts, 0);
    assert_int_equal(f->seen[0].status, 413);
    assert_true(f->seen[0].had_exchange);
    finish(f, l);
}

static void test_413_as_chunks_pass(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->config.body_size_max = 10;
    f->config.body_buffer_size = 1;
    f->start = h1_fixture_start_later;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n");
    h1_fixture_run(f);
    assert_int_equal(f->starts, 1);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    h1_fixture_send(f, l, "6\r\n123456\r\n0\r\n\r\n" GET);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_ERROR);
    assert_int_equal(f->kept->cancel, PN_CANCEL_TOO_LARGE);
    /* Found in the handler's own call: no notify. */
    assert_int_equal(f->cancels, 0);
    assert_int_equal(pn_exchange_head(f->kept, 200, PN_STR_NONE, NULL, 0, 0, 0), -EPIPE);
    h1_fixture_drop(f);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "HTTP/1.1 413 ");
    assert_int_equal(h1_count(out, "HTTP/1.1"), 1);
    assert_int_equal(f->starts, 1);
    finish(f, l);
}

static void test_bad_chunk_before_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" GET);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 400 ");
    assert_int_equal(f->starts, 0);
    finish(f, l);
}

/* After a part of the answer has left, a bad body can only cut. */
static void test_bad_chunk_in_the_answer(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->config.body_buffer_size = 1;
    f->start = h1_fixture_start_later;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    h1_fixture_run(f);
    assert_int_equal(pn_exchange_head(f->kept, 200, PN_STR_NONE, NULL, 0, -1, 0), 0);
    assert_int_equal(pn_exchange_write(f->kept, "part", 4), 4);
    assert_int_equal(pn_exchange_flush(f->kept), 0);
    h1_fixture_send(f, l, "zz\r\n");
    assert_int_equal(pull(f->kept, &sum), PN_BODY_ERROR);
    assert_int_equal(f->kept->cancel, PN_CANCEL_PROTOCOL);
    h1_fixture_drop(f);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "4\r\npart\r\n");
    assert_has_not(out, "0\r\n\r\n");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* --- cut bodies and time-outs --------------------------------------------------------------------------------- */

/* gevent 92: a truncated POST must not loop or wait for ever. */
static void test_body_cut_before_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    sim_link_shutdown(l);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 400 ");
    assert_int_equal(f->starts, 0);
    assert_string_equal(f->seen[0].error, "body cut short");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_body_cut_in_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->config.body_buffer_size = 1;
    f->start = h1_fixture_start_later;
    h1_reopen(f);
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    h1_fixture_run(f);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    assert_true(f->notified & PN_NOTIFY_BODY);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_ERROR);
    assert_int_equal(f->kept->cancel, PN_CANCEL_CLIENT_GONE);
    h1_fixture_drop(f);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 400 ");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_body_timeout_before_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    h1_fixture_advance(f, PN_HTTP_BODY_TIMEOUT_MS - 10);
    assert_int_equal(pn_bytes_len(&l->to_client), 0);
    h1_fixture_advance(f, 20);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 408 ");
    assert_int_equal(f->starts, 0);
    h1_fixture_advance(f, PN_HTTP_LINGER_TIMEOUT_MS + 10);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_body_timeout_in_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    size_t sum = 0;
    f->config.body_buffer_size = 1;
    f->start = h1_fixture_start_later;
    h1_reopen(f);
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    h1_fixture_advance(f, 100000); /* nobody has asked for more yet */
    assert_int_equal(pull(f->kept, &sum), PN_BODY_AGAIN);
    h1_fixture_advance(f, PN_HTTP_BODY_TIMEOUT_MS + 10);
    assert_int_equal(f->cancels, 1);
    assert_int_equal(f->kept->cancel, PN_CANCEL_TIMEOUT);
    assert_int_equal(pull(f->kept, &sum), PN_BODY_ERROR);
    h1_fixture_drop(f);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 408 ");
    finish(f, l);
}

/* --- bodies that nobody reads ---------------------------------------------------------------------------------- */

static void test_unread_small_body_keeps_connection(void **state)
{
    struct h1_fixture *f = *state;
    f->config.body_buffer_size = 4;
    h1_reopen(f);
    /* The first four bytes are read before the call, the others after the answer. */
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n1234");
    assert_has_not(h1_fixture_answer(f, l), "Connection: close");
    sim_link_send(l, big, 500);
    h1_fixture_run(f);
    sim_link_send(l, big, 496);
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "hello\n");
    assert_int_equal(f->starts, 2);
    finish(f, l);
}

static void test_unread_large_body_closes(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    sim_link_send(l, big, 70000);
    h1_fixture_run(f);
    assert_has(h1_fixture_answer(f, l), "Connection: close");
    assert_true(l->fin);
    assert_int_not_equal(l->fd, -1);
    /* It is read for a while, so that the client gets to the answer. */
    sim_link_send(l, big, 100000);
    h1_fixture_run(f);
    assert_int_equal(pn_bytes_len(&l->to_server), 0);
    h1_fixture_advance(f, PN_HTTP_LINGER_TIMEOUT_MS + 10);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_linger_is_bounded(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, "BAD\r\n\r\n");
    for (int i = 0; i < 20 && l->fd >= 0; i++) {
        sim_link_send(l, big, 100000);
        h1_fixture_run(f);
    }
    assert_int_equal(l->fd, -1);
    assert_has(h1_fixture_output(l), "400");
    sim_link_free(l);
}

static void test_unread_chunked_body(void **state)
{
    struct h1_fixture *f = *state;
    f->config.body_buffer_size = 1;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(
        f, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\n");
    assert_has(h1_fixture_answer(f, l), "Connection: close");
    finish(f, l);
}

static void start_answer_first(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 2, 0), 0);
    assert_int_equal(pn_exchange_write(x, "o", 1), 1);
    assert_int_equal(pn_exchange_write(x, "k", 1), 1);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

/* The head left before it was known that the body would not be read: then it is drained. */
static void test_unread_chunked_body_drained(void **state)
{
    struct h1_fixture *f = *state;
    f->config.body_buffer_size = 1;
    f->start = start_answer_first;
    h1_reopen(f);
    const char *post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
    struct sim_link *l = h1_fixture_connect(f, post);
    assert_has(h1_fixture_answer(f, l), "ok");
    h1_fixture_send(f, l, "3\r\nabc\r\n");
    h1_fixture_send(f, l, "0\r\n\r\n" GET);
    assert_has(h1_fixture_answer(f, l), "ok");
    assert_int_equal(f->starts, 2);
    finish(f, l);
    /* Bad framing there, or a client that stops, ends the connection. */
    l = h1_fixture_connect(f, post);
    h1_fixture_send(f, l, "zz\r\n" GET);
    assert_int_equal(f->starts, 3);
    finish(f, l);
    l = h1_fixture_connect(f, post);
    h1_fixture_advance(f, PN_HTTP_BODY_TIMEOUT_MS + 10);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* So much of it that the connection is not worth it: after the answer no more is read than a lingering close does. */
static void test_unread_body_is_drained_within_bounds(void **state)
{
    static const char *const framings[] = {
        "Content-Length: 100000000\r\n\r\na",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n5f5e100\r\n",
    };
    struct h1_fixture *f = *state;
    f->config.body_buffer_size = 1;
    f->start = start_answer_first;
    h1_reopen(f);
    for (int i = 0; i < 2; i++) {
        char post[128] = "POST / HTTP/1.1\r\nHost: a\r\n";
        struct sim_link *l = h1_fixture_connect(f, strcat(post, framings[i]));
        assert_has(h1_fixture_answer(f, l), "ok");
        size_t sent = 0;
        for (; !l->fin && sent < 10000000; sent += 50000) {
            sim_link_send(l, big, 50000);
            h1_fixture_run(f);
        }
        assert_in_range(sent, 0, 4 * 50000);
        h1_fixture_advance(f, PN_HTTP_LINGER_TIMEOUT_MS + 10);
        assert_int_equal(l->fd, -1);
        sim_link_free(l);
    }
}

/* --- answers without bodies -------------------------------------------------------------------------------------- */

static unsigned bodiless_status;

static void start_bodiless(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct pn_field fields[] = {{PN_STR("Content-Length"), PN_STR("5")}};
    (void)f;
    assert_int_equal(pn_exchange_head(x, bodiless_status, PN_STR_NONE, fields, 1, -1, 0), 0);
    assert_int_equal(pn_exchange_write(x, "12345", 5), 5);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

static const char *bodiless(struct h1_fixture *f, struct sim_link *l, const char *request,
                            unsigned status)
{
    bodiless_status = status;
    f->start = start_bodiless;
    h1_fixture_send(f, l, request);
    const char *out = h1_fixture_answer(f, l);
    /* Nothing behind the head: the next head would be misread. */
    assert_string_equal(strstr(out, "\r\n\r\n"), "\r\n\r\n");
    assert_has_not(out, "chunked");
    return out;
}

#define HEAD "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"

static void test_no_body_where_forbidden(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    assert_has(bodiless(f, l, HEAD, 200), "Content-Length: 5\r\n");
    assert_has(bodiless(f, l, GET, 304), "Content-Length: 5\r\n");
    assert_has_not(bodiless(f, l, GET, 204), "Content-Length");
    assert_has_not(bodiless(f, l, HEAD, 204), "Content-Length");
    finish(f, l);
}

static void start_head_unknown(struct h1_fixture *f, struct pn_exchange *x)
{
    assert_int_equal(pn_exchange_head(x, f->arg ? 304 : 200, PN_STR_NONE, NULL, 0, -1, 0), 0);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

/* The length that a GET would have had is not known: none is invented. */
static void test_head_of_unknown_length(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_head_unknown;
    struct sim_link *l = h1_fixture_connect(f, HEAD);
    const char *out = h1_fixture_answer(f, l);
    assert_has_not(out, "Content-Length");
    assert_has_not(out, "Transfer-Encoding");
    assert_has_not(out, "Connection");
    f->arg = f;
    h1_fixture_send(f, l, GET);
    assert_has_not(h1_fixture_answer(f, l), "Content-Length");
    finish(f, l);
    /* In 1.0 as well, and the connection is kept. */
    l = h1_fixture_connect(f, "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_has(h1_fixture_answer(f, l), "Connection: keep-alive");
    finish(f, l);
}

static void test_refusal_of_head_has_no_body(void **state)
{
    struct h1_fixture *f = *state;
    f->config.body_size_max = 2;
    h1_reopen(f);
    struct sim_link *l =
        h1_fixture_connect(f, "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "413");
    assert_string_equal(strstr(out, "\r\n\r\n"), "\r\n\r\n");
    finish(f, l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        h1_test(test_whole_body),
        h1_test(test_body_comes_slowly),
        h1_test(test_body_cut_everywhere),
        h1_test(test_large_body_streams),
        h1_test(test_large_chunked_body_streams),
        h1_test(test_body_awaited_by_handler),
        h1_test(test_small_bites),
        h1_test(test_body_without_the_loop),
        h1_test(test_continue_when_asked_for),
        h1_test(test_continue_by_the_handler),
        h1_test(test_continue_not_after_answer),
        h1_test(test_continue_not_within_answer),
        h1_test(test_continue_not_when_body_is_here),
        h1_test(test_continue_too_large),
        h1_test(test_expect_unknown),
        h1_test(test_expect_in_1_0_is_ignored),
        h1_test(test_413_before_the_handler),
        h1_test(test_413_as_chunks_pass),
        h1_test(test_bad_chunk_before_the_handler),
        h1_test(test_bad_chunk_in_the_answer),
        h1_test(test_body_cut_before_the_handler),
        h1_test(test_body_cut_in_the_handler),
        h1_test(test_body_timeout_before_the_handler),
        h1_test(test_body_timeout_in_the_handler),
        h1_test(test_unread_small_body_keeps_connection),
        h1_test(test_unread_large_body_closes),
        h1_test(test_linger_is_bounded),
        h1_test(test_unread_chunked_body),
        h1_test(test_unread_chunked_body_drained),
        h1_test(test_unread_body_is_drained_within_bounds),
        h1_test(test_no_body_where_forbidden),
        h1_test(test_head_of_unknown_length),
        h1_test(test_refusal_of_head_has_no_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
