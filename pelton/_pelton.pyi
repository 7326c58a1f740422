# SPDX-License-Identifier: Apache-2.0
import io
from collections.abc import Sequence

version: str

def main(argv: Sequence[str], /) -> int: ...

# What stands in sys.stdout and sys.stderr while the server runs.
class LogStream(io.TextIOBase): ...
class LogBuffer(io.BufferedIOBase): ...

# What pelton.Loop adds to asyncio.SelectorEventLoop, which comes after it among its bases.
class LoopCore: ...
