/* SPDX-License-Identifier: Apache-2.0 */
/* From a parsed head to an exchange, and the request's body on its way in.
 *
 * Where things lie. As long as everything is in the connection's input, the head stays there with the whole
 * body behind it, and nothing is copied. When more must be read while the handler is at work, or the
 * loop is given away, the head gets a block of its own (pn__h1_own_text); the input then begins with
 * the rest of the body. Chunked bodies are decoded to a queue of their own, up to the buffering bound. */
#include <errno.h>
#include <stdlib.h>

#include "http/h1_wire.h"

/* The text of an exchange whose head could not be saved: every span of it is empty. */
static char no_text[1];

/* Of a head that is still to be formatted. */
enum { HEAD_FETCHED = 192 };

/* --- the exchange ----------------------------------------------------------------------------------- */

static void set_head(struct pn__h1_exchange *hx, const struct pn_h1_head *head)
{
    struct pn_exchange *x = &hx->x;
    x->method = head->method;
    x->target = head->target;
    x->path = head->path;
    x->query = head->query;
    x->authority = head->authority;
    x->header_count = (uint16_t)head->headers_count;
    x->version_major = 1;
    x->version_minor = head->minor;
    x->is_head = head->method_id == PN_H1_METHOD_HEAD;
    x->scheme_https = false;
    x->expect_continue = head->expect_continue;
    x->upgrade_asked = head->upgrade;
    x->has_body = head->has_body;
    x->content_length = head->content_length;
    hx->keep_alive = head->keep_alive;
    hx->body_left = head->content_length;
    hx->body = PN__H1_BODY_NONE;
    if (pn_unlikely(head->has_body)) {
        hx->body = head->chunked ? PN__H1_BODY_CHUNKED : PN__H1_BODY_LENGTH;
        if (head->chunked)
            pn_h1_chunk_init(&hx->chunk);
    }
}

/* The struct is a kilobyte and a half out of a pool: only what must be is set. NULL without memory. */
static struct pn__h1_exchange *make_exchange(struct pn__h1_conn *hc, const char *base,
                                             uint32_t head_len, const struct pn_h1_head *head)
{
    struct pn_h1 *h1 = hc->h1;
    struct pn__h1_exchange *hx = pn_pool_get(&h1->exchanges);
    if (pn_unlikely(!hx))
        return NULL;
    struct pn_exchange *x = &hx->x;
    x->headers = x->headers_inline;
    if (pn_unlikely(head->headers_count > PN_EXCHANGE_HEADERS_INLINE)) {
        x->headers = pn_try_malloc(head->headers_count * sizeof *x->headers);
        if (!x->headers) {
            pn_pool_put(&h1->exchanges, hx);
            return NULL;
        }
    }
    memcpy(x->headers, head->headers, head->headers_count * sizeof *x->headers);
    set_head(hx, head);
    x->magic = PN_EXCHANGE_MAGIC;
    x->pins = 1;
    x->ops = &pn__h1_ops;
    x->peer = &hc->peer;
    x->head_base = base;
    x->received_ns = pn_loop_now_ns(h1->loop);
    x->state = PN_EXCHANGE_RECEIVED;
    x->cancel = PN_CANCEL_NONE;
    x->status = 0;
    x->sent_body_size = 0;
    x->received_body_size = 0;
    x->notify = NULL;
    x->handler = NULL;
    x->fields_id = 0;
    x->tell_end = false;
    x->ends_with_next = false;
    hx->hc = hc;
    hx->head_len = head_len;
    hx->length = -1;
    hx->held_max = PN__H1_HELD_MAX;
    memset(&hx->text, 0,
           offsetof(struct pn__h1_exchange, chunk) - offsetof(struct pn__h1_exchange, text));
    pn_conn_pin(&hc->c);
    return hx;
}

