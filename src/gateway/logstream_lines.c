/* SPDX-License-Identifier: Apache-2.0 */
/* Whole lines out of the pieces that print() writes.
 *
 * A piece is keyed by the thread state that wrote it: every core, thread and fiber has one of its
 * own. Nearly always there is at most one piece (print writes the text and its newline without
 * giving the GIL up in between), so a slot is found at the first look. A thread that ends in the
 * middle of a line leaves its piece behind: it goes out with the next flush of all. */
#include "gateway/logstream_lines.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "cores/core.h"

enum {
    PIECES_MAX = 4096,          /* lines begun at once; one more sends the oldest out */
    PIECE_SIZE_MAX = 1 << 20,   /* a longer line leaves in parts */
    PIECE_SIZE_KEPT = 16 << 10, /* memory that an unused slot may hold */
    PIECE_SIZE_MIN = 128,
    WRITE_WAIT_MS = 1000,
};

struct piece {
    const void *owner; /* the thread state; never looked into */
    char *data;
    size_t len; /* 0: the slot is free */
    size_t capacity;
};

struct pn__lines {
    unsigned refs;
    int fd;
    struct pn_log *log; /* NULL: written directly */
    bool at_once;
    bool may_block; /* no regular file: a write may take long, so the GIL is given up for it */
    size_t last;    /* the slot used last */
    size_t count;
    struct piece *pieces;
};

/* --- The sink --------------------------------------------------------------------------------- */

static void write_out(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        } else if (w < 0 && errno == EAGAIN) {
            struct pollfd one = {.fd = fd, .events = POLLOUT};
            if (poll(&one, 1, WRITE_WAIT_MS) <= 0)
                return;
        } else if (w >= 0 || errno != EINTR) {
            return;
        }
    }
}

static void sink_flush(struct pn__lines *lines)
{
    struct pn_log *log = lines->log;
    if (!log)
        return;
    if (!lines->may_block) {
        pn_log_flush(log);
        return;
    }
    Py_BEGIN_ALLOW_THREADS;
    pn_log_flush(log);
    Py_END_ALLOW_THREADS;
}

static void sink_add(struct pn__lines *lines, const char *p, size_t n)
{
    int saved = errno;
    if (lines->log)
        pn_log_raw(lines->log, p, n);
    else
        write_out(lines->fd, p, n);
    errno = saved;
}

/* A thread that is no core has no turn whose end would flush. */
static bool leaves_now(const struct pn__lines *lines)
{
    return lines->at_once || pn_core_self() == NULL;
}

/* --- Pieces ----------------------------------------------------------------------------------- */

static void piece_clear(struct piece *piece)
{
    piece->len = 0;
    piece->owner = NULL;
    if (piece->capacity > PIECE_SIZE_KEPT) {
        free(piece->data);
        piece->data = NULL;
        piece->capacity = 0;
    }
}

static void piece_send(struct pn__lines *lines, struct piece *piece)
{
    sink_add(lines, piece->data, piece->len);
    piece_clear(piece);
}

/* The slot in which OWNER has begun a line, or NULL. */
static struct piece *piece_find(struct pn__lines *lines, const void *owner)
{
    if (lines->last < lines->count && lines->pieces[lines->last].owner == owner)
        return &lines->pieces[lines->last];
    for (size_t i = 0; i < lines->count; i++) {
        if (lines->pieces[i].owner == owner) {
            lines->last = i;
            return &lines->pieces[i];
        }
    }
    return NULL;
}

/* A free slot for OWNER; NULL without memory. */
static struct piece *piece_take(struct pn__lines *lines, const void *owner)
{
    size_t at = lines->last;
    if (at >= lines->count || lines->pieces[at].owner) {
        for (at = 0; at < lines->count && lines->pieces[at].owner; at++)
            ;
    }
    if (at == PIECES_MAX) {
        at = 0;
        piece_send(lines, &lines->pieces[at]);
    } else if (at == lines->count) {
        size_t count = lines->count ? 2 * lines->count : 4;
        struct piece *pieces = pn_try_realloc(lines->pieces, count * sizeof *pieces);
        if (!pieces)
            return NULL;
        memset(pieces + lines->count, 0, (count - lines->count) * sizeof *pieces);
        lines->pieces = pieces;
        lines->count = count;
    }
    lines->last = at;
    lines->pieces[at].owner = owner;
    return &lines->pieces[at];
}

