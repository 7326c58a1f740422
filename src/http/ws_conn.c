/* SPDX-License-Identifier: Apache-2.0 */
/* ws_conn.h's connections. Everything here runs owning the loop, so nothing of it changes while a function
 * runs, but for what the function calls: news may release the connection, and a call on the exchange may find it
 * cancelled. So each way in from outside is between enter and leave, which frees at the end only. */
#include "http/ws_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/check.h"
#include "base/mem.h"
#include "http/h1_names.h"
#include "loop/loop.h"

enum state { OPEN = 0, CLOSING = 1, ENDING = 2, GONE = 3 };

/* A message that waits behind another one. */
struct waiting {
    struct pn_list node;
    size_t size;
    int kind;
    char data[];
};

struct pn_ws_server {
    struct pn_loop *loop;
    struct pn_ws_config config;
    struct pn_list all; /* not GONE */
    size_t connections;
    bool stopped;
    struct pn_timeout_class ping;  /* a sign of life is due */
    struct pn_timeout_class pong;  /* a ping was sent */
    struct pn_timeout_class close; /* CLOSING */
};

struct pn_ws {
    unsigned magic;
    unsigned depth; /* frames of ours on the stack */
    struct pn_ws_server *server;
    struct pn_exchange *x; /* pinned; NULL when GONE */
    struct pn_list node;   /* in server->all */
    struct pn_timeout timeout;
    struct pn_task again; /* pending news, or reading goes on */
    void (*news)(struct pn_ws *ws, unsigned what);
    void *owner;
    unsigned pending; /* news that could not be told at once */
    enum state state;
    bool in_call;  /* of the handler's */
    bool released; /* by the handler */
    bool paused;   /* bytes may be here that were not read */
    bool pinged;   /* and no byte has come since */
    bool has_head; /* a message lies in the receiver */
    uint8_t head_kind;
    uint16_t status;     /* 0: nobody has closed it */
    uint16_t pongs_size; /* in OUT */
    uint8_t reason_size;
    char *reason; /* owned; NULL: none */
    struct pn_str head;
    struct pn_list queue; /* struct waiting */
    size_t queue_size;
    struct waiting *given; /* owned: what take gave last */
    struct pn_bytes out;   /* what the wire has not taken */
    struct pn_ws_deflate deflate;
    bool has_deflate;
    struct pn_ws_receiver receiver;
};

enum { MAGIC = 0x57534f43, COPY_MAX = 4096 };

static void pump(struct pn_ws *ws);

/* --- In and out of this file ------------------------------------------------------------------- */

static __attribute__((noinline)) void free_ws(struct pn_ws *ws)
{
    struct pn_list *node;
    while ((node = pn_list_pop_front(&ws->queue)))
        free(pn_list_entry(node, struct waiting, node));
    free(ws->given);
    free(ws->reason);
    pn_bytes_free(&ws->out);
    pn_ws_receiver_fini(&ws->receiver);
    pn_ws_deflate_fini(&ws->deflate);
    pn_task_cancel(&ws->again);
    ws->magic = 0;
    free(ws);
}

static void enter(struct pn_ws *ws)
{
    PN_CHECK_MAGIC(ws, MAGIC);
    ws->depth++;
}

/* WS may be gone afterwards. */
static void leave(struct pn_ws *ws)
{
    if (--ws->depth == 0 && ws->released && ws->state == GONE)
        free_ws(ws);
}

static void tell(struct pn_ws *ws, unsigned what)
{
    if (!ws->news)
        return;
    if (!ws->in_call) {
        ws->news(ws, what);
        return;
    }
    ws->pending |= what;
    pn_task_post(ws->server->loop, &ws->again);
}

static void run_again(struct pn_task *task)
{
    struct pn_ws *ws = pn_container_of(task, struct pn_ws, again);
    enter(ws);
    unsigned what = ws->pending;
    ws->pending = 0;
    if (what)
        tell(ws, what);
    if (ws->paused)
        pump(ws);
    leave(ws);
}

/* --- The end ----------------------------------------------------------------------------------- */

/* The first who closes says why. */
static void set_status(struct pn_ws *ws, unsigned status, struct pn_str reason)
{
    if (ws->status)
        return;
    ws->status = (uint16_t)status;
    ws->reason = reason.n ? pn_try_malloc(reason.n) : NULL;
    if (ws->reason) { /* without memory there is none */
        memcpy(ws->reason, reason.p, reason.n);
        ws->reason_size = (uint8_t)reason.n;
    }
}

