/* SPDX-License-Identifier: Apache-2.0 */
/* What a process of the server says by the way it ends. docs/processes.md lists them for users; the
 * manager reads them of its children. */
#pragma once

#include "base/defs.h"

enum pn_exit_status {
    PN_EXIT_OK = 0,
    PN_EXIT_ERROR = 1,   /* what none of the others says: no memory, no descriptor, no process */
    PN_EXIT_CONFIG = 2,  /* an option is wrong */
    PN_EXIT_APP = 3,     /* the application cannot be loaded */
    PN_EXIT_ADDRESS = 4, /* an address cannot be listened on */
    PN_EXIT_CUT = 75,    /* stopped, but requests were lost (EX_TEMPFAIL) */
    /* KeyboardInterrupt before anything was served. A process that a signal told to stop makes
     * PN_EXIT_OK of it. */
    PN_EXIT_INTERRUPTED = 130,
};

/* Starting such a process again would end in the same way. */
static inline bool pn_exit_is_final(int status)
{
    return status == PN_EXIT_CONFIG || status == PN_EXIT_APP || status == PN_EXIT_ADDRESS;
}
