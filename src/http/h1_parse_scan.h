/* SPDX-License-Identifier: Apache-2.0 */
/* Classifies the bytes of a request, 64 at a time: the only part of the parser that is written once per
 * instruction set. All implementations give the same masks for the same bytes. The tables are
 * constants, chosen by the caller once and passed in, so threads share nothing that changes. */
#pragma once

#include "base/defs.h"

enum { PN_H1_BLOCK = 64 };

struct pn_h1_scan {
    const char *name; /* "avx2", "sse4.2" or "portable" */
    /* Classifies the N >= 1 bytes at P; writes a word to each map for every 64 of them, begun ones
     * included. Bit i of a word stands for byte i of its block; bits beyond N are 0. A last block that
     * is not full is read from its end backwards: the 64 bytes before P + N must be readable. No byte
     * from P + N on is read.
     *   STOP: anything but ALPHA, DIGIT and '-'.
     *   CONTROL: below 0x20 except HTAB, or 0x7f (RFC 9110 5.5: never in a value). */
    void (*classify)(const char *p, size_t n, uint64_t *stop, uint64_t *control);
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
