/* SPDX-License-Identifier: Apache-2.0 */
/* What no single option can know: which settings go together, and what follows from all of them.
 * A setting that would change nothing is never passed over in silence: it is said in a note. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/bounds.h"
#include "main/settings.h"

enum {
    QUOTED_MAX = 96,
    NOTE_MAX = 512,
    STACK_UNIT = 64 * 1024, /* stacks are whole multiples: every page size divides it */
};

#define DEFAULT_ADDRESS "127.0.0.1:8000"

static const char *quote(char *out, struct pn_str text)
{
    return pn_config_quote(out, QUOTED_MAX, text);
}

static bool given(const struct pn_settings *settings, const char *option)
{
    return pn_config_given(settings->config, option) > 0;
}

static int note(struct pn_settings *settings, struct pn_config_error *err, const char *text)
{
    const char *copy = pn_config_strndup(settings->config, text, strlen(text));
    if (!copy || pn_config_list_add(settings->config, &settings->notes, copy) < 0)
        return pn_config_no_memory(err);
    return 0;
}

/* "'--x' changes nothing: WHY" for an option that was given. */
static int note_if_given(struct pn_settings *settings, struct pn_config_error *err,
                         const char *option, const char *why)
{
    char text[NOTE_MAX];
    if (!given(settings, option))
        return 0;
    snprintf(text, sizeof text, "'--%s' changes nothing: %s", option, why);
    return note(settings, err, text);
}

/* --- the application -------------------------------------------------------------------------- */

static bool is_name_byte(char c)
{
    /* What stands outside ASCII may be a letter: Python decides when it is imported. */
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (unsigned char)c >= 0x80;
}

/* Names with dots between them, none empty, none starting with a digit. */
static bool is_dotted_name(struct pn_str s)
{
    bool fresh = true;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.' && !fresh)
            fresh = true;
        else if (!is_name_byte(s.p[i]) || (fresh && s.p[i] >= '0' && s.p[i] <= '9'))
            return false;
        else
            fresh = false;
    }
    return s.n > 0 && !fresh;
}

static bool ends_with(struct pn_str s, const char *suffix)
{
    size_t n = strlen(suffix);
    return s.n > n && memcmp(s.p + s.n - n, suffix, n) == 0;
}

static bool looks_like_file(struct pn_str s)
{
    return ends_with(s, ".py") || ends_with(s, ".wsgi") || memchr(s.p, '/', s.n);
}

/* Cuts ":CALLABLE" off TEXT: off a module at the first colon, off a file only behind .py or .wsgi,
 * since a path may have colons of its own. */
static struct pn_str cut_callable(const char *text, bool is_file, struct pn_str *callable)
{
    const char *colon = is_file ? strrchr(text, ':') : strchr(text, ':');
    struct pn_str head = colon ? (struct pn_str){text, (size_t)(colon - text)} : pn_str_of(text);
    *callable = PN_STR_NONE;
    if (!colon || (is_file && !ends_with(head, ".py") && !ends_with(head, ".wsgi")))
        return pn_str_of(text);
    *callable = pn_str_of(colon + 1);
    return head;
}

/* NAME or NAME(): fills callable_name and call_factory. */
static int set_callable(struct pn_settings *settings, struct pn_str name,
                        struct pn_config_error *err)
{
    char quoted[QUOTED_MAX];
    struct pn_settings_app *app = &settings->app;
    struct pn_str bare = name;
    if (ends_with(name, "()")) {
        bare.n -= 2;
        app->call_factory = true;
    }
    if (memchr(bare.p, '(', bare.n))
        return pn_config_fail(err,
                              "'%s': a factory is called without arguments; write a function that "
                              "passes them, and name that one: 'NAME()'",
                              quote(quoted, name));
    if (!is_dotted_name(bare))
        return pn_config_fail(err, "'%s' is not the name of a callable", quote(quoted, name));
    app->callable_name = pn_config_strndup(settings->config, bare.p, bare.n);
    return app->callable_name ? 0 : pn_config_no_memory(err);
}