void pn__h1_release(struct pn_exchange *x)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    struct pn_conn *c = &hx->hc->c;
    struct pn_h1 *h1 = hx->hc->h1;
    PN_BUG_ON(hx->hc->hx == hx);
    if (x->headers != x->headers_inline)
        free(x->headers);
    if (pn_unlikely(hx->text_block))
        free(hx->text);
    free(hx->held_big);
    if (hx->decoded.data)
        pn_bytes_free(&hx->decoded);
    x->magic = 0;
    pn_pool_put(&h1->exchanges, hx);
    pn_conn_unpin(c);
}

enum pn__h1_step pn__h1_take_request(struct pn__h1_conn *hc)
{
    struct pn_h1 *h1 = hc->h1;
    struct pn_str in = pn_conn_input(&hc->c);
    struct pn_h1_head head;
    if (in.n == 0 || in.n == hc->scanned)
        return PN__H1_READ;
    head.headers = h1->headers;
    head.headers_cap = h1->limits.headers_max;
    int used = pn_h1_parse_head(in.p, in.n, hc->scanned, &h1->limits, &head);
    if (used == PN_H1_INCOMPLETE) {
        hc->scanned = (uint32_t)in.n;
        return PN__H1_READ;
    }
    hc->scanned = 0;
    if (pn_unlikely(used < 0)) {
        pn__h1_refuse(hc, (unsigned)pn_h1_error_status(used), head.method_id == PN_H1_METHOD_HEAD,
                      pn_h1_error_reason(used).p);
        return PN__H1_AGAIN;
    }
    struct pn__h1_exchange *hx = make_exchange(hc, in.p, (uint32_t)used, &head);
    if (pn_unlikely(!hx)) {
        pn__h1_refuse(hc, 503, head.method_id == PN_H1_METHOD_HEAD, "out of memory");
        return PN__H1_AGAIN;
    }
    hc->hx = hx;
    hc->requests++;
    if (pn_unlikely(head.content_length > h1->config.body_size_max))
        pn__h1_fail(hx, 413, PN_CANCEL_TOO_LARGE, "body is larger than the limit");
    else if (pn_unlikely(head.chunked) && pn__h1_own_text(hx) < 0)
        pn__h1_fail(hx, 503, PN_CANCEL_HANDLER, "out of memory");
    return PN__H1_AGAIN;
}

/* --- the text's home ----------------------------------------------------------------------------------- */

/* A short one lies behind the answer's head, which most requests have yet to make. */
static char *text_room(struct pn__h1_exchange *hx)
{
    if (pn_unlikely(hx->head_len > PN__H1_TEXT_MAX || hx->framing != PN__H1_FRAMING_NONE)) {
        char *block = pn_try_malloc(hx->head_len);
        hx->text_block = block != NULL;
        return block;
    }
    hx->held_max = PN__H1_HELD_MAX - hx->head_len;
    return hx->held + sizeof hx->held - hx->head_len;
}

int pn__h1_own_text(struct pn__h1_exchange *hx)
{
    struct pn_conn *c = &hx->hc->c;
    if (hx->text)
        return 0;
    char *text = text_room(hx);
    if (!text)
        return -ENOMEM;
    memcpy(text, pn_conn_input(c).p, hx->head_len);
    pn_conn_consume(c, hx->head_len + hx->body_pos);
    hx->body_pos = 0;
    hx->text = text;
    hx->x.head_base = text;
    return 0;
}

static void forget_text(struct pn__h1_exchange *hx)
{
    struct pn_exchange *x = &hx->x;
    const struct pn_span none = {0, 0};
    hx->text = no_text;
    x->head_base = no_text;
    x->method = x->target = x->path = x->query = x->authority = none;
    x->header_count = 0;
}

void pn__h1_leave_text(struct pn__h1_exchange *hx)
{
    if (!hx->text && (hx->hc->c.dead || pn__h1_own_text(hx) < 0))
        forget_text(hx);
}

