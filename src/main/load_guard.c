/* SPDX-License-Identifier: Apache-2.0 */
/* Signal handlers belong to the process: hence the one static struct. */
#include "main/load_guard.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

static const int watched[] = {SIGTERM, SIGINT};

static struct {
    struct sigaction before[PN_ARRAY_LEN(watched)];
    atomic_bool came;
} guard;

static void note(int signo)
{
    int saved = errno;
    atomic_store(&guard.came, true);
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++) {
        if (watched[i] == signo)
            guard.before[i].sa_handler(signo);
    }
    errno = saved;
}

void pn__load_guard_begin(void)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    atomic_store(&guard.came, false);
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++) {
        struct sigaction *before = &guard.before[i];
        sigaction(watched[i], NULL, before);
        if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
            sigaction(watched[i], &action, NULL);
    }
}

bool pn__load_guard_end(void)
{
    for (size_t i = 0; i < PN_ARRAY_LEN(watched); i++) {
        struct sigaction now;
        if (sigaction(watched[i], NULL, &now) == 0 && now.sa_handler == note)
            sigaction(watched[i], &guard.before[i], NULL);
    }
    return atomic_load(&guard.came);
}
