/* SPDX-License-Identifier: Apache-2.0 */
/* How requests and connections end before their time: refusals and failures with an answer of the
 * wire's own, cuts, time-outs; and how connections end in order, by the lingering close of
 * RFC 9112 9.6. Everything here is idempotent: the frame that runs below, or another core, may find
 * the same end a second time. */
#include "http/h1_wire.h"
#include "http/http_status.h"

/* --- the wire's own answers ---------------------------------------------------------------------- */

static char *put(char *out, struct pn_str s)
{
    memcpy(out, s.p, s.n);
    return out + s.n;
}

/* Gathers a short plain answer that ends the connection. Returns its size, 0 without memory. */
static size_t put_refusal(struct pn__h1_conn *hc, unsigned status, bool is_head)
{
    struct pn_h1 *h1 = hc->h1;
    struct pn_str reason = pn_http_status_reason((int)status);
    size_t lines = h1->server_line_len + h1->date_line_len;
    char *start = pn_conn_out_reserve(&hc->c, 256 + 2 * reason.n + lines);
    char *p = start;
    if (!p)
        return 0;
    pn__h1_check_second(h1);
    p = put(p, PN_STR("HTTP/1.1 "));
    p += pn_u64_format(status, p);
    *p++ = ' ';
    p = put(p, reason);
    p = put(p, PN_STR("\r\n"));
    p = put(p, (struct pn_str){h1->lines, lines});
    p = put(p, PN_STR("Content-Type: text/plain\r\nContent-Length: "));
    p += pn_u64_format(reason.n + 1, p);
    p = put(p, PN_STR("\r\nConnection: close\r\n\r\n"));
    if (!is_head) {
        p = put(p, reason);
        *p++ = '\n';
    }
    pn_conn_out_commit(&hc->c, (size_t)(p - start));
    return (size_t)(p - start);
}

void pn__h1_refuse(struct pn__h1_conn *hc, unsigned status, bool is_head, const char *reason)
{
    struct pn_h1 *h1 = hc->h1;
    size_t size = put_refusal(hc, status, is_head);
    h1->stats.bad_requests++;
    if (h1->config.on_access) {
        struct pn_access a = {.peer = &hc->peer,
                              .status = status,
                              .sent_size = size,
                              .time_s = h1->time_s,
                              .error = reason};
        h1->config.on_access(h1->config.ctx, &a);
    }
    /* What lies in the input is of no use any more; what comes is read and dropped. */
    hc->closing = true;
    hc->linger = true;
    if (size == 0)
        pn_conn_close(&hc->c, true);
    else
        pn__h1_close(hc);
}

void pn__h1_cancelled(struct pn__h1_exchange *hx, enum pn_cancel why, const char *reason)
{
    struct pn_exchange *x = &hx->x;
    if (!pn__h1_is_live(hx))
        return;
    /* While a body is gathered, reads may have moved the input that the text lies in. */
    if (!hx->text && !hx->hc->c.dead)
        x->head_base = pn_conn_input(&hx->hc->c).p;
    x->state = PN_EXCHANGE_CANCELLED;
    x->cancel = why;
    hx->error = hx->error ? hx->error : reason;
    hx->body_wanted = false;
    hx->out_blocked = false;
    hx->hc->h1->stats.cancelled++;
    pn__h1_log(hx);
    pn__h1_leave_text(hx);
    if (x->notify && hx->started && !hx->in_call) {
        pn_exchange_pin(x);
        x->notify(x, PN_NOTIFY_CANCELLED);
        pn_exchange_unpin(x);
    }
}

void pn__h1_fail(struct pn__h1_exchange *hx, unsigned status, enum pn_cancel why,
                 const char *reason)
{
    struct pn__h1_conn *hc = hx->hc;
    pn_conn_pin(&hc->c);
    if (hx->framing <= PN__H1_FRAMING_HELD && !hc->c.dead) {
        hx->x.status = (uint16_t)status;
        hx->head_sent += put_refusal(hc, status, hx->x.is_head);
        hc->h1->stats.bad_requests++;
        hc->closing = true;
        hc->linger = true;
        pn__h1_cancelled(hx, why, reason);
        pn__h1_drop(hc);
        pn__h1_close(hc);
    } else {
        pn__h1_cancelled(hx, why, reason);
        pn__h1_cut(hc);
    }
    pn_conn_unpin(&hc->c);
}

/* --- the transport's end ---------------------------------------------------------------------------- */

void pn__h1_gone(struct pn__h1_conn *hc, const char *reason)
{
    struct pn__h1_exchange *hx = hc->hx;
    pn_conn_pin(&hc->c);
    /* The text is saved first: the input goes with the connection. */
    if (hx)
        pn__h1_leave_text(hx);
    pn_conn_close(&hc->c, false);
    if (hx && pn__h1_is_live(hx))
        pn__h1_cancelled(hx, PN_CANCEL_CLIENT_GONE, reason);
    pn__h1_drop(hc);
    pn_conn_unpin(&hc->c);
}

