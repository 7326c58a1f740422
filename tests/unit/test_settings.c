/* SPDX-License-Identifier: Apache-2.0 */
/* Pelton's own table: that every name that real uWSGI configurations use is known, what goes
 * together, what follows from what, and the messages of what does not. */
#include "main/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/mem.h"
#include "test_base.h"

enum { ARGS_MAX = 24 };

struct fixture {
    struct pn_settings s;
    struct pn_config_error err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(pn_settings_init(&f->s), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pn_settings_fini(&f->s);
    free(f);
    return 0;
}

/* A command line, cut at its spaces. */
static int parse(struct fixture *f, const char *line)
{
    char *argv[ARGS_MAX] = {0};
    int argc = 0;
    char *words = strdup(line);
    assert_non_null(words);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
        assert_true(argc < ARGS_MAX);
        argv[argc++] = word;
    }
    int rc = pn_settings_parse(&f->s, argc, argv, &f->err);
    free(words);
    return rc;
}

static int load(struct fixture *f, const char *line)
{
    int rc = parse(f, line);
    return rc < 0 ? rc : pn_settings_check(&f->s, &f->err);
}

static void good(struct fixture *f, const char *line)
{
    pn_settings_fini(&f->s);
    assert_int_equal(pn_settings_init(&f->s), 0);
    int rc = load(f, line);
    assert_string_equal(f->err.text, "");
    assert_int_equal(rc, 0);
}

static void bad(struct fixture *f, int code, const char *message, const char *line)
{
    pn_settings_fini(&f->s);
    assert_int_equal(pn_settings_init(&f->s), 0);
    int rc = load(f, line);
    assert_string_equal(f->err.text, message);
    assert_int_equal(rc, code);
}

static void the_table_has_no_mistakes(void **state)
{
    struct fixture *f = *state;
    int rc = pn_option_table_check(pn_settings_table(), &f->err);
    assert_string_equal(f->err.text, "");
    assert_int_equal(rc, 0);
}

static void presets_are_the_bounds(void **state)
{
    struct fixture *f = *state;
    good(f, "module:app");
    assert_int_equal(f->s.action, PN_ACTION_SERVE);
    assert_int_equal(f->s.sockets.count, 1);
    assert_string_equal(f->s.sockets.items[0].address, "127.0.0.1:8000");
    assert_int_equal(f->s.sockets.backlog, 0);
    assert_int_equal(f->s.sockets.chmod_mode, -1);
    assert_true(f->s.sockets.defer_accept);
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_THREADS);
    assert_int_equal(f->s.carrier.cores, PN_CORE_THREADS_DEFAULT);
    assert_int_equal(f->s.carrier.queue_size, PN_CORE_QUEUE_DEFAULT);
    assert_int_equal(f->s.carrier.queue_timeout_ms, 0);
    assert_int_equal(f->s.carrier.lease_ms, PN_CORE_LEASE_MS);
    assert_int_equal(f->s.carrier.log_blocking_ms, 0);
    assert_int_equal(f->s.carrier.fiber_stack_size, PN_CORE_STACK_SIZE_DEFAULT);
    assert_int_equal(f->s.processes.processes, 1);
    assert_false(f->s.processes.master);
    assert_int_equal(f->s.processes.shutdown_timeout_ms, PN_SHUTDOWN_TIMEOUT_MS);
    assert_int_equal(f->s.processes.respawn_delay_ms, PN_RESPAWN_BACKOFF_MIN_MS);
    assert_int_equal(f->s.log.level, PN_LOG_INFO);
    assert_int_equal(f->s.http.header_timeout_ms, PN_HTTP_HEADER_TIMEOUT_MS);
    assert_int_equal(f->s.http.body_timeout_ms, PN_HTTP_BODY_TIMEOUT_MS);
    assert_int_equal(f->s.http.write_timeout_ms, PN_HTTP_WRITE_TIMEOUT_MS);
    assert_int_equal(f->s.http.keepalive_timeout_ms, PN_HTTP_KEEPALIVE_TIMEOUT_MS);
    assert_int_equal(f->s.http.head_size_max, PN_HTTP_HEAD_SIZE_DEFAULT);
    assert_int_equal(f->s.http.target_size_max, PN_HTTP_TARGET_SIZE_DEFAULT);
    assert_int_equal(f->s.http.line_size_max, PN_HTTP_LINE_SIZE_DEFAULT);
    assert_int_equal(f->s.http.headers_max, PN_HTTP_HEADERS_DEFAULT);
    assert_int_equal(f->s.http.body_size_max, PN_HTTP_BODY_MAX_DEFAULT);
    assert_int_equal(f->s.http.body_buffer_size, PN_HTTP_BODY_BUFFER_DEFAULT);
    assert_int_equal(f->s.http.proxies.count, 0);
    assert_int_equal(f->s.notes.count, 0);
}

