/* SPDX-License-Identifier: Apache-2.0 */
/* The model of HTTP/1.1: see sim_model.h. It reads the stream that came back answer by answer, in the order of the
 * plans, as a strict client would. */
#include "sim/sim_model.h"

#include <stdio.h>
#include <stdlib.h>

#include "http/http_status.h"

struct response {
    unsigned status;
    int id; /* -1: the wire's own */
    bool close;
    bool chunked;
    int64_t length;
    size_t head_size;
    size_t logged_size; /* what the log counts: heads but 100, and the body without its framing */
};

struct judge {
    struct sim_conn *c;
    const char *text;
    size_t n;
    size_t pos;
    bool disrupted; /* any answer may be missing, or be refused, from some point on */
    bool continued; /* a 100 came before the answer at hand */
};

static PN_NORETURN void wrong(const struct judge *j, unsigned id, const char *what)
{
    const struct sim_conn *c = j->c;
    if (c->world->verbose)
        fprintf(stderr, "--- sent (%zu of %u):\n%.*s\n--- received, at %zu:\n%.*s\n", c->sent,
                c->request.end, (int)pn_min_size(c->sent, 20000), c->request.data, j->pos,
                (int)pn_min_size(j->n, 20000), j->text);
    sim_fail(c->world, "connection %u answer %u: %s", c->number, id, what);
}

/* The value of the header line NAME within the head, or an empty view. */
static struct pn_str find_line(const char *head, size_t n, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = head; p < head + n;) {
        const char *end = memmem(p, (size_t)(head + n - p), "\r\n", 2);
        if ((size_t)(end - p) > len + 1 && !memcmp(p, name, len) && p[len] == ':')
            return (struct pn_str){p + len + 2, (size_t)(end - p) - len - 2};
        p = end + 2;
    }
    return PN_STR_NONE;
}

/* False when the head is not whole. */
static bool read_head(const struct judge *j, unsigned id, struct response *r)
{
    const char *p = j->text + j->pos;
    size_t n = j->n - j->pos;
    const char *end = n ? memmem(p, n, "\r\n\r\n", 4) : NULL;
    uint64_t number;
    if (!end)
        return false;
    *r = (struct response){.id = -1, .length = -1, .head_size = (size_t)(end - p) + 4};
    if (r->head_size < 17 || memcmp(p, "HTTP/1.1 ", 9) != 0)
        wrong(j, id, "no status line");
    r->status =
        (unsigned)(p[9] - '0') * 100 + (unsigned)(p[10] - '0') * 10 + (unsigned)(p[11] - '0');
    struct pn_str value = find_line(p, r->head_size, "X-Id");
    if (value.n && pn_str_to_u64(value, 100, &number) == 0)
        r->id = (int)number;
    value = find_line(p, r->head_size, "Content-Length");
    if (value.n && pn_str_to_u64(value, INT64_MAX, &number) == 0)
        r->length = (int64_t)number;
    value = find_line(p, r->head_size, "Transfer-Encoding");
    r->chunked = value.n > 0;
    if (value.n && !pn_str_eq(value, PN_STR("chunked")))
        wrong(j, id, "an unknown coding");
    r->close = pn_str_eq(find_line(p, r->head_size, "Connection"), PN_STR("close"));
    if (r->status >= 200 && find_line(p, r->head_size, "Date").n != 29)
        wrong(j, id, "no date");
    return true;
}

/* Compares N bytes of body with what the plan says, from byte AT of it on. */
static void check_bytes(struct judge *j, const struct sim_plan *p, size_t at, size_t n)
{
    if (at + n > p->answer_size)
        wrong(j, p->id, "too many bytes");
    if (memcmp(j->text + j->pos, sim_text(p, at, true), n) != 0)
        wrong(j, p->id, "a wrong byte");
    j->pos += n;
}

/* What follows the last chunk; true when it is whole. */
static bool read_trailers(struct judge *j, const struct sim_plan *p)
{
    struct pn_str want = p->trailers ? PN_STR("X-Sum: 1\r\n\r\n") : PN_STR("\r\n");
    size_t left = pn_min_size(j->n - j->pos, want.n);
    if (memcmp(j->text + j->pos, want.p, left) != 0)
        wrong(j, p->id, "other trailers");
    j->pos += left;
    return left == want.n;
}

