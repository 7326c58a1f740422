/* SPDX-License-Identifier: Apache-2.0 */
/* The simulation's handler. It sees exchange.h only, so it serves every wire alike: finds its plan in
 * the target, checks the request against it, reads the body or some of it, answers at once, later or
 * in pieces, or gives up. Inside start it may give the loop away, as a core that waits does. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "sim/sim_world.h"

enum { DELAYS_MAX = 300 }; /* of one request: a body in the smallest pieces must end some time */

enum phase { READING = 0, HEAD = 1, WRITING = 2, ENDING = 3, DONE = 4 };

struct job {
    struct pn_exchange *x; /* pinned */
    struct sim_world *w;
    struct sim_plan *plan;
    struct pn_timer timer;
    struct pn_task wake;
    uint8_t phase; /* enum phase */
    bool in_call;  /* inside one of the exchange's functions: no notify may come */
    bool busy;     /* a frame works on it, or has given the loop away */
    bool cancelled;
    unsigned waits_for; /* bits of PN_NOTIFY_* */
    uint32_t taken;     /* of the request's body */
    uint32_t written;
    unsigned delayed; /* how often it has rested */
};

static void run(struct job *j);

static void check(const struct job *j, bool holds, const char *what)
{
    if (!holds)
        sim_fail(j->w, "connection %u request %u: %s", j->plan->conn->number, j->plan->id, what);
}

#define say(j, fmt, ...) \
    sim_say((j)->w, "%u/%u " fmt, (j)->plan->conn->number, (j)->plan->id __VA_OPT__(, ) __VA_ARGS__)

#define IN_CALL(j, call)                   \
    ({                                     \
        (j)->in_call = true;               \
        __typeof__(call) result_ = (call); \
        (j)->in_call = false;              \
        result_;                           \
    })

/* --- the job's life ---------------------------------------------------------------------------------- */

static void finish(struct job *j)
{
    check(j, j->x->state == PN_EXCHANGE_ENDED || j->x->state == PN_EXCHANGE_CANCELLED,
          "finished in neither way");
    check(j, !j->plan->over, "finished twice");
    sim_say(j->w, "%u/%u is %s", j->plan->conn->number, j->plan->id,
            j->x->state == PN_EXCHANGE_ENDED ? "ended" : "cancelled");
    j->plan->over = true;
    j->plan->over_ns = sim_now_ns(j->w->sim);
    j->plan->was_cancelled = j->x->state == PN_EXCHANGE_CANCELLED;
    j->phase = DONE;
    j->w->finishes++;
    pn_timer_cancel(j->w->loop, &j->timer);
    pn_task_cancel(&j->wake);
}

static void release(struct job *j)
{
    struct pn_exchange *x = j->x;
    x->handler = NULL;
    x->notify = NULL;
    j->w->jobs--;
    free(j);
    pn_exchange_unpin(x);
}

/* Goes on with the job from wherever it stands; frees it at its end. */
static void go_on(struct job *j)
{
    if (j->busy)
        return; /* the frame that has given the loop away finds out */
    j->busy = true;
    if (j->phase != DONE)
        run(j);
    j->busy = false;
    if (j->phase == DONE)
        release(j);
}

/* --- giving the loop away --- */

struct absence {
    struct pn_message message; /* first */
    struct sim_world *w;
    bool over;
};

/* The loop's owner, whichever frame that is, takes the news. */
static void on_message(struct pn_message *message)
{
    ((struct absence *)message)->over = true;
}

/* As another thread would: a wake alone, without a message behind it, may end in a look and be lost to the sleep. */
static void on_absence_over(void *ctx)
{
    struct absence *a = ctx;
    pn_message_send(a->w->loop, &a->message);
}

/* Other cores run the loop while this frame is away; they come back before it does. Now and then that takes
 * longer than any time-out. X: who waits has the text moved first, else the watchdog took the loop. */
