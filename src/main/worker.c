/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the rooms from left to right, runs them, and takes them down in the opposite order.
 * worker_stop.c has the way from the first signal to the last connection. */
#include "main/worker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/mem.h"
#include "http/access_log.h"
#include "http/ws_conn.h"
#include "main/flush_poller.h"
#include "main/stop_guard.h"
#include "main/worker_state.h"
#include "wait/wait.h"

/* --- Figures ---------------------------------------------------------------------------------- */

static void publish(struct pn__worker *w)
{
    struct pn_h1_stats http;
    struct pn_cores_stats cores;
    pn_h1_stats(w->h1, &http);
    pn_cores_stats(w->cores, &cores);
    const struct pn_board_figures figures = {
        .accepted = http.accepted,
        .requests = http.requests,
        .bad_requests = http.bad_requests,
        .cancelled = http.cancelled,
        .waits = cores.waits,
        .hand_overs = cores.switches,
    };
    pn_board_publish(w->config->board, w->config->slot, &figures);
}

/* At the end of a turn, and before a request sleeps with the loop: so not by a task, for which such a one would have to
 * give the loop away. */
static void turn_over(void *ctx)
{
    struct pn__worker *w = ctx;
    if (!w->came_in)
        return;
    w->came_in = false;
    publish(w);
    /* A request may have loaded a library whose waits nobody has redirected yet. */
    if (w->config->forks->redirected)
        pn_wait_scan_later();
}

/* --- What the wire asks and tells -------------------------------------------------------------- */

/* Stands before the gateway, so that a turn with a request in it ends in figures. */
static void start_request(struct pn_handler *handler, struct pn_exchange *x)
{
    struct pn__worker *w = pn_container_of(handler, struct pn__worker, handler);
    w->came_in = true;
    /* A blocking worker finds its deadline between two of the clients that wait for it. */
    if (pn_unlikely(pn__stop_guard_is_last()))
        pn_exchange_answer_status(x, 503, true);
    else
        w->next->start(w->next, x);
}

static void peer_gone(struct pn_handler *handler, struct pn_peer *peer)
{
    struct pn__worker *w = pn_container_of(handler, struct pn__worker, handler);
    if (w->next->peer_gone)
        w->next->peer_gone(w->next, peer);
}

static void on_accept(void *ctx, const struct pn_accepted *accepted)
{
    struct pn__worker *w = ctx;
    w->came_in = true;
    pn_h1_accept(w->h1, accepted);
}

static void on_access(void *ctx, const struct pn_access *access)
{
    struct pn__worker *w = ctx;
    pn_access_log_write(&w->access_log, access);
}

/* The wire's callbacks share one context, which is the worker. */
static bool is_trusted(void *ctx, const struct sockaddr *address, socklen_t len)
{
    const struct pn__worker *w = ctx;
    return pn__start_is_trusted(w->config->start, address, len);
}

/* A core that came back on loan ends its answer and starts nothing. */
static bool may_continue(void *ctx PN_UNUSED)
{
    return pn_core_is_runner(pn_core_self());
}

/* --- Building --------------------------------------------------------------------------------- */

static int fail(const struct pn__worker *w, const char *what, int error)
{
    pn__start_error(w->config->start, "%s: %s", what, strerror(error));
    return PN_EXIT_ERROR;
}

static int make_loop(struct pn__worker *w)
{
    const struct pn__start *start = w->config->start;
    struct pn_poller *poller = pn_poller_epoll_create();
    if (!poller)
        return fail(w, "the event loop cannot be made", errno);
    w->loop = pn_loop_create(pn__flush_poller_create(poller, start->log, start->out));
    w->config->forks->loop = w->loop;
    return PN_EXIT_OK;
}

