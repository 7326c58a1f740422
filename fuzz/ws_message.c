/* SPDX-License-Identifier: Apache-2.0 */
/* A WebSocket client's bytes. Beside not crashing: cut anywhere the events are the same, a message is within its
 * bounds, text is UTF-8. The first byte chooses the agreement on compression, the rest is the stream. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "http/ws_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 8192, MESSAGE_MAX = 1 << 16 };

/* Bits of the first byte. */
enum { NO_TAKEOVER = 1, COMPRESSION = 2, SMALL_WINDOW = 4 };

/* What came out, as a sum that depends on kinds, order and bytes. */
struct outcome {
    uint64_t sum;
    int result;
};

static void mix(struct outcome *o, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++)
        o->sum = (o->sum ^ p[i]) * UINT64_C(1099511628211);
}

static void judge(struct outcome *o, int event, const struct pn_ws_message *m)
{
    struct pn_ws_utf8 utf8 = {0};
    PN_BUG_ON(m->data.n > MESSAGE_MAX);
    PN_BUG_ON(event >= PN_WS_CLOSE && m->data.n > PN_WS_CONTROL_MAX);
    if (event == PN_WS_TEXT || event == PN_WS_CLOSE)
        PN_BUG_ON(!pn_ws_utf8_feed(&utf8, m->data.p, m->data.n) || !pn_ws_utf8_whole(&utf8));
    mix(o, &event, sizeof event);
    mix(o, m->data.p, m->data.n);
}

static bool feed(struct pn_ws_receiver *r, const uint8_t *bytes, size_t n, struct outcome *o)
{
    char *copy = malloc(n + !n), *p = copy;
    memcpy(copy, bytes, n);
    for (;;) {
        struct pn_ws_message m = {.status = 0};
        size_t used;
        o->result = pn_ws_receive(r, p, n, &used, &m);
        PN_BUG_ON(used > n);
        p += used;
        n -= used;
        if (o->result <= 0)
            break;
        judge(o, o->result, &m);
    }
    PN_BUG_ON(o->result == PN_WS_MORE && n && !r->closed);
    free(copy);
    return o->result == PN_WS_MORE;
}

static struct outcome receive(const uint8_t *bytes, size_t n, uint8_t choice, bool cut)
{
    const struct pn_ws_limits limits = {MESSAGE_MAX, 16, 100};
    const struct pn_ws_deflate_params params = {choice & NO_TAKEOVER, choice & NO_TAKEOVER,
                                                choice & SMALL_WINDOW ? 8 + (choice >> 3) % 8 : 15,
                                                15};
    struct outcome o = {UINT64_C(14695981039346656037), 0};
    struct pn_ws_deflate codec;
    struct pn_ws_receiver r;
    pn_ws_deflate_init(&codec, &params);
    pn_ws_receiver_init(&r, &limits, choice & COMPRESSION ? &codec : NULL);
    bool goes_on = true;
    for (size_t i = 0; i < n && goes_on;) {
        size_t m = cut ? (size_t)bytes[n - 1 - i] % 16 + 1 : n;
        m = m < n - i ? m : n - i;
        goes_on = feed(&r, bytes + i, m, &o);
        if (cut)
            pn_ws_receiver_rest(&r);
        i += m;
    }
    pn_ws_receiver_fini(&r);
    pn_ws_deflate_fini(&codec);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > INPUT_MAX)
        return 0;
    struct outcome whole = receive(data + 1, size - 1, data[0], false);
    struct outcome other = receive(data + 1, size - 1, data[0], true);
    /* A message with two faults may be refused for either, by how much of it is looked at at once. And what
     * refers past a small window is found by zlib only when it has to look there, and not while
     * all of it still lies in one piece of output. */
    if (!(data[0] & SMALL_WINDOW))
        PN_BUG_ON((whole.result < 0) != (other.result < 0) || whole.sum != other.sum);
    return 0;
}
