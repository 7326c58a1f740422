/* SPDX-License-Identifier: Apache-2.0 */
/* ASCII is passed over in blocks of sixteen; everything else goes through the ranges of the Unicode
 * Standard's table 3-7, which says for each first byte what the second one may be. */
#include "http/ws_utf8.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#else
#include <string.h>
#endif

/* The first byte at or behind P that is not ASCII; END when there is none. */
static const char *skip_ascii(const char *p, const char *end)
{
#if defined(__SSE2__)
    for (; end - p >= 16; p += 16) {
        int high = _mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)p));
        if (high)
            return p + __builtin_ctz((unsigned)high);
    }
#else
    for (; end - p >= 8; p += 8) {
        uint64_t block;
        memcpy(&block, p, sizeof block);
        if (block & UINT64_C(0x8080808080808080))
            break;
    }
#endif
    while (p < end && (unsigned char)*p < 0x80)
        p++;
    return p;
}

/* The byte begins a character of more than one byte. */
static bool begin(struct pn_ws_utf8 *s, uint8_t byte)
{
    s->low = 0x80;
    s->high = 0xbf;
    if (byte < 0xc2 || byte > 0xf4)
        return false;
    if (byte < 0xe0) {
        s->needed = 1;
    } else if (byte < 0xf0) {
        s->needed = 2;
        if (byte == 0xe0)
            s->low = 0xa0; /* below: overlong */
        else if (byte == 0xed)
            s->high = 0x9f; /* above: surrogates */
    } else {
        s->needed = 3;
        if (byte == 0xf0)
            s->low = 0x90;
        else if (byte == 0xf4)
            s->high = 0x8f; /* above: past U+10FFFF */
    }
    return true;
}

bool pn_ws_utf8_feed(struct pn_ws_utf8 *state, const char *bytes, size_t n)
{
    struct pn_ws_utf8 s = *state;
    if (n == 0)
        return true;
    const char *end = bytes + n;
    for (const char *p = bytes; p < end; p++) {
        uint8_t byte = (uint8_t)*p;
        if (s.needed) {
            if (byte < s.low || byte > s.high)
                return false;
            s.needed--;
            s.low = 0x80;
            s.high = 0xbf;
        } else if (byte < 0x80) {
            p = skip_ascii(p, end) - 1;
        } else if (!begin(&s, byte)) {
            return false;
        }
    }
    *state = s;
    return true;
}
