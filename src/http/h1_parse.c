/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes to offsets: the request line and the header lines. The scanner gives two bit masks for 64
 * bytes at a time; a cursor holds those of the block under way, and every step below is "the next
 * stop byte from here" or "the next control byte from here". What is common never leaves the straight
 * line; what is rare or wrong has its own cold function. What the lines mean together is decided in
 * h1_parse_facts.c. All state is on the stack of one call. */
#include "http/h1_parse.h"

#include "http/h1_parse_facts.h"
#include "http/h1_target.h"
#include "http/http_token.h"

/* Bytes classified at once: most heads are shorter, and of a pipelined batch not too much is
 * classified twice. */
enum { WINDOW_BLOCKS = 4, WINDOW_SIZE = WINDOW_BLOCKS * PN_H1_BLOCK };

struct cursor {
    const char *buf;
    size_t len;  /* never looks beyond */
    size_t base; /* offset of the window's first byte */
    const struct pn_h1_limits *limits;
    struct pn_h1_head *out;
    /* The maps of the window. In a window that reaches LEN the bits from LEN on are set, so that a
     * search ends there; behind a full one is a word of zeros, which makes a search go on. */
    uint64_t stop[WINDOW_BLOCKS + 1];
    uint64_t control[WINDOW_BLOCKS + 1];
};

/* Makes POS (<= len) the first byte of the window. */
static __attribute__((noinline)) void cursor_fill(struct cursor *c, size_t pos)
{
    void (*const classify)(const char *, size_t, uint64_t *, uint64_t *) =
        c->limits->scan->classify;
    size_t n = pn_min_size(c->len - pos, WINDOW_SIZE), last = n / PN_H1_BLOCK;
    c->base = pos;
    c->stop[last] = c->control[last] = 0;
    if (pn_likely(c->len >= PN_H1_BLOCK)) {
        if (n > 0)
            classify(c->buf + pos, n, c->stop, c->control);
    } else {
        char block[PN_H1_BLOCK] = {0};
        memcpy(block, c->buf + pos, n);
        classify(block, PN_H1_BLOCK, c->stop, c->control);
    }
    if (n < WINDOW_SIZE) {
        c->stop[last] |= ~UINT64_C(0) << n % PN_H1_BLOCK;
        c->control[last] |= ~UINT64_C(0) << n % PN_H1_BLOCK;
    }
}

/* The search in MAP (stop or control of C) behind the word of POS, or from POS on when that is past
 * the window. */
static __attribute__((noinline)) size_t next_in_later(struct cursor *c, const uint64_t *map,
                                                      size_t pos)
{
    size_t word = (pos - c->base) / PN_H1_BLOCK;
    if (word < WINDOW_BLOCKS)
        pos = c->base + ++word * PN_H1_BLOCK;
    for (;; word++, pos += PN_H1_BLOCK) {
        if (word >= WINDOW_BLOCKS) {
            cursor_fill(c, pos);
            word = 0;
        }
        if (map[word])
            return pos + (unsigned)__builtin_ctzll(map[word]);
    }
}

/* The first byte at or after POS that has its bit in MAP, or len. POS is in the window or less than a
 * block behind it, never before it: whoever wants to look back fills the window anew. Most searches end in the word of POS or the next one. */
static inline size_t next_in(struct cursor *c, const uint64_t *map, size_t pos)
{
    size_t at = pos - c->base, word = at / PN_H1_BLOCK;
    uint64_t bits = map[word] >> at % PN_H1_BLOCK;
    if (pn_likely(bits))
        return pos + (unsigned)__builtin_ctzll(bits);
    if (word < WINDOW_BLOCKS && map[word + 1])
        return c->base + (word + 1) * PN_H1_BLOCK + (unsigned)__builtin_ctzll(map[word + 1]);
    return next_in_later(c, map, pos);
}

static inline size_t next_stop(struct cursor *c, size_t pos)
{
    return next_in(c, c->stop, pos);
}

static inline size_t next_control(struct cursor *c, size_t pos)
{
    return next_in(c, c->control, pos);
}

static inline struct pn_span span_of(size_t off, size_t len)
{
    return (struct pn_span){(uint32_t)off, (uint32_t)len};
}