void pn__h1_fetch(const struct pn_exchange *x)
{
    const struct pn__h1_exchange *hx = (const struct pn__h1_exchange *)x;
    const struct pn__h1_conn *hc = pn_container_of(x->peer, const struct pn__h1_conn, peer);
    pn_prefetch(&hx->hc, offsetof(struct pn__h1_exchange, held) + HEAD_FETCHED -
                             offsetof(struct pn__h1_exchange, hc));
    pn_prefetch(hc, offsetof(struct pn__h1_conn, peer));
}

int pn__h1_keep(struct pn_exchange *x)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    struct pn_conn *c = &hx->hc->c;
    if (c->dead || hx->hc->hx != hx)
        return 0;
    /* Other cores will see this connection's events and time-outs from now on. */
    if (pn__h1_is_live(hx))
        pn__h1_serving_state(hx->hc);
    if (!c->scratch)
        return 0;
    int r = pn__h1_own_text(hx);
    return r < 0 || !c->scratch ? r : pn_conn_keep_input(c);
}

void pn__h1_consume_request(struct pn__h1_exchange *hx)
{
    if (hx->text)
        return;
    size_t n = hx->head_len;
    if (hx->body == PN__H1_BODY_LENGTH)
        n += (size_t)hx->x.content_length;
    pn_conn_consume(&hx->hc->c, n);
    if (hx->x.pins > 1) /* the handler still holds the exchange: it finds no text */
        forget_text(hx);
}

/* --- the body -------------------------------------------------------------------------------------------- */

/* Decodes what is here of a chunked body, up to the buffering bound. 0, or -1 when that has failed the
 * exchange. */
static int decode(struct pn__h1_exchange *hx)
{
    struct pn_conn *c = &hx->hc->c;
    const struct pn_h1_config *config = &hx->hc->h1->config;
    size_t bound = pn_max_size(config->body_buffer_size, 1);
    while (!hx->body_whole && pn_bytes_len(&hx->decoded) < bound) {
        struct pn_str in = pn_conn_input(c), data;
        size_t used;
        if (in.n == 0)
            break;
        int r = pn_h1_chunk_next(&hx->chunk, in.p, in.n, &used, &data);
        if (r < 0) {
            pn__h1_fail(hx, (unsigned)pn_h1_error_status(r), PN_CANCEL_PROTOCOL,
                        pn_h1_error_reason(r).p);
            return -1;
        }
        if (r == PN_H1_CHUNK_DATA) {
            hx->x.received_body_size += data.n;
            if (hx->x.received_body_size > (uint64_t)config->body_size_max) {
                pn__h1_fail(hx, 413, PN_CANCEL_TOO_LARGE, "body is larger than the limit");
                return -1;
            }
            if (pn_bytes_append(&hx->decoded, data.p, data.n) < 0) {
                pn__h1_fail(hx, 503, PN_CANCEL_HANDLER, "out of memory");
                return -1;
            }
        }
        hx->body_whole = r == PN_H1_CHUNK_END;
        pn_conn_consume(c, used);
    }
    return 0;
}

enum pn__h1_step pn__h1_gather_body(struct pn__h1_exchange *hx)
{
    struct pn_conn *c = &hx->hc->c;
    int64_t bound = (int64_t)hx->hc->h1->config.body_buffer_size;
    if (hx->body == PN__H1_BODY_LENGTH) {
        struct pn_str in = pn_conn_input(c);
        int64_t here = (int64_t)(in.n - hx->head_len);
        hx->x.head_base = in.p; /* a read may have moved it */
        if (here >= hx->body_left)
            return PN__H1_AGAIN;
        if (here < bound && !hx->x.expect_continue)
            return PN__H1_READ;
        if (pn__h1_own_text(hx) < 0)
            pn__h1_fail(hx, 503, PN_CANCEL_HANDLER, "out of memory");
        return PN__H1_AGAIN;
    }
    if (decode(hx) < 0 || hx->body_whole || hx->x.expect_continue ||
        (int64_t)pn_bytes_len(&hx->decoded) >= bound)
        return PN__H1_AGAIN;
    return PN__H1_READ;
}

