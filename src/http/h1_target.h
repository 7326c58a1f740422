/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a request target: hosts, ports, percent escapes. Pure functions over bytes that the caller
 * owns; no allocation.
 *
 * Escapes: a path with a bad escape ("%", "%4", "%zz") or with "%00" is refused, 400. What such a
 * path means differs from one program to the next, which is what attackers look for; nginx refuses
 * both as well. "%2F" is decoded to "/" as PEP 3333 and uWSGI have it. The query is never decoded. */
#pragma once

#include "base/str.h"

/* Decodes the path of N bytes at P to OUT, which has room for N bytes and may be P itself. Returns the
 * length of the result (0..N), or -EINVAL for what is refused above (pn_h1_parse_head refuses it
 * first, so a path out of a parsed head cannot fail). */
ptrdiff_t pn_h1_target_decode(const char *p, size_t n, char *out);

/* True for uri-host [ ":" port ] of RFC 3986 3.2.2 and RFC 9110 7.2: a reg-name (IPv4 addresses are
 * among them) with valid escapes, or an IPv6 address or an IPvFuture of at most 255 bytes in
 * brackets; a port of at most five digits, up to 65535, or empty. The whole may be empty (RFC 9112 3.2
 * has clients send an empty Host when there is no authority), but not ":80". User names and zone ids
 * are refused. */
bool pn_h1_host_valid(struct pn_str host);

/* Splits a valid host: *NAME (brackets included) and *PORT, -1 when there is none. */
void pn_h1_host_split(struct pn_str host, struct pn_str *name, int *port);
