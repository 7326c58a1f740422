/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes and the reason phrases that IANA registers for them (RFC 9110 15 and the registry). */
#pragma once

#include "base/str.h"

/* The phrase of CODE, or an empty view for a code without one (the phrase may be empty in a status
 * line, RFC 9112 4). */
struct pn_str pn_http_status_reason(int code);

/* False where a response has no content whatever its fields say: 1xx, 204, 304 (RFC 9110 6.4.1).
 * Answers to HEAD have none either; that is the caller's to know. */
static inline bool pn_http_status_has_body(int code)
{
    return code >= 200 && code != 204 && code != 304;
}

/* False where Content-Length and Transfer-Encoding must not be sent: 1xx and 204 (RFC 9110 8.6,
 * RFC 9112 6.1). A 304 may carry the Content-Length that a 200 would have had. */
static inline bool pn_http_status_may_have_length(int code)
{
    return code >= 200 && code != 204;
}
