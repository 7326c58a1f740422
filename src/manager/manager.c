/* SPDX-License-Identifier: Apache-2.0 */
/* Children, their ends and their new starts, on a loop of its own. */
#include "manager/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/check.h"
#include "base/mem.h"

enum { MANAGER_MAGIC = 0x4d475231 };

/* A child that lived longer did not die of its start: the next one starts at once. */
#define EARLY_LIFE_NS (10 * PN_NS_PER_SEC)
/* A signal that came between fork and the child's own handlers is lost: it is sent again. */
#define REPEAT_NS PN_NS_PER_SEC
/* What a child that must stop at once may still take. */
#define AT_ONCE_NS (2 * PN_NS_PER_SEC)

enum child_state {
    CHILD_WAITING = 0, /* for its timer */
    CHILD_RUNNING = 1,
    CHILD_GONE = 2, /* and not started again */
};

struct child {
    struct pn_manager *manager;
    enum child_state state;
    pid_t pid;
    bool was_ready;
    int64_t started_ns;
    unsigned early_deaths; /* in a row */
    struct pn_timer start;
};

enum stage {
    STAGE_KEEPING = 0,
    STAGE_STOPPING = 1,
    STAGE_AT_ONCE = 2,
    STAGE_KILLING = 3,
};

struct pn_manager {
    unsigned magic;
    struct pn_manager_config config;
    struct pn_loop *loop;
    pid_t pid; /* whose manager this is */
    bool dead; /* this process is a child of that one */
    enum stage stage;
    int64_t deadline_ns; /* of the stage */
    struct pn_timer stop_timer;
    struct pn_watch ready_watch;
    int ready_fd;
    bool all_were_ready;
    bool any_was_ready;
    int status; /* what run gives back */
    int child;  /* in a child: its number; -1 in the parent */
    struct child children[];
};

/* --- Starting --------------------------------------------------------------------------------- */

static void schedule(struct child *c, int64_t delay_ns)
{
    struct pn_manager *m = c->manager;
    c->state = CHILD_WAITING;
    int64_t when = pn_loop_now_ns(m->loop) + delay_ns;
    if (pn_timer_set(m->loop, &c->start, when) < 0) {
        pn_log_error(m->config.log, "no memory for a timer: a process is not started again");
        c->state = CHILD_GONE;
    }
}

static unsigned number_of(const struct child *c)
{
    return (unsigned)(c - c->manager->children) + 1;
}

/* Doubled with each early death in a row. */
static int64_t back_off_ns(const struct child *c)
{
    const struct pn_manager_config *config = &c->manager->config;
    int64_t delay = config->respawn_delay_ns;
    if (c->early_deaths == 0)
        return 0;
    for (unsigned i = 1; i < c->early_deaths && delay < config->respawn_delay_max_ns; i++)
        delay *= 2;
    return delay < config->respawn_delay_max_ns ? delay : config->respawn_delay_max_ns;
}

/* In the child, right after fork. */
static void become_child(struct child *c)
{
    struct pn_manager *m = c->manager;
    m->child = (int)(c - m->children);
    pn_manager_after_fork_child(m);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* The parent may have died before that line. */
    if (getppid() != m->pid)
        raise(SIGTERM);
}

static void start_child(struct child *c)
{
    struct pn_manager *m = c->manager;
    /* Where the board is still the last one's, its READY would count for this one. */
    if (m->config.board)
        pn_board_set_state(m->config.board, number_of(c) - 1, PN_BOARD_EMPTY);
    pid_t pid = m->config.fork(m->config.ctx);
    if (pid == 0) {
        become_child(c);
        return;
    }
    c->started_ns = pn_loop_update_now(m->loop);
    if (pid < 0) {
        c->early_deaths++;
        pn_log_error(m->config.log, "%s %u cannot be started: %s; again in %lld ms", m->config.what,
                     number_of(c), strerror(errno), (long long)(back_off_ns(c) / PN_NS_PER_MS));
        schedule(c, back_off_ns(c));
        return;
    }
    c->state = CHILD_RUNNING;
    c->pid = pid;
    c->was_ready = false;
    pn_log_debug(m->config.log, "%s %u started: pid %d", m->config.what, number_of(c), (int)pid);
}

static void on_start_timer(struct pn_timer *timer)
{
    start_child(pn_container_of(timer, struct child, start));
}

