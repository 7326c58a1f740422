/* SPDX-License-Identifier: Apache-2.0 */
/* WebSocket connections over in-memory links: what the handler sees, what the peer gets, and when. Client's bytes
 * come whole, and cut at every byte, with the same outcome. */
#include "unit/h1_test.h"

#include <stdlib.h>

#include "base/mem.h"
#include "support/ws_handler.h"
#include "ws_client.h"

#define HELLO(more)                                                                  \
    "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" more "\r\n"
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { LOG_MAX = 1 << 16 };

/* One at a time. */
static struct {
    struct pn_ws_config config;
    struct pn_ws_server *server;
    struct pn_ws *ws; /* NULL: not open, or released */
    struct sim_link *link;
    struct pn_exchange *x; /* while it is open */
    bool echo;             /* messages go back as they come */
    bool take;             /* they are taken as they come */
    bool release;          /* at the end */
    int open_rc;
    unsigned news;
    unsigned ended; /* status */
    char log[LOG_MAX];
} t;
static struct ws_bytes stream;

static void note(const char *kind, const struct pn_ws_message *m)
{
    size_t n = strlen(t.log);
    int shown = m->data.n > 20 ? 20 : (int)m->data.n;
    n += (size_t)snprintf(t.log + n, LOG_MAX - n, "%s[%zu:%.*s]", kind, m->data.n, shown,
                          m->data.n ? m->data.p : "");
    (void)n;
}

static void seen(int kind, const struct pn_ws_message *m)
{
    char end[16];
    if (kind != PN_WS_CLOSE) {
        note(kind == PN_WS_TEXT ? "T" : "B", m);
        return;
    }
    snprintf(end, sizeof end, "end %u", m->status);
    note(end, m);
    t.ended = m->status;
}

static void take_all(void)
{
    if (t.ws && ws_take_all(t.ws, t.echo, seen) && t.release) {
        pn_ws_release(t.ws);
        t.ws = NULL;
    }
}

static void on_news(struct pn_ws *ws, unsigned what)
{
    assert_ptr_equal(pn_ws_owner(ws), &t);
    assert_ptr_equal(ws, t.ws);
    t.news |= what;
    if (t.take)
        take_all();
}

static void start(struct h1_fixture *f, struct pn_exchange *x)
{
    char key[PN_WS_KEY_SIZE];
    (void)f;
    t.x = x;
    assert_int_equal(pn_ws_handshake_check(x, key), PN_WS_ASKED);
    const struct pn_ws_opening opening = {.accept = ACCEPT, .news = on_news, .owner = &t};
    t.open_rc = pn_ws_open(t.server, x, &opening, &t.ws);
    if (t.open_rc == -ENOMEM)
        (void)pn_exchange_answer_status(x, 503, true);
}

static int setup(void **state)
{
    h1_setup(state);
    struct h1_fixture *f = *state;
    memset(&t, 0, sizeof t);
    t.config = (struct pn_ws_config){
        .limits = {PN_WS_MESSAGE_SIZE_DEFAULT, PN_WS_FRAGMENTS_MAX, PN_WS_RATIO_MAX},
        .ping_interval_ns = 20 * PN_NS_PER_SEC,
        .ping_timeout_ns = 10 * PN_NS_PER_SEC,
        .compression = true,
        .deflate = {.no_context_takeover = true, .window_bits_max = 15},
    };
    t.take = t.release = true;
    t.server = pn_ws_server_create(f->loop, &t.config);
    f->start = start;
    stream.n = 0;
    return 0;
}

static int teardown(void **state)
{
    struct h1_fixture *f = *state;
    pn_h1_close_all(f->h1);
    h1_fixture_run(f);
    if (t.ws)
        pn_ws_release(t.ws);
    assert_int_equal(pn_ws_server_connections(t.server), 0);
    pn_ws_server_destroy(t.server);
    if (t.link)
        sim_link_free(t.link);
    return h1_teardown(state);
}

#define ws_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

static void open_with(struct h1_fixture *f, const char *hello)
{
    if (t.link)
        sim_link_free(t.link);
    t.log[0] = 0;
    t.news = t.ended = 0;
    t.link = h1_fixture_connect(f, hello);
    assert_has(h1_fixture_answer(f, t.link),
               "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
               "Sec-WebSocket-Accept: " ACCEPT "\r\n");
    assert_non_null(t.ws);
}

static void open_plain(struct h1_fixture *f)
{
    open_with(f, HELLO(""));
}

