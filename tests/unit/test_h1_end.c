/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1.1 wire: its end (drain, close), tunnels, memory that runs out, heads that come again. */
#include "unit/h1_test.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "http/h1_wire.h"

/* --- drain ---------------------------------------------------------------------------------------------------- */

static void test_drain(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *idle = h1_fixture_connect(f, GET);
    struct sim_link *racing = h1_fixture_connect(f, GET);
    f->start = h1_fixture_start_later;
    struct sim_link *busy = h1_fixture_connect(f, GET);
    f->start = NULL;
    h1_fixture_answer(f, idle);
    h1_fixture_answer(f, racing);
    pn_h1_drain(f->h1);
    h1_fixture_advance(f, 50);
    assert_int_not_equal(idle->fd, -1);
    h1_fixture_send(f, racing, GET); /* it was on its way */
    assert_has(h1_fixture_answer(f, racing), "Connection: close");
    assert_int_equal(racing->fd, -1);
    h1_fixture_advance(f, PN_H1_DRAIN_GRACE_MS);
    assert_int_equal(idle->fd, -1);
    assert_int_not_equal(busy->fd, -1);
    h1_fixture_reply(f->kept, 200, "done\n");
    h1_fixture_drop(f);
    assert_has(h1_fixture_answer(f, busy), "Connection: close");
    assert_int_equal(busy->fd, -1);
    assert_int_equal(pn_h1_connections(f->h1), 0);
    sim_link_free(idle);
    sim_link_free(racing);
    sim_link_free(busy);
}

static void test_close_all_cancels(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_start_later;
    struct sim_link *busy = h1_fixture_connect(f, GET);
    struct sim_link *idle = h1_fixture_connect(f, NULL);
    h1_fixture_run(f);
    pn_h1_close_all(f->h1);
    assert_int_equal(f->kept->cancel, PN_CANCEL_SHUTDOWN);
    assert_int_equal(f->cancels, 1);
    assert_int_equal(busy->fd, -1);
    assert_int_equal(idle->fd, -1);
    h1_fixture_drop(f);
    h1_fixture_run(f);
    sim_link_free(busy);
    sim_link_free(idle);
}

/* --- the peer's end of its direction -------------------------------------------------------------------------- */

static void start_that_asks(struct h1_fixture *f, struct pn_exchange *x)
{
    x->tell_end = true;
    h1_fixture_keep(f, x);
}

/* Told once, and the answer is taken all the same; also where the end came with the request. */
static void test_the_end_is_told(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_that_asks;
    for (int at_once = 0; at_once < 2; at_once++) {
        struct sim_link *l = h1_fixture_connect(f, "");
        sim_link_send(l, GET, strlen(GET));
        if (at_once)
            sim_link_shutdown(l);
        h1_fixture_run(f);
        if (!at_once) {
            assert_int_equal(f->notified, 0);
            sim_link_shutdown(l);
            h1_fixture_run(f);
        }
        assert_int_equal(f->notified, PN_NOTIFY_PEER_ENDED);
        assert_false(f->kept->tell_end);
        f->notified = 0;
        h1_fixture_run(f);
        assert_int_equal(f->notified, 0);
        h1_fixture_reply(f->kept, 200, "heard\n");
        h1_fixture_drop(f);
        assert_has(h1_fixture_answer(f, l), "heard\n");
        assert_int_equal(l->fd, -1);
        sim_link_free(l);
    }
}

/* --- upgrade ---------------------------------------------------------------------------------------------------- */

static void start_upgrade(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct pn_field fields[] = {{PN_STR("Upgrade"), PN_STR("echo")}};
    assert_int_equal(pn_exchange_upgrade(x, 101, NULL, 0), -EINVAL);
    assert_int_equal(pn_exchange_upgrade(x, 101, fields, 1), 0);
    h1_fixture_keep(f, x);
}

