/* SPDX-License-Identifier: Apache-2.0 */
/* From the first signal to the last connection:
 *
 *   SERVING --SIGTERM, SIGINT--> DRAINING --time is up, second signal--> CUTTING
 *                                   |                                       |
 *                                   +--no connection left--> loop stopped <-+--none left, or hard deadline
 *
 * Under a manager terminals and service managers signal every process of the group, and the manager
 * signals again: so there a repeated SIGTERM or SIGINT says nothing new, and SIGQUIT is the second
 * signal. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "http/ws_conn.h"
#include "main/load_guard.h"
#include "main/stop_guard.h"
#include "main/worker_state.h"

#define LOOK_NS (10 * PN_NS_PER_MS) /* how often the end is looked for while it nears */
/* From the cut to the end that nobody can delay: time for finally blocks. */
#define HARD_NS (2 * PN_NS_PER_SEC)
/* The guard is for what the loop cannot do: it leaves the loop the first chance. */
#define GUARD_MARGIN_NS (500 * PN_NS_PER_MS)

static struct pn_log *log_of(const struct pn__worker *w)
{
    return w->config->start->log;
}

static unsigned under_way(const struct pn__worker *w)
{
    struct pn_cores_stats stats;
    pn_cores_stats(w->cores, &stats);
    return stats.under_way + stats.queue_length + pn_gateway_open(w->config->gateway);
}

static void look_again(struct pn__worker *w)
{
    int64_t next = pn_loop_now_ns(w->loop) + LOOK_NS;
    /* Only memory can be missing: then what remains is cut at once. */
    if (pn_timer_set(w->loop, &w->stop_look, next) < 0)
        pn_loop_stop(w->loop);
}

/* Requests that still run get an exception and their waits end. */
static void cut(struct pn__worker *w)
{
    w->stage = PN__WORKER_CUTTING;
    pn__stop_guard_taken_over();
    w->deadline_ns = pn_loop_now_ns(w->loop) + HARD_NS;
    unsigned count = under_way(w);
    if (count)
        pn_log_warning(log_of(w), "%u request%s cut before the end", count,
                       count == 1 ? " is" : "s are");
    pn_gateway_cut(w->config->gateway);
    pn_cores_stop(w->cores, 0, HARD_NS);
    pn_cores_stop_now(w->cores);
}

static void end_accepting(struct pn__worker *w)
{
    pn_acceptor_destroy(w->acceptor);
    w->acceptor = NULL;
    pn__start_close_listeners(w->config->start);
}

/* --asyncio-drain: whether calls that are scheduled are still worth waiting for. */
static bool waits_for_calls(const struct pn__worker *w)
{
    const struct pn__worker_calls *calls = w->calls_begun ? w->config->calls : NULL;
    return calls && w->stage == PN__WORKER_DRAINING &&
           pn_loop_now_ns(w->loop) < w->calls_deadline_ns && calls->scheduled(calls->ctx) > 0;
}

static void stop_loop(struct pn__worker *w)
{
    if (w->calls_begun)
        w->config->calls->say_dropped(w->config->calls->ctx);
    pn_loop_stop(w->loop);
}

static void look(struct pn_timer *timer)
{
    struct pn__worker *w = pn_container_of(timer, struct pn__worker, stop_look);
    bool late = pn_loop_now_ns(w->loop) >= w->deadline_ns;
    if (w->stage == PN__WORKER_DRAINING)
        late = late || pn__stop_guard_is_last();
    if (w->acceptor &&
        (late || w->stage != PN__WORKER_DRAINING || !pn_acceptor_pending(w->acceptor)))
        end_accepting(w);
    bool idle = under_way(w) == 0 && !w->acceptor;
    if (w->stage == PN__WORKER_CUTTING && idle)
        pn_h1_close_all(w->h1);
    idle = idle && pn_h1_connections(w->h1) == 0;
    if ((idle && !waits_for_calls(w)) || (late && w->stage == PN__WORKER_CUTTING)) {
        stop_loop(w);
        return;
    }
    if (late && !idle)
        cut(w);
    look_again(w);
}