static void send_stream(struct h1_fixture *f, size_t step)
{
    for (size_t i = 0; i < stream.n; i += step) {
        sim_link_send(t.link, stream.data + i, pn_min_size(step, stream.n - i));
        h1_fixture_run(f);
    }
}

/* What the server has sent as "opcode[size:payload] ", and takes it. */
static const char *frames(struct h1_fixture *f)
{
    static char text[LOG_MAX];
    size_t n = 0;
    h1_fixture_run(f);
    struct pn_str out = pn_bytes_view(&t.link->to_client);
    text[0] = 0;
    while (out.n) {
        const uint8_t *p = (const uint8_t *)out.p;
        size_t size = p[1], head = 2;
        assert_true(out.n >= 2 && size < 128);
        if (size == 126) {
            size = (size_t)p[2] << 8 | p[3];
            head = 4;
        } else if (size == 127) {
            size = (size_t)p[6] << 24 | (size_t)p[7] << 16 | (size_t)p[8] << 8 | p[9];
            head = 10;
        }
        const char *payload = out.p + head;
        unsigned status = (p[0] & 15) == 8 && size >= 2 ? (unsigned)p[2] << 8 | p[3] : 0;
        assert_true(out.n >= head + size);
        if (status)
            n += (size_t)snprintf(text + n, LOG_MAX - n, "%x[%u:%.*s] ", p[0], status,
                                  (int)size - 2, payload + 2);
        else
            n += (size_t)snprintf(text + n, LOG_MAX - n, "%x[%zu:%.*s] ", p[0], size,
                                  size > 20 ? 20 : (int)size, payload);
        out.p += head + size;
        out.n -= head + size;
    }
    sim_link_take(t.link, pn_bytes_len(&t.link->to_client));
    return text;
}

/* STREAM, whole and byte by byte: what the handler saw and what the client got. */
static void check(struct h1_fixture *f, const char *seen, const char *sent)
{
    static const size_t steps[] = {WS_BYTES_MAX, 1, 2, 3, 7};
    for (size_t i = 0; i < PN_ARRAY_LEN(steps); i++) {
        open_plain(f);
        send_stream(f, steps[i]);
        assert_string_equal(frames(f), sent);
        assert_string_equal(t.log, seen);
        sim_link_shutdown(t.link);
        h1_fixture_run(f);
        assert_null(t.ws);
        assert_int_equal(pn_h1_connections(f->h1), 0);
    }
    stream.n = 0;
}

/* --- Messages ---------------------------------------------------------------------------------- */

static void close_frame(unsigned status, const char *reason)
{
    char payload[PN_WS_CONTROL_MAX] = {(char)(status >> 8), (char)status};
    size_t n = strlen(reason);
    memcpy(payload + 2, reason, n);
    ws_frame(&stream, WS_FIN | PN_WS_OP_CLOSE, payload, n + 2);
}

static void test_echo(void **state)
{
    t.echo = true;
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "one");
    ws_text(&stream, PN_WS_OP_BINARY, "tw");
    ws_text(&stream, WS_FIN | PN_WS_OP_PING, "?");
    ws_text(&stream, WS_FIN | PN_WS_OP_CONTINUATION, "o");
    ws_text(&stream, WS_FIN | PN_WS_OP_PONG, "unasked");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "");
    close_frame(1000, "bye");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "after the end");
    /* A close is answered when it is read: answers to what came in one piece with it come too late. */
    for (int whole = 0; whole < 2; whole++) {
        open_plain(*state);
        send_stream(*state, whole ? WS_BYTES_MAX : 1);
        assert_string_equal(frames(*state),
                            whole ? "8a[1:?] 88[1000:bye] "
                                  : "81[3:one] 8a[1:?] 82[3:two] 81[0:] 88[1000:bye] ");
        assert_string_equal(t.log, "T[3:one]B[3:two]T[0:]end 1000[3:bye]");
        assert_null(t.ws);
        sim_link_shutdown(t.link);
        h1_fixture_run(*state);
    }
}

static void test_closed_by_the_peer(void **state)
{
    ws_text(&stream, WS_FIN | PN_WS_OP_CLOSE, "");
    check(*state, "end 1005[0:]", "88[0:] ");
    close_frame(4000, "why");
    check(*state, "end 4000[3:why]", "88[4000:why] ");
}

