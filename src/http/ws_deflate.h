/* SPDX-License-Identifier: Apache-2.0 */
/* permessage-deflate (RFC 7692): what the two ends agree on, and messages through zlib.
 *
 * A direction without context takeover holds memory only while a message of it is under way; one with
 * it holds its window from its first compressed message on (about 40 kB in, 70 kB out, at 15 bits).
 * What a client's bytes inflate to is bounded by the caller's limits, while it is inflated. */
#pragma once

#include "base/bytes.h"

struct z_stream_s;

/* What was agreed. Window bits are 8..15 for what comes in, 9..15 for what goes out (zlib cannot
 * compress for a window of 8 bits; an offer that insists on it is passed over). */
struct pn_ws_deflate_params {
    bool client_no_context_takeover;
    bool server_no_context_takeover;
    uint8_t client_max_window_bits; /* what comes in */
    uint8_t server_max_window_bits; /* what goes out */
};

/* What this server wants of the agreement. */
struct pn_ws_deflate_policy {
    bool no_context_takeover; /* less memory, less compression; both ways */
    uint8_t window_bits_max;  /* 9..15, both ways; applied to clients that let it be said */
};

enum { PN_WS_DEFLATE_ANSWER_MAX = 160 };

/* Looks through a Sec-WebSocket-Extensions value for the first offer that can be accepted (RFC 7692 5,
 * 7.1): true, *OUT, and the answer's value at ANSWER, *ANSWER_SIZE bytes. False: no compression. */
bool pn_ws_deflate_negotiate(struct pn_str offers, const struct pn_ws_deflate_policy *policy,
                             struct pn_ws_deflate_params *out,
                             char answer[PN_WS_DEFLATE_ANSWER_MAX], size_t *answer_size);

/* Both directions of one connection. Owned by the caller; fini frees what zlib holds. */
struct pn_ws_deflate {
    struct pn_ws_deflate_params params;
    struct z_stream_s *in;  /* owned; NULL: none needed now */
    struct z_stream_s *out; /* owned; NULL: none needed now */
};

void pn_ws_deflate_init(struct pn_ws_deflate *d, const struct pn_ws_deflate_params *params);
void pn_ws_deflate_fini(struct pn_ws_deflate *d);

/* Inflates a piece of a message behind what is in OUT, which may get SIZE_MAX bytes at most altogether. 0;
 * -EMSGSIZE: it would be more; -EBADMSG: not a deflate stream; -ENOMEM. */
int pn_ws_inflate(struct pn_ws_deflate *d, const char *data, size_t n, struct pn_bytes *out,
                  size_t size_max);
/* The message has come to its end; as inflate. */
int pn_ws_inflate_end(struct pn_ws_deflate *d, struct pn_bytes *out, size_t size_max);

/* Compresses a whole message behind what is in OUT: 0 or -ENOMEM; then OUT is as it was before. */
int pn_ws_deflate_message(struct pn_ws_deflate *d, const char *data, size_t n,
                          struct pn_bytes *out);
/* The last message was not sent after all: no later one refers to it. */
void pn_ws_deflate_unsent(struct pn_ws_deflate *d);
