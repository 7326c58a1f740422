/* SPDX-License-Identifier: Apache-2.0 */
/* The answer on its way out. A head is formatted and held; the first write, flush or end decides how
 * its body is framed, and head and body leave together. Announced lengths are kept to: more is
 * refused, less cuts the connection, so that no client takes a piece for the whole.
 *
 *   NONE --head--> HELD --first bytes, or the end--> LENGTH | CHUNKED | CLOSE | BODILESS --end--> over
 *     +--upgrade--> RAW */
#include <errno.h>
#include <stdlib.h>

#include "http/h1_wire.h"
#include "http/http_status.h"

/* --- small parts ------------------------------------------------------------------------------------------- */

void pn__h1_log(struct pn__h1_exchange *hx)
{
    struct pn_h1 *h1 = hx->hc->h1;
    if (!h1->config.on_access || hx->logged)
        return;
    hx->logged = true;
    pn__h1_check_time(h1);
    pn__h1_check_second(h1);
    const struct pn_access a = {
        .x = &hx->x,
        .peer = hx->x.peer,
        .status = hx->x.status,
        .sent_size = hx->head_sent + hx->x.sent_body_size,
        .duration_ns = pn_loop_now_ns(h1->loop) - hx->x.received_ns,
        .time_s = h1->time_s,
        .error = hx->error,
    };
    h1->config.on_access(h1->config.ctx, &a);
}

/* What a call that the state does not allow gets. */
static int refused(const struct pn__h1_exchange *hx)
{
    return pn__h1_is_live(hx) ? -EINVAL : -EPIPE;
}

/* The transport broke inside a call of the handler's: the return value says it. */
static int broken(struct pn__h1_exchange *hx)
{
    hx->in_call = true;
    pn__h1_gone(hx->hc, "client gone");
    hx->in_call = false;
    return -EPIPE;
}

static void blocked(struct pn__h1_exchange *hx)
{
    hx->out_blocked = true;
    pn__h1_serving_state(hx->hc);
}

static char *put(char *p, const char *from, size_t n)
{
    memcpy(p, from, n);
    return p + n;
}

static bool gather(struct pn_conn *c, const char *text, size_t n)
{
    char *p = pn_conn_out_reserve(c, n);
    if (!p)
        return false;
    memcpy(p, text, n);
    pn_conn_out_commit(c, n);
    return true;
}

/* --- the head ------------------------------------------------------------------------------------------------ */

/* The head of fields that came before, at hx->held; NULL: it is not there. */
static const struct pn__h1_kept *kept_head(struct pn__h1_exchange *hx, uint64_t id, unsigned status)
{
    const struct pn__h1_kept *k = &hx->hc->h1->kept[id % PN__H1_KEPT];
    if (pn_unlikely(k->id != id || k->status != status ||
                    (size_t)k->len + PN__H1_SLACK > hx->held_max))
        return NULL;
    pn__h1_put_slack(hx->held, k->text, k->len);
    return k;
}

static void keep_head(struct pn__h1_exchange *hx, uint64_t id, unsigned status, size_t n,
                      const struct pn__h1_said *said)
{
    struct pn__h1_kept *k = &hx->hc->h1->kept[id % PN__H1_KEPT];
    if (n > PN__H1_KEPT_SIZE)
        return;
    *k = (struct pn__h1_kept){.id = id, .said = *said, .status = (uint16_t)status};
    k->len = (uint16_t)n;
    memcpy(k->text, hx->held, n);
}

/* At hx->held, or at memory that hx->held_big has then: the length, or negative errno. */
static ptrdiff_t format_head(struct pn__h1_exchange *hx, unsigned status, struct pn_str reason,
                             const struct pn_field *fields, size_t count, struct pn__h1_said *said)
{
    char *out = hx->held;
    size_t bound = pn__h1_head_bound(reason, fields, count);
    if (pn_unlikely(status < 200 || status > 999 || bound == 0))
        return -EINVAL;
    if (pn_unlikely(bound > hx->held_max)) {
        out = pn_try_malloc(bound);
        if (!out)
            return -ENOMEM;
    }
    ptrdiff_t n = pn__h1_format_head(out, status, reason, fields, count, said);
    if (out == hx->held)
        return n;
    if (n < 0)
        free(out);
    else
        hx->held_big = out;
    return n;
}

