/* SPDX-License-Identifier: Apache-2.0 */
/* What a server of loop.create_server() or create_unix_server() does when its socket is readable, in C: accepts all that
 * wait, up to its backlog, and makes a protocol and a transport for each, in a copy of the server's context.
 *
 * asyncio does it in a task for each, which waits until connection_made() was called. Here the factory is called at once;
 * connection_made() still comes in the next turn.
 *
 * TLS, debug mode, what only looks like a socket, and a loop whose class makes its own transports: asyncio's own
 * _accept_connection() does it (see pelton/_loop.py). Errors, but that nobody is there any more: _accept_failed(). */
#pragma once

#include "gateway/aio_loop.h"

/* loop._accept(protocol_factory, sock, server, backlog, family, proto): FAMILY and PROTO are sock's, AF_INET, AF_INET6 or
 * AF_UNIX. None, or NULL with SystemExit, KeyboardInterrupt, or what asyncio's own raises. */
PyObject *pn__aio_accept(PyObject *loop, PyObject *const *args, Py_ssize_t n);