/* Reads a chunked body; true when it was whole. *SIZE is its length. */
static bool read_chunks(struct judge *j, const struct sim_plan *p, size_t *size)
{
    *size = 0;
    for (;;) {
        const char *at = j->text + j->pos;
        size_t left = j->n - j->pos;
        const char *end = left ? memmem(at, left, "\r\n", 2) : NULL;
        if (!end) {
            j->pos += left < 18 ? left : 0; /* at most a piece of a size line */
            return false;
        }
        size_t n = strtoul(at, NULL, 16);
        j->pos += (size_t)(end - at) + 2;
        left = j->n - j->pos;
        if (n == 0)
            return read_trailers(j, p);
        check_bytes(j, p, *size, pn_min_size(n, left));
        *size += pn_min_size(n, left);
        if (left < n + 2) {
            j->pos = j->n;
            return false;
        }
        if (memcmp(j->text + j->pos, "\r\n", 2) != 0)
            wrong(j, p->id, "a chunk without its end");
        j->pos += 2;
    }
}

/* Reads the body of an answer of the handler's; true when it is whole. */
static bool read_body(struct judge *j, const struct sim_plan *p, struct response *r)
{
    size_t left = j->n - j->pos, size;
    bool proper = p->ending == SIM_END_PROPER;
    if (r->chunked && r->length >= 0)
        wrong(j, p->id, "both a length and chunks");
    if (r->chunked && p->minor == 0)
        wrong(j, p->id, "chunks for an old client");
    if (r->length >= 0 && r->length != p->answer_size && (proper || p->length == SIM_LENGTH_KNOWN))
        wrong(j, p->id, "a wrong Content-Length");
    if (sim_bodiless(p)) {
        if (r->chunked || (r->status == 204 && r->length >= 0))
            wrong(j, p->id, "framing for a body that cannot be");
        return true;
    }
    if (r->chunked) {
        bool whole = read_chunks(j, p, &size);
        r->logged_size += size;
        if (whole && size != p->answer_size)
            wrong(j, p->id, "a piece passed for the whole");
        return whole;
    }
    if (r->length < 0) {
        if (p->minor > 0)
            wrong(j, p->id, "no framing at all");
        check_bytes(j, p, 0, left);
        r->logged_size += left;
        /* Only a reset tells the client that the rest is missing. */
        if (left < p->answer_size && !j->c->link->reset && !j->disrupted)
            wrong(j, p->id, "a piece passed for the whole");
        return left == p->answer_size;
    }
    check_bytes(j, p, 0, pn_min_size(left, (size_t)r->length));
    r->logged_size += pn_min_size(left, (size_t)r->length);
    return left >= (size_t)r->length;
}

/* --- how long a connection lives ------------------------------------------------------------------------- */

static bool client_closes(const struct sim_plan *p)
{
    return p->minor ? p->connection == 1 : p->connection != 2;
}

/* The wire was told to drain before that moment. */
static bool drained(const struct judge *j, int64_t before_ns)
{
    return j->c->world->drained_ns && before_ns > j->c->world->drained_ns;
}

/* The answer to P is the last, and says so. */
static bool must_end(const struct judge *j, const struct sim_plan *p)
{
    unsigned max = j->c->world->requests_max;
    return client_closes(p) || p->asks_close || (max && p->id + 1 >= max) ||
           drained(j, p->started_ns);
}

/* A body that the handler left is not worth its reading, or its end could not be found. */
static bool leaves_body(const struct judge *j, const struct sim_plan *p)
{
    if (p->body == SIM_BODY_NONE || p->reading == SIM_READ_ALL)
        return false;
    return p->body == SIM_BODY_CHUNKED || (p->expect && !j->continued) || p->body_size > 60000;
}

/* The answer to P may be the last. */
static bool may_end(const struct judge *j, const struct sim_plan *p)
{
    bool delimited = p->minor == 0 && p->length != SIM_LENGTH_KNOWN;
    return must_end(j, p) || leaves_body(j, p) || delimited || p->flaw ||
           p->ending != SIM_END_PROPER || drained(j, p->over_ns + 1) || j->disrupted;
}

/* Nothing follows the answer with this number, and nothing was served that could have. */
static void check_last(const struct judge *j, unsigned id)
{
    if (j->pos != j->n)
        wrong(j, id, "bytes after the last answer");
    if (j->disrupted || j->c->link->reset) /* what was answered may have been lost */
        return;
    for (unsigned i = id + 1; i < j->c->plan_count; i++)
        if (j->c->plans[i].started)
            wrong(j, i, "a request was served after the last one");
}

/* --- the answers ---------------------------------------------------------------------------------------------- */