static int set_target(struct pn_settings *settings, const char *text, enum pn_app_kind kind,
                      struct pn_config_error *err)
{
    char quoted[QUOTED_MAX];
    char other[QUOTED_MAX];
    struct pn_settings_app *app = &settings->app;
    struct pn_str callable;
    struct pn_str target = cut_callable(text, kind == PN_APP_FILE, &callable);
    if (kind == PN_APP_MODULE && looks_like_file(target))
        return pn_config_fail(err, "'--module %s' names a file: use --wsgi-file",
                              quote(quoted, target));
    if (kind == PN_APP_MODULE && !is_dotted_name(target))
        return pn_config_fail(err, "'%s' is neither a module's name nor a Python file",
                              quote(quoted, target));
    if (callable.p && app->callable)
        return pn_config_fail(err, "the callable is named twice: '%s' and '--callable %s'",
                              quote(quoted, callable), quote(other, pn_str_of(app->callable)));
    if (app->callable)
        callable = pn_str_of(app->callable);
    app->kind = kind;
    app->target = pn_config_strndup(settings->config, target.p, target.n);
    if (!app->target)
        return pn_config_no_memory(err);
    return callable.p ? set_callable(settings, callable, err) : 0;
}

/* Exactly one of --module, --wsgi-file and the positional argument. */
static int choose_app(struct pn_settings *settings, struct pn_config_error *err)
{
    const struct pn_settings_app *app = &settings->app;
    if (app->module && app->wsgi_file)
        return pn_config_fail(err, "'--module' and '--wsgi-file' exclude each other: both name the "
                                   "application");
    if (app->positional && (app->module || app->wsgi_file)) {
        char quoted[QUOTED_MAX];
        return pn_config_fail(err, "'%s' and '--%s' exclude each other: both name the application",
                              quote(quoted, pn_str_of(app->positional)),
                              app->module ? "module" : "wsgi-file");
    }
    if (app->module)
        return set_target(settings, app->module, PN_APP_MODULE, err);
    if (app->wsgi_file)
        return set_target(settings, app->wsgi_file, PN_APP_FILE, err);
    if (!app->positional)
        return pn_config_fail(err, "no application is named: give MODULE:CALLABLE or FILE "
                                   "('pelton --help' tells more)");
    struct pn_str callable;
    struct pn_str file = cut_callable(app->positional, true, &callable);
    return set_target(settings, app->positional,
                      looks_like_file(file) ? PN_APP_FILE : PN_APP_MODULE, err);
}

static int check_app(struct pn_settings *settings, struct pn_config_error *err)
{
    struct pn_settings_app *app = &settings->app;
    app->kind = PN_APP_NONE;
    app->target = NULL;
    app->callable_name = NULL;
    app->call_factory = app->factory;
    int rc = choose_app(settings, err);
    if (rc == 0 && app->factory && !app->callable_name)
        return pn_config_fail(err, "'--factory' needs the factory's name: MODULE:NAME, or "
                                   "--callable NAME");
    return rc;
}

/* --- sockets ---------------------------------------------------------------------------------- */

/* The path (or abstract name) in an address of a unix socket; an empty view for all others. */
static struct pn_str unix_path(const char *address)
{
    struct pn_str s = pn_str_of(address);
    if (pn_str_starts(s, PN_STR("fd://")))
        return PN_STR_NONE;
    if (pn_str_starts(s, PN_STR("unix:")))
        return (struct pn_str){s.p + 5, s.n - 5};
    return s.p[0] == '@' || memchr(s.p, '/', s.n) ? s : PN_STR_NONE;
}

static int check_socket(const struct pn_settings_sockets *sockets, size_t index,
                        struct pn_config_error *err)
{
    struct pn_socket_setting *item = &sockets->items[index];
    const struct pn_str address = pn_str_of(item->address);
    char quoted[QUOTED_MAX];
    const char *scheme = strstr(item->address, "://");
    if (scheme && !pn_str_starts(address, PN_STR("fd://")))
        return pn_config_fail(err,
                              "option '--%s': '%s' is a URL; an address has no scheme: HOST:PORT",
                              item->option, quote(quoted, address));
    for (size_t i = 0; i < index; i++) {
        if (strcmp(sockets->items[i].address, item->address) == 0)
            return pn_config_fail(err, "option '--%s': '%s' is given twice", item->option,
                                  quote(quoted, address));
    }
    struct pn_str path = unix_path(item->address);
    size_t path_max = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
    item->is_unix = path.p != NULL;
    if (path.n > path_max)
        return pn_config_fail(err,
                              "option '--%s': the path has %zu bytes, and the system takes at most "
                              "%zu in a unix socket's name",
                              item->option, path.n, path_max);
    return 0;
}