/* Each step below takes the position where it begins and returns the position behind it (more than 0),
 * PN_H1_INCOMPLETE or a PN_H1_E_*. Where an incomplete line can already be refused, it is refused for
 * the same reason as the complete one would be: sizes are checked before what lies beyond them. */

/* What is wrong, or missing, where CR LF should stand at POS. CONTROL is the error for other bytes. */
static PN_COLD int not_line_end(const struct cursor *c, size_t pos, int control)
{
    if (pos >= c->len)
        return PN_H1_INCOMPLETE;
    if (c->buf[pos] == '\n')
        return PN_H1_E_BARE_LF;
    if (c->buf[pos] != '\r')
        return control;
    return pos + 1 >= c->len ? PN_H1_INCOMPLETE : PN_H1_E_BARE_CR;
}

static inline bool is_line_end(const struct cursor *c, size_t pos)
{
    return pos + 1 < c->len && memcmp(c->buf + pos, "\r\n", 2) == 0;
}

/* --- the request line --- */

/* The empty lines that some clients send after a body; *POS goes behind them. 0 or an error. */
static PN_COLD int skip_empty_lines(const struct cursor *c, size_t *pos)
{
    size_t p = 0;
    for (unsigned lines = 0; p < c->len && (c->buf[p] == '\r' || c->buf[p] == '\n'); lines++) {
        if (lines == PN_HTTP_LEADING_CRLF_MAX)
            return PN_H1_E_EMPTY_LINES;
        if (!is_line_end(c, p)) {
            *pos = c->len;
            return not_line_end(c, p, PN_H1_E_METHOD);
        }
        p += 2;
    }
    *pos = p;
    return 0;
}

static enum pn_h1_method method_of(const char *p, size_t n)
{
    static const struct {
        char text[8];
        uint8_t len;
        uint8_t id;
    } methods[] = {
        {"GET", 3, PN_H1_METHOD_GET},         {"POST", 4, PN_H1_METHOD_POST},
        {"HEAD", 4, PN_H1_METHOD_HEAD},       {"PUT", 3, PN_H1_METHOD_PUT},
        {"DELETE", 6, PN_H1_METHOD_DELETE},   {"PATCH", 5, PN_H1_METHOD_PATCH},
        {"OPTIONS", 7, PN_H1_METHOD_OPTIONS}, {"TRACE", 5, PN_H1_METHOD_TRACE},
    };
    for (size_t i = 0; i < PN_ARRAY_LEN(methods); i++)
        if (methods[i].len == n && memcmp(methods[i].text, p, n) == 0)
            return (enum pn_h1_method)methods[i].id;
    return PN_H1_METHOD_OTHER;
}

/* The method and its space. */
static inline ptrdiff_t parse_method(struct cursor *c, size_t start)
{
    if (pn_likely(c->len - start >= 4 && memcmp(c->buf + start, "GET ", 4) == 0)) {
        c->out->method = span_of(start, 3);
        c->out->method_id = PN_H1_METHOD_GET;
        return (ptrdiff_t)start + 4;
    }
    size_t end = next_stop(c, start);
    while (end < c->len && pn_http_is(c->buf[end], PN_HTTP_C_TOKEN) &&
           end - start <= PN_H1_METHOD_MAX)
        end = next_stop(c, end + 1);
    size_t n = end - start;
    if (n > PN_H1_METHOD_MAX)
        return PN_H1_E_METHOD_SIZE;
    if (end >= c->len)
        return PN_H1_INCOMPLETE;
    if (c->buf[end] != ' ' || n == 0)
        return PN_H1_E_METHOD;
    c->out->method = span_of(start, n);
    c->out->method_id = method_of(c->buf + start, n);
    if (n == 7 && memcmp(c->buf + start, "CONNECT", 7) == 0)
        return PN_H1_E_CONNECT;
    return (ptrdiff_t)end + 1;
}

/* Checks the escape at P as far as it is there. 0 or an error. */
static int check_escape(const struct cursor *c, size_t p)
{
    for (size_t i = p + 1; i < p + 3; i++) {
        if (i >= c->len)
            return 0; /* the search for the target's end finds that it is not there */
        if (!pn_http_is(c->buf[i], PN_HTTP_C_HEX))
            return PN_H1_E_TARGET_ESCAPE;
    }
    return c->buf[p + 1] == '0' && c->buf[p + 2] == '0' ? PN_H1_E_TARGET_ESCAPE : 0;
}