/* The two lines that the server exists for. */
static void the_blocking_line_is_inline(void **state)
{
    struct fixture *f = *state;
    good(f,
         "--http-socket :9090 --processes 1 --threads 1 --logto pelton.log --wsgi-file webapp.py");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_INLINE);
    assert_int_equal(f->s.app.kind, PN_APP_FILE);
    assert_string_equal(f->s.app.target, "webapp.py");
    assert_null(f->s.app.callable_name);
    assert_string_equal(f->s.log.file, "pelton.log");
    assert_string_equal(f->s.sockets.items[0].address, ":9090");
    assert_string_equal(f->s.sockets.items[0].option, "http-socket");
    assert_int_equal(f->s.notes.count, 0);
}

static void the_non_blocking_line_is_fibers(void **state)
{
    struct fixture *f = *state;
    good(f, "--asyncio 2 --http-socket :9090 --greenlet --processes 1 --threads 1 "
            "--logto pelton.log --wsgi-file webapp.py");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_FIBERS);
    assert_int_equal(f->s.carrier.cores, 2);
    assert_true(f->s.carrier.has_asyncio);
    assert_int_equal(f->s.carrier.log_blocking_ms, PN_SETTINGS_LOG_BLOCKING_MS);
    assert_int_equal(f->s.notes.count, 0);
    good(f, "--processes 1 --threads 1 --asyncio 1 --greenlet app");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_FIBERS);
    assert_int_equal(f->s.carrier.cores, 1);
}

static void the_carrier_follows_from_the_numbers(void **state)
{
    struct fixture *f = *state;
    good(f, "--threads 8 app");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_THREADS);
    assert_int_equal(f->s.carrier.cores, 8);
    assert_false(f->s.carrier.has_asyncio);
    assert_int_equal(f->s.carrier.log_blocking_ms, 0);
    good(f, "--threads 1 app");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_INLINE);
    /* uWSGI's names for the application mean uWSGI's carrier. */
    good(f, "--module app");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_INLINE);
    assert_int_equal(f->s.carrier.cores, 1);
    good(f, "--wsgi-file app.py --processes 2");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_INLINE);
    good(f, "--processes 2 app.py");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_THREADS);
    assert_int_equal(f->s.carrier.cores, PN_CORE_THREADS_DEFAULT);
    good(f, "--async 10000 app");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_FIBERS);
    assert_int_equal(f->s.carrier.cores, 10000);
    assert_false(f->s.carrier.has_asyncio);
    good(f, "--async 1 --threads 1 app");
    assert_int_equal(f->s.carrier.kind, PN_CARRIER_FIBERS);
    good(f, "--async 4 --asyncio 4 app");
    assert_int_equal(f->s.carrier.cores, 4);
    good(f, "--async 4 --fiber-stack-size 300k app");
    assert_int_equal(f->s.carrier.fiber_stack_size, 320 * 1024);
    assert_string_equal(pn_settings_carrier_name(PN_CARRIER_INLINE), "inline");
    assert_string_equal(pn_settings_carrier_name(PN_CARRIER_THREADS), "threads");
    assert_string_equal(pn_settings_carrier_name(PN_CARRIER_FIBERS), "fibers");
    bad(f, -EINVAL,
        "'--async 4' and '--asyncio 2' are two answers to one question, how many requests may wait "
        "at once: give one of them",
        "--async 4 --asyncio 2 app");
    bad(f, -EINVAL,
        "'--threads 8' and '--async 4' exclude each other: a request runs in a thread or in a "
        "fiber; give one of them",
        "--async 4 --threads 8 app");
    bad(f, -EINVAL,
        "'--threads 2' and '--asyncio 1' exclude each other: a request runs in a thread or in a "
        "fiber; give one of them",
        "--asyncio 1 --threads 2 app");
    bad(f, -EINVAL, "option '--threads': bad value '0': expected a number from 1 to 100000",
        "--threads 0 app");
    bad(f, -EINVAL, "option '--async': bad value '0': expected a number from 1 to 100000",
        "--async 0 app");
}

