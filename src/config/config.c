/* SPDX-License-Identifier: Apache-2.0 */
/* The parser of command lines. Options are looked up by walking the table: it is read once, at
 * start, and a table that stays plain data is worth more than a fast one. */
#include "config/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/suggest.h"
#include "config/value.h"

#define CONFIG_MAGIC 0x706e6366u

enum {
    SHOWN_MAX = 80,  /* of a name in a message */
    QUOTED_MAX = 96, /* of a value in a message */
};

struct pn_config {
    uint32_t magic;
    const struct pn_option_table *table;
    void *settings;
    unsigned *given;            /* by index of option */
    struct pn_config_use *uses; /* in the arena, which keeps outgrown ones too */
    size_t use_count;
    size_t use_capacity;
    struct pn_arena arena;
};

/* One option as it was written: what messages show, and what was found for it. */
struct use {
    char shown[SHOWN_MAX]; /* with its dashes, escaped */
    const struct pn_option *option;
    const char *value; /* NULL: none */
};

/* --- messages --------------------------------------------------------------------------------- */

int pn_config_fail(struct pn_config_error *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    return -EINVAL;
}

int pn_config_no_memory(struct pn_config_error *err)
{
    (void)pn_config_fail(err, "no memory for the options");
    return -ENOMEM;
}

const char *pn_config_quote(char *out, size_t cap, struct pn_str s)
{
    PN_ASSERT(cap > 1);
    out[pn_log_escape(out, cap - 1, s)] = '\0';
    return out;
}

static int fail_unknown(struct pn_config *config, const struct use *use, struct pn_str name,
                        struct pn_config_error *err)
{
    struct pn_str near = pn__suggest_name(config->table, name);
    if (near.n > 0)
        return pn_config_fail(err, "unknown option '%s': did you mean '--%.*s'?", use->shown,
                              PN_STR_ARGS(near));
    return pn_config_fail(err, "unknown option '%s': '%s --help-all' lists all that there are",
                          use->shown, config->table->program);
}

static int fail_refused(const struct pn_option_refusal *refusal, const struct use *use,
                        struct pn_config_error *err)
{
    (void)pn_config_fail(err, "option '%s' is not %s: %s", use->shown,
                         refusal->never ? "supported" : "built yet", refusal->reason);
    return -ENOTSUP;
}

static int fail_no_value(const struct use *use, const char *next, struct pn_config_error *err)
{
    char expected[PN__VALUE_TEXT_MAX];
    char quoted[QUOTED_MAX];
    const struct pn_option *option = use->option;
    pn__value_expectation(option, expected, sizeof expected);
    bool is_text = option->type == PN_OPTION_STRING || option->type == PN_OPTION_STRING_LIST ||
                   option->type == PN_OPTION_CUSTOM;
    if (is_text && option->metavar)
        snprintf(expected, sizeof expected, "%s", option->metavar);
    if (!next)
        return pn_config_fail(err, "option '%s' needs a value: %s", use->shown, expected);
    return pn_config_fail(err, "option '%s' needs a value: %s; what follows is the option '%s'",
                          use->shown, expected,
                          pn_config_quote(quoted, sizeof quoted, pn_str_of(next)));
}

static int fail_value(const struct use *use, const char *text, struct pn_config_error *err)
{
    char expected[PN__VALUE_TEXT_MAX];
    char quoted[QUOTED_MAX];
    pn__value_expectation(use->option, expected, sizeof expected);
    return pn_config_fail(err, "option '%s': bad value '%s': expected %s", use->shown,
                          pn_config_quote(quoted, sizeof quoted, pn_str_of(text)), expected);
}

/* --- memory ----------------------------------------------------------------------------------- */

const char *pn_config_strndup(struct pn_config *config, const char *s, size_t n)
{
    return pn_arena_strndup(&config->arena, s, n);
}

void *pn_config_alloc(struct pn_config *config, size_t n)
{
    void *p = pn_arena_alloc(&config->arena, n);
    if (p)
        memset(p, 0, n);
    return p;
}

int pn_config_list_add(struct pn_config *config, struct pn_string_list *list, const char *text)
{
    if (list->count == PN_CONFIG_LIST_MAX)
        return -E2BIG;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        const char **items = pn_config_alloc(config, capacity * sizeof *items);
        if (!items)
            return -ENOMEM;
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = text;
    return 0;
}

/* --- storing ---------------------------------------------------------------------------------- */

