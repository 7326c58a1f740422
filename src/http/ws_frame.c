/* SPDX-License-Identifier: Apache-2.0 */
#include "http/ws_frame.h"

enum {
    BIT_FIN = 0x80,
    BIT_RSV1 = 0x40,
    BITS_RSV23 = 0x30,
    BITS_OPCODE = 0x0f,
    BIT_MASK = 0x80,
    BITS_LENGTH = 0x7f,
    LENGTH_16 = 126,
    LENGTH_64 = 127,
};

static bool known_opcode(unsigned opcode)
{
    return opcode <= PN_WS_OP_BINARY || (opcode >= PN_WS_OP_CLOSE && opcode <= PN_WS_OP_PONG);
}

/* What the first two bytes alone say against the frame. */
static bool refused(uint8_t first, uint8_t second, bool compression)
{
    unsigned opcode = first & BITS_OPCODE;
    if ((first & BITS_RSV23) || !known_opcode(opcode) || !(second & BIT_MASK))
        return true;
    if ((first & BIT_RSV1) &&
        (!compression || (opcode != PN_WS_OP_TEXT && opcode != PN_WS_OP_BINARY)))
        return true;
    return pn_ws_is_control(opcode) &&
           (!(first & BIT_FIN) || (second & BITS_LENGTH) > PN_WS_CONTROL_MAX);
}

static uint64_t big_endian(const uint8_t *p, unsigned n)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < n; i++)
        value = value << 8 | p[i];
    return value;
}

int pn_ws_frame_parse(const char *buf, size_t len, bool compression, struct pn_ws_frame *out)
{
    const uint8_t *p = (const uint8_t *)buf;
    if (len < 2)
        return 0;
    if (refused(p[0], p[1], compression))
        return -PN_WS_STATUS_PROTOCOL;
    unsigned length = p[1] & BITS_LENGTH;
    unsigned extra = length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0;
    unsigned head = 2 + extra + 4;
    if (len < 2 + extra)
        return 0;
    uint64_t size = extra ? big_endian(p + 2, extra) : length;
    if ((extra == 2 && size < LENGTH_16) || (extra == 8 && (size <= UINT16_MAX || size >> 63)))
        return -PN_WS_STATUS_PROTOCOL;
    if (len < head)
        return 0;
    out->opcode = p[0] & BITS_OPCODE;
    out->fin = (p[0] & BIT_FIN) != 0;
    out->compressed = (p[0] & BIT_RSV1) != 0;
    out->size = size;
    for (unsigned i = 0; i < 4; i++)
        out->key[i] = p[2 + extra + i];
    return (int)head;
}

size_t pn_ws_frame_head(char out[PN_WS_SERVER_HEAD_MAX], unsigned opcode, bool fin, bool compressed,
                        uint64_t size)
{
    unsigned extra = size < LENGTH_16 ? 0 : size <= UINT16_MAX ? 2 : 8;
    out[0] = (char)((fin ? BIT_FIN : 0) | (compressed ? BIT_RSV1 : 0) | (opcode & BITS_OPCODE));
    out[1] = (char)(extra == 0 ? size : extra == 2 ? LENGTH_16 : LENGTH_64);
    for (unsigned i = 0; i < extra; i++)
        out[2 + i] = (char)(size >> 8 * (extra - 1 - i));
    return 2 + extra;
}