static void check_note(struct fixture *f, const char *line, const char *text)
{
    good(f, line);
    assert_int_equal(f->s.notes.count, 1);
    assert_string_equal(f->s.notes.items[0], text);
}

static void what_changes_nothing_is_said(void **state)
{
    struct fixture *f = *state;
    check_note(
        f, "--greenlet app",
        "'--greenlet' changes nothing: requests wait in fibers with --async N or --asyncio N "
        "only");
    check_note(f, "--ugreen --threads 4 app",
               "'--ugreen' changes nothing: requests wait in fibers with --async N or --asyncio N "
               "only");
    check_note(f, "--asyncio-drain 5 --async 4 app",
               "'--asyncio-drain' changes nothing: there is no loop without --asyncio N");
    check_note(f, "--lease 20 --module app",
               "'--lease' changes nothing: it is for --threads N, with N above 1");
    check_note(f, "--queue-timeout 3 --threads 1 app",
               "'--queue-timeout' changes nothing: one request after the other is taken from the "
               "sockets, and none is queued");
    check_note(f, "--log-blocking 50 app",
               "'--log-blocking' changes nothing: beside a thread that computes another one takes "
               "the event loop over");
    check_note(f, "--chmod-socket=660 app",
               "'--chmod-socket' changes nothing: no address is that of a unix socket");
    good(f, "--queue-timeout 3 --lease 20 --threads 4 --chmod-socket --bind /tmp/x.sock app");
    assert_int_equal(f->s.notes.count, 0);
    assert_int_equal(f->s.sockets.chmod_mode, 0666);
    /* A second look says nothing twice. */
    good(f, "--greenlet app");
    assert_int_equal(pn_settings_check(&f->s, &f->err), 0);
    assert_int_equal(f->s.notes.count, 1);
    assert_int_equal(f->s.sockets.count, 1);
}

static void check_app(struct fixture *f, const char *line, enum pn_app_kind kind,
                      const char *target, const char *callable, bool factory)
{
    good(f, line);
    assert_int_equal(f->s.app.kind, kind);
    assert_string_equal(f->s.app.target, target);
    if (callable)
        assert_string_equal(f->s.app.callable_name, callable);
    else
        assert_null(f->s.app.callable_name);
    assert_int_equal(f->s.app.call_factory, factory);
}

