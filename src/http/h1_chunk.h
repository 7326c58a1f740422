/* SPDX-License-Identifier: Apache-2.0 */
/* The chunked transfer coding (RFC 9112 7.1), both ways. The decoder is a pure state machine over
 * whatever bytes have come, cut anywhere; data comes out as spans of the input, nothing is copied.
 *
 * Strictness: a size is 1..15 hexadecimal digits, nothing before or after; lines end in CRLF only;
 * extensions follow the grammar without whitespace (the RFC's BWS is refused: nothing sends it but
 * smugglers) and are bounded over the whole body, so that tiny chunks with long extensions cost their
 * sender (PN_HTTP_CHUNK_EXT_MAX). Trailer lines obey the rules of header lines; fields that
 * RFC 9110 6.5.1 forbids (framing, routing, authentication, content format, forwarding) are refused
 * with 400, not dropped: an honest client has none.
 *
 *   SIZE -> [EXT...] -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE ...
 *                          \ size 0 -> TRAILER lines -> END_LF -> DONE */
#pragma once

#include "base/bounds.h"
#include "http/h1_names.h"
#include "http/h1_parse_error.h"

/* One body being decoded. Owned by the caller; plain data, may be copied. */
struct pn_h1_chunk {
    uint64_t left;         /* of the chunk's data; the size while it is being read */
    uint8_t state;         /* private to h1_chunk.c */
    uint8_t digits;        /* of the size, so far */
    uint16_t ext_size;     /* extension bytes over the body */
    uint16_t trailer_size; /* trailer bytes */
    uint16_t trailers;     /* trailer lines */
    uint8_t name_len;      /* of the trailer name; PN_HEADER_NAME_MAX + 1 stands for longer */
    bool name_unusual;
    char name[PN_HEADER_NAME_MAX];
};

enum pn_h1_chunk_result {
    PN_H1_CHUNK_MORE = 0, /* all input is used up, the body goes on */
    PN_H1_CHUNK_DATA = 1, /* *DATA is a piece of the body, at least one byte */
    PN_H1_CHUNK_END = 2,  /* the body and its trailers are over; the next request begins at *USED */
};

void pn_h1_chunk_init(struct pn_h1_chunk *chunk);

/* Goes through the LEN bytes at BUF up to the next piece of data. Returns one of the results above, or
 * a negative PN_H1_E_*, after which the decoder stays failed and gives the same again. *USED is how
 * many bytes are done with; call again with the rest while the result is DATA. *DATA (a part of BUF)
 * is set with DATA only. After END it gives END again and uses nothing.
 * Trailer bytes are checked and not kept; a caller who wants them gathers the bytes that are used up
 * while pn_h1_chunk_in_trailers() holds. */
int pn_h1_chunk_next(struct pn_h1_chunk *chunk, const char *buf, size_t len, size_t *used,
                     struct pn_str *data);

/* The last chunk is over and the trailer section, or the final empty line, is being read. */
bool pn_h1_chunk_in_trailers(const struct pn_h1_chunk *chunk);

/* --- the way out --- */

enum { PN_H1_CHUNK_HEAD_MAX = 18 }; /* 16 digits and CRLF */

/* Writes the line before N > 0 bytes of data; returns its length. The data is followed by CRLF. */
size_t pn_h1_chunk_head(uint64_t n, char out[PN_H1_CHUNK_HEAD_MAX]);

#define PN_H1_CHUNK_CRLF PN_STR("\r\n")
/* The end of a body without trailers. With trailers: PN_H1_CHUNK_LAST, the lines, PN_H1_CHUNK_CRLF. */
#define PN_H1_CHUNK_LAST PN_STR("0\r\n")
#define PN_H1_CHUNK_FIN  PN_STR("0\r\n\r\n")

/* Writes "name: value" and CRLF, name.n + value.n + 4 bytes, when CAP has room for them. Returns the
 * length, -EINVAL when the name is not a token or is forbidden in trailers, or the value has what a
 * value must not have, -ENOSPC. */
ptrdiff_t pn_h1_chunk_trailer(struct pn_str name, struct pn_str value, char *out, size_t cap);
