/* SPDX-License-Identifier: Apache-2.0 */
#include "wait_fixture.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

const enum pn_carrier wait_carriers[WAIT_CARRIERS] = {PN_CARRIER_THREADS, PN_CARRIER_FIBERS};

void *wait_probe(int argc, char **argv, const char *symbol)
{
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    void *found = library ? dlsym(library, symbol) : NULL;
    if (!found)
        fprintf(stderr, "usage: %s LIBRARY\n", argv[0]);
    return found;
}

struct timespec wait_in_ms(clockid_t clock, int ms)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return pn_ns_timespec(pn_timespec_ns(&t) + ms * PN_NS_PER_MS);
}

void wait_until_met(struct visitor *v, const struct gauge *present, int count,
                    void (*one)(struct visitor *v))
{
    int64_t end_ns = pn_clock_mono_ns() + 60 * PN_NS_PER_SEC;
    do {
        REQUIRE(pn_clock_mono_ns() < end_ns);
        one(v);
    } while (atomic_load(&present->most_ever) < count);
}

void wait_together(struct visitor *v, struct gauge *present, void (*one)(struct visitor *v))
{
    gauge_enter(present);
    wait_until_met(v, present, v->world->count, one);
    gauge_leave(present);
}

static void run_visitor(struct pn_job *job)
{
    struct visitor *v = pn_container_of(job, struct visitor, job);
    struct world *w = v->world;
    struct pn_core *core = pn_core_self();
    pn_core_enter_app(core);
    w->app(v);
    pn_core_leave_app(core);
    pn_cores_done(w->cores);
    if (++w->done == w->count)
        pn_loop_stop(w->loop);
}

static void drop_visitor(struct pn_job *job)
{
    (void)job;
    REQUIRE(!"a visitor was dropped");
}

static void admit_visitor(struct pn_task *task)
{
    struct visitor *v = pn_container_of(task, struct visitor, task);
    enum pn_admit r = pn_cores_admit(v->world->cores, &v->job);
    REQUIRE(r != PN_ADMIT_FULL);
    if (r == PN_ADMIT_RUN)
        run_visitor(&v->job);
}

void wait_serve(struct world *w, enum pn_carrier carrier, int count, void (*app)(struct visitor *v))
{
    struct pn_cores_config config = {.carrier = carrier,
                                     .count = VISITORS_MAX,
                                     .stack_size = 256 * 1024,
                                     .queue_max = VISITORS_MAX,
                                     .lease_ns = 10 * PN_NS_PER_SEC};
    w->carrier = carrier;
    w->app = app;
    w->count = count;
    w->loop = pn_loop_create(pn_poller_epoll_create());
    w->cores = pn_cores_create(w->loop, &config);
    REQUIRE(w->cores);
    struct pn_wait_config wait = {.cores = w->cores};
    struct pn_wait_stats before;
    pn_wait_stats(&before);
    REQUIRE(pn_wait_install(&wait) == 0);
    REQUIRE(pn_wait_install(&wait) == -EALREADY);
    for (int i = 0; i < count; i++) {
        struct visitor *v = &w->visitors[i];
        *v = (struct visitor){.world = w, .number = i};
        pn_task_init(&v->task, admit_visitor);
        pn_list_init(&v->job.node);
        v->job.run = run_visitor;
        v->job.dropped = drop_visitor;
        pn_task_post(w->loop, &v->task);
    }
    REQUIRE(pn_cores_run(w->cores) == 0);
    REQUIRE(w->done == count);
    pn_wait_stats(&w->wait_stats);
    w->calls_waited = w->wait_stats.calls_waited - before.calls_waited;
    pn_cores_stats(w->cores, &w->cores_stats);
    pn_wait_uninstall();
    pn_cores_destroy(w->cores);
    pn_loop_destroy(w->loop);
}