static void applications_are_named_in_many_ways(void **state)
{
    struct fixture *f = *state;
    check_app(f, "pkg.mod", PN_APP_MODULE, "pkg.mod", NULL, false);
    check_app(f, "pkg.mod:app", PN_APP_MODULE, "pkg.mod", "app", false);
    check_app(f, "pkg.mod:make()", PN_APP_MODULE, "pkg.mod", "make", true);
    check_app(f, "--factory pkg.mod:make", PN_APP_MODULE, "pkg.mod", "make", true);
    check_app(f, "pkg.mod:site.app", PN_APP_MODULE, "pkg.mod", "site.app", false);
    check_app(f, "-w mod:app", PN_APP_MODULE, "mod", "app", false);
    check_app(f, "--wsgi mod --callable make()", PN_APP_MODULE, "mod", "make", true);
    check_app(f, "webapp.py", PN_APP_FILE, "webapp.py", NULL, false);
    check_app(f, "webapp.py:app", PN_APP_FILE, "webapp.py", "app", false);
    check_app(f, "site.wsgi", PN_APP_FILE, "site.wsgi", NULL, false);
    check_app(f, "dir/app", PN_APP_FILE, "dir/app", NULL, false);
    check_app(f, "/a:b/app", PN_APP_FILE, "/a:b/app", NULL, false);
    check_app(f, "/a:b/x.py:app", PN_APP_FILE, "/a:b/x.py", "app", false);
    check_app(f, "--file odd.name", PN_APP_FILE, "odd.name", NULL, false);
    check_app(f, "--wsgi-file x.py --callable app", PN_APP_FILE, "x.py", "app", false);
    check_app(f,
              "m\xc3\xb6"
              "dul:app",
              PN_APP_MODULE,
              "m\xc3\xb6"
              "dul",
              "app", false);
}

static void applications_are_named_once_and_well(void **state)
{
    struct fixture *f = *state;
    bad(f, -EINVAL,
        "no application is named: give MODULE:CALLABLE or FILE ('pelton --help' tells more)",
        "--threads 2");
    bad(f, -EINVAL, "'--module' and '--wsgi-file' exclude each other: both name the application",
        "--module a --wsgi-file b.py");
    bad(f, -EINVAL, "'b' and '--module' exclude each other: both name the application",
        "--module a b");
    bad(f, -EINVAL, "'b' and '--wsgi-file' exclude each other: both name the application",
        "--wsgi-file a.py b");
    bad(f, -EINVAL, "'b' is a second application: 'a' stands before it", "a b");
    bad(f, -EINVAL, "'--module webapp.py' names a file: use --wsgi-file", "--module webapp.py");
    bad(f, -EINVAL, "'a-b' is neither a module's name nor a Python file", "a-b");
    bad(f, -EINVAL, "'a..b' is neither a module's name nor a Python file", "a..b");
    bad(f, -EINVAL, "'1a' is neither a module's name nor a Python file", "1a");
    bad(f, -EINVAL, "'' is neither a module's name nor a Python file", ":app");
    bad(f, -EINVAL, "'' is not the name of a callable", "a:");
}

static void callables_are_names(void **state)
{
    struct fixture *f = *state;
    bad(f, -EINVAL,
        "'f(1)': a factory is called without arguments; write a function that passes them, and "
        "name "
        "that one: 'NAME()'",
        "a:f(1)");
    bad(f, -EINVAL, "'a.' is not the name of a callable", "--callable a. m");
    bad(f, -EINVAL, "the callable is named twice: 'x' and '--callable y'", "m:x --callable y");
    bad(f, -EINVAL, "'--factory' needs the factory's name: MODULE:NAME, or --callable NAME",
        "m --factory");
    bad(f, -ENOTSUP,
        "'uwsgi.ini' is a configuration file: reading one is not built yet; give the options on "
        "the "
        "command line",
        "uwsgi.ini");
}

static void sockets_are_kept_in_order(void **state)
{
    struct fixture *f = *state;
    good(f, "--bind :1 --http-socket unix:/run/a.sock --http11-socket @b --bind [::1]:4 "
            "--bind fd://3 --bind run/x app");
    const struct pn_socket_setting *items = f->s.sockets.items;
    static const char *const addresses[] = {":1",      "unix:/run/a.sock", "@b",
                                            "[::1]:4", "fd://3",           "run/x"};
    static const bool is_unix[] = {false, true, true, false, false, true};
    assert_int_equal(f->s.sockets.count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(items[i].address, addresses[i]);
        assert_int_equal(items[i].is_unix, is_unix[i]);
    }
    bad(f, -EINVAL, "option '--bind': ':1' is given twice", "--http-socket :1 --bind :1 app");
    bad(f, -EINVAL,
        "option '--http-socket': 'http://:1' is a URL; an address has no scheme: HOST:PORT",
        "--http-socket http://:1 app");
}

