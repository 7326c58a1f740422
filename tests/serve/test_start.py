# SPDX-License-Identifier: Apache-2.0
"""Every way to name an application and an address, and what a start that fails says.

Exit statuses are those of docs/processes.md: 2 for an option, 3 for the application, 4 for an
address.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SLOW, Server, free_port, server_command, wait_until

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"application"]
"""

MANY = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"application"]

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"app"]

def create():
    return app

class Site:
    other = staticmethod(app)
"""

Serve = Callable[..., Server]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


# --- Naming the application -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["--wsgi-file", "site.py"], "application"),
        (["--file", "site.py"], "application"),
        (["site.py"], "application"),
        (["./site.py:app"], "app"),
        (["--wsgi-file", "site.py", "--callable", "app"], "app"),
        (["many"], "application"),
        (["many:app"], "app"),
        (["many:create()"], "app"),
        (["many:Site.other"], "app"),
        (["--module", "many:create", "--factory"], "app"),
        (["--module", "many"], "application"),
        (["--wsgi", "many:app"], "app"),
        (["-w", "many:app"], "app"),
        (["-w", "package.inner:app"], "app"),
        (["--module", "many", "--callable", "create()"], "app"),
    ],
    ids=" ".join,
)
def test_names_of_an_application(serve: Serve, args: list[str], answer: str) -> None:
    files = {"site.py": MANY, "many.py": MANY, "package/__init__.py": "", "package/inner.py": MANY}
    server = serve(*args, files=files)
    assert server.get().body.decode() == answer


def test_app_is_found_without_application(serve: Serve) -> None:
    server = serve("--wsgi-file", "one.py", files={"one.py": APP.replace("application(", "app(")})
    assert server.get().body == b"application"


def test_python_m_pelton(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pelton", "--version"],
        cwd=tmp_path,
        env=Server(tmp_path, listen=False).environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert re.fullmatch(r"pelton \d+\.\d+\.\d+ \(CPython 3\.\d+\.\d+\S*\)\n", done.stdout)


def test_version_and_help(run_pelton: Run) -> None:
    assert run_pelton("--version").stdout.startswith("pelton ")
    usual, everything = run_pelton("--help"), run_pelton("--help-all")
    assert usual.returncode == everything.returncode == 0
    assert "--http-socket" in usual.stdout
    assert "--thunder-lock" not in usual.stdout
    assert "--thunder-lock" in everything.stdout


@pytest.mark.parametrize("option", ["--version", "--help", "--help-all"])
def test_help_that_cannot_be_written_is_no_success(option: str, tmp_path: Path) -> None:
    env = Server(tmp_path, listen=False).environment()
    with open("/dev/full", "w") as full:
        done = subprocess.run([*server_command(), option], stdout=full, env=env, check=False)
    assert done.returncode == 1


def run_by_shell(script: str, tmp_path: Path, *args: str) -> subprocess.Popen[bytes]:
    """SCRIPT ends in an exec of "$@", which is the server; the log is pelton.log in TMP_PATH."""
    write(tmp_path, "webapp.py", APP)
    command = [*server_command(), "--bind", "127.0.0.1:0", "--logto", "pelton.log", *args]
    server = subprocess.Popen(
        ["/bin/bash", "-c", script, "bash", *command, "webapp.py"],
        cwd=tmp_path,
        env=Server(tmp_path, listen=False).environment(),
    )
    log = tmp_path / "pelton.log"
    wait_until(lambda: log.exists() and "serving" in log.read_text(), 20 * SLOW)
    return server


def test_closed_standard_descriptors(tmp_path: Path) -> None:
    """None of them may become a listener, which an application's print would then write to."""
    server = run_by_shell('exec "$@" <&- >&- 2>&-', tmp_path)
    try:
        fds = Path(f"/proc/{server.pid}/fd")
        assert os.readlink(fds / "0") == "/dev/null"
        assert [os.readlink(fds / fd) for fd in "12"] == [str(tmp_path / "pelton.log")] * 2
    finally:
        server.terminate()
        assert server.wait(10 * SLOW) == 0


def test_the_descriptor_limit_is_raised(tmp_path: Path) -> None:
    server = run_by_shell('ulimit -Sn 64 && exec "$@"', tmp_path)
    try:
        limits = Path(f"/proc/{server.pid}/limits").read_text()
        soft, hard = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()
        assert soft == hard != "64"
        assert "descriptors" not in (tmp_path / "pelton.log").read_text()
    finally:
        server.terminate()
        assert server.wait(10 * SLOW) == 0


