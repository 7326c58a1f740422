/* SPDX-License-Identifier: Apache-2.0 */
/* Children, signals and locks of files, waited for in cores of both carriers. */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>

#include "lock_probe.h"
#include "support/wait_fixture.h"
#include "test_base.h"

static const struct lock_probe *probe;

/* --- Children --------------------------------------------------------------------------------------- */

struct children {
    struct gauge present;
    int gate[2]; /* the children end when it is closed */
    atomic_int started;
    pid_t pid;
    atomic_bool inside;
};

/* A process without any of ours: it reads the pipe until all writers are gone. */
static pid_t child(struct children *s, int status)
{
    pid_t pid = fork();
    if (pid == 0) {
        char c;
        close(s->gate[1]);
        while (read(s->gate[0], &c, 1) < 0 && errno == EINTR)
            continue;
        _exit(status);
    }
    REQUIRE(pid > 0);
    return pid;
}

/* The last one that comes lets all children go: so each wait must let the others come. */
static void arrive(struct children *s, int count)
{
    if (gauge_enter(&s->present) == count)
        close(s->gate[1]);
}

static void app_children(struct visitor *v)
{
    struct children *s = v->world->arg;
    int n = v->number, status = 0;
    struct rusage usage = {0};
    siginfo_t info = {0};
    pid_t pid = child(s, 10 + n);
    atomic_fetch_add(&s->started, 1);
    REQUIRE(probe->waitpid(pid, &status, WNOHANG) == 0);
    while (atomic_load(&s->started) < 8)
        REQUIRE(probe->usleep(200) == 0);
    errno = 55;
    arrive(s, 8);
    switch (n % 4) {
    case 0:
        REQUIRE(probe->waitpid(pid, &status, 0) == pid);
        break;
    case 1:
        REQUIRE(probe->wait4(pid, &status, 0, &usage) == pid);
        REQUIRE(usage.ru_maxrss > 0);
        break;
    case 2:
        REQUIRE(probe->waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
        REQUIRE(info.si_pid == pid && info.si_status == 10 + n && info.si_code == CLD_EXITED);
        REQUIRE(probe->waitpid(pid, &status, 0) == pid);
        break;
    default:
        REQUIRE(probe->waitpid(pid, &status, WUNTRACED) == pid);
        break;
    }
    REQUIRE(errno == 55);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 10 + n);
    REQUIRE(probe->waitpid(pid, &status, 0) == -1 && errno == ECHILD);
    REQUIRE(probe->waitid(P_PID, (id_t)pid, &info, WEXITED) == -1 && errno == ECHILD);
    REQUIRE(probe->waitpid(pid, &status, 0x10) == -1 && errno == EINVAL);
}

static void children_are_waited_for_side_by_side(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct children s = {0};
        struct world w = {.arg = &s};
        assert_int_equal(pipe(s.gate), 0);
        wait_serve(&w, wait_carriers[c], 8, app_children);
        assert_int_equal(s.present.most_ever, 8);
        close(s.gate[0]);
    }
}

