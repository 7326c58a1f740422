/* SPDX-License-Identifier: Apache-2.0 */
/* Date as IMF-fixdate (RFC 9110 5.6.7): "Sun, 06 Nov 1994 08:49:37 GMT". No locale, no time zone, no
 * libc call. The caller keeps the text and asks again when the second has changed. */
#pragma once

#include "base/defs.h"

enum { PN_HTTP_DATE_LEN = 29 };

/* Writes exactly PN_HTTP_DATE_LEN bytes, no NUL. UNIX_SEC outside the years 1970..9999, which the
 * format cannot say, is taken as the nearest end. */
void pn_http_date_format(int64_t unix_sec, char out[PN_HTTP_DATE_LEN]);
