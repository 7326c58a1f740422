# SPDX-License-Identifier: Apache-2.0
"""The protocol that the tests of transports, TLS or not, share."""

from __future__ import annotations

import asyncio


class Seen(asyncio.Protocol):
    """Writes down what it hears of."""

    def __init__(self, keep_open=False):
        self.said = []
        self.data = b""
        self.keep_open = keep_open
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.said.append("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data

    def eof_received(self):
        self.said.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.said.append("pause")

    def resume_writing(self):
        self.said.append("resume")

    def connection_lost(self, exc):
        self.said.append("lost")
        self.lost.set_result(exc)
