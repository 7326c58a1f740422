/* SPDX-License-Identifier: Apache-2.0 */
/* Sec-WebSocket-Extensions values. Beside not crashing: what is agreed on is within zlib's range, and the
 * answer, read as an offer, is one that can be accepted again. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "http/ws_deflate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pn_ws_deflate_policy policy = {.window_bits_max = 15};
    struct pn_ws_deflate_params p, again;
    char answer[PN_WS_DEFLATE_ANSWER_MAX], second[PN_WS_DEFLATE_ANSWER_MAX];
    size_t n, m;
    char *copy = malloc(size + !size);
    memcpy(copy, data, size);
    if (pn_ws_deflate_negotiate((struct pn_str){copy, size}, &policy, &p, answer, &n)) {
        PN_BUG_ON(n > sizeof answer);
        PN_BUG_ON(p.client_max_window_bits < 8 || p.client_max_window_bits > 15);
        PN_BUG_ON(p.server_max_window_bits < 9 || p.server_max_window_bits > 15);
        PN_BUG_ON(
            !pn_ws_deflate_negotiate((struct pn_str){answer, n}, &policy, &again, second, &m));
        PN_BUG_ON(again.server_max_window_bits != p.server_max_window_bits);
        PN_BUG_ON(again.client_max_window_bits != p.client_max_window_bits);
    }
    free(copy);
    return 0;
}
