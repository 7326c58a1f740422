/* SPDX-License-Identifier: Apache-2.0 */
/* From a client's bytes to messages: frames, fragments, masks, compression, UTF-8 and control frames, as
 * RFC 6455 5 to 8 and RFC 7692 have them. Sans I/O: bytes in, events out; it sends nothing. What there is
 * to answer (a pong, the echo of a close) is the caller's business.
 *
 *   between messages --data frame--> [fragments, control frames between them] --fin--> TEXT or BINARY
 *
 * Bounds: the size of a message, inflated; how much more than it was it may be when inflated; how
 * many frames it may have, so that empty fragments don't come for ever. Memory grows with bytes that
 * have come, never with what a head announces. */
#pragma once

#include "http/ws_deflate.h"
#include "http/ws_frame.h"
#include "http/ws_utf8.h"

struct pn_ws_limits {
    size_t message_size_max; /* bytes, inflated; more is 1009 */
    unsigned fragments_max;  /* frames of one message; more is 1008 */
    unsigned ratio_max; /* inflated size over received size, above PN_WS_RATIO_FREE bytes; more is
                                1009; 0: no bound */
};

enum { PN_WS_RATIO_FREE = 1 << 20 };

enum pn_ws_event {
    PN_WS_MORE = 0, /* all bytes are used up */
    PN_WS_TEXT = 1, /* a whole message */
    PN_WS_BINARY = 2,
    PN_WS_CLOSE = 3, /* status, and data is the reason; nothing may come after it */
    PN_WS_PING = 4,
    PN_WS_PONG = 5,
};

struct pn_ws_message {
    struct pn_str data; /* valid until the next call on the receiver */
    unsigned status;    /* of a close frame; PN_WS_STATUS_NONE without one */
};

/* One connection's way in. Embedded; the fields are the receiver's own. */
struct pn_ws_receiver {
    const struct pn_ws_limits *limits; /* borrowed */
    struct pn_ws_deflate *deflate;     /* borrowed; NULL: not agreed on */
    struct pn_ws_frame frame;          /* under way */
    uint64_t taken;                    /* of its payload */
    uint64_t received;                 /* payload bytes of the message, as they came */
    struct pn_bytes message;
    struct pn_ws_utf8 utf8;
    unsigned fragments;
    uint8_t kind; /* PN_WS_OP_TEXT, PN_WS_OP_BINARY; 0: no message is under way */
    bool compressed;
    bool in_frame; /* frame is valid */
    bool given;    /* the last event's data lies in message or control: forget it */
    bool closed;
    uint8_t head_size; /* of an incomplete head */
    uint8_t control_size;
    char head[PN_WS_CLIENT_HEAD_MAX];
    char control[PN_WS_CONTROL_MAX];
};

void pn_ws_receiver_init(struct pn_ws_receiver *r, const struct pn_ws_limits *limits,
                         struct pn_ws_deflate *deflate);
void pn_ws_receiver_fini(struct pn_ws_receiver *r);

/* Goes through the LEN bytes at BUF up to the next event. Returns an enum pn_ws_event, or the negative of the
 * status to close with (1002, 1007, 1008, 1009; 1011 without memory), after which the receiver must
 * not be called again. *USED is how many bytes are done with; call again with the rest, and after MORE
 * with more. After CLOSE it uses nothing. */
int pn_ws_receive(struct pn_ws_receiver *r, const char *buf, size_t len, size_t *used,
                  struct pn_ws_message *out);

/* The connection rests: gives back memory that only speeds the next message up. */
void pn_ws_receiver_rest(struct pn_ws_receiver *r);
