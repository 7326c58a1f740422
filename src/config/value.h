/* SPDX-License-Identifier: Apache-2.0 */
/* From an option's text to what is stored, and from there back to text for messages, help and the
 * documentation. Pure functions over strings; inside this room only. */
#pragma once

#include "config/option.h"

/* Room for any text that the functions below write. */
enum { PN__VALUE_TEXT_MAX = 256 };

/* What TEXT stands for, by OPTION's type and range: 0 with *NUMBER, or -EINVAL. Texts (string,
 * list, address, custom) are checked only, and give 0. Never reads past TEXT's NUL. */
int pn__value_parse(const struct pn_option *option, const char *text,
                    int64_t *number) PN_MUST_CHECK;

/* "a number from 1 to 8": what a value must be, for messages and tables. */
void pn__value_expectation(const struct pn_option *option, char *out, size_t cap);

/* NUMBER as a user would write it ("15", "64k", "666", "true"); "" where nothing is preset. */
void pn__value_preset(const struct pn_option *option, char *out, size_t cap);

/* The type's name for the JSON table: "flag", "int" ... */
const char *pn__value_type_name(enum pn_option_type type);
