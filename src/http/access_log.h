/* SPDX-License-Identifier: Apache-2.0 */
/* The request log: one readable line a request,
 *
 *   192.0.2.1 [2026-11-23 09:31:10 +0000] "GET /a?b HTTP/1.1" 200 167 0.412ms
 *   192.0.2.1 [2026-11-23 09:31:12 +0000] "-" 400 151 0.000ms error="Host is missing"
 *
 * client address ("unix" for a local socket), time of the end, request line as sent, status, bytes
 * sent, duration, and why the server refused or cut it. What the client wrote is escaped (a quote, a
 * backslash, controls and bytes from 0x7f on become \xNN), so a line is always one line. A status of 0:
 * nothing was answered. The writer is owned by one worker; it borrows the log sink. */
#pragma once

#include "base/log.h"
#include "http/h1.h"

enum {
    PN_ACCESS_LINE_MAX = 5120,   /* what a line takes at most, its end included */
    PN_ACCESS_TARGET_MAX = 4096, /* of it, the escaped target; a longer one ends in "..." */
};

struct pn_access_log {
    struct pn_log *log;
    int64_t stamp_s; /* the second that STAMP says */
    size_t stamp_len;
    char stamp[40]; /* " [date time zone] " */
};

/* LOG NULL: the process's default sink. */
void pn_access_log_init(struct pn_access_log *l, struct pn_log *log);

/* Formats A with its line end into OUT; returns the length. */
size_t pn_access_log_format(struct pn_access_log *l, const struct pn_access *a,
                            char out[PN_ACCESS_LINE_MAX]);

/* For pn_h1_config.on_access, with a struct pn_access_log as CTX: formats and appends. */
void pn_access_log_write(void *ctx, const struct pn_access *a);
