/* SPDX-License-Identifier: Apache-2.0 */
/* The seam below connections: how bytes get in and out of one peer, whatever lies between.
 *
 * Fillers: plain TCP and unix sockets (transport_plain.c), in-memory pipes of the simulation;
 * later TLS over OpenSSL, and PROXY protocol as a stage that reads its header and then hands
 * over. A transport never blocks and never knows loops, watches or time-outs: its owner
 * (net/conn.h) watches pn_transport.fd edge-triggered, and calls again after WANT_READ or
 * WANT_WRITE when an edge comes. Every TLS want ends here: a read that needs to write first
 * answers WANT_WRITE, and the owner just tries the read again when the socket is writable.
 *
 * Paper sketches of later fillers:
 *   TLS       readv: SSL_read_ex into iov[0]; SSL_ERROR_WANT_* become the results;
 *             pending: SSL_pending; shutdown: SSL_shutdown once, then the FIN;
 *             writev: gathers small vectors into one record;
 *             sendfile: SSL_sendfile with kTLS, else -ENOTSUP and the owner reads and writes.
 *             info: ALPN, SNI, peer certificate. handshake happens inside the first readv.
 *   HTTP/2    needs nothing new: one conn, one transport, several exchanges.
 *   PROXY     info is filled from its header before the first byte is passed up. */
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include "base/str.h"

enum pn_io {
    PN_IO_OK = 0,         /* *done bytes moved; readv: 0 bytes means the peer's end of data */
    PN_IO_WANT_READ = 1,  /* nothing moved; again when the fd is readable */
    PN_IO_WANT_WRITE = 2, /* nothing moved; again when the fd is writable */
    PN_IO_ERROR = 3,      /* the transport is broken: transport->error has the errno */
};

struct pn_transport;

struct pn_transport_ops {
    const char *name; /* "tcp", "unix", "tls", "sim": for logs */
    enum pn_io (*readv)(struct pn_transport *t, const struct iovec *iov, int count, size_t *done);
    enum pn_io (*writev)(struct pn_transport *t, const struct iovec *iov, int count, size_t *done);
    /* Sends up to N bytes of FILE_FD from *OFFSET on and advances it. PN_IO_ERROR with ENOTSUP
     * or EINVAL: not possible for this pair, read and write instead. OK with *done == 0: the
     * file ended early. */
    enum pn_io (*sendfile)(struct pn_transport *t, int file_fd, off_t *offset, size_t n,
                           size_t *done);
    /* Bytes that readv could give without the fd being readable (TLS). */
    size_t (*pending)(struct pn_transport *t);
    /* Ends our direction (FIN, close_notify). Reading goes on. WANT_* as above. */
    enum pn_io (*shutdown)(struct pn_transport *t);
    /* Closes the fd and frees what the transport owns; not the struct itself. Never blocks.
     * RESET: with RST. */
    void (*close)(struct pn_transport *t, bool reset);
    /* A readv that brings less than it was asked for has found the fd empty: the next bytes come
     * with an edge. True for sockets; never for what reads by records (TLS). */
    bool short_read_drains;
};

/* Embedded in its connection. */
struct pn_transport {
    const struct pn_transport_ops *ops;
    int fd;      /* what to watch; owned by the transport */
    int error;   /* errno of the last PN_IO_ERROR */
    void *state; /* the filler's own */
};

/* Takes FD (a connected, non-blocking stream socket) over. */
void pn_transport_plain_init(struct pn_transport *t, int fd, bool is_unix);
/* Any thread: this process has forked, so another one may hold the same sockets. From now on a close
 * says so to the peer before it closes, for the last close may be the child's, much later. */
void pn_transport_plain_forked(void);