static void test_upgrade(void **state)
{
    struct h1_fixture *f = *state;
    struct pn_str view;
    f->start = start_upgrade;
    struct sim_link *l = h1_fixture_connect(f, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\n"
                                               "Connection: keep-alive, Upgrade\r\n\r\nearly");
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n"
                                        "Connection: upgrade\r\n\r\n");
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_DATA);
    assert_int_equal(view.n, 5);
    pn_exchange_body_consume(f->kept, 5);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_AGAIN);
    h1_fixture_advance(f, 3600 * 1000); /* a silent tunnel has no time-out of ours */
    h1_fixture_send(f, l, "GET / HTTP/1.1\r\n\r\n");
    assert_true(f->notified & PN_NOTIFY_BODY);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_DATA);
    assert_int_equal(view.n, 18);
    pn_exchange_body_consume(f->kept, 18);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_AGAIN);
    assert_int_equal(pn_exchange_write(f->kept, "raw\0", 4), 4);
    h1_fixture_run(f);
    assert_int_equal(pn_bytes_len(&l->to_client), 4);
    sim_link_shutdown(l);
    f->notified = 0;
    h1_fixture_run(f);
    assert_true(f->notified & PN_NOTIFY_BODY);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_END);
    assert_int_equal(pn_exchange_end(f->kept, NULL, 0), 0);
    h1_fixture_drop(f);
    h1_fixture_run(f);
    assert_int_equal(l->fd, -1);
    assert_int_equal(f->starts, 1);
    sim_link_free(l);
}

static void start_upgrade_unasked(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct pn_field fields[] = {{PN_STR("Upgrade"), PN_STR("echo")}};
    (void)f;
    assert_int_equal(pn_exchange_upgrade(x, 101, fields, 1), -EINVAL);
    h1_fixture_reply(x, 200, "no\n");
}

static void test_upgrade_unasked(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_upgrade_unasked;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(h1_fixture_answer(f, l), "no\n");
    /* Where the tunnel begins behind a body, nobody could tell. */
    h1_fixture_send(f, l,
                    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\n"
                    "Content-Length: 3\r\n\r\nabc");
    assert_has(h1_fixture_answer(f, l), "no\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* --- memory ---------------------------------------------------------------------------------------------------- */

static void start_kept_text(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    (void)pn_exchange_keep(x);
    (void)pn_exchange_keep(x);
    if (pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 5, 0) < 0 ||
        pn_exchange_write(x, "hello", 5) < 0 || pn_exchange_end(x, NULL, 0) < 0)
        pn_exchange_cancel(x, PN_CANCEL_HANDLER);
}

/* A kept text that is short lies behind the answer's head, which has as much less room. */
static void start_long_head(struct h1_fixture *f, struct pn_exchange *x)
{
    static char text[1200];
    const struct pn_field fields[] = {{PN_STR("X-Long"), {text, (size_t)(intptr_t)f->arg}}};
    memset(text, 'v', sizeof text);
    assert_int_equal(pn_exchange_keep(x), 0);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, fields, 1, 0, 0), 0);
    struct pn_str target = pn_exchange_text(x, x->target);
    assert_memory_equal(target.p, "/kept", target.n);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

static void test_kept_text_stays(void **state)
{
    struct h1_fixture *f = *state;
    char request[512];
    snprintf(request, sizeof request, "GET /kept HTTP/1.1\r\nHost: a\r\nX-Pad: %0300d\r\n\r\n", 0);
    f->start = start_long_head;
    for (int n = 1; n < 1200; n++) {
        f->arg = (void *)(intptr_t)n;
        struct sim_link *l = h1_fixture_connect(f, request);
        const char *answer = h1_fixture_answer(f, l);
        const char *value = strstr(answer, "X-Long: ");
        assert_non_null(value);
        assert_int_equal(strspn(value + 8, "v"), n);
        sim_link_shutdown(l);
        h1_fixture_run(f);
        sim_link_free(l);
    }
}