/* Nothing of the exchange is touched any more. */
static void let_go(struct pn_ws *ws)
{
    struct pn_exchange *x = ws->x;
    if (ws->state == GONE)
        return;
    ws->state = GONE;
    ws->x = NULL;
    ws->paused = false;
    pn_timeout_stop(&ws->timeout);
    pn_list_remove(&ws->node);
    ws->server->connections--;
    pn_bytes_free(&ws->out);
    pn_ws_deflate_fini(&ws->deflate);
    x->notify = NULL;
    x->handler = NULL;
    pn_exchange_unpin(x);
}

/* The peer is gone without a word, or is taken for that. */
static void lost(struct pn_ws *ws)
{
    set_status(ws, PN_WS_STATUS_ABNORMAL, PN_STR_NONE);
    if (ws->x && ws->x->state < PN_EXCHANGE_ENDED)
        (void)pn_exchange_end(ws->x, NULL, 0);
    let_go(ws);
    tell(ws, PN_WS_NEWS_IN | PN_WS_NEWS_ROOM);
}

/* Both ends have closed: the connection ends when what is held has left. */
static void finish(struct pn_ws *ws)
{
    if (ws->state == GONE)
        return;
    ws->state = ENDING;
    ws->paused = false;
    pn_timeout_stop(&ws->timeout);
    if (pn_bytes_len(&ws->out) == 0) {
        (void)pn_exchange_end(ws->x, NULL, 0);
        let_go(ws);
    }
}

/* --- Out --------------------------------------------------------------------------------------- */

/* Writes what the wire takes, the rest is held. False: the connection is lost, or memory for the rest. */
static bool write_or_hold(struct pn_ws *ws, const char *data, size_t n)
{
    size_t taken = 0;
    if (n && pn_bytes_len(&ws->out) == 0) {
        ssize_t rc = pn_exchange_write(ws->x, data, n);
        if (rc < 0)
            return false;
        taken = (size_t)rc;
    }
    if (taken == n)
        return true;
    if (pn_bytes_append(&ws->out, data + taken, n - taken) == 0)
        return true;
    pn_exchange_cancel(ws->x, PN_CANCEL_HANDLER); /* half a frame has gone */
    return false;
}

/* 0, or -EPIPE: the connection was lost, which was told. */
static int put_frame(struct pn_ws *ws, unsigned opcode, bool compressed, const char *data, size_t n)
{
    char small[PN_WS_SERVER_HEAD_MAX + COPY_MAX];
    size_t head = pn_ws_frame_head(small, opcode, true, compressed, n);
    bool good;
    if (n <= COPY_MAX) {
        if (n)
            memcpy(small + head, data, n);
        good = write_or_hold(ws, small, head + n);
    } else {
        good = write_or_hold(ws, small, head) && write_or_hold(ws, data, n);
    }
    if (good && pn_bytes_len(&ws->out) == 0)
        good = pn_exchange_flush(ws->x) == 0;
    if (good)
        return 0;
    lost(ws);
    return -EPIPE;
}

static int put_close(struct pn_ws *ws, unsigned status, struct pn_str reason)
{
    char payload[PN_WS_CONTROL_MAX] = {(char)(status >> 8), (char)status};
    if (status == PN_WS_STATUS_NONE)
        return put_frame(ws, PN_WS_OP_CLOSE, false, NULL, 0);
    if (reason.n)
        memcpy(payload + 2, reason.p, reason.n);
    return put_frame(ws, PN_WS_OP_CLOSE, false, payload, 2 + reason.n);
}

/* The peer has broken a rule, or is silent: our close is the last word (RFC 6455 7.1.7). */
static void fail(struct pn_ws *ws, unsigned status, struct pn_str reason)
{
    bool news = !ws->status;
    set_status(ws, status, reason);
    if (ws->state == CLOSING || put_close(ws, status, reason) == 0)
        finish(ws);
    if (news)
        tell(ws, PN_WS_NEWS_IN);
}

static void drained(struct pn_ws *ws)
{
    struct pn_str held = pn_bytes_view(&ws->out);
    if (held.n) {
        ssize_t taken = pn_exchange_write(ws->x, held.p, held.n);
        if (taken >= 0)
            pn_bytes_consume(&ws->out, (size_t)taken);
        if (taken < 0 || (pn_bytes_len(&ws->out) == 0 && pn_exchange_flush(ws->x) < 0)) {
            lost(ws);
            return;
        }
    }
    if (pn_bytes_len(&ws->out))
        return;
    pn_bytes_free(&ws->out);
    ws->pongs_size = 0;
    if (ws->state == ENDING)
        finish(ws);
    else if (held.n)
        tell(ws, PN_WS_NEWS_ROOM);
}

