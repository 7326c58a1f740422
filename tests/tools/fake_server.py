# SPDX-License-Identifier: Apache-2.0
"""A tiny stand-in for the server, for the harness's own tests.

It takes the options that the harness adds, answers every request with "Hello World", and does one
thing wrong when FAKE names it: leak, alert, held, traceback, exit, child, daemon, deaf, report,
late.
"""

import os
import signal
import socket
import subprocess
import sys
import time

FAULT = os.environ.get("FAKE", "")
kept = []


def stop(number: int, frame: object) -> None:
    if FAULT == "deaf":
        return
    if FAULT == "report":
        with open("sanitizer.1", "w") as file:
            file.write("ERROR: AddressSanitizer: heap-use-after-free")
    sys.exit(3 if FAULT == "exit" else 0)


def misbehave() -> None:
    if FAULT == "leak":
        kept.append(os.pipe())
    elif FAULT == "alert":
        print("[2026-01-31 10:00:00 +0000] [1] [warning] something is odd", flush=True)
    elif FAULT == "held":
        text = "core 1 has kept the loop waiting for 150 ms; it is in\n  File ..."
        print(f"[2026-01-31 10:00:00 +0000] [1] [warning] {text}", flush=True)
    elif FAULT == "traceback":
        print("Traceback (most recent call last):", flush=True)
        print('  File "webapp.py", line 1, in <module>\nValueError: no', flush=True)
    elif FAULT == "child":
        subprocess.Popen(["sleep", "60"])
    elif FAULT == "daemon":
        subprocess.Popen(["sh", "-c", "setsid sleep 60 &"])


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    host, port = sys.argv[sys.argv.index("--http-socket") + 1].rsplit(":", 1)
    with socket.create_server((host, int(port))) as listener:
        if FAULT == "late":
            time.sleep(0.3)
        print(f"serving webapp.py on http://{host}:{port}", flush=True)
        while True:
            sock, _ = listener.accept()
            with sock:
                if sock.recv(65536):
                    misbehave()
                    sock.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                        b"Content-Length: 11\r\n\r\nHello World"
                    )


main()
