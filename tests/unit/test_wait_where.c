/* SPDX-License-Identifier: Apache-2.0 */
/* Where a thread is, as another one sees it. */
#include "wait/where.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test_base.h"

enum { LOOKS_MAX = 20000 }; /* a millisecond each: until the thread is where it is going */

static void *probe;

struct job {
    int (*wait)(int fd);
    void (*spin)(const atomic_bool *end);
    int fd;
    atomic_bool end;
    atomic_int tid;
};

static void *run(void *arg)
{
    struct job *job = arg;
    atomic_store(&job->tid, (int)syscall(SYS_gettid));
    if (job->wait)
        (void)job->wait(job->fd);
    else
        job->spin(&job->end);
    return NULL;
}

/* Looks until it reads WANTED; what was read last is in TEXT. */
static bool look_for(struct job *job, const char *wanted, char *text)
{
    for (int i = 0; i < LOOKS_MAX; i++) {
        int tid = atomic_load(&job->tid);
        if (tid)
            pn_where(tid, text);
        if (strcmp(text, wanted) == 0)
            return true;
        usleep(1000);
    }
    return false;
}

static void *function(const char *name)
{
    void *f = dlsym(probe, name);
    assert_non_null(f);
    return f;
}

static void check_blocked(const char *name, const char *wanted)
{
    char text[PN_WHERE_TEXT_MAX] = "";
    struct job job = {0};
    pthread_t thread;
    int ends[2];
    *(void **)&job.wait = function(name);
    assert_int_equal(pipe(ends), 0);
    job.fd = ends[0];
    assert_int_equal(pthread_create(&thread, NULL, run, &job), 0);
    bool found = look_for(&job, wanted, text);
    assert_int_equal(write(ends[1], "x", 1), 1);
    pthread_join(thread, NULL);
    close(ends[0]);
    close(ends[1]);
    if (!found)
        fail_msg("\"%s\", not \"%s\"", text, wanted);
}

static void the_library_that_called_is_named(void **state)
{
    (void)state;
    check_blocked("where_probe_poll", "in poll() of where_probe.so");
    check_blocked("where_probe_read", "in read() of where_probe.so");
}

static void one_that_runs_computes(void **state)
{
    (void)state;
    char text[PN_WHERE_TEXT_MAX] = "";
    struct job job = {0};
    pthread_t thread;
    *(void **)&job.spin = function("where_probe_spin");
    assert_int_equal(pthread_create(&thread, NULL, run, &job), 0);
    bool found = look_for(&job, "computing", text);
    atomic_store(&job.end, true);
    pthread_join(thread, NULL);
    if (!found)
        fail_msg("\"%s\", not \"computing\"", text);
}

static void nobody_is_nowhere(void **state)
{
    (void)state;
    char text[PN_WHERE_TEXT_MAX] = "x";
    pn_where(-1, text);
    assert_string_equal(text, "");
    text[0] = 'x';
    pn_where(0, text);
    assert_string_equal(text, "");
}

int main(int argc, char **argv)
{
    assert_int_equal(argc, 2);
    probe = dlopen(argv[1], RTLD_NOW);
    if (!probe) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_that_called_is_named),
        cmocka_unit_test(one_that_runs_computes),
        cmocka_unit_test(nobody_is_nowhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
