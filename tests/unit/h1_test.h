/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the HTTP/1.1 wire share: a fixture for each test, and looks at answers. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bounds.h"
#include "support/h1_fixture.h"

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

static inline unsigned h1_count(const char *text, const char *part)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
        n++;
    return n;
}

#define assert_has(text, part)                                         \
    do {                                                               \
        const char *has_text_ = (text);                                \
        if (!strstr(has_text_, (part)))                                \
            fail_msg("not there: %s\n--- in:\n%s", (part), has_text_); \
    } while (0)
#define assert_has_not(text, part)                                               \
    do {                                                                         \
        const char *has_text_ = (text);                                          \
        if (strstr(has_text_, (part)))                                           \
            fail_msg("should not be there: %s\n--- in:\n%s", (part), has_text_); \
    } while (0)

static inline int h1_setup(void **state)
{
    static struct h1_fixture f;
    h1_fixture_init(&f);
    h1_fixture_open(&f);
    *state = &f;
    return 0;
}

static inline int h1_teardown(void **state)
{
    h1_fixture_close(*state);
    return 0;
}

/* Opens the wire anew with what the test has changed in f->config and f->times. */
static inline void h1_reopen(struct h1_fixture *f)
{
    h1_fixture_close(f);
    h1_fixture_open(f);
}

#define h1_test(fn) cmocka_unit_test_setup_teardown(fn, h1_setup, h1_teardown)