/* A byte of a target that does not pass by itself. 0 or an error. */
static int check_target_byte(const struct cursor *c, size_t p, bool in_query)
{
    switch (c->buf[p]) {
    case '?':
        return 0;
    case '%':
        return in_query ? 0 : check_escape(c, p);
    case '#':
        return PN_H1_E_TARGET_FRAGMENT;
    case '\r':
        return PN_H1_E_REQUEST_LINE;
    case '\n':
        return PN_H1_E_BARE_LF;
    default:
        return PN_H1_E_TARGET_CONTROL;
    }
}

/* Path and query, to the space behind the target. */
static inline __attribute__((always_inline)) ptrdiff_t parse_path(struct cursor *c, size_t path)
{
    struct pn_h1_head *out = c->out;
    const size_t target = out->target.off;
    size_t query = 0; /* where it begins */
    size_t p = path + (c->buf[path] == '/');
    for (;; p++) {
        p = next_stop(c, p);
        if (pn_unlikely(p - target > c->limits->target_max))
            return PN_H1_E_TARGET_SIZE;
        if (pn_unlikely(p >= c->len))
            return PN_H1_INCOMPLETE;
        char ch = c->buf[p];
        if (ch == ' ')
            break;
        if (pn_likely(pn_http_is(ch, PN_HTTP_C_TARGET)))
            continue;
        int err = check_target_byte(c, p, query != 0);
        if (err)
            return err;
        if (ch == '?' && !query)
            query = p + 1;
        out->path_escaped |= ch == '%' && !query;
    }
    out->path = span_of(path, (query ? query - 1 : p) - path);
    out->query = query ? span_of(query, p - query) : span_of(p, 0);
    out->has_query = query != 0;
    return (ptrdiff_t)p;
}

/* Scheme and authority of the absolute target between START and END, to its path. */
static ptrdiff_t parse_authority(struct cursor *c, size_t start, size_t end)
{
    struct pn_str s = {c->buf + start, end - start};
    size_t scheme = 0;
    if (s.n >= 7 && pn_str_eq_nocase((struct pn_str){s.p, 7}, PN_STR("http://")))
        scheme = 7;
    else if (s.n >= 8 && pn_str_eq_nocase((struct pn_str){s.p, 8}, PN_STR("https://")))
        scheme = 8;
    if (!scheme)
        return PN_H1_E_TARGET_FORM;
    size_t host = start + scheme, p = host;
    while (p < end && c->buf[p] != '/' && c->buf[p] != '?' && c->buf[p] != '#')
        p++;
    struct pn_span authority = span_of(host, p - host);
    if (authority.len == 0 || !pn_h1_host_valid(pn_h1_span_str(c->buf, authority)))
        return PN_H1_E_TARGET_AUTHORITY;
    c->out->form = PN_H1_FORM_ABSOLUTE;
    c->out->https = scheme == 8;
    c->out->authority = authority;
    return (ptrdiff_t)p;
}

/* Any target that does not begin with a slash. It is found whole first, then looked at. */
static PN_COLD ptrdiff_t parse_other_target(struct cursor *c, size_t start)
{
    size_t p = start;
    for (;; p++) {
        p = next_stop(c, p);
        if (p - start > c->limits->target_max)
            return PN_H1_E_TARGET_SIZE;
        if (p >= c->len)
            return PN_H1_INCOMPLETE;
        if (c->buf[p] == ' ')
            break;
        int err = pn_http_is(c->buf[p], PN_HTTP_C_TARGET) ? 0 : check_target_byte(c, p, true);
        if (err)
            return err;
    }
    if (p == start)
        return PN_H1_E_REQUEST_LINE;
    if (p - start == 1 && c->buf[start] == '*') {
        if (c->out->method_id != PN_H1_METHOD_OPTIONS)
            return PN_H1_E_TARGET_ASTERISK;
        c->out->form = PN_H1_FORM_ASTERISK;
        c->out->path = span_of(start, 1);
        c->out->query = span_of(p, 0);
        return (ptrdiff_t)p;
    }
    ptrdiff_t path = parse_authority(c, start, p);
    if (path <= 0)
        return path;
    cursor_fill(c, (size_t)path); /* the search may have left it behind the window */
    return parse_path(c, (size_t)path);
}

