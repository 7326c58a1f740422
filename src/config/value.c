/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers are read by hand: strtol and its kin accept spaces, signs, hexadecimal and "inf", and
 * an option that means something else than it says is worse than one that is refused. */
#include "config/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "base/check.h"
#include "base/str.h"
#include "config/config.h"

enum {
    FRACTION_DIGITS_MAX = 6, /* of a duration: microseconds, which is finer than anything here */
    KIB = 1024,
};

static const char *const type_names[] = {
    [PN_OPTION_FLAG] = "flag",         [PN_OPTION_INT] = "int",
    [PN_OPTION_DURATION] = "duration", [PN_OPTION_SIZE] = "size",
    [PN_OPTION_MODE] = "mode",         [PN_OPTION_STRING] = "string",
    [PN_OPTION_STRING_LIST] = "list",  [PN_OPTION_ADDRESS] = "address",
    [PN_OPTION_CHOICE] = "choice",     [PN_OPTION_CUSTOM] = "custom",
};

const char *pn__value_type_name(enum pn_option_type type)
{
    PN_ASSERT((size_t)type < PN_ARRAY_LEN(type_names));
    return type_names[type];
}

/* Digits at *P, moved past them. -EINVAL without a digit, -ERANGE on overflow. */
static int take_digits(const char **p, unsigned base, uint64_t *out)
{
    const char *s = *p;
    uint64_t value = 0;
    if (*s < '0' || *s >= (char)('0' + base))
        return -EINVAL;
    for (; *s >= '0' && *s < (char)('0' + base); s++) {
        unsigned digit = (unsigned)(*s - '0');
        if (value > ((uint64_t)INT64_MAX - digit) / base)
            return -ERANGE;
        value = value * base + digit;
    }
    *p = s;
    *out = value;
    return 0;
}

