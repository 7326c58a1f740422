/* SPDX-License-Identifier: Apache-2.0 */
/* Who is who: the process that was started, and those that it forks.
 *
 *   without --master:   serve_worker
 *   with it:            serve_manager --fork--> serve_generation --fork--> serve_worker (N times)
 *
 * A fork returns here in the child too, which then becomes the next one and returns to Python with
 * its own exit status in the end: every process leaves by the interpreter's ordinary way. The
 * manager never runs Python code, but for the hooks that stand around its own forks. */
#include "main/module.h"

#include "gateway/pycompat.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "gateway/aio.h"
#include "main/affinity.h"
#include "main/describe.h"
#include "main/load_guard.h"
#include "main/module_app.h"
#include "main/module_asyncio.h"
#include "main/worker.h"
#include "manager/manager.h"

enum { ERROR_TEXT_MAX = 512 };

/* A worker ends two seconds after its grace, or its guard ends it; who waits for it waits longer. */
#define GENERATION_MARGIN_NS (3 * PN_NS_PER_SEC)
#define MANAGER_MARGIN_NS    (4 * PN_NS_PER_SEC)

struct serve {
    struct pn__start *start;
    struct pn__module *module;
    struct pn__forks forks;
    struct pn_board *board;     /* owned by each process that inherits it */
    struct pn_gateway *gateway; /* likewise; NULL until the application is loaded */
    struct pn__asyncio asyncio; /* likewise */
    struct pn_manager *manager; /* this process's; NULL where there is none */
    pid_t manager_pid;          /* of the first process; 0: there is none */
    int ready_fd;               /* how a worker tells its generation; -1 */
    unsigned slot;              /* the worker's number, from 0 on */
};

static void after_fork_child(void *ctx)
{
    struct serve *s = ctx;
    pn_logstream_after_fork_child(&s->module->streams);
    if (s->asyncio.home && !s->forks.own)
        pn_aio_home_after_fork_child(s->asyncio.home);
}

/* --- The application -------------------------------------------------------------------------- */

/* For uwsgi.opt. NULL when nothing was given; the caller frees it. */
static struct pn_gateway_option *given_options(const struct pn_settings *settings, size_t *count)
{
    const struct pn_config_use *uses = pn_config_uses(settings->config, count);
    struct pn_gateway_option *options = *count ? pn_xcalloc(*count, sizeof *options) : NULL;
    for (size_t i = 0; i < *count; i++)
        options[i] = (struct pn_gateway_option){uses[i].name, uses[i].value};
    return options;
}

/* `pelton.RequestCut` and its like, for applications that catch them. They are the gateway's, so that
 * outside the server there are none. */
static void publish_exceptions(struct pn_gateway *gateway)
{
    PyObject *package = PyImport_ImportModule("pelton");
    if (package) {
        (void)PyObject_SetAttrString(package, "ClientDisconnected",
                                     pn_gateway_client_disconnected(gateway));
        (void)PyObject_SetAttrString(package, "RequestCut", pn_gateway_request_cut(gateway));
    }
    Py_XDECREF(package);
    PyErr_Clear();
}

/* NULL: it is no unix socket. */
static const char *unix_path(const struct pn_listener *listener)
{
    const char *text = pn_listener_text(listener);
    if (!pn_listener_is_unix(listener))
        return NULL;
    return strncmp(text, "unix:", 5) == 0 ? text + 5 : text;
}

