/* SPDX-License-Identifier: Apache-2.0 */
/* Slow peers and ends at bad moments: histories that the simulation has found. */
#include "unit/h1_test.h"

enum { BIG = 300000 };
static char big[2 * BIG];

static void finish(struct h1_fixture *f, struct sim_link *l)
{
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_take(l, pn_bytes_len(&l->to_client));
    h1_fixture_run(f);
    assert_true(l->fd < 0);
    sim_link_free(l);
}

static void start_chunks(struct h1_fixture *f, struct pn_exchange *x)
{
    h1_fixture_keep(f, x);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, -1, 0), 0);
}

static struct sim_link *connect_slow(struct h1_fixture *f, size_t window, const char *text)
{
    struct sim_link *l = h1_fixture_connect(f, "");
    sim_link_set_window(l, window);
    h1_fixture_send(f, l, text);
    h1_fixture_run(f);
    return l;
}

/* A write that took less opened a chunk; the next one has more to give than that chunk has room for. */
static void test_write_past_an_open_chunk(void **state)
{
    struct h1_fixture *f = *state;
    memset(big, 'x', sizeof big);
    f->start = start_chunks;
    struct sim_link *l = connect_slow(f, 1000, GET);
    struct pn_exchange *x = f->kept;
    ssize_t taken = pn_exchange_write(x, big, BIG);
    assert_true(taken > 0 && taken < BIG);
    sim_link_set_window(l, SIZE_MAX);
    h1_fixture_run(f);
    assert_int_equal(f->notified, PN_NOTIFY_DRAINED);
    /* A short count would promise another DRAINED, and none would come. */
    assert_int_equal(pn_exchange_write(x, big + taken, (size_t)(BIG - taken) + 100),
                     BIG - taken + 100);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
    h1_fixture_drop(f);
    const char *text = h1_fixture_answer(f, l);
    assert_has(text, "\r\n493e0\r\nx");
    assert_has(text, "x\r\n64\r\nx");
    assert_has(text, "x\r\n0\r\n\r\n");
    finish(f, l);
}

static void test_file_past_an_open_chunk(void **state)
{
    struct h1_fixture *f = *state;
    FILE *file = tmpfile();
    off_t offset = 0;
    assert_int_equal(fwrite(big, 1, BIG, file), BIG);
    assert_int_equal(fflush(file), 0);
    f->start = start_chunks;
    struct sim_link *l = connect_slow(f, 1000, GET);
    struct pn_exchange *x = f->kept;
    assert_true(pn_exchange_send_file(x, fileno(file), &offset, 5000) < 5000);
    sim_link_set_window(l, SIZE_MAX);
    h1_fixture_run(f);
    assert_int_equal(f->notified, PN_NOTIFY_DRAINED);
    size_t left = 6000 - (size_t)offset;
    assert_int_equal(pn_exchange_send_file(x, fileno(file), &offset, left), left);
    assert_int_equal(offset, 6000);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
    h1_fixture_drop(f);
    const char *text = h1_fixture_answer(f, l);
    assert_has(text, "\r\n1388\r\n");
    assert_has(text, "\r\n3e8\r\n");
    fclose(file);
    finish(f, l);
}

static void start_file_too_long(struct h1_fixture *f, struct pn_exchange *x)
{
    FILE *file = tmpfile();
    off_t offset = 0;
    (void)f;
    assert_int_equal(fwrite("0123456789", 1, 10, file), 10);
    fflush(file);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 5, 0), 0);
    assert_int_equal(pn_exchange_send_file(x, fileno(file), &offset, 6), -EMSGSIZE);
    assert_int_equal(pn_exchange_send_file(x, fileno(file), &offset, 2), 2);
    assert_int_equal(pn_exchange_send_file(x, fileno(file), &offset, 4), -EMSGSIZE);
    assert_int_equal(pn_exchange_send_file(x, fileno(file), &offset, 3), 3);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
    fclose(file);
}

static void test_send_file_that_is_longer_than_announced(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_file_too_long;
    struct sim_link *l = h1_fixture_connect(f, GET);
    const char *body = strstr(h1_fixture_answer(f, l), "\r\n\r\n");
    assert_non_null(body);
    assert_string_equal(body, "\r\n\r\n01234");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_big_then_cancel(struct h1_fixture *f, struct pn_exchange *x)
{
    if (f->starts == 1) {
        assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 50000, 0), 0);
        assert_int_equal(pn_exchange_write(x, big, 50000), 50000);
        assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
        return;
    }
    pn_exchange_cancel(x, PN_CANCEL_HANDLER);
}

