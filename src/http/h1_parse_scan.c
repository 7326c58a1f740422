/* SPDX-License-Identifier: Apache-2.0 */
/* The three implementations of h1_parse_scan.h. The vector ones look a byte's class up by its two
 * halves: a class is a bit that both table entries have. Bits 0..3 are the rows of ALPHA, DIGIT and
 * '-', bits 4..6 those of the control characters, so "stop" and "control" are one comparison each
 * of the same value. No state. */
#include "http/h1_parse_scan.h"

#include <string.h>

#include "http/http_token.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define PN__H1_VECTOR 1
#else
#define PN__H1_VECTOR 0
#endif

static void classify_portable(const char *p, size_t n, uint64_t *stop, uint64_t *control)
{
    for (size_t from = 0; from < n; from += PN_H1_BLOCK) {
        uint64_t s = 0, c = 0;
        for (size_t i = from; i < n && i < from + PN_H1_BLOCK; i++) {
            unsigned cls = pn_http_class[(unsigned char)p[i]];
            s |= (uint64_t) !(cls & PN_HTTP_C_PLAIN) << i % PN_H1_BLOCK;
            c |= (uint64_t) !!(cls & PN_HTTP_C_CONTROL) << i % PN_H1_BLOCK;
        }
        *stop++ = s;
        *control++ = c;
    }
}

static const struct pn_h1_scan scan_portable = {"portable", classify_portable};

#if PN__H1_VECTOR

enum {
    ROW_DASH = 1,   /* 0x2d */
    ROW_DIGIT = 2,  /* 0x30..0x39 */
    ROW_ALPHA1 = 4, /* 0x41..0x4f, 0x61..0x6f */
    ROW_ALPHA2 = 8, /* 0x50..0x5a, 0x70..0x7a */
    ROW_CTL0 = 16,  /* 0x00..0x0f but 0x09 */
    ROW_CTL1 = 32,  /* 0x10..0x1f */
    ROW_DEL = 64,   /* 0x7f */
    NAME_ROWS = ROW_DASH | ROW_DIGIT | ROW_ALPHA1 | ROW_ALPHA2,
};

#define LOW_COMMON (ROW_CTL0 | ROW_CTL1)
#define LOW_0      (LOW_COMMON | ROW_DIGIT | ROW_ALPHA2)
#define LOW_1_8    (LOW_COMMON | ROW_DIGIT | ROW_ALPHA1 | ROW_ALPHA2)
#define LOW_9      (ROW_CTL1 | ROW_DIGIT | ROW_ALPHA1 | ROW_ALPHA2)
#define LOW_A      (LOW_COMMON | ROW_ALPHA1 | ROW_ALPHA2)
#define LOW_B      (LOW_COMMON | ROW_ALPHA1)
#define LOW_D      (LOW_COMMON | ROW_ALPHA1 | ROW_DASH)
#define LOW_F      (LOW_COMMON | ROW_ALPHA1 | ROW_DEL)
#define LOW_TABLE                                                                                \
    LOW_0, LOW_1_8, LOW_1_8, LOW_1_8, LOW_1_8, LOW_1_8, LOW_1_8, LOW_1_8, LOW_1_8, LOW_9, LOW_A, \
        LOW_B, LOW_B, LOW_D, LOW_B, LOW_F
#define HIGH_TABLE                                                               \
    ROW_CTL0, ROW_CTL1, ROW_DASH, ROW_DIGIT, ROW_ALPHA1, ROW_ALPHA2, ROW_ALPHA1, \
        ROW_ALPHA2 | ROW_DEL, 0, 0, 0, 0, 0, 0, 0, 0

/* For a class value V: V - 1 has its top bit set when no bit is set, V + 0x70 when a bit of 4..6 is. */
enum { CONTROL_BIAS = 0x70 };

#define SSE42 __attribute__((target("sse4.2")))
#define AVX2  __attribute__((target("avx2")))

