/* SPDX-License-Identifier: Apache-2.0 */
/* An answer's head as text: status line, the application's fields, and the lines that the wire adds.
 * Fields are checked while they are copied, sixteen bytes at a time, since nothing that an
 * application hands over may split the answer (security.md, "Response and headers"). Pure functions. */
#include <emmintrin.h>
#include <errno.h>

#include "http/h1_names.h"
#include "http/h1_wire.h"
#include "http/http_status.h"
#include "http/http_token.h"

/* --- checked copies ----------------------------------------------------------------------------------- */

/* Nonzero when one of the eight bytes is below 0x20 or is 0x7f. */
static inline uint64_t odd8(uint64_t v)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    uint64_t del = v ^ ones * 0x7f;
    return (((v - ones * 0x20) & ~v) | ((del - ones) & ~del)) & tops;
}

static inline unsigned odd16(__m128i v)
{
    /* Biased by 0x80, signed comparison orders bytes as unsigned. */
    const __m128i bias = _mm_set1_epi8((char)0x80);
    __m128i low = _mm_cmplt_epi8(_mm_xor_si128(v, bias), _mm_set1_epi8((char)(0x20 ^ 0x80)));
    __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, del));
}

/* Copies N bytes; true when one of them is a control byte (HTAB too: the caller looks closer). */
static inline bool copy_odd(char *to, const char *from, size_t n)
{
    if (n >= 16) {
        unsigned odd = 0;
        size_t i = 0;
        do {
            __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
            _mm_storeu_si128((__m128i *)(void *)(to + i), v);
            odd |= odd16(v);
            i += 16;
        } while (i + 16 <= n);
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(from + n - 16));
        _mm_storeu_si128((__m128i *)(void *)(to + n - 16), v);
        return (odd | odd16(v)) != 0;
    }
    if (n >= 8) {
        uint64_t first, last;
        memcpy(&first, from, 8);
        memcpy(&last, from + n - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + n - 8, &last, 8);
        return (odd8(first) | odd8(last)) != 0;
    }
    uint64_t odd = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)from[i];
        to[i] = (char)b;
        odd |= b < 0x20 || b == 0x7f;
    }
    return odd != 0;
}

/* HTAB is the one control byte that a value may have. */
static PN_COLD bool only_tabs(struct pn_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '\t' && pn_http_is(s.p[i], PN_HTTP_C_CONTROL))
            return false;
    return true;
}

/* --- status line ------------------------------------------------------------------------------------------ */

#define OK_LINE "HTTP/1.1 200 OK\r\n"