static void leave(struct sim_world *w, const struct sim_plan *p, struct pn_exchange *x)
{
    struct absence a = {.message.deliver = on_message, .w = w};
    int64_t span_ms = (int64_t)sim_random(w, sim_chance(w, 5) ? 5000 : 40);
    if (w->nested == SIM_NEST_MAX)
        return;
    if (x)
        (void)pn_exchange_keep(x);
    sim_at(w->sim, sim_now_ns(w->sim) + span_ms * PN_NS_PER_MS, on_absence_over, &a);
    w->nested++;
    sim_say(w, "%u/%u gives the loop away", p->conn->number, p->id);
    while (!a.over)
        sim_step(w);
    w->nested--;
    sim_say(w, "%u/%u has the loop again", p->conn->number, p->id);
    w->follower = sim_chance(w, 50);
}

static void give_loop_away(struct job *j)
{
    j->busy = true;
    leave(j->w, j->plan, j->plan->keeps ? j->x : NULL);
    j->busy = false;
}

/* A frame of the job's own, as a core that was woken has. */
static void come_back(struct job *j)
{
    if (!j->busy && j->phase != DONE && j->plan->nests_later && sim_chance(j->w, 30))
        give_loop_away(j);
    go_on(j);
}

static void on_timer(struct pn_timer *timer)
{
    come_back(pn_container_of(timer, struct job, timer));
}

static void on_wake(struct pn_task *task)
{
    come_back(pn_container_of(task, struct job, wake));
}

static void on_notify(struct pn_exchange *x, unsigned why)
{
    struct job *j = x->handler;
    if (!j)
        return;
    say(j, "is notified: %u", why);
    check(j, !j->in_call, "notified from inside a call of its own");
    check(j, j->phase != DONE, "notified after its end");
    if (why & PN_NOTIFY_CANCELLED) {
        check(j, x->state == PN_EXCHANGE_CANCELLED && x->cancel != PN_CANCEL_NONE,
              "told of a cancel that is none");
        check(j, !j->cancelled, "cancelled twice");
        j->cancelled = true;
        finish(j);
        go_on(j);
        return;
    }
    if (!(j->waits_for & why))
        return;
    j->waits_for = 0;
    if (j->plan->wakes_later)
        pn_task_post(j->w->loop, &j->wake);
    else
        go_on(j);
}

/* True when the job rests for a while now. */
static bool delays(struct job *j)
{
    if (j->delayed == DELAYS_MAX || !sim_chance(j->w, j->plan->delays))
        return false;
    j->delayed++;
    int64_t span_ns = (int64_t)sim_random(j->w, 100) * PN_NS_PER_MS;
    if (pn_timer_set(j->w->loop, &j->timer, pn_loop_now_ns(j->w->loop) + span_ns) < 0)
        return false;
    return true;
}

/* --- its steps: each returns false when the job waits or is done --------------------------------------- */

static bool wait_for(struct job *j, unsigned why)
{
    j->waits_for = why;
    return false;
}

static bool lost(struct job *j)
{
    check(j, j->x->state == PN_EXCHANGE_CANCELLED, "refused without having been cancelled");
    finish(j);
    return false;
}

static bool give_up(struct job *j)
{
    j->in_call = true;
    pn_exchange_cancel(j->x, PN_CANCEL_HANDLER);
    j->in_call = false;
    return lost(j);
}

static void check_bytes(const struct job *j, struct pn_str view)
{
    const struct sim_plan *p = j->plan;
    size_t left = p->body_size > j->taken ? p->body_size - j->taken : 0;
    /* A bad chunk may have begun with good bytes. */
    check(j, view.n <= left || p->flaw == SIM_FLAW_CHUNK, "too much of a body");
    check(j, !memcmp(view.p, sim_text(p, j->taken, false), pn_min_size(view.n, left)),
          "a wrong byte in the body");
}

static bool step_read(struct job *j)
{
    const struct sim_plan *p = j->plan;
    uint32_t goal = p->reading == SIM_READ_ALL    ? UINT32_MAX
                    : p->reading == SIM_READ_SOME ? p->body_size / 2
                                                  : 0;
    while (j->taken < goal) {
        struct pn_str view;
        switch (IN_CALL(j, pn_exchange_body_peek(j->x, &view))) {
        case PN_BODY_DATA: {
            check(j, view.n > 0, "an empty piece of body");
            check_bytes(j, view);
            size_t n = p->bites ? 1 + (size_t)sim_random(j->w, view.n) : view.n;
            pn_exchange_body_consume(j->x, n);
            j->taken += (uint32_t)n;
            if (delays(j))
                return false;
            continue;
        }
        case PN_BODY_END:
            check(j, j->taken == p->body_size, "a body ended early");
            check(j, p->flaw == SIM_FLAW_NONE, "a bad body passed for whole");
            j->phase = HEAD;
            return true;
        case PN_BODY_AGAIN:
            return wait_for(j, PN_NOTIFY_BODY);
        case PN_BODY_ERROR:
            return lost(j);
        }
    }
    j->phase = HEAD;
    return true;
}

