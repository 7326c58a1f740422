/* SPDX-License-Identifier: Apache-2.0 */
/* The few compiler helpers that every room uses. Nothing here has state. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Used on error branches only, so that the hot path reads straight down. */
#define pn_likely(x)   __builtin_expect(!!(x), 1)
#define pn_unlikely(x) __builtin_expect(!!(x), 0)

#define PN_ARRAY_LEN(a)              (sizeof(a) / sizeof((a)[0]))
#define PN_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#define PN_PRINTF(fmt, args)         __attribute__((format(printf, fmt, args)))
#define PN_NORETURN                  __attribute__((noreturn))
#define PN_COLD                      __attribute__((cold, noinline))
#define PN_NOINLINE                  __attribute__((noinline))
#define PN_UNUSED                    __attribute__((unused))
/* Bytes that need not end with NUL. */
#if __has_attribute(nonstring)
#define PN_NONSTRING __attribute__((nonstring))
#else
#define PN_NONSTRING
#endif
#define PN_MUST_CHECK __attribute__((warn_unused_result))

/* The struct that embeds MEMBER at PTR. */
#define pn_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define PN_NS_PER_SEC INT64_C(1000000000)
#define PN_NS_PER_MS  INT64_C(1000000)
#define PN_NS_PER_US  INT64_C(1000)

/* No deadline: later than every time that the monotonic clock reaches. */
#define PN_NEVER_NS INT64_MAX

/* Asks for the N bytes at P before they are needed: with a thousand waiting requests nothing of the next one is in
 * the near caches. P may be any address. */
static inline void pn_prefetch(const void *p, size_t n)
{
    for (size_t at = 0; at < n; at += 64)
        __builtin_prefetch((const char *)p + at);
}

static inline size_t pn_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t pn_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

#if defined(__SANITIZE_ADDRESS__)
#define PN_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PN_ASAN 1
#endif
#endif
#ifndef PN_ASAN
#define PN_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define PN_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PN_TSAN 1
#endif
#endif
#ifndef PN_TSAN
#define PN_TSAN 0
#endif