/* Compressed where that was agreed on and pays. 0, -ENOMEM or -EPIPE. */
static int put_message(struct pn_ws *ws, unsigned opcode, const char *data, size_t n)
{
    if (!ws->has_deflate || n < PN_WS_COMPRESS_SIZE_MIN)
        return put_frame(ws, opcode, false, data, n);
    struct pn_bytes compressed;
    pn_bytes_init(&compressed);
    int rc = pn_ws_deflate_message(&ws->deflate, data, n, &compressed);
    if (rc == 0) {
        struct pn_str all = pn_bytes_view(&compressed);
        rc = put_frame(ws, opcode, true, all.p, all.n);
        if (rc < 0)
            pn_ws_deflate_unsent(&ws->deflate);
    }
    pn_bytes_free(&compressed);
    return rc;
}

int pn_ws_send(struct pn_ws *ws, unsigned opcode, const void *data, size_t n)
{
    PN_CHECK_MAGIC(ws, MAGIC);
    PN_ASSERT(opcode == PN_WS_OP_TEXT || opcode == PN_WS_OP_BINARY);
    if (ws->state != OPEN)
        return -EPIPE;
    if (pn_bytes_len(&ws->out))
        return -EAGAIN;
    if (n > INT32_MAX)
        return -ENOMEM;
    ws->in_call = true;
    int rc = put_message(ws, opcode, data, n);
    ws->in_call = false;
    return rc;
}

bool pn_ws_is_full(const struct pn_ws *ws)
{
    return pn_bytes_len(&ws->out) > 0;
}

void pn_ws_push(struct pn_ws *ws)
{
    ws->in_call = true;
    if (ws->state != GONE && pn_bytes_len(&ws->out))
        drained(ws);
    ws->in_call = false;
}

/* --- In ---------------------------------------------------------------------------------------- */

/* What lies in the receiver makes room for the next message. 0 or -ENOMEM. */
static int queue_head(struct pn_ws *ws)
{
    struct waiting *w = pn_try_malloc(sizeof *w + ws->head.n);
    if (!w)
        return -ENOMEM;
    pn_list_init(&w->node);
    w->size = ws->head.n;
    w->kind = ws->head_kind;
    if (w->size)
        memcpy(w->data, ws->head.p, w->size);
    pn_list_push_back(&ws->queue, &w->node);
    ws->queue_size += sizeof *w + w->size;
    ws->has_head = false;
    return 0;
}

static void on_ping(struct pn_ws *ws, struct pn_str data)
{
    if (ws->state != OPEN) /* a close was our last frame (RFC 6455 5.5.1) */
        return;
    if (put_frame(ws, PN_WS_OP_PONG, false, data.p, data.n) == 0 && pn_bytes_len(&ws->out))
        ws->pongs_size = (uint16_t)(ws->pongs_size + data.n + 2);
}

static void on_close(struct pn_ws *ws, const struct pn_ws_message *m)
{
    bool news = !ws->status;
    set_status(ws, m->status, m->data);
    if (ws->state == CLOSING || put_close(ws, m->status, m->data) == 0)
        finish(ws);
    if (news)
        tell(ws, PN_WS_NEWS_IN);
}

/* One event of the receiver. */
static void act(struct pn_ws *ws, int event, const struct pn_ws_message *m)
{
    if (event < 0) {
        fail(ws, (unsigned)-event, PN_STR_NONE);
    } else if (event == PN_WS_PING) {
        on_ping(ws, m->data);
    } else if (event == PN_WS_CLOSE) {
        on_close(ws, m);
    } else if ((event == PN_WS_TEXT || event == PN_WS_BINARY) && ws->state == OPEN) {
        ws->has_head = true;
        ws->head_kind = (uint8_t)event;
        ws->head = m->data;
    }
}

/* Reading goes on: nobody would be helped by it otherwise. */
static bool wants_bytes(const struct pn_ws *ws)
{
    size_t size = ws->queue_size + (ws->has_head ? ws->head.n : 0);
    return ws->state <= CLOSING && size < PN_WS_QUEUE_SIZE_MAX &&
           ws->pongs_size <= PN_WS_PONGS_SIZE_MAX;
}