def test_a_descriptor_limit_that_is_too_low_is_said(tmp_path: Path) -> None:
    server = run_by_shell('ulimit -n 128 && exec "$@"', tmp_path, "--async", "1000")
    server.terminate()
    assert server.wait(10 * SLOW) == 0
    assert re.search(
        r"\[warning\] 1000 requests at once need about \d+ descriptors, and the limit is 128: ",
        (tmp_path / "pelton.log").read_text(),
    )


def test_a_file_is_a_module_of_its_own(serve: Serve) -> None:
    """__name__ as in uWSGI, __file__ absolute, neighbours importable, classes picklable."""
    server = serve(
        "--wsgi-file",
        "sub/page.py",
        files={
            "sub/neighbour.py": "VALUE = 'next door'\n",
            "sub/page.py": """
import os, pickle, sys
import neighbour

class Thing:
    pass

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    same = type(pickle.loads(pickle.dumps(Thing()))) is Thing
    facts = [__name__, str(os.path.isabs(__file__)), neighbour.VALUE, str(same),
             str(sys.modules[__name__].Thing is Thing)]
    return ["|".join(facts).encode()]
""",
        },
    )
    assert server.get().body == b"uwsgi_file_sub_page|True|next door|True|True"


def test_chdir_and_pythonpath(serve: Serve) -> None:
    files = {
        "here/page.py": """
import os, lib
def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.path.basename(os.getcwd())} {lib.NAME}".encode()]
""",
        "libs/one/lib.py": "NAME = 'one'\n",
        "libs/two/lib.py": "NAME = 'two'\n",
    }
    server = serve(
        "--chdir", "here", "--pythonpath", "../libs/one", "--pythonpath", "../libs/two",
        "--module", "page", files=files,
    )  # fmt: skip
    assert server.get().body == b"here one"


# --- Virtual environments ---------------------------------------------------------------------


def make_venv(folder: Path, version: str = "") -> Path:
    """What a virtual environment looks like, with one package in it."""
    python = version or f"{sys.version_info[0]}.{sys.version_info[1]}"
    write(folder, "venv/pyvenv.cfg", "home = /usr/bin\n")
    packages = f"venv/lib/python{python}/site-packages"
    write(folder, f"{packages}/onlyhere.py", "NAME = 'from the venv'\n")
    write(folder, f"{packages}/more.pth", "extra\n")
    write(folder, f"{packages}/extra/bythepath.py", "NAME = 'by its .pth'\n")
    return folder / "venv"


@pytest.mark.parametrize("option", ["--home", "--virtualenv", "-H"])
def test_packages_of_a_virtual_environment(serve: Serve, tmp_path: Path, option: str) -> None:
    home = make_venv(tmp_path)
    app = """
import os, onlyhere, bythepath
def app(environ, start_response):
    start_response("200 OK", [])
    first = os.environ["PATH"].split(":")[0]
    return [f"{onlyhere.NAME}|{bythepath.NAME}|{os.environ['VIRTUAL_ENV']}|{first}".encode()]
"""
    server = serve(option, home, app=app)
    parts = server.get().body.decode().split("|")
    assert parts == ["from the venv", "by its .pth", str(home), f"{home}/bin"]


def test_no_virtual_environment(run_pelton: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    done = run_pelton("--home", "plain", "--module", "x")
    assert done.returncode == 2
    assert "'plain' is no virtual environment" in done.stderr
    assert "python3 -m venv plain" in done.stderr
    done = run_pelton("--home", "nowhere", "--module", "x")
    assert done.returncode == 2
    assert "there is no directory 'nowhere'" in done.stderr


def test_virtual_environment_of_another_python(run_pelton: Run, tmp_path: Path) -> None:
    make_venv(tmp_path, "3.6")
    done = run_pelton("--home", "venv", "--module", "x")
    assert done.returncode == 2
    assert "virtual environment of Python 3.6" in done.stderr


# --- Addresses --------------------------------------------------------------------------------


def test_the_usual_address(serve: Serve) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8000))
        except OSError:
            pytest.skip("somebody listens on port 8000")
    server = serve(app=APP, listen=False, ready=r"http://127\.0\.0\.1:8000")
    server.address = ("127.0.0.1", 8000)
    assert server.get().status == 200


@pytest.mark.parametrize("form", ["127.0.0.1:{}", ":{}", "*:{}", "0.0.0.0:{}", "localhost:{}"])
def test_forms_of_a_tcp_address(serve: Serve, form: str) -> None:
    port = free_port()
    server = serve("--bind", form.format(port), app=APP, ready=rf":{port}\b")
    server.address = ("127.0.0.1", port)
    assert server.get().body == b"application"