/* The version that is not simply HTTP/1.1 or HTTP/1.0, or not all there. */
static PN_COLD ptrdiff_t parse_odd_version(struct cursor *c, size_t start)
{
    static const char pattern[] = "HTTP/d.d";
    const size_t end = start + sizeof(pattern) - 1;
    for (size_t p = start; p < end; p++) {
        char want = pattern[p - start];
        if (p >= c->len)
            return PN_H1_INCOMPLETE;
        if (want == 'd' ? !pn_http_is(c->buf[p], PN_HTTP_C_DIGIT) : c->buf[p] != want)
            return c->buf[p] == '\n' ? PN_H1_E_BARE_LF : PN_H1_E_VERSION;
    }
    if (!is_line_end(c, end))
        return not_line_end(c, end, PN_H1_E_VERSION);
    if (c->buf[start + 5] != '1')
        return PN_H1_E_VERSION_MAJOR;
    c->out->minor = c->buf[start + 7] > '0';
    return (ptrdiff_t)end + 2;
}

static inline ptrdiff_t parse_version(struct cursor *c, size_t start)
{
    const char *p = c->buf + start;
    if (pn_likely(c->len - start >= 10 && memcmp(p, "HTTP/1.", 7) == 0 && (p[7] & ~1) == '0' &&
                  memcmp(p + 8, "\r\n", 2) == 0)) {
        c->out->minor = p[7] & 1;
        return (ptrdiff_t)start + 10;
    }
    return parse_odd_version(c, start);
}

static inline ptrdiff_t parse_request_line(struct cursor *c, size_t start)
{
    ptrdiff_t rc = parse_method(c, start);
    if (pn_unlikely(rc <= 0))
        return rc;
    size_t target = (size_t)rc;
    if (pn_unlikely(target >= c->len))
        return PN_H1_INCOMPLETE;
    c->out->target.off = (uint32_t)target;
    rc = pn_likely(c->buf[target] == '/') ? parse_path(c, target) : parse_other_target(c, target);
    if (pn_unlikely(rc <= 0))
        return rc;
    c->out->target.len = (uint32_t)((size_t)rc - target);
    return parse_version(c, (size_t)rc + 1);
}

/* --- the header lines --- */

/* The line at START does not begin with "name:" of plain characters: P is its first stop byte. Returns
 * the colon behind an unusual name, incomplete, or an error. */
static PN_COLD ptrdiff_t parse_odd_line(struct cursor *c, size_t start, size_t p)
{
    if (start < c->len && c->buf[start] == '\r')
        return not_line_end(c, start, PN_H1_E_NAME);
    while (p < c->len && p - start <= c->limits->line_max && pn_http_is(c->buf[p], PN_HTTP_C_TOKEN))
        p = next_stop(c, p + 1);
    if (p - start > c->limits->line_max)
        return PN_H1_E_LINE_SIZE;
    if (p >= c->len)
        return PN_H1_INCOMPLETE;
    switch (c->buf[p]) {
    case ':':
        return p > start ? (ptrdiff_t)p : PN_H1_E_NAME_EMPTY;
    case ' ':
    case '\t':
        return p > start ? PN_H1_E_NAME_SPACE : PN_H1_E_FOLD;
    case '\n':
        return PN_H1_E_BARE_LF;
    default:
        return PN_H1_E_NAME;
    }
}

/* The id of a name that is too short or too long for the straight way, or an error. */
static PN_COLD int odd_name_id(const char *name, size_t n)
{
    if (n == 0)
        return PN_H1_E_NAME_EMPTY;
    for (size_t i = 0; i < n; i++)
        if (!pn_http_is(name[i], PN_HTTP_C_PLAIN))
            return n > UINT16_MAX ? PN_H1_E_LINE_SIZE : PN_HEADER_UNUSUAL;
    if (n > PN_HEADER_NAME_MAX)
        return n > UINT16_MAX ? PN_H1_E_LINE_SIZE : PN_HEADER_OTHER;
    return (ptrdiff_t)pn_header_id_of(name, n);
}