static void unix_paths_have_the_systems_bound(void **state)
{
    struct fixture *f = *state;
    char line[256] = "app --bind unix:/";
    size_t start = strlen(line);
    memset(line + start, 'p', 106);
    good(f, line);
    line[start + 106] = 'p';
    bad(f, -EINVAL,
        "option '--bind': the path has 108 bytes, and the system takes at most 107 in a unix "
        "socket's name",
        line);
}

static void there_are_not_too_many_sockets(void **state)
{
    struct fixture *f = *state;
    char port[16];
    for (int i = 0; i <= PN_LISTENERS_MAX; i++) {
        snprintf(port, sizeof port, ":%d", i + 1);
        assert_int_equal(pn_config_set(f->s.config, "bind", port, &f->err), 0);
    }
    assert_int_equal(load(f, "app"), -EINVAL);
    assert_string_equal(f->err.text, "65 addresses are given, and at most 64 are possible");
}

static void several_processes_have_a_master(void **state)
{
    struct fixture *f = *state;
    good(f, "--workers 4 app");
    assert_int_equal(f->s.processes.processes, 4);
    assert_true(f->s.processes.master);
    good(f, "-p 1 app");
    assert_false(f->s.processes.master);
    good(f, "-M --lazy app");
    assert_true(f->s.processes.master);
    assert_true(f->s.processes.lazy_apps);
    bad(f, -EINVAL, "'--processes 2' needs the master: leave '--no-master' out",
        "--no-master -p2 app");
    good(f, "--respawn-delay 60 app");
    assert_int_equal(f->s.processes.respawn_delay_max_ms, 60000);
    bad(f, -EINVAL, "'--respawn-delay' is longer than '--respawn-delay-max'",
        "--respawn-delay 3 --respawn-delay-max 2 app");
    good(f, "--worker-reload-mercy 12 app");
    assert_int_equal(f->s.processes.shutdown_timeout_ms, 12000);
}

static void http_has_its_bounds(void **state)
{
    struct fixture *f = *state;
    good(f, "-b 65535 app");
    assert_int_equal(f->s.http.head_size_max, 65535);
    assert_int_equal(f->s.http.target_size_max, 65535);
    assert_int_equal(f->s.http.line_size_max, 65535);
    good(f, "-b 4k app");
    assert_int_equal(f->s.http.target_size_max, 4096);
    good(f, "-b 65535 --max-target 2k --max-header-line 128k app");
    assert_int_equal(f->s.http.target_size_max, 2048);
    assert_int_equal(f->s.http.line_size_max, 65535);
    good(f, "--max-target 1m app");
    assert_int_equal(f->s.http.target_size_max, PN_HTTP_HEAD_SIZE_DEFAULT);
    good(f, "-z 7 --write-timeout 500ms app");
    assert_int_equal(f->s.http.body_timeout_ms, 7000);
    assert_int_equal(f->s.http.write_timeout_ms, 500);
    good(f, "--http-timeout 300 app");
    assert_int_equal(f->s.http.write_timeout_ms, 300000);
    good(f, "--http-keepalive=0 --limit-post 0 --no-defer-accept app");
    assert_int_equal(f->s.http.keepalive_timeout_ms, 0);
    assert_int_equal(f->s.http.body_size_max, 0);
    assert_false(f->s.sockets.defer_accept);
    good(f, "--http-keepalive --forwarded-allow-ips 10.0.0.0/8,::1 --forwarded-allow-ips unix app");
    assert_int_equal(f->s.http.keepalive_timeout_ms, PN_HTTP_KEEPALIVE_TIMEOUT_MS);
    assert_int_equal(f->s.http.proxies.count, 3);
    assert_string_equal(f->s.http.proxies.items[1], "::1");
    bad(f, -EINVAL,
        "option '-z': bad value '0': expected a time from 1ms to 86400 in seconds (or with ms, s, "
        "m "
        "or h after it)",
        "-z 0 app");
}

