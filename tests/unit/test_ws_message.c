/* SPDX-License-Identifier: Apache-2.0 */
/* Messages out of frames. Every stream is received whole, byte by byte and cut once at every place, before an
 * unreadable page; the events, written down as one line of text, must be the same each time. */
#include <stdio.h>

#include "base/mem.h"
#include "h1_guard.h"
#include "http/ws_message.h"
#include "test_base.h"
#include "ws_client.h"

enum { LOG_MAX = 4096, SMALL = 64 };

static struct ws_bytes stream;
static struct pn_ws_limits limits;

static void note(char *log, const char *kind, const struct pn_ws_message *m)
{
    size_t n = strlen(log);
    int shown = m->data.n > 40 ? 40 : (int)m->data.n;
    n += (size_t)snprintf(log + n, LOG_MAX - n, "%s[%zu:%.*s", kind, m->data.n, shown,
                          m->data.n ? m->data.p : "");
    if (kind[0] == 'C')
        n += (size_t)snprintf(log + n, LOG_MAX - n, ":%u", m->status);
    snprintf(log + n, LOG_MAX - n, "] ");
}

static bool feed(struct pn_ws_receiver *r, const char *bytes, size_t n, char *log)
{
    static const char *const kinds[] = {"", "T", "B", "C", "ping", "pong"};
    const char *p = guard_copy(bytes, n);
    for (;;) {
        size_t used;
        struct pn_ws_message m = {.status = 0};
        int rc = pn_ws_receive(r, p, n, &used, &m);
        assert_true(used <= n);
        p += used;
        n -= used;
        if (rc < 0) {
            snprintf(log + strlen(log), LOG_MAX - strlen(log), "fail %d", -rc);
            return false;
        }
        if (rc == PN_WS_MORE) {
            assert_true(n == 0 || r->closed);
            return true;
        }
        note(log, kinds[rc], &m);
    }
}

static void receive(size_t first, size_t step, char *log)
{
    struct pn_ws_receiver r;
    bool goes_on = true;
    log[0] = 0;
    pn_ws_receiver_init(&r, &limits, NULL);
    for (size_t i = 0; i < stream.n && goes_on;) {
        size_t m = i == 0 && first ? first : step;
        m = m < stream.n - i ? m : stream.n - i;
        goes_on = feed(&r, stream.data + i, m, log);
        pn_ws_receiver_rest(&r);
        i += m;
    }
    pn_ws_receiver_fini(&r);
}

static void check(const char *expected)
{
    static char whole[LOG_MAX], other[LOG_MAX];
    receive(0, WS_BYTES_MAX, whole);
    assert_string_equal(whole, expected);
    receive(0, 1, other);
    assert_string_equal(other, expected);
    for (size_t cut = 1; cut < stream.n && stream.n < 1000; cut++) {
        receive(cut, WS_BYTES_MAX, other);
        assert_string_equal(other, expected);
    }
    stream.n = 0;
}

static int reset(void **state)
{
    (void)state;
    stream.n = 0;
    limits =
        (struct pn_ws_limits){.message_size_max = 100000, .fragments_max = 8, .ratio_max = 100};
    return 0;
}

static void test_whole_messages(void **state)
{
    (void)state;
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "Hello");
    ws_text(&stream, WS_FIN | PN_WS_OP_BINARY, "bytes");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "");
    ws_text(&stream, WS_FIN | PN_WS_OP_PING, "are you there");
    ws_text(&stream, WS_FIN | PN_WS_OP_PONG, "");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "gr\xc3\xbc\xc3\x9f");
    check("T[5:Hello] B[5:bytes] T[0:] ping[13:are you there] pong[0:] T[6:gr\xc3\xbc\xc3\x9f] ");
}

static void test_fragments(void **state)
{
    (void)state;
    ws_text(&stream, PN_WS_OP_TEXT, "one \xe2\x82"); /* a character over two fragments */
    ws_text(&stream, WS_FIN | PN_WS_OP_PING, "in between");
    ws_text(&stream, PN_WS_OP_CONTINUATION, "\xac");
    ws_text(&stream, PN_WS_OP_CONTINUATION, "");
    ws_text(&stream, WS_FIN | PN_WS_OP_CONTINUATION, " two");
    ws_text(&stream, WS_FIN | PN_WS_OP_BINARY, "next");
    check("ping[10:in between] T[11:one \xe2\x82\xac two] B[4:next] ");
}

static void test_wrong_order(void **state)
{
    (void)state;
    ws_text(&stream, WS_FIN | PN_WS_OP_CONTINUATION, "of nothing");
    check("fail 1002");
    ws_text(&stream, PN_WS_OP_TEXT, "begun");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "and begun again");
    check("fail 1002");
    ws_text(&stream, PN_WS_OP_BINARY, "");
    ws_text(&stream, WS_FIN | PN_WS_OP_BINARY, "");
    check("fail 1002");
}

static void test_text_that_is_none(void **state)
{
    (void)state;
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "good");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "bad \xed\xa0\x80");
    check("T[4:good] fail 1007");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "cut short \xe2\x82");
    check("fail 1007");
    ws_text(&stream, PN_WS_OP_TEXT, "bad in the first of two \xff");
    check("fail 1007");
    ws_text(&stream, WS_FIN | PN_WS_OP_BINARY, "\xff\xfe is good here");
    check("B[15:\xff\xfe is good here] ");
}