static int check_sockets(struct pn_settings *settings, struct pn_config_error *err)
{
    struct pn_settings_sockets *sockets = &settings->sockets;
    bool any_unix = false;
    if (sockets->count == 0) {
        sockets->items = pn_config_alloc(settings->config, sizeof *sockets->items);
        if (!sockets->items)
            return pn_config_no_memory(err);
        sockets->items[0] =
            (struct pn_socket_setting){.option = "bind", .address = DEFAULT_ADDRESS};
        sockets->count = sockets->capacity = 1;
    }
    if (sockets->count > PN_LISTENERS_MAX)
        return pn_config_fail(err, "%zu addresses are given, and at most %d are possible",
                              sockets->count, PN_LISTENERS_MAX);
    for (size_t i = 0; i < sockets->count; i++) {
        int rc = check_socket(sockets, i, err);
        if (rc < 0)
            return rc;
        any_unix = any_unix || sockets->items[i].is_unix;
    }
    if (any_unix)
        return 0;
    int rc = note_if_given(settings, err, "chmod-socket", "no address is that of a unix socket");
    if (rc == 0)
        rc = note_if_given(settings, err, "chown-socket", "no address is that of a unix socket");
    return rc;
}

/* --- requests at the same time ---------------------------------------------------------------- */

static int choose_carrier(struct pn_settings *settings, struct pn_config_error *err)
{
    struct pn_settings_carrier *carrier = &settings->carrier;
    if (carrier->async && carrier->asyncio && carrier->async != carrier->asyncio)
        return pn_config_fail(
            err,
            "'--async %d' and '--asyncio %d' are two answers to one question, how "
            "many requests may wait at once: give one of them",
            carrier->async, carrier->asyncio);
    int fibers = carrier->asyncio ? carrier->asyncio : carrier->async;
    bool is_asgi = settings->asgi.kind >= PN_INTERFACE_ASGI;
    if (is_asgi && carrier->threads > 1)
        return pn_config_fail(
            err,
            "'--threads %d' is for WSGI: the tasks of an ASGI application all run in one thread; "
            "leave it out, and use '--processes N' for more cores",
            carrier->threads);
    if (is_asgi && !fibers && !carrier->threads)
        fibers = PN_CORE_ASGI_DEFAULT;
    if (fibers && carrier->threads > 1)
        return pn_config_fail(
            err,
            "'--threads %d' and '--%s %d' exclude each other: a request runs in a "
            "thread or in a fiber; give one of them",
            carrier->threads, carrier->asyncio ? "asyncio" : "async", fibers);
    carrier->has_asyncio = carrier->asyncio > 0 || is_asgi;
    /* Who names the application by uWSGI's options means uWSGI's carrier: a blocking one. */
    int otherwise = settings->app.positional ? PN_CORE_THREADS_DEFAULT : 1;
    int threads = carrier->threads ? carrier->threads : otherwise;
    carrier->cores = fibers ? fibers : threads;
    carrier->kind = PN_CARRIER_INLINE;
    if (fibers)
        carrier->kind = PN_CARRIER_FIBERS;
    else if (threads > 1)
        carrier->kind = PN_CARRIER_THREADS;
    return 0;
}

static int note_carrier(struct pn_settings *settings, struct pn_config_error *err)
{
    static const struct {
        const char *option;
        unsigned kinds; /* bits of the carriers that it means something to */
        const char *why;
    } rows[] = {
        {"greenlet", 1 << PN_CARRIER_FIBERS,
         "requests wait in fibers with --async N or --asyncio N only"},
        {"ugreen", 1 << PN_CARRIER_FIBERS,
         "requests wait in fibers with --async N or --asyncio N only"},
        {"fiber-stack-size", 1 << PN_CARRIER_FIBERS,
         "there are no fibers without --async N or "
         "--asyncio N"},
        {"lease", 1 << PN_CARRIER_THREADS, "it is for --threads N, with N above 1"},
        {"log-blocking", 1 << PN_CARRIER_INLINE | 1 << PN_CARRIER_FIBERS,
         "beside a thread that computes another one takes the event loop over"},
        {"queue-timeout", 1 << PN_CARRIER_THREADS | 1 << PN_CARRIER_FIBERS,
         "one request after the other is taken from the sockets, and none is queued"},
        {"queue-size", 1 << PN_CARRIER_THREADS | 1 << PN_CARRIER_FIBERS,
         "one request after the other is taken from the sockets, and none is queued"},
        {"no-redirect", 1 << PN_CARRIER_THREADS | 1 << PN_CARRIER_FIBERS,
         "one request at a time simply waits"},
        {"no-redirect-lib", 1 << PN_CARRIER_THREADS | 1 << PN_CARRIER_FIBERS,
         "one request at a time simply waits"},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < PN_ARRAY_LEN(rows); i++) {
        if (!(rows[i].kinds & 1u << settings->carrier.kind))
            rc = note_if_given(settings, err, rows[i].option, rows[i].why);
    }
    if (rc == 0 && !settings->carrier.has_asyncio)
        rc = note_if_given(settings, err, "asyncio-drain", "there is no loop without --asyncio N");
    return rc;
}

