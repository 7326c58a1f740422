/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for threads: joins, barriers, once (POSIX.1-2017; timedjoin_np and clockjoin_np of glibc), in a
 * core.
 *
 * Joins and barriers can only be waited for by blocking, so a fiber has a thread of its own do it
 * (wait/helper.h): the kernel and glibc then count it like everybody. An initialiser that waits
 * (pthread_once) would have every other fiber that comes to it block their common thread for ever: which
 * fibers are inside one is kept, and the others park. */
#include <errno.h>

#include "base/clock.h"
#include "wait/helper.h"
#include "wait/layout.h"
#include "wait/locks.h"

/* --- Joins ------------------------------------------------------------------------------------------ */

struct join {
    pthread_t thread;
    void **result;
    struct pn__until until;
    bool by_clock;
    int r;
};

static void libc_join(void *arg)
{
    struct join *j = arg;
    if (!j->until.at)
        j->r = pthread_join(j->thread, j->result);
    else if (j->by_clock)
        j->r = pthread_clockjoin_np(j->thread, j->result, j->until.clock, j->until.at);
    else
        j->r = pthread_timedjoin_np(j->thread, j->result, j->until.at);
}

static int join_fiber(struct pn_core *core, struct join *j)
{
    /* All fibers are this thread, which ends after them. */
    if (pthread_equal(j->thread, pthread_self()))
        return EDEADLK;
    /* Python 3.13 joins threads that are in their last steps: worth a short look. */
    (void)pn_core_sleep_until(core, pn_clock_mono_ns() + 100 * PN_NS_PER_US);
    int r = pthread_tryjoin_np(j->thread, j->result);
    if (r != EBUSY)
        return r;
    if (pn__helper_run(core, libc_join, j) < 0)
        libc_join(j);
    return j->r;
}

static int join_any(struct join *j)
{
    /* Nobody joins a core: the server does that. */
    if (pn__is_fiber_ident(j->thread))
        return EDEADLK;
    struct pn_core *core = pn__wait_gate();
    int r = core ? pthread_tryjoin_np(j->thread, j->result) : EBUSY;
    if (r != EBUSY)
        return r;
    if (!core) {
        libc_join(j);
        return j->r;
    }
    pn__wait_count();
    if (pn__core_is_fiber(core))
        return join_fiber(core, j);
    if (!pn_core_block_begin(core, -1, 0))
        return EBUSY;
    libc_join(j);
    pn_core_block_end(core);
    return j->r;
}

int pn__call_pthread_join(pthread_t thread, void **result)
{
    struct join j = {.thread = thread, .result = result, .until = PN__FOREVER};
    return join_any(&j);
}

int pn__call_pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *deadline)
{
    struct join j = {.thread = thread, .result = result, .until = {CLOCK_REALTIME, deadline}};
    return join_any(&j);
}

int pn__call_pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock,
                                  const struct timespec *deadline)
{
    struct join j = {
        .thread = thread, .result = result, .until = {clock, deadline}, .by_clock = true};
    return join_any(&j);
}

/* --- Barriers --------------------------------------------------------------------------------------- */

struct arrival {
    pthread_barrier_t *barrier;
    int r;
};

static void libc_arrive(void *arg)
{
    struct arrival *a = arg;
    a->r = pthread_barrier_wait(a->barrier);
}

int pn__call_pthread_barrier_wait(pthread_barrier_t *barrier)
{
    struct arrival a = {.barrier = barrier};
    struct pn_core *core = pn__wait_gate();
    if (!core)
        return pthread_barrier_wait(barrier);
    pn__wait_count();
    if (pn__core_is_fiber(core)) {
        if (pn__helper_run(core, libc_arrive, &a) < 0)
            libc_arrive(&a);
        return a.r;
    }
    bool offered = pn_core_block_begin(core, -1, 0);
    libc_arrive(&a);
    if (offered)
        pn_core_block_end(core);
    return a.r;
}

/* --- Once ------------------------------------------------------------------------------------------- */

enum {
    ONCES_MAX = 64
}; /* initialisers under way at once; more are not kept, which is as without us */

/* Of the one thread that all fibers share. An entry whose control is no longer under way (an exception of
 * C++ left the initialiser) means nothing. */
static struct once {
    const pthread_once_t *control;
    const struct pn_core *fiber;
} onces[ONCES_MAX];

static bool under_way(const pthread_once_t *control)
{
    int v = __atomic_load_n(control, __ATOMIC_ACQUIRE);
    return v != PTHREAD_ONCE_INIT && v != pn__layout.once_done;
}

static struct once *once_of(const pthread_once_t *control)
{
    for (size_t i = 0; i < ONCES_MAX; i++)
        if (onces[i].control == control)
            return &onces[i];
    return NULL;
}

static struct once *once_room(void)
{
    for (size_t i = 0; i < ONCES_MAX; i++)
        if (!onces[i].control || !under_way(onces[i].control))
            return &onces[i];
    return NULL;
}

static int try_once(void *arg)
{
    return under_way(arg) ? EBUSY : 0;
}

/* A fiber is in this initialiser. False: nothing can be done but block. */
static bool wait_for_once(struct pn_core *fiber, pthread_once_t *control)
{
    bool parked = true;
    if (pn__wait_gate())
        (void)pn__park_until(fiber, control, try_once, control, PN__FOREVER, PN__LOOKS_PRIVATE);
    else
        (void)pn__park_attached(fiber, control, try_once, control, PN__FOREVER, &parked);
    return parked;
}

static int once_fiber(struct pn_core *fiber, pthread_once_t *control, void (*routine)(void))
{
    while (under_way(control) && once_of(control))
        if (!wait_for_once(fiber, control))
            return pthread_once(control, routine);
    /* A foreign thread may be in it: that one goes on while this thread blocks. */
    struct once *once = under_way(control) ? NULL : once_room();
    if (once)
        *once = (struct once){control, fiber};
    int r = pthread_once(control, routine);
    if (once)
        *once = (struct once){NULL, NULL};
    pn__wake(control, UINT32_MAX);
    return r;
}

int pn__call_pthread_once(pthread_once_t *control, void (*routine)(void))
{
    struct pn_core *core = pn_core_self();
    if (!core || __atomic_load_n(control, __ATOMIC_ACQUIRE) == pn__layout.once_done)
        return pthread_once(control, routine);
    struct pn_core *fiber = pn__fiber_self();
    if (fiber)
        return once_fiber(fiber, control, routine);
    if (!under_way(control) || !pn__wait_gate() || !pn_core_block_begin(core, -1, 0))
        return pthread_once(control, routine);
    int r = pthread_once(control, routine);
    pn_core_block_end(core);
    return r;
}
