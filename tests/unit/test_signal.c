/* SPDX-License-Identifier: Apache-2.0 */
/* Signals: delivered by the loop, once a burst, waking a sleeper, and everything as before
 * afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/loop.h"

static struct pn_loop *loop;
static unsigned calls[65];
static int order[8];
static unsigned ordered;

static int set_up(void **state)
{
    (void)state;
    loop = pn_loop_create(pn_poller_epoll_create());
    memset(calls, 0, sizeof(calls));
    ordered = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pn_loop_destroy(loop);
    return 0;
}

static void on_signal(void *ctx, int signo)
{
    assert_ptr_equal(ctx, &calls);
    calls[signo]++;
    if (ordered < 8)
        order[ordered++] = signo;
}

static void post_again(struct pn_task *task)
{
    pn_task_post(loop, task);
}

/* Some turns that never sleep. */
static void work_off(void)
{
    struct pn_task awake;
    pn_task_init(&awake, post_again);
    pn_task_post(loop, &awake);
    for (int i = 0; i < 20; i++)
        pn_loop_step(loop);
    pn_task_cancel(&awake);
}

static void a_burst_is_one_call(void **state)
{
    (void)state;
    assert_int_equal(pn_signal_watch(loop, SIGUSR1, on_signal, &calls), 0);
    assert_int_equal(pn_signal_watch(loop, SIGUSR2, on_signal, &calls), 0);
    for (int i = 0; i < 3; i++)
        raise(SIGUSR1);
    raise(SIGUSR2);
    assert_int_equal(calls[SIGUSR1], 0); /* not inside the handler */
    assert_true(pn_loop_has_work(loop));
    work_off();
    assert_int_equal(calls[SIGUSR1], 1);
    assert_int_equal(calls[SIGUSR2], 1);
    raise(SIGUSR1);
    work_off();
    assert_int_equal(calls[SIGUSR1], 2);
    assert_int_equal(ordered, 3);
}

static void *kill_soon(void *arg)
{
    usleep(20000);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

static void *kill_process_soon(void *arg)
{
    (void)arg;
    usleep(20000);
    raise(SIGUSR1); /* the handler runs in this thread, the loop sleeps in the other */
    return NULL;
}

static void a_sleeper_wakes(void **state)
{
    (void)state;
    assert_int_equal(pn_signal_watch(loop, SIGUSR1, on_signal, &calls), 0);
    pthread_t self = pthread_self();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, kill_soon, &self), 0);
    while (calls[SIGUSR1] < 1)
        pn_loop_step(loop);
    pthread_join(thread, NULL);
    assert_int_equal(pthread_create(&thread, NULL, kill_process_soon, NULL), 0);
    while (calls[SIGUSR1] < 2)
        pn_loop_step(loop);
    pthread_join(thread, NULL);
}

static void system_calls_are_interrupted(void **state)
{
    (void)state;
    assert_int_equal(pn_signal_watch(loop, SIGUSR1, on_signal, &calls), 0);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pthread_t self = pthread_self();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, kill_soon, &self), 0);
    char c;
    assert_int_equal(read(pipes[0], &c, 1), -1);
    assert_int_equal(errno, EINTR);
    pthread_join(thread, NULL);
    close(pipes[0]);
    close(pipes[1]);
}

static volatile sig_atomic_t old_calls;
static void old_handler(int signo)
{
    (void)signo;
    old_calls++;
}

static void what_was_there_comes_back(void **state)
{
    (void)state;
    struct sigaction old = {.sa_handler = old_handler, .sa_flags = SA_RESTART}, now;
    sigemptyset(&old.sa_mask);
    sigaction(SIGUSR1, &old, NULL);
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);

    assert_int_equal(pn_signal_watch(loop, SIGUSR1, on_signal, &calls), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int signo = 1; signo <= 64; signo++)
        assert_int_equal(sigismember(&before, signo), sigismember(&after, signo));
    raise(SIGUSR1);
    assert_int_equal(old_calls, 0);
    assert_int_equal(pn_signal_watch(loop, SIGUSR1, NULL, NULL), 0);
    sigaction(SIGUSR1, NULL, &now);
    assert_ptr_equal(now.sa_handler, old_handler);
    assert_true(now.sa_flags & SA_RESTART);
    raise(SIGUSR1);
    assert_int_equal(old_calls, 1);
    work_off(); /* what was pending went with the watch */
    assert_int_equal(calls[SIGUSR1], 0);

    assert_int_equal(pn_signal_watch(loop, SIGUSR1, on_signal, &calls), 0);
    pn_signal_unwatch_all(loop);
    sigaction(SIGUSR1, NULL, &now);
    assert_ptr_equal(now.sa_handler, old_handler);
    signal(SIGUSR1, SIG_DFL);
}

static void refusals(void **state)
{
    (void)state;
    assert_int_equal(pn_signal_watch(loop, 0, on_signal, &calls), -EINVAL);
    assert_int_equal(pn_signal_watch(loop, 65, on_signal, &calls), -EINVAL);
    assert_int_equal(pn_signal_watch(loop, SIGKILL, on_signal, &calls), -EINVAL);
    assert_int_equal(pn_signal_watch(loop, SIGUSR1, NULL, NULL), 0);
    assert_int_equal(pn_signal_watch(loop, SIGUSR1, on_signal, &calls), 0);
    struct pn_loop *other = pn_loop_create(pn_poller_epoll_create());
    assert_int_equal(pn_signal_watch(other, SIGUSR1, on_signal, &calls), -EBUSY);
    pn_loop_destroy(other);
    raise(SIGUSR1);
    work_off();
    assert_int_equal(calls[SIGUSR1], 1);
}

static void a_forked_child_has_the_old_handlers(void **state)
{
    (void)state;
    assert_int_equal(pn_signal_watch(loop, SIGTERM, on_signal, &calls), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pn_loop_after_fork_child(loop);
        raise(SIGTERM);
        _exit(0); /* not reached: the default is to die */
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    raise(SIGTERM);
    work_off();
    assert_int_equal(calls[SIGTERM], 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_burst_is_one_call),
        TEST(a_sleeper_wakes),
        TEST(system_calls_are_interrupted),
        TEST(what_was_there_comes_back),
        TEST(refusals),
        TEST(a_forked_child_has_the_old_handlers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
