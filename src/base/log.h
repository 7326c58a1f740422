/* SPDX-License-Identifier: Apache-2.0 */
/* The server's own log: one sink per process, whole lines, batched, written at most once a turn.
 *
 * A line is appended under a small mutex (any thread may log) and leaves by one write(2) on an
 * O_APPEND descriptor, so lines of several processes never tear (up to the flush's size). Whoever
 * owns the loop flushes at the end of a turn; error lines flush at once. The child of a fork starts
 * with an empty buffer: what was pending belongs to the parent, who writes it.
 * All bytes that come from outside pass pn_log_escape first (log injection, security.md). */
#pragma once

#include "base/str.h"

enum pn_log_level {
    PN_LOG_DEBUG = 0,
    PN_LOG_INFO = 1,
    PN_LOG_WARNING = 2,
    PN_LOG_ERROR = 3,
};

struct pn_log;

/* FD is borrowed (normally 2). Never NULL: aborts without memory. */
struct pn_log *pn_log_create(int fd, enum pn_log_level min_level);
/* Flushes and frees. */
void pn_log_destroy(struct pn_log *log);
/* The process's sink for rooms that have no better one: set once by main; NULL prints to stderr. */
void pn_log_set_default(struct pn_log *log);
struct pn_log *pn_log_default(void);

/* One line "[date time] [pid] [level] text\n". LOG may be NULL: the default sink. */
void pn_log_line(struct pn_log *log, enum pn_log_level level, const char *fmt, ...) PN_PRINTF(3, 4);
#define pn_log_debug(log, ...)   pn_log_line(log, PN_LOG_DEBUG, __VA_ARGS__)
#define pn_log_info(log, ...)    pn_log_line(log, PN_LOG_INFO, __VA_ARGS__)
#define pn_log_warning(log, ...) pn_log_line(log, PN_LOG_WARNING, __VA_ARGS__)
#define pn_log_error(log, ...)   pn_log_line(log, PN_LOG_ERROR, __VA_ARGS__)

/* Appends LEN bytes that are one or more whole lines already (the request log). */
void pn_log_raw(struct pn_log *log, const char *lines, size_t len);
/* Writes what is pending. Loops over partial writes; what a full disk refuses is counted and said
 * with the next line that can be written. */
void pn_log_flush(struct pn_log *log);
/* The same right before _exit, also from a signal handler: when somebody else holds the lock it does
 * nothing, for nobody may be left to give it back; and it writes only what FD takes without waiting,
 * for a reader that stands still must not keep the process. */
void pn_log_flush_last(struct pn_log *log);
/* N bytes to FD in that manner, past every log. */
void pn_log_write_last(int fd, const char *p, size_t n);
/* After reopening (dup2 onto fd) nothing needs to be done; after fork the child calls this. */
void pn_log_after_fork_child(struct pn_log *log);

/* Escapes control bytes, quotes, backslashes and bytes >= 0x7f as \xNN into OUT (capacity CAP);
 * returns the length written; cuts when OUT is full (ends with "..." then). */
size_t pn_log_escape(char *out, size_t cap, struct pn_str in);
