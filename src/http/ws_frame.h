/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a WebSocket frame (RFC 6455 5.2), both ways. Pure functions.
 *
 * Strictness: clients mask (5.1); lengths come in their shortest form; reserved opcodes and bits are
 * refused; control frames are whole and at most 125 bytes long (5.5). */
#pragma once

#include "base/defs.h"

enum pn_ws_opcode {
    PN_WS_OP_CONTINUATION = 0,
    PN_WS_OP_TEXT = 1,
    PN_WS_OP_BINARY = 2,
    PN_WS_OP_CLOSE = 8,
    PN_WS_OP_PING = 9,
    PN_WS_OP_PONG = 10,
};

/* Status codes that this end sends (RFC 6455 7.4.1), and the one that stands for "the frame had none". */
enum pn_ws_status {
    PN_WS_STATUS_NORMAL = 1000,
    PN_WS_STATUS_GOING_AWAY = 1001,
    PN_WS_STATUS_PROTOCOL = 1002,
    PN_WS_STATUS_NONE = 1005,
    PN_WS_STATUS_ABNORMAL = 1006, /* the connection ended without a close frame */
    PN_WS_STATUS_NOT_UTF8 = 1007,
    PN_WS_STATUS_POLICY = 1008,
    PN_WS_STATUS_TOO_BIG = 1009,
    PN_WS_STATUS_INTERNAL = 1011,
    PN_WS_STATUS_RESTART = 1012, /* the server stops */
};

enum {
    PN_WS_CLIENT_HEAD_MAX = 14,
    PN_WS_SERVER_HEAD_MAX = 10,
    PN_WS_CONTROL_MAX = 125,
};

struct pn_ws_frame {
    uint8_t opcode; /* enum pn_ws_opcode */
    bool fin;
    bool compressed; /* RSV1 (RFC 7692 6) */
    uint8_t key[4];
    uint64_t size; /* of the payload */
};

static inline bool pn_ws_is_control(unsigned opcode)
{
    return (opcode & 8) != 0;
}

/* Reads the head of a client's frame at BUF. Returns how long it is, 0 when more bytes are needed, or
 * -PN_WS_STATUS_PROTOCOL; bad first bytes are refused before the rest has come. COMPRESSION: RSV1 is
 * allowed on the frame that begins a message. */
int pn_ws_frame_parse(const char *buf, size_t len, bool compression, struct pn_ws_frame *out);

/* Writes the head of a server's frame: its length. */
size_t pn_ws_frame_head(char out[PN_WS_SERVER_HEAD_MAX], unsigned opcode, bool fin, bool compressed,
                        uint64_t size);

/* A code that may stand in a close frame (RFC 6455 7.4, and the registry of its section 11.7). */
static inline bool pn_ws_status_may_be_sent(unsigned status)
{
    return (status >= 1000 && status <= 1003) || (status >= 1007 && status <= 1014) ||
           (status >= 3000 && status <= 4999);
}