/* An answer of the wire's own: which, and that nothing follows. */
static void judge_refusal(struct judge *j, const struct sim_plan *p, struct response *r)
{
    const struct sim_conn *c = j->c;
    const unsigned by_flaw[] = {0, p->flaw_status, 413, 400, 400};
    bool right = p->flaw && r->status == by_flaw[p->flaw];
    /* The bad chunk begins with five good bytes. */
    right |=
        p->flaw == SIM_FLAW_CHUNK && r->status == 413 && p->body_size + 5 > c->world->body_limit;
    right |= sim_is_short(p) && r->status == 500;
    right |= c->trouble == SIM_TROUBLE_STALL && r->status == 408;
    right |= c->trouble == SIM_TROUBLE_CUT && r->status == 400;
    right |= c->world->out_of_memory && r->status == 503;
    /* There was no memory for the 100 that the client waits for. */
    right |= c->world->out_of_memory && p->waits && r->status == 408;
    if (!right)
        wrong(j, p->id, "an answer of the wire's own");
    if (!r->close || r->chunked)
        wrong(j, p->id, "a refusal that does not close");
    if (r->status == 408 && c->link->closed_at_ns - c->opened_ns < SIM_BODY_NS)
        wrong(j, p->id, "408 before its time");
    size_t left = j->n - j->pos;
    bool headless = p->is_head && p->flaw != SIM_FLAW_HEAD && left == 0;
    if (!headless && left < (size_t)r->length && !j->disrupted)
        wrong(j, p->id, "a refusal that is cut");
    size_t size = r->logged_size + (headless ? 0 : (size_t)r->length);
    bool logged = p->logs == 1 && p->log_status == r->status && p->log_error && p->log_size == size;
    logged |= c->refusals == 1 && c->refusal_status == r->status && c->refusal_size == size;
    if (!logged && !c->world->out_of_memory)
        wrong(j, p->id, "a refusal that the log does not know so");
    j->pos += pn_min_size(left, (size_t)r->length);
    check_last(j, p->id);
}

/* Nothing, or not enough, came for P. An answer that ends with the connection can be cut by a reset only, which
 * takes along what the client has not read of those before. */
static void judge_missing(struct judge *j, const struct sim_plan *p)
{
    bool own = p->started && (p->ending != SIM_END_PROPER || p->flaw >= SIM_FLAW_TOO_LARGE);
    for (unsigned i = p->id + 1; j->c->link->reset && i < j->c->plan_count; i++)
        own |= j->c->plans[i].minor == 0 && j->c->plans[i].ending != SIM_END_PROPER;
    bool before = !p->started && p->id > 0 && may_end(j, &p[-1]);
    if (!own && !before && !j->disrupted)
        wrong(j, p->id, "no answer, or not all of it");
    if (p->started && !j->disrupted && !j->c->link->reset && !p->log_error)
        wrong(j, p->id, "the log takes a piece for the whole");
    check_last(j, p->id);
}

/* Interim answers before that of P. */
static bool skip_interim(struct judge *j, const struct sim_plan *p, struct response *r)
{
    bool hinted = false;
    size_t size = 0;
    j->continued = false;
    while (read_head(j, p->id, r)) {
        if (r->status >= 200) {
            if (p->info && p->minor && !hinted && r->id >= 0)
                wrong(j, p->id, "103 is missing");
            r->logged_size = size + r->head_size;
            return true;
        }
        if (r->status == 100 && (!p->expect || p->minor == 0 || j->continued || hinted))
            wrong(j, p->id, "100 that nobody waits for");
        if (r->status == 103 && (!p->info || p->minor == 0 || hinted))
            wrong(j, p->id, "103 that nobody sent");
        if (r->status != 100 && r->status != 103)
            wrong(j, p->id, "an unknown interim answer");
        j->continued |= r->status == 100;
        hinted |= r->status == 103;
        size += r->status == 103 ? r->head_size : 0;
        j->pos += r->head_size;
    }
    return false;
}

static void judge_log(const struct judge *j, const struct sim_plan *p, const struct response *r)
{
    if (p->log_status != r->status)
        wrong(j, p->id, "the log has another status");
    if (p->ending == SIM_END_PROPER && !p->was_cancelled &&
        (p->log_error || p->log_size != r->logged_size))
        wrong(j, p->id, "the log has another size, or an error");
}

