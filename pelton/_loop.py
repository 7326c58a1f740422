# SPDX-License-Identifier: Apache-2.0
"""``pelton.Loop``, an asyncio event loop whose hot half is C.

``LoopCore`` (C) has callbacks, timers and descriptors, and the transports of stream sockets;
everything else is asyncio's own: ssl, datagrams, pipes and subprocesses work as in
``asyncio.SelectorEventLoop``. What is here is the seam between the two, and what is too rare to
be in C.
"""

import asyncio
import errno
import selectors
import socket
import sys
import threading
import weakref
from asyncio import base_events, constants, format_helpers, trsock

from pelton._pelton import LoopCore
from pelton._tls import TlsBase, make_tls, ssl
from pelton._transport import TransportBase, described

__all__ = ["Loop"]

_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


def _family_of(host):
    """Of a numeric address; None: it has to be looked up."""
    if type(host) is not str or not (host[-1:].isdigit() or ":" in host):
        return None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return None
    return family


_ACCEPTED = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}

_source_arguments = format_helpers._format_callback_source.__kwdefaults__ or {}


def _call_text(handle):
    """The callback of a handle, its arguments and where it is defined."""
    if "debug" in _source_arguments:  # newer versions show arguments in debug mode only
        return format_helpers._format_callback_source(
            handle._callback, handle._args, debug=handle._loop.get_debug()
        )
    return format_helpers._format_callback_source(handle._callback, handle._args)


class _Watched(selectors.BaseSelector):
    """What ``loop._selector`` is: a view of the descriptors that the loop watches.

    asyncio's transports look there for their ``repr``. Nothing can be changed through it.
    """

    def __init__(self, loop):
        self._loop = loop

    def _key(self, fileobj, reader, writer):
        mask = (selectors.EVENT_READ if reader else 0) | (selectors.EVENT_WRITE if writer else 0)
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return selectors.SelectorKey(fileobj, fd, mask, (reader, writer))

    def get_key(self, fileobj):
        found = self._loop._watched(fileobj) if self._loop is not None else None
        if found is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return self._key(fileobj, *found)

    def get_map(self):
        rows = self._loop._watched_all() if self._loop is not None else ()
        return {fd: self._key(fd, reader, writer) for fd, reader, writer in rows}

    def close(self):
        self._loop = None

    def register(self, fileobj, events, data=None):
        raise NotImplementedError("use the loop's add_reader() and add_writer()")

    unregister = modify = select = register


class _Transports(weakref.WeakValueDictionary):
    """What ``loop._transports`` is: by descriptor, those in C and asyncio's own.

    asyncio looks whether a descriptor is a transport's, and takes one out while it sends a file.
    """

    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def __getitem__(self, fd):
        found = self._loop._transport_of(fd) if self._loop is not None else None
        return super().__getitem__(fd) if found is None else found

    def __setitem__(self, fd, transport):
        if self._loop is not None and type(transport) is self._loop._Transport:
            transport._enter_table()
        else:
            super().__setitem__(fd, transport)

    def __delitem__(self, fd):
        found = self._loop._transport_of(fd) if self._loop is not None else None
        if found is None:
            super().__delitem__(fd)
        else:
            found._leave_table()

    def get(self, fd, default=None):
        found = self._loop._transport_of(fd) if self._loop is not None else None
        return super().get(fd, default) if found is None else found

    def __contains__(self, fd):
        return self.get(fd) is not None