/* Sets the value of H to what lies between the colon before FROM and the CR at END, without the
 * whitespace at its ends. */
static PN_COLD void trim_value(struct pn_header *h, const char *buf, size_t from, size_t end)
{
    while (buf[from] == ' ' || buf[from] == '\t')
        from++;
    while (end > from && (buf[end - 1] == ' ' || buf[end - 1] == '\t'))
        end--;
    h->value_off = (uint32_t)from;
    h->value_len = (uint32_t)(end - from);
}

static inline void set_value(struct pn_header *h, const char *buf, size_t from, size_t end)
{
    /* One space before it, none behind. Below '!' a line has space and tab only, and the CR. */
    if (pn_likely(buf[from] == ' ' && (unsigned char)buf[from + 1] > ' ' &&
                  (unsigned char)buf[end - 1] > ' ')) {
        h->value_off = (uint32_t)(from + 1);
        h->value_len = (uint32_t)(end - from - 1);
    } else {
        trim_value(h, buf, from, end);
    }
}

/* True for most of all hosts, digits or letters and dots and a port of one to four digits, where the
 * stop bits say nearly everything. Otherwise pn_h1_host_valid has to look. */
static inline bool is_plain_host(const struct cursor *c, const struct pn_header *h)
{
    size_t at = h->value_off - c->base;
    if (h->value_off < c->base || at / PN_H1_BLOCK >= WINDOW_BLOCKS)
        return false;
    uint64_t bits = c->stop[at / PN_H1_BLOCK] >> at % PN_H1_BLOCK;
    const char *host = c->buf + h->value_off;
    for (; bits; bits &= bits - 1) {
        size_t i = (unsigned)__builtin_ctzll(bits);
        if (i == h->value_len)
            return i > 0;
        if (host[i] == '.')
            continue;
        if (host[i] != ':' || i == 0 || h->value_len - i - 2 > 3)
            return false;
        while (++i < h->value_len)
            if ((unsigned)(host[i] - '0') > 9)
                return false;
        return true;
    }
    return false;
}

/* True for the one value of Connection that many a client sends: "keep-alive", in any case. A value has
 * no control characters, so setting bit 5 is lower-casing here, too. */
static inline bool is_keep_alive(const char *buf, const struct pn_header *h)
{
    static const char text[] = "keep-alive";
    const char *p = buf + h->value_off;
    return h->value_len == sizeof(text) - 1 &&
           (pn__h1_load8(p) | PN__H1_LOWER8) == pn__h1_load8(text) &&
           (pn__h1_load8(p + 2) | PN__H1_LOWER8) == pn__h1_load8(&text[2]);
}

/* What H means for the framing, host or persistence. 0 or an error. */
static inline int note_fact(struct cursor *c, const struct pn_header *h, unsigned *facts)
{
    if (h->id == PN_HEADER_HOST && !(*facts & PN__H1_FACT_HOST) && is_plain_host(c, h)) {
        *facts |= PN__H1_FACT_HOST;
        if (pn_likely(c->out->form != PN_H1_FORM_ABSOLUTE))
            c->out->authority = (struct pn_span){h->value_off, h->value_len};
        return 0;
    }
    if (h->id == PN_HEADER_CONNECTION && is_keep_alive(c->buf, h)) {
        *facts |= PN__H1_FACT_KEEP_ALIVE;
        return 0;
    }
    return pn__h1_facts_add(facts, c->buf, h, c->out);
}