/* Works through VIEW as far as it may: the bytes used. */
static size_t work_through(struct pn_ws *ws, struct pn_str view)
{
    size_t done = 0;
    while (wants_bytes(ws)) {
        struct pn_ws_message m = {.status = 0};
        size_t used;
        if (ws->has_head && done < view.n && queue_head(ws) < 0) {
            fail(ws, PN_WS_STATUS_INTERNAL, PN_STR_NONE);
            break;
        }
        if (done == view.n)
            break;
        int event = pn_ws_receive(&ws->receiver, view.p + done, view.n - done, &used, &m);
        done += used;
        if (event == PN_WS_MORE)
            break;
        act(ws, event, &m);
    }
    return done;
}

/* A byte has come, or is not looked for: the next ping is due an interval later. */
static void watch_life(struct pn_ws *ws)
{
    if (ws->state != OPEN)
        return;
    if (ws->pinged)
        pn_timeout_stop(&ws->timeout);
    ws->pinged = false;
    if (ws->server->config.ping_interval_ns > 0)
        pn_timeout_start(&ws->server->ping, &ws->timeout);
}

/* Reads what is here, up to the bounds. The handler is told once. */
static void pump(struct pn_ws *ws)
{
    size_t read = 0;
    bool had = ws->has_head || !pn_list_empty(&ws->queue);
    ws->paused = false;
    while (ws->state <= CLOSING) {
        struct pn_str view;
        if (!wants_bytes(ws) || read >= PN_WS_READ_SIZE_MAX) {
            ws->paused = true;
            break;
        }
        enum pn_body have = pn_exchange_body_peek(ws->x, &view);
        if (have == PN_BODY_AGAIN)
            break;
        if (have != PN_BODY_DATA) {
            lost(ws);
            break;
        }
        watch_life(ws);
        size_t used = work_through(ws, view);
        read += used;
        if (ws->x)
            pn_exchange_body_consume(ws->x, used);
    }
    if (ws->paused && read >= PN_WS_READ_SIZE_MAX && wants_bytes(ws))
        pn_task_post(ws->server->loop, &ws->again);
    if (!ws->has_head)
        pn_ws_receiver_rest(&ws->receiver);
    if (!had && (ws->has_head || !pn_list_empty(&ws->queue)))
        tell(ws, PN_WS_NEWS_IN);
}

static int give(struct pn_ws *ws, struct pn_ws_message *out)
{
    struct pn_list *node = pn_list_pop_front(&ws->queue);
    if (node) {
        ws->given = pn_list_entry(node, struct waiting, node);
        ws->queue_size -= sizeof *ws->given + ws->given->size;
        out->data = (struct pn_str){ws->given->data, ws->given->size};
        return ws->given->kind;
    }
    if (ws->has_head) {
        ws->has_head = false;
        out->data = ws->head;
        return ws->head_kind;
    }
    return PN_WS_MORE;
}

int pn_ws_take(struct pn_ws *ws, struct pn_ws_message *out)
{
    pn_ws_taken(ws);
    int kind = give(ws, out);
    if (kind == PN_WS_MORE && ws->state == OPEN) {
        ws->in_call = true;
        pump(ws);
        ws->in_call = false;
        ws->pending &= ~(unsigned)PN_WS_NEWS_IN;
        kind = give(ws, out);
    } else if (ws->paused) {
        pn_task_post(ws->server->loop, &ws->again);
    }
    if (kind != PN_WS_MORE || !ws->status)
        return kind;
    out->status = ws->status;
    out->data = (struct pn_str){ws->reason, ws->reason_size};
    return PN_WS_CLOSE;
}

void pn_ws_taken(struct pn_ws *ws)
{
    PN_CHECK_MAGIC(ws, MAGIC);
    free(ws->given);
    ws->given = NULL;
    if (!ws->has_head)
        pn_ws_receiver_rest(&ws->receiver);
}

/* --- What the wire and the clock tell ------------------------------------------------------------ */

static void notified(struct pn_exchange *x, unsigned why)
{
    struct pn_ws *ws = x->handler;
    enter(ws);
    if (why & PN_NOTIFY_CANCELLED) {
        lost(ws);
    } else {
        if (why & PN_NOTIFY_DRAINED)
            drained(ws);
        if (ws->state <= CLOSING && ((why & PN_NOTIFY_BODY) || ws->paused))
            pump(ws);
    }
    leave(ws);
}

