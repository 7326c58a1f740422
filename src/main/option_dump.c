/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the option table as JSON, for tools/gen_options.py. A program of its own: it needs neither
 * Python nor a server to be there. */
#include "main/settings.h"

int main(void)
{
    pn_option_print_json(pn_settings_table(), stdout);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