/* All lines from START on, and the empty line behind them. */
static inline ptrdiff_t parse_headers(struct cursor *c, size_t start, unsigned *facts)
{
    struct pn_h1_head *out = c->out;
    const char *buf = c->buf;
    const size_t line_max = c->limits->line_max;
    struct pn_header *h = out->headers;
    const struct pn_header *full = h + pn_min_size(out->headers_cap, c->limits->headers_max);

    for (;; h++) {
        size_t colon = next_stop(c, start);
        size_t lookup_len = colon - start;
        if (pn_unlikely(colon >= c->len || buf[colon] != ':')) {
            if (is_line_end(c, start)) {
                out->headers_count = (uint32_t)(h - out->headers);
                return (ptrdiff_t)start + 2;
            }
            ptrdiff_t rc = parse_odd_line(c, start, colon);
            if (rc <= 0)
                return rc;
            colon = (size_t)rc;
            lookup_len = 0; /* not the straight way */
        }
        size_t end = next_control(c, colon + 1);
        if (pn_unlikely(end - start > line_max))
            return PN_H1_E_LINE_SIZE;
        if (pn_unlikely(!is_line_end(c, end)))
            return not_line_end(c, end, PN_H1_E_VALUE_CONTROL);
        if (pn_unlikely(h == full))
            return PN_H1_E_HEADERS_COUNT;

        h->name_off = (uint32_t)start;
        h->name_len = (uint16_t)(colon - start);
        set_value(h, buf, colon + 1, end);
        int id = pn_likely(lookup_len - 4 <= PN_HEADER_NAME_MAX - 4)
                     ? (int)pn__h1_name_id(buf + start, lookup_len)
                     : odd_name_id(buf + start, colon - start);
        h->id = (uint16_t)id;
        if ((unsigned)id - PN_HEADER_SPECIAL_FIRST <=
            PN_HEADER_SPECIAL_LAST - PN_HEADER_SPECIAL_FIRST)
            id = note_fact(c, h, facts);
        if (pn_unlikely(id < 0))
            return id;
        start = end + 2;
    }
}

/* --- the whole --- */

/* True when the bytes from SCANNED on can have made the head complete, or wrong: an empty line, or a
 * control byte that is not part of a CR LF. */
static PN_COLD bool worth_parsing(struct cursor *c, size_t scanned)
{
    size_t p = scanned > 3 ? scanned - 3 : 0;
    cursor_fill(c, p);
    for (;; p++) {
        p = next_control(c, p);
        if (p >= c->len)
            return false;
        if (c->buf[p] == '\r') {
            if (p + 1 < c->len && c->buf[p + 1] != '\n')
                return true;
        } else if (c->buf[p] != '\n' || p == 0 || c->buf[p - 1] != '\r') {
            return true;
        } else if (p == 1 || c->buf[p - 2] == '\n') {
            return true;
        }
    }
}

int pn_h1_parse_head(const char *buf, size_t len, size_t scanned, const struct pn_h1_limits *limits,
                     struct pn_h1_head *out)
{
    const bool too_long = len > limits->head_max;
    struct cursor c; /* the maps are not set to anything before they are filled */
    unsigned facts = 0;
    size_t start = 0;
    ptrdiff_t rc;

    c.buf = buf;
    c.len = too_long ? limits->head_max : len;
    c.limits = limits;
    c.out = out;
    if (scanned > 0 && scanned <= len && !too_long && !worth_parsing(&c, scanned))
        return PN_H1_INCOMPLETE;

    *out = (struct pn_h1_head){
        .headers = out->headers, .headers_cap = out->headers_cap, .content_length = -1};
    if (pn_unlikely(c.len == 0 || (unsigned char)buf[0] < ' ')) {
        int err = skip_empty_lines(&c, &start);
        if (err)
            return err;
    }
    cursor_fill(&c, start);
    rc = parse_request_line(&c, start);
    if (pn_likely(rc > 0))
        rc = parse_headers(&c, (size_t)rc, &facts);
    if (pn_unlikely(rc <= 0))
        return rc == PN_H1_INCOMPLETE && too_long ? PN_H1_E_HEAD_SIZE : (int)rc;
    int err = pn__h1_facts_conclude(facts, out);
    return pn_likely(err == 0) ? (int)rc : err;
}

void pn_h1_limits_init(struct pn_h1_limits *limits)
{
    *limits = (struct pn_h1_limits){
        .scan = pn_h1_scan_best(),
        .head_max = PN_HTTP_HEAD_SIZE_DEFAULT,
        .target_max = PN_HTTP_TARGET_SIZE_DEFAULT,
        .line_max = PN_HTTP_LINE_SIZE_DEFAULT,
        .headers_max = PN_HTTP_HEADERS_DEFAULT,
    };
}