/* A cut ends the answer at hand; the whole ones before it are still on their way. */
static void test_cut_behind_a_whole_answer(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_big_then_cancel;
    struct sim_link *l = connect_slow(f, 1000, GET GET);
    assert_int_equal(f->starts, 2);
    assert_true(l->fd >= 0);
    sim_link_set_window(l, SIZE_MAX);
    const char *text = h1_fixture_answer(f, l);
    assert_has(text, "Content-Length: 50000\r\n");
    assert_int_equal(strlen(strstr(text, "\r\n\r\n") + 4), 50000);
    assert_true(l->fd < 0);
    assert_false(l->reset);
    sim_link_free(l);
}

/* The peer takes nothing of it: the write time-out ends that, as any other. */
static void test_cut_that_nobody_takes(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_big_then_cancel;
    struct sim_link *l = connect_slow(f, 1000, GET GET);
    h1_fixture_advance(f, PN_HTTP_WRITE_TIMEOUT_MS + 1);
    assert_true(l->fd < 0);
    assert_true(l->reset);
    sim_link_free(l);
}

static void start_hint_then_short(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_info(x, 103, NULL, 0), 0);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 10, 0), 0);
    assert_int_equal(pn_exchange_end(x, NULL, 0), -EMSGSIZE);
}

static void test_log_counts_hint_and_refusal(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_hint_then_short;
    struct sim_link *l = h1_fixture_connect(f, GET);
    const char *text = h1_fixture_answer(f, l);
    assert_has(text, "HTTP/1.1 103 ");
    assert_has(text, "HTTP/1.1 500 ");
    assert_int_equal(f->seen[0].sent_size, strlen(text));
    finish(f, l);
}

static char logged[64];

static void log_target(void *ctx, const struct pn_access *a)
{
    (void)ctx;
    struct pn_str target = a->x ? pn_exchange_text(a->x, a->x->target) : PN_STR("-");
    snprintf(logged, sizeof logged, "%.*s", PN_STR_ARGS(target));
}

/* The input moves while a body is read, and the text of a request that is not started yet with it. */
static void test_log_of_a_body_that_never_came(void **state)
{
    struct h1_fixture *f = *state;
    f->config.on_access = log_target;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(
        f, "POST /in-the-scratch HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    /* Another connection's bytes are where the text was. */
    struct sim_link *other =
        h1_fixture_connect(f, "GET /0123456789012345678901234567890123456789 ");
    h1_fixture_advance(f, PN_HTTP_BODY_TIMEOUT_MS + 1);
    assert_string_equal(logged, "/in-the-scratch");
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 408 ");
    finish(f, other);
    finish(f, l);
}

/* The server ends a connection that its client meant to keep: the next request is there already, though the last read
 * was short. A close over it would be a reset. */
static void test_request_behind_the_last_one(void **state)
{
    struct h1_fixture *f = *state;
    f->config.keepalive_requests_max = 1;
    h1_reopen(f);
    struct sim_link *l = h1_fixture_connect(f, "");
    l->read_max = strlen(GET);
    h1_fixture_send(f, l, GET GET);
    assert_has(h1_fixture_answer(f, l), "Connection: close\r\n");
    assert_int_equal(f->starts, 1);
    assert_true(l->fin);
    assert_true(l->fd >= 0);
    finish(f, l);
}

/* The same while the answer waits for a slow peer. */
static void test_request_behind_the_last_slow_one(void **state)
{
    struct h1_fixture *f = *state;
    f->config.keepalive_requests_max = 1;
    h1_reopen(f);
    struct sim_link *l = connect_slow(f, 10, GET);
    h1_fixture_send(f, l, GET);
    sim_link_set_window(l, SIZE_MAX);
    assert_has(h1_fixture_answer(f, l), "Connection: close\r\n");
    assert_true(l->fin);
    assert_true(l->fd >= 0);
    finish(f, l);
}

enum { POST_BODY = 65000 };

/* A request that fills the reads' buffer, with LINE among its headers, and a byte of room for more. */
static char *full_read(const char *line)
{
    static char request[PN_NET_SCRATCH_SIZE + 64];
    int n = snprintf(request, sizeof request,
                     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%sX: ", POST_BODY, line);
    memset(request + n, 'x', sizeof request - (size_t)n);
    memcpy(request + PN_NET_SCRATCH_SIZE - POST_BODY - 4, "\r\n\r\n", 4);
    request[PN_NET_SCRATCH_SIZE] = '\0';
    return request;
}

/* The client has asked for the end, and sends on: a read that filled its buffer may not have been the last. */
static void test_bytes_behind_a_full_read(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_echo;
    struct sim_link *l =
        h1_fixture_connect(f, strcat(full_read("Connection: close\r\n"), "and more"));
    assert_int_equal(f->starts, 1);
    assert_has(h1_fixture_answer(f, l), "Connection: close\r\n");
    assert_true(l->fin);
    assert_int_equal(l->unread, 0);
    finish(f, l);
}

static struct sim_link *pipelined;
static bool first_was_answered;

static void start_and_look(struct h1_fixture *f, struct pn_exchange *x)
{
    if (f->starts == 2)
        first_was_answered = strstr(h1_fixture_output(pipelined), "\r\n\r\nhello\n");
    h1_fixture_reply(x, 200, "hello\n");
}

/* What comes with the next read does not delay the answer that is there: its handler may take long. */
static void test_answer_leaves_before_the_next_read(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_and_look;
    pipelined = h1_fixture_connect(f, "");
    h1_fixture_send(f, pipelined, strcat(full_read(""), GET));
    assert_int_equal(f->starts, 2);
    assert_true(first_was_answered);
    finish(f, pipelined);
}

static void reply_x(struct pn_exchange *x, size_t n)
{
    memset(big, 'x', n);
    big[n] = '\0';
    h1_fixture_reply(x, 200, big);
}

static void start_some(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    reply_x(x, 1500);
}

static void start_much(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    reply_x(x, 15000);
}

/* Many requests at once of a peer that takes no answer: they wait, and so do bytes for it. */
static void test_pipeline_that_nobody_takes(void **state)
{
    enum { REQUESTS = 60, ENOUGH = PN_HTTP_PIPELINE_OUT_MAX / 15000 };
    struct h1_fixture *f = *state;
    f->start = start_much;
    struct sim_link *l = h1_fixture_connect(f, "");
    sim_link_set_window(l, 1000);
    for (int i = 0; i < REQUESTS; i++)
        sim_link_send(l, GET, strlen(GET));
    h1_fixture_run(f);
    assert_in_range(f->starts, 2, ENOUGH + 1);
    sim_link_set_window(l, SIZE_MAX);
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "200 OK"), REQUESTS);
    finish(f, l);
}