/* --- Stopping --------------------------------------------------------------------------------- */

static unsigned count_state(const struct pn_manager *m, enum child_state state)
{
    unsigned found = 0;
    for (unsigned i = 0; i < m->config.count; i++)
        found += m->children[i].state == state;
    return found;
}

static int stage_signal(enum stage stage)
{
    static const int signals[] = {0, SIGTERM, SIGQUIT, SIGKILL};
    return signals[stage];
}

static void signal_children(const struct pn_manager *m)
{
    for (unsigned i = 0; i < m->config.count; i++) {
        if (m->children[i].state == CHILD_RUNNING)
            kill(m->children[i].pid, stage_signal(m->stage));
    }
}

static void enter_stage(struct pn_manager *m, enum stage stage)
{
    int64_t now = pn_loop_update_now(m->loop);
    m->stage = stage;
    m->deadline_ns = PN_NEVER_NS;
    if (stage == STAGE_STOPPING)
        m->deadline_ns = now + m->config.shutdown_ns + m->config.margin_ns;
    else if (stage == STAGE_AT_ONCE)
        m->deadline_ns = now + AT_ONCE_NS + m->config.margin_ns;
    signal_children(m);
    /* Without memory for a timer signals are not repeated, and the children's own deadlines hold. */
    (void)pn_timer_set(m->loop, &m->stop_timer, now + REPEAT_NS);
}

static void on_stop_timer(struct pn_timer *timer)
{
    struct pn_manager *m = pn_container_of(timer, struct pn_manager, stop_timer);
    if (m->stage != STAGE_KILLING && pn_loop_now_ns(m->loop) >= m->deadline_ns) {
        pn_log_error(m->config.log, "%u %s%s did not end in time: killed",
                     count_state(m, CHILD_RUNNING), m->config.what,
                     count_state(m, CHILD_RUNNING) == 1 ? "" : "s");
        m->status = PN_EXIT_CUT;
        enter_stage(m, STAGE_KILLING);
        return;
    }
    signal_children(m);
    (void)pn_timer_set(m->loop, timer, pn_loop_now_ns(m->loop) + REPEAT_NS);
}

static void stop_if_empty(struct pn_manager *m)
{
    if (count_state(m, CHILD_RUNNING) == 0)
        pn_loop_stop(m->loop);
}

static void begin_stop(struct pn_manager *m, enum stage stage)
{
    for (unsigned i = 0; i < m->config.count; i++) {
        struct child *c = &m->children[i];
        if (c->state == CHILD_WAITING) {
            pn_timer_cancel(m->loop, &c->start);
            c->state = CHILD_GONE;
        }
    }
    if (m->stage == STAGE_KEEPING && m->config.stopping)
        m->config.stopping(m->config.ctx);
    enter_stage(m, stage);
    stop_if_empty(m);
}

static void on_stop_signal(void *ctx, int signo)
{
    struct pn_manager *m = ctx;
    bool first = m->stage == STAGE_KEEPING;
    if (signo == SIGQUIT || (!first && m->config.is_top)) {
        if (m->stage < STAGE_AT_ONCE)
            begin_stop(m, STAGE_AT_ONCE);
    } else if (first) {
        begin_stop(m, STAGE_STOPPING);
    }
}

static void on_hangup(void *ctx, int PN_UNUSED signo)
{
    const struct pn_manager *m = ctx;
    if (m->config.is_top)
        pn_log_info(m->config.log, "SIGHUP: reloading is not built yet; nothing is done");
}

/* --- Ends of children ------------------------------------------------------------------------- */

/* "was killed by SIGKILL", "ended with status 1"; " after 12 requests" where the board knows. */
static void describe_end(const struct child *c, int wait_status, char *out, size_t size)
{
    const struct pn_manager_config *config = &c->manager->config;
    const char *name = WIFSIGNALED(wait_status) ? sigabbrev_np(WTERMSIG(wait_status)) : NULL;
    struct pn_board_view view = {0};
    int n;
    if (name)
        n = snprintf(out, size, "was killed by SIG%s", name);
    else if (WIFSIGNALED(wait_status))
        n = snprintf(out, size, "was killed by signal %d", WTERMSIG(wait_status));
    else
        n = snprintf(out, size, "ended with status %d", WEXITSTATUS(wait_status));
    if (config->board)
        pn_board_read(config->board, number_of(c) - 1, &view);
    if (view.pid == c->pid && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, " after %llu requests",
                 (unsigned long long)view.figures.requests);
}