static int parse_flag(const char *text, int64_t *number)
{
    static const char *const yes[] = {"true", "1", "yes", "on"};
    static const char *const no[] = {"false", "0", "no", "off"};
    for (size_t i = 0; i < PN_ARRAY_LEN(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *number = strcasecmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_int(const char *text, unsigned base, int64_t *number)
{
    uint64_t value;
    bool negative = base == 10 && *text == '-';
    if (negative)
        text++;
    int rc = take_digits(&text, base, &value);
    if (rc < 0 || *text)
        return -EINVAL;
    *number = negative ? -(int64_t)value : (int64_t)value;
    return 0;
}

static int64_t unit_ms(const char *suffix, enum pn_option_unit unit)
{
    static const struct {
        const char *suffix;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};
    if (!*suffix)
        return unit == PN_UNIT_MILLISECONDS ? 1 : 1000;
    for (size_t i = 0; i < PN_ARRAY_LEN(units); i++) {
        if (strcmp(suffix, units[i].suffix) == 0)
            return units[i].ms;
    }
    return 0;
}

/* Rounded up to whole milliseconds: 0 switches things off, and "0.0001" asked for no such thing. */
static int parse_duration(const char *text, enum pn_option_unit unit, int64_t *number)
{
    uint64_t whole;
    uint64_t fraction = 0;
    uint64_t scale = 1;
    if (take_digits(&text, 10, &whole) < 0)
        return -EINVAL;
    if (*text == '.') {
        const char *digits = ++text;
        if (take_digits(&text, 10, &fraction) < 0 || text - digits > FRACTION_DIGITS_MAX)
            return -EINVAL;
        for (; digits < text; digits++)
            scale *= 10;
    }
    int64_t ms = unit_ms(text, unit);
    if (ms == 0 || whole > (uint64_t)(INT64_MAX / ms - 1))
        return -EINVAL;
    *number = (int64_t)(whole * (uint64_t)ms + (fraction * (uint64_t)ms + scale - 1) / scale);
    return 0;
}

static int parse_size(const char *text, int64_t *number)
{
    uint64_t value;
    uint64_t unit = 1;
    if (take_digits(&text, 10, &value) < 0)
        return -EINVAL;
    if (*text == 'k' || *text == 'K')
        unit = KIB;
    else if (*text == 'm' || *text == 'M')
        unit = KIB * KIB;
    else if (*text == 'g' || *text == 'G')
        unit = KIB * KIB * KIB;
    if (unit > 1)
        text++;
    if (*text || value > INT64_MAX / unit)
        return -EINVAL;
    *number = (int64_t)(value * unit);
    return 0;
}

static int parse_choice(const struct pn_option_choice *choices, const char *text, int64_t *number)
{
    for (; choices->name; choices++) {
        if (strcmp(choices->name, text) == 0) {
            *number = choices->value;
            return 0;
        }
    }
    return -EINVAL;
}

/* An address may not hold what would tear a log line or hide at its end. */
static int check_address(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n > PN_CONFIG_ADDRESS_MAX)
        return -EINVAL;
    for (; *text; text++) {
        if ((unsigned char)*text <= ' ' || *text == 0x7f)
            return -EINVAL;
    }
    return 0;
}

int pn__value_parse(const struct pn_option *option, const char *text, int64_t *number)
{
    int rc = -EINVAL;
    *number = 0;
    switch (option->type) {
    case PN_OPTION_FLAG:
        return parse_flag(text, number);
    case PN_OPTION_INT:
        rc = parse_int(text, 10, number);
        break;
    case PN_OPTION_DURATION:
        rc = parse_duration(text, option->unit, number);
        break;
    case PN_OPTION_SIZE:
        rc = parse_size(text, number);
        break;
    case PN_OPTION_MODE:
        rc = parse_int(text, 8, number);
        break;
    case PN_OPTION_CHOICE:
        return parse_choice(option->choices, text, number);
    case PN_OPTION_ADDRESS:
        return check_address(text);
    case PN_OPTION_STRING:
    case PN_OPTION_STRING_LIST:
    case PN_OPTION_CUSTOM:
        return *text ? 0 : -EINVAL;
    }
    if (rc == 0 && (*number < option->min || *number > option->max))
        rc = -EINVAL;
    return rc;
}

static void format_size(int64_t number, char *out, size_t cap)
{
    static const char suffixes[] = {'\0', 'k', 'm', 'g'};
    size_t i = 0;
    while (i + 1 < sizeof suffixes && number != 0 && number % KIB == 0) {
        number /= KIB;
        i++;
    }
    snprintf(out, cap, "%" PRId64 "%.*s", number, i > 0, &suffixes[i]);
}

/* In the unit that a bare number has, so that what is shown can be typed. */
static void format_duration(int64_t ms, enum pn_option_unit unit, char *out, size_t cap)
{
    if (unit == PN_UNIT_MILLISECONDS)
        snprintf(out, cap, "%" PRId64, ms);
    else if (ms % 1000 == 0)
        snprintf(out, cap, "%" PRId64, ms / 1000);
    else
        snprintf(out, cap, "%" PRId64 "ms", ms);
}

static void format_number(const struct pn_option *option, int64_t number, char *out, size_t cap)
{
    switch (option->type) {
    case PN_OPTION_SIZE:
        format_size(number, out, cap);
        break;
    case PN_OPTION_DURATION:
        format_duration(number, option->unit, out, cap);
        break;
    case PN_OPTION_MODE:
        snprintf(out, cap, "%" PRIo64, (uint64_t)number);
        break;
    default:
        snprintf(out, cap, "%" PRId64, number);
        break;
    }
}

static void list_choices(const struct pn_option_choice *choices, char *out, size_t cap)
{
    size_t used = (size_t)snprintf(out, cap, "one of");
    for (const char *separator = " "; choices->name && used < cap; choices++, separator = ", ")
        used += (size_t)snprintf(out + used, cap - used, "%s%s", separator, choices->name);
}

void pn__value_expectation(const struct pn_option *option, char *out, size_t cap)
{
    char low[32];
    char high[32];
    format_number(option, option->min, low, sizeof low);
    format_number(option, option->max, high, sizeof high);
    switch (option->type) {
    case PN_OPTION_FLAG:
        snprintf(out, cap, "true or false");
        break;
    case PN_OPTION_INT:
        snprintf(out, cap, "a number from %s to %s", low, high);
        break;
    case PN_OPTION_DURATION:
        snprintf(out, cap, "a time from %s to %s in %s (or with ms, s, m or h after it)", low, high,
                 option->unit == PN_UNIT_MILLISECONDS ? "milliseconds" : "seconds");
        break;
    case PN_OPTION_SIZE:
        snprintf(out, cap, "a size from %s to %s in bytes (or with k, m or g after it)", low, high);
        break;
    case PN_OPTION_MODE:
        snprintf(out, cap, "an octal mode from %s to %s", low, high);
        break;
    case PN_OPTION_CHOICE:
        list_choices(option->choices, out, cap);
        break;
    case PN_OPTION_ADDRESS:
        snprintf(out, cap, "an address without spaces");
        break;
    case PN_OPTION_STRING:
    case PN_OPTION_STRING_LIST:
    case PN_OPTION_CUSTOM:
        snprintf(out, cap, "a text that is not empty");
        break;
    }
}

void pn__value_preset(const struct pn_option *option, char *out, size_t cap)
{
    out[0] = '\0';
    if (option->flags & PN_OPTION_ACCEPTED)
        return;
    switch (option->type) {
    case PN_OPTION_FLAG:
        snprintf(out, cap, "%s", option->preset ? "true" : "false");
        break;
    case PN_OPTION_CHOICE:
        for (const struct pn_option_choice *c = option->choices; c->name; c++) {
            if (c->value == option->preset)
                snprintf(out, cap, "%s", c->name);
        }
        break;
    case PN_OPTION_STRING:
    case PN_OPTION_ADDRESS:
        snprintf(out, cap, "%s", option->preset_text ? option->preset_text : "");
        break;
    case PN_OPTION_STRING_LIST:
    case PN_OPTION_CUSTOM:
        break;
    case PN_OPTION_INT:
    case PN_OPTION_DURATION:
    case PN_OPTION_SIZE:
    case PN_OPTION_MODE:
        /* A preset below the range stands for "not given". */
        if (!option->set && option->preset >= option->min)
            format_number(option, option->preset, out, cap);
        break;
    }
}