static void store_number(void *field, enum pn_option_type type, int64_t number)
{
    if (type == PN_OPTION_FLAG)
        *(bool *)field = number != 0;
    else if (type == PN_OPTION_DURATION || type == PN_OPTION_SIZE)
        *(int64_t *)field = number;
    else
        *(int *)field = (int)number;
}

static void store_preset(const struct pn_option *option, void *settings)
{
    void *field = (char *)settings + option->offset;
    switch (option->type) {
    case PN_OPTION_STRING:
    case PN_OPTION_ADDRESS:
        *(const char **)field = option->preset_text;
        break;
    case PN_OPTION_STRING_LIST:
        *(struct pn_string_list *)field = (struct pn_string_list){0};
        break;
    case PN_OPTION_CUSTOM:
        break;
    default:
        store_number(field, option->type, option->preset);
        break;
    }
}

static bool stores(const struct pn_option *option)
{
    return !option->set && !(option->flags & PN_OPTION_ACCEPTED);
}

/* Adds TEXT, or its parts between commas; empty parts are passed over. */
static int store_list(struct pn_config *config, const struct use *use, struct pn_string_list *list,
                      const char *text, struct pn_config_error *err)
{
    struct pn_str rest = pn_str_of(text);
    while (rest.n > 0) {
        const char *comma =
            use->option->flags & PN_OPTION_COMMAS ? memchr(rest.p, ',', rest.n) : NULL;
        size_t n = comma ? (size_t)(comma - rest.p) : rest.n;
        if (n > 0) {
            const char *item = pn_config_strndup(config, rest.p, n);
            int rc = item ? pn_config_list_add(config, list, item) : -ENOMEM;
            if (rc == -E2BIG)
                (void)pn_config_fail(err, "option '%s' has more than %d values", use->shown,
                                     PN_CONFIG_LIST_MAX);
            else if (rc < 0)
                (void)pn_config_no_memory(err);
            if (rc < 0)
                return rc;
        }
        size_t used = comma ? n + 1 : n;
        rest = (struct pn_str){rest.p + used, rest.n - used};
    }
    return 0;
}

static int store_value(struct pn_config *config, const struct use *use,
                       const struct pn_option_value *value, struct pn_config_error *err)
{
    const struct pn_option *option = use->option;
    void *field = (char *)config->settings + option->offset;
    if (option->set)
        return option->set(config, option, value, err);
    switch (option->type) {
    case PN_OPTION_STRING_LIST:
        return store_list(config, use, field, value->text, err);
    case PN_OPTION_STRING:
    case PN_OPTION_ADDRESS:
        *(const char **)field = value->text;
        return 0;
    case PN_OPTION_CUSTOM:
        PN_WRONG("a custom option of this table has no setter");
    default:
        store_number(field, option->type, value->number);
        return 0;
    }
}

/* For pn_config_uses. TEXT is the value, or NULL. */
static int remember(struct pn_config *config, const struct use *use, const char *text,
                    struct pn_config_error *err)
{
    if (config->use_count == config->use_capacity) {
        size_t capacity = config->use_capacity ? 2 * config->use_capacity : 16;
        struct pn_config_use *uses = pn_config_alloc(config, capacity * sizeof *uses);
        if (!uses)
            return pn_config_no_memory(err);
        if (config->use_count)
            memcpy(uses, config->uses, config->use_count * sizeof *uses);
        config->uses = uses;
        config->use_capacity = capacity;
    }
    bool is_long = use->shown[0] == '-' && use->shown[1] == '-';
    const char *name = is_long ? use->shown + 2 : use->option->name;
    name = pn_config_strndup(config, name, strlen(name));
    if (!name)
        return pn_config_no_memory(err);
    bool is_flag = use->option->type == PN_OPTION_FLAG;
    config->uses[config->use_count++] = (struct pn_config_use){name, is_flag ? NULL : text};
    return 0;
}

/* Checks and stores what was given for an option; .value NULL is a bare name. */
static int apply(struct pn_config *config, const struct use *use, struct pn_config_error *err)
{
    const struct pn_option *option = use->option;
    struct pn_option_value value = {.number = 1};
    const char *text = use->value;
    if (!text && option->flags & PN_OPTION_VALUE_OPTIONAL)
        text = option->implied;
    else if (!text && option->type != PN_OPTION_FLAG)
        return fail_no_value(use, NULL, err);
    if (text && pn__value_parse(option, text, &value.number) < 0)
        return fail_value(use, text, err);
    if (option->flags & PN_OPTION_ACCEPTED && option->type == PN_OPTION_FLAG && !value.number)
        return pn_config_fail(err, "option '%s' cannot be switched off: %s", use->shown,
                              option->help);
    config->given[option - config->table->options]++;
    if (text) {
        value.text = pn_config_strndup(config, text, strlen(text));
        if (!value.text)
            return pn_config_no_memory(err);
    }
    int rc = option->type == PN_OPTION_FLAG && !value.number
                 ? 0
                 : remember(config, use, value.text, err);
    if (rc < 0 || (option->flags & PN_OPTION_ACCEPTED && !option->set))
        return rc;
    return store_value(config, use, &value, err);
}