/* During the end only lost requests are news, and a crash. SIGTERM may come before there is a handler. */
static void child_stopped(const struct child *c, int wait_status)
{
    struct pn_manager *m = c->manager;
    char how[96];
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == PN_EXIT_CUT)
        m->status = PN_EXIT_CUT;
    if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) != SIGTERM &&
        WTERMSIG(wait_status) != stage_signal(m->stage)) {
        describe_end(c, wait_status, how, sizeof how);
        pn_log_warning(m->config.log, "%s %u (pid %d) %s while it was to stop", m->config.what,
                       number_of(c), (int)c->pid, how);
        m->status = PN_EXIT_CUT;
    }
    stop_if_empty(m);
}

/* A child that would end in the same way again. Before any was ready the others will, too. */
static void child_is_final(struct child *c, int status)
{
    struct pn_manager *m = c->manager;
    c->state = CHILD_GONE;
    bool others = count_state(m, CHILD_GONE) < m->config.count;
    if (m->any_was_ready && others) {
        pn_log_error(m->config.log,
                     "%s %u ended with status %d and is not started again; %u of %u are left",
                     m->config.what, number_of(c), status,
                     m->config.count - count_state(m, CHILD_GONE), m->config.count);
        return;
    }
    m->status = status;
    if (m->stage == STAGE_KEEPING)
        begin_stop(m, STAGE_STOPPING);
}

static void child_ended(struct child *c, int wait_status)
{
    struct pn_manager *m = c->manager;
    char how[96];
    c->state = CHILD_GONE;
    if (m->stage != STAGE_KEEPING) {
        child_stopped(c, wait_status);
        return;
    }
    if (WIFEXITED(wait_status) && pn_exit_is_final(WEXITSTATUS(wait_status))) {
        child_is_final(c, WEXITSTATUS(wait_status));
        return;
    }
    bool early = pn_loop_update_now(m->loop) - c->started_ns < EARLY_LIFE_NS;
    c->early_deaths = early ? c->early_deaths + 1 : 0;
    describe_end(c, wait_status, how, sizeof how);
    pn_log_warning(m->config.log, "%s %u (pid %d) %s; the next one starts in %lld ms",
                   m->config.what, number_of(c), (int)c->pid, how,
                   (long long)(back_off_ns(c) / PN_NS_PER_MS));
    schedule(c, back_off_ns(c));
}

static struct child *find_child(struct pn_manager *m, pid_t pid)
{
    for (unsigned i = 0; i < m->config.count; i++) {
        struct child *c = &m->children[i];
        if (c->state == CHILD_RUNNING && c->pid == pid)
            return c;
    }
    return NULL;
}

/* Everybody's orphans come to PID 1, and nobody else reaps them. */
static void reap_all(struct pn_manager *m)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *c = find_child(m, pid);
        if (c)
            child_ended(c, status);
    }
}

/* The application may have children of its own in this process, and wait for them itself. */
static void reap_own(struct pn_manager *m)
{
    for (unsigned i = 0; i < m->config.count; i++) {
        struct child *c = &m->children[i];
        int status;
        if (c->state == CHILD_RUNNING && waitpid(c->pid, &status, WNOHANG) == c->pid)
            child_ended(c, status);
    }
}

static void on_child_signal(void *ctx, int PN_UNUSED signo)
{
    struct pn_manager *m = ctx;
    if (m->pid == 1)
        reap_all(m);
    else
        reap_own(m);
}

/* --- Ready ------------------------------------------------------------------------------------ */

static void on_ready(struct pn_watch *watch, uint32_t PN_UNUSED revents)
{
    struct pn_manager *m = pn_container_of(watch, struct pn_manager, ready_watch);
    uint64_t count;
    bool all = true;
    ssize_t got = read(m->ready_fd, &count, sizeof count);
    (void)got; /* a number that nobody needs */
    for (unsigned i = 0; i < m->config.count; i++) {
        struct child *c = &m->children[i];
        struct pn_board_view view;
        pn_board_read(m->config.board, i, &view);
        if (c->state == CHILD_RUNNING && view.pid == c->pid && view.state >= PN_BOARD_READY)
            c->was_ready = m->any_was_ready = true;
        all = all && c->was_ready;
    }
    /* What is told to stop meanwhile serves nothing any more: its listeners are closed. */
    if (!all || m->all_were_ready || m->stage != STAGE_KEEPING)
        return;
    m->all_were_ready = true;
    if (m->config.ready)
        m->config.ready(m->config.ctx);
}