static PN_COLD char *put_status_line(char *p, unsigned status, struct pn_str reason)
{
    if (reason.n == 0)
        reason = pn_http_status_reason((int)status);
    memcpy(p, "HTTP/1.1 ", 9);
    p[9] = (char)('0' + status / 100);
    p[10] = (char)('0' + status / 10 % 10);
    p[11] = (char)('0' + status % 10);
    p[12] = ' ';
    p += 13;
    if (reason.n && copy_odd(p, reason.p, reason.n) && !only_tabs(reason))
        return NULL;
    p += reason.n;
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

size_t pn__h1_head_bound(struct pn_str reason, const struct pn_field *fields, size_t count)
{
    size_t n = 64; /* the status line with the longest standard phrase */
    if (count > PN_RESPONSE_HEADERS_MAX || reason.n > PN_RESPONSE_HEAD_SIZE_MAX)
        return 0;
    n += reason.n;
    for (size_t i = 0; i < count; i++) {
        if (pn_unlikely(fields[i].name.n > PN_RESPONSE_HEAD_SIZE_MAX ||
                        fields[i].value.n > PN_RESPONSE_HEAD_SIZE_MAX))
            return 0;
        n += fields[i].name.n + fields[i].value.n + 4;
        if (pn_unlikely(n > PN_RESPONSE_HEAD_SIZE_MAX))
            return 0;
    }
    return n;
}

/* --- fields ----------------------------------------------------------------------------------------------- */

static int said_length(struct pn__h1_said *said, struct pn_str value)
{
    uint64_t length;
    if (pn_str_to_u64(pn_http_trim(value), INT64_MAX, &length) < 0)
        return -EINVAL;
    if (said->length >= 0 && said->length != (int64_t)length)
        return -EINVAL;
    said->length = (int64_t)length;
    return 0;
}

/* The fields that mean something to the wire. 1: it says this itself, the line is left out; 0; or
 * -EINVAL. */
static int notice(unsigned id, struct pn_str value, struct pn__h1_said *said)
{
    switch (id) {
    case PN_HEADER_CONTENT_LENGTH:
        return said_length(said, value) < 0 ? -EINVAL : 1;
    case PN_HEADER_TRANSFER_ENCODING:
        return -EINVAL;
    case PN_HEADER_CONNECTION:
        said->close |= pn_http_list_has(value, PN_STR("close"));
        return 1;
    case PN_HEADER_KEEP_ALIVE:
    case PN_HEADER_PROXY_CONNECTION:
        return 1;
    case PN_HEADER_DATE:
        said->date = true;
        return 0;
    case PN_HEADER_SERVER:
        said->server = true;
        return 0;
    case PN_HEADER_UPGRADE:
        said->upgrade = true;
        return 0;
    default:
        return 0;
    }
}

ptrdiff_t pn__h1_format_head(char *out, unsigned status, struct pn_str reason,
                             const struct pn_field *fields, size_t count, struct pn__h1_said *said)
{
    char *p = out;
    const int64_t known = said->length; /* the caller has read the field himself */
    *said = (struct pn__h1_said){.length = known};
    if (pn_likely(status == 200 && (reason.n == 0 || pn_str_eq(reason, PN_STR("OK"))))) {
        memcpy(p, OK_LINE, sizeof OK_LINE - 1);
        p += sizeof OK_LINE - 1;
    } else {
        p = put_status_line(p, status, reason);
        if (!p)
            return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        const struct pn_field *f = &fields[i];
        char *start = p;
        if (pn_unlikely(f->name.n == 0 || copy_odd(p, f->name.p, f->name.n)))
            return -EINVAL;
        p += f->name.n;
        /* Without control bytes, a name that is equal to a known one up to case is a token. */
        unsigned id = pn_header_id_of(f->name.p, f->name.n);
        if (id <= PN_HEADER_UNUSUAL && pn_unlikely(!pn_http_is_token(f->name)))
            return -EINVAL;
        if (id == PN_HEADER_CONTENT_LENGTH && known >= 0) {
            p = start; /* the wire writes that number; what the field says of it is not sent */
            continue;
        }
        *p++ = ':';
        *p++ = ' ';
        if (f->value.n && pn_unlikely(copy_odd(p, f->value.p, f->value.n)) && !only_tabs(f->value))
            return -EINVAL;
        p += f->value.n;
        *p++ = '\r';
        *p++ = '\n';
        int r = notice(id, f->value, said);
        if (pn_unlikely(r < 0))
            return r;
        if (r > 0)
            p = start;
    }
    return p - out;
}

/* Most answers are short. */
static inline size_t put_length(char *p, uint64_t n)
{
    if (n >= 1000)
        return pn_u64_format(n, p);
    unsigned v = (unsigned)n;
    size_t digits = 1 + (v >= 10) + (v >= 100);
    p[digits - 1] = (char)('0' + v % 10);
    if (digits > 1)
        p[digits - 2] = (char)('0' + v / 10 % 10);
    if (digits > 2)
        p[0] = (char)('0' + v / 100);
    return digits;
}

char *pn__h1_put_frame_lines(char *p, const struct pn__h1_exchange *hx, int64_t length,
                             bool chunked, bool close)
{
    if (length >= 0) {
        memcpy(p, "Content-Length: ", 16);
        p += 16 + put_length(p + 16, (uint64_t)length);
        *p++ = '\r';
        *p++ = '\n';
    } else if (chunked) {
        memcpy(p, "Transfer-Encoding: chunked\r\n", 28);
        p += 28;
    }
    /* An Upgrade field is hop-by-hop: Connection has to name it (RFC 9110 7.8). */
    if (pn_unlikely(hx->has_upgrade)) {
        memcpy(p, "Connection: upgrade\r\n", 21);
        p += 21;
    }
    if (close) {
        memcpy(p, "Connection: close\r\n", 19);
        p += 19;
    } else if (pn_unlikely(hx->x.version_minor == 0)) {
        memcpy(p, "Connection: keep-alive\r\n", 24);
        p += 24;
    }
    *p++ = '\r';
    *p++ = '\n';
    return p;
}
