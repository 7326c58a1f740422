/* SPDX-License-Identifier: Apache-2.0 */
/* What a start makes before any application code runs, and what every process of the tree then
 * inherits: the settings, the log, the limits, the listeners.
 *
 * Lifecycle: pn__start_read -> pn__start_open -> (fork ...) -> pn__start_close, once in each process.
 * Nothing here knows Python. */
#pragma once

#include <sys/types.h>

#include "base/bounds.h"
#include "base/log.h"
#include "main/settings.h"
#include "main/trust.h"
#include "manager/exit_status.h"
#include "net/listener.h"

struct pn__start {
    const char *python; /* "CPython 3.11.2", for lines; borrowed */
    struct pn_settings settings;
    struct pn__trust trust;
    struct pn_log *log; /* descriptor 2; NULL before pn__start_open */
    struct pn_log *out; /* descriptor 1; the same as log where both are one file */
    int console_fd;     /* the stderr from before --logto, for errors of the start; -1: none */
    struct pn_listener *listeners[PN_LISTENERS_MAX]; /* owned; NULL when closed */
    size_t listener_count;
};

/* What to do next. */
enum pn__next {
    PN__NEXT_GO_ON = 0,
    PN__NEXT_END = 1, /* with the status that came along */
};

/* Reads the command line (ARGV without the program's name). --help and --version print and end.
 * Errors are said; START can be closed after any outcome. */
enum pn__next pn__start_read(struct pn__start *start, int argc, char *const *argv,
                             const char *python, int *status);
/* Log, directory, limits, listeners: in this order, so that all that goes wrong later is logged, and
 * that paths of sockets and applications are meant from --chdir on. */
enum pn__next pn__start_open(struct pn__start *start, int *status);

/* For those who ask whether a peer is one of our own proxies; CTX is the start. */
bool pn__start_is_trusted(void *ctx, const struct sockaddr *address, socklen_t len);

/* What a worker may take from the first signal to its last request and scheduled call. */
int64_t pn__start_grace_ns(const struct pn__start *start);

/* Errors of a start go to the log and, where --logto has taken stderr away, to the console too. */
void pn__start_error(const struct pn__start *start, const char *fmt, ...) PN_PRINTF(2, 3);
/* The server runs: the console is let go. */
void pn__start_done(struct pn__start *start);
/* Closes this process's listeners; the process that made a unix socket removes its file. */
void pn__start_close_listeners(struct pn__start *start);
/* Also fine when something failed half-way. The log goes last. */
void pn__start_close(struct pn__start *start);