int pn__h1_head(struct pn_exchange *x, unsigned status, struct pn_str reason,
                const struct pn_field *fields, size_t count, int64_t length, unsigned flags)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    struct pn__h1_said said;
    uint64_t id = reason.n == 0 ? x->fields_id : 0;
    x->fields_id = 0;
    if (pn_unlikely(x->state != PN_EXCHANGE_RECEIVED))
        return refused(hx);
    const struct pn__h1_kept *kept = id ? kept_head(hx, id, status) : NULL;
    if (kept) {
        said = kept->said;
        hx->held_len = kept->len;
    } else {
        said.length = flags & PN_HEAD_HAS_LENGTH ? length : -1;
        ptrdiff_t n = format_head(hx, status, reason, fields, count, &said);
        if (pn_unlikely(n < 0))
            return (int)n;
        if (pn_unlikely(length >= 0 && said.length >= 0 && length != said.length)) {
            free(hx->held_big);
            hx->held_big = NULL;
            return -EINVAL;
        }
        hx->held_len = (uint32_t)n;
        if (pn_unlikely(id && !hx->held_big))
            keep_head(hx, id, status, (size_t)n, &said);
    }
    hx->length = length >= 0 ? length : said.length;
    hx->no_more = (flags & PN_HEAD_NO_MORE) != 0;
    hx->ask_close = said.close || (flags & PN_HEAD_CLOSE);
    hx->has_upgrade = said.upgrade;
    hx->has_date = said.date;
    hx->has_server = said.server;
    hx->framing = PN__H1_FRAMING_HELD;
    x->status = (uint16_t)status;
    x->state = PN_EXCHANGE_STARTED;
    return 0;
}

/* Whether the connection ends with this answer; LAST: nothing of the body will be read any more. */
static bool must_close(const struct pn__h1_exchange *hx, bool last)
{
    const struct pn__h1_conn *hc = hx->hc;
    const struct pn_h1 *h1 = hc->h1;
    if (!hx->keep_alive || hx->ask_close || h1->draining)
        return true;
    if (h1->config.keepalive_requests_max && hc->requests >= h1->config.keepalive_requests_max)
        return true;
    if (pn_likely(hx->body == PN__H1_BODY_NONE))
        return false;
    int64_t missing = pn__h1_body_missing(hx);
    /* A client that was never told to go on may send its body or may not: nobody could tell
     * where the next request begins. */
    if (missing > 0 && hx->x.expect_continue && !hx->continued)
        return true;
    return last && missing > PN__H1_DRAIN_MAX;
}

/* Chooses the framing for a body of which N bytes come first; LAST: they are all. */
static void choose_framing(struct pn__h1_exchange *hx, size_t n, bool last)
{
    struct pn_exchange *x = &hx->x;
    bool bodiless = x->is_head || !pn_http_status_has_body(x->status);
    /* Nothing is known of the length that a GET would have had when the answer to HEAD has no bytes. */
    if (hx->length < 0 && last && !(bodiless && n == 0))
        hx->length = (int64_t)n;
    if (pn_unlikely(bodiless)) {
        if (!pn_http_status_may_have_length(x->status))
            hx->length = -1;
        hx->framing = PN__H1_FRAMING_BODILESS;
    } else if (hx->length >= 0) {
        hx->framing = PN__H1_FRAMING_LENGTH;
        hx->out_left = hx->length;
    } else if (x->version_minor >= 1) {
        hx->framing = PN__H1_FRAMING_CHUNKED;
        hx->out_left = 0;
    } else {
        hx->framing = PN__H1_FRAMING_CLOSE;
        hx->hc->close_after = true;
    }
}

/* Gathers the held head, with its framing for N bytes of body (LAST: and no more), and DATA behind
 * it when it is short (NULL: none). Returns the bytes of DATA that were taken, or -ENOMEM. */