/* --- looking up ------------------------------------------------------------------------------- */

static bool has_name(const char *names, struct pn_str wanted)
{
    struct pn_str rest = pn_str_of(names);
    struct pn_str name;
    while (pn__next_name(&rest, &name)) {
        bool family = name.n > 1 && name.p[name.n - 1] == '*';
        if (family && pn_str_starts(wanted, (struct pn_str){name.p, name.n - 1}))
            return true;
        if (pn_str_eq(name, wanted))
            return true;
    }
    return false;
}

static const struct pn_option *find_option(const struct pn_option_table *table, struct pn_str name)
{
    for (size_t i = 0; i < table->option_count; i++) {
        const struct pn_option *option = &table->options[i];
        if (pn_str_eq(pn_str_of(option->name), name) || has_name(option->aliases, name))
            return option;
    }
    return NULL;
}

static const struct pn_option_refusal *find_refusal(const struct pn_option_table *table,
                                                    struct pn_str name)
{
    for (const struct pn_option_refusal *r = table->refusals; r && r->names; r++) {
        if (has_name(r->names, name))
            return r;
    }
    return NULL;
}

/* The flag that "no-NAME" switches off, or NULL. */
static const struct pn_option *find_negated(const struct pn_option_table *table, struct pn_str name)
{
    if (!pn_str_starts(name, PN_STR("no-")))
        return NULL;
    const struct pn_option *option = find_option(table, (struct pn_str){name.p + 3, name.n - 3});
    return option && option->flags & PN_OPTION_NEGATABLE ? option : NULL;
}

/* Finds NAME and gives it what stands behind "=" (VALUE, may be NULL). 0 with USE filled: its
 * option may still want a value from the next argument. */
static int look_up(struct pn_config *config, struct pn_str name, const char *value, struct use *use,
                   struct pn_config_error *err)
{
    char quoted[SHOWN_MAX - 2];
    const struct pn_option_table *table = config->table;
    snprintf(use->shown, sizeof use->shown, "--%s", pn_config_quote(quoted, sizeof quoted, name));
    use->value = value;
    use->option = find_option(table, name);
    if (use->option)
        return 0;
    use->option = find_negated(table, name);
    if (use->option && value)
        return pn_config_fail(err, "option '%s' takes no value", use->shown);
    use->value = "false";
    if (use->option)
        return 0;
    const struct pn_option_refusal *refusal = find_refusal(table, name);
    return refusal ? fail_refused(refusal, use, err) : fail_unknown(config, use, name, err);
}

/* --- the command line ------------------------------------------------------------------------- */

struct arguments {
    char *const *v;
    int count;
    int next;
};

static bool wants_argument(const struct pn_option *option)
{
    return option->type != PN_OPTION_FLAG && !(option->flags & PN_OPTION_VALUE_OPTIONAL);
}

/* The value is the next argument. One that starts with two dashes is rather a forgotten value. */
static int take_argument(struct arguments *args, struct use *use, struct pn_config_error *err)
{
    const char *next = args->next < args->count ? args->v[args->next] : NULL;
    if (!next || strncmp(next, "--", 2) == 0)
        return fail_no_value(use, next, err);
    args->next++;
    use->value = next;
    return 0;
}

static int parse_long(struct pn_config *config, struct arguments *args, const char *text,
                      struct pn_config_error *err)
{
    struct use use;
    const char *equals = strchr(text, '=');
    struct pn_str name = {text, equals ? (size_t)(equals - text) : strlen(text)};
    int rc = look_up(config, name, equals ? equals + 1 : NULL, &use, err);
    if (rc == 0 && !use.value && wants_argument(use.option))
        rc = take_argument(args, &use, err);
    return rc < 0 ? rc : apply(config, &use, err);
}

