/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds, plans, the run of one history, and the command line: --seed N --histories N [--verbose]. */
#include "sim/sim_world.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "http/http_status.h"

/* A history that takes this many steps does not end by itself. */
enum { STEPS_MAX = 2000000 };

static const struct sim_wire *the_wire;
static uint64_t seed_now; /* for the signal handler */

/* --- random numbers -------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t sim_random(struct sim_world *w, uint64_t n)
{
    return next_random(&w->random) % n;
}

bool sim_chance(struct sim_world *w, unsigned percent)
{
    return sim_random(w, 100) < percent;
}

/* --- failing ------------------------------------------------------------------------------------------ */

void sim_fail(const struct sim_world *w, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s: seed %llu: ", the_wire->name, (unsigned long long)w->seed);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\nreplay: --seed %llu --histories 1 --verbose\n", (unsigned long long)w->seed);
    va_end(args);
    fflush(stderr);
    _exit(1);
}

void sim_say(const struct sim_world *w, const char *fmt, ...)
{
    va_list args;
    if (!w->verbose)
        return;
    va_start(args, fmt);
    fprintf(stderr, "%9.3f ms  ", (double)(sim_now_ns(w->sim) - PN_NS_PER_SEC) / 1e6);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

static void say_plan(const struct sim_plan *p)
{
    static const char *const bodies[] = {"no body", "length", "chunked"};
    sim_say(
        p->conn->world,
        "plan %u/%u: %s 1.%u, %s %u%s, connection %u, flaw %u; reads %u%s, answers %u: %u bytes "
        "by %u, length %u, ending %u;%s%s%s%s%s%s%s%s%s%s%s, delays %u",
        p->conn->number, p->id, p->method, p->minor, bodies[p->body], p->body_size,
        p->expect ? " expects" : "", p->connection, p->flaw, p->reading,
        p->bites ? " in bites" : "", p->status, p->answer_size, p->piece_size, p->length, p->ending,
        p->info ? " info" : "", p->flushes ? " flushes" : "", p->asks_close ? " closes" : "",
        p->wakes_later ? " wakes later" : "", p->nests ? " nests" : "",
        p->nests_later ? " nests later" : "", p->stays ? " stays" : "", p->keeps ? " keeps" : "",
        p->sends_file ? " file" : "", p->trailers ? " trailers" : "",
        p->waits ? " client waits" : "", p->delays);
}

static void say_seed(void)
{
    char text[64];
    int n = snprintf(text, sizeof text, "seed %llu\n", (unsigned long long)seed_now);
    if (write(2, text, (size_t)n) < 0)
        return;
}

static void on_peer_gone(struct pn_handler *h, struct pn_peer *peer)
{
    (void)peer;
    ((struct sim_world *)h)->peers_gone++;
}

static void on_abort(int signo)
{
    (void)signo;
    say_seed();
    _exit(1);
}

/* Called by AddressSanitizer before it reports. */
void __asan_on_error(void);
void __asan_on_error(void)
{
    say_seed();
}

void sim_append(struct pn_bytes *b, const void *data, size_t n)
{
    if (n == 0)
        return;
    if (b->capacity - b->end < n) {
        size_t capacity = pn_max_size(1024, b->capacity);
        while (capacity < b->end + n)
            capacity *= 2;
        b->data = pn_xrealloc(b->data, capacity);
        b->capacity = (uint32_t)capacity;
    }
    if (n > 0)
        memcpy(b->data + b->end, data, n);
    b->end += (uint32_t)n;
}

/* The alphabet again and again: every body is a piece of it. */
static char text[SIM_BODY_MAX + 64];
static int file = -1;

static void make_text(void)
{
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 26);
    file = memfd_create("sim", MFD_CLOEXEC);
    if (file < 0 || write(file, text, sizeof text) != (ssize_t)sizeof text) {
        perror("memfd_create");
        _exit(2);
    }
}

static size_t text_start(const struct sim_plan *p, bool answer)
{
    return (p->id * 7 + (answer ? 13 : 0)) % 26;
}