static struct pn_ws *of_timeout(struct pn_timeout *timeout)
{
    return pn_container_of(timeout, struct pn_ws, timeout);
}

/* The payload is the time: nobody looks at it, but no two are alike. */
static void on_ping_due(struct pn_timeout *timeout)
{
    struct pn_ws *ws = of_timeout(timeout);
    struct pn_ws_server *server = ws->server;
    uint32_t payload = (uint32_t)(pn_loop_now_ns(server->loop) / PN_NS_PER_MS);
    /* What waits for the peer has a time-out of its own. */
    if (pn_bytes_len(&ws->out)) {
        watch_life(ws);
        return;
    }
    enter(ws);
    if (put_frame(ws, PN_WS_OP_PING, false, (const char *)&payload, sizeof payload) == 0) {
        ws->pinged = server->config.ping_timeout_ns > 0;
        pn_timeout_start(ws->pinged ? &server->pong : &server->ping, &ws->timeout);
    }
    leave(ws);
}

static void on_pong_due(struct pn_timeout *timeout)
{
    struct pn_ws *ws = of_timeout(timeout);
    enter(ws);
    if (ws->paused)
        watch_life(ws);
    else
        fail(ws, PN_WS_STATUS_INTERNAL, PN_STR("no answer to a ping"));
    leave(ws);
}

static void on_close_due(struct pn_timeout *timeout)
{
    struct pn_ws *ws = of_timeout(timeout);
    enter(ws);
    finish(ws);
    leave(ws);
}

int64_t pn_ws_due_ns(const struct pn_ws *ws)
{
    bool set = ws->state == OPEN && pn_list_linked(&ws->timeout.node);
    return set ? ws->timeout.deadline_ns : PN_NEVER_NS;
}

bool pn_ws_see_due(struct pn_ws *ws)
{
    PN_CHECK_MAGIC(ws, MAGIC);
    if (pn_ws_due_ns(ws) > pn_loop_now_ns(ws->server->loop))
        return false;
    pn_timeout_stop(&ws->timeout);
    ws->in_call = true; /* the caller looks himself */
    if (ws->pinged)
        on_pong_due(&ws->timeout);
    else
        on_ping_due(&ws->timeout);
    ws->in_call = false;
    return true;
}

/* --- Opening and closing ------------------------------------------------------------------------- */

/* The first offer of any line that can be agreed on. */
static bool agree(struct pn_ws *ws, const struct pn_exchange *x,
                  char answer[PN_WS_DEFLATE_ANSWER_MAX], size_t *answer_size)
{
    const struct pn_ws_config *config = &ws->server->config;
    struct pn_ws_deflate_params params;
    for (unsigned i = 0; config->compression && i < x->header_count; i++) {
        if (x->headers[i].id == PN_HEADER_SEC_WEBSOCKET_EXTENSIONS &&
            pn_ws_deflate_negotiate(pn_header_value(x, &x->headers[i]), &config->deflate, &params,
                                    answer, answer_size)) {
            pn_ws_deflate_init(&ws->deflate, &params);
            return true;
        }
    }
    return false;
}

static int upgrade(struct pn_ws *ws, struct pn_exchange *x, const struct pn_ws_opening *o)
{
    char answer[PN_WS_DEFLATE_ANSWER_MAX];
    size_t answer_size = 0;
    struct pn_field *fields = pn_try_malloc((4 + o->count) * sizeof *fields);
    size_t n = 0;
    if (!fields)
        return -ENOMEM;
    fields[n++] = (struct pn_field){PN_STR("Upgrade"), PN_STR("websocket")};
    fields[n++] = (struct pn_field){PN_STR("Sec-WebSocket-Accept"), {o->accept, PN_WS_ACCEPT_SIZE}};
    if (o->subprotocol.n)
        fields[n++] = (struct pn_field){PN_STR("Sec-WebSocket-Protocol"), o->subprotocol};
    ws->has_deflate = agree(ws, x, answer, &answer_size);
    if (ws->has_deflate)
        fields[n++] = (struct pn_field){PN_STR("Sec-WebSocket-Extensions"), {answer, answer_size}};
    if (o->count)
        memcpy(fields + n, o->fields, o->count * sizeof *fields);
    int rc = pn_exchange_upgrade(x, 101, fields, n + o->count);
    free(fields);
    return rc;
}

