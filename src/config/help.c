/* SPDX-License-Identifier: Apache-2.0 */
/* Two renderings of the table: for a terminal of 80 columns, and JSON. */
#include "config/help.h"

#include <stdio.h>

#include "base/check.h"
#include "base/str.h"
#include "config/suggest.h"
#include "config/value.h"

enum {
    COLUMNS = 80,
    HELP_COLUMN = 30, /* where an option's sentence starts */
    LABEL_MAX = 512,
};

static bool is_listed(const struct pn_option *option, bool all)
{
    if (option->flags & PN_OPTION_HIDDEN)
        return false;
    return all || !(option->flags & (PN_OPTION_ADVANCED | PN_OPTION_ACCEPTED));
}

/* --- for the terminal ------------------------------------------------------------------------- */

/* Words of TEXT from COLUMN on, each further line indented by INDENT. */
static void print_wrapped(const char *text, unsigned column, unsigned indent, FILE *out)
{
    struct pn_str rest = pn_str_of(text);
    struct pn_str word;
    bool first = true;
    while (pn__next_name(&rest, &word)) {
        if (!first && column + 1 + word.n > COLUMNS) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", PN_STR_ARGS(word));
        column += (unsigned)word.n;
        first = false;
    }
    fputc('\n', out);
}

/* "  -p, --processes N": how an option is written. Returns the length. */
static unsigned format_label(const struct pn_option *option, char *out, size_t cap)
{
    const char *metavar = option->metavar;
    int n = 0;
    if (option->letter)
        n = snprintf(out, cap, "  -%c, --%s", option->letter, option->name);
    else
        n = snprintf(out, cap, "      --%s", option->name);
    PN_BUG_ON(n < 0 || (size_t)n >= cap);
    if (metavar)
        n += snprintf(out + n, cap - (size_t)n,
                      option->flags & PN_OPTION_VALUE_OPTIONAL ? "[=%s]" : " %s", metavar);
    PN_BUG_ON((size_t)n >= cap);
    return (unsigned)n;
}

/* The sentence, other names where ALL are asked for, and the preset. */
static void format_sentence(const struct pn_option *option, bool all, char *out, size_t cap)
{
    char preset[PN__VALUE_TEXT_MAX];
    size_t used = (size_t)snprintf(out, cap, "%s", option->help);
    pn__value_preset(option, preset, sizeof preset);
    if (option->type == PN_OPTION_FLAG && option->preset == 0)
        preset[0] = '\0';
    if (preset[0] && used < cap)
        used += (size_t)snprintf(out + used, cap - used, " [%s]", preset);
    struct pn_str rest = all ? pn_str_of(option->aliases) : PN_STR_NONE;
    struct pn_str name;
    for (const char *lead = " Also: --"; used < cap && pn__next_name(&rest, &name); lead = ", --")
        used += (size_t)snprintf(out + used, cap - used, "%s%.*s", lead, PN_STR_ARGS(name));
}

static void print_option(const struct pn_option *option, bool all, FILE *out)
{
    char label[LABEL_MAX];
    char sentence[2 * LABEL_MAX];
    unsigned n = format_label(option, label, sizeof label);
    format_sentence(option, all, sentence, sizeof sentence);
    if (n + 2 > HELP_COLUMN)
        fprintf(out, "%s\n%*s", label, HELP_COLUMN, "");
    else
        fprintf(out, "%-*s", HELP_COLUMN, label);
    print_wrapped(sentence, HELP_COLUMN, HELP_COLUMN, out);
}

static void print_group(const struct pn_option_table *table, int group, bool all, FILE *out)
{
    bool titled = false;
    for (size_t i = 0; i < table->option_count; i++) {
        const struct pn_option *option = &table->options[i];
        if (option->group != group || !is_listed(option, all))
            continue;
        if (!titled) {
            fprintf(out, "\n%s\n", table->groups[group].title);
            if (table->groups[group].intro)
                print_wrapped(table->groups[group].intro, 0, 0, out);
        }
        titled = true;
        print_option(option, all, out);
    }
}

static void print_refusals(const struct pn_option_table *table, FILE *out)
{
    fprintf(out, "\nKnown names that %s refuses\n", table->program);
    for (const struct pn_option_refusal *refusal = table->refusals; refusal->names; refusal++) {
        fputs("  ", out);
        print_wrapped(refusal->names, 2, 2, out);
        fputs("      ", out);
        fprintf(out, "not %s: ", refusal->never ? "supported" : "built yet");
        print_wrapped(refusal->reason, 21, 6, out);
    }
}