static ssize_t settle(struct pn__h1_exchange *hx, const void *data, size_t n, bool last)
{
    struct pn__h1_conn *hc = hx->hc;
    struct pn_h1 *h1 = hc->h1;
    choose_framing(hx, n, last);
    bool counted = hx->framing == PN__H1_FRAMING_LENGTH || hx->framing == PN__H1_FRAMING_CLOSE;
    size_t taken = data && counted && n <= PN__H1_COPY_MAX ? n : 0;
    char *start = pn_conn_out_reserve(&hc->c, hx->held_len + sizeof h1->lines +
                                                  PN__H1_FRAME_LINES_MAX + taken);
    char *p = start;
    if (pn_unlikely(!p))
        return -ENOMEM;
    if (must_close(hx, last || (hx->length >= 0 && n >= (uint64_t)hx->length)))
        hc->close_after = true;
    pn__h1_check_second(h1);
    if (pn_likely(!hx->held_big))
        p = pn__h1_put_slack(p, hx->held, hx->held_len);
    else
        p = put(p, hx->held_big, hx->held_len);
    if (pn_likely(!hx->has_server && !hx->has_date))
        p = pn__h1_put_slack(p, h1->lines, h1->server_line_len + h1->date_line_len);
    else if (!hx->has_server)
        p = put(p, h1->lines, h1->server_line_len);
    else if (!hx->has_date)
        p = put(p, h1->lines + h1->server_line_len, h1->date_line_len);
    p = pn__h1_put_frame_lines(p, hx, hx->length, hx->framing == PN__H1_FRAMING_CHUNKED,
                               hc->close_after);
    hx->head_sent += (size_t)(p - start);
    if (taken) {
        p = put(p, data, taken);
        hx->x.sent_body_size += taken;
        hx->out_left -= (int64_t)taken;
    }
    pn_conn_out_commit(&hc->c, (size_t)(p - start));
    return (ssize_t)taken;
}

/* The head cannot even be gathered: the client gets no answer. */
static PN_COLD int no_memory(struct pn__h1_exchange *hx)
{
    hx->in_call = true;
    pn__h1_cancelled(hx, PN_CANCEL_HANDLER, "out of memory");
    pn__h1_cut(hx->hc);
    hx->in_call = false;
    return -EPIPE;
}

/* --- bytes ----------------------------------------------------------------------------------------------------- */

static ssize_t send_bytes(struct pn__h1_exchange *hx, const void *data, size_t n)
{
    ssize_t taken = pn_conn_write(&hx->hc->c, data, n);
    if (pn_unlikely(taken < 0))
        return broken(hx);
    hx->x.sent_body_size += (size_t)taken;
    if ((size_t)taken < n)
        blocked(hx);
    return taken;
}

/* Opens a chunk of N bytes, or stays in the one that is open. How many of the N may be sent now: 0
 * when the output is full; or negative. */
static ssize_t open_chunk(struct pn__h1_exchange *hx, size_t n)
{
    struct pn_conn *c = &hx->hc->c;
    char head[PN_H1_CHUNK_HEAD_MAX];
    if (hx->out_left > 0)
        return (ssize_t)pn_min_size(n, (size_t)hx->out_left);
    if (pn_bytes_len(&c->out) >= PN_CONN_OUT_HIGH_WATER) {
        enum pn_io io = pn_conn_flush(c);
        if (io == PN_IO_ERROR)
            return broken(hx);
        if (pn_bytes_len(&c->out) >= PN_CONN_OUT_HIGH_WATER) {
            c->write_blocked = true;
            blocked(hx);
            return 0;
        }
    }
    if (!gather(c, head, pn_h1_chunk_head(n, head)))
        return no_memory(hx);
    hx->out_left = (int64_t)n;
    return (ssize_t)n;
}

/* TAKEN bytes of the open chunk were sent; the last of them is followed by CRLF. */
static ssize_t chunk_sent(struct pn__h1_exchange *hx, ssize_t taken)
{
    if (taken <= 0)
        return taken;
    hx->out_left -= taken;
    if (hx->out_left == 0 && !gather(&hx->hc->c, "\r\n", 2))
        return no_memory(hx);
    return taken;
}

