/* SPDX-License-Identifier: Apache-2.0 */
/* What the test extension uses of stub_cores.c beside core.h. */
#pragma once

#include "cores/core.h"

struct stub_wire;

struct stub_counts {
    unsigned entered; /* times the loop was given away */
    unsigned waits;
};

struct pn_cores *stub_cores_create(enum pn_carrier carrier, const struct pn_core_host *host);
void stub_cores_destroy(struct pn_cores *cores);
/* Whose progress a parked core waits for. */
void stub_cores_set_wire(struct pn_cores *cores, struct stub_wire *wire);
/* What the next admissions answer. */
void stub_cores_admission(struct pn_cores *cores, bool full, bool queue);
void stub_cores_run_queued(struct pn_cores *cores, bool drop);
struct stub_counts stub_cores_take_counts(struct pn_cores *cores);
struct pn_core *stub_core(struct pn_cores *cores);
bool stub_is_inside(void);
/* Aborts when the caller does not own the loop. */
void stub_must_own(const char *what);
/* The next wait is cut, as at the end of a server. */
void stub_cut(void);

/* In _gwtest.c: the peer does what it is waited for, and notify is called. */
void stub_wire_progress(struct stub_wire *wire);
