/* SPDX-License-Identifier: Apache-2.0 */
/* From the command line to open listeners. Every failure is one sentence that says what to do. */
#include "main/start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LOG_FILE_MODE = 0640,
    ERROR_TEXT_MAX = 1024,
    /* Descriptors that are no connections: the standard ones, the loop's, the application's own. */
    SPARE_DESCRIPTORS = 64,
};

/* --- Messages --------------------------------------------------------------------------------- */

void pn__start_error(const struct pn__start *start, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pn_log_error(start->log, "%s", text);
    if (start->console_fd >= 0)
        dprintf(start->console_fd, "pelton: error: %s\n", text);
}

static enum pn__next end_with(int *status, enum pn_exit_status value)
{
    *status = value;
    return PN__NEXT_END;
}

/* --- The command line ------------------------------------------------------------------------- */

static enum pn__next print_and_end(const struct pn__start *start, int *status)
{
    if (start->settings.action == PN_ACTION_VERSION)
        printf("pelton %s (%s)\n", PELTON_VERSION, start->python);
    else
        pn_option_print_help(pn_settings_table(), start->settings.action == PN_ACTION_HELP_ALL,
                             stdout);
    /* A full disk or a closed pipe must not look like success. */
    bool written = fflush(stdout) == 0 && !ferror(stdout);
    return end_with(status, written ? PN_EXIT_OK : PN_EXIT_ERROR);
}

enum pn__next pn__start_read(struct pn__start *start, int argc, char *const *argv,
                             const char *python, int *status)
{
    struct pn_config_error err;
    *start = (struct pn__start){.python = python, .console_fd = -1};
    err.text[0] = '\0';
    int rc = pn_settings_init(&start->settings);
    if (rc == 0)
        rc = pn_settings_parse(&start->settings, argc, argv, &err);
    if (start->settings.action != PN_ACTION_SERVE)
        return print_and_end(start, status);
    if (rc == 0)
        rc = pn_settings_check(&start->settings, &err);
    if (rc == 0)
        rc = pn__trust_init(&start->trust, &start->settings.http.proxies, &err);
    if (rc == 0)
        return PN__NEXT_GO_ON;
    pn__start_error(start, "%s", err.text[0] ? err.text : strerror(-rc));
    return end_with(status, PN_EXIT_CONFIG);
}

/* --- The log ---------------------------------------------------------------------------------- */

/* Whoever starts us with a standard stream closed must not find a listener in its place. */
static void fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
    }
}

/* --logto: descriptors 1 and 2 become the file, so that everything that the application and its C
 * libraries print lands there too. 0 or negative errno. */
static int take_over_output(struct pn__start *start, const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, LOG_FILE_MODE);
    if (fd < 0)
        return -errno;
    start->console_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int rc = 0;
    fflush(NULL);
    if (dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        rc = -errno;
    if (fd > STDERR_FILENO)
        close(fd);
    return rc;
}

/* Whether two descriptors lead to one file: then one sink keeps the lines in order. */
static bool is_same_file(int a, int b)
{
    struct stat sa, sb;
    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

static enum pn__next open_log(struct pn__start *start, int *status)
{
    const struct pn_settings_log *log = &start->settings.log;
    fill_standard_descriptors();
    int rc = log->file ? take_over_output(start, log->file) : 0;
    if (rc < 0) {
        pn__start_error(start, "option '--logto': cannot open '%s': %s", log->file, strerror(-rc));
        return end_with(status, PN_EXIT_CONFIG);
    }
    start->log = pn_log_create(STDERR_FILENO, (enum pn_log_level)log->level);
    start->out = is_same_file(STDOUT_FILENO, STDERR_FILENO)
                     ? start->log
                     : pn_log_create(STDOUT_FILENO, PN_LOG_INFO);
    pn_log_set_default(start->log);
    for (size_t i = 0; i < start->settings.notes.count; i++)
        pn_log_info(start->log, "%s", start->settings.notes.items[i]);
    return PN__NEXT_GO_ON;
}

/* --- Directory and limits --------------------------------------------------------------------- */

static enum pn__next enter_directory(struct pn__start *start, int *status)
{
    const char *path = start->settings.app.chdir;
    if (!path || chdir(path) == 0)
        return PN__NEXT_GO_ON;
    pn__start_error(start, "option '--chdir': cannot enter '%s': %s", path, strerror(errno));
    return end_with(status, PN_EXIT_CONFIG);
}

/* Each request under way has a connection, and usually one more of its own, to a database. */
static void raise_descriptor_limit(const struct pn__start *start)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    rlim_t wanted = (rlim_t)start->settings.carrier.cores + SPARE_DESCRIPTORS;
    if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < wanted)
        pn_log_warning(start->log,
                       "%d requests at once need about %llu descriptors, and the limit is %llu: "
                       "raise it (ulimit -n, LimitNOFILE=)",
                       start->settings.carrier.cores, (unsigned long long)wanted,
                       (unsigned long long)limit.rlim_cur);
}

