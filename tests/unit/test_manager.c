/* SPDX-License-Identifier: Apache-2.0 */
/* The manager with real processes. Each case runs one in a process of its own, whose children do what
 * the case says; they meet in shared memory. */
#include "manager/manager.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "test_base.h"

enum { CHILDREN = 3, PATIENCE_MS = 10000 };

struct shared {
    atomic_int starts[CHILDREN];
    atomic_int pids[CHILDREN];
    atomic_int ready_calls;
    atomic_int stopping_calls;
    atomic_int terms; /* SIGTERMs that children have seen */
    atomic_int quits;
    atomic_int foreign; /* exit status of a child that is none of the manager's */
};

struct scene {
    struct shared *shared;
    struct pn_board *board;
    struct pn_manager *manager;
    struct pn_manager_config config;
    int (*child)(struct scene *scene, int number); /* its exit status */
    bool silent;                                   /* children don't say that they are ready */
    int ready_fd;                                  /* of a silent child */
    pid_t foreign;                                 /* made before the manager */
    pid_t pid;                                     /* of the process that runs the manager */
};

static struct shared *child_shared; /* for the children's signal handlers */

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 2 * PN_NS_PER_MS};
    nanosleep(&t, NULL);
}

#define WAIT_UNTIL(cond)                                                \
    do {                                                                \
        int64_t end_ = pn_clock_mono_ns() + PATIENCE_MS * PN_NS_PER_MS; \
        while (!(cond) && pn_clock_mono_ns() < end_)                    \
            nap();                                                      \
        assert_true(cond);                                              \
    } while (0)

/* --- The manager's process -------------------------------------------------------------------- */

static pid_t fork_child(void *ctx)
{
    struct scene *scene = ctx;
    pid_t pid = fork();
    if (pid == 0)
        pn_manager_after_fork_child(scene->manager);
    return pid;
}

static void on_ready(void *ctx)
{
    atomic_fetch_add(&((struct scene *)ctx)->shared->ready_calls, 1);
}

static void on_stopping(void *ctx)
{
    atomic_fetch_add(&((struct scene *)ctx)->shared->stopping_calls, 1);
}

static int run_scene(struct scene *scene)
{
    int value;
    scene->manager = pn_manager_create(&scene->config);
    if (!scene->manager)
        return 99;
    bool is_child = pn_manager_run(scene->manager, &value) == PN_MANAGER_CHILD;
    int ready_fd = is_child && scene->config.board ? pn_manager_ready_fd(scene->manager) : -1;
    pn_manager_destroy(scene->manager);
    if (!is_child) {
        int status = -1;
        if (scene->foreign && waitpid(scene->foreign, &status, 0) == scene->foreign)
            atomic_store(&scene->shared->foreign, WEXITSTATUS(status));
        return value;
    }
    if (scene->config.board && !scene->silent) {
        pn_board_start(scene->board, (unsigned)value, (int)getpid(), 1);
        pn_board_set_state(scene->board, (unsigned)value, PN_BOARD_READY);
        pn_manager_say_ready(ready_fd);
    }
    scene->ready_fd = ready_fd;
    atomic_store(&scene->shared->pids[value], (int)getpid());
    atomic_fetch_add(&scene->shared->starts[value], 1);
    _exit(scene->child(scene, value));
}

static void begin(struct scene *scene, int (*child)(struct scene *, int), unsigned count)
{
    void *memory = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    *scene = (struct scene){.shared = memory, .child = child};
    scene->board = pn_board_create(CHILDREN);
    child_shared = scene->shared;
    scene->config = (struct pn_manager_config){
        .what = "worker",
        .count = count,
        .board = scene->board,
        .log = pn_log_create(-1, PN_LOG_ERROR + 1), /* silent */
        .is_top = true,
        .shutdown_ns = 5 * PN_NS_PER_SEC,
        .margin_ns = 5 * PN_NS_PER_SEC,
        .respawn_delay_ns = 20 * PN_NS_PER_MS,
        .respawn_delay_max_ns = 40 * PN_NS_PER_MS,
        .fork = fork_child,
        .ready = on_ready,
        .stopping = on_stopping,
        .ctx = scene,
    };
}