def test_several_addresses(serve: Serve, tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    path = tmp_path / "both.sock"
    server = serve(
        "--http-socket", f"127.0.0.1:{port}", "--bind", f"127.0.0.1:{other}", "--bind", path,
        app=APP, ready=rf":{port}\b",
    )  # fmt: skip
    for address in (("127.0.0.1", port), ("127.0.0.1", other), str(path)):
        server.address = address
        assert server.get().body == b"application"
    assert f":{other}" in server.log
    assert f"unix:{path}" in server.log


def test_unix_socket_with_mode(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    server = serve("--bind", f"unix:{path}", "--chmod-socket=600", app=APP, ready="unix:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.address = str(path)
    assert server.get().body == b"application"
    assert server.stop() == 0
    assert not path.exists()


def test_abstract_socket(serve: Serve) -> None:
    name = f"@pelton-test-{os.getpid()}"
    server = serve("--bind", name, app=APP, ready=re.escape(name))
    server.address = name
    assert server.get().body == b"application"


def test_inherited_socket(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        server = serve("--bind", f"fd://{number}", app=APP, ready="serving", pass_fds=[number])
        server.address = listener.getsockname()
        assert server.get().body == b"application"
        assert server.stop() == 0


# --- Starts that fail -------------------------------------------------------------------------


def test_no_application_is_named(run_pelton: Run) -> None:
    done = run_pelton("--bind", ":0")
    assert done.returncode == 2
    assert "no application is named" in done.stderr


def test_unknown_option(run_pelton: Run) -> None:
    done = run_pelton("--http-sokcet", ":9090", "--module", "x")
    assert done.returncode == 2
    assert "--http-sokcet" in done.stderr
    assert "--http-socket" in done.stderr


def test_bad_networks(run_pelton: Run) -> None:
    done = run_pelton("--forwarded-allow-ips", "10.0.0.0/40", "--module", "x")
    assert done.returncode == 2
    assert "'10.0.0.0/40'" in done.stderr


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_bad_directory(run_pelton: Run, tmp_path: Path, place: str) -> None:
    write(tmp_path, "file", "")
    done = run_pelton("--bind", f"127.0.0.1:{free_port()}", "--chdir", place, "--module", "x")
    assert done.returncode == 2
    assert f"'--chdir': cannot enter '{place}'" in done.stderr


def test_bad_log_file(run_pelton: Run) -> None:
    done = run_pelton("--logto", "no/such/place.log", "--module", "x")
    assert done.returncode == 2
    assert "'--logto': cannot open 'no/such/place.log'" in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:notaport", "127.0.0.1:65536", "host.invalid:1"])
def test_bad_address(run_pelton: Run, address: str) -> None:
    done = run_pelton("--bind", address, "--module", "x")
    assert done.returncode == 2
    assert address in done.stderr
    assert "--bind" in done.stderr


def test_port_in_use(run_pelton: Run, tmp_path: Path) -> None:
    """Said before the application is loaded: an import may take long, and have effects."""
    write(tmp_path, "webapp.py", "open('was-loaded', 'w')\n" + textwrap.dedent(APP))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run_pelton("--bind", f"127.0.0.1:{port}", "webapp.py")
    assert done.returncode == 4
    assert f"127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr
    assert not (tmp_path / "was-loaded").exists()


def test_unix_socket_in_use(run_pelton: Run, tmp_path: Path) -> None:
    write(tmp_path, "webapp.py", APP)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "used.sock"))
        listener.listen()
        done = run_pelton("--bind", "./used.sock", "webapp.py")
        assert done.returncode == 4
        assert "used.sock: another server accepts there" in done.stderr
    done = run_pelton("--bind", "./webapp.py", "webapp.py")
    assert done.returncode == 4
    assert (tmp_path / "webapp.py").exists()


def fails(run_pelton: Run, *args: object) -> str:
    """Runs a start whose application is at fault; what it said."""
    done = run_pelton("--bind", f"127.0.0.1:{free_port()}", *args)
    assert done.returncode == 3, done.stderr
    assert "serving webapp" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("more", [(), ("--master",), ("--processes", "2", "--lazy-apps")])
def test_no_such_file(run_pelton: Run, more: tuple[str, ...]) -> None:
    said = fails(run_pelton, *more, "--wsgi-file", "nothing.py")
    assert "'nothing.py' cannot be loaded: No such file or directory" in said


def test_a_directory_is_no_file(run_pelton: Run, tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    assert "'folder.py' is no file" in fails(run_pelton, "--wsgi-file", "folder.py")


def test_no_such_module(run_pelton: Run, tmp_path: Path) -> None:
    said = fails(run_pelton, "--module", "nothing.like.this")
    assert f"no module named 'nothing.like.this' in '{tmp_path}'" in said
    assert "--pythonpath" in said
    assert "Traceback" not in said
    write(tmp_path, "package/__init__.py", "")
    assert "no module named 'package.inner'" in fails(run_pelton, "package.inner:app")


@pytest.mark.parametrize("more", [(), ("--master",), ("--processes", "2", "--lazy-apps")])
@pytest.mark.parametrize("args", [("--wsgi-file", "webapp.py"), ("--module", "webapp")])
def test_import_error_with_its_traceback(
    run_pelton: Run, tmp_path: Path, args: tuple[str, ...], more: tuple[str, ...]
) -> None:
    write(tmp_path, "webapp.py", "import helper\n")
    write(tmp_path, "helper.py", "\nimport missing_dependency\n")
    said = fails(run_pelton, *args, *more)
    assert "raised a ModuleNotFoundError" in said
    assert "Traceback (most recent call last)" in said
    assert f'File "{tmp_path}/webapp.py", line 1, in <module>' in said
    assert f'File "{tmp_path}/helper.py", line 2, in <module>' in said
    assert "No module named 'missing_dependency'" in said
    assert "importlib" not in said
    assert "pelton/__init__" not in said


def test_syntax_error(run_pelton: Run, tmp_path: Path) -> None:
    write(tmp_path, "webapp.py", "def broken(:\n")
    said = fails(run_pelton, "webapp.py")
    assert "raised a SyntaxError" in said
    assert "def broken(:" in said


def test_exit_at_import(run_pelton: Run, tmp_path: Path) -> None:
    write(tmp_path, "webapp.py", "import sys\nsys.exit(0)\n")
    assert "raised a SystemExit" in fails(run_pelton, "webapp.py")


def test_no_callable(run_pelton: Run, tmp_path: Path) -> None:
    write(tmp_path, "webapp.py", "from os.path import join\ndef main(): pass\ndef wsgi(): pass\n")
    said = fails(run_pelton, "webapp.py")
    assert "'webapp.py' has no 'application' and no 'app'" in said
    assert "these callables: main, wsgi;" in said
    assert "--callable" in said
    assert "has no 'site.app'" in fails(run_pelton, "webapp.py:site.app")


def test_not_callable(run_pelton: Run, tmp_path: Path) -> None:
    write(tmp_path, "webapp.py", "app = {'a': 1}\n")
    said = fails(run_pelton, "webapp:app")
    assert "'app' in 'webapp' cannot be called: it is of type dict" in said


def test_factory_that_fails(run_pelton: Run, tmp_path: Path) -> None:
    write(tmp_path, "webapp.py", "def make():\n    raise ValueError('no database')\n")
    said = fails(run_pelton, "webapp:make()")
    assert "calling its factory raised a ValueError" in said
    assert "no database" in said
    write(tmp_path, "webapp.py", "def make():\n    return None\n")
    assert "of type NoneType" in fails(run_pelton, "webapp:make()")


def test_errors_go_to_the_log_and_the_console(run_pelton: Run, tmp_path: Path) -> None:
    write(tmp_path, "webapp.py", "1 / 0\n")
    said = fails(run_pelton, "--logto", "pelton.log", "webapp.py")
    log = (tmp_path / "pelton.log").read_text()
    assert "raised a ZeroDivisionError" in said
    assert "Traceback" not in said
    assert "raised a ZeroDivisionError" in log
    assert "Traceback" in log


# --- What a start says ------------------------------------------------------------------------


def test_start_lines(serve: Serve) -> None:
    server = serve("--threads", "4", "--processes", "2", app=APP)
    server.wait_log(rf"pelton \S+ on CPython 3\.\d+\.\d+\S*, pid {server.pid}$")
    server.wait_log(r"application 'webapp\.py' loaded in \d+\.\d{3} s$")
    server.wait_log(
        rf"serving webapp\.py at http://127\.0\.0\.1:{server.port}: "
        r"2 processes, each up to 4 requests at once, in threads$"
    )


def test_notes_about_options_that_change_nothing(serve: Serve) -> None:
    server = serve("--greenlet", app=APP)
    server.wait_log(r"'--greenlet' changes nothing")


def test_script_is_installed() -> None:
    assert Path(server_command()[0]).exists()
