/* SPDX-License-Identifier: Apache-2.0 */
/* --log-blocking: a request that holds the loop is logged with its Python stack, each place at most
 * once a second. Runs on the watchdog's thread; the table is its own. */
#include <unistd.h>

#include "base/clock.h"
#include "gateway/internal.h"
#include "wait/where.h"

enum { STACK_TEXT_MAX = 6 * 1024 };

#define SAY_AGAIN_NS PN_NS_PER_SEC

/* FNV-1a. */
static uint64_t hash_of(struct pn_str s)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < s.n; i++)
        hash = (hash ^ (unsigned char)s.p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* The innermost frame: file, line and function. What CPython writes before it is a heading. */
static struct pn_str place_of(struct pn_str stack)
{
    const char *end = stack.p + stack.n;
    const char *line = memmem(stack.p, stack.n, "  File ", 7);
    if (!line)
        return stack;
    const char *newline = memchr(line, '\n', (size_t)(end - line));
    return (struct pn_str){line, (size_t)((newline ? newline : end) - line)};
}

/* Places that share a slot drive each other out: then one may be said more often. */
static bool said_just_now(struct pn_gateway *gw, struct pn_str place)
{
    uint64_t hash = hash_of(place);
    struct pn__stall *stall = &gw->stalls[hash % PN__STALLS];
    int64_t now_ns = pn_clock_mono_ns();
    /* A little less than the second in which one long stay is reported again. */
    if (stall->place == hash && now_ns - stall->said_ns < SAY_AGAIN_NS * 9 / 10)
        return true;
    *stall = (struct pn__stall){hash, now_ns};
    return false;
}

static size_t read_stack(struct pn_gateway *gw, const struct pn__state *s, char *text, size_t size)
{
    int ends[2];
    if (pipe(ends) < 0)
        return 0;
    /* A pipe holds 64 kB, a dump is 100 frames at most: it cannot block. */
    pthread_mutex_lock(&gw->watch_lock);
    pn_pycompat_dump_stack(s->ts, gw->watch_state, ends[1]);
    pthread_mutex_unlock(&gw->watch_lock);
    close(ends[1]);
    ssize_t n = read(ends[0], text, size);
    close(ends[0]);
    while (n > 0 && text[n - 1] == '\n')
        n--;
    return n > 0 ? (size_t)n : 0;
}

void pn__host_stalled(void *ctx, void *state, struct pn_core *core, int64_t for_ns)
{
    struct pn_gateway *gw = ctx;
    char text[STACK_TEXT_MAX];
    char where[PN_WHERE_TEXT_MAX];
    pn_where(gw->home_tid, where); /* who is reported runs on home's thread */
    size_t n = read_stack(gw, state ? state : &gw->home_state, text, sizeof text);
    if (said_just_now(gw, place_of((struct pn_str){text, n})))
        return;
    char whereabouts[PN_WHERE_TEXT_MAX + 4] = "";
    if (*where)
        snprintf(whereabouts, sizeof whereabouts, " (%s)", where);
    pn_log_warning(gw->log, "core %u has kept the loop waiting for %lld ms%s; it is in\n%.*s",
                   pn_core_number(core), (long long)(for_ns / PN_NS_PER_MS), whereabouts, (int)n,
                   text);
    pn_log_flush(gw->log);
}
