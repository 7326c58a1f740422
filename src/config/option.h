/* SPDX-License-Identifier: Apache-2.0 */
/* What an option is: one row of the one table that the command line, the help text, docs/options.md
 * and (later) configuration files are made from. The table is constant data of the caller; offsets
 * point into a settings struct that the caller owns too. Nothing here knows which options exist. */
#pragma once

#include "base/defs.h"

struct pn_config;

/* One sentence about what is wrong, without the program's name and without a newline. Bytes that
 * the user typed are escaped in it. */
struct pn_config_error {
    char text[512];
};

/* The order of first appearance; items and array are owned by the configuration. */
struct pn_string_list {
    const char **items;
    size_t count;
    size_t capacity;
};

/* In brackets: what the field at .offset is. */
enum pn_option_type {
    PN_OPTION_FLAG = 0,        /* [bool] no value, or =true/false/1/0/yes/no/on/off */
    PN_OPTION_INT = 1,         /* [int] decimal, from .min to .max */
    PN_OPTION_DURATION = 2,    /* [int64_t, milliseconds] fractions and ms/s/m/h accepted */
    PN_OPTION_SIZE = 3,        /* [int64_t, bytes] k/m/g are powers of 1024 */
    PN_OPTION_MODE = 4,        /* [int] octal permission bits; a .preset of -1 means "not given" */
    PN_OPTION_STRING = 5,      /* [const char *] not empty */
    PN_OPTION_STRING_LIST = 6, /* [struct pn_string_list] every use adds to it */
    PN_OPTION_ADDRESS = 7,     /* [const char *] no spaces; whoever listens there reads it */
    PN_OPTION_CHOICE = 8,      /* [int] the .value of one of .choices */
    PN_OPTION_CUSTOM = 9,      /* any text, for .set alone */
};

enum pn_option_flag {
    PN_OPTION_REPEATABLE = 1 << 0,     /* each use adds; all others: the last use counts */
    PN_OPTION_VALUE_OPTIONAL = 1 << 1, /* value by "=" only; without one .implied stands for it */
    PN_OPTION_NEGATABLE = 1 << 2,      /* a flag that --no-NAME switches off */
    PN_OPTION_COMMAS = 1 << 3,         /* a list that a comma divides as well */
    PN_OPTION_ACCEPTED = 1 << 4,       /* stores nothing: .help says why nothing is needed */
    PN_OPTION_ADVANCED = 1 << 5,       /* listed by --help-all, not by --help */
    PN_OPTION_HIDDEN = 1 << 6,         /* listed nowhere */
};

/* What a duration's bare number counts. */
enum pn_option_unit {
    PN_UNIT_NONE = 0,
    PN_UNIT_SECONDS = 1,
    PN_UNIT_MILLISECONDS = 2,
};

struct pn_option_choice {
    const char *name;
    int value;
};

/* A value that passed its type's checks. */
struct pn_option_value {
    const char *text; /* owned by the configuration; NULL when none was given */
    int64_t number;   /* what the type made of it; 0 for texts */
};

struct pn_option {
    const char *name;    /* without dashes */
    const char *aliases; /* other names, one space between them; NULL: none */
    const char *typos;   /* names that people write instead: suggested from, never accepted */
    enum pn_option_type type;
    unsigned flags;
    int group; /* index into the table's groups */
    char letter;
    enum pn_option_unit unit;
    size_t offset;
    int64_t min; /* in what is stored: milliseconds, bytes, mode bits */
    int64_t max;
    int64_t preset;          /* what numbers, flags and choices start as */
    const char *preset_text; /* what strings start as; NULL: not given */
    const char *implied;     /* VALUE_OPTIONAL: the value that a bare name stands for */
    const struct pn_option_choice *choices; /* ended by a NULL name */
    const char *metavar;
    const char *help; /* one or two sentences; no final newline */
    /* Replaces storing at .offset. Returns 0, or a negative errno with ERR filled
     * (pn_config_fail). VALUE's text may be kept: it lives as long as the configuration. */
    int (*set)(struct pn_config *config, const struct pn_option *option,
               const struct pn_option_value *value, struct pn_config_error *err);
};

/* Names that are known and not served: refused by name, with what to do instead. */
struct pn_option_refusal {
    const char *names;   /* one space between them; "x-*" stands for every name that starts so */
    const char *letters; /* short forms; NULL: none */
    const char *typos;   /* like pn_option.typos, for the first of the names */
    const char *reason;  /* goes on from "option '--x' is not built yet: " */
    bool never;          /* "is not supported" instead of "is not built yet" */
};

struct pn_option_group {
    const char *title;
    const char *intro; /* NULL: none */
};

struct pn_option_table {
    const char *program;
    const char *usage; /* what follows the program's name in the first line of --help */
    const struct pn_option *options;
    size_t option_count;
    const struct pn_option_refusal *refusals; /* ended by NULL names; NULL: none */
    const struct pn_option_group *groups;
    size_t group_count;
    /* An argument that is no option. NULL: there may be none. Like pn_option.set. */
    int (*positional)(struct pn_config *config, const char *text, struct pn_config_error *err);
};