/* One block. Bytes above 0x7f give 0 from the low table by themselves. */
static inline SSE42 void block_sse42(const char *p, uint64_t *stop, uint64_t *control)
{
    const __m128i low = _mm_setr_epi8(LOW_TABLE);
    const __m128i high = _mm_setr_epi8(HIGH_TABLE);
    uint64_t none = 0, ctl = 0;
    for (unsigned i = 0; i < PN_H1_BLOCK; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i upper = _mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(0x0f));
        __m128i cls = _mm_and_si128(_mm_shuffle_epi8(low, v), _mm_shuffle_epi8(high, upper));
        none |= (uint64_t)_mm_movemask_epi8(_mm_sub_epi8(cls, _mm_set1_epi8(1))) << i;
        ctl |= (uint64_t)_mm_movemask_epi8(_mm_adds_epu8(cls, _mm_set1_epi8(CONTROL_BIAS))) << i;
    }
    *stop = none | ctl;
    *control = ctl;
}

static SSE42 void classify_sse42(const char *p, size_t n, uint64_t *stop, uint64_t *control)
{
    for (; n >= PN_H1_BLOCK; n -= PN_H1_BLOCK, p += PN_H1_BLOCK)
        block_sse42(p, stop++, control++);
    if (n > 0) {
        block_sse42(p + n - PN_H1_BLOCK, stop, control);
        *stop >>= PN_H1_BLOCK - n;
        *control >>= PN_H1_BLOCK - n;
    }
}

/* The classes of 32 bytes. */
static inline AVX2 __m256i classes_avx2(const char *p)
{
    const __m256i low = _mm256_setr_epi8(LOW_TABLE, LOW_TABLE);
    const __m256i high = _mm256_setr_epi8(HIGH_TABLE, HIGH_TABLE);
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i upper = _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(0x0f));
    return _mm256_and_si256(_mm256_shuffle_epi8(low, v), _mm256_shuffle_epi8(high, upper));
}

static inline AVX2 uint64_t none_avx2(__m256i cls)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_sub_epi8(cls, _mm256_set1_epi8(1)));
}

static inline AVX2 uint64_t control_avx2(__m256i cls)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_adds_epu8(cls, _mm256_set1_epi8(CONTROL_BIAS)));
}

static inline AVX2 void block_avx2(const char *p, uint64_t *stop, uint64_t *control)
{
    __m256i c0 = classes_avx2(p), c1 = classes_avx2(p + 32);
    uint64_t ctl = control_avx2(c0) | control_avx2(c1) << 32;
    *stop = none_avx2(c0) | none_avx2(c1) << 32 | ctl;
    *control = ctl;
}

static AVX2 void classify_avx2(const char *p, size_t n, uint64_t *stop, uint64_t *control)
{
    for (; n >= PN_H1_BLOCK; n -= PN_H1_BLOCK, p += PN_H1_BLOCK)
        block_avx2(p, stop++, control++);
    if (n > 0) {
        block_avx2(p + n - PN_H1_BLOCK, stop, control);
        *stop >>= PN_H1_BLOCK - n;
        *control >>= PN_H1_BLOCK - n;
    }
}

static const struct pn_h1_scan scan_sse42 = {"sse4.2", classify_sse42};
static const struct pn_h1_scan scan_avx2 = {"avx2", classify_avx2};

#endif

const struct pn_h1_scan *pn_h1_scan_for(enum pn_h1_isa isa)
{
#if PN__H1_VECTOR
    __builtin_cpu_init();
    if (isa == PN_H1_ISA_AVX2)
        return __builtin_cpu_supports("avx2") ? &scan_avx2 : NULL;
    if (isa == PN_H1_ISA_SSE42)
        return __builtin_cpu_supports("sse4.2") ? &scan_sse42 : NULL;
#endif
    return isa == PN_H1_ISA_PORTABLE ? &scan_portable : NULL;
}

const struct pn_h1_scan *pn_h1_scan_best(void)
{
    const struct pn_h1_scan *scan = NULL;
    for (int isa = PN_H1_ISA_COUNT - 1; isa >= 0 && !scan; isa--)
        scan = pn_h1_scan_for((enum pn_h1_isa)isa);
    return scan;
}
