/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel says in which system call a thread is, and where its stack pointer stands. Return addresses on
 * the stack are words that point into a library's code, behind a call instruction. A stale one in a frame's
 * unused part can be taken for one: what is said is a hint for a person, who sees the Python stack as well.
 *
 * Memory is read by process_vm_readv: the thread goes on meanwhile, and what is not there any more is an
 * error, not a fault. */
#include "wait/where.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    STACK_WORDS = 2048, /* looked at, from the stack pointer on */
    CLOSE_BY_WORDS = 64,
    CALL_BYTES = 7, /* of the longest call instruction */
    MAPS_SIZE_MAX = 4 * 1024 * 1024,
    MAPS_STEP = 64 * 1024,
};

/* Those that can wait, or take long on a disk. */
static const struct {
    long number;
    const char *name;
} calls[] = {
    {SYS_read, "read"},
    {SYS_write, "write"},
    {SYS_open, "open"},
    {SYS_openat, "open"},
    {SYS_close, "close"},
    {SYS_stat, "stat"},
    {SYS_newfstatat, "stat"},
    {SYS_poll, "poll"},
    {SYS_ppoll, "ppoll"},
    {SYS_select, "select"},
    {SYS_pselect6, "pselect"},
    {SYS_epoll_wait, "epoll_wait"},
    {SYS_epoll_pwait, "epoll_pwait"},
    {SYS_pread64, "pread"},
    {SYS_pwrite64, "pwrite"},
    {SYS_readv, "readv"},
    {SYS_writev, "writev"},
    {SYS_sendfile, "sendfile"},
    {SYS_splice, "splice"},
    {SYS_nanosleep, "nanosleep"},
    {SYS_clock_nanosleep, "clock_nanosleep"},
    {SYS_pause, "pause"},
    {SYS_connect, "connect"},
    {SYS_accept, "accept"},
    {SYS_accept4, "accept4"},
    {SYS_sendto, "sendto"},
    {SYS_recvfrom, "recvfrom"},
    {SYS_sendmsg, "sendmsg"},
    {SYS_recvmsg, "recvmsg"},
    {SYS_sendmmsg, "sendmmsg"},
    {SYS_recvmmsg, "recvmmsg"},
    {SYS_wait4, "wait4"},
    {SYS_waitid, "waitid"},
    {SYS_futex, "futex"},
    {SYS_flock, "flock"},
    {SYS_fcntl, "fcntl"},
    {SYS_fsync, "fsync"},
    {SYS_fdatasync, "fdatasync"},
    {SYS_msync, "msync"},
    {SYS_getdents64, "readdir"},
    {SYS_rename, "rename"},
    {SYS_unlink, "unlink"},
    {SYS_ioctl, "ioctl"},
    {SYS_rt_sigtimedwait, "sigtimedwait"},
    {SYS_semtimedop, "semtimedop"},
    {SYS_msgrcv, "msgrcv"},
    {SYS_mmap, "mmap"},
    {SYS_munmap, "munmap"},
    {SYS_vfork, "vfork"},
    {SYS_clone, "clone"},
};

/* --- Reading ------------------------------------------------------------------------------------ */

/* The whole of a file of /proc, or NULL; free() it. */
static char *read_all(const char *path)
{
    size_t size = 0, room = 0;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    for (;;) {
        if (room - size < 2) {
            char *more = room < MAPS_SIZE_MAX ? realloc(text, room + MAPS_STEP) : NULL;
            if (!more)
                break;
            text = more;
            room += MAPS_STEP;
        }
        ssize_t n = read(fd, text + size, room - size - 1);
        if (n == 0 && size > 0) {
            close(fd);
            text[size] = '\0';
            return text;
        }
        if (n <= 0)
            break;
        size += (size_t)n;
    }
    close(fd);
    free(text);
    return NULL;
}

/* How many bytes came. */
static size_t peek(uintptr_t from, void *to, size_t size)
{
    struct iovec here = {to, size};
    struct iovec there = {(void *)from, size}; /* NOLINT: an address */
    ssize_t n = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
    return n > 0 ? (size_t)n : 0;
}

/* As much as is there: a stack may end before the buffer does. */
static size_t peek_stack(uintptr_t from, uintptr_t *words, size_t count)
{
    for (size_t n = count; n > 0; n /= 2) {
        size_t got = peek(from, words, n * sizeof *words);
        if (got > 0)
            return got / sizeof *words;
    }
    return 0;
}

/* --- Whose code an address is in ------------------------------------------------------------------- */

struct line {
    uintptr_t begin;
    uintptr_t end;
    const char *path; /* view of a line of maps; up to the newline */
    size_t path_len;
};

/* Takes a line of /proc/PID/maps apart; returns where the next begins, NULL at the end. LINE->path is
 * NULL where there is no file's code. */
