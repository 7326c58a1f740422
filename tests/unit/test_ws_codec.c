/* SPDX-License-Identifier: Apache-2.0 */
/* The pure parts of the WebSocket codec: masks, UTF-8, frame heads, the handshake. Each against a plain
 * statement of the same rule, before an unreadable page, at every alignment and cut. */
#include <errno.h>
#include <stdio.h>

#include "h1_guard.h"
#include "http/ws_frame.h"
#include "http/ws_handshake.h"
#include "http/ws_mask.h"
#include "http/ws_utf8.h"
#include "test_base.h"

#include "http/h1_names.h"

/* --- Masks ------------------------------------------------------------------------------------- */

static void test_mask(void **state)
{
    static const uint8_t key[4] = {0x12, 0xff, 0x00, 0xa5};
    char from[80], to[80];
    (void)state;
    for (unsigned i = 0; i < sizeof from; i++)
        from[i] = (char)(i * 37 + 11);
    for (size_t n = 0; n <= 70; n++) {
        for (uint64_t offset = 0; offset < 9; offset++) {
            const char *p = guard_copy(from, n);
            memset(to, 'x', sizeof to);
            pn_ws_mask_copy(to, p, n, key, offset);
            for (size_t i = 0; i < n; i++)
                assert_int_equal((uint8_t)to[i], (uint8_t)from[i] ^ key[(offset + i) % 4]);
            assert_int_equal(to[n], 'x');
            pn_ws_mask_copy(to, to, n, key, offset); /* in place, and back */
            assert_memory_equal(to, from, n);
        }
    }
}

/* --- UTF-8 ------------------------------------------------------------------------------------- */

/* The rule in its plainest form: decode, and look at what came out. */
static bool plain_utf8(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned size = p[i] < 0x80 ? 1 : p[i] < 0xe0 ? 2 : p[i] < 0xf0 ? 3 : 4;
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        if ((p[i] >= 0x80 && p[i] < 0xc0) || p[i] >= 0xf8 || i + size > n)
            return false;
        uint32_t c = size == 1 ? p[i] : p[i] & (0x7fu >> size);
        for (unsigned k = 1; k < size; k++) {
            if ((p[i + k] & 0xc0) != 0x80)
                return false;
            c = c << 6 | (p[i + k] & 0x3f);
        }
        if (c < least[size] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return false;
        i += size;
    }
    return true;
}

static bool fed(const void *bytes, size_t n, size_t step)
{
    struct pn_ws_utf8 utf8 = {0};
    for (size_t i = 0; i < n; i += step) {
        size_t m = step < n - i ? step : n - i;
        if (!pn_ws_utf8_feed(&utf8, guard_copy((const char *)bytes + i, m), m))
            return false;
    }
    return pn_ws_utf8_whole(&utf8);
}

static void check_utf8(const uint8_t *p, size_t n)
{
    bool good = plain_utf8(p, n);
    for (size_t step = 1; step <= n; step++)
        assert_int_equal(fed(p, n, step), good);
}

static void test_utf8_all_short(void **state)
{
    /* Around every border of the tables, in every combination of four. */
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0,
                                    0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef,
                                    0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf7, 0xf8, 0xff};
    enum { N = sizeof edges };
    uint8_t text[4];
    (void)state;
    for (unsigned i = 0; i < N * N * N * N; i++) {
        text[0] = edges[i % N];
        text[1] = edges[i / N % N];
        text[2] = edges[i / N / N % N];
        text[3] = edges[i / N / N / N];
        bool good = plain_utf8(text, 4);
        if (fed(text, 4, 4) != good || fed(text, 4, 1) != good ||
            fed(text, 3, 2) != plain_utf8(text, 3))
            fail_msg("%02x %02x %02x %02x", text[0], text[1], text[2], text[3]);
    }
}

