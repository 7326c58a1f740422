/* SPDX-License-Identifier: Apache-2.0 */
/* The table's own test: what a compiler cannot see about rows of constants. */
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "config/config.h"
#include "config/help.h"
#include "config/suggest.h"
#include "config/value.h"

/* How many rows answer to NAME, families excluded. */
static unsigned count_name(const struct pn_option_table *table, struct pn_str wanted)
{
    unsigned count = 0;
    struct pn_str name;
    for (size_t i = 0; i < table->option_count; i++) {
        struct pn_str rest = pn_str_of(table->options[i].aliases);
        count += pn_str_eq(pn_str_of(table->options[i].name), wanted);
        while (pn__next_name(&rest, &name))
            count += pn_str_eq(name, wanted);
    }
    for (const struct pn_option_refusal *r = table->refusals; r && r->names; r++) {
        struct pn_str rest = pn_str_of(r->names);
        while (pn__next_name(&rest, &name))
            count += pn_str_eq(name, wanted);
    }
    return count;
}

static unsigned count_letter(const struct pn_option_table *table, char letter)
{
    unsigned count = 0;
    for (size_t i = 0; i < table->option_count; i++)
        count += table->options[i].letter == letter;
    for (const struct pn_option_refusal *r = table->refusals; r && r->names; r++)
        count += r->letters && strchr(r->letters, letter);
    return count;
}

static int check_name(const struct pn_option_table *table, struct pn_str name,
                      struct pn_config_error *err)
{
    for (size_t i = 0; i < name.n; i++) {
        /* uWSGI has a few names with an underscore, and families end in a star. */
        bool good = (name.p[i] >= 'a' && name.p[i] <= 'z') || strchr("-_0123456789", name.p[i]) ||
                    (name.p[i] == '*' && i + 1 == name.n);
        if (!good)
            return pn_config_fail(err, "'%.*s' has a byte that no name has", PN_STR_ARGS(name));
    }
    if (name.n == 0 || name.n > PN_CONFIG_NAME_MAX)
        return pn_config_fail(err, "'%.*s' is empty or too long", PN_STR_ARGS(name));
    if (count_name(table, name) != 1)
        return pn_config_fail(err, "'%.*s' stands there more than once", PN_STR_ARGS(name));
    return 0;
}

static int check_names(const struct pn_option_table *table, const char *names,
                       struct pn_config_error *err)
{
    struct pn_str rest = pn_str_of(names);
    struct pn_str name;
    while (pn__next_name(&rest, &name)) {
        int rc = check_name(table, name, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_values(const struct pn_option *option, struct pn_config_error *err)
{
    char preset[PN__VALUE_TEXT_MAX];
    int64_t number = 0;
    bool ranged = option->type == PN_OPTION_INT || option->type == PN_OPTION_DURATION ||
                  option->type == PN_OPTION_SIZE || option->type == PN_OPTION_MODE;
    bool accepted = option->flags & PN_OPTION_ACCEPTED;
    if (ranged && option->min > option->max)
        return pn_config_fail(err, "'%s' has an empty range", option->name);
    if ((option->type == PN_OPTION_INT || option->type == PN_OPTION_MODE) &&
        (option->min < INT32_MIN || option->max > INT32_MAX))
        return pn_config_fail(err, "'%s' does not fit into an int", option->name);
    if (option->type == PN_OPTION_DURATION && option->unit == PN_UNIT_NONE)
        return pn_config_fail(err, "'%s' has no unit", option->name);
    if (option->type == PN_OPTION_CHOICE && !option->choices)
        return pn_config_fail(err, "'%s' has no choices", option->name);
    if (option->type == PN_OPTION_CUSTOM && !option->set && !accepted)
        return pn_config_fail(err, "'%s' has no setter", option->name);
    bool optional = option->flags & PN_OPTION_VALUE_OPTIONAL;
    if (optional != (option->implied != NULL))
        return pn_config_fail(err, "'%s': an implied value goes with an optional one",
                              option->name);
    if (optional && pn__value_parse(option, option->implied, &number) < 0)
        return pn_config_fail(err, "'%s' implies a bad value", option->name);
    /* The preset can be typed, and means itself. */
    pn__value_preset(option, preset, sizeof preset);
    if (preset[0] && (pn__value_parse(option, preset, &number) < 0 || number != option->preset))
        return pn_config_fail(err, "'%s' has the preset '%s', which is none of its values",
                              option->name, preset);
    return 0;
}

static int check_option(const struct pn_option_table *table, const struct pn_option *option,
                        struct pn_config_error *err)
{
    int rc = check_name(table, pn_str_of(option->name), err);
    if (rc == 0)
        rc = check_names(table, option->aliases, err);
    if (rc == 0)
        rc = check_values(option, err);
    if (rc < 0)
        return rc;
    if (option->group < 0 || (size_t)option->group >= table->group_count)
        return pn_config_fail(err, "'%s' is in no group", option->name);
    if (!option->help || !option->help[0])
        return pn_config_fail(err, "'%s' has no help", option->name);
    if ((option->type == PN_OPTION_FLAG) != (option->metavar == NULL))
        return pn_config_fail(err, "'%s': a metavar goes with a value", option->name);
    if (option->letter && count_letter(table, option->letter) != 1)
        return pn_config_fail(err, "'-%c' stands there more than once", option->letter);
    return 0;
}

static int check_refusal(const struct pn_option_table *table,
                         const struct pn_option_refusal *refusal, struct pn_config_error *err)
{
    int rc = check_names(table, refusal->names, err);
    if (rc == 0 && (!refusal->reason || !refusal->reason[0]))
        rc = pn_config_fail(err, "'%s' has no reason", refusal->names);
    for (const char *l = refusal->letters; rc == 0 && l && *l; l++) {
        if (count_letter(table, *l) != 1)
            rc = pn_config_fail(err, "'-%c' stands there more than once", *l);
    }
    return rc;
}

int pn_option_table_check(const struct pn_option_table *table, struct pn_config_error *err)
{
    int rc = 0;
    err->text[0] = '\0';
    for (size_t i = 0; rc == 0 && i < table->option_count; i++)
        rc = check_option(table, &table->options[i], err);
    for (const struct pn_option_refusal *r = table->refusals; r && r->names; r++) {
        if (rc == 0)
            rc = check_refusal(table, r, err);
    }
    return rc;
}
