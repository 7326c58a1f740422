/* SPDX-License-Identifier: Apache-2.0 */
/* How long src/wait takes to redirect the calls of this process's libraries.
 *
 *   patching [LIBRARY ...] [-- LIBRARY ...]
 *
 * Loads the libraries before "--", installs the redirections, loads those behind it, scans, and
 * undoes all. Prints "install_us=U cpu_us=U slots=N images=M" and, when there were some behind "--",
 * the same with "scan_us": the time on the wall and that of this thread on a processor. What a library is made of doesn't matter to the patcher, only how
 * many images and relocations there are: bench/patching.py says which it takes. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "wait/wait.h"

static int load(int argc, char **argv, int i)
{
    for (; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!dlopen(argv[i], RTLD_LAZY | RTLD_GLOBAL)) {
            fprintf(stderr, "patching: %s\n", dlerror());
            return -1;
        }
    return i;
}

struct took {
    int64_t wall_ns;
    int64_t cpu_ns;
};

static struct took now(void)
{
    struct timespec cpu;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return (struct took){pn_clock_mono_ns(), cpu.tv_sec * 1000000000L + cpu.tv_nsec};
}

static void print_took(const char *what, struct took start)
{
    struct took end = now();
    struct pn_wait_stats stats;

    pn_wait_stats(&stats);
    printf("%s_us=%.1f cpu_us=%.1f slots=%u images=%u\n", what,
           (double)(end.wall_ns - start.wall_ns) / 1e3, (double)(end.cpu_ns - start.cpu_ns) / 1e3,
           stats.slots, stats.images);
}

int main(int argc, char **argv)
{
    struct pn_wait_config config = {0};
    int i = load(argc, argv, 1);

    if (i < 0)
        return 1;
    struct took start = now();
    int r = pn_wait_install(&config);
    if (r < 0) {
        fprintf(stderr, "patching: %s\n", strerror(-r));
        return 1;
    }
    print_took("install", start);
    if (i < argc && load(argc, argv, i + 1) < 0)
        return 1;
    if (i < argc) {
        start = now();
        pn_wait_scan();
        print_took("scan", start);
    }
    pn_wait_uninstall();
    return 0;
}