static ssize_t write_chunked(struct pn__h1_exchange *hx, const void *data, size_t n)
{
    struct pn_conn *c = &hx->hc->c;
    /* A chunk that an earlier write could not fill: what goes beyond it is a chunk of its own, for
     * a short count promises a DRAINED. */
    if (pn_unlikely(hx->out_left > 0 && n > (uint64_t)hx->out_left)) {
        ssize_t rest = chunk_sent(hx, send_bytes(hx, data, (size_t)hx->out_left));
        if (rest < 0 || hx->out_left > 0)
            return rest;
        ssize_t more = write_chunked(hx, (const char *)data + rest, n - (size_t)rest);
        return more < 0 ? more : more + rest;
    }
    /* Much is sent without a copy; what is in the queue leaves with it. */
    if (hx->out_left > 0 || pn_bytes_len(&c->out) + n > PN__H1_COPY_MAX) {
        ssize_t open = open_chunk(hx, n);
        return open <= 0 ? open : chunk_sent(hx, send_bytes(hx, data, (size_t)open));
    }
    char *start = pn_conn_out_reserve(c, n + PN_H1_CHUNK_HEAD_MAX + 2);
    char *p = start;
    if (!p)
        return no_memory(hx);
    p += pn_h1_chunk_head(n, p);
    p = put(p, data, n);
    p = put(p, "\r\n", 2);
    pn_conn_out_commit(c, (size_t)(p - start));
    hx->x.sent_body_size += n;
    return (ssize_t)n;
}

static ssize_t write_framed(struct pn__h1_exchange *hx, const void *data, size_t n)
{
    ssize_t taken;
    switch (hx->framing) {
    case PN__H1_FRAMING_LENGTH:
        if ((uint64_t)n > (uint64_t)hx->out_left)
            return -EMSGSIZE;
        taken = send_bytes(hx, data, n);
        if (taken > 0)
            hx->out_left -= taken;
        return taken;
    case PN__H1_FRAMING_CHUNKED:
        return write_chunked(hx, data, n);
    case PN__H1_FRAMING_BODILESS:
        return (ssize_t)n;
    default:
        return send_bytes(hx, data, n);
    }
}

/* The bytes that a body with a held head may have. */
static uint64_t announced(const struct pn__h1_exchange *hx)
{
    bool counts = hx->length >= 0 && !hx->x.is_head && pn_http_status_has_body(hx->x.status);
    return counts ? (uint64_t)hx->length : UINT64_MAX;
}

ssize_t pn__h1_write(struct pn_exchange *x, const void *data, size_t n)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    size_t done = 0;
    if (pn_unlikely(x->state != PN_EXCHANGE_STARTED))
        return refused(hx);
    if (n == 0)
        return 0;
    if (hx->framing == PN__H1_FRAMING_HELD) {
        if (pn_unlikely(n > announced(hx)))
            return -EMSGSIZE;
        ssize_t taken = settle(hx, data, n, hx->no_more || x->ends_with_next);
        if (pn_unlikely(taken < 0))
            return no_memory(hx);
        done = (size_t)taken;
        if (pn_likely(done == n))
            return (ssize_t)n;
    }
    ssize_t taken = write_framed(hx, (const char *)data + done, n - done);
    return taken < 0 ? taken : taken + (ssize_t)done;
}

static ssize_t send_file_bytes(struct pn__h1_exchange *hx, int fd, off_t *offset, size_t n)
{
    ssize_t taken = pn_conn_send_file(&hx->hc->c, fd, offset, n);
    if (taken == -EPIPE)
        return broken(hx);
    if (taken < 0)
        return taken;
    hx->x.sent_body_size += (size_t)taken;
    if ((size_t)taken < n)
        blocked(hx);
    return taken;
}

/* As write_chunked. */
static ssize_t send_file_chunked(struct pn__h1_exchange *hx, int fd, off_t *offset, size_t n)
{
    ssize_t open = open_chunk(hx, n);
    if (open <= 0)
        return open;
    ssize_t taken = chunk_sent(hx, send_file_bytes(hx, fd, offset, (size_t)open));
    if (taken < open || (size_t)taken == n)
        return taken;
    ssize_t more = send_file_chunked(hx, fd, offset, n - (size_t)taken);
    return more == -EPIPE ? more : (more > 0 ? more : 0) + taken;
}

/* As write_framed; the file's offset moves with what is taken. */
static ssize_t send_file_framed(struct pn__h1_exchange *hx, int fd, off_t *offset, size_t n)
{
    if (hx->framing == PN__H1_FRAMING_BODILESS) {
        *offset += (off_t)n;
        return (ssize_t)n;
    }
    if (hx->framing == PN__H1_FRAMING_LENGTH && (uint64_t)n > (uint64_t)hx->out_left)
        return -EMSGSIZE;
    if (hx->framing == PN__H1_FRAMING_CHUNKED)
        return send_file_chunked(hx, fd, offset, n);
    ssize_t taken = send_file_bytes(hx, fd, offset, n);
    if (taken > 0)
        hx->out_left -= taken;
    return taken;
}

