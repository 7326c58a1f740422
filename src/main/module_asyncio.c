/* SPDX-License-Identifier: Apache-2.0 */
/* --asyncio and ASGI: the home loop (src/gateway/aio.h) from the application's loading to the worker's end. */
#include "main/module_asyncio.h"

#include "gateway/pycompat.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "gateway/aio.h"

/* How long tasks that were cancelled may clean up at the worker's end. */
#define CLEAN_UP_NS PN_NS_PER_SEC

/* Like a SIGTERM from outside: a callback has called sys.exit(). */
static void exit_wanted(void *ctx PN_UNUSED)
{
    (void)kill(getpid(), SIGTERM);
}

/* Where the loop still is as it was, and runs itself. */
static void wind_up(void *ctx)
{
    const struct pn__asyncio *a = ctx;
    int64_t left_ns = a->left_ns > CLEAN_UP_NS ? a->left_ns : CLEAN_UP_NS;
    pn_gateway_lifespan_shutdown(a->gateway, left_ns);
}

int pn__asyncio_create(struct pn__asyncio *a, struct pn_gateway *gateway, struct pn_log *log)
{
    const struct pn_aio_home_config config = {.exit_wanted = exit_wanted, .log = log};
    a->gateway = gateway;
    a->log = log;
    a->home = pn_aio_home_create(&config);
    if (!a->home) {
        PyErr_Print();
        return -1;
    }
    pn_aio_home_on_end(a->home, wind_up, a);
    pn_gateway_set_aio_home(gateway, a->home);
    return 0;
}

static unsigned extensions_of(const struct pn_settings_asgi *asgi)
{
    return (asgi->trailers ? PN_ASGI_TRAILERS : 0) | (asgi->pathsend ? PN_ASGI_PATHSEND : 0) |
           (asgi->zerocopysend ? PN_ASGI_ZEROCOPYSEND : 0) |
           (asgi->early_hint ? PN_ASGI_EARLY_HINT : 0) |
           (asgi->websocket_response ? PN_ASGI_WEBSOCKET_RESPONSE : 0) |
           (asgi->debug ? PN_ASGI_DEBUG : 0);
}

int pn__asyncio_use_asgi(struct pn__asyncio *a, const struct pn__start *start)
{
    const struct pn_settings_asgi *asgi = &start->settings.asgi;
    char err[512];
    const struct pn_gateway_asgi config = {
        .version = asgi->kind == PN_INTERFACE_ASGI2 ? 2 : 3,
        .root_path = asgi->root_path ? asgi->root_path : "",
        .extensions = extensions_of(asgi),
        .lifespan = asgi->lifespan != PN_LIFESPAN_OFF,
        .lifespan_required = asgi->lifespan == PN_LIFESPAN_ON,
        .home = a->home,
    };
    a->is_asgi = true;
    if (pn_gateway_use_asgi(a->gateway, &config, start->settings.carrier.kind,
                            (unsigned)start->settings.carrier.cores, err, sizeof err) == 0)
        return PN_EXIT_OK;
    pn__start_error(start, "%s", err);
    return PN_EXIT_ERROR;
}

int pn__asyncio_start_up(struct pn__asyncio *a)
{
    int rc = a->is_asgi ? pn_gateway_lifespan_startup(a->gateway) : 0;
    if (rc == 0)
        return PN_EXIT_OK;
    return rc == -EINTR ? PN_EXIT_INTERRUPTED : PN_EXIT_APP;
}

static int begin(void *ctx, struct pn_cores *cores)
{
    struct pn__asyncio *a = ctx;
    if (pn_aio_home_bind(a->home, cores) == 0 && pn_aio_home_begin(a->home) == 0)
        return 0;
    PyErr_Print();
    pn_aio_home_end(a->home, CLEAN_UP_NS); /* no effect when it was not bound */
    return -1;
}

static size_t scheduled(void *ctx)
{
    const struct pn__asyncio *a = ctx;
    return pn_aio_home_scheduled(a->home);
}

/* An ASGI application has tasks of its own that sleep; the lifespan's end is where it ends them. */
static void say_dropped(void *ctx)
{
    const struct pn__asyncio *a = ctx;
    if (!a->is_asgi)
        pn_aio_home_say_dropped(a->home);
}

static void end(void *ctx, int64_t left_ns)
{
    struct pn__asyncio *a = ctx;
    a->left_ns = left_ns;
    pn_aio_home_end(a->home, CLEAN_UP_NS);
}

struct pn__worker_calls pn__asyncio_calls(struct pn__asyncio *a)
{
    return (struct pn__worker_calls){
        .begin = begin, .scheduled = scheduled, .say_dropped = say_dropped, .end = end, .ctx = a};
}