static void test_utf8_long(void **state)
{
    /* One character of each length at every place of a text longer than a block. */
    static const char *const characters[] = {"\xc3\xa9",     "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                             "\xed\xa0\x80", "\xc0\xaf",     "\x80"};
    uint8_t text[48];
    (void)state;
    for (unsigned c = 0; c < PN_ARRAY_LEN(characters); c++) {
        size_t size = strlen(characters[c]);
        for (size_t at = 0; at + size <= sizeof text; at++) {
            memset(text, 'a', sizeof text);
            memcpy(text + at, characters[c], size);
            check_utf8(text, sizeof text);
            check_utf8(text, at + size - 1); /* cut inside */
        }
    }
}

static void test_utf8_fails_fast(void **state)
{
    /* The second byte makes it overlong: no third is needed to know. */
    struct pn_ws_utf8 utf8 = {0};
    (void)state;
    assert_true(pn_ws_utf8_feed(&utf8, "ab\xe0", 3));
    assert_false(pn_ws_utf8_whole(&utf8));
    assert_false(pn_ws_utf8_feed(&utf8, "\x9f", 1));
}

/* --- Frame heads ------------------------------------------------------------------------------- */

static int parse_cut(const uint8_t *bytes, size_t n, bool compression, struct pn_ws_frame *out)
{
    int rc = pn_ws_frame_parse(guard_copy(bytes, n), n, compression, out);
    for (size_t cut = 0; cut < n; cut++) {
        struct pn_ws_frame part;
        int early = pn_ws_frame_parse(guard_copy(bytes, cut), cut, compression, &part);
        if (rc > 0)
            assert_int_equal(early, cut < (size_t)rc ? 0 : rc);
        else
            assert_true(early == 0 || early == rc);
    }
    return rc;
}

static void test_head_sizes(void **state)
{
    static const uint64_t sizes[] = {0,        1, 125, 126, 127, 65535, 65536, UINT64_C(1) << 40,
                                     INT64_MAX};
    (void)state;
    for (unsigned i = 0; i < PN_ARRAY_LEN(sizes); i++) {
        uint8_t bytes[PN_WS_CLIENT_HEAD_MAX + 8] = {0};
        struct pn_ws_frame frame;
        size_t n = pn_ws_frame_head((char *)bytes, PN_WS_OP_BINARY, i & 1, i & 2, sizes[i]);
        assert_true(n <= PN_WS_SERVER_HEAD_MAX);
        bytes[1] |= 0x80; /* as a client's */
        memcpy(bytes + n, "\1\2\3\4", 4);
        assert_int_equal(parse_cut(bytes, n + 4 + 4, true, &frame), n + 4);
        assert_int_equal(frame.opcode, PN_WS_OP_BINARY);
        assert_int_equal(frame.fin, i & 1);
        assert_int_equal(frame.compressed, (i & 2) != 0);
        assert_true(frame.size == sizes[i]);
        assert_memory_equal(frame.key, "\1\2\3\4", 4);
    }
}

static void test_head_refused(void **state)
{
    static const struct {
        const char *what;
        uint8_t bytes[10];
        size_t n;
        bool compression;
    } cases[] = {
        {"not masked", {0x81, 0x05}, 2, false},
        {"RSV1 without an extension", {0xc1, 0x85}, 2, false},
        {"RSV2", {0xa1, 0x85}, 2, true},
        {"RSV3", {0x91, 0x85}, 2, true},
        {"RSV1 on a continuation", {0xc0, 0x85}, 2, true},
        {"RSV1 on a ping", {0xc9, 0x85}, 2, true},
        {"opcode 3", {0x83, 0x85}, 2, true},
        {"opcode 7", {0x87, 0x85}, 2, true},
        {"opcode 11", {0x8b, 0x85}, 2, true},
        {"opcode 15", {0x8f, 0x85}, 2, true},
        {"a ping in fragments", {0x09, 0x85}, 2, false},
        {"a close of 126 bytes", {0x88, 0xfe}, 2, false},
        {"16 bits for 125", {0x82, 0xfe, 0, 125}, 4, false},
        {"64 bits for 65535", {0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 10, false},
        {"the 64th bit", {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, 10, false},
    };
    struct pn_ws_frame frame;
    (void)state;
    for (unsigned i = 0; i < PN_ARRAY_LEN(cases); i++) {
        if (parse_cut(cases[i].bytes, cases[i].n, cases[i].compression, &frame) !=
            -PN_WS_STATUS_PROTOCOL)
            fail_msg("taken: %s", cases[i].what);
    }
}

static void test_status_codes(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 65536; code++) {
        bool registered = code == 1000 || code == 1001 || code == 1002 || code == 1003 ||
                          (code >= 1007 && code <= 1014);
        assert_int_equal(pn_ws_status_may_be_sent(code),
                         registered || (code >= 3000 && code < 5000));
    }
}

/* --- The handshake ----------------------------------------------------------------------------- */

struct line {
    uint16_t id;
    const char *value;
};

static enum pn_ws_handshake check(const char *method, const struct line *lines, unsigned count,
                                  char key[PN_WS_KEY_SIZE])
{
    static char text[1024];
    struct pn_exchange x = {.head_base = text, .upgrade_asked = true};
    size_t n = strlen(method);
    memcpy(text, method, n);
    x.method = (struct pn_span){0, (uint32_t)n};
    x.headers = x.headers_inline;
    x.header_count = (uint16_t)count;
    for (unsigned i = 0; i < count; i++) {
        size_t size = strlen(lines[i].value);
        memcpy(text + n, lines[i].value, size);
        x.headers[i] = (struct pn_header){
            .value_off = (uint32_t)n, .value_len = (uint32_t)size, .id = lines[i].id};
        n += size;
    }
    return pn_ws_handshake_check(&x, key);
}

#define UPGRADE                        \
    {                                  \
        PN_HEADER_UPGRADE, "WebSocket" \
    }
#define VERSION                               \
    {                                         \
        PN_HEADER_SEC_WEBSOCKET_VERSION, "13" \
    }
#define KEY                                                     \
    {                                                           \
        PN_HEADER_SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==" \
    }

static void test_handshake(void **state)
{
    static const struct {
        const char *what;
        const char *method;
        struct line lines[4];
        unsigned count;
        enum pn_ws_handshake expected;
    } cases[] = {
        {"good", "GET", {UPGRADE, VERSION, KEY}, 3, PN_WS_ASKED},
        {"websocket among others",
         "GET",
         {{PN_HEADER_UPGRADE, "h2c, websocket"}, VERSION, KEY},
         3,
         PN_WS_ASKED},
        {"another protocol", "GET", {{PN_HEADER_UPGRADE, "h2c"}, VERSION, KEY}, 3, PN_WS_NOT_ASKED},
        {"POST", "POST", {UPGRADE, VERSION, KEY}, 3, PN_WS_BAD},
        {"no version", "GET", {UPGRADE, KEY}, 2, PN_WS_BAD},
        {"version 8",
         "GET",
         {UPGRADE, {PN_HEADER_SEC_WEBSOCKET_VERSION, "8"}, KEY},
         3,
         PN_WS_BAD_VERSION},
        {"version twice", "GET", {UPGRADE, VERSION, VERSION, KEY}, 4, PN_WS_BAD},
        {"no key", "GET", {UPGRADE, VERSION}, 2, PN_WS_BAD},
        {"key twice", "GET", {UPGRADE, VERSION, KEY, KEY}, 4, PN_WS_BAD},
        {"a short key",
         "GET",
         {UPGRADE, VERSION, {PN_HEADER_SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25j"}},
         3,
         PN_WS_BAD},
        {"a key that is no base64",
         "GET",
         {UPGRADE, VERSION, {PN_HEADER_SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZ?=="}},
         3,
         PN_WS_BAD},
    };
    char key[PN_WS_KEY_SIZE];
    (void)state;
    for (unsigned i = 0; i < PN_ARRAY_LEN(cases); i++) {
        if (check(cases[i].method, cases[i].lines, cases[i].count, key) != cases[i].expected)
            fail_msg("wrong: %s", cases[i].what);
    }
    assert_int_equal(check("GET", cases[0].lines, 3, key), PN_WS_ASKED);
    assert_memory_equal(key, "dGhlIHNhbXBsZSBub25jZQ==", PN_WS_KEY_SIZE);
}

/* Of "dGhlIHNhbXBsZSBub25jZQ==" and the GUID: RFC 6455 1.3 has digest and answer. */
static int known_sha1(void *ctx, const void *data, size_t n, uint8_t digest[PN_WS_SHA1_SIZE])
{
    static const uint8_t known[PN_WS_SHA1_SIZE] = {0xb3, 0x7a, 0x4f, 0x2c, 0xc0, 0x62, 0x4f,
                                                   0x16, 0x90, 0xf6, 0x46, 0x06, 0xcf, 0x38,
                                                   0x59, 0x45, 0xb2, 0xbe, 0xc4, 0xea};
    static const char text[] = "dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    assert_int_equal(n, sizeof text - 1);
    assert_memory_equal(data, text, n);
    memcpy(digest, known, sizeof known);
    return *(int *)ctx;
}

static void test_accept(void **state)
{
    char accept[PN_WS_ACCEPT_SIZE];
    int rc = 0;
    (void)state;
    assert_int_equal(pn_ws_accept("dGhlIHNhbXBsZSBub25jZQ==", known_sha1, &rc, accept), 0);
    assert_memory_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", PN_WS_ACCEPT_SIZE);
    rc = -EIO;
    assert_int_equal(pn_ws_accept("dGhlIHNhbXBsZSBub25jZQ==", known_sha1, &rc, accept), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask),         cmocka_unit_test(test_utf8_all_short),
        cmocka_unit_test(test_utf8_long),    cmocka_unit_test(test_utf8_fails_fast),
        cmocka_unit_test(test_head_sizes),   cmocka_unit_test(test_head_refused),
        cmocka_unit_test(test_status_codes), cmocka_unit_test(test_handshake),
        cmocka_unit_test(test_accept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