static void start_big_then_echo(struct h1_fixture *f, struct pn_exchange *x)
{
    if (f->starts == 1)
        start_big_then_cancel(f, x);
    else
        h1_fixture_echo(f, x);
}

/* The next request's body is not read before the answer is taken, and it is not late for that. */
static void test_body_behind_a_slow_answer(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_big_then_echo;
    struct sim_link *l =
        connect_slow(f, 1000, GET "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    h1_fixture_send(f, l, "67890");
    for (int i = 0; i < 4; i++) {
        h1_fixture_advance(f, PN_HTTP_WRITE_TIMEOUT_MS - 1);
        sim_link_take(l, 1000);
        h1_fixture_run(f);
    }
    assert_int_equal(f->starts, 1);
    sim_link_set_window(l, SIZE_MAX);
    assert_has(h1_fixture_answer(f, l), "\r\n\r\n1234567890");
    finish(f, l);
}

/* An answer leaves in more rounds than one flush makes, and nobody has begun to watch the socket. */
static void test_rest_of_a_head_behind_many_sends(void **state)
{
    struct h1_fixture *f = *state;
    const struct pn_peer peer = {.address = "192.0.2.1", .address_len = 9};
    f->start = start_some;
    struct sim_link *l = sim_link_open(f->sim);
    struct pn_transport t = sim_link_transport(l);
    l->write_max = 64;
    h1_fixture_send(f, l, GET "GET / HTTP/1.1\r\n");
    pn_h1_adopt(f->h1, &t, &peer, NULL);
    h1_fixture_run(f);
    h1_fixture_send(f, l, "Host: a\r\n\r\n");
    h1_fixture_run(f);
    assert_int_equal(f->starts, 2);
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "200 OK"), 2);
    finish(f, l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        h1_test(test_write_past_an_open_chunk),
        h1_test(test_file_past_an_open_chunk),
        h1_test(test_cut_behind_a_whole_answer),
        h1_test(test_cut_that_nobody_takes),
        h1_test(test_log_counts_hint_and_refusal),
        h1_test(test_log_of_a_body_that_never_came),
        h1_test(test_request_behind_the_last_one),
        h1_test(test_request_behind_the_last_slow_one),
        h1_test(test_body_behind_a_slow_answer),
        h1_test(test_rest_of_a_head_behind_many_sends),
        h1_test(test_bytes_behind_a_full_read),
        h1_test(test_answer_leaves_before_the_next_read),
        h1_test(test_pipeline_that_nobody_takes),
        h1_test(test_send_file_that_is_longer_than_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
