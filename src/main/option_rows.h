/* SPDX-License-Identifier: Apache-2.0 */
/* What the option table is put together from: inside this room, for option_table.c only. */
#pragma once

#include "main/settings.h"

/* option_refused.c; ended by NULL names. */
extern const struct pn_option_refusal pn__option_refusals[];

/* settings.c: setters; see pn_option.set and pn_option_table.positional. */
int pn__set_socket(struct pn_config *config, const struct pn_option *option,
                   const struct pn_option_value *value, struct pn_config_error *err);
int pn__set_socket_timeout(struct pn_config *config, const struct pn_option *option,
                           const struct pn_option_value *value, struct pn_config_error *err);
int pn__set_action(struct pn_config *config, const struct pn_option *option,
                   const struct pn_option_value *value, struct pn_config_error *err);
int pn__check_plugins(struct pn_config *config, const struct pn_option *option,
                      const struct pn_option_value *value, struct pn_config_error *err);
int pn__set_positional(struct pn_config *config, const char *text, struct pn_config_error *err);
