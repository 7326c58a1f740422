/* SPDX-License-Identifier: Apache-2.0 */
/* permessage-deflate: what is agreed on, messages there and back under every kind of agreement, and what must
 * be refused: bombs, streams that are none, a memory that is out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "base/mem.h"
#include "http/ws_message.h"
#include "test_base.h"
#include "ws_client.h"

static const struct pn_ws_deflate_policy plain = {.window_bits_max = 15};

/* --- Offers ------------------------------------------------------------------------------------ */

static void test_offers(void **state)
{
    static const struct {
        const char *offer;
        const char *answer; /* NULL: none is accepted */
    } cases[] = {
        {"permessage-deflate", "permessage-deflate"},
        {"Permessage-Deflate", "permessage-deflate"},
        {"permessage-deflate; client_max_window_bits", "permessage-deflate"},
        {"permessage-deflate; client_max_window_bits=10",
         "permessage-deflate; client_max_window_bits=10"},
        {"permessage-deflate; server_max_window_bits=\"12\"",
         "permessage-deflate; server_max_window_bits=12"},
        {"permessage-deflate; server_no_context_takeover ; client_no_context_takeover",
         "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
        {"x-webkit-deflate-frame, permessage-deflate", "permessage-deflate"},
        {"permessage-deflate; server_max_window_bits=8, permessage-deflate",
         "permessage-deflate"}, /* zlib cannot; the second offer can be had */
        {"permessage-deflate; server_max_window_bits=8", NULL},
        {"permessage-deflate; server_max_window_bits", NULL},
        {"permessage-deflate; server_max_window_bits=16", NULL},
        {"permessage-deflate; server_max_window_bits=09", NULL},
        {"permessage-deflate; client_max_window_bits=7", NULL},
        {"permessage-deflate; client_max_window_bits=", NULL},
        {"permessage-deflate; server_no_context_takeover=1", NULL},
        {"permessage-deflate; server_no_context_takeover; server_no_context_takeover", NULL},
        {"permessage-deflate; unheard_of", NULL},
        {"permessage-deflate;;", NULL},
        {"", NULL},
        {"permessage-bzip2", NULL},
    };
    (void)state;
    for (unsigned i = 0; i < PN_ARRAY_LEN(cases); i++) {
        struct pn_ws_deflate_params params;
        char answer[PN_WS_DEFLATE_ANSWER_MAX];
        size_t n = 0;
        bool accepted =
            pn_ws_deflate_negotiate(pn_str_of(cases[i].offer), &plain, &params, answer, &n);
        if (accepted != (cases[i].answer != NULL))
            fail_msg("'%s' was %s", cases[i].offer, accepted ? "accepted" : "not accepted");
        if (accepted && (n != strlen(cases[i].answer) || memcmp(answer, cases[i].answer, n) != 0))
            fail_msg("'%s' got '%.*s'", cases[i].offer, (int)n, answer);
    }
}

static void test_policy(void **state)
{
    static const struct pn_ws_deflate_policy small = {.no_context_takeover = true,
                                                      .window_bits_max = 10};
    struct pn_ws_deflate_params p;
    char answer[PN_WS_DEFLATE_ANSWER_MAX];
    size_t n;
    (void)state;
    assert_true(pn_ws_deflate_negotiate(PN_STR("permessage-deflate; client_max_window_bits"),
                                        &small, &p, answer, &n));
    assert_int_equal(p.client_max_window_bits, 10);
    assert_int_equal(p.server_max_window_bits, 10);
    static const char all[] =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=10; client_max_window_bits=10";
    assert_int_equal(n, sizeof all - 1);
    assert_memory_equal(answer, all, n);
    assert_true(n <= PN_WS_DEFLATE_ANSWER_MAX);
    /* A client that doesn't know the parameter uses its whole window. */
    assert_true(pn_ws_deflate_negotiate(PN_STR("permessage-deflate"), &small, &p, answer, &n));
    assert_int_equal(p.client_max_window_bits, 15);
}

/* --- There and back ---------------------------------------------------------------------------- */

static struct pn_ws_limits limits;
static struct ws_bytes stream;

static int reset(void **state)
{
    (void)state;
    stream.n = 0;
    limits =
        (struct pn_ws_limits){.message_size_max = 1 << 22, .fragments_max = 8, .ratio_max = 100};
    return 0;
}

static void one_way(struct pn_ws_deflate *sender, struct pn_ws_receiver *r, const char *data,
                    size_t n)
{
    struct pn_bytes packed = {0};
    struct pn_ws_message m;
    size_t used;
    assert_int_equal(pn_ws_deflate_message(sender, data, n, &packed), 0);
    struct pn_str view = pn_bytes_view(&packed);
    size_t half = view.n / 2; /* in two fragments, with RSV1 on the first only */
    stream.n = 0;
    ws_frame(&stream, WS_RSV1 | PN_WS_OP_BINARY, view.p, half);
    ws_frame(&stream, WS_FIN | PN_WS_OP_CONTINUATION, view.p + half, view.n - half);
    assert_int_equal(pn_ws_receive(r, stream.data, stream.n, &used, &m), PN_WS_BINARY);
    assert_int_equal(used, stream.n);
    assert_int_equal(m.data.n, n);
    if (n)
        assert_memory_equal(m.data.p, data, n);
    pn_bytes_free(&packed);
}

static void test_there_and_back(void **state)
{
    static char data[50000];
    (void)state;
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (char)(i % 7 * (i / 1000));
    for (unsigned bits = 9; bits <= 15; bits += 3) {
        for (unsigned takeover = 0; takeover < 2; takeover++) {
            /* What one end sends is what the other receives: both ends have the same numbers. */
            const struct pn_ws_deflate_params params = {!takeover, !takeover, (uint8_t)bits,
                                                        (uint8_t)bits};
            struct pn_ws_deflate sender, codec;
            struct pn_ws_receiver r;
            pn_ws_deflate_init(&sender, &params);
            pn_ws_deflate_init(&codec, &params);
            pn_ws_receiver_init(&r, &limits, &codec);
            one_way(&sender, &r, data, sizeof data);
            one_way(&sender, &r, "", 0);
            one_way(&sender, &r, data, 1000);
            one_way(&sender, &r, data + 500, 1);
            assert_int_equal(codec.in != NULL, takeover); /* nothing is held without it */
            assert_int_equal(sender.out != NULL, takeover);
            pn_ws_receiver_fini(&r);
            pn_ws_deflate_fini(&codec);
            pn_ws_deflate_fini(&sender);
        }
    }
}

static void test_unsent(void **state)
{
    static const char text[] = "what was not sent is nothing that a later message may refer to";
    static const struct pn_ws_deflate_params params = {false, false, 15, 15};
    struct pn_ws_deflate sender, codec;
    struct pn_ws_receiver r;
    struct pn_bytes lost;
    (void)state;
    pn_ws_deflate_init(&sender, &params);
    pn_ws_deflate_init(&codec, &params);
    pn_ws_receiver_init(&r, &limits, &codec);
    one_way(&sender, &r, "before", 6);
    pn_bytes_init(&lost);
    assert_int_equal(pn_ws_deflate_message(&sender, text, sizeof text, &lost), 0);
    pn_bytes_free(&lost);
    pn_ws_deflate_unsent(&sender);
    one_way(&sender, &r, text, sizeof text);
    one_way(&sender, &r, text, sizeof text);
    pn_ws_receiver_fini(&r);
    pn_ws_deflate_fini(&codec);
    pn_ws_deflate_fini(&sender);
}

static void test_context_pays(void **state)
{
    static const struct pn_ws_deflate_params params = {.client_max_window_bits = 15,
                                                       .server_max_window_bits = 15};
    static const char text[] = "{\"kind\": \"price\", \"symbol\": \"PELTON\", \"value\": 4711}";
    struct pn_ws_deflate sender;
    struct pn_bytes first = {0}, second = {0};
    (void)state;
    pn_ws_deflate_init(&sender, &params);
    assert_int_equal(pn_ws_deflate_message(&sender, text, sizeof text, &first), 0);
    assert_int_equal(pn_ws_deflate_message(&sender, text, sizeof text, &second), 0);
    assert_true(pn_bytes_len(&second) * 3 < pn_bytes_len(&first));
    pn_bytes_free(&first);
    pn_bytes_free(&second);
    pn_ws_deflate_fini(&sender);
}

/* A client may end its blocks for good (BFINAL) and still refer to what it has sent before. */
static void test_final_block_keeps_the_window(void **state)
{
    static const struct pn_ws_deflate_params params = {.client_max_window_bits = 15,
                                                       .server_max_window_bits = 15};
    static const char text[] = "what is repeated here is found in the message before";
    struct pn_ws_deflate codec;
    struct pn_ws_receiver r;
    struct pn_ws_message m;
    char packed[200];
    size_t used;
    (void)state;
    pn_ws_deflate_init(&codec, &params);
    pn_ws_receiver_init(&r, &limits, &codec);
    for (unsigned round = 0; round < 2; round++) {
        z_stream z = {0};
        assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
        if (round == 1)
            assert_int_equal(deflateSetDictionary(&z, (const Bytef *)text, sizeof text), Z_OK);
        z.next_in = (z_const Bytef *)(uintptr_t)text;
        z.avail_in = sizeof text;
        z.next_out = (Bytef *)packed;
        z.avail_out = sizeof packed - 1;
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        size_t n = sizeof packed - 1 - z.avail_out;
        deflateEnd(&z);
        assert_true(round == 0 || n < 12);
        packed[n++] = 0; /* the begin of an empty block, whose rest the receiver puts there */
        stream.n = 0;
        ws_frame(&stream, WS_FIN | WS_RSV1 | PN_WS_OP_TEXT, packed, n);
        assert_int_equal(pn_ws_receive(&r, stream.data, stream.n, &used, &m), PN_WS_TEXT);
        assert_int_equal(m.data.n, sizeof text);
        assert_memory_equal(m.data.p, text, sizeof text);
    }
    pn_ws_receiver_fini(&r);
    pn_ws_deflate_fini(&codec);
}

/* --- What is refused --------------------------------------------------------------------------- */

/* Behind another message of AHEAD bytes; 0: there is none. */
static int receive_behind(size_t ahead, const char *packed, size_t n, unsigned opcode)
{
    static const char zeros[220000];
    static const struct pn_ws_deflate_params params = {true, true, 15, 15};
    struct pn_ws_deflate codec;
    struct pn_ws_receiver r;
    struct pn_ws_message m;
    size_t used, begin = 0;
    stream.n = 0;
    if (ahead)
        ws_frame(&stream, WS_FIN | PN_WS_OP_BINARY, zeros, ahead);
    ws_frame(&stream, WS_FIN | WS_RSV1 | opcode, packed, n);
    pn_ws_deflate_init(&codec, &params);
    pn_ws_receiver_init(&r, &limits, &codec);
    if (ahead)
        assert_int_equal(pn_ws_receive(&r, stream.data, stream.n, &begin, &m), PN_WS_BINARY);
    int rc = pn_ws_receive(&r, stream.data + begin, stream.n - begin, &used, &m);
    assert_true(r.message.capacity <= 2 * limits.message_size_max + (1 << 16));
    pn_ws_receiver_fini(&r);
    pn_ws_deflate_fini(&codec);
    return rc;
}

static int receive_packed(const char *packed, size_t n, unsigned opcode)
{
    return receive_behind(0, packed, n, opcode);
}

static size_t pack(char *out, size_t out_max, const char *data, size_t n)
{
    static const struct pn_ws_deflate_params params = {true, true, 15, 15};
    struct pn_ws_deflate sender;
    struct pn_bytes packed = {0};
    pn_ws_deflate_init(&sender, &params);
    assert_int_equal(pn_ws_deflate_message(&sender, data, n, &packed), 0);
    size_t size = pn_bytes_len(&packed);
    assert_true(size <= out_max);
    memcpy(out, pn_bytes_view(&packed).p, size);
    pn_bytes_free(&packed);
    pn_ws_deflate_fini(&sender);
    return size;
}

static void test_bombs(void **state)
{
    enum { BOMB = 20 << 20 };
    static char packed[64 * 1024];
    char *zeros = calloc(1, BOMB);
    (void)state;
    assert_non_null(zeros);
    size_t n = pack(packed, sizeof packed, zeros, BOMB);
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_BINARY), -PN_WS_STATUS_TOO_BIG);
    /* The size is within bounds; only the ratio is not. */
    limits.message_size_max = 2 * BOMB;
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_BINARY), -PN_WS_STATUS_TOO_BIG);
    /* Nor do ordinary messages before it earn it one. */
    assert_int_equal(receive_behind(220000, packed, n, PN_WS_OP_BINARY), -PN_WS_STATUS_TOO_BIG);
    limits.ratio_max = 0;
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_BINARY), PN_WS_BINARY);
    limits.message_size_max = 1000;
    n = pack(packed, sizeof packed, zeros, 1000);
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_BINARY), PN_WS_BINARY);
    n = pack(packed, sizeof packed, zeros, 1001);
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_BINARY), -PN_WS_STATUS_TOO_BIG);
    free(zeros);
}