void pn__h1_end_now(struct pn__h1_conn *hc, bool reset)
{
    struct pn_conn *c = &hc->c;
    if (hc->hx)
        pn__h1_leave_text(hc->hx);
    if (!c->dead && pn_bytes_len(&c->out) > 0)
        (void)pn_conn_flush(c);
    pn_conn_close(c, reset);
    pn__h1_drop(hc);
}

void pn__h1_cut(struct pn__h1_conn *hc)
{
    struct pn__h1_exchange *hx = hc->hx;
    /* Where the end of the connection would be the body's end, only a reset tells that it is not. */
    if (hx && hx->framing == PN__H1_FRAMING_CLOSE) {
        pn__h1_end_now(hc, true);
        return;
    }
    /* Whole answers to the requests before may be among what the peer has not taken yet. */
    pn_conn_pin(&hc->c);
    hc->linger = false;
    pn__h1_close(hc);
    pn__h1_drop(hc);
    pn_conn_unpin(&hc->c);
}

void pn__h1_on_closed(struct pn_conn *c, int error)
{
    (void)error;
    pn__h1_gone(pn__h1_conn_of(c), "client gone");
}

/* --- the end in order ---------------------------------------------------------------------------------- */

void pn__h1_close(struct pn__h1_conn *hc)
{
    struct pn_conn *c = &hc->c;
    hc->closing = true;
    if (c->dead || c->state == &pn__h1_state_lingering)
        return;
    if (hc->hx)
        pn__h1_leave_text(hc->hx);
    pn_conn_consume(c, pn_conn_input(c).n);
    if (pn_bytes_len(&c->out) > 0) {
        enum pn_io io = pn_conn_flush(c);
        if (io == PN_IO_ERROR) {
            pn__h1_gone(hc, "connection broke");
            return;
        }
        if (io != PN_IO_OK) {
            if (c->state != &pn__h1_state_flushing)
                pn_conn_set_state(c, &pn__h1_state_flushing);
            return;
        }
    }
    /* A shutdown that wants to wait (TLS) is not waited for: the peer has the whole answer. */
    if (!hc->linger || c->peer_closed || c->transport.ops->shutdown(&c->transport) != PN_IO_OK) {
        pn_conn_close(c, false);
        return;
    }
    hc->drained = 0;
    pn_conn_set_state(c, &pn__h1_state_lingering);
    pn__h1_on_lingering(c);
}

void pn__h1_on_lingering(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    enum pn_io io = PN_IO_OK;
    while (io == PN_IO_OK && pn__h1_may_read(hc)) {
        io = pn_conn_read(c, PN_NET_SCRATCH_SIZE);
        if (io == PN_IO_OK) {
            size_t n = pn_conn_input(c).n;
            pn_conn_consume(c, n);
            hc->drained += (uint32_t)n;
            if (hc->drained > PN_HTTP_LINGER_BYTES_MAX)
                io = PN_IO_ERROR;
        }
    }
    if (c->peer_closed || io == PN_IO_ERROR)
        pn_conn_close(c, false);
}

/* --- time-outs --------------------------------------------------------------------------------------- */

/* The time was that of the state before; the frame that serves the request on another core has not
 * come back to say so. */
static bool serving(struct pn__h1_conn *hc)
{
    if (hc->in_frame)
        pn_conn_set_state(&hc->c, &pn__h1_state_serving);
    return hc->in_frame;
}

void pn__h1_on_header_timeout(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    if (serving(hc))
        return;
    /* A connection that never said anything (browsers open such ones) gets no answer. */
    if (pn_conn_input(c).n == 0)
        pn_conn_close(c, false);
    else
        pn__h1_refuse(hc, 408, false, "header time-out");
}

void pn__h1_on_idle_timeout(struct pn_conn *c)
{
    if (!serving(pn__h1_conn_of(c)))
        pn_conn_close(c, false);
}

void pn__h1_on_body_timeout(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    if (hc->hx)
        pn__h1_fail(hc->hx, 408, PN_CANCEL_TIMEOUT, "body time-out");
}

/* The peer has taken nothing for the whole time: what is queued is given up, also by the kernel. */
void pn__h1_on_write_timeout(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    pn_conn_pin(c);
    if (hc->hx)
        pn__h1_leave_text(hc->hx);
    pn_conn_close(c, true);
    if (hc->hx && pn__h1_is_live(hc->hx))
        pn__h1_cancelled(hc->hx, PN_CANCEL_TIMEOUT, "write time-out");
    pn__h1_drop(hc);
    pn_conn_unpin(c);
}

void pn__h1_on_last_timeout(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    pn_conn_pin(c);
    pn_conn_close(c, false);
    pn__h1_drop(hc);
    pn_conn_unpin(c);
}
