/* SPDX-License-Identifier: Apache-2.0 */
/* Graded assertions. PN_BUG stands for what would corrupt memory or answer the wrong client and is
 * always compiled in; PN_ASSERT is the documentation that debug builds run. Long-lived structs begin
 * with a magic number: PN_CHECK_MAGIC at entry turns a stale pointer into a message. */
#pragma once

#include "base/defs.h"

/* Prints the place and the text to stderr and aborts. Never returns. */
PN_NORETURN PN_COLD void pn_bug(const char *file, int line, const char *func, const char *text);

#define PN_BUG_ON(cond)                                  \
    do {                                                 \
        if (pn_unlikely(cond))                           \
            pn_bug(__FILE__, __LINE__, __func__, #cond); \
    } while (0)

/* A branch that cannot be reached; TEXT says why in words. */
#define PN_WRONG(text) pn_bug(__FILE__, __LINE__, __func__, text)

#ifdef NDEBUG
#define PN_ASSERT(cond) ((void)sizeof(!(cond)))
#else
#define PN_ASSERT(cond)                                               \
    do {                                                              \
        if (pn_unlikely(!(cond)))                                     \
            pn_bug(__FILE__, __LINE__, __func__, "not true: " #cond); \
    } while (0)
#endif

#define PN_CHECK_MAGIC(obj, value) PN_ASSERT((obj) != NULL && (obj)->magic == (value))
