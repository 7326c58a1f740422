# SPDX-License-Identifier: Apache-2.0
"""Options of uWSGI's that real configurations use: each is built, accepted, or refused by name."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NAMES = [
    line
    for line in Path(__file__).with_name("uwsgi_options.txt").read_text().splitlines()
    if not line.startswith("#")
]


def dashed(name: str) -> str:
    return f"-{name}" if len(name) == 1 else f"--{name}"


def verdict(run: Run, name: str) -> str:
    """What the command line says of an option when it stands there without a value: "refused",
    "value" (it is known and wants one), "flag" (it is known, and the application is missed)."""
    result = run(dashed(name))
    said = result.stderr
    assert result.returncode == 2, (name, result)
    assert said.startswith("pelton: error: "), (name, said)
    assert said.count("\n") == 1, (name, said)
    named = re.search(rf"option '{dashed(name)}'", said)
    if named and re.search(r" is not (built yet|supported): \w", said):
        return "refused"
    if named and " needs a value: " in said:
        return "value"
    if said.startswith("pelton: error: no application is named: "):
        return "flag"
    raise AssertionError(f"{name}: {said}")


def test_every_option_of_uwsgi(run_pelton: Run) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(NAMES, pool.map(lambda n: verdict(run_pelton, n), NAMES), strict=True))
    listed = run_pelton("--help-all").stdout
    for name, what in found.items():
        assert re.search(rf"(?<![\w-]){dashed(name)}(?![\w-])", listed) or what == "refused", name
    # What the first programs' command lines and the usual configurations need is there.
    served = {name for name, what in found.items() if what != "refused"}
    assert served >= {
        *("master", "processes", "workers", "threads", "module", "wsgi-file", "callable"),
        *("chdir", "virtualenv", "pythonpath", "http-socket", "chmod-socket", "listen", "vacuum"),
        *("buffer-size", "logto", "disable-logging", "async", "asyncio", "greenlet", "ugreen"),
        *("plugins", "need-app", "enable-threads", "thunder-lock", "single-interpreter"),
    }
    # What would change how requests are answered is not among the options that do nothing.
    refused = {name for name, what in found.items() if what == "refused"}
    assert refused >= {
        *("socket", "http", "https", "uid", "gid", "chroot", "harakiri", "max-requests", "mount"),
        *("static-map", "route", "add-header", "daemonize", "env", "ini", "emperor", "gevent"),
    }


def test_accepted_options_say_why_there_is_nothing_to_do(run_pelton: Run) -> None:
    """Each option that is accepted without effect stands in --help-all with its reason."""
    text = run_pelton("--help-all").stdout
    section = text.partition("Accepted, with nothing to do")[2]
    options = re.findall(r"^ +(--[a-z-]+)[^\n]*\n?(?: {10,}\S[^\n]*)?", section, re.MULTILINE)
    assert {"--need-app", "--strict", "--thunder-lock", "--vacuum", "--die-on-term"} <= {*options}


def test_a_wrong_name_names_the_nearest(run_pelton: Run) -> None:
    for wrong, right in (
        ("--proceses", "--processes"),
        ("--vaccum", "--vacuum"),
        ("--http-soket", "--http-socket"),
        ("--process", "--processes"),
    ):
        result = run_pelton(wrong)
        assert result.returncode == 2
        assert f"unknown option '{wrong}'" in result.stderr
        assert f"'{right}'" in result.stderr, result.stderr


def test_a_bad_value_is_named(run_pelton: Run) -> None:
    for option, value in (
        ("--processes", "two"),
        ("--processes", "0"),
        ("--processes", "5 ; comment"),
        ("--threads", "1.5"),
        ("--threads", "-1"),
        ("--async", "99999999"),
        ("--buffer-size", "10x"),
        ("--http-keepalive=", "soon"),
        ("--chmod-socket=", "999"),
        ("--http-socket", "http://127.0.0.1:80"),
        ("--http-socket", "127.0.0.1:99999"),
        ("--log-level", "loud"),
    ):
        args = [option + value] if option.endswith("=") else [option, value]
        result = run_pelton(*args, "webapp:application")
        assert result.returncode == 2, (option, value, result)
        assert option.rstrip("=") in result.stderr, result.stderr
        assert value in result.stderr, result.stderr


def test_options_that_exclude_each_other(run_pelton: Run) -> None:
    for args in (("--threads", "4", "--async", "4"), ("--threads", "4", "--asyncio", "4")):
        result = run_pelton(*args, "webapp:application")
        assert result.returncode == 2
        assert args[0] in result.stderr
        assert args[2] in result.stderr
