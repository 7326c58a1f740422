# SPDX-License-Identifier: Apache-2.0
"""What call_later costs by itself: CPU time of 10,000 calls that are due later, less that of none.

On Pelton's own loop where it runs without a server, else on asyncio's. Prints "LOOP us=FIGURE".
"""

import asyncio
import time

COUNT = 10_000
DELAY_S = 0.5


def new_loop():
    try:
        import pelton

        return "pelton.Loop", pelton.Loop()
    except (ImportError, AttributeError, RuntimeError):
        return "asyncio", asyncio.new_event_loop()


def nothing():
    pass


def run(count):
    """CPU nanoseconds until COUNT calls were made and were due."""
    name, loop = new_loop()
    asyncio.set_event_loop(loop)
    start = time.process_time_ns()
    for _ in range(count):
        # As the program does it: the loop is looked up for each call.
        asyncio.get_event_loop_policy().get_event_loop().call_later(DELAY_S, nothing)
    loop.call_later(2 * DELAY_S, loop.stop)
    loop.run_forever()
    took = time.process_time_ns() - start
    loop.close()
    return name, took


run(100)
_, without = run(0)
name, took = run(COUNT)
print(f"{name} us={(took - without) / COUNT / 1000:.3f}")