static void test_rules_broken(void **state)
{
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "\xff");
    check(*state, "end 1007[0:]", "88[1007:] ");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "good");
    ws_text(&stream, WS_FIN | PN_WS_OP_CONTINUATION, "of nothing");
    check(*state, "T[4:good]end 1002[0:]", "88[1002:] ");
    close_frame(1006, "");
    check(*state, "end 1002[0:]", "88[1002:] ");
}

static void test_cut_by_the_peer(void **state)
{
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "last");
    ws_text(&stream, PN_WS_OP_TEXT, "half");
    open_plain(*state);
    send_stream(*state, WS_BYTES_MAX);
    sim_link_shutdown(t.link);
    h1_fixture_run(*state);
    assert_string_equal(t.log, "T[4:last]end 1006[0:]");
    assert_int_equal(pn_h1_connections(((struct h1_fixture *)*state)->h1), 0);
    open_plain(*state);
    sim_link_break(t.link);
    h1_fixture_run(*state);
    assert_string_equal(t.log, "end 1006[0:]");
}

static void test_bytes_with_the_handshake(void **state)
{
    static char hello[2048];
    struct h1_fixture *f = *state;
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "early");
    size_t n = strlen(HELLO(""));
    memcpy(hello, HELLO(""), n);
    memcpy(hello + n, stream.data, stream.n);
    t.link = sim_link_open(f->sim);
    sim_link_send(t.link, hello, n + stream.n);
    struct pn_transport transport = sim_link_transport(t.link);
    struct pn_peer peer = {.address = "192.0.2.1", .address_len = 9};
    pn_h1_adopt(f->h1, &transport, &peer, NULL);
    h1_fixture_run(f);
    assert_string_equal(t.log, "T[5:early]");
}

/* --- Closing by us ----------------------------------------------------------------------------- */

static void test_close_and_answer(void **state)
{
    struct h1_fixture *f = *state;
    open_plain(f);
    pn_ws_close(t.ws, 3001, PN_STR("enough"));
    assert_int_equal(pn_ws_send(t.ws, PN_WS_OP_TEXT, "x", 1), -EPIPE);
    assert_string_equal(frames(f), "88[3001:enough] ");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "was on its way");
    ws_text(&stream, WS_FIN | PN_WS_OP_PING, "too");
    close_frame(3001, "");
    send_stream(f, 1);
    take_all();
    assert_string_equal(t.log, "end 3001[6:enough]");
    assert_string_equal(frames(f), "");
    assert_int_equal(pn_ws_server_connections(t.server), 0);
    sim_link_shutdown(t.link);
    h1_fixture_run(f);
    assert_int_equal(pn_h1_connections(f->h1), 0);
}

/* It breaks a rule behind our close, which stays the last word. */
static void test_close_and_nonsense(void **state)
{
    struct h1_fixture *f = *state;
    open_plain(f);
    pn_ws_close(t.ws, 3001, PN_STR_NONE);
    assert_string_equal(frames(f), "88[3001:] ");
    ws_text(&stream, WS_FIN | 3, "reserved");
    send_stream(f, WS_BYTES_MAX);
    assert_string_equal(frames(f), "");
    take_all();
    assert_string_equal(t.log, "end 3001[0:]");
    assert_int_equal(pn_ws_server_connections(t.server), 0);
}

static char much[100000];

/* Opens a connection and sends MUCH to a peer that takes hardly any of it: how often it was taken. */
static int send_until_full(struct h1_fixture *f)
{
    int sent = 0;
    open_plain(f);
    memset(much, 'y', sizeof much);
    sim_link_set_window(t.link, 1000);
    while (pn_ws_send(t.ws, PN_WS_OP_BINARY, much, sizeof much) == 0)
        sent++;
    return sent;
}

/* The peer's close comes while it has not taken what was sent before: it gets all of that, and then the end. */
static void test_closed_behind_what_waits(void **state)
{
    struct h1_fixture *f = *state;
    int sent = send_until_full(f);
    close_frame(1000, "");
    send_stream(f, WS_BYTES_MAX);
    assert_string_equal(t.log, "end 1000[0:]");
    assert_true(t.link->fd >= 0 && !t.link->fin);
    sim_link_set_window(t.link, SIZE_MAX);
    h1_fixture_run(f);
    const char *got = frames(f);
    assert_int_equal(h1_count(got, "82[100000:yyyy"), sent);
    assert_has(got, "88[1000:] ");
    assert_true(t.link->fin);
    assert_int_equal(pn_ws_server_connections(t.server), 0);
}