/* Whoever comes first reaps any child; each gets one. */
static void app_any_child(struct visitor *v)
{
    struct children *s = v->world->arg;
    int status = 0;
    (void)child(s, 3);
    atomic_fetch_add(&s->started, 1);
    while (atomic_load(&s->started) < 4)
        REQUIRE(probe->usleep(200) == 0);
    arrive(s, 4);
    pid_t pid = v->number % 2 ? probe->wait(&status) : probe->wait3(&status, 0, NULL);
    REQUIRE(pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void any_child_will_do(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct children s = {0};
        struct world w = {.arg = &s};
        assert_int_equal(pipe(s.gate), 0);
        wait_serve(&w, wait_carriers[c], 4, app_any_child);
        assert_int_equal(wait(NULL), -1);
        assert_int_equal(errno, ECHILD);
        close(s.gate[0]);
    }
}

/* A pidfd tells of the end only, and one with O_NONBLOCK never waits. */
static void app_pidfd(struct visitor *v)
{
    struct children *s = v->world->arg;
    siginfo_t info = {0};
    if (v->number > 0) {
        while (!s->inside)
            REQUIRE(probe->usleep(200) == 0);
        REQUIRE(kill(s->pid, SIGSTOP) == 0);
        return;
    }
    s->pid = child(s, 0);
    int fd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    int nonblocking = (int)syscall(SYS_pidfd_open, s->pid, O_NONBLOCK);
    REQUIRE(fd >= 0 && nonblocking >= 0);
    REQUIRE(probe->waitid(P_PIDFD, (id_t)nonblocking, &info, WEXITED) == -1 && errno == EAGAIN);
    s->inside = true;
    REQUIRE(probe->waitid(P_PIDFD, (id_t)fd, &info, WSTOPPED) == 0);
    REQUIRE(info.si_pid == s->pid && info.si_code == CLD_STOPPED);
    REQUIRE(kill(s->pid, SIGKILL) == 0);
    REQUIRE(probe->waitid(P_PIDFD, (id_t)fd, &info, WEXITED) == 0 && info.si_code == CLD_KILLED);
    close(fd);
    close(nonblocking);
}

static void a_pidfd_means_what_it_does(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct children s = {0};
        struct world w = {.arg = &s};
        assert_int_equal(pipe(s.gate), 0);
        wait_serve(&w, wait_carriers[c], 2, app_pidfd);
        close(s.gate[0]);
        close(s.gate[1]);
    }
}

/* Each shell waits for the gate, and ends by a signal that it sends to itself: nobody blocked that for it. */
static void app_commands(struct visitor *v)
{
    struct children *s = v->world->arg;
    char command[80];
    snprintf(command, sizeof command, "read x <&%d; kill -USR1 $$; exit 7", s->gate[0]);
    arrive(s, 4);
    errno = 55;
    int status = probe->system(command);
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1 && errno == 55);
    REQUIRE(probe->system(NULL) != 0);
}

static void commands_are_run_side_by_side(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct children s = {0};
        struct world w = {.arg = &s};
        assert_int_equal(pipe2(s.gate, O_CLOEXEC), 0);
        assert_int_equal(fcntl(s.gate[0], F_SETFD, 0), 0);
        wait_serve(&w, wait_carriers[c], 4, app_commands);
        assert_int_equal(s.present.most_ever, 4);
        close(s.gate[0]);
    }
}

/* --- Signals ---------------------------------------------------------------------------------------- */

struct signals {
    struct gauge present;
    sigset_t set;
    atomic_int handled;
};

static struct signals *signals_now;

static void handle(int signo)
{
    (void)signo;
    atomic_fetch_add(&signals_now->handled, 1);
}

static void app_signals(struct visitor *v)
{
    struct signals *s = v->world->arg;
    struct timespec t = {.tv_nsec = 15 * PN_NS_PER_MS}, bad = {.tv_nsec = -1};
    siginfo_t info;
    int signo = 0;
    sigset_t none;
    if (v->number == 4) {
        while (s->present.most_ever < 4)
            REQUIRE(probe->usleep(200) == 0);
        for (int i = 0; i < 3; i++) {
            union sigval value = {.sival_int = 7};
            REQUIRE(sigqueue(getpid(), SIGRTMIN + i, value) == 0);
        }
        return;
    }
    if (v->number == 3) {
        int64_t start_ns = pn_clock_mono_ns();
        REQUIRE(probe->sigtimedwait(&s->set, &info, &bad) == -1 && errno == EINVAL);
        sigemptyset(&none);
        sigaddset(&none, SIGRTMIN + 5);
        REQUIRE(probe->sigtimedwait(&none, &info, &t) == -1 && errno == EAGAIN);
        REQUIRE(pn_clock_mono_ns() - start_ns >= 15 * PN_NS_PER_MS);
        gauge_enter(&s->present);
        return;
    }
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGRTMIN + v->number);
    gauge_enter(&s->present);
    errno = 5;
    switch (v->number) {
    case 0:
        REQUIRE(probe->sigwait(&mine, &signo) == 0 && signo == SIGRTMIN);
        break;
    case 1:
        REQUIRE(probe->sigwaitinfo(&mine, &info) == SIGRTMIN + 1);
        REQUIRE(info.si_value.sival_int == 7 && info.si_pid == getpid());
        break;
    default:
        t.tv_sec = 20;
        REQUIRE(probe->sigtimedwait(&mine, &info, &t) == SIGRTMIN + 2);
        REQUIRE(info.si_code == SI_QUEUE);
        break;
    }
    REQUIRE(errno == 5);
}

