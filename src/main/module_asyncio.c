/* SPDX-License-Identifier: Apache-2.0 */
/* --asyncio: the home loop (src/gateway/aio.h) from the application's loading to the worker's end. */
#include "main/module_asyncio.h"

#include "gateway/pycompat.h"

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

struct pn_aio_home *pn__asyncio_create(struct pn_log *log)
{
    const struct pn_aio_home_config config = {.exit_wanted = exit_wanted, .log = log};
    struct pn_aio_home *home = pn_aio_home_create(&config);
    if (!home)
        PyErr_Print();
    return home;
}

static int begin(void *ctx, struct pn_cores *cores)
{
    if (pn_aio_home_bind(ctx, cores) == 0 && pn_aio_home_begin(ctx) == 0)
        return 0;
    PyErr_Print();
    pn_aio_home_end(ctx, CLEAN_UP_NS); /* no effect when it was not bound */
    return -1;
}

static size_t scheduled(void *ctx)
{
    return pn_aio_home_scheduled(ctx);
}

static void say_dropped(void *ctx)
{
    pn_aio_home_say_dropped(ctx);
}

static void end(void *ctx)
{
    pn_aio_home_end(ctx, CLEAN_UP_NS);
}

struct pn__worker_calls pn__asyncio_calls(struct pn_aio_home *home)
{
    return (struct pn__worker_calls){.begin = begin,
                                     .scheduled = scheduled,
                                     .say_dropped = say_dropped,
                                     .end = end,
                                     .ctx = home};
}