const char *sim_text(const struct sim_plan *p, size_t k, bool answer)
{
    return text + text_start(p, answer) + k;
}

int sim_file(const struct sim_plan *p, off_t *offset)
{
    *offset = (off_t)text_start(p, true);
    return file;
}

/* --- plans ----------------------------------------------------------------------------------------------- */

bool sim_bodiless(const struct sim_plan *p)
{
    return p->is_head || !pn_http_status_has_body(p->status);
}

bool sim_is_short(const struct sim_plan *p)
{
    return p->ending == SIM_END_SHORT && p->length == SIM_LENGTH_KNOWN && p->answer_size > 0 &&
           !sim_bodiless(p);
}

static const struct {
    const char *text;
    unsigned status;
} bad_heads[] = {
    {"GET /bad HTTP/1.1\r\n\r\n", 400},
    {"GET /bad HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
    {"GET /bad HTTP/2.0\r\nHost: a\r\n\r\n", 505},
    {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501},
    {"POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
     400},
    {"POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
    {"POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: no\r\n\r\n", 417},
    {"GET /b\x01"
     "ad HTTP/1.1\r\nHost: a\r\n\r\n",
     400},
    {"GET /bad HTTP/1.1\r\nHost : a\r\n\r\n", 400},
    {"\r\n\r\n\r\n\r\n\r\n\r\n", 400},
    {"GET /bad HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
};

static uint32_t random_size(struct sim_world *w)
{
    switch (sim_random(w, 8)) {
    case 0:
        return 0;
    case 1:
    case 2:
    case 3:
        return (uint32_t)sim_random(w, 20);
    case 4:
    case 5:
        return (uint32_t)sim_random(w, 1000);
    case 6:
        return (uint32_t)sim_random(w, 20000);
    default:
        return sim_chance(w, 20) ? (uint32_t)sim_random(w, 400000) : 1;
    }
}

static void plan_request(struct sim_world *w, struct sim_plan *p)
{
    static const char *const methods[] = {"GET", "GET", "POST", "PUT", "HEAD", "DELETE", "X-ODD"};
    p->method = methods[sim_random(w, PN_ARRAY_LEN(methods))];
    p->is_head = p->method[0] == 'H';
    p->minor = sim_chance(w, 90);
    p->connection = sim_chance(w, 85) ? 0 : (uint8_t)(1 + sim_random(w, 2));
    if (p->minor == 0 && sim_chance(w, 60))
        p->connection = 2;
    p->headers = sim_chance(w, 5) ? (unsigned)sim_random(w, 60) : (unsigned)sim_random(w, 4);
    if (sim_chance(w, 40)) {
        p->body = p->minor && sim_chance(w, 50) ? SIM_BODY_CHUNKED : SIM_BODY_LENGTH;
        p->body_size = (uint32_t)pn_min_size(random_size(w), w->body_limit);
        p->expect = sim_chance(w, 20);
        p->waits = p->expect && p->minor && sim_chance(w, 50);
    }
    p->form = (uint8_t)(sim_chance(w, 70) ? 0 : 1 + sim_random(w, 2));
    if (!sim_chance(w, 8))
        return;
    p->flaw = (uint8_t)(1 + sim_random(w, 4));
    if (p->flaw == SIM_FLAW_HEAD) {
        size_t which = sim_random(w, PN_ARRAY_LEN(bad_heads));
        p->flaw_head = bad_heads[which].text;
        p->flaw_status = bad_heads[which].status;
    } else if (p->flaw == SIM_FLAW_TOO_LARGE) {
        p->body = p->minor && sim_chance(w, 50) ? SIM_BODY_CHUNKED : SIM_BODY_LENGTH;
        p->body_size = (uint32_t)(w->body_limit + 1 + (sim_chance(w, 50) ? 0 : sim_random(w, 100)));
    } else {
        p->body = SIM_BODY_CHUNKED;
        p->minor = 1;
    }
}

static void plan_answer(struct sim_world *w, struct sim_plan *p)
{
    p->status = (uint16_t)SIM_PICK(w, 200, 200, 200, 200, 201, 404, 500, 204, 304, 299);
    p->answer_size = random_size(w);
    p->length = (uint8_t)sim_random(w, 3);
    p->reading = (uint8_t)(sim_chance(w, 60) ? SIM_READ_ALL : sim_random(w, 3));
    p->ending = (uint8_t)(sim_chance(w, 92) ? SIM_END_PROPER : 1 + sim_random(w, 3));
    if (p->ending == SIM_END_SHORT && !sim_is_short(p))
        p->ending = SIM_END_PROPER; /* nobody would notice */
    p->piece_size = p->length == SIM_LENGTH_NO_MORE || sim_chance(w, 60)
                        ? UINT32_MAX
                        : 1 + (uint32_t)sim_random(w, p->answer_size / 3 + 2);
    p->bites = sim_chance(w, 20);
    p->info = sim_chance(w, 5);
    p->flushes = sim_chance(w, 20);
    p->sends_file = sim_chance(w, 10);
    p->trailers = sim_chance(w, 10);
    p->asks_close = sim_chance(w, 4);
    p->wakes_later = sim_chance(w, 30);
    p->nests = sim_chance(w, 10);
    p->nests_later = sim_chance(w, 10);
    p->stays = sim_chance(w, 10);
    p->keeps = sim_chance(w, 70);
    p->delays = sim_chance(w, 70) ? 0 : (uint8_t)sim_random(w, 60);
}

/* All requests are there at once, and nothing makes the server wait: their answers are one send. */
static void calm_down(struct sim_plan *p)
{
    const struct sim_world *w = p->conn->world;
    p->flaw = SIM_FLAW_NONE;
    p->expect = p->waits = p->info = p->flushes = p->sends_file = false;
    p->nests = p->nests_later = p->stays = false;
    p->delays = 0;
    p->ending = SIM_END_PROPER;
    p->piece_size = UINT32_MAX;
    p->headers = p->headers % 5;
    p->body_size = (uint32_t)pn_min_size(p->body_size, w->body_limit < 1000 ? 100 : 1000);
    p->answer_size = (uint32_t)pn_min_size(p->answer_size, 1000);
}

static void plan_conn(struct sim_world *w, struct sim_conn *c)
{
    bool waits = false;
    c->world = w;
    c->plan_count = 1 + (unsigned)sim_random(w, SIM_PLANS_MAX);
    c->calm = sim_chance(w, 10);
    for (unsigned i = 0; i < c->plan_count; i++) {
        struct sim_plan *p = &c->plans[i];
        *p = (struct sim_plan){.conn = c, .id = i};
        plan_request(w, p);
        plan_answer(w, p);
        if (c->calm)
            calm_down(p);
        p->waits &= !waits && !p->flaw; /* one, so that any 100 is the one for it */
        waits |= p->waits;
        if (the_wire->adapt)
            the_wire->adapt(p);
        say_plan(p);
    }
    c->shuts_early = sim_chance(w, 30);
    if (sim_chance(w, 20) && !c->calm)
        c->trouble = (uint8_t)(1 + sim_random(w, 4));
}

/* --- one history --------------------------------------------------------------------------------------------- */

void sim_step(struct sim_world *w)
{
    w->follower = false;
    pn_loop_step(w->loop);
    the_wire->check(w);
}

static void plan_world(struct sim_world *w)
{
    w->body_limit = (size_t)SIM_PICK(w, 100, 5000, 500000);
    w->body_buffer = (size_t)SIM_PICK(w, 0, 1, 10, 1000, 65536, 65536);
    w->requests_max = sim_chance(w, 10) ? 1 + (unsigned)sim_random(w, 4) : 0;
    w->conn_count = 1 + (unsigned)sim_random(w, SIM_CONNS_MAX);
    w->out_of_memory = sim_chance(w, 5);
    for (unsigned i = 0; i < w->conn_count; i++) {
        w->conns[i].number = i;
        plan_conn(w, &w->conns[i]);
    }
}

static void run(struct sim_world *w)
{
    for (unsigned i = 0; i < w->conn_count; i++) {
        w->follower = false;
        the_wire->connect(&w->conns[i]);
    }
    if (w->out_of_memory)
        pn_mem_fail_at(1 + (unsigned long)sim_random(w, 100), sim_chance(w, 30));
    for (unsigned steps = 0; !sim_idle(w->sim) || pn_loop_has_work(w->loop); steps++) {
        if (steps == STEPS_MAX)
            sim_fail(w, "no end after %u steps", steps);
        sim_step(w);
    }
    pn_mem_fail_at(0, false);
}

static void finish(struct sim_world *w)
{
    if (w->jobs)
        sim_fail(w, "%u handlers wait for ever", w->jobs);
    if (w->starts != w->finishes)
        sim_fail(w, "%u requests started, %u finished", w->starts, w->finishes);
    for (unsigned i = 0; i < w->conn_count; i++)
        if (w->conns[i].link->fd >= 0)
            sim_fail(w, "connection %u was never closed", i);
    if (pn_net_connections(w->net) != 0 || sim_fd_count(w->sim) != 0)
        sim_fail(w, "%zu connections, %zu descriptors are left", pn_net_connections(w->net),
                 sim_fd_count(w->sim));
    if (w->peers_gone != w->conn_count && !w->out_of_memory)
        sim_fail(w, "%u peers of %u are gone", w->peers_gone, w->conn_count);
    for (unsigned i = 0; i < w->conn_count; i++)
        the_wire->judge(&w->conns[i]);
    the_wire->destroy(w);
    pn_net_destroy(w->net);
    pn_loop_destroy(w->loop);
    for (unsigned i = 0; i < w->conn_count; i++) {
        struct sim_conn *c = &w->conns[i];
        sim_link_free(c->link);
        free(c->request.data);
        free(c->received.data);
    }
}

/* Returns how many connections it had. */
static unsigned history(uint64_t seed, bool verbose)
{
    static struct sim_world world;
    struct sim_world *w = &world;
    const struct pn_net_config times = {
        .header_timeout_ns = SIM_HEADER_NS,
        .body_timeout_ns = SIM_BODY_NS,
        .keepalive_timeout_ns = SIM_KEEPALIVE_NS,
        .write_timeout_ns = SIM_WRITE_NS,
        .linger_timeout_ns = SIM_LINGER_NS,
    };
    seed_now = seed;
    *w = (struct sim_world){.seed = seed, .random = seed, .verbose = verbose};
    w->handler.start = sim_handler_start;
    w->handler.peer_gone = on_peer_gone;
    w->sim = sim_poller_create();
    if (sim_chance(w, 50))
        sim_poller_seed(w->sim, sim_random(w, UINT64_MAX) | 1);
    w->loop = pn_loop_create(sim_poller_base(w->sim));
    w->net = pn_net_create(w->loop, &times);
    plan_world(w);
    the_wire->create(w);
    run(w);
    finish(w);
    return w->conn_count;
}

int sim_main(int argc, char **argv, const struct sim_wire *wire)
{
    uint64_t seed = 1, histories = 1000, connections = 0;
    bool verbose = false;
    the_wire = wire;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--verbose")) {
            verbose = true;
        } else if (i + 1 < argc && !strcmp(argv[i], "--seed")) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (i + 1 < argc &&
                   (!strcmp(argv[i], "--histories") || !strcmp(argv[i], "--count"))) {
            histories = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: %s [--seed N] [--histories N] [--verbose]\n", argv[0]);
            return 2;
        }
    }
    make_text();
    signal(SIGABRT, on_abort);
    signal(SIGTERM, on_abort);
    int64_t begin_ns = pn_clock_mono_ns();
    for (uint64_t i = 0; i < histories; i++)
        connections += history(seed + i, verbose);
    double took_s = (double)(pn_clock_mono_ns() - begin_ns) / 1e9;
    printf("%s: %llu histories with %llu connections held, %.0f connections a second\n", wire->name,
           (unsigned long long)histories, (unsigned long long)connections,
           (double)connections / (took_s > 0 ? took_s : 1));
    return 0;
}