static bool step_head(struct job *j)
{
    static const struct pn_field hint = {PN_STR("Link"), PN_STR("</x>")};
    const struct sim_plan *p = j->plan;
    char number[16];
    int n = snprintf(number, sizeof number, "%u", p->id);
    const struct pn_field fields[] = {{PN_STR("X-Id"), {number, (size_t)n}},
                                      {PN_STR("Content-Type"), PN_STR("text/plain")}};
    unsigned flags = (p->length == SIM_LENGTH_NO_MORE ? PN_HEAD_NO_MORE : 0) |
                     (p->asks_close ? PN_HEAD_CLOSE : 0);
    if (p->ending == SIM_END_CANCEL_EARLY)
        return give_up(j);
    if (p->info && IN_CALL(j, pn_exchange_info(j->x, 103, &hint, 1)) < 0)
        return j->x->state == PN_EXCHANGE_CANCELLED ? lost(j) : give_up(j);
    int64_t length = p->length == SIM_LENGTH_KNOWN ? (int64_t)p->answer_size : -1;
    int rc = IN_CALL(j, pn_exchange_head(j->x, p->status, PN_STR_NONE, fields, 2, length, flags));
    if (rc == -EPIPE)
        return lost(j);
    if (rc < 0)
        return give_up(j); /* -ENOMEM */
    j->phase = WRITING;
    return !delays(j);
}

static ssize_t put_piece(struct job *j, size_t n)
{
    const struct sim_plan *p = j->plan;
    off_t begin, offset;
    if (!p->sends_file)
        return IN_CALL(j, pn_exchange_write(j->x, sim_text(p, j->written, true), n));
    int fd = sim_file(p, &begin);
    begin += j->written;
    offset = begin;
    ssize_t taken = IN_CALL(j, pn_exchange_send_file(j->x, fd, &offset, n));
    check(j, taken < 0 || offset - begin == taken, "the file's offset is not what was taken");
    return taken;
}

static bool step_write(struct job *j)
{
    const struct sim_plan *p = j->plan;
    uint32_t goal = p->answer_size;
    if (p->ending == SIM_END_CANCEL_LATE || sim_is_short(p))
        goal = goal / 2;
    while (j->written < goal) {
        size_t n = pn_min_size(goal - j->written, p->piece_size);
        ssize_t taken = put_piece(j, n);
        if (taken < 0)
            return j->x->state == PN_EXCHANGE_CANCELLED ? lost(j) : give_up(j);
        say(j, "wrote %zd of %zu", taken, n);
        check(j, (size_t)taken <= n, "more was taken than given");
        j->written += (uint32_t)taken;
        if (p->flushes && IN_CALL(j, pn_exchange_flush(j->x)) < 0)
            return lost(j);
        if ((size_t)taken < n)
            return wait_for(j, PN_NOTIFY_DRAINED);
        if (delays(j))
            return false;
    }
    j->phase = ENDING;
    return true;
}

static bool step_end(struct job *j)
{
    const struct sim_plan *p = j->plan;
    if (p->ending == SIM_END_CANCEL_LATE)
        return give_up(j);
    static const struct pn_field trailer = {PN_STR("X-Sum"), PN_STR("1")};
    int rc = IN_CALL(j, pn_exchange_end(j->x, &trailer, p->trailers));
    if (sim_is_short(p))
        check(j, rc == -EMSGSIZE || rc == -EPIPE, "an answer that is too short went through");
    if (rc < 0)
        return lost(j);
    finish(j);
    return false;
}