static void the_log_is_a_file(void **state)
{
    struct fixture *f = *state;
    good(f, "--log-level debug -L --logto2 ./a:1 app");
    assert_int_equal(f->s.log.level, PN_LOG_DEBUG);
    assert_true(f->s.log.disable_requests);
    good(f, "--logto a:b app");
    bad(f, -EINVAL,
        "'--logto 127.0.0.1:514': logging by UDP is not built yet; for a file of that name write "
        "'./127.0.0.1:514'",
        "--logto 127.0.0.1:514 app");
}

static void help_and_version_come_first(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(parse(f, "--version --help"), 0);
    assert_int_equal(f->s.action, PN_ACTION_VERSION);
    pn_settings_fini(&f->s);
    assert_int_equal(pn_settings_init(&f->s), 0);
    assert_int_equal(parse(f, "-h --nonsense"), -EINVAL);
    assert_int_equal(f->s.action, PN_ACTION_HELP);
    pn_settings_fini(&f->s);
    assert_int_equal(pn_settings_init(&f->s), 0);
    assert_int_equal(parse(f, "--help=false --help-all"), 0);
    assert_int_equal(f->s.action, PN_ACTION_HELP_ALL);
}

static void mistyped_names_are_recognised(void **state)
{
    struct fixture *f = *state;
    static const char *const pairs[][2] = {
        {"proceses", "processes"},
        {"vaccum", "vacuum"},
        {"guid", "gid"},
        {"gui", "gid"},
        {"process", "processes"},
        {"user", "uid"},
        {"thread", "threads"},
        {"http-sockt", "http-socket"},
        {"wsgifile", "wsgi-file"},
        {"backlog", "listen"},
        {"keep-alive", "http-keepalive"},
        {"graceful-timeout", "shutdown-timeout"},
    };
    for (size_t i = 0; i < PN_ARRAY_LEN(pairs); i++) {
        char line[64];
        char message[128];
        snprintf(line, sizeof line, "--%s 1 app", pairs[i][0]);
        snprintf(message, sizeof message, "unknown option '--%s': did you mean '--%s'?",
                 pairs[i][0], pairs[i][1]);
        bad(f, -EINVAL, message, line);
    }
}

static void harmless_options_are_accepted(void **state)
{
    struct fixture *f = *state;
    good(f, "--plugins python3,http --plugin python --plugins-dir /usr/lib/uwsgi -T -i --need-app "
            "--strict --no-default-app --thunder-lock --die-on-term --vacuum --ignore-sigpipe "
            "--ignore-write-errors --disable-write-exception --py-call-osafterfork "
            "--close-on-exec --tcp-nodelay app");
    good(f, "--wsgi-env-behavior holy --write-errors-tolerance 3 --http-auto-chunked "
            "--http-chunked-input --log-master --py-call-uwsgi-fork-hooks --close-on-exec2 app");
    bad(f, -ENOTSUP,
        "option '--plugins': there is no plugin 'php'; built in are python, http, asyncio, "
        "greenlet "
        "and ugreen",
        "--plugins python3,php app");
    bad(f, -EINVAL,
        "option '--die-on-term' cannot be switched off: SIGTERM always stops the server, "
        "gracefully.",
        "--die-on-term=false app");
}