/* True when the next answer may follow. */
static bool judge_answer(struct judge *j, const struct sim_plan *p)
{
    struct response r;
    if (!skip_interim(j, p, &r)) {
        j->pos = j->n; /* at most a piece of a head */
        judge_missing(j, p);
        return false;
    }
    j->pos += r.head_size;
    if (r.id < 0) {
        judge_refusal(j, p, &r);
        return false;
    }
    if (r.id != (int)p->id || !p->started)
        wrong(j, p->id, "another request's answer");
    if (r.status != p->status)
        wrong(j, p->id, "another status");
    if (!read_body(j, p, &r)) {
        judge_missing(j, p);
        return false;
    }
    judge_log(j, p, &r);
    if (r.close && !may_end(j, p))
        wrong(j, p->id, "closes without a reason");
    if (!r.close && must_end(j, p))
        wrong(j, p->id, "does not say that it closes");
    bool broken = p->flaw == SIM_FLAW_CHUNK || p->flaw == SIM_FLAW_TRAILER;
    if (r.close || broken || p->ending != SIM_END_PROPER) {
        check_last(j, p->id);
        return false;
    }
    return true;
}

/* --- the end ----------------------------------------------------------------------------------------------------- */

/* No connection outlives the time-out of its last state; IDLE: it rested after its last answer. */
static void judge_times(const struct judge *j, bool idle)
{
    const struct sim_conn *c = j->c;
    const struct sim_link *l = c->link;
    int64_t last_ns = l->moved_at_ns > c->sent_ns ? l->moved_at_ns : c->sent_ns;
    for (unsigned i = 0; i < c->plan_count; i++) {
        const struct sim_plan *p = &c->plans[i];
        int64_t over_ns = p->left_ns > p->over_ns ? p->left_ns : p->over_ns;
        last_ns = over_ns > last_ns ? over_ns : last_ns;
    }
    int64_t rested_ns = l->closed_at_ns - last_ns;
    /* One that waits with its refusal in the queue goes from one time-out to the next. */
    int64_t most_ns = SIM_KEEPALIVE_NS + SIM_LINGER_NS + (c->trouble ? SIM_WRITE_NS : 0);
    if (rested_ns > most_ns + PN_NS_PER_SEC / 100)
        wrong(j, c->plan_count, "closed too late");
    if (!idle || l->eof || j->disrupted)
        return;
    if (c->world->drained_ns) {
        int64_t from_ns = last_ns > c->world->drained_ns ? last_ns : c->world->drained_ns;
        if (l->closed_at_ns - from_ns > PN_NS_PER_SEC / 5)
            wrong(j, c->plan_count, "idle for too long after the drain");
    } else if (rested_ns < SIM_KEEPALIVE_NS) {
        wrong(j, c->plan_count, "closed before the keep-alive time");
    }
}

/* A close over bytes that were not read is a reset, which may destroy the answer on its way. */
static void judge_linger(const struct judge *j)
{
    const struct sim_conn *c = j->c;
    const struct sim_link *l = c->link;
    if (l->unread == 0 || l->reset || j->disrupted || c->world->drained_ns)
        return;
    /* A client that says close itself and sends more has asked for it. */
    for (unsigned i = 0; i < c->plan_count; i++)
        if (c->plans[i].started &&
            (c->plans[i].ending != SIM_END_PROPER || client_closes(&c->plans[i])))
            return;
    if (l->closed_at_ns - l->fin_at_ns < SIM_LINGER_NS && c->request.end < PN_HTTP_LINGER_BYTES_MAX)
        wrong(j, c->plan_count, "closed over bytes that were not read");
}

/* Every request that began was logged once, every other one at most. */
static void judge_logs(const struct judge *j)
{
    const struct sim_conn *c = j->c;
    for (unsigned i = 0; i < c->plan_count; i++) {
        const struct sim_plan *p = &c->plans[i];
        bool lost = c->world->out_of_memory; /* its name was lost with its text */
        if (p->logs > 1 || (p->started && p->logs == 0 && !lost))
            wrong(j, i, "was not logged once");
        if (p->logs && p->was_cancelled != p->log_error && p->started)
            wrong(j, i, "the log mistakes its end");
    }
}

void sim_h1_judge(struct sim_conn *c)
{
    struct sim_world *w = c->world;
    struct judge j = {.c = c, .text = c->received.data, .n = c->received.end};
    j.disrupted = c->trouble || w->out_of_memory || w->closed_all;
    judge_logs(&j);
    unsigned id = 0;
    while (id < c->plan_count && judge_answer(&j, &c->plans[id]))
        id++;
    bool idle = id == c->plan_count;
    if (idle)
        check_last(&j, id);
    /* A long body that its handler left ends the connection, too late to say so. */
    judge_times(&j, idle && !leaves_body(&j, &c->plans[id - 1]));
    judge_linger(&j);
    if (c->calm && !j.disrupted && !w->drained_ns && c->link->writes != 1)
        wrong(&j, id, "more than one send for a batch");
}
