/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and listening sockets.
 *
 * An address is written HOST:PORT, :PORT, *:PORT, [IPV6]:PORT, PORT alone, unix:PATH, a PATH
 * with a slash, @NAME (abstract), or fd://N (inherited). Without a host it is 0.0.0.0, every
 * IPv4 address, as uWSGI has it; [::]:PORT takes IPv6 and IPv4 clients. Port 0 lets the kernel
 * choose. A listener is opened once by the process that starts (before it forks), and watched by
 * each worker's loop. */
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "base/list.h"
#include "loop/loop.h"

enum pn_address_kind {
    PN_ADDRESS_INET = 0,
    PN_ADDRESS_UNIX = 1,
    PN_ADDRESS_ABSTRACT = 2,
    PN_ADDRESS_FD = 3,
};

struct pn_address {
    enum pn_address_kind kind;
    int fd; /* PN_ADDRESS_FD */
    struct sockaddr_storage storage;
    socklen_t len;
    char text[128]; /* canonical, for logs: "127.0.0.1:8000", "unix:/run/x.sock" */
};

/* Parses TEXT; names are resolved (getaddrinfo, first answer). 0, or negative with a sentence in
 * ERR that names the address and what is wrong. */
int pn_address_parse(const char *text, struct pn_address *out, char *err, size_t err_size);

struct pn_listener_config {
    int backlog; /* 0: PN_LISTEN_BACKLOG_DEFAULT or somaxconn, whichever is less */
    bool reuse_port;
    bool defer_accept; /* TCP_DEFER_ACCEPT: the request is there when accept returns */
    bool set_mode;     /* unix: chmod to mode */
    mode_t mode;
    const char *owner; /* unix: "user[:group]", NULL: as created */
};

struct pn_listener;

/* Binds and listens. A stale unix socket file (nobody accepts) is replaced; one in use, and
 * anything that is not a socket, is an error. fd://N is checked (stream socket, listening).
 * Returns 0 and *OUT, or negative errno with a sentence in ERR that says what to do. */
int pn_listener_open(const struct pn_address *address, const struct pn_listener_config *config,
                     struct pn_listener **out, char *err, size_t err_size);
int pn_listener_fd(const struct pn_listener *l);
/* The bound address as text: with the real port where 0 was asked for. */
const char *pn_listener_text(const struct pn_listener *l);
bool pn_listener_is_unix(const struct pn_listener *l);
uint16_t pn_listener_port(const struct pn_listener *l);
/* Host part for SERVER_NAME. */
const char *pn_listener_host(const struct pn_listener *l);
/* UNLINK: remove our unix socket file (the process that made it, if it is still ours). Frees. */
void pn_listener_close(struct pn_listener *l, bool unlink_file);

/* --- Accepting, in one worker --- */

struct pn_acceptor;
struct pn_accepted {
    int fd; /* owned by the receiver, non-blocking, close-on-exec */
    struct pn_listener *listener;
    struct sockaddr_storage peer;
    socklen_t peer_len;
};
/* Registers the listeners (EPOLLEXCLUSIVE) and the ACCEPT phase. ON_ACCEPT gets each new
 * connection, at most PN_TURN_ACCEPTS_MAX a turn. EMFILE, ENFILE, ENOBUFS, ENOMEM: said once,
 * accepting rests PN_ACCEPT_BACKOFF_MS. Borrows the listeners. One acceptor a loop. Aborts
 * without memory; NULL with errno set when a listener cannot be watched. ON_ACCEPT may give the
 * loop away. */
struct pn_acceptor *pn_acceptor_create(struct pn_loop *loop, struct pn_listener **listeners,
                                       size_t count,
                                       void (*on_accept)(void *ctx, const struct pn_accepted *a),
                                       void *ctx);
/* Stops watching; connections that wait in the backlog are left to other workers. DRAIN (the
 * last worker of a stopping server): what is queued already is still accepted, by the loop's
 * next turns, as long as pn_acceptor_pending says so, which it does for PN_ACCEPT_DRAIN_MAX
 * connections at most. */
void pn_acceptor_stop(struct pn_acceptor *a, bool drain);
bool pn_acceptor_pending(const struct pn_acceptor *a);
void pn_acceptor_destroy(struct pn_acceptor *a);