/* Every name of the list of options that real configurations use is known by its name. */
static const char *const uwsgi_names[] = {
    "master processes workers threads enable-threads module wsgi wsgi-file file callable mount "
    "manage-script-name chdir chdir2 home virtualenv venv pyhome pythonpath python-path pp env "
    "pyargv plugins plugin plugins-dir lazy-apps lazy single-interpreter need-app vhost "
    "no-default-app strict show-config set-placeholder set-ph set import shared-import "
    "pymodule-alias optimize no-site py-tracebacker py-autoreload py-auto-reload "
    "wsgi-env-behavior disable-gc numa-fork py-call-osafterfork py-call-uwsgi-fork-hooks "
    "catch-exceptions",
    "socket uwsgi-socket http-socket http11-socket https-socket http https https2 http-to "
    "http-to-https protocol socket-protocol fastcgi-socket scgi-socket chmod-socket chown-socket "
    "chown umask listen buffer-size post-buffering post-buffering-bufsize limit-post http-timeout "
    "socket-timeout http-connect-timeout http-headers-timeout http-keepalive http-auto-chunked "
    "http-auto-gzip http-chunked-input http-raw-body http-websockets http-processes "
    "http-modifier1 http-enable-proxy-protocol enable-proxy-protocol add-header collect-header "
    "so-keepalive reuse-port tcp-nodelay shared-socket map-socket sni sni-dir "
    "ssl-sessions-use-cache https-session-context thunder-lock",
    "die-on-term exit-on-reload vacuum no-orphans reaper hook-master-start hook-post-fork "
    "hook-pre-app hook-as-root exec-pre-app exec-asap exec-as-root exec-as-user harakiri "
    "harakiri-verbose harakiri-graceful-timeout harakiri-graceful-signal "
    "harakiri-queue-threshold user-harakiri mule-harakiri spooler-harakiri max-requests "
    "max-requests-delta max-worker-lifetime max-worker-lifetime-delta min-worker-lifetime "
    "reload-on-rss evil-reload-on-rss reload-on-as limit-as reload-mercy worker-reload-mercy "
    "touch-reload touch-chain-reload touch-workers-reload touch-mules-reload touch-logrotate "
    "touch-logreopen fs-reload master-fifo cheaper cheaper-initial cheaper-step cheaper-overload "
    "cheaper-algo cheaper-busyness-max cheaper-busyness-min cheaper-busyness-multiplier "
    "cheaper-busyness-penalty cheaper-busyness-verbose cheaper-busyness-backlog-alert "
    "cheaper-rss-limit-soft cheaper-rss-limit-hard cheaper-idle idle die-on-idle",
    "uid gid add-gid chroot master-as-root cap namespace unshare cgroup auto-procname "
    "procname-prefix procname-prefix-spaced procname procname-master procname-append pidfile "
    "pidfile2 safe-pidfile daemonize daemonize2",
    "logto logto2 log-maxsize log-backupname logger req-logger log-route log-req-route "
    "disable-logging log-4xx log-5xx log-slow log-big log-zero log-format logformat log-encoder "
    "log-req-encoder log-date logdate log-x-forwarded-for log-master threaded-logger log-micros "
    "log-syslog logfile-chmod log-reopen log-drain log-filter memory-report stats stats-http "
    "stats-push stats-minified enable-metrics metric carbon statsd ignore-sigpipe "
    "ignore-write-errors disable-write-exception write-errors-tolerance",
    "static-map static-map2 check-static static-index static-expires static-expires-uri "
    "static-expires-type static-gzip static-gzip-all static-cache-paths static-skip-ext "
    "static-safe mimefile offload-threads file-serve-mode route route-run route-if route-if-not "
    "route-uri route-host route-label response-route cache2 cache lock-engine locks",
    "attach-daemon attach-daemon2 smart-attach-daemon legion-attach cron cron2 unique-cron mule "
    "mules farm spooler spooler-import spooler-chdir spooler-processes spooler-frequency "
    "spooler-max-tasks rpc gevent gevent-monkey-patch gevent-early-monkey-patch async asyncio "
    "greenlet ugreen loop",
    "ini xml json yaml inherit include if-env if-not-env endif for endfor if-file if-exists if-opt "
    "emperor vassals-inherit emperor-tyrant emperor-stats vassal-set zerg fork-server "
    "subscribe-to subscribe2 fastrouter http-subscription-server ksm close-on-exec cpu-affinity "
    "max-fd rlimit limit-nproc thread-stacksize close-on-exec2 so-write-timeout",
};

