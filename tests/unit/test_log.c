/* SPDX-License-Identifier: Apache-2.0 */
/* The log sink: whole lines, levels, escapes, several threads and processes on one file. */
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test_base.h"

static int temp_file(void)
{
    char path[] = "/tmp/pelton-test-log-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    fcntl(fd, F_SETFL, O_APPEND);
    return fd;
}

/* The whole file as a string, owned by the caller. */
static char *content(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(pread(fd, text, (size_t)size, 0), size);
    return text;
}

static void lines_wait_for_the_flush_and_warnings_do_not(void **state)
{
    int fd = temp_file();
    struct pn_log *log = pn_log_create(fd, PN_LOG_INFO);
    (void)state;
    pn_log_debug(log, "not this");
    pn_log_info(log, "one %d", 1);
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    pn_log_warning(log, "two");
    char *text = content(fd);
    char *one = strstr(text, "[info] one 1\n"), *two = strstr(text, "[warning] two\n");
    assert_non_null(one);
    assert_non_null(two);
    assert_true(one < two);
    assert_null(strstr(text, "not this"));
    free(text);
    pn_log_raw(log, "raw\n", 4);
    pn_log_destroy(log);
    text = content(fd);
    assert_non_null(strstr(text, "raw\n"));
    free(text);
    close(fd);
}

static void a_long_line_is_cut_but_stays_a_line(void **state)
{
    int fd = temp_file();
    struct pn_log *log = pn_log_create(fd, PN_LOG_INFO);
    (void)state;
    char *big = malloc(100001);
    assert_non_null(big);
    memset(big, 'x', 100000);
    big[100000] = '\0';
    pn_log_info(log, "%s", big);
    pn_log_info(log, "after");
    pn_log_destroy(log);
    char *text = content(fd);
    char *end = strchr(text, '\n');
    assert_non_null(end);
    assert_true(end - text < 10000);
    assert_non_null(strstr(end, "after\n"));
    free(text);
    free(big);
    close(fd);
}

enum { WRITERS = 4, LINES = 5000 };

static void *write_lines(void *arg)
{
    struct pn_log *log = arg;
    for (int i = 0; i < LINES; i++)
        pn_log_raw(log, "0123456789abcdef\n", 17);
    return NULL;
}

static void no_line_is_torn_or_lost(void **state)
{
    int fd = temp_file();
    struct pn_log *log = pn_log_create(fd, PN_LOG_INFO);
    pthread_t threads[WRITERS];
    (void)state;
    pn_log_raw(log, "0123456789abcdef\n", 17); /* pending at the fork: the parent's alone */
    pid_t child = fork();
    if (child == 0) {
        pn_log_after_fork_child(log);
        write_lines(log);
        pn_log_flush(log);
        _exit(0);
    }
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, log), 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    pn_log_destroy(log);
    char *text = content(fd);
    size_t lines = 0;
    for (char *p = text; *p; p += 17, lines++)
        assert_memory_equal(p, "0123456789abcdef\n", 17);
    assert_int_equal(lines, (WRITERS + 1) * LINES + 1);
    free(text);
    close(fd);
}

static void lost_lines_are_counted_and_told(void **state)
{
    int fd = open("/dev/full", O_WRONLY | O_APPEND);
    assert_true(fd >= 0);
    struct pn_log *log = pn_log_create(fd, PN_LOG_INFO);
    (void)state;
    pn_log_raw(log, "a\nb\n", 4);
    pn_log_flush(log);
    int good = temp_file();
    assert_int_equal(dup2(good, fd), fd);
    pn_log_info(log, "well again");
    pn_log_destroy(log);
    char *text = content(good);
    assert_non_null(strstr(text, "2 log lines could not be written\n"));
    assert_non_null(strstr(text, "well again\n"));
    free(text);
    close(good);
    close(fd);
}

static void escapes_leave_nothing_to_inject(void **state)
{
    char out[64];
    (void)state;
    size_t n = pn_log_escape(out, sizeof out, PN_STR("a\r\nb\"\\\x1b\x7f\xff"));
    assert_int_equal(n, strlen("a\\x0d\\x0ab\\x22\\x5c\\x1b\\x7f\\xff"));
    assert_memory_equal(out, "a\\x0d\\x0ab\\x22\\x5c\\x1b\\x7f\\xff", n);
    n = pn_log_escape(out, 8, PN_STR("0123456789"));
    assert_int_equal(n, 8);
    assert_memory_equal(out, "01234...", 8);
    n = pn_log_escape(out, 10, PN_STR("0123456789"));
    assert_memory_equal(out, "0123456789", n);
    for (size_t cap = 0; cap < 12; cap++)
        assert_true(pn_log_escape(out, cap, PN_STR("\n\n\n")) <= cap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_wait_for_the_flush_and_warnings_do_not),
        cmocka_unit_test(a_long_line_is_cut_but_stays_a_line),
        cmocka_unit_test(no_line_is_torn_or_lost),
        cmocka_unit_test(lost_lines_are_counted_and_told),
        cmocka_unit_test(escapes_leave_nothing_to_inject),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
