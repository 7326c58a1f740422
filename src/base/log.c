/* SPDX-License-Identifier: Apache-2.0 */
/* The log sink: a bounded buffer of whole lines under a mutex, written by one write(2) a flush. */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

/* A flush below PIPE_BUF-like sizes is atomic on files and pipes; more lines than this leave early. */
enum {
    BUFFER_SIZE = 64 * 1024,
    LINE_MAX_SIZE = 8 * 1024,
    WRITE_WAIT_MS = 1000, /* a full pipe is waited for this long, then lines are lost and counted */
};

struct pn_log {
    pthread_mutex_t lock;
    int fd;
    enum pn_log_level min_level;
    size_t used;
    unsigned long lost_lines;
    /* The date's text is formatted once a second. */
    time_t stamp_second;
    char stamp[32];
    size_t stamp_len;
    char buffer[BUFFER_SIZE];
};

/* One sink a process, set at start-up before any thread exists. */
static struct pn_log *default_log;

struct pn_log *pn_log_create(int fd, enum pn_log_level min_level)
{
    struct pn_log *log = pn_xcalloc(1, sizeof *log);
    log->fd = fd;
    log->min_level = min_level;
    log->stamp_second = (time_t)-1;
    pthread_mutex_init(&log->lock, NULL);
    return log;
}

void pn_log_set_default(struct pn_log *log)
{
    default_log = log;
}

struct pn_log *pn_log_default(void)
{
    return default_log;
}

/* Waits until a non-blocking descriptor takes bytes again; false when it doesn't in time. */
static bool wait_writable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int r;
    do
        r = poll(&p, 1, WRITE_WAIT_MS);
    while (r < 0 && errno == EINTR);
    return r > 0;
}

static unsigned long count_lines(const char *p, size_t n)
{
    unsigned long lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    return lines;
}

/* Returns the lines that could not be written. */
static unsigned long write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        } else if (w < 0 && errno == EINTR) {
            continue;
        } else if (!(w < 0 && errno == EAGAIN && wait_writable(fd))) {
            return count_lines(p, n);
        }
    }
    return 0;
}

static void flush_locked(struct pn_log *log)
{
    if (log->used == 0)
        return;
    int saved = errno;
    size_t n = log->used;
    log->used = 0;
    log->lost_lines += write_all(log->fd, log->buffer, n);
    errno = saved;
}

static void append_locked(struct pn_log *log, const char *p, size_t n)
{
    if (n > BUFFER_SIZE - log->used)
        flush_locked(log);
    if (n > BUFFER_SIZE) {
        log->lost_lines += write_all(log->fd, p, n);
        return;
    }
    memcpy(log->buffer + log->used, p, n);
    log->used += n;
}

static void update_stamp(struct pn_log *log)
{
    time_t now = (time_t)(pn_clock_real_ns() / PN_NS_PER_SEC);
    if (now == log->stamp_second)
        return;
    struct tm tm;
    localtime_r(&now, &tm);
    log->stamp_second = now;
    log->stamp_len = strftime(log->stamp, sizeof log->stamp, "%Y-%m-%d %H:%M:%S %z", &tm);
}

static const char *level_name(enum pn_log_level level)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    return names[level];
}

/* The lines that a full disk or pipe swallowed are told as soon as one can be written. */
static void say_lost_locked(struct pn_log *log)
{
    if (!log->lost_lines || log->used)
        return;
    char line[128];
    unsigned long lost = log->lost_lines;
    log->lost_lines = 0;
    int n = snprintf(line, sizeof line, "[%s] [%d] [warning] %lu log lines could not be written\n",
                     log->stamp, (int)getpid(), lost);
    append_locked(log, line, (size_t)n);
}

void pn_log_line(struct pn_log *log, enum pn_log_level level, const char *fmt, ...)
{
    char line[LINE_MAX_SIZE];
    va_list args;
    if (!log)
        log = default_log;
    if (log && level < log->min_level)
        return;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, args);
    va_end(args);
    if (n < 0)
        return;
    size_t len = pn_min_size((size_t)n, sizeof line - 2);
    line[len++] = '\n';
    if (!log) {
        fprintf(stderr, "pelton: %s: %.*s", level_name(level), (int)len, line);
        return;
    }
    pthread_mutex_lock(&log->lock);
    update_stamp(log);
    say_lost_locked(log);
    char head[80];
    int h = snprintf(head, sizeof head, "[%s] [%d] [%s] ", log->stamp, (int)getpid(),
                     level_name(level));
    if ((size_t)h + len > BUFFER_SIZE - log->used)
        flush_locked(log);
    append_locked(log, head, (size_t)h);
    append_locked(log, line, len);
    if (level >= PN_LOG_WARNING)
        flush_locked(log);
    pthread_mutex_unlock(&log->lock);
}

void pn_log_raw(struct pn_log *log, const char *lines, size_t len)
{
    if (!log)
        log = default_log;
    if (!log) {
        fwrite(lines, 1, len, stderr);
        return;
    }
    pthread_mutex_lock(&log->lock);
    append_locked(log, lines, len);
    pthread_mutex_unlock(&log->lock);
}

void pn_log_flush(struct pn_log *log)
{
    if (!log)
        log = default_log;
    if (!log)
        return;
    pthread_mutex_lock(&log->lock);
    flush_locked(log);
    pthread_mutex_unlock(&log->lock);
}

void pn_log_write_last(int fd, const char *p, size_t n)
{
    struct pollfd one = {.fd = fd, .events = POLLOUT};
    /* A pipe that is writable takes so much without waiting. */
    while (n && poll(&one, 1, 0) > 0) {
        ssize_t w = write(fd, p, pn_min_size(n, PIPE_BUF));
        if (w <= 0)
            return;
        p += w;
        n -= (size_t)w;
    }
}

void pn_log_flush_last(struct pn_log *log)
{
    if (!log)
        log = default_log;
    if (!log || pthread_mutex_trylock(&log->lock) != 0)
        return;
    pn_log_write_last(log->fd, log->buffer, log->used);
    log->used = 0;
    pthread_mutex_unlock(&log->lock);
}

void pn_log_after_fork_child(struct pn_log *log)
{
    if (!log)
        log = default_log;
    if (!log)
        return;
    /* Another thread of the parent may have held it at the fork; it does not exist here. */
    pthread_mutex_init(&log->lock, NULL);
    log->used = 0;
    log->lost_lines = 0;
}

void pn_log_destroy(struct pn_log *log)
{
    if (!log)
        return;
    pn_log_flush(log);
    if (default_log == log)
        default_log = NULL;
    pthread_mutex_destroy(&log->lock);
    free(log);
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

size_t pn_log_escape(char *out, size_t cap, struct pn_str in)
{
    static const char hex[] = "0123456789abcdef";
    size_t whole = 0, o = 0;
    for (size_t i = 0; i < in.n && whole <= cap; i++)
        whole += is_plain((unsigned char)in.p[i]) ? 1 : 4;
    /* Room for the dots is kept only when something must be cut. */
    size_t dots = whole <= cap ? 0 : pn_min_size(3, cap);
    for (size_t i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];
        bool plain = is_plain(c);
        if (o + (plain ? 1 : 4) > cap - dots)
            break;
        if (plain) {
            out[o++] = (char)c;
            continue;
        }
        out[o++] = '\\';
        out[o++] = 'x';
        out[o++] = hex[c >> 4];
        out[o++] = hex[c & 15];
    }
    memcpy(out + o, "...", dots);
    return o + dots;
}