/* --- Listeners -------------------------------------------------------------------------------- */

static enum pn__next open_listener(struct pn__start *start, const struct pn_socket_setting *item,
                                   int *status)
{
    const struct pn_settings_sockets *sockets = &start->settings.sockets;
    const struct pn_listener_config config = {
        .backlog = sockets->backlog,
        .reuse_port = sockets->reuse_port,
        .defer_accept = sockets->defer_accept,
        .set_mode = sockets->chmod_mode >= 0,
        .mode = sockets->chmod_mode >= 0 ? (mode_t)sockets->chmod_mode : 0,
        .owner = sockets->chown_user,
    };
    char err[ERROR_TEXT_MAX / 2];
    struct pn_address address;
    int rc = pn_address_parse(item->address, &address, err, sizeof err);
    if (rc < 0) {
        pn__start_error(start, "option '--%s': %s", item->option, err);
        return end_with(status, PN_EXIT_CONFIG);
    }
    rc = pn_listener_open(&address, &config, &start->listeners[start->listener_count], err,
                          sizeof err);
    if (rc < 0) {
        pn__start_error(start, "%s", err);
        return end_with(status, PN_EXIT_ADDRESS);
    }
    start->listener_count++;
    return PN__NEXT_GO_ON;
}

enum pn__next pn__start_open(struct pn__start *start, int *status)
{
    const struct pn_settings_sockets *sockets = &start->settings.sockets;
    if (open_log(start, status) == PN__NEXT_END || enter_directory(start, status) == PN__NEXT_END)
        return PN__NEXT_END;
    raise_descriptor_limit(start);
    for (size_t i = 0; i < sockets->count; i++) {
        if (open_listener(start, &sockets->items[i], status) == PN__NEXT_END)
            return PN__NEXT_END;
    }
    return PN__NEXT_GO_ON;
}

bool pn__start_is_trusted(void *ctx, const struct sockaddr *address, socklen_t len)
{
    const struct pn__start *start = ctx;
    return pn__trust_has(&start->trust, address, len);
}

int64_t pn__start_grace_ns(const struct pn__start *start)
{
    const struct pn_settings *settings = &start->settings;
    int64_t grace_ms = settings->processes.shutdown_timeout_ms;
    if (settings->carrier.has_asyncio && settings->carrier.asyncio_drain_ms > grace_ms)
        grace_ms = settings->carrier.asyncio_drain_ms;
    return grace_ms * PN_NS_PER_MS;
}

/* --- The end ---------------------------------------------------------------------------------- */

void pn__start_done(struct pn__start *start)
{
    if (start->console_fd >= 0)
        close(start->console_fd);
    start->console_fd = -1;
}

void pn__start_close_listeners(struct pn__start *start)
{
    for (size_t i = 0; i < start->listener_count; i++) {
        pn_listener_close(start->listeners[i], true);
        start->listeners[i] = NULL;
    }
}

void pn__start_close(struct pn__start *start)
{
    pn__start_close_listeners(start);
    pn__start_done(start);
    pn__trust_fini(&start->trust);
    pn_settings_fini(&start->settings);
    if (start->out != start->log)
        pn_log_destroy(start->out);
    pn_log_destroy(start->log);
    start->out = start->log = NULL;
}
