/* SPDX-License-Identifier: Apache-2.0 */
#include "http/ws_message.h"

#include <errno.h>
#include <string.h>

#include "http/ws_mask.h"

enum { PIECE_SIZE = 4096, KEEP_SIZE = 4096 };

void pn_ws_receiver_init(struct pn_ws_receiver *r, const struct pn_ws_limits *limits,
                         struct pn_ws_deflate *deflate)
{
    memset(r, 0, offsetof(struct pn_ws_receiver, head));
    pn_bytes_init(&r->message);
    r->limits = limits;
    r->deflate = deflate;
}

void pn_ws_receiver_fini(struct pn_ws_receiver *r)
{
    pn_bytes_free(&r->message);
}

void pn_ws_receiver_rest(struct pn_ws_receiver *r)
{
    if (!r->kind)
        pn_bytes_free(&r->message);
}

/* --- Heads ------------------------------------------------------------------------------------- */

/* A frame begins: what it may be here. 0 or a negative status. */
static int begin_frame(struct pn_ws_receiver *r)
{
    const struct pn_ws_frame *f = &r->frame;
    r->in_frame = true;
    r->taken = 0;
    r->control_size = 0;
    if (pn_ws_is_control(f->opcode))
        return 0;
    if (f->opcode == PN_WS_OP_CONTINUATION ? !r->kind : r->kind)
        return -PN_WS_STATUS_PROTOCOL;
    if (!r->kind) {
        r->kind = f->opcode;
        r->compressed = f->compressed;
        r->fragments = 0;
        r->received = 0;
        r->utf8 = (struct pn_ws_utf8){0};
    }
    if (++r->fragments > r->limits->fragments_max)
        return -PN_WS_STATUS_POLICY;
    /* Known before a byte of it has come; what is compressed is bounded while it is inflated. */
    if (f->size > r->limits->message_size_max - (r->compressed ? 0 : pn_bytes_len(&r->message)))
        return -PN_WS_STATUS_TOO_BIG;
    return 0;
}

/* Bytes used of BUF for the head, which may have begun in an earlier call; *STATUS gets 0 or a negative
 * status. in_frame says whether it is whole. */
static size_t take_head(struct pn_ws_receiver *r, const char *buf, size_t len, int *status)
{
    bool compression = r->deflate != NULL;
    size_t before = r->head_size;
    int n;
    *status = 0;
    if (before == 0) {
        n = pn_ws_frame_parse(buf, len, compression, &r->frame);
        if (n == 0) {
            memcpy(r->head, buf, len);
            r->head_size = (uint8_t)len;
            return len;
        }
    } else {
        size_t more = pn_min_size(len, sizeof r->head - before);
        memcpy(r->head + before, buf, more);
        n = pn_ws_frame_parse(r->head, before + more, compression, &r->frame);
        if (n == 0) {
            r->head_size = (uint8_t)(before + more);
            return more;
        }
    }
    r->head_size = 0;
    *status = n < 0 ? n : begin_frame(r);
    return n < 0 ? 0 : (size_t)n - before;
}

/* --- Payloads ---------------------------------------------------------------------------------- */

static int status_of(int error)
{
    return error == -EMSGSIZE  ? -PN_WS_STATUS_TOO_BIG
           : error == -EBADMSG ? -PN_WS_STATUS_NOT_UTF8
                               : -PN_WS_STATUS_INTERNAL;
}

/* What the message has got from byte FROM on is text, if it is to be. */
static int check_text(struct pn_ws_receiver *r, size_t from)
{
    struct pn_str all = pn_bytes_view(&r->message);
    if (r->kind == PN_WS_OP_TEXT && !pn_ws_utf8_feed(&r->utf8, all.p + from, all.n - from))
        return -PN_WS_STATUS_NOT_UTF8;
    return 0;
}

static bool inflates_too_much(const struct pn_ws_receiver *r)
{
    size_t size = pn_bytes_len(&r->message);
    unsigned ratio = r->limits->ratio_max;
    return ratio && size > PN_WS_RATIO_FREE && size / ratio > r->received;
}

static int inflate_piece(struct pn_ws_receiver *r, const char *data, size_t n)
{
    char piece[PIECE_SIZE];
    uint64_t offset = r->taken;
    while (n) {
        size_t m = pn_min_size(n, sizeof piece);
        size_t before = pn_bytes_len(&r->message);
        pn_ws_mask_copy(piece, data, m, r->frame.key, offset);
        r->received += m;
        int rc = pn_ws_inflate(r->deflate, piece, m, &r->message, r->limits->message_size_max);
        if (rc < 0)
            return status_of(rc);
        if (inflates_too_much(r))
            return -PN_WS_STATUS_TOO_BIG;
        rc = check_text(r, before);
        if (rc < 0)
            return rc;
        data += m;
        offset += m;
        n -= m;
    }
    return 0;
}

