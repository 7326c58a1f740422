/* SPDX-License-Identifier: Apache-2.0 */
/* A WebSocket connection over an in-memory link, with a handler that echoes: the input says what the client
 * sends and when, how much of the answers it takes, what the handler does, and how time goes. Beside not crashing:
 * nothing is left when the client has gone, and a message that is taken is within its bounds. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "support/h1_fixture.h"
#include "support/ws_handler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 4096, MESSAGE_MAX = 1 << 14 };

#define HELLO                                                                       \
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"    \
    "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Version: 13\r\n" \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

static struct {
    struct pn_ws_server *server;
    struct pn_ws *ws;
    bool takes;
} t;

static void check(int kind, const struct pn_ws_message *m)
{
    if (kind == PN_WS_CLOSE)
        PN_BUG_ON(pn_ws_is_open(t.ws) || m->data.n > PN_WS_REASON_MAX);
    else
        PN_BUG_ON(m->data.n > MESSAGE_MAX);
}

static void take_all(void)
{
    if (t.ws && ws_take_all(t.ws, true, check)) {
        pn_ws_release(t.ws);
        t.ws = NULL;
    }
}

static void on_news(struct pn_ws *ws, unsigned what)
{
    PN_BUG_ON(ws != t.ws || !what);
    if (t.takes)
        take_all();
}

static void start(struct h1_fixture *f, struct pn_exchange *x)
{
    const struct pn_ws_opening opening = {.accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                                          .news = on_news};
    (void)f;
    PN_BUG_ON(pn_ws_open(t.server, x, &opening, &t.ws) < 0);
}

/* One step of the script at P, of which N bytes are left: how many it was. */
static size_t step(struct h1_fixture *f, struct sim_link *l, const uint8_t *p, size_t n)
{
    static const char text[3000] = "what the handler says by itself";
    size_t arg = n > 1 ? p[1] : 0;
    switch (p[0] % 10) {
    case 0:
        sim_link_set_window(l, arg * arg);
        break;
    case 1:
        h1_fixture_advance(f, (int64_t)arg * 200);
        break;
    case 2:
        if (t.ws)
            (void)pn_ws_send(t.ws, PN_WS_OP_TEXT, text, arg * 11);
        break;
    case 3:
        if (t.ws)
            pn_ws_close(t.ws, 1000 + (unsigned)arg % 3, (struct pn_str){text, arg % 124});
        break;
    case 4:
        t.takes = !t.takes;
        if (t.takes)
            take_all();
        break;
    case 5:
        if (arg > 250)
            pn_ws_server_stop(t.server);
        break;
    default: /* most of it is the client's */
        arg = pn_min_size(arg % 64 + 1, n > 2 ? n - 2 : 0);
        sim_link_send(l, p + 2, arg);
        h1_fixture_run(f);
        return pn_min_size(2 + arg, n);
    }
    h1_fixture_run(f);
    return pn_min_size(2, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct h1_fixture f;
    const struct pn_ws_config config = {
        .limits = {MESSAGE_MAX, 16, 100},
        .ping_interval_ns = 20 * PN_NS_PER_SEC,
        .ping_timeout_ns = 10 * PN_NS_PER_SEC,
        .compression = true,
        .deflate = {.no_context_takeover = true, .window_bits_max = 15},
    };
    if (size > INPUT_MAX)
        return 0;
    h1_fixture_init(&f);
    f.start = start;
    h1_fixture_open(&f);
    t.server = pn_ws_server_create(f.loop, &config);
    t.ws = NULL;
    t.takes = true;
    struct sim_link *l = h1_fixture_connect(&f, HELLO);
    for (size_t i = 0; i < size;)
        i += step(&f, l, data + i, size - i);
    sim_link_break(l);
    h1_fixture_run(&f);
    take_all();
    PN_BUG_ON(t.ws || pn_ws_server_connections(t.server) || pn_h1_connections(f.h1));
    pn_ws_server_destroy(t.server);
    h1_fixture_close(&f);
    sim_link_free(l);
    return 0;
}
