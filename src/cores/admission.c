/* SPDX-License-Identifier: Apache-2.0 */
/* Which requests run now: at most N under way, the rest in one FIFO with a bound and a time-out.
 *
 * Everything here belongs to the loop's owner. A job that waited is started from a task of the loop, at the
 * base of whoever runs it then: never from inside another request's end, which may be a follower's. */
#include "cores/cores_impl.h"

/* Jobs that leave the queue unanswered are answered 503 at once; no more than these in one go. */
enum { DROPS_MAX = 64 };

static struct pn_job *first_job(struct pn_cores *cores)
{
    return cores->queue_length ? pn_list_entry(cores->queue.next, struct pn_job, node) : NULL;
}

static void watch_age(struct pn_cores *cores)
{
    struct pn_job *job = first_job(cores);
    if (!job || cores->config.queue_timeout_ns <= 0)
        pn_timer_cancel(cores->loop, &cores->queue_timer);
    else if (cores->queue_timer.deadline_ns != job->queued_ns + cores->config.queue_timeout_ns ||
             !pn_timer_is_set(&cores->queue_timer))
        /* Without memory for the timer the job waits longer, that is all. */
        (void)pn_timer_set(cores->loop, &cores->queue_timer,
                           job->queued_ns + cores->config.queue_timeout_ns);
}

static void take_off(struct pn_cores *cores, struct pn_job *job)
{
    pn_list_remove(&job->node);
    cores->queue_length--;
    watch_age(cores);
}

static void drop_until(struct pn_cores *cores, int64_t queued_until_ns)
{
    for (int i = 0; i < DROPS_MAX; i++) {
        struct pn_job *job = first_job(cores);
        if (!job || job->queued_ns > queued_until_ns)
            return;
        take_off(cores, job);
        job->dropped(job);
    }
}

static void too_old(struct pn_timer *timer)
{
    struct pn_cores *cores = pn_container_of(timer, struct pn_cores, queue_timer);
    drop_until(cores, pn_loop_now_ns(cores->loop) - cores->config.queue_timeout_ns);
    watch_age(cores); /* more than DROPS_MAX: the timer is due again at once */
}

static void count_in(struct pn_cores *cores, struct pn_core *core)
{
    cores->under_way++;
    atomic_store_explicit(&core->busy, true, memory_order_release);
}

static void run_queued(struct pn_task *task)
{
    struct pn_cores *cores = pn_container_of(task, struct pn_cores, queue_task);
    struct pn_job *job = first_job(cores);
    if (!job)
        return;
    if (cores->stopping) {
        drop_until(cores, INT64_MAX);
        if (cores->queue_length > 0)
            pn_task_post(cores->loop, task);
        return;
    }
    struct pn_core *core = pn__core_self;
    if (cores->under_way >= cores->limit)
        return;                                  /* the next end of a request posts again */
    PN_ASSERT(!core->on_loan && !core->was_cut); /* at its base, which has settled */
    take_off(cores, job);
    count_in(cores, core);
    if (cores->queue_length > 0 && cores->under_way < cores->limit)
        pn_task_post(cores->loop, task);
    job->run(job); /* may not come back for long */
}

PN_COLD static enum pn_admit enqueue(struct pn_cores *cores, struct pn_job *job)
{
    pn__cores_lower_limit(cores);
    if (cores->stopping || cores->queue_length >= cores->config.queue_max)
        return PN_ADMIT_FULL;
    job->queued_ns = pn_loop_now_ns(cores->loop);
    pn_list_push_back(&cores->queue, &job->node);
    cores->queued++;
    if (cores->queue_length++ == 0)
        watch_age(cores);
    if (cores->under_way < cores->limit)
        pn_task_post(cores->loop, &cores->queue_task);
    return PN_ADMIT_QUEUED;
}

enum pn_admit pn_cores_admit(struct pn_cores *cores, struct pn_job *job)
{
    struct pn_core *core = pn__core_self;
    PN_ASSERT(core && core->cores == cores);
    if (pn_likely(cores->under_way < cores->limit && cores->queue_length == 0 && !core->on_loan &&
                  !core->was_cut && !cores->stopping)) {
        count_in(cores, core);
        return PN_ADMIT_RUN;
    }
    return enqueue(cores, job);
}

PN_COLD static void done_slow(struct pn_cores *cores, struct pn_core *core)
{
    if (atomic_exchange(&core->cut, false))
        core->was_cut = true;
    pn__cores_lower_limit(cores);
    if (cores->queue_length > 0)
        pn_task_post(cores->loop, &cores->queue_task);
    /* The runner may sleep while this is a follower: it is to see that the last request has gone. */
    if (cores->end_wanted)
        pn_task_post(cores->loop, &cores->nudge_task);
}

void pn_cores_done(struct pn_cores *cores)
{
    struct pn_core *core = pn__core_self;
    PN_ASSERT(core && core->cores == cores);
    PN_BUG_ON(cores->under_way == 0);
    cores->under_way--;
    atomic_store_explicit(&core->busy, false, memory_order_relaxed);
    core->request = NULL;
    core->overtaken = NULL;
    if (pn_unlikely(atomic_load_explicit(&core->cut, memory_order_relaxed) ||
                    cores->queue_length > 0 || cores->end_wanted))
        done_slow(cores, core);
}

void pn_cores_withdraw(struct pn_cores *cores, struct pn_job *job)
{
    if (job->node.next && pn_list_linked(&job->node))
        take_off(cores, job);
}

void pn__admission_init(struct pn_cores *cores)
{
    pn_list_init(&cores->queue);
    pn_timer_init(&cores->queue_timer, too_old);
    pn_task_init(&cores->queue_task, run_queued);
}

void pn__admission_fini(struct pn_cores *cores)
{
    PN_BUG_ON(cores->queue_length > 0);
    pn_timer_cancel(cores->loop, &cores->queue_timer);
    pn_task_cancel(&cores->queue_task);
}
