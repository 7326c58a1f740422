/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen bytes at a time: SSE2 is part of x86-64, and wider registers bring nothing where a payload
 * has just come out of the kernel's copy. */
#include "http/ws_mask.h"

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

void pn_ws_mask_copy(char *to, const char *from, size_t n, const uint8_t key[4], uint64_t offset)
{
    uint8_t turned[16];
    size_t i = 0;
    for (unsigned k = 0; k < sizeof turned; k++)
        turned[k] = key[(offset + k) & 3];
#if defined(__SSE2__)
    __m128i mask = _mm_loadu_si128((const __m128i *)(const void *)turned);
    for (; i + 16 <= n; i += 16) {
        __m128i block = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
        _mm_storeu_si128((__m128i *)(void *)(to + i), _mm_xor_si128(block, mask));
    }
#else
    uint64_t mask;
    memcpy(&mask, turned, sizeof mask);
    for (; i + 8 <= n; i += 8) {
        uint64_t block;
        memcpy(&block, from + i, sizeof block);
        block ^= mask;
        memcpy(to + i, &block, sizeof block);
    }
#endif
    for (; i < n; i++)
        to[i] = (char)(from[i] ^ turned[i & 15]);
}