size_t pn__h1_read_max(const struct pn__h1_conn *hc)
{
    const struct pn_h1 *h1 = hc->h1;
    const struct pn__h1_exchange *hx = hc->hx;
    if (!hx) /* one byte more than a head may have, so that its size can be found wrong */
        return pn_max_size(PN_NET_SCRATCH_SIZE, (size_t)h1->limits.head_max + 1);
    /* Not cut to the body's end: a read that brings less than it may tells that there is no more. */
    size_t body = pn_max_size(h1->config.body_buffer_size, 4096);
    return hx->text ? body : hx->head_len + body;
}

/* What is here of the body: DATA, END, AGAIN, or ERROR when that was found out just now. */
static enum pn_body body_here(struct pn__h1_exchange *hx, struct pn_str *view)
{
    struct pn_conn *c = &hx->hc->c;
    struct pn_str in = pn_conn_input(c);
    switch (hx->body) {
    case PN__H1_BODY_LENGTH: {
        size_t skip = hx->text ? 0 : (size_t)hx->head_len + hx->body_pos;
        if (hx->body_left == 0)
            return PN_BODY_END;
        if (in.n == skip)
            return PN_BODY_AGAIN;
        view->p = in.p + skip;
        view->n = pn_min_size(in.n - skip, (size_t)hx->body_left);
        return PN_BODY_DATA;
    }
    case PN__H1_BODY_CHUNKED:
        if (pn_bytes_len(&hx->decoded) == 0 && !hx->body_whole) {
            if (decode(hx) < 0)
                return PN_BODY_ERROR;
            /* What is above the bound waits for the handler, which may take its time. */
            if (c->scratch)
                (void)pn_conn_keep_input(c);
        }
        *view = pn_bytes_view(&hx->decoded);
        if (view->n > 0)
            return PN_BODY_DATA;
        return hx->body_whole ? PN_BODY_END : PN_BODY_AGAIN;
    case PN__H1_BODY_RAW:
        *view = in;
        if (in.n > 0)
            return PN_BODY_DATA;
        return c->peer_closed ? PN_BODY_END : PN_BODY_AGAIN;
    default:
        return PN_BODY_END;
    }
}

/* The client waits for a word before it sends its body. Never after a head: that is word enough. */
static void send_continue(struct pn__h1_exchange *hx)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct pn_conn *c = &hx->hc->c;
    if (!hx->x.expect_continue || hx->continued || hx->framing > PN__H1_FRAMING_HELD)
        return;
    char *p = pn_conn_out_reserve(c, sizeof text - 1);
    if (!p)
        return; /* the client sends its body after a while in any case */
    memcpy(p, text, sizeof text - 1);
    pn_conn_out_commit(c, sizeof text - 1);
    hx->continued = true;
    (void)pn_conn_flush(c); /* when this broke it, the read says so */
}

/* Nothing is here: one read. DATA means: look again. */
static enum pn_body read_body(struct pn__h1_exchange *hx)
{
    struct pn__h1_conn *hc = hx->hc;
    if (hc->c.peer_closed) {
        pn__h1_fail(hx, 400, PN_CANCEL_CLIENT_GONE, "body cut short");
        return PN_BODY_ERROR;
    }
    send_continue(hx);
    if (!pn__h1_may_read(hc))
        return PN_BODY_AGAIN;
    switch (pn_conn_read(&hc->c, pn__h1_read_max(hc))) {
    case PN_IO_OK:
        return PN_BODY_DATA;
    case PN_IO_ERROR:
        pn__h1_gone(hc, "client gone");
        return PN_BODY_ERROR;
    default:
        return PN_BODY_AGAIN;
    }
}

