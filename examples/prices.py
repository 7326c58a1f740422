# SPDX-License-Identifier: Apache-2.0
"""A slow HTTP service for the Flask and the Django program: what does item N cost?

python prices.py 8001      answers /N a tenth of a second later, any number of clients at once
"""

import asyncio
import sys

DELAY_S = 0.1


async def serve(reader, writer):
    while line := await reader.readline():
        while await reader.readline() not in (b"\r\n", b""):
            pass
        number = int(line.split()[1].lstrip(b"/"))
        await asyncio.sleep(DELAY_S)
        body = b'{"price": %d}' % (number * 100 + 99)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1000)
    await server.serve_forever()


asyncio.run(main())
