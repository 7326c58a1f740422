/* SPDX-License-Identifier: Apache-2.0 */
/* The redirected calls on descriptors and names, with libc's own prototypes (inside the room only). */
#pragma once

#include <netdb.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "wait/gate.h"

/* call_recv.c */
ssize_t pn__call_recv(int fd, void *buf, size_t size, int flags);
ssize_t pn__call_recvfrom(int fd, void *buf, size_t size, int flags, struct sockaddr *from,
                          socklen_t *from_size);
ssize_t pn__call_recvmsg(int fd, struct msghdr *message, int flags);
int pn__call_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                      struct timespec *timeout);
ssize_t pn__call___recv_chk(int fd, void *buf, size_t size, size_t room, int flags);
ssize_t pn__call___recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags,
                                struct sockaddr *from, socklen_t *from_size);
/* For readv: a socket's part of it. */
ssize_t pn__receive(struct pn_core *core, int fd, struct msghdr *message, int flags);

/* call_send.c */
ssize_t pn__call_send(int fd, const void *buf, size_t size, int flags);
ssize_t pn__call_sendto(int fd, const void *buf, size_t size, int flags, const struct sockaddr *to,
                        socklen_t to_size);
ssize_t pn__call_sendmsg(int fd, const struct msghdr *message, int flags);
int pn__call_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
/* For write and writev. */
ssize_t pn__transmit(struct pn_core *core, int fd, const struct msghdr *message, int flags);
ssize_t pn__transmit_bytes(struct pn_core *core, int fd, const void *buf, size_t size, int flags);

/* call_file.c */
ssize_t pn__call_read(int fd, void *buf, size_t size);
ssize_t pn__call_readv(int fd, const struct iovec *parts, int count);
ssize_t pn__call___read_chk(int fd, void *buf, size_t size, size_t room);
int pn__call_eventfd_read(int fd, eventfd_t *value);
int pn__call_eventfd_write(int fd, eventfd_t value);
ssize_t pn__call_write(int fd, const void *buf, size_t size);
ssize_t pn__call_writev(int fd, const struct iovec *parts, int count);
ssize_t pn__call_sendfile(int out, int in, off_t *offset, size_t count);
ssize_t pn__call_splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size,
                        unsigned flags);

/* call_poll.c */
int pn__call_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int pn__call_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                   const sigset_t *mask);
int pn__call___poll_chk(struct pollfd *fds, nfds_t count, int timeout_ms, size_t room);
int pn__call___ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                         const sigset_t *mask, size_t room);
int pn__call_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout_ms);
int pn__call_epoll_pwait(int epoll, struct epoll_event *events, int max, int timeout_ms,
                         const sigset_t *mask);
int pn__call_epoll_pwait2(int epoll, struct epoll_event *events, int max,
                          const struct timespec *timeout, const sigset_t *mask);
/* For select: until one of FDS (COUNT of them) may be ready. IDLE looks in a row have found nothing: a wait that says ready
 * each time (a file that epoll refuses; an error of which select knows nothing) is paused between them.
 * enum pn_wait or negative errno. */
int pn__poll_park(struct pn_core *core, const struct pollfd *fds, nfds_t count, int64_t deadline_ns,
                  unsigned idle);

/* call_select.c */
int pn__call_select(int count, fd_set *readable, fd_set *writable, fd_set *special,
                    struct timeval *timeout);
int pn__call_pselect(int count, fd_set *readable, fd_set *writable, fd_set *special,
                     const struct timespec *timeout, const sigset_t *mask);

/* call_connect.c */
int pn__call_connect(int fd, const struct sockaddr *address, socklen_t size);
int pn__call_accept(int fd, struct sockaddr *address, socklen_t *size);
int pn__call_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);

/* call_close.c: waking calls, in every thread */
int pn__call_close(int fd);
int pn__call_dup2(int old, int new);
int pn__call_dup3(int old, int new, int flags);
int pn__call_close_range(unsigned first, unsigned last, int flags);

/* call_resolve.c */
int pn__call_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                         struct addrinfo **result);
int pn__call_getnameinfo(const struct sockaddr *address, socklen_t size, char *host,
                         socklen_t host_size, char *service, socklen_t service_size, int flags);
void pn__resolve_uninstall(void);
void pn__resolve_after_fork_child(void);