static struct pn_gateway *make_gateway(struct serve *s)
{
    const struct pn_settings *settings = &s->start->settings;
    struct pn_gateway_server servers[PN_LISTENERS_MAX];
    char err[ERROR_TEXT_MAX];
    for (size_t i = 0; i < s->start->listener_count; i++) {
        const struct pn_listener *listener = s->start->listeners[i];
        servers[i] = (struct pn_gateway_server){
            .listener = listener,
            .name = pn_listener_host(listener),
            .port = pn_listener_port(listener),
            .unix_path = unix_path(listener),
        };
    }
    size_t option_count;
    struct pn_gateway_option *options = given_options(settings, &option_count);
    const struct pn_gateway_config config = {
        .carrier = settings->carrier.kind,
        .cores = (unsigned)settings->carrier.cores,
        .processes = (unsigned)settings->processes.processes,
        .body_timeout_ns = settings->http.body_timeout_ms * PN_NS_PER_MS,
        .write_timeout_ns = settings->http.write_timeout_ms * PN_NS_PER_MS,
        .servers = servers,
        .server_count = s->start->listener_count,
        .options = options,
        .option_count = option_count,
        .is_trusted = pn__start_is_trusted,
        .trust_ctx = s->start,
        .log = s->start->log,
    };
    struct pn_gateway *gateway = pn_gateway_create(&config, err, sizeof err);
    free(options);
    if (!gateway)
        pn__start_error(s->start, "%s", err);
    else
        publish_exceptions(gateway);
    return gateway;
}

/* An interruption that came too late hits nothing any more. */
static void drop_interruption(void)
{
    if (PyErr_CheckSignals() < 0)
        PyErr_Clear();
}

/* From here on the application's code runs. False: the process has been told to stop already. */
static bool begin_loading(void)
{
    return !pn__load_guard_pass(true);
}

/* True when the process was told to stop meanwhile, whoever swallowed the exception. */
static bool end_loading(void)
{
    bool stop = pn__load_guard_pass(false);
    if (stop)
        drop_interruption();
    return stop;
}

/* No request runs any more. */
static void unload(struct serve *s)
{
    pn__load_guard_end();
    pn_gateway_stop(s->gateway);
    pn_gateway_destroy(s->gateway);
    pn_aio_home_destroy(s->asyncio.home);
    s->gateway = NULL;
    s->asyncio = (struct pn__asyncio){0};
}

/* The application speaks KIND: an enum pn_exit_status. */
static int set_interface(struct serve *s, enum pn_interface kind)
{
    struct pn_config_error err;
    if (pn_settings_set_interface(&s->start->settings, kind, &err) < 0) {
        pn__start_error(s->start, "%s", err.text);
        return PN_EXIT_CONFIG;
    }
    if (kind == PN_INTERFACE_WSGI)
        return PN_EXIT_OK;
    if (!s->asyncio.home && pn__asyncio_create(&s->asyncio, s->gateway, s->start->log) < 0)
        return PN_EXIT_ERROR;
    return pn__asyncio_use_asgi(&s->asyncio, s->start);
}

/* Makes the gateway with its application: an enum pn_exit_status. */
static int load(struct serve *s)
{
    int status = PN_EXIT_APP;
    s->gateway = make_gateway(s);
    if (!s->gateway)
        return PN_EXIT_CONFIG;
    if (s->start->settings.carrier.has_asyncio &&
        pn__asyncio_create(&s->asyncio, s->gateway, s->start->log) < 0) {
        unload(s);
        return PN_EXIT_ERROR;
    }
    enum pn_interface kind = PN_INTERFACE_AUTO;
    struct _object *app = begin_loading() ? pn__app_load(s->start, &kind, &status) : NULL;
    if (end_loading() && status != PN_EXIT_INTERRUPTED) {
        pn_log_info(s->start->log, "told to stop while the application was being loaded");
        Py_CLEAR(app);
        status = PN_EXIT_INTERRUPTED;
    }
    int rc = app ? pn_gateway_set_app(s->gateway, app) : -EINVAL;
    if (rc == 0)
        status = set_interface(s, kind);
    if (status == PN_EXIT_OK)
        return status;
    if (app && rc < 0)
        pn__start_error(s->start, "the application '%s' cannot be used: %s",
                        s->start->settings.app.target, strerror(-rc));
    unload(s);
    return status;
}

/* Calls functions of the gc module; what goes wrong there is no reason to stop. */
static void call_gc(const char *first, const char *second)
{
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *done = gc ? PyObject_CallMethod(gc, first, NULL) : NULL;
    Py_XDECREF(done);
    done = gc && second ? PyObject_CallMethod(gc, second, NULL) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(gc);
    PyErr_Clear();
}

/* What is alive now is alive in every worker: the collector leaves those pages shared. */
static void freeze_memory(void)
{
    call_gc("collect", "freeze");
}

