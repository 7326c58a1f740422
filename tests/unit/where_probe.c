/* SPDX-License-Identifier: Apache-2.0 */
/* A library that blocks, or computes: test_wait_where looks where a thread in it is. */
#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
EXPORT int where_probe_poll(int fd);
EXPORT int where_probe_read(int fd);
EXPORT void where_probe_spin(const atomic_bool *end);

/* Not in tail position: the call's return address is to be on the stack. */
int where_probe_poll(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc = poll(&p, 1, -1);
    return rc == 1 ? p.revents : -1;
}

int where_probe_read(int fd)
{
    char byte;
    ssize_t n = read(fd, &byte, 1);
    return n == 1 ? byte : -1;
}

void where_probe_spin(const atomic_bool *end)
{
    while (!atomic_load(end))
        ;
}