static void start_keeps_first(struct h1_fixture *f, struct pn_exchange *x)
{
    if (f->starts == 1)
        h1_fixture_keep(f, x);
    h1_fixture_reply(x, 200, "hello\n");
}

/* Who keeps an exchange past its end finds no text in it, and takes nothing of the next request's. */
static void test_text_is_over_with_the_request(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_keeps_first;
    struct sim_link *l = h1_fixture_connect(f, "GET /first HTTP/1.1\r\nHost: a\r\n\r\n" GET GET);
    assert_int_equal(f->kept->state, PN_EXCHANGE_ENDED);
    assert_int_equal(pn_exchange_text(f->kept, f->kept->target).n, 0);
    assert_int_equal(f->kept->header_count, 0);
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "hello\n"), 3);
    h1_fixture_drop(f);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void scenario(struct h1_fixture *f)
{
    f->start = start_kept_text;
    struct sim_link *l = h1_fixture_connect(f, "GET / HTTP/1.1\r\nHo");
    h1_fixture_send(f, l, "st: a\r\n\r\n" GET);
    h1_fixture_send(f, l,
                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab");
    h1_fixture_send(f, l, "c\r\n0\r\n\r\n");
    h1_fixture_send(f, l, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234");
    h1_fixture_send(f, l, "567890" GET);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    h1_fixture_advance(f, 100000);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

/* Asks for the body, so that a 100 is due; then all that an answer can have, larger than its buffers. */
static bool answer_at_length(struct pn_exchange *x)
{
    static char text[40000];
    struct pn_str view;
    memset(text, 'v', sizeof text);
    const struct pn_field fields[] = {{PN_STR("X-Long"), {text, 3000}}};
    (void)pn_exchange_body_peek(x, &view);
    if (pn_exchange_info(x, 103, fields, 1) < 0 ||
        pn_exchange_head(x, 200, PN_STR_NONE, fields, 1, -1, 0) < 0)
        return false;
    for (int i = 0; i < 3; i++) {
        size_t done = 0;
        while (done < sizeof text) {
            ssize_t n = pn_exchange_write(x, text + done, sizeof text - done);
            if (n <= 0)
                return false;
            done += (size_t)n;
        }
    }
    return pn_exchange_end(x, fields, 1) == 0;
}

static void start_at_length(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    if (!answer_at_length(x))
        pn_exchange_cancel(x, PN_CANCEL_HANDLER);
}

static void take_all(struct h1_fixture *f, struct sim_link *l)
{
    for (int i = 0; i < 100 && pn_bytes_len(&l->to_client) > 0; i++) {
        sim_link_take(l, pn_bytes_len(&l->to_client));
        h1_fixture_run(f);
    }
}

/* Many headers, a 100, early hints, a long head, chunks to a slow reader, trailers; and refusals. */
static void scenario_at_length(struct h1_fixture *f)
{
    char text[4096];
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 60; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "X-%d: %d\r\n", i, i);
    strcpy(text + n, "\r\n");
    f->start = start_at_length;
    struct sim_link *l = h1_fixture_connect(f, text);
    sim_link_set_window(l, 5000);
    h1_fixture_run(f);
    take_all(f, l);
    h1_fixture_send(f, l,
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
                    "Expect: 100-continue\r\n\r\n");
    take_all(f, l);
    sim_link_shutdown(l);
    take_all(f, l);
    struct sim_link *bad = h1_fixture_connect(f, "GET / HTTP/1.1\r\n\r\n" GET);
    sim_link_shutdown(bad);
    h1_fixture_run(f);
    h1_fixture_advance(f, 100000);
    assert_int_equal(l->fd, -1);
    assert_int_equal(bad->fd, -1);
    sim_link_free(bad);
    sim_link_free(l);
}

/* Whatever allocation fails, the connection ends in order and nothing leaks or hangs. */
static void fail_each_allocation(struct h1_fixture *f, void (*play)(struct h1_fixture *f))
{
    pn_mem_fail_at(ULONG_MAX, false);
    play(f);
    unsigned long count = pn_mem_fail_at(0, false);
    for (unsigned long n = 1; n <= count + 2; n++) {
        for (int forever = 0; forever < 2; forever++) {
            pn_mem_fail_at(0, false);
            h1_reopen(f);
            pn_mem_fail_at(n, forever);
            play(f);
        }
    }
    pn_mem_fail_at(0, false);
}

static void test_every_allocation_fails(void **state)
{
    fail_each_allocation(*state, scenario);
}

static void test_every_allocation_fails_at_length(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_at_length;
    struct sim_link *l = h1_fixture_connect(f, GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "HTTP/1.1 103 ");
    assert_has(out, "v\r\n0\r\nX-Long: v");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
    fail_each_allocation(f, scenario_at_length);
}

static void test_many_headers(void **state)
{
    struct h1_fixture *f = *state;
    char text[4096];
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 60; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "X-%d: %d\r\n", i, i);
    strcpy(text + n, "\r\n");
    struct sim_link *l = h1_fixture_connect(f, text);
    assert_has(h1_fixture_answer(f, l), "hello\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}
/* --- heads that come again --------------------------------------------------------------------------- */

struct numbered {
    uint64_t id;
    unsigned status;
    const char *value;
    const char *expected;
};

static const struct numbered *numbered;

static void start_numbered(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct numbered *n = numbered++;
    const struct pn_field field = {PN_STR("X-Value"), {n->value, strlen(n->value)}};
    (void)f;
    x->fields_id = n->id;
    assert_int_equal(pn_exchange_head(x, n->status, PN_STR_NONE, &field, 1, 0, 0), 0);
    assert_int_equal(x->fields_id, 0);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

/* Fields with a number are formatted once: what is said to be the same is not looked at again. */
static void test_numbered_fields(void **state)
{
    struct h1_fixture *f = *state;
    char big[400];
    memset(big, 'b', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    const struct numbered rows[] = {
        {7, 200, "one", "200 OK\r\nX-Value: one\r\n"},
        {7, 200, "two", "200 OK\r\nX-Value: one\r\n"}, /* a lie, to see it */
        {0, 200, "three", "200 OK\r\nX-Value: three\r\n"},
        {7, 200, "", "200 OK\r\nX-Value: one\r\n"},
        {7, 404, "four", "404 Not Found\r\nX-Value: four\r\n"},
        {7, 404, "five", "404 Not Found\r\nX-Value: four\r\n"},
        {7 + PN__H1_KEPT, 404, "six", "404 Not Found\r\nX-Value: six\r\n"}, /* takes its place */
        {7, 404, "seven", "404 Not Found\r\nX-Value: seven\r\n"},
        {8, 200, big, "200 OK\r\nX-Value: bbb"},
        {8, 200, "eight", "200 OK\r\nX-Value: eight\r\n"}, /* big was too big */
    };
    f->start = start_numbered;
    numbered = rows;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    h1_fixture_run(f);
    for (size_t i = 0; i < PN_ARRAY_LEN(rows); i++) {
        h1_fixture_send(f, l, GET);
        assert_has(h1_fixture_output(l), rows[i].expected);
        sim_link_take(l, pn_bytes_len(&l->to_client));
    }
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        h1_test(test_the_end_is_told),
        h1_test(test_drain),
        h1_test(test_close_all_cancels),
        h1_test(test_upgrade),
        h1_test(test_upgrade_unasked),
        h1_test(test_kept_text_stays),
        h1_test(test_text_is_over_with_the_request),
        h1_test(test_every_allocation_fails),
        h1_test(test_every_allocation_fails_at_length),
        h1_test(test_many_headers),
        h1_test(test_numbered_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