static int check_carrier(struct pn_settings *settings, struct pn_config_error *err)
{
    struct pn_settings_carrier *carrier = &settings->carrier;
    int rc = choose_carrier(settings, err);
    if (rc < 0)
        return rc;
    carrier->fiber_stack_size += STACK_UNIT - 1;
    carrier->fiber_stack_size -= carrier->fiber_stack_size % STACK_UNIT;
    /* Elsewhere a request that waits is nothing to report: inline it is how the carrier works, and
     * with threads another one goes on. */
    if (!given(settings, "log-blocking"))
        carrier->log_blocking_ms =
            carrier->kind == PN_CARRIER_FIBERS ? PN_SETTINGS_LOG_BLOCKING_MS : 0;
    return note_carrier(settings, err);
}

/* --- the rest --------------------------------------------------------------------------------- */

static int check_processes(struct pn_settings *settings, struct pn_config_error *err)
{
    struct pn_settings_processes *processes = &settings->processes;
    if (processes->processes > 1 && given(settings, "master") && !processes->master)
        return pn_config_fail(err, "'--processes %d' needs the master: leave '--no-master' out",
                              processes->processes);
    if (processes->processes > 1)
        processes->master = true;
    bool reversed = processes->respawn_delay_ms > processes->respawn_delay_max_ms;
    if (reversed && given(settings, "respawn-delay-max"))
        return pn_config_fail(err, "'--respawn-delay' is longer than '--respawn-delay-max'");
    if (reversed)
        processes->respawn_delay_max_ms = processes->respawn_delay_ms;
    return 0;
}

/* Who raises --buffer-size has large cookies or long queries, and uWSGI knows no other bound. */
static void fit_to_head(const struct pn_settings *settings, const char *option, int64_t *size)
{
    int64_t head = settings->http.head_size_max;
    bool follows = given(settings, "buffer-size") && !given(settings, option);
    if (follows || *size > head)
        *size = head;
}

/* uWSGI logs by UDP to an "ADDRESS:PORT"; a file of that name would surprise whoever wrote it. */
static bool is_udp_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    return colon && colon[1] && !strchr(text, '/') &&
           strspn(colon + 1, "0123456789") == strlen(colon + 1);
}

static int check_log(const struct pn_settings *settings, struct pn_config_error *err)
{
    char quoted[QUOTED_MAX];
    const char *file = settings->log.file;
    if (file && is_udp_address(file))
        return pn_config_fail(err,
                              "'--logto %s': logging by UDP is not built yet; for a file of that "
                              "name write './%s'",
                              quote(quoted, pn_str_of(file)), quoted);
    return 0;
}

static int note_asgi(struct pn_settings *settings, struct pn_config_error *err)
{
    static const char *const options[] = {"lifespan", "root-path"};
    int rc = 0;
    if (settings->asgi.kind != PN_INTERFACE_WSGI)
        return 0;
    for (size_t i = 0; rc == 0 && i < PN_ARRAY_LEN(options); i++)
        rc = note_if_given(settings, err, options[i], "the application speaks WSGI");
    return rc;
}

int pn_settings_set_interface(struct pn_settings *settings, enum pn_interface kind,
                              struct pn_config_error *err)
{
    settings->asgi.kind = kind;
    return pn_settings_check(settings, err);
}

int pn_settings_check(struct pn_settings *settings, struct pn_config_error *err)
{
    err->text[0] = '\0';
    settings->notes.count = 0;
    if (settings->asgi.interface != PN_INTERFACE_AUTO)
        settings->asgi.kind = (enum pn_interface)settings->asgi.interface;
    int rc = check_app(settings, err);
    if (rc == 0)
        rc = check_sockets(settings, err);
    if (rc == 0)
        rc = check_carrier(settings, err);
    if (rc == 0)
        rc = check_processes(settings, err);
    if (rc == 0)
        rc = check_log(settings, err);
    if (rc == 0)
        rc = note_asgi(settings, err);
    if (rc < 0)
        return rc;
    fit_to_head(settings, "max-target", &settings->http.target_size_max);
    fit_to_head(settings, "max-header-line", &settings->http.line_size_max);
    return 0;
}