static void block_test_signals(sigset_t *old, sigset_t *set)
{
    sigemptyset(set);
    for (int i = 0; i < 6; i++)
        sigaddset(set, SIGRTMIN + i);
    sigaddset(set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, set, old);
}

static void signals_are_waited_for(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct signals s = {0};
        struct world w = {.arg = &s};
        sigset_t old;
        block_test_signals(&old, &s.set);
        wait_serve(&w, wait_carriers[c], 5, app_signals);
        assert_int_equal(s.present.most_ever, 4);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
}

static void app_suspend(struct visitor *v)
{
    struct signals *s = v->world->arg;
    sigset_t mask;
    if (v->number == 0) {
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        sigdelset(&mask, SIGUSR1);
        gauge_enter(&s->present);
        REQUIRE(probe->sigsuspend(&mask) == -1 && errno == EINTR);
        REQUIRE(s->handled == 1);
        return;
    }
    while (s->present.most_ever < 1)
        REQUIRE(probe->usleep(200) == 0);
    REQUIRE(probe->usleep(1000) == 0);
    REQUIRE(s->handled == 0);
    REQUIRE(kill(getpid(), SIGUSR1) == 0);
}

static void sigsuspend_lets_its_signals_in(void **state)
{
    struct sigaction sa = {.sa_handler = handle}, before;
    (void)state;
    sigaction(SIGUSR1, &sa, &before);
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct signals s = {0};
        struct world w = {.arg = &s};
        sigset_t old;
        signals_now = &s;
        block_test_signals(&old, &s.set);
        wait_serve(&w, wait_carriers[c], 2, app_suspend);
        assert_int_equal(s.handled, 1);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    sigaction(SIGUSR1, &before, NULL);
}

/* A thread that waits is interrupted as ever, and says EINTR. */
static void app_interrupted(struct visitor *v)
{
    struct signals *s = v->world->arg;
    static pthread_t waiter;
    static sem_t sem;
    static sem_t *made;
    if (v->number == 0) {
        made = &sem;
        sem_init(made, 0, 0);
        waiter = pthread_self();
        gauge_enter(&s->present);
        REQUIRE(probe->sem_wait(made) == -1 && errno == EINTR);
        int status;
        int gate[2];
        REQUIRE(pipe(gate) == 0);
        struct children c = {.gate = {gate[0], gate[1]}};
        pid_t pid = child(&c, 0);
        gauge_enter(&s->present);
        REQUIRE(probe->waitpid(pid, &status, 0) == -1 && errno == EINTR);
        gauge_enter(&s->present);
        REQUIRE(probe->pause() == -1 && errno == EINTR);
        gauge_enter(&s->present);
        close(gate[1]);
        close(gate[0]);
        REQUIRE(probe->waitpid(pid, &status, 0) == pid);
        return;
    }
    for (int step = 1; step <= 3; step++) {
        while (s->present.most_ever < step)
            REQUIRE(probe->usleep(200) == 0);
        while (s->present.most_ever == step) { /* it may not wait yet */
            REQUIRE(pthread_kill(waiter, SIGUSR2) == 0);
            REQUIRE(probe->usleep(2000) == 0);
        }
    }
}

static void a_signal_interrupts_a_thread(void **state)
{
    struct sigaction sa = {.sa_handler = handle}, before;
    struct signals s = {0};
    struct world w = {.arg = &s};
    (void)state;
    signals_now = &s;
    sigaction(SIGUSR2, &sa, &before);
    wait_serve(&w, PN_CARRIER_THREADS, 2, app_interrupted);
    sigaction(SIGUSR2, &before, NULL);
    assert_true(s.handled >= 3);
}

