/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of str.h that are too long to inline. */
#include "base/str.h"

#include <errno.h>

static inline unsigned char fold(unsigned char c)
{
    return (unsigned char)(c - 'A') < 26 ? (unsigned char)(c | 0x20) : c;
}

#define EACH_BYTE(c) (UINT64_C(0x0101010101010101) * (c))

/* fold of eight bytes at once. The sums don't carry from one byte into the next, since bit 7 is left
 * out of them; bit 7 of the result of a sum says "beyond". */
static inline uint64_t fold8(uint64_t w)
{
    uint64_t low = w & EACH_BYTE(0x7f);
    uint64_t from_a = low + EACH_BYTE(0x80 - 'A');
    uint64_t beyond_z = low + EACH_BYTE(0x7f - 'Z');
    uint64_t upper = (from_a ^ beyond_z) & ~w & EACH_BYTE(0x80);
    return w | upper >> 2;
}

static inline uint64_t load8(const char *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static inline uint64_t load4(const char *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* The first and last four of N bytes, 4 to 8: together they are all of them. */
static inline uint64_t ends(const char *p, size_t n)
{
    return load4(p) | load4(p + n - 4) << 32;
}

bool pn_str_eq_nocase(struct pn_str a, struct pn_str b)
{
    size_t n = a.n;
    if (n != b.n)
        return false;
    if (n < 4) {
        for (size_t i = 0; i < n; i++)
            if (fold((unsigned char)a.p[i]) != fold((unsigned char)b.p[i]))
                return false;
        return true;
    }
    if (n <= 8)
        return fold8(ends(a.p, n)) == fold8(ends(b.p, n));
    if (memcmp(a.p, b.p, n) == 0) /* most names are in one form everywhere */
        return true;
    for (size_t i = 0; i < n - 8; i += 8)
        if (fold8(load8(a.p + i)) != fold8(load8(b.p + i)))
            return false;
    return fold8(load8(a.p + n - 8)) == fold8(load8(b.p + n - 8));
}

int pn_str_to_u64(struct pn_str s, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    if (s.n == 0)
        return -EINVAL;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';
        if (digit > 9)
            return -EINVAL;
        if (value > (UINT64_MAX - digit) / 10)
            return -ERANGE;
        value = value * 10 + digit;
    }
    if (value > max)
        return -ERANGE;
    *out = value;
    return 0;
}

size_t pn_u64_format(uint64_t value, char *out)
{
    size_t digits = 1;
    for (uint64_t bound = 10; value >= bound; bound *= 10)
        if (++digits == 20) /* the next bound would not fit */
            break;
    for (size_t i = digits; i-- > 0; value /= 10)
        out[i] = (char)('0' + value % 10);
    return digits;
}