static void close_frame(unsigned status, const char *reason)
{
    char payload[PN_WS_CONTROL_MAX] = {(char)(status >> 8), (char)status};
    size_t n = strlen(reason);
    memcpy(payload + 2, reason, n);
    ws_frame(&stream, WS_FIN | PN_WS_OP_CLOSE, payload, n + 2);
}

static void test_close(void **state)
{
    char reason[124];
    (void)state;
    close_frame(1000, "bye");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "not looked at");
    check("C[3:bye:1000] ");
    ws_text(&stream, WS_FIN | PN_WS_OP_CLOSE, "");
    check("C[0::1005] ");
    close_frame(4999, "");
    check("C[0::4999] ");
    ws_text(&stream, WS_FIN | PN_WS_OP_CLOSE, "x");
    check("fail 1002");
    close_frame(1005, "");
    check("fail 1002");
    close_frame(999, "");
    check("fail 1002");
    close_frame(1000, "\xc0\xaf");
    check("fail 1007");
    close_frame(1000, "cut short: \xe2\x82");
    check("fail 1007");
    memset(reason, 'r', 123);
    reason[123] = 0;
    close_frame(1001, reason);
    check("C[123:rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr:1001] ");
}

static void test_bounds(void **state)
{
    static char big[70000];
    (void)state;
    limits.message_size_max = SMALL;
    memset(big, 'b', sizeof big);
    ws_frame(&stream, WS_FIN | PN_WS_OP_BINARY, big, SMALL);
    ws_frame(&stream, WS_FIN | PN_WS_OP_BINARY, big, SMALL + 1);
    check("B[64:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb] fail 1009");
    ws_frame(&stream, PN_WS_OP_BINARY, big, SMALL - 1);
    ws_frame(&stream, WS_FIN | PN_WS_OP_CONTINUATION, big, 2);
    check("fail 1009");
    for (unsigned i = 0; i < limits.fragments_max; i++)
        ws_text(&stream, i ? PN_WS_OP_CONTINUATION : PN_WS_OP_TEXT, "");
    ws_text(&stream, WS_FIN | PN_WS_OP_CONTINUATION, "");
    check("fail 1008");
    limits.message_size_max = sizeof big;
    ws_frame(&stream, WS_FIN | PN_WS_OP_BINARY, big, sizeof big);
    check("B[70000:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb] ");
}

static void test_a_length_alone_takes_no_memory(void **state)
{
    struct pn_ws_receiver r;
    struct pn_ws_message m;
    size_t used;
    (void)state;
    limits.message_size_max = SIZE_MAX / 2;
    pn_ws_receiver_init(&r, &limits, NULL);
    static const char head[] = "\x82\xff\0\0\0\x7f\xff\xff\xff\xff\1\2\3\4data";
    assert_int_equal(pn_ws_receive(&r, head, sizeof head - 1, &used, &m), PN_WS_MORE);
    assert_int_equal(used, sizeof head - 1);
    assert_true(r.message.capacity < 4096);
    pn_ws_receiver_fini(&r);
}

static void test_without_memory(void **state)
{
    char log[LOG_MAX] = "";
    (void)state;
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "Hello");
    struct pn_ws_receiver r;
    pn_ws_receiver_init(&r, &limits, NULL);
    pn_mem_fail_at(1, true);
    assert_false(feed(&r, stream.data, stream.n, log));
    pn_mem_fail_at(0, false);
    assert_string_equal(log, "fail 1011");
    pn_ws_receiver_fini(&r);
}

static void test_an_idle_receiver_holds_no_buffer(void **state)
{
    char log[LOG_MAX] = "";
    struct pn_ws_receiver r;
    (void)state;
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "Hello");
    pn_ws_receiver_init(&r, &limits, NULL);
    assert_true(feed(&r, stream.data, stream.n, log));
    pn_ws_receiver_rest(&r);
    assert_null(r.message.data);
    stream.n = 0;
    ws_text(&stream, PN_WS_OP_TEXT, "a part");
    assert_true(feed(&r, stream.data, stream.n, log));
    pn_ws_receiver_rest(&r); /* which is kept */
    stream.n = 0;
    ws_text(&stream, WS_FIN | PN_WS_OP_CONTINUATION, " more");
    assert_true(feed(&r, stream.data, stream.n, log));
    assert_string_equal(log, "T[5:Hello] T[11:a part more] ");
    pn_ws_receiver_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_whole_messages, reset),
        cmocka_unit_test_setup(test_fragments, reset),
        cmocka_unit_test_setup(test_wrong_order, reset),
        cmocka_unit_test_setup(test_text_that_is_none, reset),
        cmocka_unit_test_setup(test_close, reset),
        cmocka_unit_test_setup(test_bounds, reset),
        cmocka_unit_test_setup(test_a_length_alone_takes_no_memory, reset),
        cmocka_unit_test_setup(test_without_memory, reset),
        cmocka_unit_test_setup(test_an_idle_receiver_holds_no_buffer, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
