/* SPDX-License-Identifier: Apache-2.0 */
/* The inline carrier: home is the only core. It runs the loop and the requests, and waits by blocking. */
#include "cores/cores_impl.h"

static int start(struct pn_cores *cores)
{
    (void)cores;
    return 0;
}

static int run(struct pn_cores *cores)
{
    struct pn_core *home = cores->home;
    for (;;) {
        pn__core_settle_as_runner(home);
        if (cores->home_due)
            pn__home_steps(cores);
        enum pn_step step = pn_loop_step(cores->loop);
        if (pn_unlikely(step == PN_STEP_STOPPED || cores->end_wanted) &&
            pn__cores_end_reached(cores))
            return 0;
    }
}

static void end(struct pn_cores *cores)
{
    (void)cores;
}

static bool quiet(struct pn_cores *cores)
{
    (void)cores;
    return true;
}

static int wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    pn__count(&core->cores->waits);
    return pn__os_wait_fd(core, fd, events, deadline_ns);
}

static int sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    pn__count(&core->cores->waits);
    return pn__os_sleep_until(core, deadline_ns);
}

static int park(struct pn_core *core, uint32_t number, int64_t deadline_ns)
{
    pn__count(&core->cores->waits);
    return pn__os_park(core, number, deadline_ns);
}

/* There are no others to let run. */
static void yield(struct pn_core *core)
{
    (void)core;
    sched_yield();
}

static bool block_begin(struct pn_core *core, int fd, uint32_t events)
{
    (void)fd;
    (void)events;
    pn__count(&core->cores->waits);
    pn__blocking_begin(core);
    return true;
}

static void block_end(struct pn_core *core)
{
    pn__blocking_end(core);
    (void)pn__wait_take_cut(core);
}

static void wake(struct pn_core *core)
{
    (void)core;
    PN_WRONG("an inline core blocks, it is never parked");
}

const struct pn__carrier pn__carrier_inline = {
    .start = start,
    .run = run,
    .end = end,
    .quiet = quiet,
    .wait_fd = wait_fd,
    .sleep_until = sleep_until,
    .park = park,
    .yield = yield,
    .block_begin = block_begin,
    .block_end = block_end,
    .wake = wake,
    .poke = pn__watchdog_signal,
};
