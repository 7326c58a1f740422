/* SPDX-License-Identifier: Apache-2.0 */
/* Whether bytes that come in pieces are UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing
 * above U+10FFFF. A bad byte is found at once, and not when its sequence would be whole: RFC 6455 8.1 lets a
 * server fail the connection then. */
#pragma once

#include "base/defs.h"

/* All zero: between two characters. Plain data. */
struct pn_ws_utf8 {
    uint8_t needed; /* continuation bytes that must still come */
    uint8_t low;    /* the range of the next one; not looked at while needed is 0 */
    uint8_t high;
};

/* False as soon as the bytes so far, with these N behind them, cannot be the begin of a text. After
 * that *STATE is of no use any more. */
bool pn_ws_utf8_feed(struct pn_ws_utf8 *state, const char *bytes, size_t n);

/* The text may end here. */
static inline bool pn_ws_utf8_whole(const struct pn_ws_utf8 *state)
{
    return state->needed == 0;
}