static void start(struct scene *scene)
{
    scene->pid = fork();
    assert_true(scene->pid >= 0);
    if (scene->pid == 0)
        _exit(run_scene(scene));
}

/* The manager's exit status; its memory is given back. */
static int finish(struct scene *scene)
{
    int status;
    int64_t end = pn_clock_mono_ns() + PATIENCE_MS * PN_NS_PER_MS;
    pid_t got;
    while ((got = waitpid(scene->pid, &status, WNOHANG)) == 0 && pn_clock_mono_ns() < end)
        nap();
    if (got == 0) {
        kill(scene->pid, SIGKILL);
        waitpid(scene->pid, &status, 0);
        fail_msg("the manager did not end");
    }
    pn_log_destroy(scene->config.log);
    pn_board_destroy(scene->board);
    munmap(scene->shared, sizeof *scene->shared);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool is_gone(int pid)
{
    return kill(pid, 0) < 0 && errno == ESRCH;
}

/* --- What children do ------------------------------------------------------------------------- */

static void count_signal(int signo)
{
    atomic_fetch_add(signo == SIGTERM ? &child_shared->terms : &child_shared->quits, 1);
}

/* Ends when it is asked to: by SIGTERM's default. */
static int child_serves(struct scene *scene, int number)
{
    (void)scene;
    (void)number;
    for (;;)
        pause();
    return 0;
}

/* Counts SIGTERM and stays; leaves at SIGQUIT. */
static int child_lingers(struct scene *scene, int number)
{
    (void)number;
    const struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGQUIT, &action, NULL);
    atomic_fetch_add(&scene->shared->starts[CHILDREN - 1], 1);
    while (atomic_load(&scene->shared->quits) == 0)
        nap();
    return 0;
}

/* Ready only when it is told to stop: it was still loading then. */
static int child_is_late(struct scene *scene, int number)
{
    const struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGTERM, &action, NULL);
    atomic_fetch_add(&scene->shared->starts[CHILDREN - 1], 1);
    while (atomic_load(&scene->shared->terms) == 0)
        nap();
    pn_board_start(scene->board, (unsigned)number, (int)getpid(), 1);
    pn_board_set_state(scene->board, (unsigned)number, PN_BOARD_READY);
    pn_manager_say_ready(scene->ready_fd);
    /* The manager repeats SIGTERM: by then it has seen that this one is ready. */
    while (atomic_load(&scene->shared->terms) == 1)
        nap();
    return 0;
}

static int child_is_deaf(struct scene *scene, int number)
{
    signal(SIGTERM, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    return child_serves(scene, number);
}

static int child_fails(struct scene *scene, int number)
{
    (void)scene;
    (void)number;
    return PN_EXIT_ERROR;
}

static int child_has_no_app(struct scene *scene, int number)
{
    return number == 1 ? PN_EXIT_APP : child_serves(scene, number);
}

/* Its first life serves; the second one finds a broken application. */
static int child_breaks_later(struct scene *scene, int number)
{
    if (number == 0 && atomic_load(&scene->shared->starts[0]) > 1)
        return PN_EXIT_APP;
    return child_serves(scene, number);
}

/* --- Cases ------------------------------------------------------------------------------------ */

static bool all_started(const struct scene *scene, unsigned count, int times)
{
    for (unsigned i = 0; i < count; i++) {
        if (atomic_load(&scene->shared->starts[i]) < times)
            return false;
    }
    return true;
}

static void sigterm_ends_all(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_serves, CHILDREN);
    start(&scene);
    WAIT_UNTIL(all_started(&scene, CHILDREN, 1));
    WAIT_UNTIL(atomic_load(&scene.shared->ready_calls) == 1);
    int pids[CHILDREN];
    for (int i = 0; i < CHILDREN; i++)
        pids[i] = atomic_load(&scene.shared->pids[i]);
    kill(scene.pid, SIGTERM);
    WAIT_UNTIL(atomic_load(&scene.shared->stopping_calls) == 1);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
    for (int i = 0; i < CHILDREN; i++)
        assert_true(is_gone(pids[i]));
}