static int make_cores(struct pn__worker *w)
{
    const struct pn_settings_carrier *carrier = &w->config->start->settings.carrier;
    const struct pn_cores_config config = {
        .carrier = carrier->kind,
        .count = (unsigned)carrier->cores,
        .stack_size = (size_t)carrier->fiber_stack_size,
        .queue_max = (unsigned)carrier->queue_size,
        .queue_timeout_ns = carrier->queue_timeout_ms * PN_NS_PER_MS,
        .lease_ns = carrier->lease_ms * PN_NS_PER_MS,
        .log_blocking_ns = carrier->log_blocking_ms * PN_NS_PER_MS,
        .host = pn_gateway_host(w->config->gateway),
    };
    /* Who holds the GIL and who doesn't: more of them seldom allocate at once. */
    if (carrier->kind == PN_CARRIER_THREADS)
        pn_mem_limit_arenas(PN_CORE_MALLOC_ARENAS);
    w->cores = pn_cores_create(w->loop, &config);
    if (!w->cores)
        return fail(w, "the cores cannot be made", errno);
    w->config->forks->cores = w->cores;
    int rc =
        pn_gateway_start(w->config->gateway, w->cores, w->config->slot + 1, w->config->manager_pid);
    if (rc < 0)
        return fail(w, "the gateway cannot be started", -rc);
    w->gateway_started = true;
    const struct pn__worker_calls *calls = w->config->calls;
    w->calls_begun = calls && calls->begin(calls->ctx, w->cores) == 0;
    return calls && !w->calls_begun ? PN_EXIT_ERROR : PN_EXIT_OK;
}

static int make_http(struct pn__worker *w)
{
    const struct pn__start *start = w->config->start;
    const struct pn_settings_http *http = &start->settings.http;
    const struct pn_net_config net = {
        .header_timeout_ns = http->header_timeout_ms * PN_NS_PER_MS,
        .body_timeout_ns = http->body_timeout_ms * PN_NS_PER_MS,
        .keepalive_timeout_ns = http->keepalive_timeout_ms * PN_NS_PER_MS,
        .write_timeout_ns = http->write_timeout_ms * PN_NS_PER_MS,
        .linger_timeout_ns = PN_HTTP_LINGER_TIMEOUT_MS * PN_NS_PER_MS,
    };
    /* No keep-alive at all is one request on each connection. */
    unsigned requests_max = http->keepalive_timeout_ms ? (unsigned)http->keepalive_requests : 1;
    const struct pn_h1_config config = {
        .head_size_max = (size_t)http->head_size_max,
        .target_size_max = (size_t)http->target_size_max,
        .line_size_max = (size_t)http->line_size_max,
        .headers_max = (unsigned)http->headers_max,
        .body_size_max = http->body_size_max ? http->body_size_max : INT64_MAX,
        .body_buffer_size = (size_t)http->body_buffer_size,
        .keepalive_requests_max = requests_max,
        .on_access = start->settings.log.disable_requests ? NULL : on_access,
        .is_trusted = is_trusted,
        .may_continue = may_continue,
        .ctx = w,
    };
    pn_access_log_init(&w->access_log, start->log);
    w->net = pn_net_create(w->loop, &net);
    w->next = pn_gateway_handler(w->config->gateway);
    w->handler = (struct pn_handler){.start = start_request, .peer_gone = peer_gone};
    w->h1 = pn_h1_create(w->net, &config, &w->handler);
    pn_loop_set_turn_over(w->loop, turn_over, w);
    return PN_EXIT_OK;
}

static int make_websockets(struct pn__worker *w)
{
    const struct pn_settings_websocket *settings = &w->config->start->settings.websocket;
    const struct pn_ws_config config = {
        .limits = {.message_size_max = (size_t)settings->message_size_max,
                   .fragments_max = PN_WS_FRAGMENTS_MAX,
                   .ratio_max = PN_WS_RATIO_MAX},
        .ping_interval_ns = settings->ping_interval_ms * PN_NS_PER_MS,
        .ping_timeout_ns = settings->ping_timeout_ms * PN_NS_PER_MS,
        .compression = settings->deflate,
        .deflate = {.no_context_takeover = !settings->context_takeover,
                    .window_bits_max = (uint8_t)settings->window_bits},
    };
    w->websockets = pn_ws_server_create(w->loop, &config);
    pn_gateway_set_websockets(w->config->gateway, w->websockets);
    return PN_EXIT_OK;
}

/* The application's waits; in the inline carrier a wait simply blocks. */
static int redirect_waits(struct pn__worker *w)
{
    const struct pn_settings *settings = &w->config->start->settings;
    if (settings->redirect.disabled || settings->carrier.kind == PN_CARRIER_INLINE)
        return PN_EXIT_OK;
    const struct pn_wait_config config = {
        .log = w->config->start->log,
        .leave_alone = settings->redirect.leave.items,
        .leave_alone_count = settings->redirect.leave.count,
        .cores = w->cores,
    };
    int rc = pn_wait_install(&config);
    w->config->forks->redirected = rc == 0;
    return rc < 0 ? fail(w, "waiting calls cannot be redirected", -rc) : PN_EXIT_OK;
}

