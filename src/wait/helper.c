/* SPDX-License-Identifier: Apache-2.0 */
/* The helper's last step names its job by address only: the fiber may have gone on already. */
#include "wait/helper.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "wait/queue.h"

enum { STACK_SIZE = 128 * 1024 }; /* one libc call, and the thread-local storage of all libraries */

struct help {
    void (*run)(void *arg);
    void *arg;
    atomic_bool done;
};

static void *helper_main(void *arg)
{
    struct help *help = arg;
    help->run(help->arg);
    atomic_store(&help->done, true);
    pn__wake(help, UINT32_MAX);
    return NULL;
}

int pn__helper_start(void *(*run)(void *arg), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;
    if (pthread_attr_init(&attr) != 0)
        return -ENOMEM;
    int r = pthread_attr_setstacksize(&attr, STACK_SIZE);
    if (r == 0)
        r = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (r == 0)
        r = pthread_create(&thread, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

static int is_done(void *arg)
{
    const struct help *help = arg;
    return atomic_load(&help->done) ? 0 : EBUSY;
}

int pn__helper_run(struct pn_core *core, void (*run)(void *arg), void *arg)
{
    struct help help = {.run = run, .arg = arg};
    int saved = errno;
    int r = pn__helper_start(helper_main, &help);
    if (r == 0)
        (void)pn__park_until(core, &help, is_done, &help, PN__FOREVER, PN__LOOKS_PRIVATE);
    errno = saved;
    return r;
}