static void begin(struct pn__worker *w)
{
    int64_t grace_ms = w->config->start->settings.processes.shutdown_timeout_ms;
    size_t connections = pn_h1_connections(w->h1);
    w->stage = PN__WORKER_DRAINING;
    w->deadline_ns = pn_loop_update_now(w->loop) + grace_ms * PN_NS_PER_MS;
    w->calls_deadline_ns = pn_loop_now_ns(w->loop) +
                           w->config->start->settings.carrier.asyncio_drain_ms * PN_NS_PER_MS;
    pn_board_set_state(w->config->board, w->config->slot, PN_BOARD_STOPPING);
    pn_log_info(log_of(w), "stopping: %zu connection%s, %u request%s under way, %lld.%lld s to go",
                connections, connections == 1 ? "" : "s", under_way(w),
                under_way(w) == 1 ? "" : "s", (long long)(grace_ms / 1000),
                (long long)(grace_ms % 1000 / 100));
    /* What waits in the backlog was promised a server by the kernel. */
    pn_acceptor_stop(w->acceptor, true);
    if (!pn_acceptor_pending(w->acceptor))
        end_accepting(w);
    pn_h1_drain(w->h1);
    pn_ws_server_stop(w->websockets);
    look_again(w);
}

static void on_stop(void *ctx, int signo)
{
    struct pn__worker *w = ctx;
    bool first = w->stage == PN__WORKER_SERVING;
    bool managed = w->config->manager_pid != 0;
    if (first)
        begin(w);
    if (signo == SIGQUIT || (!first && !managed)) {
        if (w->stage != PN__WORKER_CUTTING)
            cut(w);
    }
}

static void on_hangup(void *ctx, int PN_UNUSED signo)
{
    pn_log_info(log_of(ctx), "SIGHUP: reloading is not built yet; nothing is done");
}

static void interrupt_inline(void *ctx)
{
    const struct pn__worker *w = ctx;
    w->config->interrupt();
}

static void interrupt_fiber(void *ctx)
{
    const struct pn__worker *w = ctx;
    pn_cores_cut_all(w->cores);
}

/* With threads the loop goes on beside a request that computes, and cuts it. */
static void (*interrupt_of(enum pn_carrier carrier))(void *ctx)
{
    if (carrier == PN_CARRIER_THREADS)
        return NULL;
    return carrier == PN_CARRIER_FIBERS ? interrupt_fiber : interrupt_inline;
}

int pn__worker_watch_signals(struct pn__worker *w)
{
    static const int stops[] = {SIGTERM, SIGINT, SIGQUIT};
    const struct pn__start *start = w->config->start;
    int rc = 0;
    pn_timer_init(&w->stop_look, look);
    for (size_t i = 0; rc == 0 && i < PN_ARRAY_LEN(stops); i++)
        rc = pn_signal_watch(w->loop, stops[i], on_stop, w);
    if (rc == 0)
        rc = pn_signal_watch(w->loop, SIGHUP, on_hangup, w);
    const struct pn__stop_guard_config guard = {
        .grace_ns = pn__start_grace_ns(start) + GUARD_MARGIN_NS,
        .last_ns = HARD_NS + GUARD_MARGIN_NS,
        .repeats_count = w->config->manager_pid == 0,
        .interrupt = interrupt_of(start->settings.carrier.kind),
        .ctx = w,
        .log = start->log,
        .out = start->out,
    };
    if (rc == 0)
        rc = pn__stop_guard_install(&guard);
    /* CPython does this at its start, unless its embedder asked otherwise. */
    signal(SIGPIPE, SIG_IGN);
    if (rc == 0)
        return PN_EXIT_OK;
    pn__start_error(start, "signals cannot be watched: %s", strerror(-rc));
    return PN_EXIT_ERROR;
}

void pn__worker_unwatch_signals(struct pn__worker *w)
{
    pn__stop_guard_remove();
    pn_timer_cancel(w->loop, &w->stop_look);
    pn_signal_unwatch_all(w->loop);
    /* The listeners are closed: one that comes still later may end what the application does now. */
    if (w->stage != PN__WORKER_SERVING)
        pn__load_guard_end();
}

void pn__worker_say_lost(struct pn__worker *w)
{
    pn_log_error(log_of(w), "%u requests did not end in time and are lost", under_way(w));
}
