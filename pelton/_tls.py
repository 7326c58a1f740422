# SPDX-License-Identifier: Apache-2.0
"""The Python half of ``pelton.Loop``'s TLS transports: making the SSL object, and text for people.

The C half (aio_tls.c) derives from ``TlsBase``.
"""

import asyncio
from asyncio import constants, sslproto, transports
from asyncio.log import logger

try:
    import ssl
except ImportError:  # an interpreter without OpenSSL
    ssl = None

__all__ = ["TlsBase", "make_tls"]

# The methods of ssl's own class, which do nothing but call the C object's method of the same name:
# so that can be called instead, unless somebody has put others in their place.
_PASSED_ON = ("read", "write")
_own = {name: getattr(ssl.SSLObject, name, None) for name in _PASSED_ON} if ssl else {}


def _methods(sslobj):
    """How to read and write, and whether that is the C object."""
    core = getattr(sslobj, "_sslobj", None)
    if (
        type(core).__module__ == "_ssl"
        and getattr(sslobj, "__dict__", {}).keys() == {"_sslobj"}
        and all(getattr(type(sslobj), name) is method for name, method in _own.items())
        and all(method.__module__ == "ssl" for method in _own.values())
    ):
        return core.read, core.write, True
    return sslobj.read, sslobj.write, False


def _timeout(name, given, otherwise):
    if given is None:
        return otherwise
    if given <= 0:
        raise ValueError(f"{name} should be a positive number, got {given}")
    return given


def make_tls(
    loop,
    protocol,
    sslcontext,
    waiter,
    *,
    server_side=False,
    server_hostname=None,
    call_connection_made=True,
    ssl_handshake_timeout=None,
    ssl_shutdown_timeout=None,
):
    """A TLS transport that waits for its lower one's ``connection_made``."""
    if ssl is None:
        raise RuntimeError("Python has no ssl module here")
    handshake = _timeout(
        "ssl_handshake_timeout", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT
    )
    shutdown = _timeout(
        "ssl_shutdown_timeout", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT
    )
    if not sslcontext:
        sslcontext = sslproto._create_transport_context(server_side, server_hostname)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    sslobj = sslcontext.wrap_bio(
        incoming,
        outgoing,
        server_side=server_side,
        server_hostname=None if server_side else server_hostname or None,
    )
    return loop._new_tls(
        protocol,
        waiter,
        sslcontext,
        sslobj,
        incoming,
        outgoing,
        *_methods(sslobj),
        call_connection_made,
        handshake,
        shutdown,
    )


class TlsBase(transports._FlowControlMixin, transports.Transport):
    """Makes the C type an ``asyncio.Transport``."""

    __slots__ = ()

    max_size = 256 * 1024
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK
    _again = (ssl.SSLWantReadError, ssl.SSLSyscallError) if ssl else ()
    _ssl_error = ssl.SSLError if ssl else ()

    # C calls these.

    def _wrapped(self, milliseconds):
        """The handshake is over."""
        sslobj = self._sslobj
        peercert = sslobj.getpeercert()
        if self._loop.get_debug():
            logger.debug("%r: SSL handshake took %.1f ms", self, milliseconds)
        self._extra.update(
            peercert=peercert,
            cipher=sslobj.cipher(),
            compression=sslobj.compression(),
            ssl_object=sslobj,
        )

    def _handshake_text(self, exc):
        if isinstance(exc, ssl.CertificateError):
            return "SSL handshake failed on verifying the certificate"
        return "SSL handshake failed"

    def _debug_say(self, text):
        logger.debug(text, self)

    def _warn_closed(self):
        logger.warning("SSL connection is closed")

    def _warn_keep_open(self):
        logger.warning("returning true from eof_received() has no effect when using ssl")

    def _report(self, message, exc):
        self._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self}
        )

    def _say_fatal(self, message, exc):
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        elif not isinstance(exc, asyncio.CancelledError):
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self._transport,
                    "protocol": self,
                }
            )
