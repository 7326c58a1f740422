/* SPDX-License-Identifier: Apache-2.0 */
#include "io_probe.h"

#include <fcntl.h>
#include <unistd.h>

/* What fortified objects import: the headers declare them for those only. */
extern ssize_t __recv_chk(int, void *, size_t, size_t, int);
extern ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
extern ssize_t __read_chk(int, void *, size_t, size_t);
extern int __poll_chk(struct pollfd *, nfds_t, int, size_t);
extern int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);

extern struct io_calls io_probe;
__attribute__((visibility("default"))) struct io_calls io_probe = {
    .recv = recv,
    .recvfrom = recvfrom,
    .recvmsg = recvmsg,
    .recvmmsg = recvmmsg,
    .recv_chk = __recv_chk,
    .recvfrom_chk = __recvfrom_chk,
    .send = send,
    .sendto = sendto,
    .sendmsg = sendmsg,
    .sendmmsg = sendmmsg,
    .read = read,
    .readv = readv,
    .read_chk = __read_chk,
    .eventfd_read = eventfd_read,
    .eventfd_write = eventfd_write,
    .write = write,
    .writev = writev,
    .sendfile = sendfile,
    .sendfile64 = sendfile64,
    .splice = splice,
    .poll = poll,
    .ppoll = ppoll,
    .poll_chk = __poll_chk,
    .ppoll_chk = __ppoll_chk,
    .select = select,
    .pselect = pselect,
    .epoll_wait = epoll_wait,
    .epoll_pwait = epoll_pwait,
    .epoll_pwait2 = epoll_pwait2,
    .connect = connect,
    .accept = accept,
    .accept4 = accept4,
    .close = close,
    .dup2 = dup2,
    .dup3 = dup3,
    .close_range = close_range,
    .getaddrinfo = getaddrinfo,
    .getnameinfo = getnameinfo,
};
