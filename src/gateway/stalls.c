/* SPDX-License-Identifier: Apache-2.0 */
/* --log-blocking: a request that holds the loop is logged with its Python stack, each place at most
 * once a second. Runs on the watchdog's thread; the table is its own. */
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

/* The innermost frame: file, line and function. */
static struct pn_str place_of(struct pn_str stack)
{
    const char *newline = memchr(stack.p, '\n', stack.n);
    return newline ? (struct pn_str){stack.p, (size_t)(newline - stack.p)} : stack;
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

static struct pn_str read_stack(struct pn_gateway *gw, const struct pn__state *s, char *text,
                                size_t size)
{
    pthread_mutex_lock(&gw->watch_lock);
    size_t n = pn_pycompat_dump_stack(s->ts, gw->watch_state, text, size);
    pthread_mutex_unlock(&gw->watch_lock);
    if (n == 0)
        return PN_STR("  a call that held Python's lock, and has just ended");
    return (struct pn_str){text, n - 1}; /* without the last newline */
}

void pn__host_stalled(void *ctx, void *state, struct pn_core *core, int64_t for_ns)
{
    struct pn_gateway *gw = ctx;
    char text[STACK_TEXT_MAX];
    char where[PN_WHERE_TEXT_MAX];
    pn_where(gw->home_tid, where); /* who is reported runs on home's thread */
    struct pn_str stack = read_stack(gw, state ? state : &gw->home_state, text, sizeof text);
    if (said_just_now(gw, place_of(stack)))
        return;
    char whereabouts[PN_WHERE_TEXT_MAX + 4] = "";
    if (*where)
        snprintf(whereabouts, sizeof whereabouts, " (%s)", where);
    pn_log_warning(gw->log, "core %u has kept the loop waiting for %lld ms%s; it is in\n%.*s",
                   pn_core_number(core), (long long)(for_ns / PN_NS_PER_MS), whereabouts,
                   PN_STR_ARGS(stack));
    pn_log_flush(gw->log);
}