static void run(struct job *j)
{
    bool goes_on = true;
    while (goes_on) {
        /* The text is good whenever the loop is owned and the exchange lives. */
        struct pn_str method = pn_exchange_text(j->x, j->x->method);
        check(j, j->x->state > PN_EXCHANGE_STARTED || pn_str_eq(method, pn_str_of(j->plan->method)),
              "the request's text has changed");
        switch (j->phase) {
        case READING:
            goes_on = step_read(j);
            break;
        case HEAD:
            goes_on = step_head(j);
            break;
        case WRITING:
            goes_on = step_write(j);
            break;
        case ENDING:
            goes_on = step_end(j);
            break;
        default:
            goes_on = false;
        }
    }
}

/* --- start ------------------------------------------------------------------------------------------------ */

/* The path is /CONNECTION/ID. */
struct sim_plan *sim_find_plan(struct sim_world *w, struct pn_str path)
{
    if (path.n != 4 || path.p[0] != '/' || path.p[2] != '/')
        sim_fail(w, "a request that nobody sent: %.*s", PN_STR_ARGS(path));
    unsigned conn = (unsigned)(path.p[1] - '0'), id = (unsigned)(path.p[3] - '0');
    if (conn >= w->conn_count || id >= w->conns[conn].plan_count)
        sim_fail(w, "a request that nobody sent: %.*s", PN_STR_ARGS(path));
    return &w->conns[conn].plans[id];
}

static void check_request(const struct job *j)
{
    const struct sim_plan *p = j->plan;
    const struct pn_exchange *x = j->x;
    check(j, x->state == PN_EXCHANGE_RECEIVED, "started in a wrong state");
    check(j, !p->started, "started twice");
    check(j, p->flaw != SIM_FLAW_HEAD, "a bad request was started");
    check(j, p->flaw != SIM_FLAW_TOO_LARGE || p->body == SIM_BODY_CHUNKED, "413 was not answered");
    check(j, pn_str_eq(pn_exchange_text(x, x->query), p->form == 1 ? PN_STR("a=b") : PN_STR_NONE),
          "another query");
    check(j,
          pn_str_eq(pn_exchange_text(x, x->authority), p->form == 2 ? PN_STR("b:81") : PN_STR("a")),
          "another authority");
    check(j, x->is_head == p->is_head, "HEAD, or not");
    check(j, x->has_body == (p->body == SIM_BODY_CHUNKED || p->body_size > 0), "a body, or none");
    if (p->body == SIM_BODY_LENGTH)
        check(j, x->content_length == p->body_size, "a wrong Content-Length");
}

static struct job *begin(struct sim_world *w, struct pn_exchange *x)
{
    struct job *j = pn_xcalloc(1, sizeof *j);
    j->x = x;
    j->w = w;
    j->plan = sim_find_plan(w, pn_exchange_text(x, x->path));
    check_request(j);
    check(j, !w->follower, "begun on loan");
    check(j, !w->one_at_a_time || j->plan->conn->in_start == 0, "begun above another's frame");
    j->plan->started = true;
    j->plan->started_ns = sim_now_ns(w->sim);
    say(j, "starts");
    w->starts++;
    w->jobs++;
    pn_timer_init(&j->timer, on_timer);
    pn_task_init(&j->wake, on_wake);
    pn_exchange_pin(x);
    x->handler = j;
    x->notify = on_notify;
    return j;
}

/* All is over, but for what the application does behind its answer: an iterable's close that waits. Who
 * doesn't keep the exchange for that has no pin on it either. */
static void stay(struct sim_world *w, struct sim_plan *p, struct pn_exchange *x)
{
    leave(w, p, x);
    p->left_ns = sim_now_ns(w->sim);
}

void sim_handler_start(struct pn_handler *h, struct pn_exchange *x)
{
    struct sim_world *w = (struct sim_world *)h;
    struct job *j = begin(w, x);
    struct sim_plan *p = j->plan;
    struct pn_exchange *kept = p->stays && p->keeps ? x : NULL;
    if (kept)
        pn_exchange_pin(kept);
    p->conn->in_start++;
    if (p->nests)
        give_loop_away(j);
    if (j->phase == DONE)
        release(j);
    else if (!delays(j))
        go_on(j);
    if (p->stays && p->over)
        stay(w, p, kept);
    p->conn->in_start--;
    if (kept)
        pn_exchange_unpin(kept);
}
