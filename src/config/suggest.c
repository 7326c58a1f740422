/* SPDX-License-Identifier: Apache-2.0 */
/* Optimal string alignment distance over three rows; names are short and tables are small. */
#include "config/suggest.h"

#include "base/check.h"
#include "config/config.h"

enum {
    LIMIT_MAX = 3,  /* edits: more, and the guess is rather a joke */
    PREFIX_MIN = 3, /* letters from which on a beginning is worth completing */
};

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

unsigned pn__suggest_distance(struct pn_str a, struct pn_str b, unsigned limit)
{
    unsigned rows[3][PN_CONFIG_NAME_MAX + 1];
    unsigned *older = rows[0];
    unsigned *last = rows[1];
    unsigned *row = rows[2];
    size_t apart = a.n > b.n ? a.n - b.n : b.n - a.n;
    if (a.n > PN_CONFIG_NAME_MAX || b.n > PN_CONFIG_NAME_MAX || apart > limit)
        return limit + 1;
    for (unsigned j = 0; j <= b.n; j++)
        last[j] = older[j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned best = row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned change = last[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            row[j] = min3(last[j] + 1, row[j - 1] + 1, change);
            bool swapped = i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1];
            if (swapped && older[j - 2] + 1 < row[j])
                row[j] = older[j - 2] + 1;
            best = row[j] < best ? row[j] : best;
        }
        /* A row is never below the smallest of the two before it by more than a swap saves. */
        if (best > limit + 1)
            return limit + 1;
        unsigned *reused = older;
        older = last;
        last = row;
        row = reused;
    }
    return last[b.n] > limit ? limit + 1 : last[b.n];
}

struct nearest {
    struct pn_str typed;
    struct pn_str name;
    struct pn_str completed; /* the shortest name that begins with what was typed */
    bool has_completion;     /* and that is an option: refusals come after these */
    unsigned distance;
};

static void consider(struct nearest *nearest, struct pn_str name)
{
    if (name.n > 0 && name.p[name.n - 1] == '*')
        return;
    unsigned distance = pn__suggest_distance(nearest->typed, name, LIMIT_MAX);
    if (distance < nearest->distance) {
        nearest->distance = distance;
        nearest->name = name;
    }
    bool starts = nearest->typed.n >= PREFIX_MIN && pn_str_starts(name, nearest->typed);
    if (starts && !nearest->has_completion &&
        (nearest->completed.n == 0 || name.n < nearest->completed.n))
        nearest->completed = name;
}

static void consider_all(struct nearest *nearest, const char *names)
{
    struct pn_str rest = pn_str_of(names);
    struct pn_str name;
    while (pn__next_name(&rest, &name))
        consider(nearest, name);
}

static bool among(const char *names, struct pn_str wanted)
{
    struct pn_str rest = pn_str_of(names);
    struct pn_str name;
    while (pn__next_name(&rest, &name)) {
        if (pn_str_eq(name, wanted))
            return true;
    }
    return false;
}

struct pn_str pn__suggest_name(const struct pn_option_table *table, struct pn_str typed)
{
    struct nearest nearest = {.typed = typed, .distance = LIMIT_MAX + 1};
    if (typed.n == 0 || typed.n > PN_CONFIG_NAME_MAX)
        return PN_STR_NONE;
    for (size_t i = 0; i < table->option_count; i++) {
        const struct pn_option *option = &table->options[i];
        if (among(option->typos, typed))
            return pn_str_of(option->name);
        if (option->flags & PN_OPTION_HIDDEN)
            continue;
        consider(&nearest, pn_str_of(option->name));
        consider_all(&nearest, option->aliases);
    }
    nearest.has_completion = nearest.completed.n > 0;
    for (const struct pn_option_refusal *r = table->refusals; r && r->names; r++) {
        struct pn_str rest = pn_str_of(r->names);
        struct pn_str first;
        if (among(r->typos, typed) && pn__next_name(&rest, &first))
            return first;
        consider_all(&nearest, r->names);
    }
    /* Short words are near to everything: one edit in five letters, and never most of the word. */
    unsigned limit = 1 + (unsigned)(typed.n / 5);
    if (nearest.distance <= limit && nearest.distance < typed.n)
        return nearest.name;
    return nearest.completed;
}
