/* SPDX-License-Identifier: Apache-2.0 */
/* The settings' lifecycle, and the options that do more than fill one field. */
#include "main/settings.h"

#include <errno.h>
#include <string.h>

#include "main/option_rows.h"

enum { QUOTED_MAX = 96 };

static const char *quote(char *out, const char *text)
{
    return pn_config_quote(out, QUOTED_MAX, pn_str_of(text));
}

/* --- setters ---------------------------------------------------------------------------------- */

int pn__set_socket(struct pn_config *config, const struct pn_option *option,
                   const struct pn_option_value *value, struct pn_config_error *err)
{
    struct pn_settings_sockets *sockets =
        &((struct pn_settings *)pn_config_settings(config))->sockets;
    if (sockets->count == sockets->capacity) {
        size_t capacity = sockets->capacity ? 2 * sockets->capacity : 4;
        struct pn_socket_setting *items = pn_config_alloc(config, capacity * sizeof *items);
        if (!items)
            return pn_config_no_memory(err);
        if (sockets->count)
            memcpy(items, sockets->items, sockets->count * sizeof *items);
        sockets->items = items;
        sockets->capacity = capacity;
    }
    sockets->items[sockets->count++] =
        (struct pn_socket_setting){.option = option->name, .address = value->text};
    return 0;
}

/* uWSGI's worker has one time-out for reading and for writing, and so has its router. */
int pn__set_socket_timeout(struct pn_config *config, const struct pn_option *option,
                           const struct pn_option_value *value, struct pn_config_error *err)
{
    struct pn_settings *settings = pn_config_settings(config);
    (void)option;
    (void)err;
    settings->http.body_timeout_ms = value->number;
    settings->http.write_timeout_ms = value->number;
    return 0;
}

/* The first one counts: "pelton --version --help" prints the version. */
int pn__set_action(struct pn_config *config, const struct pn_option *option,
                   const struct pn_option_value *value, struct pn_config_error *err)
{
    struct pn_settings *settings = pn_config_settings(config);
    (void)err;
    if (!value->number || settings->action != PN_ACTION_SERVE)
        return 0;
    if (strcmp(option->name, "version") == 0)
        settings->action = PN_ACTION_VERSION;
    else if (strcmp(option->name, "help-all") == 0)
        settings->action = PN_ACTION_HELP_ALL;
    else
        settings->action = PN_ACTION_HELP;
    return 0;
}

/* What uWSGI's packages call the plugins whose work Pelton does. */
static bool is_built_in(struct pn_str name)
{
    static const char *const names[] = {"http",       "asyncio", "greenlet",
                                        "ugreen",     "logfile", "asyncio_python3",
                                        "corerouter", "wsgi",    "greenlet_python3"};
    if (pn_str_starts(name, PN_STR("python")))
        return true;
    for (size_t i = 0; i < PN_ARRAY_LEN(names); i++) {
        if (pn_str_eq(name, pn_str_of(names[i])))
            return true;
    }
    return false;
}

int pn__check_plugins(struct pn_config *config, const struct pn_option *option,
                      const struct pn_option_value *value, struct pn_config_error *err)
{
    const char *name = value->text;
    (void)config;
    while (*name) {
        struct pn_str plugin = {name, strcspn(name, ", ")};
        if (plugin.n > 0 && !is_built_in(plugin)) {
            char quoted[QUOTED_MAX];
            (void)pn_config_fail(err,
                                 "option '--%s': there is no plugin '%s'; built in are python, "
                                 "http, asyncio, greenlet and ugreen",
                                 option->name, pn_config_quote(quoted, sizeof quoted, plugin));
            return -ENOTSUP;
        }
        name += plugin.n;
        name += *name != '\0';
    }
    return 0;
}

static bool is_configuration_file(const char *text)
{
    static const char *const suffixes[] = {".ini", ".xml", ".yaml", ".yml", ".json", ".toml"};
    size_t n = strlen(text);
    for (size_t i = 0; i < PN_ARRAY_LEN(suffixes); i++) {
        size_t suffix = strlen(suffixes[i]);
        if (n > suffix && strcmp(text + n - suffix, suffixes[i]) == 0)
            return true;
    }
    return false;
}

int pn__set_positional(struct pn_config *config, const char *text, struct pn_config_error *err)
{
    struct pn_settings *settings = pn_config_settings(config);
    char quoted[QUOTED_MAX];
    char first[QUOTED_MAX];
    if (is_configuration_file(text)) {
        (void)pn_config_fail(err,
                             "'%s' is a configuration file: reading one is not built yet; give the "
                             "options on the command line",
                             quote(quoted, text));
        return -ENOTSUP;
    }
    if (settings->app.positional)
        return pn_config_fail(err, "'%s' is a second application: '%s' stands before it",
                              quote(quoted, text), quote(first, settings->app.positional));
    settings->app.positional = text;
    return 0;
}

/* --- lifecycle -------------------------------------------------------------------------------- */

int pn_settings_init(struct pn_settings *settings)
{
    *settings = (struct pn_settings){.action = PN_ACTION_SERVE};
    return pn_config_create(&settings->config, pn_settings_table(), settings);
}

int pn_settings_parse(struct pn_settings *settings, int argc, char *const *argv,
                      struct pn_config_error *err)
{
    return pn_config_parse(settings->config, argc, argv, err);
}

void pn_settings_fini(struct pn_settings *settings)
{
    pn_config_destroy(settings->config);
    *settings = (struct pn_settings){.action = PN_ACTION_SERVE};
}

const char *pn_settings_carrier_name(enum pn_carrier kind)
{
    static const char *const names[] = {
        [PN_CARRIER_INLINE] = "inline",
        [PN_CARRIER_THREADS] = "threads",
        [PN_CARRIER_FIBERS] = "fibers",
    };
    return names[kind];
}
