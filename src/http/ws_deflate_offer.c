/* SPDX-License-Identifier: Apache-2.0 */
/* The negotiation of permessage-deflate (RFC 7692 5.1 and 7.1): a client's header has one offer or
 * more, in its order of preference; an offer with a parameter that is unknown, repeated or out of
 * range is passed over, and the next one is looked at. */
#include "base/bounds.h"
#include "http/http_token.h"
#include "http/ws_deflate.h"

enum { BITS_MIN = 8, BITS_OUT_MIN = PN_WS_WINDOW_BITS_MIN, BITS_MAX = PN_WS_WINDOW_BITS_MAX };

enum param {
    SERVER_NO_CONTEXT_TAKEOVER = 0,
    CLIENT_NO_CONTEXT_TAKEOVER = 1,
    SERVER_MAX_WINDOW_BITS = 2,
    CLIENT_MAX_WINDOW_BITS = 3,
    PARAM_COUNT = 4,
};

static const struct pn_str names[PARAM_COUNT] = {
    [SERVER_NO_CONTEXT_TAKEOVER] = {"server_no_context_takeover", 26},
    [CLIENT_NO_CONTEXT_TAKEOVER] = {"client_no_context_takeover", 26},
    [SERVER_MAX_WINDOW_BITS] = {"server_max_window_bits", 22},
    [CLIENT_MAX_WINDOW_BITS] = {"client_max_window_bits", 22},
};

struct offer {
    bool given[PARAM_COUNT];
    uint8_t bits[PARAM_COUNT]; /* 0: no value */
};

/* Takes what stands before the next ';' off *REST. */
static struct pn_str next_part(struct pn_str *rest)
{
    const char *semicolon = rest->n ? memchr(rest->p, ';', rest->n) : NULL;
    size_t n = semicolon ? (size_t)(semicolon - rest->p) : rest->n;
    struct pn_str part = {rest->p, n};
    size_t used = n + (semicolon != NULL);
    rest->p += used;
    rest->n -= used;
    return pn_http_trim(part);
}

/* 8 to 15, without a leading zero (RFC 7692 7.1.2.1), perhaps in quotes; 0: it is not. */
static uint8_t window_bits(struct pn_str value)
{
    uint64_t bits;
    if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"')
        value = (struct pn_str){value.p + 1, value.n - 2};
    if (value.n == 0 || value.p[0] == '0' || pn_str_to_u64(value, BITS_MAX, &bits) < 0)
        return 0;
    return bits < BITS_MIN ? 0 : (uint8_t)bits;
}

static bool read_param(struct pn_str part, struct offer *offer)
{
    const char *equals = part.n ? memchr(part.p, '=', part.n) : NULL;
    struct pn_str name = part, value = PN_STR_NONE;
    if (equals) {
        name = pn_http_trim((struct pn_str){part.p, (size_t)(equals - part.p)});
        value = pn_http_trim((struct pn_str){equals + 1, part.n - (size_t)(equals - part.p) - 1});
    }
    for (unsigned i = 0; i < PARAM_COUNT; i++) {
        if (!pn_str_eq_nocase(name, names[i]))
            continue;
        bool is_flag = i < SERVER_MAX_WINDOW_BITS;
        if (offer->given[i] || (is_flag && equals) || (i == SERVER_MAX_WINDOW_BITS && !equals))
            return false;
        offer->given[i] = true;
        offer->bits[i] = equals ? window_bits(value) : 0;
        return !equals || offer->bits[i] != 0;
    }
    return false;
}

static bool read_offer(struct pn_str item, struct offer *offer)
{
    *offer = (struct offer){0};
    if (!pn_str_eq_nocase(next_part(&item), PN_STR("permessage-deflate")))
        return false;
    while (item.n) {
        if (!read_param(next_part(&item), offer))
            return false;
    }
    return true;
}

static bool agree(const struct offer *offer, const struct pn_ws_deflate_policy *policy,
                  struct pn_ws_deflate_params *out)
{
    uint8_t max = policy->window_bits_max;
    uint8_t server = offer->bits[SERVER_MAX_WINDOW_BITS];
    uint8_t client = offer->bits[CLIENT_MAX_WINDOW_BITS];
    if (server && server < BITS_OUT_MIN)
        return false;
    out->server_max_window_bits = server && server < max ? server : max;
    /* A client that doesn't name the parameter cannot be held to less than the whole window. */
    out->client_max_window_bits = BITS_MAX;
    if (offer->given[CLIENT_MAX_WINDOW_BITS])
        out->client_max_window_bits = client && client < max ? client : max;
    out->server_no_context_takeover =
        policy->no_context_takeover || offer->given[SERVER_NO_CONTEXT_TAKEOVER];
    out->client_no_context_takeover =
        policy->no_context_takeover || offer->given[CLIENT_NO_CONTEXT_TAKEOVER];
    return true;
}

static char *put(char *to, struct pn_str s)
{
    memcpy(to, s.p, s.n);
    return to + s.n;
}

static char *put_bits(char *to, enum param param, unsigned bits)
{
    to = put(put(to, PN_STR("; ")), names[param]);
    *to++ = '=';
    return to + pn_u64_format(bits, to);
}

static size_t put_answer(const struct offer *offer, const struct pn_ws_deflate_params *params,
                         char *answer)
{
    char *to = put(answer, PN_STR("permessage-deflate"));
    if (params->server_no_context_takeover)
        to = put(put(to, PN_STR("; ")), names[SERVER_NO_CONTEXT_TAKEOVER]);
    if (params->client_no_context_takeover)
        to = put(put(to, PN_STR("; ")), names[CLIENT_NO_CONTEXT_TAKEOVER]);
    if (offer->given[SERVER_MAX_WINDOW_BITS] || params->server_max_window_bits < BITS_MAX)
        to = put_bits(to, SERVER_MAX_WINDOW_BITS, params->server_max_window_bits);
    if (offer->given[CLIENT_MAX_WINDOW_BITS] && params->client_max_window_bits < BITS_MAX)
        to = put_bits(to, CLIENT_MAX_WINDOW_BITS, params->client_max_window_bits);
    return (size_t)(to - answer);
}

bool pn_ws_deflate_negotiate(struct pn_str offers, const struct pn_ws_deflate_policy *policy,
                             struct pn_ws_deflate_params *out,
                             char answer[PN_WS_DEFLATE_ANSWER_MAX], size_t *answer_size)
{
    struct pn_http_list list = {offers};
    struct pn_str item;
    struct offer offer;
    while (pn_http_list_next(&list, &item)) {
        if (read_offer(item, &offer) && agree(&offer, policy, out)) {
            *answer_size = put_answer(&offer, out, answer);
            return true;
        }
    }
    return false;
}
