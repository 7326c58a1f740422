/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a command line by a table of options into the caller's settings struct.
 *
 * Lifecycle: create (fills in the presets) -> parse and set, any number of times -> destroy. Every
 * string and list in the settings is owned by the configuration and goes with it. Nothing here
 * exits, prints or reads a file: errors come back as one sentence. */
#pragma once

#include "base/str.h"
#include "config/option.h"

enum {
    PN_CONFIG_NAME_MAX = 64,                /* bytes of an option's name */
    PN_CONFIG_ADDRESS_MAX = 512,            /* bytes of an address: longer than any that exists */
    PN_CONFIG_LIST_MAX = 4096,              /* items of one list */
    PN_CONFIG_MEMORY_MAX = 8 * 1024 * 1024, /* all strings together; more is -ENOMEM */
};

/* TABLE and SETTINGS are borrowed and must outlive the configuration; SETTINGS is filled with the
 * table's presets (fields that no row names stay as they are). 0 or -ENOMEM. */
int pn_config_create(struct pn_config **out, const struct pn_option_table *table,
                     void *settings) PN_MUST_CHECK;
/* NULL is fine. The settings' strings and lists are gone afterwards. */
void pn_config_destroy(struct pn_config *config);

/* ARGV holds ARGC arguments without the program's name. Accepted: --name value, --name=value,
 * -x value, -xvalue, flags' letters together (-ML), "--", and positional arguments in between.
 * 0, or a negative errno with ERR filled: -EINVAL (unknown option, bad value), -ENOTSUP (refused by
 * name), -ENOMEM, or what the table's own setters return. Settings made before the error stay. */
int pn_config_parse(struct pn_config *config, int argc, char *const *argv,
                    struct pn_config_error *err) PN_MUST_CHECK;
/* One option by NAME (no dashes; "no-NAME" works too). VALUE NULL: as a bare name. */
int pn_config_set(struct pn_config *config, const char *name, const char *value,
                  struct pn_config_error *err) PN_MUST_CHECK;

/* How often an option was given, by any of its names; NAME is the table's. A name that is not in
 * the table is a bug. */
unsigned pn_config_given(const struct pn_config *config, const char *name);
/* What was given, in its order: the name as it was written (the table's for a letter), and its value;
 * NULL for a flag that is on. Flags that were switched off are not among them. */
struct pn_config_use {
    const char *name;
    const char *value;
};
const struct pn_config_use *pn_config_uses(const struct pn_config *config, size_t *count);
/* What was passed to create. */
void *pn_config_settings(const struct pn_config *config);

/* A copy that lives as long as the configuration; NULL without memory. */
const char *pn_config_strndup(struct pn_config *config, const char *s, size_t n) PN_MUST_CHECK;
/* Zeroed, same owner; NULL without memory. */
void *pn_config_alloc(struct pn_config *config, size_t n) PN_MUST_CHECK;
/* Appends TEXT, which must live as long as the configuration. 0, -ENOMEM, or -E2BIG past
 * PN_CONFIG_LIST_MAX. */
int pn_config_list_add(struct pn_config *config, struct pn_string_list *list,
                       const char *text) PN_MUST_CHECK;

/* Fills ERR (cut where it is full) and returns -EINVAL. */
int pn_config_fail(struct pn_config_error *err, const char *fmt, ...) PN_PRINTF(2, 3);
/* Fills ERR for -ENOMEM and returns that. */
int pn_config_no_memory(struct pn_config_error *err);
/* S with everything but printable ASCII escaped, cut at CAP (with "..."), for use in messages.
 * Returns OUT. */
const char *pn_config_quote(char *out, size_t cap, struct pn_str s);