void pn_option_print_help(const struct pn_option_table *table, bool all, FILE *out)
{
    fprintf(out, "usage: %s %s\n", table->program, table->usage);
    for (size_t i = 0; i < table->group_count; i++)
        print_group(table, (int)i, all, out);
    if (all && table->refusals)
        print_refusals(table, out);
    if (!all)
        fprintf(out, "\n'%s --help-all' lists every option.\n", table->program);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void print_json_string(struct pn_str s, FILE *out)
{
    fputc('"', out);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < ' ')
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

/* KEY and a text with a comma after it; null where there is none. */
static void print_member(const char *key, const char *text, FILE *out)
{
    fprintf(out, "\"%s\": ", key);
    if (text)
        print_json_string(pn_str_of(text), out);
    else
        fputs("null", out);
    fputs(", ", out);
}

static void print_names(const char *key, const char *names, FILE *out)
{
    struct pn_str rest = pn_str_of(names);
    struct pn_str name;
    fprintf(out, "\"%s\": [", key);
    for (const char *lead = ""; pn__next_name(&rest, &name); lead = ", ") {
        fputs(lead, out);
        print_json_string(name, out);
    }
    fputs("], ", out);
}

static void print_json_flag(const char *key, bool value, FILE *out)
{
    fprintf(out, "\"%s\": %s, ", key, value ? "true" : "false");
}

static void print_json_option(const struct pn_option *option, FILE *out)
{
    char text[PN__VALUE_TEXT_MAX];
    char letter[2] = {option->letter, '\0'};
    fputs("{", out);
    print_member("name", option->name, out);
    print_member("letter", option->letter ? letter : NULL, out);
    print_names("aliases", option->aliases, out);
    print_member("type", pn__value_type_name(option->type), out);
    print_member("metavar", option->metavar, out);
    pn__value_expectation(option, text, sizeof text);
    print_member("expects", text, out);
    pn__value_preset(option, text, sizeof text);
    print_member("preset", text[0] ? text : NULL, out);
    print_member("implied", option->implied, out);
    print_json_flag("repeatable",
                    option->flags & PN_OPTION_REPEATABLE || option->type == PN_OPTION_STRING_LIST,
                    out);
    print_json_flag("value_optional", option->flags & PN_OPTION_VALUE_OPTIONAL, out);
    print_json_flag("negatable", option->flags & PN_OPTION_NEGATABLE, out);
    print_json_flag("accepted", option->flags & PN_OPTION_ACCEPTED, out);
    print_json_flag("advanced", option->flags & PN_OPTION_ADVANCED, out);
    print_member("help", option->help, out);
    fprintf(out, "\"group\": %d}", option->group);
}

static void print_json_options(const struct pn_option_table *table, FILE *out)
{
    const char *lead = "";
    for (size_t i = 0; i < table->option_count; i++) {
        if (!is_listed(&table->options[i], true))
            continue;
        fprintf(out, "%s\n  ", lead);
        print_json_option(&table->options[i], out);
        lead = ",";
    }
}

static void print_json_refusals(const struct pn_option_table *table, FILE *out)
{
    const char *lead = "\n  {";
    for (const struct pn_option_refusal *r = table->refusals; r && r->names; r++) {
        fputs(lead, out);
        print_names("names", r->names, out);
        print_member("letters", r->letters, out);
        print_member("reason", r->reason, out);
        fprintf(out, "\"never\": %s}", r->never ? "true" : "false");
        lead = ",\n  {";
    }
}

void pn_option_print_json(const struct pn_option_table *table, FILE *out)
{
    fputs("{", out);
    print_member("program", table->program, out);
    print_member("usage", table->usage, out);
    fputs("\n\"groups\": [", out);
    for (size_t i = 0; i < table->group_count; i++) {
        fputs(i ? ",\n  {" : "\n  {", out);
        print_member("intro", table->groups[i].intro, out);
        fputs("\"title\": ", out);
        print_json_string(pn_str_of(table->groups[i].title), out);
        fputs("}", out);
    }
    fputs("],\n\"options\": [", out);
    print_json_options(table, out);
    fputs("],\n\"refusals\": [", out);
    print_json_refusals(table, out);
    fputs("]}\n", out);
}
