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

static void name_carrier(const struct pn_settings *settings, char *out, size_t size)
{
    const struct pn_settings_carrier *carrier = &settings->carrier;
    if (settings->asgi.kind >= PN_INTERFACE_ASGI) {
        snprintf(out, size, "ASGI requests as asyncio tasks, as many at once as there are");
        return;
    }
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

/* A clause about a request that waits. */
static const char *waiting(const struct pn_settings *settings)
{
    if (settings->redirect.disabled)
        return "a request that waits in a call of the module uwsgi lets the others go on "
               "(--no-redirect: other calls block)";
    return "a request that waits for a socket, a lock or a sleep lets the others go on";
}

/* A clause about a request that computes, or waits in a call that nothing redirects. */
static void computing(const struct pn_settings_carrier *carrier, char *out, size_t size)
{
    if (carrier->kind == PN_CARRIER_THREADS)
        snprintf(out, size, "one that computes shares Python with them");
    else if (carrier->log_blocking_ms > 0)
        snprintf(out, size, "one that computes delays them, and is logged when that takes %lld ms",
                 (long long)carrier->log_blocking_ms);
    else
        snprintf(out, size, "one that computes delays them");
}

static void describe_delays(const struct pn_settings *settings, char *out, size_t size)
{
    char compute[128];
    if (settings->asgi.kind >= PN_INTERFACE_ASGI) {
        snprintf(out, size,
                 "one that awaits lets the others go on; one that computes, or waits in a "
                 "call that is not awaited, delays them");
        return;
    }
    if (settings->carrier.kind == PN_CARRIER_INLINE) {
        snprintf(out, size,
                 "a request that waits or computes delays all others of its process; with "
                 "--threads N or --async N a waiting one would not");
        return;
    }
    computing(&settings->carrier, compute, sizeof compute);
    snprintf(out, size, "%s; %s", waiting(settings), compute);
}

void pn__describe_carrier(const struct pn_settings *settings, char *out, size_t size)
{
    char carrier[128];
    char delays[512];
    name_carrier(settings, carrier, sizeof carrier);
    describe_delays(settings, delays, sizeof delays);
    snprintf(out, size, "Each process of Pelton serves %s: %s.", carrier, delays);
}

void pn__describe_serving(const struct pn__start *start)
{
    char delays[512];
    char addresses[LINE_MAX_SIZE];
    char carrier[128];
    char processes[64];
    int count = start->settings.processes.processes;
    list_addresses(start, addresses, sizeof addresses);
    name_carrier(&start->settings, carrier, sizeof carrier);
    if (count == 1)
        snprintf(processes, sizeof processes, "one process,");
    else
        snprintf(processes, sizeof processes, "%d processes, each", count);
    pn_log_info(start->log, "serving %s at %s: %s %s", start->settings.app.target, addresses,
                processes, carrier);
    describe_delays(&start->settings, delays, sizeof delays);
    pn_log_info(start->log, "%s", delays);
}