enum pn_body pn__h1_body_peek(struct pn_exchange *x, struct pn_str *view)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    enum pn_body here;
    *view = PN_STR_NONE;
    if (!pn__h1_is_live(hx))
        return x->state == PN_EXCHANGE_ENDED ? PN_BODY_END : PN_BODY_ERROR;
    hx->in_call = true;
    do {
        here = body_here(hx, view);
        if (here != PN_BODY_AGAIN)
            break;
        here = read_body(hx);
    } while (here == PN_BODY_DATA);
    hx->in_call = false;
    if (here == PN_BODY_AGAIN || hx->body_wanted) {
        hx->body_wanted = here == PN_BODY_AGAIN;
        pn__h1_serving_state(hx->hc);
    }
    return here;
}

void pn__h1_body_consume(struct pn_exchange *x, size_t n)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    struct pn_conn *c = &hx->hc->c;
    if (!pn__h1_is_live(hx) || n == 0)
        return;
    if (hx->body == PN__H1_BODY_CHUNKED) {
        PN_BUG_ON(n > pn_bytes_len(&hx->decoded));
        pn_bytes_consume(&hx->decoded, n);
        return;
    }
    x->received_body_size += n;
    if (hx->body == PN__H1_BODY_LENGTH) {
        PN_BUG_ON((int64_t)n > hx->body_left);
        hx->body_left -= (int64_t)n;
        if (!hx->text) {
            hx->body_pos += (uint32_t)n;
            return;
        }
    }
    PN_BUG_ON(n > pn_conn_input(c).n);
    pn_conn_consume(c, n);
    /* A handler that takes a little at a time may wait in between: the scratch is not for that. Without
     * memory it stays ours for longer. */
    if (c->scratch)
        (void)pn_conn_keep_input(c);
}

int64_t pn__h1_body_missing(const struct pn__h1_exchange *hx)
{
    switch (hx->body) {
    case PN__H1_BODY_LENGTH: {
        size_t here = pn_conn_input(&hx->hc->c).n;
        if (!hx->text || (int64_t)here >= hx->body_left)
            return 0;
        return hx->body_left - (int64_t)here;
    }
    case PN__H1_BODY_CHUNKED:
        return hx->body_whole ? 0 : INT64_MAX;
    default:
        return 0;
    }
}

static enum pn__h1_discard discard_chunks(struct pn__h1_exchange *hx)
{
    struct pn__h1_conn *hc = hx->hc;
    while (!hx->body_whole) {
        struct pn_str in = pn_conn_input(&hc->c), data;
        size_t used;
        if (hc->drained > PN__H1_DRAIN_MAX)
            return PN__H1_DISCARD_NEVER;
        if (in.n == 0)
            return PN__H1_DISCARD_MORE;
        int r = pn_h1_chunk_next(&hx->chunk, in.p, in.n, &used, &data);
        if (r < 0)
            return PN__H1_DISCARD_NEVER;
        hx->body_whole = r == PN_H1_CHUNK_END;
        hc->drained += (uint32_t)used;
        pn_conn_consume(&hc->c, used);
    }
    return PN__H1_DISCARD_DONE;
}

enum pn__h1_discard pn__h1_discard_body(struct pn__h1_exchange *hx)
{
    struct pn_conn *c = &hx->hc->c;
    if (hx->body == PN__H1_BODY_CHUNKED)
        return discard_chunks(hx);
    if (hx->body != PN__H1_BODY_LENGTH || !hx->text)
        return PN__H1_DISCARD_DONE;
    if (pn__h1_body_missing(hx) > PN__H1_DRAIN_MAX)
        return PN__H1_DISCARD_NEVER;
    size_t n = pn_min_size(pn_conn_input(c).n, (size_t)hx->body_left);
    pn_conn_consume(c, n);
    hx->body_left -= (int64_t)n;
    return hx->body_left == 0 ? PN__H1_DISCARD_DONE : PN__H1_DISCARD_MORE;
}