static void killed_child_is_replaced(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_serves, 2);
    start(&scene);
    WAIT_UNTIL(all_started(&scene, 2, 1));
    int first = atomic_load(&scene.shared->pids[1]);
    kill(first, SIGKILL);
    WAIT_UNTIL(atomic_load(&scene.shared->starts[1]) == 2);
    assert_int_not_equal(atomic_load(&scene.shared->pids[1]), first);
    assert_int_equal(atomic_load(&scene.shared->starts[0]), 1);
    kill(scene.pid, SIGINT);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
}

static void early_deaths_back_off(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_fails, 1);
    scene.config.respawn_delay_ns = 40 * PN_NS_PER_MS;
    scene.config.respawn_delay_max_ns = 160 * PN_NS_PER_MS;
    int64_t began = pn_clock_mono_ns();
    start(&scene);
    /* Starts at 0, 40, 120, 280, 440 ms, and what forks take. */
    WAIT_UNTIL(atomic_load(&scene.shared->starts[0]) == 5);
    assert_true(pn_clock_mono_ns() - began >= 440 * PN_NS_PER_MS);
    kill(scene.pid, SIGTERM);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
}

/* 11 starts with 20, 40, 40 ... ms between them; without the bound they would take 20 s. */
static void back_off_is_bounded(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_fails, 1);
    start(&scene);
    WAIT_UNTIL(atomic_load(&scene.shared->starts[0]) == 11);
    kill(scene.pid, SIGTERM);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
}

/* Who is told to stop before all are ready has closed its listeners, and says nothing of them. */
static void ready_after_the_stop_is_nothing(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_is_late, 1);
    scene.silent = true;
    start(&scene);
    WAIT_UNTIL(atomic_load(&scene.shared->starts[CHILDREN - 1]) == 1);
    kill(scene.pid, SIGTERM);
    WAIT_UNTIL(atomic_load(&scene.shared->terms) >= 2);
    assert_int_equal(atomic_load(&scene.shared->ready_calls), 0);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
}

static int child_crashes_at_sigterm(struct scene *scene, int number)
{
    sigset_t one;
    int signo;
    sigemptyset(&one);
    sigaddset(&one, SIGTERM);
    sigprocmask(SIG_BLOCK, &one, NULL);
    atomic_fetch_add(&scene->shared->starts[CHILDREN - 1], 1);
    (void)number;
    sigwait(&one, &signo);
    raise(SIGKILL);
    return 0;
}

static void crash_at_the_end_is_no_success(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_crashes_at_sigterm, 1);
    start(&scene);
    WAIT_UNTIL(atomic_load(&scene.shared->starts[CHILDREN - 1]) == 1);
    kill(scene.pid, SIGTERM);
    assert_int_equal(finish(&scene), PN_EXIT_CUT);
}

static void broken_application_ends_all(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_has_no_app, 2);
    scene.silent = true;
    start(&scene);
    assert_int_equal(finish(&scene), PN_EXIT_APP);
}

static void application_broken_later_leaves_the_others(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_breaks_later, 2);
    start(&scene);
    WAIT_UNTIL(atomic_load(&scene.shared->ready_calls) == 1);
    kill(atomic_load(&scene.shared->pids[0]), SIGKILL);
    WAIT_UNTIL(atomic_load(&scene.shared->starts[0]) == 2);
    for (int i = 0; i < 50; i++)
        nap();
    assert_int_equal(atomic_load(&scene.shared->starts[0]), 2);
    assert_false(is_gone(atomic_load(&scene.shared->pids[1])));
    kill(scene.pid, SIGTERM);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
}