ssize_t pn__h1_send_file(struct pn_exchange *x, int fd, off_t *offset, size_t n)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    if (x->state != PN_EXCHANGE_STARTED)
        return refused(hx);
    if (n == 0)
        return 0;
    n = pn_min_size(n, (size_t)1 << 30);
    if (hx->framing == PN__H1_FRAMING_HELD) {
        if (n > announced(hx))
            return -EMSGSIZE;
        if (settle(hx, NULL, n, hx->no_more || x->ends_with_next) < 0)
            return no_memory(hx);
    }
    return send_file_framed(hx, fd, offset, n);
}

int pn__h1_flush(struct pn_exchange *x)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    if (!pn__h1_is_live(hx))
        return -EPIPE;
    if (hx->framing == PN__H1_FRAMING_HELD && settle(hx, NULL, 0, false) < 0)
        return no_memory(hx);
    if (pn_bytes_len(&hx->hc->c.out) > 0 && pn_conn_flush(&hx->hc->c) == PN_IO_ERROR)
        return broken(hx);
    return 0;
}

/* --- the end --------------------------------------------------------------------------------------------------- */

/* What follows the last chunk. 0 or -EPIPE. */
static int end_chunks(struct pn__h1_exchange *hx, const struct pn_field *trailers, size_t count)
{
    struct pn_conn *c = &hx->hc->c;
    if (pn_likely(count == 0))
        return gather(c, PN_H1_CHUNK_FIN.p, PN_H1_CHUNK_FIN.n) ? 0 : no_memory(hx);
    size_t bound = pn__h1_head_bound(PN_STR_NONE, trailers, count);
    char *start = bound ? pn_conn_out_reserve(c, bound) : NULL;
    char *p = start;
    if (!p)
        return no_memory(hx);
    p = put(p, PN_H1_CHUNK_LAST.p, PN_H1_CHUNK_LAST.n);
    for (size_t i = 0; i < count; i++) {
        ptrdiff_t n = pn_h1_chunk_trailer(trailers[i].name, trailers[i].value, p,
                                          bound - (size_t)(p - start) - 2);
        if (n > 0) /* one that must not be sent is left out: the answer is whole without it */
            p += n;
    }
    p = put(p, PN_H1_CHUNK_CRLF.p, PN_H1_CHUNK_CRLF.n);
    pn_conn_out_commit(c, (size_t)(p - start));
    return 0;
}

/* Fewer bytes than were announced. */
static PN_COLD int fell_short(struct pn__h1_exchange *hx)
{
    hx->in_call = true;
    pn__h1_fail(hx, 500, PN_CANCEL_HANDLER, "answer shorter than announced");
    hx->in_call = false;
    return -EMSGSIZE;
}

/* Without a frame below, what was gathered leaves now and a task goes on with the connection. */
static PN_COLD void end_without_frame(struct pn__h1_exchange *hx)
{
    struct pn__h1_conn *hc = hx->hc;
    pn__h1_serving_state(hc);
    if (pn_bytes_len(&hc->c.out) > 0 && pn_conn_flush(&hc->c) == PN_IO_ERROR)
        pn__h1_gone(hc, "client gone");
    else
        pn_task_post(hc->h1->loop, &hc->c.resume);
}

int pn__h1_end(struct pn_exchange *x, const struct pn_field *trailers, size_t count)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    if (pn_unlikely(x->state != PN_EXCHANGE_STARTED))
        return refused(hx);
    if (hx->framing == PN__H1_FRAMING_HELD) {
        if (pn_unlikely(hx->length > 0 && announced(hx) != UINT64_MAX))
            return fell_short(hx);
        if (pn_unlikely(settle(hx, NULL, 0, true) < 0))
            return no_memory(hx);
    }
    if (hx->framing == PN__H1_FRAMING_LENGTH || hx->framing == PN__H1_FRAMING_CHUNKED) {
        if (pn_unlikely(hx->out_left > 0))
            return fell_short(hx);
        if (hx->framing == PN__H1_FRAMING_CHUNKED) {
            int r = end_chunks(hx, trailers, count);
            if (r < 0)
                return r;
        }
    }
    x->state = PN_EXCHANGE_ENDED;
    hx->body_wanted = false;
    hx->out_blocked = false;
    if (hx->hc->h1->config.on_access)
        pn__h1_log(hx);
    if (!hx->hc->in_frame)
        end_without_frame(hx);
    return 0;
}

