# SPDX-License-Identifier: Apache-2.0
"""As much of a MongoDB server as pymongo needs for its handshake, its monitors and find().

Debian has no MongoDB. What is looked at is how the driver waits: for its sockets, in its pool, for
its monitors. This answers OP_MSG with BSON by pymongo's own codec, and knows `hello`, `ping`,
`find` and `endSessions`; it stores nothing, and a find's answer waits at a gate.
"""

from __future__ import annotations

import socketserver
import struct
import threading

import bson
from slow import Gate

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
HELLO = {
    "isWritablePrimary": True,
    "ismaster": True,
    "helloOk": True,
    "maxBsonObjectSize": 16 << 20,
    "maxMessageSizeBytes": 48 << 20,
    "maxWriteBatchSize": 1000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "readOnly": False,
}


class MongoHandler(socketserver.StreamRequestHandler):
    server: MongoService

    def handle(self) -> None:
        while len(head := self.rfile.read(16)) == 16:
            length, number, _, kind = struct.unpack("<iiii", head)
            rest = self.rfile.read(length - 16)
            if kind == OP_QUERY:
                # flags, "admin.$cmd\0", skip, return, document
                at = rest.index(b"\0", 4) + 1 + 8
                answer = bson.encode(self.answer(bson.decode(rest[at:])))
                self.send(number, OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + answer)
            elif kind == OP_MSG:
                size = struct.unpack_from("<i", rest, 5)[0]
                answer = bson.encode(self.answer(bson.decode(rest[5 : 5 + size])))
                self.send(number, OP_MSG, struct.pack("<iB", 0, 0) + answer)

    def send(self, number: int, kind: int, rest: bytes) -> None:
        self.wfile.write(struct.pack("<iiii", 16 + len(rest), 0, number, kind) + rest)

    def answer(self, command: dict[str, object]) -> dict[str, object]:
        name = next(iter(command)).lower()
        if name in ("hello", "ismaster"):
            return {**HELLO, "ok": 1.0}
        if name == "find":
            wanted = command["filter"]["n"]
            self.server.gate.passed(wanted)
            rows = [{"_id": i, "n": wanted, "text": f"item {wanted}" * 50} for i in range(2000)]
            space = f"{command['$db']}.{command['find']}"
            return {"cursor": {"firstBatch": rows, "id": 0, "ns": space}, "ok": 1.0}
        known = name in ("ping", "endsessions")
        return {"ok": 1.0} if known else {"ok": 0.0, "errmsg": "no such command", "code": 59}


class MongoService(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MongoHandler)
        self.gate = Gate()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is the application's to complain about."""
