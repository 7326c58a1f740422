/* SPDX-License-Identifier: Apache-2.0 */
/* One sentence each, so that a log can be searched for them. */
#include "main/describe.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_SIZE = 2048 };

void pn__describe_start(const struct pn__start *start)
{
    pn_log_info(start->log, "pelton %s on %s, pid %d", PELTON_VERSION, start->python,
                (int)getpid());
}

/* "http://127.0.0.1:8000, unix:/run/x.sock"; what doesn't fit is counted. */
static void list_addresses(const struct pn__start *start, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < start->listener_count; i++) {
        const struct pn_listener *listener = start->listeners[i];
        int n =
            snprintf(out + used, size - used, "%s%s%s", i ? ", " : "",
                     pn_listener_is_unix(listener) ? "" : "http://", pn_listener_text(listener));
        if (n < 0 || (size_t)n >= size - used) {
            out[used] = '\0';
            return;
        }
        used += (size_t)n;
    }
}

static void describe_carrier(const struct pn_settings_carrier *carrier, char *out, size_t size)
{
    switch (carrier->kind) {
    case PN_CARRIER_INLINE:
        snprintf(out, size, "one request at a time (blocking)");
        break;
    case PN_CARRIER_THREADS:
        snprintf(out, size, "up to %d requests at once, in threads", carrier->cores);
        break;
    case PN_CARRIER_FIBERS:
        snprintf(out, size, "up to %d request%s at once, in fibers%s", carrier->cores,
                 carrier->cores == 1 ? "" : "s",
                 carrier->has_asyncio ? ", with an asyncio event loop" : "");
        break;
    }
}

void pn__describe_serving(const struct pn__start *start)
{
    char addresses[LINE_MAX_SIZE];
    char carrier[128];
    char processes[64];
    int count = start->settings.processes.processes;
    list_addresses(start, addresses, sizeof addresses);
    describe_carrier(&start->settings.carrier, carrier, sizeof carrier);
    if (count == 1)
        snprintf(processes, sizeof processes, "one process,");
    else
        snprintf(processes, sizeof processes, "%d processes, each", count);
    pn_log_info(start->log, "serving %s at %s: %s %s", start->settings.app.target, addresses,
                processes, carrier);
}
