/* SPDX-License-Identifier: Apache-2.0 */
/* Why a request (head, chunked body or trailers) was refused: one negative number for the code, one
 * status for the client, one constant text for the log. Ambiguous framing is refused and the
 * connection closed, never repaired (RFC 9112 11.2): every error here ends the connection. */
#pragma once

#include "base/str.h"

/* X(name, status, reason) */
#define PN_H1_ERRORS(X)                                                                  \
    X(EMPTY_LINES, 400, "too many empty lines before the request line")                  \
    X(BARE_CR, 400, "CR without LF")                                                     \
    X(BARE_LF, 400, "LF without CR")                                                     \
    X(METHOD, 400, "method is not a token")                                              \
    X(METHOD_SIZE, 501, "method is longer than any known one")                           \
    X(CONNECT, 501, "CONNECT is not supported")                                          \
    X(REQUEST_LINE, 400, "request line is not method, space, target, space, version")    \
    X(TARGET_SIZE, 414, "request target is too long")                                    \
    X(TARGET_FORM, 400, "request target is relative or has a scheme other than http")    \
    X(TARGET_ASTERISK, 400, "target * is for OPTIONS only")                              \
    X(TARGET_CONTROL, 400, "control character in the request target")                    \
    X(TARGET_FRAGMENT, 400, "request target has a fragment")                             \
    X(TARGET_ESCAPE, 400, "bad percent escape in the path")                              \
    X(TARGET_AUTHORITY, 400, "request target has a bad host or port")                    \
    X(VERSION, 400, "version is not HTTP/digit.digit")                                   \
    X(VERSION_MAJOR, 505, "HTTP version is not 1.x")                                     \
    X(NAME_EMPTY, 400, "header line without a name")                                     \
    X(NAME_SPACE, 400, "whitespace before the colon of a header")                        \
    X(NAME, 400, "header name is not a token")                                           \
    X(FOLD, 400, "header line begins with whitespace")                                   \
    X(VALUE_CONTROL, 400, "control character in a header value")                         \
    X(LINE_SIZE, 431, "header line is too long")                                         \
    X(HEADERS_COUNT, 431, "too many header lines")                                       \
    X(HEAD_SIZE, 431, "request head is too long")                                        \
    X(HOST_MISSING, 400, "Host is missing")                                              \
    X(HOST_REPEATED, 400, "Host is repeated")                                            \
    X(HOST, 400, "Host is not a host with an optional port")                             \
    X(LENGTH, 400, "Content-Length is not one decimal number")                           \
    X(LENGTH_REPEATED, 400, "Content-Length is repeated")                                \
    X(LENGTH_AND_CODING, 400, "both Content-Length and Transfer-Encoding")               \
    X(CODING, 400, "Transfer-Encoding does not end in one chunked")                      \
    X(CODING_REPEATED, 400, "Transfer-Encoding is repeated")                             \
    X(CODING_IN_1_0, 400, "Transfer-Encoding in HTTP/1.0")                               \
    X(CODING_UNKNOWN, 501, "transfer coding other than chunked")                         \
    X(TYPE_REPEATED, 400, "Content-Type is repeated")                                    \
    X(EXPECT, 417, "expectation other than 100-continue")                                \
    X(CHUNK_SIZE, 400, "chunk size is not a hexadecimal number followed by CRLF")        \
    X(CHUNK_EXT, 400, "bad chunk extension")                                             \
    X(CHUNK_EXT_SIZE, 400, "chunk extensions are too long")                              \
    X(CHUNK_END, 400, "chunk data is not followed by CRLF")                              \
    X(TRAILER, 400, "trailer line is not a header line")                                 \
    X(TRAILER_FORBIDDEN, 400, "trailer field that is for framing, routing or authority") \
    X(TRAILERS_SIZE, 431, "trailers are too long")

/* The errors are negative: -1, -2, ... in the order of the list. */
enum pn_h1_error_index {
    PN_H1_ERROR_INDEX_NONE = 0,
#define X(name, status, reason) PN_H1_ERROR_INDEX_##name,
    PN_H1_ERRORS(X)
#undef X
        PN_H1_ERROR_INDEX_END,
};
enum pn_h1_error {
#define X(name, status, reason) PN_H1_E_##name = -PN_H1_ERROR_INDEX_##name,
    PN_H1_ERRORS(X)
#undef X
};

/* The status that answers ERR (one of PN_H1_E_*): 400, 414, 417, 431, 501 or 505. */
int pn_h1_error_status(int err);

/* A constant text without line ends; it holds nothing that the peer sent. */
struct pn_str pn_h1_error_reason(int err);