/* Before the interpreter ends: it finds no cycle, and runs no finaliser, among what is frozen. */
static void thaw_memory(const struct serve *s)
{
    if (s->manager_pid && !s->start->settings.processes.lazy_apps)
        call_gc("unfreeze", NULL);
}

/* --- A worker --------------------------------------------------------------------------------- */

static void worker_is_ready(void *ctx)
{
    struct serve *s = ctx;
    pn__start_done(s->start);
    if (s->manager_pid == 0) {
        pn__describe_serving(s->start);
    } else {
        pn_log_info(s->start->log, "worker %u is ready: pid %d", s->slot + 1, (int)getpid());
        pn_log_flush(s->start->log);
        pn_manager_say_ready(s->ready_fd);
        s->ready_fd = -1;
    }
    pn_log_flush(s->start->log);
    if (pn__load_guard_came())
        raise(SIGTERM);
}

/* What CPython does for Ctrl-C: raises in the main thread as soon as it runs bytecode. */
static void interrupt(void)
{
    (void)PyErr_SetInterruptEx(SIGINT);
}

/* Cores are still inside requests, so the interpreter cannot be finalised. */
PN_NORETURN static void leave(struct serve *s, int status)
{
    pn_logstream_detach(&s->module->streams);
    pn_log_flush(s->start->out);
    pn_log_flush(s->start->log);
    _exit(status);
}

/* An enum pn_exit_status. A stop that comes meanwhile is seen by worker_is_ready. */
static int start_up(struct serve *s)
{
    int status = PN_EXIT_INTERRUPTED;
    if (begin_loading())
        status = pn__asyncio_start_up(&s->asyncio);
    else
        pn_log_info(s->start->log, "told to stop before anything was served");
    (void)end_loading();
    return status;
}

/* Before the worker's threads are made, and those of an application that it loads itself. A worker serves where it may
 * when it can't be bound. */
static void bind_to_processors(const struct serve *s)
{
    char text[256];
    int count = s->start->settings.processes.cpu_affinity;
    if (count <= 0)
        return;
    int rc = pn__affinity_bind(s->slot, (unsigned)count, text, sizeof text);
    if (rc < 0)
        pn_log_warning(s->start->log, "worker %u could not be bound to processors: %s", s->slot + 1,
                       strerror(-rc));
    else
        pn_log_info(s->start->log, "worker %u runs on processor %s", s->slot + 1, text);
}

static int serve_worker(struct serve *s)
{
    bind_to_processors(s);
    int status = s->gateway ? PN_EXIT_OK : load(s);
    if (status != PN_EXIT_OK)
        return status;
    status = start_up(s);
    if (status != PN_EXIT_OK) {
        thaw_memory(s);
        unload(s);
        return status;
    }
    const struct pn__worker_calls calls = pn__asyncio_calls(&s->asyncio);
    const struct pn__worker_config config = {
        .start = s->start,
        .forks = &s->forks,
        .gateway = s->gateway,
        .board = s->board,
        .calls = s->asyncio.home ? &calls : NULL,
        .slot = s->slot,
        .manager_pid = s->manager_pid,
        .interrupt = interrupt,
        .ready = worker_is_ready,
        .ctx = s,
    };
    status = pn__worker_run(&config);
    if (status == PN_EXIT_CUT)
        leave(s, status);
    drop_interruption();
    thaw_memory(s);
    unload(s);
    return status;
}

/* --- Keeping processes ------------------------------------------------------------------------ */

static pid_t fork_process(void *ctx)
{
    struct serve *s = ctx;
    return pn__fork_python(&s->forks);
}

static void close_listeners(void *ctx)
{
    struct serve *s = ctx;
    pn__start_close_listeners(s->start);
}