int pn_manager_ready_fd(const struct pn_manager *m)
{
    return fcntl(m->ready_fd, F_DUPFD_CLOEXEC, 0);
}

void pn_manager_say_ready(int fd)
{
    const uint64_t one = 1;
    if (fd < 0)
        return;
    ssize_t written = write(fd, &one, sizeof one);
    (void)written; /* the parent may have gone: then the kernel tells us in its own way */
    close(fd);
}

/* --- Lifecycle -------------------------------------------------------------------------------- */

static int watch_signals(struct pn_manager *m)
{
    static const int stops[] = {SIGTERM, SIGINT, SIGQUIT};
    int rc = pn_signal_watch(m->loop, SIGCHLD, on_child_signal, m);
    for (size_t i = 0; rc == 0 && i < PN_ARRAY_LEN(stops); i++)
        rc = pn_signal_watch(m->loop, stops[i], on_stop_signal, m);
    return rc == 0 ? pn_signal_watch(m->loop, SIGHUP, on_hangup, m) : rc;
}

struct pn_manager *pn_manager_create(const struct pn_manager_config *config)
{
    PN_BUG_ON(config->count == 0 || config->count > PN_WORKERS_MAX);
    struct pn_poller *poller = pn_poller_epoll_create();
    if (!poller)
        return NULL;
    struct pn_manager *m = pn_xcalloc(1, sizeof *m + config->count * sizeof *m->children);
    m->magic = MANAGER_MAGIC;
    m->config = *config;
    m->loop = pn_loop_create(poller);
    m->pid = getpid();
    m->child = -1;
    if (config->sleep_hooks)
        pn_loop_set_sleep_hooks(m->loop, config->sleep_hooks);
    pn_timer_init(&m->stop_timer, on_stop_timer);
    pn_watch_init(&m->ready_watch, on_ready);
    for (unsigned i = 0; i < config->count; i++) {
        m->children[i].manager = m;
        pn_timer_init(&m->children[i].start, on_start_timer);
    }
    m->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = m->ready_fd < 0 ? -errno : 0;
    if (rc == 0 && config->board)
        rc = pn_watch_add(m->loop, &m->ready_watch, m->ready_fd, EPOLLIN);
    if (rc == 0)
        rc = watch_signals(m);
    if (rc == 0)
        return m;
    pn_manager_destroy(m);
    errno = -rc;
    return NULL;
}

enum pn_manager_end pn_manager_run(struct pn_manager *m, int *value)
{
    PN_CHECK_MAGIC(m, MANAGER_MAGIC);
    for (unsigned i = 0; i < m->config.count && m->child < 0; i++)
        start_child(&m->children[i]);
    while (m->child < 0 && pn_loop_step(m->loop) != PN_STEP_STOPPED)
        pn_log_flush(m->config.log);
    if (m->child >= 0) {
        *value = m->child;
        return PN_MANAGER_CHILD;
    }
    *value = m->status;
    return PN_MANAGER_STOPPED;
}

void pn_manager_after_fork_child(struct pn_manager *m)
{
    if (m->dead || m->pid == getpid())
        return;
    m->dead = true;
    pn_loop_after_fork_child(m->loop);
}

void pn_manager_destroy(struct pn_manager *m)
{
    if (!m)
        return;
    PN_CHECK_MAGIC(m, MANAGER_MAGIC);
    /* In a child the loop is dead: what stood on it is only taken out of its lists. */
    pn_signal_unwatch_all(m->loop);
    pn_watch_remove(m->loop, &m->ready_watch);
    pn_timer_cancel(m->loop, &m->stop_timer);
    for (unsigned i = 0; i < m->config.count; i++)
        pn_timer_cancel(m->loop, &m->children[i].start);
    pn_loop_destroy(m->loop);
    if (m->ready_fd >= 0)
        close(m->ready_fd);
    m->magic = 0;
    free(m);
}
