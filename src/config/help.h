/* SPDX-License-Identifier: Apache-2.0 */
/* The table as text: --help, --help-all, and the JSON that tools/gen_options.py makes
 * docs/options.md from. Writes to a stream of the caller, who checks it for errors. */
#pragma once

#include <stdio.h>

#include "config/option.h"

/* The short list by groups; ALL adds advanced options, other names, accepted and refused ones. */
void pn_option_print_help(const struct pn_option_table *table, bool all, FILE *out);
/* One object: program, groups, options, refusals. Hidden options are left out. */
void pn_option_print_json(const struct pn_option_table *table, FILE *out);

/* Looks for mistakes in the table itself: names used twice, presets out of range, missing help ...
 * 0, or -EINVAL with ERR filled. For tests. */
int pn_option_table_check(const struct pn_option_table *table,
                          struct pn_config_error *err) PN_MUST_CHECK;
