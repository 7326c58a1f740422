/* SPDX-License-Identifier: Apache-2.0 */
/* Signal handlers and a timer that belong to the process: hence the one static struct. */
#include "main/stop_guard.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "manager/exit_status.h"

/* A real-time signal that neither CPython nor glibc uses; SIGALRM belongs to the application. */
#define GUARD_SIGNAL (SIGRTMAX - 3)

/* What the loop has to see a second signal before the application is interrupted. */
#define SOON_NS (100 * PN_NS_PER_MS)

static const int watched[] = {SIGTERM, SIGINT, SIGQUIT};

enum stage {
    STAGE_SERVING = 0,
    STAGE_GRACE = 1,
    STAGE_LAST = 2, /* interrupted, or taken over: only the last deadline is left */
};

static struct {
    struct pn__stop_guard_config config;
    struct sigaction before[PN_ARRAY_LEN(watched)];
    struct sigaction before_timer;
    timer_t timer;
    bool installed;
    atomic_int stage;
} guard;

static void arm(int64_t span_ns)
{
    /* All zero would disarm. */
    struct itimerspec when = {.it_value = pn_ns_timespec(span_ns > 0 ? span_ns : 1)};
    timer_settime(guard.timer, 0, &when, NULL);
}

static void interrupt(void)
{
    if (atomic_exchange(&guard.stage, STAGE_LAST) == STAGE_LAST)
        return;
    arm(guard.config.last_ns);
    if (guard.config.interrupt)
        guard.config.interrupt(guard.config.ctx);
}

/* The loop did not come back: nothing can be unwound any more. */
static void leave(void)
{
    static const char text[] = "pelton: error: the application does not give the server back: the "
                               "worker ends and its requests are lost\n";
    pn_log_flush_last(guard.config.log);
    if (guard.config.out != guard.config.log)
        pn_log_flush_last(guard.config.out);
    pn_log_write_last(STDERR_FILENO, text, sizeof text - 1);
    _exit(PN_EXIT_CUT);
}

static void on_timer(int PN_UNUSED signo)
{
    int saved = errno;
    switch ((enum stage)atomic_load(&guard.stage)) {
    case STAGE_SERVING:
        break;
    case STAGE_GRACE:
        interrupt();
        break;
    case STAGE_LAST:
        leave();
    }
    errno = saved;
}

static void pass_on(int signo)
{
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++) {
        void (*handler)(int) = guard.before[i].sa_handler;
        if (watched[i] == signo && handler != SIG_DFL && handler != SIG_IGN)
            handler(signo);
    }
}

static void on_stop(int signo)
{
    int saved = errno;
    int serving = STAGE_SERVING;
    bool first = atomic_compare_exchange_strong(&guard.stage, &serving, STAGE_GRACE);
    pass_on(signo);
    bool last = atomic_load(&guard.stage) == STAGE_LAST;
    if (signo == SIGQUIT || (!first && guard.config.repeats_count)) {
        if (!last)
            arm(SOON_NS);
    } else if (first) {
        arm(guard.config.grace_ns);
    }
    errno = saved;
}

int pn__stop_guard_install(const struct pn__stop_guard_config *config)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = GUARD_SIGNAL};
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    guard.config = *config;
    atomic_store(&guard.stage, STAGE_SERVING);
    if (timer_create(CLOCK_MONOTONIC, &event, &guard.timer) < 0)
        return -errno;
    sigaction(GUARD_SIGNAL, &action, &guard.before_timer);
    action.sa_handler = on_stop;
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++)
        sigaction(watched[i], &action, &guard.before[i]);
    guard.installed = true;
    return 0;
}

void pn__stop_guard_taken_over(void)
{
    if (guard.installed && atomic_exchange(&guard.stage, STAGE_LAST) != STAGE_LAST)
        arm(guard.config.last_ns);
}

bool pn__stop_guard_is_last(void)
{
    return atomic_load_explicit(&guard.stage, memory_order_relaxed) == STAGE_LAST;
}

void pn__stop_guard_remove(void)
{
    if (!guard.installed)
        return;
    guard.installed = false;
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++)
        sigaction(watched[i], &guard.before[i], NULL);
    timer_delete(guard.timer);
    sigaction(GUARD_SIGNAL, &guard.before_timer, NULL);
}

void pn__stop_guard_after_fork_child(void)
{
    if (!guard.installed)
        return;
    guard.installed = false;
    sigaction(GUARD_SIGNAL, &guard.before_timer, NULL);
}