/* False without memory. */
static bool piece_append(struct piece *piece, const char *p, size_t n)
{
    if (n > piece->capacity - piece->len) {
        size_t capacity = piece->capacity ? piece->capacity : PIECE_SIZE_MIN;
        while (capacity < piece->len + n)
            capacity *= 2;
        char *data = pn_try_realloc(piece->data, capacity);
        if (!data)
            return false;
        piece->data = data;
        piece->capacity = capacity;
    }
    memcpy(piece->data + piece->len, p, n);
    piece->len += n;
    return true;
}

/* Keeps the beginning of a line; one that is too long, or that no memory is there for, leaves. */
static void keep(struct pn__lines *lines, struct piece *piece, const char *p, size_t n)
{
    const void *owner = PyThreadState_Get();
    if (!piece)
        piece = piece_take(lines, owner);
    if (!piece) {
        sink_add(lines, p, n);
        return;
    }
    if (n <= PIECE_SIZE_MAX - piece->len && piece_append(piece, p, n))
        return;
    piece_send(lines, piece);
    sink_add(lines, p, n);
}

void pn__lines_write(struct pn__lines *lines, const char *p, size_t n)
{
    if (n == 0)
        return;
    const char *newline = memrchr(p, '\n', n);
    struct piece *piece = piece_find(lines, PyThreadState_Get());
    if (!newline) {
        keep(lines, piece, p, n);
        return;
    }
    size_t whole = (size_t)(newline - p) + 1;
    if (!piece) {
        sink_add(lines, p, whole);
    } else if (whole <= PIECE_SIZE_MAX && piece_append(piece, p, whole)) {
        piece_send(lines, piece);
    } else {
        piece_send(lines, piece);
        sink_add(lines, p, whole);
    }
    if (whole < n)
        keep(lines, NULL, p + whole, n - whole);
    if (leaves_now(lines))
        sink_flush(lines);
}

/* --- Lifecycle -------------------------------------------------------------------------------- */

struct pn__lines *pn__lines_new(int fd, struct pn_log *log, bool at_once)
{
    struct pn__lines *lines = pn_try_malloc(sizeof *lines);
    if (!lines)
        return NULL;
    struct stat st;
    *lines = (struct pn__lines){
        .refs = 1,
        .fd = fd,
        .log = log,
        .at_once = at_once,
        .may_block = fstat(fd, &st) != 0 || !S_ISREG(st.st_mode),
    };
    return lines;
}

struct pn__lines *pn__lines_ref(struct pn__lines *lines)
{
    lines->refs++;
    return lines;
}

void pn__lines_unref(struct pn__lines *lines)
{
    if (!lines || --lines->refs > 0)
        return;
    pn__lines_flush_all(lines);
    for (size_t i = 0; i < lines->count; i++)
        free(lines->pieces[i].data);
    free(lines->pieces);
    free(lines);
}

int pn__lines_fd(const struct pn__lines *lines)
{
    return lines->fd;
}

void pn__lines_flush(struct pn__lines *lines)
{
    struct piece *piece = piece_find(lines, PyThreadState_Get());
    if (piece)
        piece_send(lines, piece);
    sink_flush(lines);
}

void pn__lines_flush_all(struct pn__lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) {
        if (lines->pieces[i].len)
            piece_send(lines, &lines->pieces[i]);
    }
    sink_flush(lines);
}

void pn__lines_detach(struct pn__lines *lines)
{
    pn__lines_flush_all(lines);
    lines->log = NULL;
}

void pn__lines_after_fork_child(struct pn__lines *lines)
{
    for (size_t i = 0; i < lines->count; i++)
        piece_clear(&lines->pieces[i]);
}
