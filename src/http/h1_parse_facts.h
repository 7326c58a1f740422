/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the parser: what the header lines that matter for framing have said so far, and what follows
 * from all of them together. A set of bits on the stack of one
 * pn_h1_parse_head call. */
#pragma once

#include "http/h1_parse.h"

enum pn__h1_fact {
    PN__H1_FACT_HOST = 1,
    PN__H1_FACT_TYPE = 2,       /* a Content-Type line */
    PN__H1_FACT_KEEP_ALIVE = 4, /* Connection: keep-alive */
    PN__H1_FACT_CLOSE = 8,      /* Connection: close */
    PN__H1_FACT_CONNECTION_UPGRADE = 16,
    PN__H1_FACT_UPGRADE = 32, /* an Upgrade line */
    PN__H1_FACT_CODING = 64,  /* a Transfer-Encoding line */
    PN__H1_FACT_CODING_UNKNOWN = 128,
    PN__H1_FACT_EXPECT_CONTINUE = 256,
    PN__H1_FACT_EXPECT_UNKNOWN = 512,
};

/* Takes note of the line H, whose id is from PN_HEADER_SPECIAL_FIRST to _LAST, in *FACTS. The byte
 * after the value's trailing whitespace is the CR of the line's end. Writes content_length and chunked
 * of OUT, and authority where the target has not set it. 0 or a PN_H1_E_*. */
int pn__h1_facts_add(unsigned *facts, const char *buf, const struct pn_header *h,
                     struct pn_h1_head *out);

/* The facts that are not as plain as pn__h1_facts_conclude has them. 0 or error. */
int pn__h1_facts_conclude_odd(unsigned facts, struct pn_h1_head *out);

/* After the last line: checks what takes all lines to know, and fills the rest of OUT. 0 or error. */
static inline int pn__h1_facts_conclude(unsigned facts, struct pn_h1_head *out)
{
    const unsigned harmless = PN__H1_FACT_TYPE | PN__H1_FACT_KEEP_ALIVE;
    if (pn_likely((facts & ~harmless) == PN__H1_FACT_HOST)) {
        out->has_host = true;
        out->keep_alive = out->minor > 0 || facts & PN__H1_FACT_KEEP_ALIVE;
        out->has_body = out->content_length > 0;
        return 0;
    }
    return pn__h1_facts_conclude_odd(facts, out);
}
