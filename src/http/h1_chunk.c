/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of h1_chunk.h: one step a byte, but for data, which goes through as it lies. */
#include "http/h1_chunk.h"

#include <errno.h>

#include "base/check.h"
#include "http/http_token.h"

enum {
    SIZE_DIGITS_MAX = 15, /* below 2^60: sums of sizes cannot overflow either */
    NAME_TOO_LONG = PN_HEADER_NAME_MAX + 1,
};

enum state {
    ST_SIZE = 0,     /* digits of the size */
    ST_EXT_NAME = 1, /* behind ';': at least one tchar */
    ST_EXT_NAME_REST = 2,
    ST_EXT_VALUE = 3, /* behind '=' */
    ST_EXT_TOKEN = 4,
    ST_EXT_QUOTED = 5,  /* behind the opening quote */
    ST_EXT_ESCAPED = 6, /* behind a backslash in quotes */
    ST_EXT_CLOSED = 7,  /* behind the closing quote */
    ST_SIZE_LF = 8,     /* behind the CR of the size line */
    ST_DATA = 9,
    ST_DATA_CR = 10,
    ST_DATA_LF = 11,
    ST_TRAILER = 12, /* first byte of a trailer line, or of the empty line */
    ST_NAME = 13,
    ST_VALUE = 14,
    ST_VALUE_LF = 15, /* behind the CR of a trailer line */
    ST_END_LF = 16,   /* behind the CR of the empty line */
    ST_DONE = 17,
    ST_FAILED = 18, /* LEFT is the error, negated */
};

void pn_h1_chunk_init(struct pn_h1_chunk *chunk)
{
    *chunk = (struct pn_h1_chunk){.state = ST_SIZE};
}

bool pn_h1_chunk_in_trailers(const struct pn_h1_chunk *chunk)
{
    return chunk->state >= ST_TRAILER && chunk->state <= ST_END_LF;
}

/* A step returns the next state, or a PN_H1_E_*. */

static int step_size(struct pn_h1_chunk *chunk, char c)
{
    if (pn_http_is(c, PN_HTTP_C_HEX)) {
        if (chunk->digits++ == SIZE_DIGITS_MAX)
            return PN_H1_E_CHUNK_SIZE;
        chunk->left = chunk->left << 4 | pn_http_hex_value(c);
        return ST_SIZE;
    }
    if (chunk->digits > 0 && c == ';')
        return ST_EXT_NAME;
    return chunk->digits > 0 && c == '\r' ? ST_SIZE_LF : PN_H1_E_CHUNK_SIZE;
}

/* Between two extensions, or at the end of the line. */
static int step_ext_end(char c)
{
    return c == ';' ? ST_EXT_NAME : c == '\r' ? ST_SIZE_LF : PN_H1_E_CHUNK_EXT;
}

static int step_ext(struct pn_h1_chunk *chunk, char c)
{
    bool token = pn_http_is(c, PN_HTTP_C_TOKEN);
    if (chunk->ext_size++ == PN_HTTP_CHUNK_EXT_MAX)
        return PN_H1_E_CHUNK_EXT_SIZE;
    switch ((enum state)chunk->state) {
    case ST_EXT_NAME:
        return token ? ST_EXT_NAME_REST : PN_H1_E_CHUNK_EXT;
    case ST_EXT_NAME_REST:
        return token ? ST_EXT_NAME_REST : c == '=' ? ST_EXT_VALUE : step_ext_end(c);
    case ST_EXT_VALUE:
        return c == '"' ? ST_EXT_QUOTED : token ? ST_EXT_TOKEN : PN_H1_E_CHUNK_EXT;
    case ST_EXT_TOKEN:
        return token ? ST_EXT_TOKEN : step_ext_end(c);
    case ST_EXT_QUOTED:
        if (c == '"' || c == '\\')
            return c == '"' ? ST_EXT_CLOSED : ST_EXT_ESCAPED;
        return pn_http_is(c, PN_HTTP_C_QUOTED) ? ST_EXT_QUOTED : PN_H1_E_CHUNK_EXT;
    case ST_EXT_ESCAPED:
        return pn_http_is(c, PN_HTTP_C_CONTROL) ? PN_H1_E_CHUNK_EXT : ST_EXT_QUOTED;
    case ST_EXT_CLOSED:
        return step_ext_end(c);
    default:
        PN_WRONG("step_ext is for the states of extensions");
    }
}

/* The name is whole: may it stand in a trailer? */
static int step_name_end(const struct pn_h1_chunk *chunk)
{
    if (chunk->name_len == 0)
        return PN_H1_E_TRAILER;
    if (chunk->name_unusual || chunk->name_len == NAME_TOO_LONG)
        return ST_VALUE;
    enum pn_header_id id = pn_header_id_of(chunk->name, chunk->name_len);
    return pn_header_known[id].trailer_forbidden ? PN_H1_E_TRAILER_FORBIDDEN : ST_VALUE;
}

