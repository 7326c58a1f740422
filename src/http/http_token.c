/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of http_token.h. */
#include "http/http_token.h"

bool pn_http_is_token(struct pn_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!pn_http_is(s.p[i], PN_HTTP_C_TOKEN))
            return false;
    return s.n > 0;
}

static inline bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

/* True when one of the eight bytes of W is below 0x20 or is 0x7f. HTAB counts too: the caller looks
 * at such words again byte by byte, they are rare. */
static inline bool word_has_control(uint64_t w)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t tops = ones * 0x80;
    uint64_t del = w ^ (ones * 0x7f);
    return (((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & tops;
}

bool pn_http_is_field_value(struct pn_str s)
{
    if (s.n == 0)
        return true;
    if (is_ows(s.p[0]) || is_ows(s.p[s.n - 1]))
        return false;
    for (size_t i = 0; i < s.n;) {
        uint64_t w;
        if (i + sizeof(w) <= s.n) {
            memcpy(&w, s.p + i, sizeof(w));
            if (!word_has_control(w)) {
                i += sizeof(w);
                continue;
            }
        }
        if (pn_http_is(s.p[i], PN_HTTP_C_CONTROL))
            return false;
        i++;
    }
    return true;
}

struct pn_str pn_http_trim(struct pn_str s)
{
    while (s.n > 0 && is_ows(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_ows(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Length of the first element of S with the whitespace around it: up to a comma or the end. */
static size_t element_len(struct pn_str s)
{
    bool quoted = false;
    size_t i = 0;
    for (; i < s.n; i++) {
        char c = s.p[i];
        if (c == '"')
            quoted = !quoted;
        else if (quoted && c == '\\' && i + 1 < s.n)
            i++;
        else if (c == ',' && !quoted)
            break;
    }
    return i;
}

bool pn_http_list_next(struct pn_http_list *list, struct pn_str *item)
{
    while (list->rest.n > 0) {
        size_t n = element_len(list->rest);
        *item = pn_http_trim((struct pn_str){list->rest.p, n});
        /* Past the comma too, when there is one. */
        n += n < list->rest.n;
        list->rest.p += n;
        list->rest.n -= n;
        if (item->n > 0)
            return true;
    }
    return false;
}

bool pn_http_list_has(struct pn_str value, struct pn_str token)
{
    struct pn_http_list list = {value};
    struct pn_str item;
    while (pn_http_list_next(&list, &item))
        if (pn_str_eq_nocase(item, token))
            return true;
    return false;
}