static int data_piece(struct pn_ws_receiver *r, const char *data, size_t n)
{
    if (r->compressed)
        return inflate_piece(r, data, n);
    size_t before = pn_bytes_len(&r->message);
    char *to = pn_bytes_reserve(&r->message, n);
    if (!to)
        return -PN_WS_STATUS_INTERNAL;
    pn_ws_mask_copy(to, data, n, r->frame.key, r->taken);
    pn_bytes_commit(&r->message, n);
    r->received += n;
    return check_text(r, before);
}

/* --- Ends of frames ---------------------------------------------------------------------------- */

static int end_message(struct pn_ws_receiver *r, struct pn_ws_message *out)
{
    if (r->compressed) {
        size_t before = pn_bytes_len(&r->message);
        int rc = pn_ws_inflate_end(r->deflate, &r->message, r->limits->message_size_max);
        if (rc < 0)
            return status_of(rc);
        rc = check_text(r, before);
        if (rc < 0)
            return rc;
    }
    if (r->kind == PN_WS_OP_TEXT && !pn_ws_utf8_whole(&r->utf8))
        return -PN_WS_STATUS_NOT_UTF8;
    out->data = pn_bytes_len(&r->message) ? pn_bytes_view(&r->message) : PN_STR_NONE;
    int event = r->kind == PN_WS_OP_TEXT ? PN_WS_TEXT : PN_WS_BINARY;
    r->kind = 0;
    r->given = true;
    return event;
}

static int end_close(struct pn_ws_receiver *r, struct pn_ws_message *out)
{
    const uint8_t *p = (const uint8_t *)r->control;
    struct pn_ws_utf8 utf8 = {0};
    r->closed = true;
    out->status = PN_WS_STATUS_NONE;
    out->data = PN_STR_NONE;
    if (r->control_size == 0)
        return PN_WS_CLOSE;
    if (r->control_size == 1)
        return -PN_WS_STATUS_PROTOCOL;
    out->status = (unsigned)p[0] << 8 | p[1];
    out->data = (struct pn_str){r->control + 2, r->control_size - 2u};
    if (!pn_ws_status_may_be_sent(out->status))
        return -PN_WS_STATUS_PROTOCOL;
    if (!pn_ws_utf8_feed(&utf8, out->data.p, out->data.n) || !pn_ws_utf8_whole(&utf8))
        return -PN_WS_STATUS_NOT_UTF8;
    return PN_WS_CLOSE;
}

static int end_frame(struct pn_ws_receiver *r, struct pn_ws_message *out)
{
    r->in_frame = false;
    if (!pn_ws_is_control(r->frame.opcode))
        return r->frame.fin ? end_message(r, out) : PN_WS_MORE;
    if (r->frame.opcode == PN_WS_OP_CLOSE)
        return end_close(r, out);
    out->data = (struct pn_str){r->control, r->control_size};
    return r->frame.opcode == PN_WS_OP_PING ? PN_WS_PING : PN_WS_PONG;
}

/* Takes what is here of the frame's payload: bytes used; *STATUS as above. */
static size_t take_payload(struct pn_ws_receiver *r, const char *buf, size_t len, int *status)
{
    uint64_t left = r->frame.size - r->taken;
    size_t n = len < left ? len : (size_t)left;
    *status = 0;
    if (n == 0)
        return 0;
    if (pn_ws_is_control(r->frame.opcode)) {
        pn_ws_mask_copy(r->control + r->control_size, buf, n, r->frame.key, r->taken);
        r->control_size += (uint8_t)n;
    } else {
        *status = data_piece(r, buf, n);
    }
    r->taken += n;
    return n;
}

/* The last message has been read by the caller. */
static void forget_given(struct pn_ws_receiver *r)
{
    r->given = false;
    if (r->message.capacity > KEEP_SIZE)
        pn_bytes_free(&r->message);
    else
        pn_bytes_consume(&r->message, pn_bytes_len(&r->message));
}

int pn_ws_receive(struct pn_ws_receiver *r, const char *buf, size_t len, size_t *used,
                  struct pn_ws_message *out)
{
    size_t done = 0;
    int result = PN_WS_MORE;
    if (r->given)
        forget_given(r);
    while (!r->closed && result == PN_WS_MORE) {
        if (!r->in_frame) {
            if (done == len)
                break;
            done += take_head(r, buf + done, len - done, &result);
            if (result < 0 || !r->in_frame)
                break;
        }
        done += take_payload(r, buf + done, len - done, &result);
        if (result < 0 || r->taken < r->frame.size)
            break;
        result = end_frame(r, out);
    }
    *used = done;
    return result;
}