static int step_name(struct pn_h1_chunk *chunk, char c)
{
    if (c == ':')
        return step_name_end(chunk);
    if (!pn_http_is(c, PN_HTTP_C_TOKEN))
        return PN_H1_E_TRAILER;
    /* '_' for '-' reaches the same environ key, so the list of the forbidden is asked with '-'. */
    char plain = c == '_' ? '-' : c;
    chunk->name_unusual |= !pn_http_is(plain, PN_HTTP_C_PLAIN);
    if (chunk->name_len < PN_HEADER_NAME_MAX)
        chunk->name[chunk->name_len++] = plain;
    else
        chunk->name_len = NAME_TOO_LONG;
    return ST_NAME;
}

static int step_trailer(struct pn_h1_chunk *chunk, char c)
{
    if (chunk->trailer_size++ == PN_HTTP_TRAILERS_SIZE_MAX)
        return PN_H1_E_TRAILERS_SIZE;
    switch ((enum state)chunk->state) {
    case ST_TRAILER:
        if (c == '\r')
            return ST_END_LF;
        if (chunk->trailers++ == PN_HTTP_TRAILERS_MAX)
            return PN_H1_E_TRAILERS_SIZE;
        chunk->name_len = 0;
        chunk->name_unusual = false;
        return step_name(chunk, c);
    case ST_NAME:
        return step_name(chunk, c);
    case ST_VALUE:
        if (c == '\r')
            return ST_VALUE_LF;
        return pn_http_is(c, PN_HTTP_C_CONTROL) ? PN_H1_E_TRAILER : ST_VALUE;
    case ST_VALUE_LF:
        return c == '\n' ? ST_TRAILER : PN_H1_E_TRAILER;
    case ST_END_LF:
        return c == '\n' ? ST_DONE : PN_H1_E_TRAILER;
    default:
        PN_WRONG("step_trailer is for the states of trailers");
    }
}

static int step(struct pn_h1_chunk *chunk, char c)
{
    switch ((enum state)chunk->state) {
    case ST_SIZE:
        return step_size(chunk, c);
    case ST_SIZE_LF:
        if (c != '\n')
            return PN_H1_E_CHUNK_SIZE;
        chunk->digits = 0;
        return chunk->left > 0 ? ST_DATA : ST_TRAILER;
    case ST_DATA_CR:
        return c == '\r' ? ST_DATA_LF : PN_H1_E_CHUNK_END;
    case ST_DATA_LF:
        return c == '\n' ? ST_SIZE : PN_H1_E_CHUNK_END;
    case ST_DATA:
    case ST_DONE:
    case ST_FAILED:
        PN_WRONG("pn_h1_chunk_next keeps data and the ends for itself");
    default:
        return chunk->state < ST_SIZE_LF ? step_ext(chunk, c) : step_trailer(chunk, c);
    }
}

int pn_h1_chunk_next(struct pn_h1_chunk *chunk, const char *buf, size_t len, size_t *used,
                     struct pn_str *data)
{
    size_t i = 0;
    *used = 0;
    if (chunk->state == ST_FAILED)
        return -(int)chunk->left;
    while (i < len && chunk->state != ST_DONE) {
        if (chunk->state == ST_DATA) {
            size_t n = len - i < chunk->left ? len - i : (size_t)chunk->left;
            *data = (struct pn_str){buf + i, n};
            *used = i + n;
            chunk->left -= n;
            if (chunk->left == 0)
                chunk->state = ST_DATA_CR;
            return PN_H1_CHUNK_DATA;
        }
        int next = step(chunk, buf[i]);
        if (next < 0) {
            chunk->state = ST_FAILED;
            chunk->left = (uint64_t)-next;
            return next;
        }
        chunk->state = (uint8_t)next;
        i++;
    }
    *used = i;
    return chunk->state == ST_DONE ? PN_H1_CHUNK_END : PN_H1_CHUNK_MORE;
}

size_t pn_h1_chunk_head(uint64_t n, char out[PN_H1_CHUNK_HEAD_MAX])
{
    PN_ASSERT(n > 0);
    size_t digits = (size_t)(67 - __builtin_clzll(n | 1)) / 4;
    for (size_t i = digits; i-- > 0; n >>= 4)
        out[i] = "0123456789abcdef"[n & 15];
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return digits + 2;
}

/* Forbidden for a sender, whatever the case of the name. */
static bool trailer_name_ok(struct pn_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (!pn_http_is(name.p[i], PN_HTTP_C_PLAIN))
            return pn_http_is_token(name);
    return name.n > 0 && !pn_header_known[pn_header_id_of(name.p, name.n)].trailer_forbidden;
}

ptrdiff_t pn_h1_chunk_trailer(struct pn_str name, struct pn_str value, char *out, size_t cap)
{
    if (!trailer_name_ok(name) || !pn_http_is_field_value(value))
        return -EINVAL;
    if (cap < 4 || name.n > cap - 4 || value.n > cap - 4 - name.n)
        return -ENOSPC;
    memcpy(out, name.p, name.n);
    memcpy(out + name.n, ": ", 2);
    if (value.n > 0)
        memcpy(out + name.n + 2, value.p, value.n);
    memcpy(out + name.n + 2 + value.n, "\r\n", 2);
    return (ptrdiff_t)(name.n + value.n + 4);
}
