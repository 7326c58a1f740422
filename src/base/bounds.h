/* SPDX-License-Identifier: Apache-2.0 */
/* Every bound of the server in one place, each with its reason. Options may lower or raise the ones
 * named so; the _HARD_MAX ones are what an option may ask for at most. */
#pragma once

#include "base/defs.h"

/* --- one turn of the loop: no source of work may starve the others --- */
enum {
    PN_TURN_EVENTS_MAX = 256,        /* epoll events fetched at once */
    PN_TURN_CALLBACKS_MAX = 64,      /* asyncio callbacks a turn */
    PN_TURN_ACCEPTS_MAX = 64,        /* connections accepted a turn */
    PN_TURN_RESUMED_MAX = 64,        /* cores resumed between two steps of the loop */
    PN_TURN_TIMERS_MAX = 256,        /* due timers fired a turn; one may set itself again */
    PN_CONN_REQUESTS_PER_EVENT = 64, /* pipelined requests before others get their turn */
};

/* --- HTTP/1.1 input --- */
enum {
    PN_HTTP_HEAD_SIZE_DEFAULT = 32768, /* request line and headers together (--buffer-size) */
    PN_HTTP_HEAD_SIZE_HARD_MAX = 1 << 20,
    PN_HTTP_TARGET_SIZE_DEFAULT = 16384, /* more is 414 */
    PN_HTTP_LINE_SIZE_DEFAULT = 16384,   /* one header line; more is 431 */
    PN_HTTP_HEADERS_DEFAULT = 100,       /* header lines; more is 431 */
    PN_HTTP_HEADERS_HARD_MAX = 512,
    PN_HTTP_CHUNK_EXT_MAX = 4096, /* bytes of chunk extensions over one body */
    PN_HTTP_TRAILERS_SIZE_MAX = 8192,
    PN_HTTP_TRAILERS_MAX = 32,
    PN_HTTP_LEADING_CRLF_MAX = 4, /* RFC 9112 2.2 asks for at least one */
};
#define PN_HTTP_BODY_MAX_DEFAULT    (INT64_C(1) << 30) /* --limit-post; more is 413 */
#define PN_HTTP_BODY_BUFFER_DEFAULT (64 * 1024)        /* read before the application is called */

/* --- HTTP/1.1 time-outs, milliseconds; options of the same names --- */
enum {
    PN_HTTP_HEADER_TIMEOUT_MS = 15000,    /* first byte to end of head; 408 */
    PN_HTTP_BODY_TIMEOUT_MS = 30000,      /* between two reads of a body; 408 */
    PN_HTTP_KEEPALIVE_TIMEOUT_MS = 65000, /* idle between requests; closed in silence */
    PN_HTTP_WRITE_TIMEOUT_MS = 30000,     /* no byte taken by the peer; cut */
    PN_HTTP_LINGER_TIMEOUT_MS = 2000,     /* lingering close (RFC 9112 9.6) */
};
enum {
    PN_HTTP_LINGER_BYTES_MAX = 1 << 20, /* drained from a refused body before the cut */
    PN_HTTP_PIPELINE_OUT_MAX = 1 << 18, /* answers of one batch gathered before a send */
};

/* --- WebSocket --- */
enum {
    PN_WS_MESSAGE_SIZE_DEFAULT = 16 << 20, /* --ws-max-size, inflated; more is 1009 */
    PN_WS_MESSAGE_SIZE_HARD_MAX = 1 << 30,
    PN_WS_FRAGMENTS_MAX = 1 << 18,    /* frames of one message, so that empty ones end; 1008 */
    PN_WS_RATIO_MAX = 200,            /* inflated over received, above a megabyte; 1009 */
    PN_WS_QUEUE_SIZE_MAX = 64 * 1024, /* of messages nobody has taken; then reading stops */
    PN_WS_PONGS_SIZE_MAX = 4096,      /* of pongs that the peer does not take; then reading stops */
    PN_WS_READ_SIZE_MAX = 1 << 20,    /* read from one peer before others get their turn */
    PN_WS_COMPRESS_SIZE_MIN = 64,     /* shorter messages gain nothing */
    PN_WS_WINDOW_BITS_MIN = 9,        /* --ws-window-bits; zlib compresses for no less */
    PN_WS_WINDOW_BITS_MAX = 15,       /* RFC 7692 7.1.2 */
    PN_WS_PING_INTERVAL_MS = 20000,   /* --ws-ping-interval */
    PN_WS_PING_TIMEOUT_MS = 20000,    /* --ws-ping-timeout; 1011 */
    PN_WS_CLOSE_TIMEOUT_MS = 10000,   /* from our close to the peer's */
};

/* --- output --- */
enum {
    PN_CONN_OUT_HIGH_WATER = 256 * 1024, /* above: the writer waits */
    PN_CONN_OUT_LOW_WATER = 64 * 1024,   /* below: the writer goes on */
    PN_RESPONSE_HEAD_SIZE_MAX = 256 * 1024,
    PN_RESPONSE_HEADERS_MAX = 1024,
};

/* --- input buffers --- */
enum {
    PN_NET_SCRATCH_SIZE = 65536, /* one shared read buffer a worker */
};

/* --- cores --- */
enum {
    PN_CORES_MAX = 100000,
    PN_CORE_STACK_SIZE_DEFAULT = 8 << 20, /* virtual; recursion to Python's limit needs 2 MB */
    PN_CORE_STACK_SIZE_MIN = 256 << 10,
    PN_CORE_THREADS_DEFAULT = 64, /* when nothing is said about carriers, but for uWSGI's options */
    PN_CORE_ASGI_DEFAULT = 4,     /* fibers beside an ASGI application, which runs on home */
    PN_CORE_QUEUE_DEFAULT = 4096, /* ready requests that wait for a core; more is 503 */
    PN_CORE_MALLOC_ARENAS = 2,    /* of glibc's, for a worker's threads */
    PN_CORE_IDLE_KEEP = 4,        /* idle carriers above this many may leave */
    PN_CORE_LEASE_MS = 10,        /* inside the application before the watchdog takes the baton */
    PN_CORE_SLOT_WAIT_MS = 5,     /* waiting for a run slot is advice only */
    PN_CORE_RECHECK_MS = 1000,    /* a parked lock wait looks again after this */
    PN_CORE_REPOLL_MAX_MS = 20,   /* and after this where another process may free the lock */
};

/* --- name look-ups of fibers --- */
enum {
    PN_RESOLVE_HELPERS_MAX = 8, /* threads; more look-ups wait in a queue */
    PN_RESOLVE_IDLE_MS = 10000, /* without work: a helper leaves */
};

/* --- listeners --- */
enum {
    PN_LISTEN_BACKLOG_DEFAULT = 1024, /* or somaxconn when that is less */
    PN_LISTENERS_MAX = 64,
    PN_ACCEPT_BACKOFF_MS = 100, /* after EMFILE, ENFILE, ENOBUFS, ENOMEM */
    PN_ACCEPT_DRAIN_MAX = 1024, /* of a backlog, at the end: new clients may come without end */
};

/* --- processes --- */
enum {
    PN_WORKERS_MAX = 1024,
    PN_AFFINITY_MAX = 1024, /* processors for one worker */
    PN_RESPAWN_BACKOFF_MIN_MS = 100,
    PN_RESPAWN_BACKOFF_MAX_MS = 30000,
    PN_SHUTDOWN_TIMEOUT_MS = 30000,
};