/* Runs CONFIG's children. True in a child, with its number; false in this process, with a status. */
static bool keep(struct serve *s, const struct pn_manager_config *config, int *value)
{
    s->manager = pn_manager_create(config);
    if (!s->manager) {
        pn__start_error(s->start, "processes cannot be managed: %s", strerror(errno));
        *value = PN_EXIT_ERROR;
        return false;
    }
    s->forks.manager = s->manager;
    if (pn__load_guard_came())
        raise(SIGTERM);
    bool is_child = pn_manager_run(s->manager, value) == PN_MANAGER_CHILD;
    if (is_child && config->board)
        s->ready_fd = pn_manager_ready_fd(s->manager);
    s->forks.manager = NULL;
    pn_manager_destroy(s->manager);
    s->manager = NULL;
    return is_child;
}

static struct pn_manager_config keep_config(struct serve *s)
{
    const struct pn_settings_processes *processes = &s->start->settings.processes;
    return (struct pn_manager_config){
        .log = s->start->log,
        .shutdown_ns = pn__start_grace_ns(s->start),
        .respawn_delay_ns = processes->respawn_delay_ms * PN_NS_PER_MS,
        .respawn_delay_max_ns = processes->respawn_delay_max_ms * PN_NS_PER_MS,
        .fork = fork_process,
        .stopping = close_listeners,
        .ctx = s,
    };
}

static void all_are_ready(void *ctx)
{
    struct serve *s = ctx;
    pn__start_done(s->start);
    pn__describe_serving(s->start);
    pn_log_flush(s->start->log);
}

/* While a generation sleeps, threads that the application started at its import go on. */
static void release_gil(void *ctx)
{
    PyThreadState **saved = ctx;
    *saved = PyEval_SaveThread();
}

static void take_gil(void *ctx)
{
    PyThreadState **saved = ctx;
    PyEval_RestoreThread(*saved);
}

static int serve_generation(struct serve *s)
{
    const struct pn_settings_processes *processes = &s->start->settings.processes;
    PyThreadState *saved = NULL;
    const struct pn_sleep_hooks hooks = {release_gil, take_gil, &saved};
    int value = PN_EXIT_OK;
    if (!processes->lazy_apps) {
        value = load(s);
        if (value != PN_EXIT_OK)
            return value;
        freeze_memory();
    }
    struct pn_manager_config config = keep_config(s);
    config.what = "worker";
    config.count = (unsigned)processes->processes;
    config.board = s->board;
    config.margin_ns = GENERATION_MARGIN_NS;
    config.ready = all_are_ready;
    config.sleep_hooks = &hooks;
    if (keep(s, &config, &value)) {
        s->slot = (unsigned)value;
        return serve_worker(s);
    }
    thaw_memory(s);
    if (s->gateway)
        unload(s);
    return value;
}

/* The console is the generation's from here on: it says what goes wrong with the application. */
static pid_t fork_generation(void *ctx)
{
    struct serve *s = ctx;
    pid_t pid = pn__fork_python(&s->forks);
    if (pid != 0)
        pn__start_done(s->start);
    return pid;
}

static int serve_manager(struct serve *s)
{
    int value;
    struct pn_manager_config config = keep_config(s);
    s->manager_pid = getpid();
    config.what = "generation";
    config.count = 1;
    config.is_top = true;
    config.margin_ns = MANAGER_MARGIN_NS;
    config.fork = fork_generation;
    pn_log_info(s->start->log, "manager is pid %d", (int)getpid());
    if (keep(s, &config, &value))
        return serve_generation(s);
    return value;
}

int pn__serve(struct pn__module *module, struct pn__start *start)
{
    struct serve s = {.start = start, .module = module, .ready_fd = -1};
    int status = PN_EXIT_ERROR;
    s.forks = (struct pn__forks){.start = start, .after_child = after_fork_child, .ctx = &s};
    pn__describe_start(start);
    s.board = pn_board_create((unsigned)start->settings.processes.processes);
    int rc = s.board ? pn__forks_watch(&s.forks) : -errno;
    if (rc < 0)
        pn__start_error(start, "the start failed: %s", strerror(-rc));
    else if (start->settings.processes.master)
        status = serve_manager(&s);
    else
        status = serve_worker(&s);
    (void)pn__forks_watch(NULL);
    pn_board_destroy(s.board);
    /* Somebody asked for the end: that is no failure, however early it was. */
    return status == PN_EXIT_INTERRUPTED && pn__load_guard_came() ? PN_EXIT_OK : status;
}
