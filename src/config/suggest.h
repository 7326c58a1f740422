/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean ...?": the known option name that is nearest to a mistyped one. Inside this room
 * only; runs on the way to an error, so that it may be slow, but never on unbounded input. */
#pragma once

#include "base/str.h"
#include "config/option.h"

/* Number of insertions, deletions, substitutions and swaps of neighbours between A and B, or
 * LIMIT + 1 when it is more than LIMIT (or either is longer than PN_CONFIG_NAME_MAX). */
unsigned pn__suggest_distance(struct pn_str a, struct pn_str b, unsigned limit);

/* The nearest name of TABLE to TYPED (a view into the table), or an empty view when none is near.
 * A row's .typos decide first; then the distance, options before refusals; then a prefix. */
struct pn_str pn__suggest_name(const struct pn_option_table *table, struct pn_str typed);

/* Cuts the next name off a list that has one space between names: false at the end. */
static inline bool pn__next_name(struct pn_str *rest, struct pn_str *name)
{
    if (rest->n == 0)
        return false;
    const char *space = memchr(rest->p, ' ', rest->n);
    size_t n = space ? (size_t)(space - rest->p) : rest->n;
    *name = (struct pn_str){rest->p, n};
    size_t used = space ? n + 1 : n;
    *rest = (struct pn_str){rest->p + used, rest->n - used};
    return true;
}
