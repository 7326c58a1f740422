/* SPDX-License-Identifier: Apache-2.0 */
/* loop.sock_recv() and its kin in C: an object that makes its system call when it is first stepped, and is over when that
 * had something; else it waits for the descriptor, once, and tries again. To Python it is a coroutine
 * (collections.abc.Coroutine): it can be awaited, and made a task of.
 *
 *   NEW --step: the call was made---------------------------------------------> OVER
 *    |                                                                           ^
 *    +--nothing there: watched, a future is yielded--> WAITING --ready: again----+
 *                                                        +--throw() (cancelled)--+
 *
 * Who waits stands in aio->sock_waits, which owns a reference. A wake may be stale: the call is tried again. What
 * is received is received when the task runs, so that a cancelled task has not taken anything.
 *
 * Debug mode, names that have to be looked up, other classes than socket.socket (ssl's), and a loop that is not bound yet: asyncio's own
 * coroutines do it (LoopCore's subclass has them as _slow_sock_recv and so on). */
#pragma once

#include "gateway/aio_loop.h"

/* The type, new, or NULL with an exception. */
PyObject *pn__sock_make_type(PyObject *module);

PyObject *pn__sock_recv(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *pn__sock_recv_into(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *pn__sock_sendall(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *pn__sock_accept(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *pn__sock_connect(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *pn__sock_recvfrom(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *pn__sock_recvfrom_into(PyObject *loop, PyObject *const *args, Py_ssize_t n,
                                 PyObject *names);
PyObject *pn__sock_sendto(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names);

int pn__sock_traverse(struct pn__aio *aio, visitproc visit, void *arg);
/* As pn__aio_fds_watch and its kin do it for descriptors. */
void pn__sock_unwatch_all(struct pn__aio *aio);
void pn__sock_watch_all(struct pn__aio *aio);
/* Nobody waits any more: moves them to DROPPED, whose references the caller lets go with pn__sock_let_go. */
void pn__sock_take_all(struct pn__aio *aio, struct pn_list *dropped);
void pn__sock_let_go(struct pn_list *dropped);
