/* SPDX-License-Identifier: Apache-2.0 */
/* Signal handlers belong to the process: hence the one static struct. */
#include "main/load_guard.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

static const int watched[] = {SIGTERM, SIGINT};

static struct {
    struct sigaction before[PN_ARRAY_LEN(watched)];
    void (*interrupt)(void);
    bool installed;
    atomic_bool passes; /* what comes also interrupts */
    atomic_bool came;
} guard;

static void pass_on(int signo)
{
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++) {
        if (watched[i] != signo)
            continue;
        if (guard.before[i].sa_handler == SIG_DFL)
            guard.interrupt();
        else
            guard.before[i].sa_handler(signo);
    }
}

static void note(int signo)
{
    int saved = errno;
    atomic_store(&guard.came, true);
    if (atomic_load(&guard.passes))
        pass_on(signo);
    errno = saved;
}

/* Stands in front of whatever handler there is by now. */
static void take(void)
{
    struct sigaction now, action = {.sa_handler = note, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++) {
        if (sigaction(watched[i], NULL, &now) < 0 || now.sa_handler == note)
            continue;
        guard.before[i] = now;
        if (now.sa_handler != SIG_IGN)
            sigaction(watched[i], &action, NULL);
    }
}

void pn__load_guard_begin(void (*interrupt)(void))
{
    guard.interrupt = interrupt;
    guard.installed = true;
    atomic_store(&guard.came, false);
    atomic_store(&guard.passes, false);
    take();
}

bool pn__load_guard_pass(bool on)
{
    atomic_store(&guard.passes, on);
    if (guard.installed)
        take();
    return atomic_load(&guard.came);
}

bool pn__load_guard_came(void)
{
    return atomic_load(&guard.came);
}

void pn__load_guard_end(void)
{
    if (!guard.installed)
        return;
    guard.installed = false;
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++) {
        struct sigaction now;
        if (sigaction(watched[i], NULL, &now) == 0 && now.sa_handler == note)
            sigaction(watched[i], &guard.before[i], NULL);
    }
}

void pn__load_guard_after_fork_child(bool own)
{
    if (!own)
        pn__load_guard_end();
    atomic_store(&guard.passes, false);
    atomic_store(&guard.came, false);
}
