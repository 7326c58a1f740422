/* SPDX-License-Identifier: Apache-2.0 */
/* A WebSocket client's bytes for tests: frames as a client sends them, gathered in one block. */
#pragma once

#include <string.h>

#include "http/ws_frame.h"
#include "http/ws_mask.h"

enum { WS_BYTES_MAX = 1 << 18 };

struct ws_bytes {
    size_t n;
    char data[WS_BYTES_MAX];
};

enum { WS_FIN = 0x80, WS_RSV1 = 0x40 };

/* One frame; FIRST is its first byte. */
static inline void ws_frame(struct ws_bytes *b, unsigned first, const void *payload, size_t n)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t head = pn_ws_frame_head(b->data + b->n, first & 15, first & WS_FIN, first & WS_RSV1, n);
    b->data[b->n + 1] = (char)(b->data[b->n + 1] | 0x80);
    b->n += head;
    memcpy(b->data + b->n, key, 4);
    b->n += 4;
    if (n)
        pn_ws_mask_copy(b->data + b->n, payload, n, key, 0);
    b->n += n;
}

static inline void ws_text(struct ws_bytes *b, unsigned first, const char *text)
{
    ws_frame(b, first, text, strlen(text));
}
