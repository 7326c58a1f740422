/* SPDX-License-Identifier: Apache-2.0 */
/* Classifies the bytes of a request, 64 at a time: the only part of the parser that is written once per
 * instruction set. All implementations give the same masks for the same bytes. The tables are
 * constants, chosen by the caller once and passed in, so threads share nothing that changes. */
#pragma once

#include "base/defs.h"

enum { PN_H1_BLOCK = 64 };

struct pn_h1_scan {
    const char *name; /* "avx2", "sse4.2" or "portable" */
    /* Reads BLOCKS * PN_H1_BLOCK bytes at P and writes a word a block to each map; bit i of a word
     * stands for byte i of its block.
     *   STOP: anything but ALPHA, DIGIT and '-'.
     *   CONTROL: below 0x20 except HTAB, or 0x7f (RFC 9110 5.5: never in a value). */
    void (*classify)(const char *p, size_t blocks, uint64_t *stop, uint64_t *control);
};

enum pn_h1_isa {
    PN_H1_ISA_PORTABLE = 0,
    PN_H1_ISA_SSE42 = 1,
    PN_H1_ISA_AVX2 = 2,
    PN_H1_ISA_COUNT = 3,
};

/* NULL when this machine cannot run it. Portable is always there. */
const struct pn_h1_scan *pn_h1_scan_for(enum pn_h1_isa isa);

/* The fastest that this machine runs. Ask once, at start. */
const struct pn_h1_scan *pn_h1_scan_best(void);
