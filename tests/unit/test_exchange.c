/* SPDX-License-Identifier: Apache-2.0 */
/* The seam: what a handler sees of a request, and the states of an exchange. */
#include "unit/h1_test.h"

#include "http/h1_names.h"

static void finish(struct h1_fixture *f, struct sim_link *l)
{
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

#define assert_text(x, span, text)                           \
    do {                                                     \
        struct pn_str text_ = pn_exchange_text((x), (span)); \
        assert_int_equal(text_.n, strlen(text));             \
        assert_memory_equal(text_.p, (text), strlen(text));  \
    } while (0)

static void start_look(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct pn_header *h = pn_exchange_find(x, PN_HEADER_USER_AGENT);
    (void)f;
    assert_int_equal(x->state, PN_EXCHANGE_RECEIVED);
    assert_text(x, x->method, "PUT");
    assert_text(x, x->target, "/a%20b?c=d");
    assert_text(x, x->path, "/a%20b");
    assert_text(x, x->query, "c=d");
    assert_text(x, x->authority, "example.com:81");
    assert_int_equal(x->version_major, 1);
    assert_int_equal(x->version_minor, 1);
    assert_false(x->is_head);
    assert_false(x->scheme_https);
    assert_false(x->upgrade_asked);
    assert_true(x->has_body);
    assert_int_equal(x->content_length, 2);
    assert_int_equal(x->header_count, 4);
    assert_non_null(h);
    struct pn_str name = pn_header_name(x, h), value = pn_header_value(x, h);
    assert_int_equal(name.n, 10);
    assert_memory_equal(name.p, "uSER-aGENT", 10);
    assert_int_equal(value.n, 3);
    assert_memory_equal(value.p, "x y", 3);
    assert_null(pn_exchange_find(x, PN_HEADER_COOKIE));
    assert_string_equal(x->peer->address, "192.0.2.1");
    assert_int_equal(x->peer->port, 4711);
    assert_string_equal(x->ops->name, "http/1.1");
    assert_true(pn_exchange_wait_fd(x) >= 0);
    h1_fixture_reply(x, 200, "seen\n");
}

static void test_request_as_seen(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_look;
    struct sim_link *l =
        h1_fixture_connect(f, "PUT /a%20b?c=d HTTP/1.1\r\nHost: example.com:81\r\n"
                              "uSER-aGENT:  x y \r\nContent-Length: 2\r\nX-A: b\r\n\r\nab");
    assert_has(h1_fixture_answer(f, l), "seen\n");
    finish(f, l);
}

static void start_absolute(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_text(x, x->target, "http://other:82/p?q");
    assert_text(x, x->path, "/p");
    assert_text(x, x->authority, "other:82");
    h1_fixture_reply(x, 200, "seen\n");
}

static void test_absolute_form(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_absolute;
    struct sim_link *l =
        h1_fixture_connect(f, "GET http://other:82/p?q HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_has(h1_fixture_answer(f, l), "seen\n");
    finish(f, l);
}

static void start_states(struct h1_fixture *f, struct pn_exchange *x)
{
    (void)f;
    assert_int_equal(pn_exchange_write(x, "a", 1), -EINVAL);
    assert_int_equal(pn_exchange_end(x, NULL, 0), -EINVAL);
    assert_int_equal(pn_exchange_flush(x), 0);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 1, 0), 0);
    assert_int_equal(x->state, PN_EXCHANGE_STARTED);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 1, 0), -EINVAL);
    assert_int_equal(pn_exchange_info(x, 103, NULL, 0), -EINVAL);
    assert_int_equal(pn_exchange_upgrade(x, 101, NULL, 0), -EINVAL);
    assert_int_equal(pn_exchange_write(x, "a", 1), 1);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
    assert_int_equal(x->state, PN_EXCHANGE_ENDED);
    assert_int_equal(x->status, 200);
    assert_int_equal(x->sent_body_size, 1);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, 1, 0), -EPIPE);
    assert_int_equal(pn_exchange_flush(x), -EPIPE);
    pn_exchange_cancel(x, PN_CANCEL_HANDLER);
    assert_int_equal(x->state, PN_EXCHANGE_ENDED);
}