static void test_bad_streams(void **state)
{
    char packed[100];
    (void)state;
    assert_int_equal(receive_packed("\xff\xff\xff\xff", 4, PN_WS_OP_BINARY),
                     -PN_WS_STATUS_NOT_UTF8);
    size_t n = pack(packed, sizeof packed, "text \xff", 6);
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_TEXT), -PN_WS_STATUS_NOT_UTF8);
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_BINARY), PN_WS_BINARY);
    n = pack(packed, sizeof packed, "cut \xe2\x82", 6);
    assert_int_equal(receive_packed(packed, n, PN_WS_OP_TEXT), -PN_WS_STATUS_NOT_UTF8);
}

static void test_every_allocation_fails(void **state)
{
    static const struct pn_ws_deflate_params params = {.client_max_window_bits = 15,
                                                       .server_max_window_bits = 15};
    char packed[200];
    size_t n = pack(packed, sizeof packed, "something to pack", 17);
    int in = 0;
    (void)state;
    for (unsigned long nth = 1; in != PN_WS_TEXT; nth++) {
        assert_true(nth < 50);
        pn_mem_fail_at(nth, true);
        in = receive_packed(packed, n, PN_WS_OP_TEXT);
        pn_mem_fail_at(0, false);
        assert_true(in == PN_WS_TEXT || in == -PN_WS_STATUS_INTERNAL);
    }
    int out = -ENOMEM;
    for (unsigned long nth = 1; out < 0; nth++) {
        struct pn_ws_deflate sender;
        struct pn_bytes bytes = {0};
        assert_true(nth < 50);
        pn_ws_deflate_init(&sender, &params);
        pn_mem_fail_at(nth, true);
        out = pn_ws_deflate_message(&sender, "something to pack", 17, &bytes);
        pn_mem_fail_at(0, false);
        assert_true(out == 0 || (out == -ENOMEM && pn_bytes_len(&bytes) == 0));
        pn_bytes_free(&bytes);
        pn_ws_deflate_fini(&sender);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_offers, reset),
        cmocka_unit_test_setup(test_policy, reset),
        cmocka_unit_test_setup(test_there_and_back, reset),
        cmocka_unit_test_setup(test_unsent, reset),
        cmocka_unit_test_setup(test_context_pays, reset),
        cmocka_unit_test_setup(test_final_block_keeps_the_window, reset),
        cmocka_unit_test_setup(test_bombs, reset),
        cmocka_unit_test_setup(test_bad_streams, reset),
        cmocka_unit_test_setup(test_every_allocation_fails, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