class Loop(LoopCore, asyncio.SelectorEventLoop):
    """An asyncio event loop in C: ``asyncio.run(main(), loop_factory=pelton.Loop)``."""

    _Transport = LoopCore._make_transport_type(TransportBase)
    _TlsTransport = LoopCore._make_tls_type(TlsBase)
    _BufferedProtocol = asyncio.BufferedProtocol
    _Future = asyncio.Future
    _TransportSocket = trsock.TransportSocket
    _socket = socket.socket

    # What C leaves alone: see aio_sock.h.
    _slow_sock_recv = asyncio.SelectorEventLoop.sock_recv
    _slow_sock_recv_into = asyncio.SelectorEventLoop.sock_recv_into
    _slow_sock_sendall = asyncio.SelectorEventLoop.sock_sendall
    _slow_sock_accept = asyncio.SelectorEventLoop.sock_accept
    _slow_sock_connect = asyncio.SelectorEventLoop.sock_connect
    _slow_sock_recvfrom = asyncio.SelectorEventLoop.sock_recvfrom
    _slow_sock_recvfrom_into = asyncio.SelectorEventLoop.sock_recvfrom_into
    _slow_sock_sendto = asyncio.SelectorEventLoop.sock_sendto

    def __init__(self):
        self._attach()
        super().__init__(_Watched(self))
        self._transports = _Transports(self)

    def _attach(self):
        self._open()

    def close(self):
        """Close the loop. What is scheduled is dropped; the loop must not be running."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        try:
            super().close()
        finally:
            self._transports._loop = None
            self._release()

    # The self-pipe is for signals only, since C has its own way to wake the loop: made when the
    # first signal handler is.

    def _make_self_pipe(self):
        self._ssock = self._csock = None

    def _close_self_pipe(self):
        if self._csock is not None:
            super()._close_self_pipe()

    def add_signal_handler(self, sig, callback, *args):
        """Call callback(*args) on the loop when the process gets the signal."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signal handlers can be set in the main thread only")
        self._check_closed()
        if self._csock is None:
            super()._make_self_pipe()
        super().add_signal_handler(sig, callback, *args)

    async def create_connection(self, protocol_factory, host=None, port=None, **options):
        """Connect to a host and port, or take a connected socket; a transport and a protocol."""
        family = _family_of(host) if type(port) is int and not options else None
        # In asyncio, by whoever wants to see its calls.
        replaced = base_events.socket is not socket
        if family is None or replaced or self.get_debug():
            return await super().create_connection(protocol_factory, host, port, **options)
        sock = socket.socket(family, _STREAM, socket.IPPROTO_TCP)
        try:
            await self.sock_connect(sock, (host, port))
            protocol = protocol_factory()
            waiter = self.create_future()
            transport = self._make_socket_transport(sock, protocol, waiter)
        except BaseException:
            sock.close()
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    # Servers: see aio_accept.h.

    def _start_serving(
        self, protocol_factory, sock, sslcontext=None, server=None, backlog=100, *more, **named
    ):
        makes = type(self)._make_socket_transport
        plain = sslcontext is None and type(sock) is socket.socket
        if plain and makes is Loop._make_socket_transport and sock.family in _ACCEPTED:
            family = int(sock.family)
            self._add_reader(
                sock.fileno(),
                self._accept,
                protocol_factory,
                sock,
                server,
                backlog,
                family,
                sock.proto,
            )
        else:
            super()._start_serving(
                protocol_factory, sock, sslcontext, server, backlog, *more, **named
            )

    def _accept_failed(self, exc, protocol_factory, sock, server, backlog):
        """Without descriptors or memory the server rests for a while; C calls it."""
        if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            raise exc
        self.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": exc,
                "socket": trsock.TransportSocket(sock),
            }
        )
        self._remove_reader(sock.fileno())

        def go_on():
            if sock.fileno() >= 0:  # it was not closed meanwhile
                self._start_serving(protocol_factory, sock, None, server, backlog)

        self.call_later(constants.ACCEPT_RETRY_DELAY, go_on)

    # Transports of stream sockets. What only looks like a socket brings methods of its own, which
    # asyncio's own transport calls.

    def _ensure_fd_no_transport(self, fd):
        if type(fd) is socket.socket and self._transports.get(fd.fileno()) is None:
            return  # as it is nearly always; asyncio's own way is by an exception
        super()._ensure_fd_no_transport(fd)

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None):
        if not issubclass(type(sock), socket.socket):
            return super()._make_socket_transport(
                sock, protocol, waiter, extra=extra, server=server
            )
        self._ensure_fd_no_transport(sock)
        return self._new_transport(sock, protocol, waiter, described(sock, extra), server)

    def _make_ssl_transport(
        self,
        rawsock,
        protocol,
        sslcontext,
        waiter=None,
        *,
        server_side=False,
        server_hostname=None,
        extra=None,
        server=None,
        **timeouts,
    ):
        if not issubclass(type(rawsock), socket.socket):
            return super()._make_ssl_transport(
                rawsock,
                protocol,
                sslcontext,
                waiter,
                server_side=server_side,
                server_hostname=server_hostname,
                extra=extra,
                server=server,
                **timeouts,
            )
        self._ensure_fd_no_transport(rawsock)
        tls = make_tls(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            **timeouts,
        )
        self._new_transport(rawsock, tls, None, described(rawsock, extra), server)
        return tls

    async def start_tls(
        self,
        transport,
        protocol,
        sslcontext,
        *,
        server_side=False,
        server_hostname=None,
        **timeouts,
    ):
        """Go on with TLS on a transport, for the protocol; returns the new transport."""
        options = {"server_side": server_side, "server_hostname": server_hostname, **timeouts}
        ours = type(transport) is self._Transport and ssl is not None
        if not ours or not isinstance(sslcontext, ssl.SSLContext):
            return await super().start_tls(transport, protocol, sslcontext, **options)
        over = self.create_future()
        tls = make_tls(self, protocol, sslcontext, over, call_connection_made=False, **options)
        transport.pause_reading()  # what comes is for the new protocol, after connection_made()
        transport.set_protocol(tls)
        calls = [
            self.call_soon(tls.connection_made, transport),
            self.call_soon(transport.resume_reading),
        ]
        try:
            await over
        except BaseException:
            transport.close()
            for call in calls:
                call.cancel()
            raise
        return tls

    # C calls these; the handle is its own, not asyncio.Handle.

    def _handle_source(self):
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        return format_helpers.extract_stack(frame)

    def _handle_repr(self, handle):
        info = [type(handle).__name__]
        if handle._cancelled:
            info.append("cancelled")
        if hasattr(handle, "when"):
            info.append(f"when={handle.when()}")
        if handle._callback is not None:
            info.append(_call_text(handle))
        if handle._source_traceback:
            frame = handle._source_traceback[-1]
            info.append(f"created at {frame[0]}:{frame[1]}")
        return f"<{' '.join(info)}>"

    def _handle_failed(self, handle, exc):
        context = {
            "message": f"Exception in callback {_call_text(handle)}",
            "exception": exc,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _handle_ran(self, handle, seconds):
        """After each callback in debug mode."""
        if seconds >= self.slow_callback_duration:
            base_events.logger.warning(
                "Executing %s took %.3f seconds", base_events._format_handle(handle), seconds
            )


Loop.__module__ = "pelton"