void pn__h1_cancel(struct pn_exchange *x, enum pn_cancel why)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    if (!pn__h1_is_live(hx))
        return;
    hx->in_call = true;
    /* Who blocks on the descriptor itself counts the time itself: what follows is the same. */
    if (why == PN_CANCEL_TIMEOUT && hx->body_wanted) {
        pn__h1_on_body_timeout(&hx->hc->c);
    } else if (why == PN_CANCEL_TIMEOUT && hx->out_blocked) {
        pn__h1_on_write_timeout(&hx->hc->c);
    } else {
        pn__h1_cancelled(
            hx, why, why == PN_CANCEL_CLIENT_GONE ? "client gone" : "cancelled by the application");
        pn__h1_cut(hx->hc);
    }
    hx->in_call = false;
}

/* --- beside the answer --------------------------------------------------------------------------------------------- */

int pn__h1_info(struct pn_exchange *x, unsigned status, const struct pn_field *fields, size_t count)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    struct pn_conn *c = &hx->hc->c;
    struct pn__h1_said said;
    size_t bound = pn__h1_head_bound(PN_STR_NONE, fields, count);
    if (x->state != PN_EXCHANGE_RECEIVED)
        return refused(hx);
    if (status < 100 || status > 199 || status == 101 || bound == 0)
        return -EINVAL;
    if (x->version_minor == 0)
        return 0;
    char *p = pn_conn_out_reserve(c, bound + 2);
    if (!p)
        return -ENOMEM;
    said.length = -1;
    ptrdiff_t n = pn__h1_format_head(p, status, PN_STR_NONE, fields, count, &said);
    if (n < 0)
        return -EINVAL;
    memcpy(p + n, "\r\n", 2);
    pn_conn_out_commit(c, (size_t)n + 2);
    hx->continued |= status == 100;
    hx->head_sent += (size_t)n + 2;
    return pn_conn_flush(c) == PN_IO_ERROR ? broken(hx) : 0;
}

int pn__h1_upgrade(struct pn_exchange *x, unsigned status, const struct pn_field *fields,
                   size_t count)
{
    struct pn__h1_exchange *hx = pn__h1_exchange_of(x);
    struct pn_conn *c = &hx->hc->c;
    struct pn__h1_said said;
    size_t bound = pn__h1_head_bound(PN_STR_NONE, fields, count);
    if (x->state != PN_EXCHANGE_RECEIVED)
        return refused(hx);
    if (status != 101 || bound == 0 || !x->upgrade_asked || x->has_body)
        return -EINVAL;
    if (pn__h1_own_text(hx) < 0)
        return -ENOMEM;
    char *p = pn_conn_out_reserve(c, bound + 32);
    if (!p)
        return -ENOMEM;
    said.length = -1;
    ptrdiff_t n = pn__h1_format_head(p, status, PN_STR_NONE, fields, count, &said);
    if (n < 0 || !said.upgrade)
        return -EINVAL;
    memcpy(p + n, "Connection: upgrade\r\n\r\n", 23);
    pn_conn_out_commit(c, (size_t)n + 23);
    hx->head_sent += (size_t)n + 23;
    hx->framing = PN__H1_FRAMING_RAW;
    hx->body = PN__H1_BODY_RAW;
    hx->hc->close_after = true;
    x->status = 101;
    x->state = PN_EXCHANGE_STARTED;
    return pn_conn_flush(c) == PN_IO_ERROR ? broken(hx) : 0;
}

/* Who asks for the descriptor blocks on it while the loop stands still, and comes back: the edges of
 * that time are not seen, so the next call tries for itself. */
int pn__h1_wait_fd(struct pn_exchange *x)
{
    struct pn_conn *c = &pn__h1_exchange_of(x)->hc->c;
    if (c->dead)
        return -1;
    c->readable = !c->peer_closed;
    c->writable = true;
    return c->transport.fd;
}