static void test_states(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_states;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_has(h1_fixture_answer(f, l), "\r\n\r\na");
    assert_int_not_equal(l->fd, -1);
    finish(f, l);
}

static void start_status(struct h1_fixture *f, struct pn_exchange *x)
{
    unsigned status = *(unsigned *)f->arg;
    assert_int_equal(pn_exchange_answer_status(x, status, status >= 500), 0);
    assert_int_equal(pn_exchange_answer_status(x, status, false), -EPIPE);
}

static void test_answer_status(void **state)
{
    struct h1_fixture *f = *state;
    unsigned status = 404;
    f->start = start_status;
    f->arg = &status;
    struct sim_link *l = h1_fixture_connect(f, GET);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, "HTTP/1.1 404 Not Found\r\n");
    assert_has(out, "Content-Length: 10\r\n\r\nNot Found\n");
    assert_has_not(out, "Connection");
    status = 204;
    h1_fixture_send(f, l, GET);
    out = h1_fixture_answer(f, l);
    assert_has(out, "HTTP/1.1 204 No Content\r\n");
    assert_has_not(out, "Content-Length");
    status = 503;
    h1_fixture_send(f, l, GET);
    assert_has(h1_fixture_answer(f, l), "Connection: close\r\n\r\nService Unavailable\n");
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
    l = h1_fixture_connect(f, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    out = h1_fixture_answer(f, l);
    assert_has(out, "Content-Length: 20\r\n");
    assert_string_equal(strstr(out, "\r\n\r\n"), "\r\n\r\n");
    sim_link_free(l);
}

static void cancel_in_notify(struct pn_exchange *x, unsigned why)
{
    struct h1_fixture *f = x->handler;
    f->notified |= why;
    if (why & PN_NOTIFY_BODY)
        pn_exchange_cancel(x, PN_CANCEL_HANDLER);
    if (x == f->kept)
        h1_fixture_drop(f);
}

/* A notify may end the exchange and drop the last pin of the handler's. */
static void test_notify_ends_it(void **state)
{
    struct h1_fixture *f = *state;
    struct pn_str view;
    f->start = h1_fixture_start_later;
    f->notify = cancel_in_notify;
    f->config.body_buffer_size = 1;
    h1_reopen(f);
    struct sim_link *l =
        h1_fixture_connect(f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    h1_fixture_run(f);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_DATA);
    pn_exchange_body_consume(f->kept, 1);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_AGAIN);
    h1_fixture_send(f, l, "bc");
    assert_int_equal(f->notified, PN_NOTIFY_BODY);
    assert_null(f->kept);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
    /* And at the client's leaving. */
    l = h1_fixture_connect(f, GET);
    h1_fixture_run(f);
    sim_link_break(l);
    h1_fixture_run(f);
    assert_int_equal(f->notified, PN_NOTIFY_CANCELLED);
    assert_null(f->kept);
    sim_link_free(l);
}

/* After the end the text has gone, and says so by being empty. */
static void test_text_after_the_end(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, GET);
    struct pn_exchange *x = f->kept;
    h1_fixture_reply(x, 200, "x");
    h1_fixture_run(f);
    f->kept = NULL;
    h1_fixture_send(f, l, GET);
    (void)pn_exchange_text(x, x->target);
    assert_int_equal(pn_exchange_keep(x), 0);
    pn_exchange_unpin(x);
    h1_fixture_reply(f->kept, 200, "x");
    h1_fixture_drop(f);
    finish(f, l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        h1_test(test_request_as_seen), h1_test(test_absolute_form),
        h1_test(test_states),          h1_test(test_answer_status),
        h1_test(test_notify_ends_it),  h1_test(test_text_after_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