static void test_close_without_answer(void **state)
{
    struct h1_fixture *f = *state;
    open_plain(f);
    pn_ws_release(t.ws);
    t.ws = NULL;
    assert_string_equal(frames(f), "88[1000:] ");
    h1_fixture_advance(f, PN_WS_CLOSE_TIMEOUT_MS - 10);
    assert_int_equal(pn_ws_server_connections(t.server), 1);
    h1_fixture_advance(f, 20);
    assert_int_equal(pn_ws_server_connections(t.server), 0);
    h1_fixture_advance(f, PN_HTTP_LINGER_TIMEOUT_MS + 10);
    assert_int_equal(pn_h1_connections(f->h1), 0);
}

static void test_server_stops(void **state)
{
    struct h1_fixture *f = *state;
    open_plain(f);
    pn_ws_server_stop(t.server);
    assert_string_equal(frames(f), "88[1012:the server stops] ");
    assert_string_equal(t.log, "end 1012[16:the server stops]");
    close_frame(1012, "");
    send_stream(f, WS_BYTES_MAX);
    assert_int_equal(pn_ws_server_connections(t.server), 0);
    sim_link_shutdown(t.link);
    h1_fixture_run(f);
    assert_int_equal(pn_h1_connections(f->h1), 0);
    t.link = (sim_link_free(t.link), h1_fixture_connect(f, HELLO("")));
    assert_has(h1_fixture_answer(f, t.link), "\x88\x12\x03\xf4the server stops");
    take_all();
}

/* --- Time -------------------------------------------------------------------------------------- */

static void test_pings(void **state)
{
    struct h1_fixture *f = *state;
    open_plain(f);
    h1_fixture_advance(f, 15000);
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "alive");
    send_stream(f, WS_BYTES_MAX);
    h1_fixture_advance(f, 19000);
    assert_string_equal(frames(f), "");
    h1_fixture_advance(f, 1100);
    assert_int_equal(strncmp(frames(f), "89[4:", 5), 0);
    stream.n = 0;
    ws_text(&stream, WS_FIN | PN_WS_OP_PONG, "");
    h1_fixture_advance(f, 9000);
    send_stream(f, WS_BYTES_MAX);
    h1_fixture_advance(f, 19000);
    assert_string_equal(frames(f), "");
    h1_fixture_advance(f, 1100);
    assert_int_equal(strncmp(frames(f), "89[4:", 5), 0);
    h1_fixture_advance(f, 10100);
    assert_string_equal(frames(f), "88[1011:no answer to a ping] ");
    assert_string_equal(t.log, "T[5:alive]end 1011[19:no answer to a ping]");
    h1_fixture_advance(f, PN_HTTP_LINGER_TIMEOUT_MS + 10);
    assert_int_equal(pn_h1_connections(f->h1), 0);
}

/* As a thread does that serves nobody else: it looks at the clock itself, and reads the pong in the moment of the
 * ping. Both times are alike: what is due then is a ping again, not the pong's end. */
static void test_pings_by_the_handler(void **state)
{
    struct h1_fixture *f = *state;
    struct pn_ws_message m;
    pn_ws_server_destroy(t.server);
    t.config.ping_timeout_ns = t.config.ping_interval_ns;
    t.server = pn_ws_server_create(f->loop, &t.config);
    t.take = false;
    open_plain(f);
    for (int i = 0; i < 3; i++) {
        assert_false(pn_ws_see_due(t.ws));
        sim_advance(f->sim, t.config.ping_interval_ns);
        (void)pn_loop_update_now(f->loop);
        assert_true(pn_ws_see_due(t.ws));
        assert_int_equal((unsigned char)h1_fixture_output(t.link)[0], 0x89);
        sim_link_take(t.link, pn_bytes_len(&t.link->to_client));
        stream.n = 0;
        ws_text(&stream, WS_FIN | PN_WS_OP_PONG, "");
        sim_link_send(t.link, stream.data, stream.n);
        (void)pn_exchange_wait_fd(t.x);
        assert_int_equal(pn_ws_take(t.ws, &m), PN_WS_MORE);
        assert_int_equal(pn_bytes_len(&t.link->to_server), 0);
    }
    assert_true(pn_ws_is_open(t.ws));
    /* What is due behind a close is the loop's. */
    pn_ws_close(t.ws, 1000, PN_STR_NONE);
    sim_advance(f->sim, PN_WS_CLOSE_TIMEOUT_MS * PN_NS_PER_MS);
    (void)pn_loop_update_now(f->loop);
    assert_false(pn_ws_see_due(t.ws));
}