static void every_name_of_real_configurations_is_known(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < PN_ARRAY_LEN(uwsgi_names); i++) {
        char *names = strdup(uwsgi_names[i]);
        assert_non_null(names);
        for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) {
            int rc = pn_config_set(f->s.config, name, "", &f->err);
            if (rc == -EINVAL && strncmp(f->err.text, "unknown", 7) == 0)
                fail_msg("%s", f->err.text);
        }
        free(names);
    }
}

static void every_letter_of_real_configurations_is_known(void **state)
{
    struct fixture *f = *state;
    for (const char *letter = "pwHsCbltdLmMTiRzrSQAxyjJOvac"; *letter; letter++) {
        char argument[3] = {'-', *letter, '\0'};
        char *argv[] = {argument};
        int rc = pn_settings_parse(&f->s, 1, argv, &f->err);
        if (rc == -EINVAL && strncmp(f->err.text, "unknown", 7) == 0)
            fail_msg("%s", f->err.text);
    }
}

/* FILL bytes are used up first, so that each of the check's own copies once meets a full block. */
static void check_without_memory(size_t fill)
{
    struct fixture f = {0};
    assert_int_equal(pn_settings_init(&f.s), 0);
    assert_int_equal(parse(&f, "--greenlet --callable x mod"), 0);
    assert_non_null(pn_config_alloc(f.s.config, fill));
    pn_mem_fail_at(1, true);
    int rc = pn_settings_check(&f.s, &f.err);
    bool asked = pn_mem_fail_at(0, false) > 0;
    assert_int_equal(rc, asked ? -ENOMEM : 0);
    assert_string_equal(f.err.text, asked ? "no memory for the options" : "");
    pn_settings_fini(&f.s);
}

static void memory_may_run_out_in_the_check(void **state)
{
    (void)state;
    for (size_t fill = 16; fill <= 1024; fill += 16)
        check_without_memory(fill);
}

/* What uwsgi.opt is made from: names as written, flags without a value, nothing that is off. */
static void what_was_given_is_remembered(void **state)
{
    static const struct pn_config_use expected[] = {
        {"http-socket", ":9090"}, {"bind", "@x"},     {"processes", "2"}, {"master", NULL},
        {"virtualenv", "env"},    {"plugin", "http"}, {"chmod", "666"},   {"enable-threads", NULL},
    };
    struct fixture *f = *state;
    good(f, "--http-socket :9090 --bind=@x -p2 -M --no-defer-accept webapp.py --virtualenv env "
            "--plugin http --chmod --enable-threads");
    size_t count;
    const struct pn_config_use *uses = pn_config_uses(f->s.config, &count);
    assert_int_equal(count, PN_ARRAY_LEN(expected));
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(uses[i].name, expected[i].name);
        if (expected[i].value)
            assert_string_equal(uses[i].value, expected[i].value);
        else
            assert_null(uses[i].value);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(the_table_has_no_mistakes),
        CASE(presets_are_the_bounds),
        CASE(the_blocking_line_is_inline),
        CASE(the_non_blocking_line_is_fibers),
        CASE(the_carrier_follows_from_the_numbers),
        CASE(what_changes_nothing_is_said),
        CASE(applications_are_named_in_many_ways),
        CASE(applications_are_named_once_and_well),
        CASE(callables_are_names),
        CASE(sockets_are_kept_in_order),
        CASE(unix_paths_have_the_systems_bound),
        CASE(there_are_not_too_many_sockets),
        CASE(several_processes_have_a_master),
        CASE(http_has_its_bounds),
        CASE(the_log_is_a_file),
        CASE(help_and_version_come_first),
        CASE(mistyped_names_are_recognised),
        CASE(harmless_options_are_accepted),
        CASE(every_name_of_real_configurations_is_known),
        CASE(every_letter_of_real_configurations_is_known),
        CASE(what_was_given_is_remembered),
        CASE(memory_may_run_out_in_the_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