static int make_acceptor(struct pn__worker *w)
{
    struct pn__start *start = w->config->start;
    w->acceptor =
        pn_acceptor_create(w->loop, start->listeners, start->listener_count, on_accept, w);
    return w->acceptor ? PN_EXIT_OK : fail(w, "the listeners cannot be watched", errno);
}

static int build(struct pn__worker *w)
{
    static int (*const steps[])(struct pn__worker *) = {
        make_loop,       make_cores,     make_http,
        make_websockets, redirect_waits, pn__worker_watch_signals,
        make_acceptor,
    };
    for (size_t i = 0; i < PN_ARRAY_LEN(steps); i++) {
        int status = steps[i](w);
        if (status != PN_EXIT_OK)
            return status;
    }
    return PN_EXIT_OK;
}

/* --- The end ---------------------------------------------------------------------------------- */

/* Of the time that was given from the first signal on. */
static int64_t grace_left_ns(const struct pn__worker *w)
{
    int64_t left_ns = w->deadline_ns - pn_clock_mono_ns();
    return w->stage == PN__WORKER_DRAINING && left_ns > 0 ? left_ns : 0;
}

/* Whatever build made, the last first. */
static void take_down(struct pn__worker *w)
{
    if (w->acceptor)
        pn_acceptor_destroy(w->acceptor);
    if (w->loop)
        pn__worker_unwatch_signals(w);
    if (w->h1) {
        pn_loop_set_turn_over(w->loop, NULL, NULL);
        publish(w);
        pn_h1_close_all(w->h1);
    }
    if (w->calls_begun)
        w->config->calls->end(w->config->calls->ctx, grace_left_ns(w));
    if (w->gateway_started)
        pn_gateway_stop(w->config->gateway);
    pn_gateway_set_websockets(w->config->gateway, NULL);
    pn_ws_server_destroy(w->websockets);
    if (w->h1) {
        pn_loop_free_closed(w->loop); /* tasks that go on have held their connections until now */
        pn_h1_destroy(w->h1);
        pn_net_destroy(w->net);
    }
    if (w->config->forks->redirected)
        pn_wait_uninstall();
    w->config->forks->redirected = false;
    w->config->forks->cores = NULL;
    if (w->cores)
        pn_cores_destroy(w->cores);
    w->config->forks->loop = NULL;
    if (w->loop)
        pn_loop_destroy(w->loop);
}

static void say_the_end(const struct pn__worker *w)
{
    struct pn_board_view view;
    pn_board_read(w->config->board, w->config->slot, &view);
    int64_t lived_ns = pn_clock_mono_ns() - view.started_ns;
    pn_log_info(w->config->start->log,
                "worker %u ended after %lld s: %llu requests, %llu refused, %llu cut short, %llu "
                "waits",
                w->config->slot + 1, (long long)(lived_ns / PN_NS_PER_SEC),
                (unsigned long long)view.figures.requests,
                (unsigned long long)view.figures.bad_requests,
                (unsigned long long)view.figures.cancelled, (unsigned long long)view.figures.waits);
}

int pn__worker_run(const struct pn__worker_config *config)
{
    struct pn__worker w = {.config = config};
    pn_board_start(config->board, config->slot, (int)getpid(), pn_clock_mono_ns());
    int status = build(&w);
    if (status == PN_EXIT_OK) {
        pn_board_set_state(config->board, config->slot, PN_BOARD_READY);
        if (config->ready)
            config->ready(config->ctx);
        int rc = pn_cores_run(w.cores);
        if (rc == -ETIMEDOUT) {
            pn__worker_say_lost(&w);
            return PN_EXIT_CUT;
        }
        if (rc < 0)
            status = fail(&w, "the worker cannot run", -rc);
    }
    take_down(&w);
    pn_board_set_state(config->board, config->slot, PN_BOARD_ENDED);
    if (status == PN_EXIT_OK)
        say_the_end(&w);
    return status;
}