/* --- Back-pressure ----------------------------------------------------------------------------- */

static void reading_stops(struct h1_fixture *f, size_t size, size_t count)
{
    static char text[1000];
    size_t all = 0;
    t.take = false;
    stream.n = 0;
    open_plain(f);
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < count; i++)
        ws_frame(&stream, WS_FIN | PN_WS_OP_TEXT, text, size);
    send_stream(f, WS_BYTES_MAX);
    assert_int_equal(t.news, PN_WS_NEWS_IN);
    assert_true(pn_bytes_len(&t.link->to_server) > 0); /* not read */
    /* Silence of a peer that is not heard is no time-out. */
    h1_fixture_advance(f, 60000);
    assert_true(pn_ws_is_open(t.ws));
    for (struct pn_ws_message m; pn_ws_take(t.ws, &m) == PN_WS_TEXT; all++) {
        assert_int_equal(m.data.n, size);
        pn_ws_taken(t.ws);
    }
    assert_int_equal(all, count);
    assert_int_equal(pn_bytes_len(&t.link->to_server), 0);
    pn_ws_release(t.ws);
    t.ws = NULL;
    sim_link_break(t.link);
    h1_fixture_run(f);
}

/* What waits counts with what it takes to keep it, so that small messages are bounded as well. */
static void test_reading_stops(void **state)
{
    reading_stops(*state, 1000, 200);
    reading_stops(*state, 1, 20000);
}

/* More than is read of one peer in one go: others have their turn, and then the rest is read without another byte. */
static void test_much_at_once(void **state)
{
    enum { PIECES = 20, PIECE = 200000 };
    struct h1_fixture *f = *state;
    static char piece[PIECE];
    open_plain(f);
    struct sim_link *other = h1_fixture_connect(f, "");
    h1_fixture_run(f);
    memset(piece, 'z', sizeof piece);
    for (int i = 0; i < PIECES; i++) {
        stream.n = 0;
        ws_frame(&stream,
                 (i == PIECES - 1 ? WS_FIN : 0) | (i ? PN_WS_OP_CONTINUATION : PN_WS_OP_BINARY),
                 piece, PIECE);
        sim_link_send(t.link, stream.data, stream.n);
    }
    f->start = NULL;
    sim_link_send(other, GET, strlen(GET));
    while (f->starts < 2)
        pn_loop_step(f->loop);
    assert_true(pn_bytes_len(&t.link->to_server) > 0);
    h1_fixture_run(f);
    assert_string_equal(t.log, "B[4000000:zzzzzzzzzzzzzzzzzzzz]");
    sim_link_shutdown(other);
    h1_fixture_run(f);
    sim_link_free(other);
}

static void test_writing_stops(void **state)
{
    struct h1_fixture *f = *state;
    int sent = send_until_full(f);
    assert_true(sent >= 2 && pn_ws_is_full(t.ws));
    assert_int_equal(pn_ws_send(t.ws, PN_WS_OP_BINARY, much, sizeof much), -EAGAIN);
    ws_text(&stream, WS_FIN | PN_WS_OP_PING, "1");
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "in");
    send_stream(f, 1); /* the other way is open */
    assert_string_equal(t.log, "T[2:in]");
    assert_false(t.news & PN_WS_NEWS_ROOM);
    pn_ws_close(t.ws, 1000, PN_STR_NONE);
    sim_link_set_window(t.link, SIZE_MAX);
    h1_fixture_run(f);
    const char *got = frames(f);
    assert_int_equal(h1_count(got, "82[100000:yyyy"), sent);
    assert_has(got, "8a[1:1] 88[1000:] ");
    assert_true(t.news & PN_WS_NEWS_ROOM);
}

static void test_peer_takes_nothing(void **state)
{
    struct h1_fixture *f = *state;
    static char text[100000];
    open_plain(f);
    sim_link_set_window(t.link, 1000);
    while (pn_ws_send(t.ws, PN_WS_OP_BINARY, text, sizeof text) == 0)
        ;
    h1_fixture_advance(f, PN_HTTP_WRITE_TIMEOUT_MS + 100);
    assert_string_equal(t.log, "end 1006[0:]");
    assert_int_equal(pn_h1_connections(f->h1), 0);
}