static int find_letter(struct pn_config *config, char letter, struct use *use,
                       struct pn_config_error *err)
{
    char quoted[8];
    const struct pn_option_table *table = config->table;
    snprintf(use->shown, sizeof use->shown, "-%s",
             pn_config_quote(quoted, sizeof quoted, (struct pn_str){&letter, 1}));
    use->value = NULL;
    for (size_t i = 0; i < table->option_count; i++) {
        use->option = &table->options[i];
        if (use->option->letter == letter)
            return 0;
    }
    for (const struct pn_option_refusal *r = table->refusals; r && r->names; r++) {
        if (r->letters && strchr(r->letters, letter))
            return fail_refused(r, use, err);
    }
    return fail_unknown(config, use, PN_STR_NONE, err);
}

/* "-p4", "-p" "4", "-ML", "-MLp4": letters of flags until one takes the rest. */
static int parse_short(struct pn_config *config, struct arguments *args, const char *text,
                       struct pn_config_error *err)
{
    struct use use;
    for (bool more = true; more && *text;) {
        int rc = find_letter(config, *text++, &use, err);
        if (rc < 0)
            return rc;
        if (use.option->type != PN_OPTION_FLAG) {
            more = false;
            if (*text)
                use.value = text;
            else if (wants_argument(use.option))
                rc = take_argument(args, &use, err);
        }
        if (rc == 0)
            rc = apply(config, &use, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int parse_positional(struct pn_config *config, const char *text, struct pn_config_error *err)
{
    char quoted[QUOTED_MAX];
    if (config->table->positional && *text) {
        const char *copy = pn_config_strndup(config, text, strlen(text));
        return copy ? config->table->positional(config, copy, err) : pn_config_no_memory(err);
    }
    return pn_config_fail(err, "the argument '%s' is not expected here",
                          pn_config_quote(quoted, sizeof quoted, pn_str_of(text)));
}

int pn_config_parse(struct pn_config *config, int argc, char *const *argv,
                    struct pn_config_error *err)
{
    PN_CHECK_MAGIC(config, CONFIG_MAGIC);
    struct arguments args = {.v = argv, .count = argc};
    bool only_positional = false;
    int rc = 0;
    err->text[0] = '\0';
    while (rc == 0 && args.next < args.count) {
        const char *text = args.v[args.next++];
        if (only_positional || text[0] != '-' || text[1] == '\0')
            rc = parse_positional(config, text, err);
        else if (text[1] != '-')
            rc = parse_short(config, &args, text + 1, err);
        else if (text[2] != '\0')
            rc = parse_long(config, &args, text + 2, err);
        else
            only_positional = true;
    }
    return rc;
}

int pn_config_set(struct pn_config *config, const char *name, const char *value,
                  struct pn_config_error *err)
{
    PN_CHECK_MAGIC(config, CONFIG_MAGIC);
    struct use use;
    err->text[0] = '\0';
    int rc = look_up(config, pn_str_of(name), value, &use, err);
    return rc < 0 ? rc : apply(config, &use, err);
}

/* --- lifecycle -------------------------------------------------------------------------------- */

unsigned pn_config_given(const struct pn_config *config, const char *name)
{
    PN_CHECK_MAGIC(config, CONFIG_MAGIC);
    const struct pn_option *option = find_option(config->table, pn_str_of(name));
    PN_BUG_ON(!option);
    return config->given[option - config->table->options];
}

const struct pn_config_use *pn_config_uses(const struct pn_config *config, size_t *count)
{
    *count = config->use_count;
    return config->uses;
}

void *pn_config_settings(const struct pn_config *config)
{
    PN_CHECK_MAGIC(config, CONFIG_MAGIC);
    return config->settings;
}

int pn_config_create(struct pn_config **out, const struct pn_option_table *table, void *settings)
{
    struct pn_config *config = pn_try_malloc(sizeof *config);
    if (!config)
        return -ENOMEM;
    *config = (struct pn_config){.magic = CONFIG_MAGIC, .table = table, .settings = settings};
    pn_arena_init(&config->arena, PN_CONFIG_MEMORY_MAX);
    config->given = pn_config_alloc(config, table->option_count * sizeof *config->given);
    if (!config->given)
        goto fail;
    for (size_t i = 0; i < table->option_count; i++) {
        if (stores(&table->options[i]))
            store_preset(&table->options[i], settings);
    }
    *out = config;
    return 0;

fail:
    pn_config_destroy(config);
    return -ENOMEM;
}

void pn_config_destroy(struct pn_config *config)
{
    if (!config)
        return;
    PN_CHECK_MAGIC(config, CONFIG_MAGIC);
    config->magic = 0;
    pn_arena_free(&config->arena);
    free(config);
}
