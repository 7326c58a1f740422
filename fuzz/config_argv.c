/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of the real table: arguments are the input's lines. Whatever comes, parsing and
 * checking end with 0 or with a sentence that holds printable ASCII only, and nothing leaks. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "main/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ARGS_MAX = 64 };

/* Cuts the input at its newlines; what follows a NUL in a line cannot be seen. Returns the count. */
static int cut(char *text, char **argv)
{
    int argc = 0;
    for (char *line = text; line && argc < ARGS_MAX;) {
        char *end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        argv[argc++] = line;
        line = end;
    }
    return argc;
}

static void check_error(int rc, const struct pn_config_error *err)
{
    PN_BUG_ON(rc > 0);
    PN_BUG_ON((rc == 0) != (err->text[0] == '\0'));
    for (const char *c = err->text; *c; c++)
        PN_BUG_ON(*c < ' ' || *c > '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pn_settings settings;
    struct pn_config_error err = {""};
    char *argv[ARGS_MAX];
    char *text = malloc(size + 1);
    PN_BUG_ON(!text);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    PN_BUG_ON(pn_settings_init(&settings) < 0);
    int rc = pn_settings_parse(&settings, cut(text, argv), argv, &err);
    check_error(rc, &err);
    if (rc == 0) {
        rc = pn_settings_check(&settings, &err);
        check_error(rc, &err);
        PN_BUG_ON(rc == 0 && (!settings.app.target || settings.carrier.cores < 1));
    }
    pn_settings_fini(&settings);
    free(text);
    return 0;
}
