/* SPDX-License-Identifier: Apache-2.0 */
/* See overflow.h. Signal handlers belong to the process: hence the one static struct. Only async-signal-safe
 * calls in the handler. */
#include "cores/overflow.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cores/cores_impl.h"

enum {
    HANDLER_STACK_SIZE = 64 * 1024, /* also for a handler that was there before, run next */
    TEXT_MAX = 256,
};

static struct {
    bool watching;
    struct sigaction before;
    void *stack; /* owned; NULL: somebody else's alternate stack was there */
} overflow;

/* --- In the handler --- */

static size_t put(char *text, size_t used, const char *more)
{
    size_t n = strlen(more);
    if (n > TEXT_MAX - used)
        n = TEXT_MAX - used;
    memcpy(text + used, more, n);
    return used + n;
}

static size_t put_number(char *text, size_t used, uint64_t number)
{
    char digits[21];
    digits[pn_u64_format(number, digits)] = '\0';
    return put(text, used, digits);
}

static void say(const struct pn_core *core)
{
    char text[TEXT_MAX];
    size_t n = put(text, 0, "pelton: error: core ");
    n = put_number(text, n, core->number);
    n = put(text, n, " has overflowed its stack of ");
    n = put_number(text, n, core->cores->stacks.stack_size / 1024);
    n = put(text, n,
            " kB: recursion in C code, or a recursion limit that is too high; "
            "--fiber-stack-size makes it larger\n");
    ssize_t written = write(STDERR_FILENO, text, n);
    (void)written;
}

static bool is_guard(const struct pn_core *core, const siginfo_t *info)
{
    const char *guard = core->stack.mapping;
    const char *address = info->si_addr;
    size_t size = core->cores->stacks.page_size;
    return guard && address >= guard && address < guard + size;
}

static void on_fault(int signo, siginfo_t *info, void *context)
{
    int saved = errno;
    const struct pn_core *core = pn__core_self;
    (void)context;
    /* A code above 0 is the processor's. */
    if (core && info->si_code > 0 && is_guard(core, info))
        say(core);
    /* The instruction faults again, for whoever was there before. */
    (void)sigaction(signo, &overflow.before, NULL);
    if (info->si_code <= 0)
        (void)raise(signo);
    errno = saved;
}

/* --- Around the run --- */

/* False: there is no alternate stack, and none can be made. */
static bool need_stack(void)
{
    stack_t now;
    if (sigaltstack(NULL, &now) < 0)
        return false;
    if (!(now.ss_flags & SS_DISABLE))
        return true;
    overflow.stack = pn_try_malloc(HANDLER_STACK_SIZE);
    const stack_t ours = {.ss_sp = overflow.stack, .ss_size = HANDLER_STACK_SIZE};
    if (overflow.stack && sigaltstack(&ours, NULL) == 0)
        return true;
    free(overflow.stack);
    overflow.stack = NULL;
    return false;
}

void pn__overflow_watch(void)
{
    if (overflow.watching || !need_stack())
        return;
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    overflow.watching = sigaction(SIGSEGV, &sa, &overflow.before) == 0;
}

void pn__overflow_unwatch(void)
{
    struct sigaction now;
    stack_t stack;
    if (!overflow.watching)
        return;
    overflow.watching = false;
    /* Who came later keeps theirs; it may call ours, which then only restores. */
    if (sigaction(SIGSEGV, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
        now.sa_sigaction == on_fault)
        (void)sigaction(SIGSEGV, &overflow.before, NULL);
    if (!overflow.stack)
        return;
    const stack_t none = {.ss_flags = SS_DISABLE};
    if (sigaltstack(NULL, &stack) == 0 && stack.ss_sp == overflow.stack)
        (void)sigaltstack(&none, NULL);
    free(overflow.stack);
    overflow.stack = NULL;
}