/* Pings of a peer that does not read their answers. */
static void test_pongs_are_bounded(void **state)
{
    struct h1_fixture *f = *state;
    static char text[100000];
    t.take = false;
    open_plain(f);
    sim_link_set_window(t.link, 0);
    while (pn_ws_send(t.ws, PN_WS_OP_BINARY, text, sizeof text) == 0)
        ;
    for (int i = 0; i < 200; i++)
        ws_frame(&stream, WS_FIN | PN_WS_OP_PING, text, 100);
    for (int i = 0; i < 10; i++)
        send_stream(f, 4096);
    assert_true(pn_bytes_len(&t.link->to_server) > 0);
    sim_link_set_window(t.link, SIZE_MAX);
    h1_fixture_run(f);
    assert_int_equal(h1_count(frames(f), "8a[100:"), 2000);
}

/* --- Compression ------------------------------------------------------------------------------- */

static void test_compression(void **state)
{
    struct h1_fixture *f = *state;
    struct pn_bytes packed;
    struct pn_ws_deflate d;
    static char text[5000];
    const struct pn_ws_deflate_params params = {true, true, 15, 15};
    memset(text, 'z', sizeof text);
    t.link = h1_fixture_connect(
        f, HELLO("Sec-WebSocket-Extensions: x-other\r\n"
                 "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"));
    assert_has(h1_fixture_answer(f, t.link), "\r\nSec-WebSocket-Extensions: permessage-deflate");
    t.echo = true;
    pn_bytes_init(&packed);
    pn_ws_deflate_init(&d, &params);
    assert_int_equal(pn_ws_deflate_message(&d, text, sizeof text, &packed), 0);
    ws_frame(&stream, WS_FIN | WS_RSV1 | PN_WS_OP_TEXT, packed.data + packed.start,
             pn_bytes_len(&packed));
    ws_text(&stream, WS_FIN | PN_WS_OP_TEXT, "plain");
    send_stream(f, 5);
    assert_string_equal(t.log, "T[5000:zzzzzzzzzzzzzzzzzzzz]T[5:plain]");
    const char *sent = frames(f);
    assert_int_equal(strncmp(sent, "c1[", 3), 0);
    assert_has(sent, " 81[5:plain] ");
    pn_bytes_free(&packed);
    pn_ws_deflate_fini(&d);
}

/* --- Memory ------------------------------------------------------------------------------------ */

static void test_memory_runs_out(void **state)
{
    struct h1_fixture *f = *state;
    static char text[3000];
    unsigned opened = 0, whole = 0;
    memset(text, 'm', sizeof text);
    t.echo = true;
    for (int i = 0; i < 3; i++)
        ws_frame(&stream, WS_FIN | PN_WS_OP_TEXT, text, sizeof text);
    close_frame(1000, "");
    for (unsigned long nth = 1; whole < 3 && nth < 200; nth++) {
        if (t.link)
            sim_link_free(t.link);
        t.log[0] = 0;
        t.link = sim_link_open(f->sim);
        sim_link_send(t.link, HELLO(""), strlen(HELLO("")));
        sim_link_send(t.link, stream.data, stream.n);
        struct pn_transport transport = sim_link_transport(t.link);
        struct pn_peer peer = {.address = "192.0.2.1", .address_len = 9};
        pn_mem_fail_at(nth, false);
        pn_h1_adopt(f->h1, &transport, &peer, NULL);
        h1_fixture_run(f);
        pn_mem_fail_at(0, false);
        opened += t.log[0] != 0;
        whole += strstr(t.log, "end 1000") != NULL;
        sim_link_shutdown(t.link);
        h1_fixture_run(f);
        h1_fixture_advance(f, PN_HTTP_WRITE_TIMEOUT_MS);
        assert_null(t.ws);
        assert_int_equal(pn_ws_server_connections(t.server), 0);
        assert_int_equal(pn_h1_connections(f->h1), 0);
    }
    assert_true(opened > 3 && whole == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ws_test(test_echo),
        ws_test(test_closed_by_the_peer),
        ws_test(test_rules_broken),
        ws_test(test_cut_by_the_peer),
        ws_test(test_bytes_with_the_handshake),
        ws_test(test_close_and_answer),
        ws_test(test_close_without_answer),
        ws_test(test_server_stops),
        ws_test(test_pings),
        ws_test(test_reading_stops),
        ws_test(test_much_at_once),
        ws_test(test_close_and_nonsense),
        ws_test(test_closed_behind_what_waits),
        ws_test(test_pings_by_the_handler),
        ws_test(test_writing_stops),
        ws_test(test_peer_takes_nothing),
        ws_test(test_pongs_are_bounded),
        ws_test(test_compression),
        ws_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
