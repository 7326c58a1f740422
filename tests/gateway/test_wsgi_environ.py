# SPDX-License-Identifier: Apache-2.0
"""environ: CGI keys, headers, latin-1, templates, forwarded requests."""

from __future__ import annotations

import contextvars
import gc
import random
import sys

from gwharness import CARRIERS, INLINE, ask, inside, owning, serving


def environ_of(**kwargs):
    seen = {}

    def app(environ, start_response):
        assert inside()
        assert type(environ) is dict
        seen.update(environ)
        start_response("200 OK", [])
        return [b""]

    with serving(app, kwargs.pop("carrier", INLINE), **kwargs.pop("server", {})) as server:
        server.request(**kwargs)
    return seen


def test_plain_request():
    env = environ_of(target="/", headers=[("Host", "example.org"), ("User-Agent", "x")])
    assert env["REQUEST_METHOD"] == "GET"
    assert env["SCRIPT_NAME"] == ""
    assert env["PATH_INFO"] == env["REQUEST_URI"] == "/"
    assert env["QUERY_STRING"] == ""
    assert env["SERVER_NAME"] == "testserver"
    assert env["SERVER_PORT"] == "8000"
    assert env["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert env["REMOTE_ADDR"] == "127.0.0.1"
    assert env["REMOTE_PORT"] == "4000"
    assert env["HTTP_HOST"] == "example.org"
    assert env["HTTP_USER_AGENT"] == "x"
    assert env["wsgi.version"] == (1, 0)
    assert env["wsgi.url_scheme"] == "http"
    assert env["wsgi.run_once"] is False
    assert env["wsgi.input_terminated"] is True
    assert "CONTENT_LENGTH" not in env
    assert "CONTENT_TYPE" not in env
    assert all(type(k) is str for k in env)


def test_flags_by_carrier():
    for carrier in CARRIERS:
        env = environ_of(carrier=carrier, server={"processes": 1 + carrier})
        assert env["wsgi.multithread"] is (carrier != INLINE)
        assert env["wsgi.multiprocess"] is (carrier > 0)


def test_method_version_scheme():
    env = environ_of(method="PROPFIND", version=0, https=True)
    assert env["REQUEST_METHOD"] == "PROPFIND"
    assert env["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert env["wsgi.url_scheme"] == "https"
    assert environ_of(version=2)["SERVER_PROTOCOL"] == "HTTP/2"


def test_path_is_latin1_of_the_decoded_bytes():
    env = environ_of(target="/a%20b/%C3%A4?q=%20&x=\xe4")
    assert env["PATH_INFO"] == "/a b/\xc3\xa4"
    assert env["QUERY_STRING"] == "q=%20&x=\xe4"
    assert env["REQUEST_URI"] == "/a%20b/%C3%A4?q=%20&x=\xe4"
    env = environ_of(target="/raw\xe4")
    assert env["PATH_INFO"] == env["REQUEST_URI"] == "/raw\xe4"
    env = environ_of(target="/" + "%41" * 2000)
    assert env["PATH_INFO"] == "/" + "A" * 2000


def test_header_names():
    env = environ_of(
        headers=[
            ("Content-Type", "text/plain"),
            ("Content-Length", "5"),
            ("x-my-header", "1"),
            ("X-" + "n" * 300, "long"),
            ("Proxy", "http://evil"),
            ("X_Real_IP", "6.6.6.6"),
            ("Empty", ""),
        ],
        body=[b"12345"],
    )
    assert env["CONTENT_TYPE"] == "text/plain"
    assert env["CONTENT_LENGTH"] == "5"
    assert env["HTTP_X_MY_HEADER"] == "1"
    assert env["HTTP_X_" + "N" * 300] == "long"
    assert env["HTTP_EMPTY"] == ""
    assert "HTTP_PROXY" not in env
    assert "HTTP_X_REAL_IP" not in env
    assert "HTTP_CONTENT_TYPE" not in env


def test_repeated_headers_join():
    env = environ_of(
        headers=[
            ("Accept", "a"),
            ("X-Own", "1"),
            ("Cookie", "a=1"),
            ("Accept", "b"),
            ("X-Own", "1"),
            ("x-own", "\xe4"),
            ("Cookie", "b=2"),
            ("Accept", "b"),
        ]
    )
    assert env["HTTP_ACCEPT"] == "a, b, b"
    assert env["HTTP_X_OWN"] == "1, 1, \xe4"
    assert env["HTTP_COOKIE"] == "a=1; b=2"


def test_values_are_right_whatever_was_cached():
    seen = []

    def app(environ, start_response):
        seen.append((environ["HTTP_USER_AGENT"], environ.get("HTTP_X_SOME")))
        start_response("200 OK", [])
        return []

    values = [f"agent-{i % 7:04}-{'y' * (i % 130)}-{i % 7:08}" for i in range(1500)]
    with serving(app) as server:
        for v in values:
            server.request(headers=[("User-Agent", v), (f"X-{v[:60]}", "z"), ("X-Some", v[-9:])])
    assert seen == [(v, v[-9:]) for v in values]


def test_secrets_are_not_kept():
    secret = "Basic " + "".join(chr(97 + i % 26) for i in range(40))
    found = []

    def app(environ, start_response):
        for name in ("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_X_TOKEN", "HTTP_X_API_KEY"):
            found.append(sys.getrefcount(environ[name]))
        start_response("200 OK", [])
        return []

    headers = [
        ("Authorization", secret),
        ("Cookie", secret + "1"),
        ("X-Token", secret + "2"),
        ("X-Api-Key", secret + "3"),
    ]
    with serving(app) as server:
        server.request(headers=headers)
        server.request(headers=headers)
    assert set(found) == {2}, found  # environ's and getrefcount's own


def test_environ_is_right_whatever_requests_came_before():
    """Few names and values, so that requests often resemble an earlier one, in a random order."""
    rng = random.Random(7)
    lines = {
        "Host": ["a.example", "b.example"],
        "User-Agent": ["one", "two"],
        "Accept": ["*/*", "text/html", ""],
        "Cookie": ["a=1", "b=22", "", "long=" + "x" * 3000],
        "X-Own": ["p", "q"],
        "X-Oww": ["p", "q"],
        "X_Own": ["never"],
        "Proxy": ["never"],
        "Content-Type": ["text/plain"],
        "X-Forwarded-For": ["198.51.100.7", "198.51.100.8"],
        "X-Long": ["y" * 1500],
        "Accept-Language": ["z" * 1500],
    }
    seen = {}

    def app(environ, start_response):
        seen.clear()
        seen.update(environ)
        start_response("200 OK", [])
        return []

    def expected(headers, port, trusted, second):
        env = {}
        for name, value in headers:
            if name in ("X_Own", "Proxy"):
                continue
            key = "HTTP_" + name.upper().replace("-", "_")
            key = "CONTENT_TYPE" if name == "Content-Type" else key
            glue = "; " if name == "Cookie" else ", "
            env[key] = env[key] + glue + value if key in env else value
        hop = env.get("HTTP_X_FORWARDED_FOR") if trusted else None
        env["REMOTE_ADDR"] = hop.rpartition(", ")[2] if hop else "127.0.0.1"
        env["SERVER_NAME"] = "second" if second else "testserver"
        if not hop:
            env["REMOTE_PORT"] = str(port)
        return env

    fixed = ("REQUEST_", "SCRIPT_", "PATH_", "QUERY_", "SERVER_P", "SERVER_SO", "wsgi.", "uwsgi.")
    with serving(app) as server:
        shapes = [rng.sample(sorted(lines), rng.randrange(1, 9)) for _ in range(12)]
        shapes += [["Host", "User-Agent", "Cookie", "User-Agent"], ["X-Own", "X-Own"], []]
        shapes += [["X-Own", "Accept"], ["X-Oww", "Accept"], ["X_Own", "Accept"]]
        shapes += [["X-Forwarded-For", "Host"], ["Host", "X-Forwarded-For"]]
        for _ in range(4000):
            headers = [(name, rng.choice(lines[name])) for name in rng.choice(shapes)]
            peer = {
                "port": rng.choice([4000, 4001]),
                "trusted": rng.randrange(2),
                "second": rng.randrange(8) == 0,
            }
            server.request(headers=headers, **peer)
            got = {k: v for k, v in seen.items() if not k.startswith(fixed)}
            want = expected(headers, **peer)
            if "REMOTE_PORT" not in want:
                got.pop("REMOTE_PORT")
            assert got == want, (headers, peer)


def test_secrets_of_a_known_client_are_not_kept():
    found = set()

    def app(environ, start_response):
        found.add(sys.getrefcount(environ["HTTP_COOKIE"]))
        found.add(sys.getrefcount(environ["HTTP_X_TOKEN"]))
        start_response("200 OK", [])
        return []

    with serving(app) as server:
        for i in range(60):
            server.request(
                headers=[
                    ("User-Agent", "x"),
                    ("Cookie", f"secret {i}"),
                    ("X-Token", f"secret {i // 20}"),
                    ("Accept", f"text/{i % 3}"),
                ]
            )
    assert found == {2}, found


def test_each_request_has_its_own():
    kept = []

    def app(environ, start_response):
        environ["mine"] = len(kept)
        kept.append(environ)
        start_response("200 OK", [])
        return []

    with serving(app) as server:
        server.request(target="/one")
        server.request(target="/two")
    assert [e["PATH_INFO"] for e in kept] == ["/one", "/two"]
    assert [e["mine"] for e in kept] == [0, 1]


def test_a_usual_environ_never_grows():
    sizes = []

    def app(environ, start_response):
        sizes.append(sys.getsizeof(environ))
        start_response("200 OK", [])
        return []

    with serving(app) as server:
        server.request()
        server.request(headers=[(f"X-H{i}", "v") for i in range(14)])
        server.request(headers=[(f"X-H{i}", "v") for i in range(60)])
    assert sizes[0] == sizes[1] < sizes[2], sizes


def test_listener_gives_server_name():
    env = environ_of(second=True)
    assert (env["SERVER_NAME"], env["SERVER_PORT"]) == ("second", "8001")
    env = environ_of(server={"server_name": ""})
    assert env["SERVER_NAME"] == "localhost"
    env = environ_of(peer="", port=0)
    assert (env["REMOTE_ADDR"], env["REMOTE_PORT"]) == ("", "")


def test_context_is_fresh():
    var = contextvars.ContextVar("var", default=0)
    seen = []

    def app(environ, start_response):
        seen.append(var.get())
        var.set(var.get() + 1)
        start_response("200 OK", [])
        yield str(var.get()).encode()

    var.set(10)
    with serving(app) as server:
        var.set(20)  # too late: requests start as set_app found it
        assert server.request().body == b"11"
        assert server.request().body == b"11"
    assert seen == [10, 10]
    assert var.get() == 20


def test_collector_never_runs_code_outside():
    """In 3.11 any allocation of a container may collect: not while the loop is owned."""
    died = []

    class Noisy:
        def __del__(self):
            died.append(owning())

    def garbage():
        a, b = Noisy(), Noisy()
        a.other, b.other = b, a

    def app(environ, start_response):
        garbage()
        start_response("200 OK", [("A", "b")])
        return [b"x"] if len(environ) % 2 else iter([b"x"])

    old = gc.get_threshold()
    with serving(app) as server:
        gc.set_threshold(1, 1, 1)
        for i in range(30):
            server.request(headers=[(f"X-{i}", "1")] * (i % 3), before=garbage)
        gc.set_threshold(*old)
    assert died
    assert not any(died)


def test_finalisers_run_inside():
    where = []

    class Noisy:
        def __del__(self):
            where.append(inside())

    def app(environ, start_response):
        environ["x"] = Noisy()
        start_response("200 OK", [])
        return [b"x"]

    ask(app)
    assert where == [True]


# --- Behind proxies ---

PROXY = {"peer": "10.0.0.1", "trusted": True}


def test_forwarded_headers_of_strangers_change_nothing():
    env = environ_of(
        headers=[("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https")], peer="9.9.9.9"
    )
    assert env["REMOTE_ADDR"] == "9.9.9.9"
    assert env["wsgi.url_scheme"] == "http"
    assert env["HTTP_X_FORWARDED_FOR"] == "1.2.3.4"


def forwarded(**headers):
    env = environ_of(headers=[(k.replace("_", "-"), v) for k, v in headers.items()], **PROXY)
    return env


def test_x_forwarded_for():
    env = forwarded(X_Forwarded_For="6.6.6.6, 1.2.3.4, 10.1.1.1")
    assert env["REMOTE_ADDR"] == "1.2.3.4"
    assert env["REMOTE_PORT"] == "0"
    assert env["HTTP_X_FORWARDED_FOR"] == "6.6.6.6, 1.2.3.4, 10.1.1.1"
    assert forwarded(X_Forwarded_For="[2001:DB8::1]:77")["REMOTE_ADDR"] == "2001:db8::1"
    assert forwarded(X_Forwarded_For="[2001:DB8::1]:77")["REMOTE_PORT"] == "77"
    assert forwarded(X_Forwarded_For="2001:db8::2")["REMOTE_ADDR"] == "2001:db8::2"
    assert forwarded(X_Forwarded_For="1.2.3.4:99")["REMOTE_PORT"] == "99"
    # All of them ours: the one that is farthest away.
    assert forwarded(X_Forwarded_For="10.3.3.3, 10.2.2.2")["REMOTE_ADDR"] == "10.3.3.3"
    # What cannot be read ends the walk.
    assert forwarded(X_Forwarded_For="1.2.3.4, unknown")["REMOTE_ADDR"] == "10.0.0.1"
    assert forwarded(X_Forwarded_For="1.2.3.4, junk, 10.5.5.5")["REMOTE_ADDR"] == "10.5.5.5"
    for bad in (
        "",
        ",",
        "1.2.3",
        "::1::",
        "[::1",
        "[::1]x",
        "1.2.3.4:99999",
        "'1.2.3.4'",
        "a" * 500,
    ):
        assert forwarded(X_Forwarded_For=bad)["REMOTE_ADDR"] == "10.0.0.1", bad
    many = ", ".join(f"1.1.1.{i}" for i in range(200))
    assert forwarded(X_Forwarded_For=many)["REMOTE_ADDR"] == "1.1.1.199"
    ours = ", ".join(["1.2.3.4"] + ["10.0.0.9"] * 100)
    assert forwarded(X_Forwarded_For=ours)["REMOTE_ADDR"] == "10.0.0.9"


def test_x_forwarded_for_in_several_lines():
    env = environ_of(
        headers=[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "1.2.3.4, 10.0.0.7")], **PROXY
    )
    assert env["REMOTE_ADDR"] == "1.2.3.4"


def test_x_forwarded_proto_host_port():
    env = forwarded(
        X_Forwarded_Proto="https", X_Forwarded_Host="shop.example", X_Forwarded_Port="8443"
    )
    assert env["wsgi.url_scheme"] == "https"
    assert env["HTTP_HOST"] == "shop.example"
    assert env["SERVER_PORT"] == "8443"
    assert env["REMOTE_ADDR"] == "10.0.0.1"
    assert env["REMOTE_PORT"] == "4000"
    assert forwarded(X_Forwarded_Proto="http, https")["wsgi.url_scheme"] == "https"
    both = forwarded(X_Forwarded_For="1.2.3.4, 10.0.0.2", X_Forwarded_Proto="https, http")
    assert both["wsgi.url_scheme"] == "https"
    assert forwarded(X_Forwarded_Ssl="on")["wsgi.url_scheme"] == "https"
    assert forwarded(X_Forwarded_Proto="gopher")["wsgi.url_scheme"] == "http"
    assert "HTTP_HOST" not in forwarded(X_Forwarded_Host="bad host")
    assert forwarded(X_Forwarded_Port="0")["SERVER_PORT"] == "8000"
    assert forwarded(X_Forwarded_Port="+1")["SERVER_PORT"] == "8000"


def test_forwarded():
    env = forwarded(Forwarded='for=6.6.6.6, for="[2001:db8::1]:4711";proto=https;host="h.example"')
    assert env["REMOTE_ADDR"] == "2001:db8::1"
    assert env["REMOTE_PORT"] == "4711"
    assert env["wsgi.url_scheme"] == "https"
    assert env["HTTP_HOST"] == "h.example"
    env = forwarded(Forwarded="For=1.2.3.4;Proto=https, for=10.0.0.2;proto=http")
    assert (env["REMOTE_ADDR"], env["wsgi.url_scheme"]) == ("1.2.3.4", "https")
    env = forwarded(Forwarded="for=_hidden;proto=https")
    assert (env["REMOTE_ADDR"], env["wsgi.url_scheme"]) == ("10.0.0.1", "https")
    for bad in ("", ";;;", "for", "for=", '"', 'for="1.2.3.4', "=1.2.3.4", "xfor=1.2.3.4"):
        assert forwarded(Forwarded=bad)["REMOTE_ADDR"] == "10.0.0.1", bad


def test_forwarded_is_not_looked_at_beside_x_forwarded():
    env = forwarded(X_Forwarded_For="1.2.3.4", Forwarded="for=6.6.6.6;proto=https")
    assert env["REMOTE_ADDR"] == "1.2.3.4"
    assert env["wsgi.url_scheme"] == "http"
