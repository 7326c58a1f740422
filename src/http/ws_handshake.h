/* SPDX-License-Identifier: Apache-2.0 */
/* The opening handshake of RFC 6455 4.2, as far as it can be told from the request. Pure; the answer is
 * the gateway's, who knows the application's wish. */
#pragma once

#include "http/exchange.h"

enum {
    PN_WS_KEY_SIZE = 24,    /* base64 of sixteen bytes */
    PN_WS_ACCEPT_SIZE = 28, /* base64 of a SHA-1 digest */
    PN_WS_SHA1_SIZE = 20,
};

enum pn_ws_handshake {
    PN_WS_NOT_ASKED = 0,   /* an ordinary request */
    PN_WS_ASKED = 1,       /* a proper handshake: answer 101, or refuse */
    PN_WS_BAD = 2,         /* answer 400 */
    PN_WS_BAD_VERSION = 3, /* answer 426 with "Sec-WebSocket-Version: 13" */
};

/* What the request's head is. KEY gets the client's key when the answer is ASKED. Owner of the loop: reads the
 * exchange's text. */
enum pn_ws_handshake pn_ws_handshake_check(const struct pn_exchange *x, char key[PN_WS_KEY_SIZE]);

/* SHA-1 of N bytes; the library of the caller's choice. 0, or negative errno. */
typedef int pn_ws_sha1(void *ctx, const void *data, size_t n, uint8_t digest[PN_WS_SHA1_SIZE]);

/* The value of Sec-WebSocket-Accept: 0, or what SHA1 returned. */
int pn_ws_accept(const char key[PN_WS_KEY_SIZE], pn_ws_sha1 *sha1, void *ctx,
                 char accept[PN_WS_ACCEPT_SIZE]);
