/* SPDX-License-Identifier: Apache-2.0 */
#include "http/ws_handshake.h"

#include <string.h>

#include "http/h1_names.h"
#include "http/http_token.h"

#define ACCEPT_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455 1.3 */

/* A header that must be there once: its value, or NONE when it is missing or repeated. */
static struct pn_str only(const struct pn_exchange *x, uint16_t id)
{
    struct pn_str value = PN_STR_NONE;
    unsigned count = 0;
    for (unsigned i = 0; i < x->header_count; i++) {
        if (x->headers[i].id == id && ++count == 1)
            value = pn_header_value(x, &x->headers[i]);
    }
    return count == 1 ? value : PN_STR_NONE;
}

/* True when a header of ID, in any of its lines, names websocket among its list's elements. */
static bool names_websocket(const struct pn_exchange *x)
{
    for (unsigned i = 0; i < x->header_count; i++) {
        if (x->headers[i].id == PN_HEADER_UPGRADE &&
            pn_http_list_has(pn_header_value(x, &x->headers[i]), PN_STR("websocket")))
            return true;
    }
    return false;
}

/* Sixteen bytes in base64: 22 characters, the last of which has four bits to spare, and "==". */
static bool is_key(struct pn_str key)
{
    if (key.n != PN_WS_KEY_SIZE || key.p[22] != '=' || key.p[23] != '=')
        return false;
    for (unsigned i = 0; i < 22; i++) {
        char c = key.p[i];
        if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
            c != '+' && c != '/')
            return false;
    }
    return true;
}

enum pn_ws_handshake pn_ws_handshake_check(const struct pn_exchange *x, char key[PN_WS_KEY_SIZE])
{
    if (!x->upgrade_asked || !names_websocket(x))
        return PN_WS_NOT_ASKED;
    if (!pn_str_eq(pn_exchange_text(x, x->method), PN_STR("GET")) || x->has_body)
        return PN_WS_BAD;
    struct pn_str version = only(x, PN_HEADER_SEC_WEBSOCKET_VERSION);
    if (!pn_str_eq(version, PN_STR("13")))
        return version.n ? PN_WS_BAD_VERSION : PN_WS_BAD;
    struct pn_str value = only(x, PN_HEADER_SEC_WEBSOCKET_KEY);
    if (!is_key(value))
        return PN_WS_BAD;
    memcpy(key, value.p, PN_WS_KEY_SIZE);
    return PN_WS_ASKED;
}

static void base64(const uint8_t *data, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3, out += 4) {
        unsigned left = (unsigned)pn_min_size(n - i, 3);
        uint32_t bits = (uint32_t)data[i] << 16;
        if (left > 1)
            bits |= (uint32_t)data[i + 1] << 8;
        if (left > 2)
            bits |= data[i + 2];
        out[0] = digits[bits >> 18];
        out[1] = digits[bits >> 12 & 63];
        out[2] = left > 1 ? digits[bits >> 6 & 63] : '=';
        out[3] = left > 2 ? digits[bits & 63] : '=';
    }
}

int pn_ws_accept(const char key[PN_WS_KEY_SIZE], pn_ws_sha1 *sha1, void *ctx,
                 char accept[PN_WS_ACCEPT_SIZE])
{
    char text[PN_WS_KEY_SIZE + sizeof ACCEPT_GUID - 1];
    uint8_t digest[PN_WS_SHA1_SIZE];
    memcpy(text, key, PN_WS_KEY_SIZE);
    memcpy(text + PN_WS_KEY_SIZE, ACCEPT_GUID, sizeof ACCEPT_GUID - 1);
    int rc = sha1(ctx, text, sizeof text, digest);
    if (rc == 0)
        base64(digest, sizeof digest, accept);
    return rc;
}