/* --- Locks of files --------------------------------------------------------------------------------- */

enum how {
    FLOCK = 0,
    OFD = 1,
    POSIX = 2,
    LOCKF = 3,
};

struct files {
    char path[64];
    enum how how;
    struct gauge inside;
    struct gauge present;
    pid_t other; /* holds the POSIX lock at first: those are the process's */
    int gate[2];
};

static int lock_file(int fd, enum how how, short type)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET};
    switch (how) {
    case FLOCK:
        return probe->flock(fd, type == F_UNLCK ? LOCK_UN : LOCK_EX);
    case OFD:
        return probe->fcntl(fd, F_OFD_SETLKW, &l);
    case POSIX:
        return probe->fcntl(fd, F_SETLKW, &l);
    case LOCKF:
        return probe->lockf(fd, type == F_UNLCK ? F_ULOCK : F_LOCK, 0);
    }
    return -1;
}

static void app_files(struct visitor *v)
{
    struct files *s = v->world->arg;
    int fd = open(s->path, O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    errno = 3;
    gauge_enter(&s->present);
    if (s->how >= POSIX) {
        /* The other process lets go when all of us wait. */
        if (v->number == 7) {
            close(s->gate[1]);
        }
        REQUIRE(lock_file(fd, s->how, F_WRLCK) == 0);
    } else {
        for (int i = 0; i < 3; i++) {
            REQUIRE(lock_file(fd, s->how, F_WRLCK) == 0);
            REQUIRE(gauge_enter(&s->inside) == 1);
            REQUIRE(probe->usleep(500) == 0);
            gauge_leave(&s->inside);
            REQUIRE(lock_file(fd, s->how, F_UNLCK) == 0);
        }
    }
    REQUIRE(errno == 3);
    /* On a busy machine the first is done before the last begins: nobody leaves before all are here. */
    while (s->present.most_ever < 8)
        REQUIRE(probe->usleep(200) == 0);
    gauge_leave(&s->present);
    REQUIRE(lock_file(-1, s->how, F_WRLCK) == -1 && errno == EBADF);
    if (s->how >= POSIX)
        while (s->present.inside) /* a close by any of us unlocks for all */
            REQUIRE(probe->usleep(200) == 0);
    close(fd);
}

static void hold_elsewhere(struct files *s)
{
    int ready[2];
    char c;
    assert_int_equal(pipe(s->gate), 0);
    assert_int_equal(pipe(ready), 0);
    s->other = fork();
    if (s->other == 0) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(s->path, O_RDWR);
        close(s->gate[1]);
        bool right = fcntl(fd, F_SETLKW, &l) == 0 && write(ready[1], "r", 1) == 1 &&
                     read(s->gate[0], &c, 1) == 0;
        _exit(right ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    close(ready[1]);
}

static void locks_of_files_exclude(void **state)
{
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        struct files s = {.path = "/tmp/pelton-lock-XXXXXX", .how = (enum how)(i / 2)};
        struct world w = {.arg = &s};
        int fd = mkstemp(s.path);
        assert_true(fd >= 0);
        close(fd);
        if (s.how >= POSIX)
            hold_elsewhere(&s);
        wait_serve(&w, wait_carriers[i % 2], 8, app_files);
        assert_int_equal(s.present.most_ever, 8);
        if (s.how >= POSIX) {
            int status;
            close(s.gate[0]);
            assert_int_equal(waitpid(s.other, &status, 0), s.other);
            assert_int_equal(status, 0);
        }
        unlink(s.path);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_are_waited_for_side_by_side),
        cmocka_unit_test(any_child_will_do),
        cmocka_unit_test(a_pidfd_means_what_it_does),
        cmocka_unit_test(commands_are_run_side_by_side),
        cmocka_unit_test(signals_are_waited_for),
        cmocka_unit_test(sigsuspend_lets_its_signals_in),
        cmocka_unit_test(a_signal_interrupts_a_thread),
        cmocka_unit_test(locks_of_files_exclude),
    };
    probe = wait_probe(argc, argv, "lock_probe");
    if (!probe)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