static const char *next_line(const char *p, struct line *line)
{
    const char *newline = strchr(p, '\n');
    char *after;
    if (!newline)
        return NULL;
    line->path = NULL;
    line->path_len = 0;
    line->begin = strtoull(p, &after, 16);
    line->end = *after == '-' ? strtoull(after + 1, &after, 16) : 0;
    bool code = line->end && newline - after > 4 && after[3] == 'x';
    const char *path = code ? memchr(after, '/', (size_t)(newline - after)) : NULL;
    if (path) {
        line->path = path;
        line->path_len = (size_t)(newline - path);
    }
    return newline + 1;
}

static bool find(const char *maps, uintptr_t address, struct line *line)
{
    for (const char *p = maps; (p = next_line(p, line));)
        if (address >= line->begin && address < line->end)
            return line->path != NULL;
    return false;
}

static void take_file(struct line *line)
{
    const char *slash = memrchr(line->path, '/', line->path_len);
    size_t skip = (size_t)(slash + 1 - line->path);
    line->path += skip;
    line->path_len -= skip;
}

static bool begins(const struct line *line, const char *name)
{
    size_t n = strlen(name);
    return line->path_len >= n && memcmp(line->path, name, n) == 0;
}

/* Whether the code at ADDRESS was called to return to: near and indirect call (Intel SDM, CALL). */
static bool follows_call(uintptr_t address)
{
    unsigned char b[CALL_BYTES];
    if (peek(address - CALL_BYTES, b, sizeof b) != sizeof b)
        return false;
    if (b[CALL_BYTES - 5] == 0xe8)
        return true;
    for (int n = 2; n <= CALL_BYTES; n++)
        if (b[CALL_BYTES - n] == 0xff && (b[CALL_BYTES - n + 1] & 0x38) == 0x10)
            return true;
    return false;
}

static bool is_of_libc(const struct line *file)
{
    static const char *const names[] = {"libc.so",    "libc-",   "ld-linux",
                                        "libpthread", "libasan", "libtsan"};
    for (size_t i = 0; i < PN_ARRAY_LEN(names); i++)
        if (begins(file, names[i]))
            return true;
    return false;
}

static bool is_interpreter(const struct line *file)
{
    return begins(file, "python") || begins(file, "libpython");
}

/* The innermost caller that is worth a name. The interpreter's code is called by libraries and calls them, so
 * stale addresses in it lie everywhere: another library close by goes before it. */
static bool find_caller(const char *maps, const uintptr_t *words, size_t count, struct line *out)
{
    struct line own = {0};
    struct line file;
    bool found = false;
    (void)find(maps, (uintptr_t)&pn_where, &own);
    for (size_t i = 0; i < count; i++) {
        if (words[i] < 4096 || (words[i] >= own.begin && words[i] < own.end) ||
            !find(maps, words[i], &file))
            continue;
        take_file(&file);
        if (is_of_libc(&file) || (found && is_interpreter(&file)) || !follows_call(words[i]))
            continue;
        *out = file;
        if (!is_interpreter(&file))
            return true;
        found = true;
        count = pn_min_size(count, i + CLOSE_BY_WORDS);
    }
    return found;
}

/* --- What is said ------------------------------------------------------------------------------------ */

static const char *call_name(long number)
{
    for (size_t i = 0; i < PN_ARRAY_LEN(calls); i++)
        if (calls[i].number == number)
            return calls[i].name;
    return NULL;
}

static void say(char *text, long number, uintptr_t stack)
{
    const char *name = call_name(number);
    int n = name ? snprintf(text, PN_WHERE_TEXT_MAX, "in %s()", name)
                 : snprintf(text, PN_WHERE_TEXT_MAX, "in system call %ld", number);
    uintptr_t *words = pn_try_malloc(STACK_WORDS * sizeof *words);
    char *maps = words ? read_all("/proc/self/maps") : NULL;
    struct line caller = {0};
    if (maps && find_caller(maps, words, peek_stack(stack, words, STACK_WORDS), &caller))
        snprintf(text + n, (size_t)(PN_WHERE_TEXT_MAX - n), " of %.*s",
                 (int)pn_min_size(caller.path_len, 100), caller.path);
    free(maps);
    free(words);
}

void pn_where(pid_t tid, char text[PN_WHERE_TEXT_MAX])
{
    char path[64];
    unsigned long long args[6], stack, at;
    long number;
    text[0] = '\0';
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)tid);
    char *state = read_all(path);
    if (!state)
        return;
    if (strncmp(state, "running", 7) == 0)
        strcpy(text, "computing"); /* NOLINT: it fits */
    else if (sscanf(state, "%ld %llx %llx %llx %llx %llx %llx %llx %llx", &number, &args[0],
                    &args[1], &args[2], &args[3], &args[4], &args[5], &stack, &at) == 9 &&
             number >= 0)
        say(text, number, (uintptr_t)stack);
    else if (number == -1)
        strcpy(text, "computing"); /* NOLINT: held up by the kernel, a page fault say */
    free(state);
}
