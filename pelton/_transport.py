# SPDX-License-Identifier: Apache-2.0
"""The Python half of ``pelton.Loop``'s transports: what is written for people, and constants.

The C half (aio_transport.c) derives from it.
"""

from asyncio import constants, transports, trsock
from asyncio.log import logger

__all__ = ["TransportBase", "described"]


def described(sock, extra):
    """What ``get_extra_info`` tells of a socket; ``extra`` is added to, if there is one."""
    if extra is None:
        extra = {}
    extra["socket"] = trsock.TransportSocket(sock)
    try:
        extra["sockname"] = sock.getsockname()
    except OSError:
        extra["sockname"] = None
    if "peername" not in extra:
        try:
            extra["peername"] = sock.getpeername()
        except OSError:
            extra["peername"] = None
    return extra


class TransportBase(transports._FlowControlMixin, transports.Transport):
    """Makes the C type an ``asyncio.Transport``."""

    __slots__ = ()

    max_size = 256 * 1024
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    def __repr__(self):
        info = [type(self).__name__]
        if self._sock is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        loop = self._loop
        if loop is not None and not loop.is_closed():
            reader, writer = loop._watched(self._sock_fd) or (None, None)
            info.append("read=polling" if reader else "read=idle")
            state = "polling" if writer else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(info)}>"

    def _fatal_error(self, exc, message="Fatal error on transport"):
        self._say_fatal(message, exc)
        self._force_close(exc)

    # C calls these.

    def _debug_say(self, text):
        logger.debug(text, self)

    def _warn_lost(self):
        logger.warning("socket.send() raised exception.")

    def _report(self, message, exc):
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": exc,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _say_fatal(self, message, exc):
        if not isinstance(exc, OSError):
            self._report(message, exc)
        elif self._loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=exc)
