/* SPDX-License-Identifier: Apache-2.0 */
/* What the handler of a WebSocket connection does in tests: it takes what is there, and may send it back. */
#pragma once

#include "http/ws_conn.h"

/* Takes all that is there; SEEN gets each message, and the end, before it is taken. True: that was the
 * end, and WS is still the caller's. */
static inline bool ws_take_all(struct pn_ws *ws, bool echo,
                               void (*seen)(int kind, const struct pn_ws_message *m))
{
    struct pn_ws_message m;
    int kind;
    while ((kind = pn_ws_take(ws, &m)) != PN_WS_MORE) {
        seen(kind, &m);
        if (kind == PN_WS_CLOSE)
            return true;
        if (echo)
            (void)pn_ws_send(ws, kind == PN_WS_TEXT ? PN_WS_OP_TEXT : PN_WS_OP_BINARY, m.data.p,
                             m.data.n);
        pn_ws_taken(ws);
    }
    return false;
}