static void second_signal_stops_at_once(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_lingers, 1);
    start(&scene);
    WAIT_UNTIL(atomic_load(&scene.shared->starts[CHILDREN - 1]) == 1);
    kill(scene.pid, SIGTERM);
    WAIT_UNTIL(atomic_load(&scene.shared->terms) >= 1);
    assert_int_equal(atomic_load(&scene.shared->quits), 0);
    kill(scene.pid, SIGINT);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
}

/* A terminal signals the whole group, and then the manager signals as well: that is one wish. */
static void below_the_top_a_repetition_is_nothing(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_lingers, 1);
    scene.config.is_top = false;
    start(&scene);
    WAIT_UNTIL(atomic_load(&scene.shared->starts[CHILDREN - 1]) == 1);
    kill(scene.pid, SIGTERM);
    WAIT_UNTIL(atomic_load(&scene.shared->terms) >= 1);
    kill(scene.pid, SIGTERM);
    /* SIGTERM is repeated after a second, in case that the first one was lost. */
    WAIT_UNTIL(atomic_load(&scene.shared->terms) >= 2);
    assert_int_equal(atomic_load(&scene.shared->quits), 0);
    kill(scene.pid, SIGQUIT);
    assert_int_equal(finish(&scene), PN_EXIT_OK);
}

static void deaf_child_is_killed_at_the_deadline(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_is_deaf, 2);
    scene.config.shutdown_ns = 100 * PN_NS_PER_MS;
    scene.config.margin_ns = 0;
    start(&scene);
    WAIT_UNTIL(all_started(&scene, 2, 1));
    for (int i = 0; i < 10; i++)
        nap();
    kill(scene.pid, SIGTERM);
    assert_int_equal(finish(&scene), PN_EXIT_CUT);
}

static void orphans_end(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_serves, 1);
    start(&scene);
    WAIT_UNTIL(all_started(&scene, 1, 1));
    int child = atomic_load(&scene.shared->pids[0]);
    /* It becomes ours, so that we see how it ends. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    kill(scene.pid, SIGKILL);
    assert_int_equal(finish(&scene), 128 + SIGKILL);
    int status = 0;
    bool reaped = false;
    WAIT_UNTIL(reaped = reaped || waitpid(child, &status, WNOHANG) == child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static int child_is_done(struct scene *scene, int number)
{
    (void)scene;
    (void)number;
    return PN_EXIT_CONFIG;
}

/* The application's own children are its own to wait for. */
static void foreign_children_are_left_alone(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, child_is_done, 1);
    scene.pid = fork();
    if (scene.pid == 0) {
        scene.foreign = fork();
        if (scene.foreign == 0)
            _exit(42);
        /* It has ended before the manager starts to look. */
        siginfo_t info;
        waitid(P_PID, (id_t)scene.foreign, &info, WEXITED | WNOWAIT);
        int status = run_scene(&scene);
        _exit(status == PN_EXIT_CONFIG && atomic_load(&scene.shared->foreign) == 42 ? 0 : 1);
    }
    assert_int_equal(finish(&scene), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigterm_ends_all),
        cmocka_unit_test(killed_child_is_replaced),
        cmocka_unit_test(early_deaths_back_off),
        cmocka_unit_test(back_off_is_bounded),
        cmocka_unit_test(ready_after_the_stop_is_nothing),
        cmocka_unit_test(crash_at_the_end_is_no_success),
        cmocka_unit_test(broken_application_ends_all),
        cmocka_unit_test(application_broken_later_leaves_the_others),
        cmocka_unit_test(second_signal_stops_at_once),
        cmocka_unit_test(below_the_top_a_repetition_is_nothing),
        cmocka_unit_test(deaf_child_is_killed_at_the_deadline),
        cmocka_unit_test(orphans_end),
        cmocka_unit_test(foreign_children_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
