# SPDX-License-Identifier: Apache-2.0
"""Runs Autobahn's fuzzing client (RFC 6455 and 7692) against a server, and judges its report.

    autobahn.py WSTEST SERVER FOLDER [CASES ...]

WSTEST and SERVER are the two commands, FOLDER gets the reports, one for each CASES, like 9.* or
"12.1.1 12.1.2". Without: all of 1 to 10, 12 and 13. SPEC_ARGS are further options of the server.
SPEC_JOBS (4) of them run at once against the one server: a case is mostly waiting for the other
side. A case that a busy machine did not let end in the time that Autobahn gives it is run once
more, by itself, and told. Ends non-zero unless each case passes (OK, NON-STRICT) or is
INFORMATIONAL, in its behaviour and in how it closes; UNIMPLEMENTED counts as a failure.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading

# The compressed ones take longest: in parts, and before the others, so that all jobs end together.
CASES = [f"12.{n}.*" for n in range(1, 6)] + [f"13.{n}.*" for n in range(1, 8)]
CASES += [f"{n}.*" for n in (9, 1, 2, 3, 4, 5, 6, 7, 10)]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
# Cases of each group that a whole run has, at least: none is left out in silence.
LEAST = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
LEAST |= {"12": 90, "13": 126}


def start(server, folder):
    """The server's process and its port, which it says in its log."""
    app = pathlib.Path(__file__).with_name("echo.py")
    more = shlex.split(os.environ.get("SPEC_ARGS", ""))
    command = [server, "--http-socket", "127.0.0.1:0", "--disable-logging", *more, str(app)]
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        print(line, end="")
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found and found[1] != "0":
            # What else it says must not fill the pipe.
            threading.Thread(
                target=lambda: print(process.stdout.read(), end=""), daemon=True
            ).start()
            return process, int(found[1])
    raise SystemExit("error: the server did not start")


def run(wstest, port, folder, cases):
    """Autobahn's results, by case, of one run of its client."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "outdir": str(folder),
        "servers": [{"agent": "pelton", "url": f"ws://127.0.0.1:{port}"}],
        "cases": cases.split(),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [wstest, "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    with (folder / "wstest.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    results = next(iter(json.loads((folder / "index.json").read_text()).values()))
    took_s = sum(result["duration"] for result in results.values()) / 1000
    print(f"  {cases}: {len(results)} cases, {took_s:.0f} s", flush=True)
    return results


def run_all(wstest, port, folder, groups):
    """As run, of all GROUPS of cases."""
    results = {}
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("SPEC_JOBS") or 4)) as pool:
        names = [re.sub(r"[^\w.]+", "-", group.replace("*", "all"))[:60] for group in groups]
        runs = [
            pool.submit(run, wstest, port, folder / name, group)
            for name, group in zip(names, groups, strict=True)
        ]
        for one in concurrent.futures.as_completed(runs):
            results |= one.result()
    return results


def out_of_time(report):
    """Whether a case's report says no more than that Autobahn did not wait any longer."""
    late = "wasServerConnectionDropTimeout", "wasCloseHandshakeTimeout", "wasOpenHandshakeTimeout"
    in_time = report["behavior"] in GOOD and not any(report[key] for key in late)
    return not in_time and (
        "did not finish within" in report["result"] or report["behavior"] in GOOD
    )


def late_cases(folder):
    """Those of all reports below FOLDER."""
    reports = [json.loads(path.read_text()) for path in folder.glob("*/pelton_case_*.json")]
    return sorted(report["id"] for report in reports if out_of_time(report))


def judge(results, whole):
    """Prints a summary of Autobahn's results; how many cases are not good."""
    groups = collections.defaultdict(collections.Counter)
    bad = []
    for case, result in results.items():
        groups[case.split(".")[0]][result["behavior"]] += 1
        if not {result["behavior"], result["behaviorClose"]} <= GOOD:
            bad.append(f"{case}: {result['behavior']}, close: {result['behaviorClose']}")
    for group in sorted(groups, key=int):
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(groups[group].items()))
        print(f"  {group:>3}.*  {counts}")
        if whole and groups[group].total() < LEAST[group]:
            bad.append(f"{group}.*: {groups[group].total()} cases, not {LEAST[group]}")
    if whole:
        bad += [f"{group}.*: no case was run" for group in LEAST if group not in groups]
    for line in bad:
        print(f"  not good: {line}")
    print(f"autobahn: {len(results)} cases, {len(bad)} not good")
    return len(bad)


def main():
    wstest, server, folder = (str(pathlib.Path(word).absolute()) for word in sys.argv[1:4])
    folder = pathlib.Path(folder)
    cases = sys.argv[4:]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    process, port = start(server, folder)
    try:
        results = run_all(wstest, port, folder, cases or CASES)
        for case in late_cases(folder):
            print(f"  {case} did not end in time: again")
            results |= run(wstest, port, folder / "again", case)
        if process.poll() is not None:
            raise SystemExit(f"error: the server ended with {process.returncode}")
        bad = judge(results, not cases)
    finally:
        process.terminate()
        status = process.wait(30)
    if status != 0:
        raise SystemExit(f"error: the server ended with {status}")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