int pn_ws_open(struct pn_ws_server *server, struct pn_exchange *x,
               const struct pn_ws_opening *opening, struct pn_ws **out)
{
    struct pn_ws *ws = pn_try_malloc(sizeof *ws);
    if (!ws)
        return -ENOMEM;
    memset(ws, 0, offsetof(struct pn_ws, receiver));
    ws->magic = MAGIC;
    ws->server = server;
    int rc = upgrade(ws, x, opening);
    if (rc < 0) {
        free(ws);
        return rc;
    }
    ws->x = x;
    ws->news = opening->news;
    ws->owner = opening->owner;
    ws->paused = true; /* nobody has looked for what came with the handshake */
    pn_ws_receiver_init(&ws->receiver, &server->config.limits,
                        ws->has_deflate ? &ws->deflate : NULL);
    pn_list_init(&ws->queue);
    pn_list_init(&ws->node);
    pn_timeout_init(&ws->timeout);
    pn_task_init(&ws->again, run_again);
    pn_list_push_back(&server->all, &ws->node);
    server->connections++;
    pn_exchange_pin(x);
    x->handler = ws;
    x->notify = notified;
    x->tell_end = false;
    watch_life(ws);
    if (server->stopped)
        pn_ws_close(ws, PN_WS_STATUS_RESTART, PN_STR("the server stops"));
    pn_task_post(server->loop, &ws->again);
    *out = ws;
    return 0;
}

void *pn_ws_owner(const struct pn_ws *ws)
{
    return ws->owner;
}

bool pn_ws_is_open(const struct pn_ws *ws)
{
    return ws->state == OPEN;
}

static void close_open(struct pn_ws *ws, unsigned status, struct pn_str reason)
{
    if (ws->state != OPEN)
        return;
    ws->in_call = true;
    set_status(ws, status, reason);
    if (put_close(ws, status, reason) == 0) {
        ws->state = CLOSING;
        pn_timeout_stop(&ws->timeout);
        pn_timeout_start(&ws->server->close, &ws->timeout);
        if (ws->paused)
            pn_task_post(ws->server->loop, &ws->again);
    }
    ws->in_call = false;
}

void pn_ws_close(struct pn_ws *ws, unsigned status, struct pn_str reason)
{
    PN_ASSERT(reason.n <= PN_WS_REASON_MAX);
    enter(ws);
    close_open(ws, status, reason);
    leave(ws);
}

void pn_ws_release(struct pn_ws *ws)
{
    enter(ws);
    ws->news = NULL;
    ws->owner = NULL;
    close_open(ws, PN_WS_STATUS_NORMAL, PN_STR_NONE);
    ws->released = true;
    leave(ws);
}

/* --- The connections of a worker ------------------------------------------------------------------ */

struct pn_ws_server *pn_ws_server_create(struct pn_loop *loop, const struct pn_ws_config *config)
{
    struct pn_ws_server *server = pn_xcalloc(1, sizeof *server);
    server->loop = loop;
    server->config = *config;
    pn_list_init(&server->all);
    pn_timeout_class_init(&server->ping, loop, config->ping_interval_ns, on_ping_due);
    pn_timeout_class_init(&server->pong, loop, config->ping_timeout_ns, on_pong_due);
    pn_timeout_class_init(&server->close, loop, PN_WS_CLOSE_TIMEOUT_MS * PN_NS_PER_MS,
                          on_close_due);
    return server;
}

void pn_ws_server_destroy(struct pn_ws_server *server)
{
    struct pn_list *pos, *tmp;
    if (!server)
        return;
    pn_list_for_each_safe(pos, tmp, &server->all)
    {
        struct pn_ws *ws = pn_list_entry(pos, struct pn_ws, node);
        enter(ws);
        ws->news = NULL;
        let_go(ws);
        leave(ws);
    }
    pn_timeout_class_fini(&server->ping);
    pn_timeout_class_fini(&server->pong);
    pn_timeout_class_fini(&server->close);
    free(server);
}

void pn_ws_server_stop(struct pn_ws_server *server)
{
    struct pn_list *pos, *tmp;
    server->stopped = true;
    pn_list_for_each_safe(pos, tmp, &server->all)
    {
        struct pn_ws *ws = pn_list_entry(pos, struct pn_ws, node);
        if (ws->state != OPEN)
            continue;
        enter(ws);
        close_open(ws, PN_WS_STATUS_RESTART, PN_STR("the server stops"));
        tell(ws, PN_WS_NEWS_IN);
        leave(ws);
    }
}

size_t pn_ws_server_connections(const struct pn_ws_server *server)
{
    return server->connections;
}
