/* SPDX-License-Identifier: Apache-2.0 */
/* Formatting of the request log. The date is made once a second; the target is copied sixteen bytes
 * at a time and only escaped byte by byte when something in it asks for that. */
#include "http/access_log.h"

#include <emmintrin.h>
#include <time.h>

void pn_access_log_init(struct pn_access_log *l, struct pn_log *log)
{
    *l = (struct pn_access_log){.log = log, .stamp_s = INT64_MIN};
}

static PN_COLD void make_stamp(struct pn_access_log *l, int64_t second)
{
    time_t t = (time_t)second;
    struct tm tm;
    localtime_r(&t, &tm);
    l->stamp_s = second;
    l->stamp_len = strftime(l->stamp, sizeof l->stamp, " [%Y-%m-%d %H:%M:%S %z] ", &tm);
}

static inline char *put(char *p, struct pn_str s)
{
    memcpy(p, s.p, s.n);
    return p + s.n;
}

/* Nonzero bits for the bytes of V that pn_log_escape would change. */
static inline unsigned odd16(__m128i v)
{
    /* As signed bytes, those from 0x80 on are below 0x20 as well. */
    __m128i odd = _mm_cmplt_epi8(v, _mm_set1_epi8(0x20));
    odd = _mm_or_si128(odd, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
    odd = _mm_or_si128(odd, _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
    odd = _mm_or_si128(odd, _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    return (unsigned)_mm_movemask_epi8(odd);
}

/* Copies N bytes and returns nonzero when pn_log_escape would change one. What remains of a step's size
 * is done once more from the end, so no byte is gone through by itself but in the shortest texts. */
static inline unsigned copy(char *p, const char *s, size_t n)
{
    unsigned odd = 0;
    if (n >= 16) {
        for (size_t i = 0;; i = pn_min_size(i + 16, n - 16)) {
            __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(s + i));
            _mm_storeu_si128((__m128i *)(void *)(p + i), v);
            odd |= odd16(v);
            if (i == n - 16)
                return odd;
        }
    }
    if (n >= 8) {
        __m128i v = _mm_loadl_epi64((const __m128i *)(const void *)s);
        __m128i w = _mm_loadl_epi64((const __m128i *)(const void *)(s + n - 8));
        _mm_storel_epi64((__m128i *)(void *)p, v);
        _mm_storel_epi64((__m128i *)(void *)(p + n - 8), w);
        return odd16(_mm_unpacklo_epi64(v, w));
    }
    if (n >= 4) {
        uint32_t v, w;
        memcpy(&v, s, 4);
        memcpy(&w, s + n - 4, 4);
        memcpy(p, &v, 4);
        memcpy(p + n - 4, &w, 4);
        return odd16(_mm_set1_epi64x((int64_t)((uint64_t)w << 32 | v)));
    }
    for (size_t i = 0; i < n; i++) {
        p[i] = s[i];
        odd |= s[i] < 0x20 || s[i] == 0x7f || s[i] == '"' || s[i] == '\\';
    }
    return odd;
}

/* Copies S escaped to P, at most MAX bytes, and returns the end. */
static char *put_escaped(char *p, struct pn_str s, size_t max)
{
    if (pn_likely(s.n <= max && !copy(p, s.p, s.n)))
        return p + s.n;
    return p + pn_log_escape(p, max, s);
}

static char *put_request_line(char *p, const struct pn_exchange *x)
{
    p = put_escaped(p, pn_exchange_text(x, x->method), 160);
    *p++ = ' ';
    p = put_escaped(p, pn_exchange_text(x, x->target), PN_ACCESS_TARGET_MAX);
    memcpy(p, " HTTP/1.1", 9);
    p[6] = (char)('0' + x->version_major % 10);
    p[8] = (char)('0' + x->version_minor % 10);
    return p + 9;
}

/* Milliseconds with three digits behind the point. */
static char *put_duration(char *p, int64_t ns)
{
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    unsigned rest = (unsigned)(us % 1000);
    p += pn_u64_format(us / 1000, p);
    p[0] = '.';
    p[1] = (char)('0' + rest / 100);
    p[2] = (char)('0' + rest / 10 % 10);
    p[3] = (char)('0' + rest % 10);
    memcpy(p + 4, "ms", 2);
    return p + 6;
}

size_t pn_access_log_format(struct pn_access_log *l, const struct pn_access *a,
                            char out[PN_ACCESS_LINE_MAX])
{
    const struct pn_peer *peer = a->peer;
    char *p = out;
    if (pn_unlikely(a->time_s != l->stamp_s))
        make_stamp(l, a->time_s);
    if (pn_likely(peer && peer->address_len > 0))
        p = put_escaped(p, (struct pn_str){peer->address, peer->address_len}, 256);
    else
        p = put(p, peer && peer->is_unix ? PN_STR("unix") : PN_STR("-"));
    p = put(p, (struct pn_str){l->stamp, l->stamp_len});
    *p++ = '"';
    if (pn_likely(a->x && a->x->method.len > 0))
        p = put_request_line(p, a->x);
    else
        *p++ = '-';
    *p++ = '"';
    *p++ = ' ';
    p += pn_u64_format(a->status, p);
    *p++ = ' ';
    p += pn_u64_format(a->sent_size, p);
    *p++ = ' ';
    p = put_duration(p, a->duration_ns);
    if (pn_unlikely(a->error != NULL)) {
        p = put(p, PN_STR(" error=\""));
        p = put_escaped(p, pn_str_of(a->error), 256);
        *p++ = '"';
    }
    *p++ = '\n';
    return (size_t)(p - out);
}

void pn_access_log_write(void *ctx, const struct pn_access *a)
{
    struct pn_access_log *l = ctx;
    char line[PN_ACCESS_LINE_MAX];
    pn_log_raw(l->log, line, pn_access_log_format(l, a, line));
}
