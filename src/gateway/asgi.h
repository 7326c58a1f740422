/* SPDX-License-Identifier: Apache-2.0 */
/* What the files asgi*.c share: an application's channel to one client, and how it is waited on.
 *
 * The application runs on home, in an asyncio.Task. Whoever parses a request makes its channel, with the
 * scope, and posts it to home (struct pn_aio_call); home calls the application in the HOME phase of the
 * same turn, together with what else has come in the turn. What the wire tells later is noted in the channel,
 * and posted the same way, since no Python code may run while the loop is owned.
 *
 *   start (owner) --> posted --> begin (home): app(scope, receive, send), Task, its first step
 *                                  |  receive() and send(): awaitables, which do their work when they
 *                                  |  are first stepped, or wait in channel->waiters for a wake
 *                                finish (home): the task is over
 *
 * A channel that nobody else refers to when its task is over goes, with its receive and send, to the next request.
 *
 * receive() and send() work on home only, inside the application. They take the loop's ownership for the
 * moment in which they touch the exchange (own, disown); Python objects are dropped after that. */
#pragma once

#include "gateway/internal.h"
#include "http/ws_conn.h"

/* Interned strings; pn__asgi_word_text in asgi_names.c has the same order. */
enum pn__asgi_word {
    /* fields of the usual messages */
    PN__A_TYPE = 0,
    PN__A_BODY,
    PN__A_MORE_BODY,
    PN__A_STATUS,
    PN__A_HEADERS,
    PN__A_TRAILERS,
    PN__A_TEXT,
    PN__A_BYTES,
    /* other keys of scopes and messages */
    PN__A_ASGI,
    PN__A_HTTP_VERSION,
    PN__A_SERVER,
    PN__A_CLIENT,
    PN__A_SCHEME,
    PN__A_METHOD,
    PN__A_ROOT_PATH,
    PN__A_PATH,
    PN__A_RAW_PATH,
    PN__A_QUERY_STRING,
    PN__A_STATE,
    PN__A_EXTENSIONS,
    PN__A_MORE_TRAILERS,
    PN__A_FILE,
    PN__A_OFFSET,
    PN__A_COUNT,
    PN__A_LINKS,
    PN__A_SUBPROTOCOLS,
    PN__A_SUBPROTOCOL,
    PN__A_CODE,
    PN__A_REASON,
    /* types of scopes and messages */
    PN__A_HTTP,
    PN__A_HTTPS,
    PN__A_REQUEST,
    PN__A_DISCONNECT,
    PN__A_RESPONSE_START,
    PN__A_RESPONSE_BODY,
    PN__A_RESPONSE_TRAILERS,
    PN__A_RESPONSE_PATHSEND,
    PN__A_RESPONSE_ZEROCOPYSEND,
    PN__A_EARLY_HINT,
    PN__A_RESPONSE_DEBUG,
    PN__A_WS_ACCEPT,
    PN__A_WS_SEND,
    PN__A_WS_CLOSE,
    PN__A_WS_RESPONSE_START,
    PN__A_WS_RESPONSE_BODY,
    PN__A_WS,
    PN__A_WSS,
    PN__A_WEBSOCKET,
    PN__A_WS_CONNECT,
    PN__A_WS_RECEIVE,
    PN__A_WS_DISCONNECT,
    /* values */
    PN__A_HTTP_1_0,
    PN__A_HTTP_1_1,
    PN__A_HTTP_2,
    PN__A_GET,
    PN__A_TASK_NAME,
    /* attributes and keywords */
    PN__A_LOOP,
    PN__A_NAME,
    PN__A_EAGER_START,
    PN__A_DONE,
    PN__A_RESULT,
    PN__A_CANCEL,
    PN__A_SET_RESULT,
    PN__A_ADD_DONE_CALLBACK,
    PN__A_THROW,
    PN__A_CLOSE,
    PN__A_FILENO,
    PN__A_WORDS,
};

enum {
    PN__ASGI_VALUES = 512,         /* slots for (name, value) of headers */
    PN__ASGI_LINES = 128,          /* slots for all header lines of a request */
    PN__ASGI_HEADS = 64,           /* slots for headers of answers, ... */
    PN__ASGI_HEAD_ITEMS = 8,       /* which have at most so many */
    PN__ASGI_FREE_MAX = 64,        /* dead channels, and awaitables, kept for reuse */
    PN__ASGI_NAME_MAX = 120,       /* of a request's name that outlives its exchange */
    PN__ASGI_OTHER_NAME_MAX = 256, /* bytes of a name that are lower-cased on the stack */
    PN__ASGI_FIELDS = PN__A_BYTES + 1,
    PN__ASGI_TYPE_FIRST = PN__A_RESPONSE_START, /* of the types that an application sends */
    PN__ASGI_TYPES = PN__A_WS_RESPONSE_BODY + 1 - PN__ASGI_TYPE_FIRST,
};

/* A header that was seen before, if it is no secret. */
struct pn__asgi_value {
    PyObject *pair; /* owned: (name, value) */
    unsigned id;
};

/* Header lines that came before, and what was made of them. */
struct pn__asgi_lines {
    PyObject *list; /* owned, shown to nobody; NULL: the slot is free */
    char *text;     /* owned */
    size_t size;
    bool forwarded;  /* there are headers of that family */
    uint16_t misses; /* requests in a row that found other lines here */
};

/* Headers of an answer, whose very objects came before. */
struct pn__asgi_head {
    uint64_t id; /* for the wire */
    int64_t length;
    unsigned flags;
    unsigned item_count;
    unsigned field_count;
    PyObject *items[PN__ASGI_HEAD_ITEMS]; /* owned */
    struct pn_field fields[PN__ASGI_HEAD_ITEMS];
};

struct pn__asgi_head_slot {
    uint64_t key;               /* of the last headers that were not found here */
    struct pn__asgi_head *head; /* owned, or NULL */
    uint16_t misses;
};

struct pn__asgi_server {
    PyObject *scope;     /* owned: the template of http scopes */
    PyObject *websocket; /* and of websocket's */
    PyObject *address;   /* owned: (host, port) */
};

/* What the gateway has for ASGI: gw->asgi, owned. */
struct pn__asgi {
    struct pn_gateway_asgi config; /* root_path is a copy */
    size_t root_len;
    PyObject *words[PN__A_WORDS];
    PyObject *seen[PN__ASGI_TYPES];   /* owned: the last str of each type that came; or NULL */
    PyObject *names[PN_HEADER_COUNT]; /* bytes by header id; NULL: no header */
    struct pn__asgi_value values[PN__ASGI_VALUES];
    struct pn__asgi_lines lines[PN__ASGI_LINES];
    struct pn__asgi_head_slot heads[PN__ASGI_HEADS];
    uint64_t head_id;
    uint16_t head_pause;             /* so many headers that come are not kept */
    uint16_t head_pause_next;        /* and so many after the next that is */
    struct pn__asgi_server *servers; /* as gw->servers */
    PyObject *extensions;            /* a dict */
    PyObject *ws_extensions;
    PyObject *state; /* of lifespan; NULL: the application has none */
    PyObject *no_bytes;
    PyObject *slash;        /* b"/" */
    PyObject *request;      /* the message without a body */
    PyObject *no_more;      /* the message of a disconnection */
    PyObject *task_type;    /* asyncio.Task */
    PyObject *future_type;  /* asyncio.Future */
    PyObject *cancelled;    /* asyncio.CancelledError */
    PyObject *task_named;   /* a dict: keywords of a new task */
    PyObject *task_args;    /* a tuple for one's positional argument; NULL: it is in use */
    PyObject *task_done;    /* asyncio.Task.done */
    PyObject *task_result;  /* asyncio.Task.result */
    PyObject *future_names; /* keywords of a new future */
    PyObject *as_coroutine; /* pelton._asgi.as_coroutine */
    PyObject *lifespan;     /* pelton._asgi.Lifespan's object; NULL: none */
    PyTypeObject *channel_type;
    PyTypeObject *awaitable_type;
    struct pn__channel *free_channels;
    struct pn__awaitable *free_awaitables;
    unsigned free_channel_count;
    unsigned free_awaitable_count;
    struct pn_list open; /* channels whose task is not over */
    struct pn_list left; /* others that somebody still refers to */
    unsigned open_count;
    struct pn__answer answer; /* of the response that is being started; empty in between */
};

/* How far a WebSocket has come, by its application's messages. */
enum pn__asgi_ws {
    PN__ASGI_NO_WS = 0,
    PN__ASGI_WS_CONNECTING = 1, /* the handshake is to be answered */
    PN__ASGI_WS_RESPONDING = 2, /* by another answer than 101; stage says the rest */
    PN__ASGI_WS_OPEN = 3,
    PN__ASGI_WS_CLOSED = 4, /* refused, or the application has closed it */
};

/* How far the answer has come. */
enum pn__asgi_stage {
    PN__ASGI_STARTING = 0, /* http.response.start is due */
    PN__ASGI_BODY = 1,
    PN__ASGI_TRAILERS = 2, /* the body is whole, trailers are due */
    PN__ASGI_COMPLETE = 3,
};

struct pn__channel {
    PyObject ob_base;
    PyObject
        *methods[2]; /* owned, receive and send, bound to it; NULL: not made yet, or given up */
    struct pn_aio_call call;
    struct pn_list node;   /* in gw->asgi->open, which owns a reference; then in gw->asgi->left */
    struct pn_gateway *gw; /* NULL: the gateway has gone */
    struct pn_exchange *x; /* pinned; NULL: it is over, or the client has gone */
    struct pn__channel *next; /* among the free */
    PyObject *scope;          /* owned; NULL once the application was called */
    PyObject *task;           /* owned; NULL before, and when it is over */
    PyObject *trailers;       /* owned list, or NULL */
    struct pn_list waiters;   /* struct pn__awaitable */
    enum pn__asgi_stage stage;
    enum pn_cancel why; /* the exchange was cancelled; PN_CANCEL_NONE: it was not */
    bool begun;
    bool body_over;  /* the last http.request was given */
    bool peer_ended; /* nothing more comes from the client: http.disconnect */
    bool told_end;   /* and receive has said so */
    bool cut;        /* the server ends this request */
    bool cut_due;    /* the task is to be cancelled */
    bool wants_trailers;
    bool sending; /* an awaitable of send is under way, on anything but an open WebSocket */
    bool torn;    /* one was cancelled in the middle of a body */
    /* Of a WebSocket. */
    uint8_t ws_stage;   /* enum pn__asgi_ws */
    bool connect_given; /* websocket.connect */
    struct pn_ws *ws;   /* owned while open, and until the task is over; NULL: not accepted */
    char key[PN_WS_KEY_SIZE];
    /* Method and target, once the exchange has gone; more of them is cut off. */
    uint8_t name_size;
    char name[PN__ASGI_NAME_MAX];
};

/* What an awaitable's work came to. */
enum pn__asgi_step {
    PN__ASGI_DONE = 0, /* *result is new */
    PN__ASGI_WAIT = 1, /* go on after a wake */
    PN__ASGI_FAIL = 2, /* an exception is set */
};

struct pn__awaitable {
    PyObject ob_base;
    struct pn__channel *channel; /* owned; next among the free when dead */
    struct pn_list node;         /* in channel->waiters */
    PyObject *message;           /* owned; NULL: receive */
    PyObject *future;            /* owned, both: what it waits on */
    PyObject *iterator;
    PyObject *body; /* owned bytes that are being sent */
    size_t sent;    /* of them, or of the file */
    size_t size;
    off_t offset;
    int fd;        /* owned; -1: no file is being sent */
    bool last;     /* nothing follows what is being sent */
    uint8_t state; /* asgi_await.c's */
};

/* --- asgi_names.c --- */
int pn__asgi_names_init(struct pn__asgi *asgi);
void pn__asgi_names_fini(struct pn__asgi *asgi);
/* Owner. (name, value), new. NULL with an exception. */
PyObject *pn__asgi_header(struct pn__asgi *asgi, unsigned id, struct pn_str name,
                          struct pn_str value);

/* --- asgi_headers.c --- */
/* Owner. The list of X's headers, new; NULL with an exception (memory). HOST, if there is one, stands instead of
 * what Host says. *FORWARDED becomes true where one of that family is among them. */
PyObject *pn__asgi_headers(struct pn__asgi *asgi, const struct pn_exchange *x, struct pn_str host,
                           bool *forwarded);
void pn__asgi_headers_fini(struct pn__asgi *asgi);

/* --- asgi_scope.c --- */
int pn__asgi_scope_init(struct pn_gateway *gw, struct pn__asgi *asgi);
void pn__asgi_scope_fini(struct pn_gateway *gw, struct pn__asgi *asgi);
/* Owner. A request's scope, or a WebSocket's: new; NULL with an exception (memory). */
PyObject *pn__asgi_scope(struct pn_gateway *gw, struct pn_exchange *x, bool websocket);

/* --- asgi_await.c --- */
int pn__asgi_await_init(struct pn__asgi *asgi);
void pn__asgi_await_fini(struct pn__asgi *asgi);
/* New, for receive (MESSAGE NULL) or send (MESSAGE borrowed). */
PyObject *pn__asgi_awaitable(struct pn__channel *c, PyObject *message);
/* Home, inside: whoever waits looks again. Runs no Python code but callbacks' scheduling. */
void pn__asgi_wake_all(struct pn__channel *c);

/* --- asgi_http.c: the work of awaitables; home, inside --- */
enum pn__asgi_step pn__asgi_http_receive(struct pn__channel *c, PyObject **result);
enum pn__asgi_step pn__asgi_http_send(struct pn__channel *c, struct pn__awaitable *a);
/* The message that starts an answer, and what send does with a part of its body; WHAT is for errors. */
struct pn__message;
enum pn__asgi_step pn__asgi_start_answer(struct pn__channel *c, struct pn__message *m,
                                         const char *what);
enum pn__asgi_step pn__asgi_send_body(struct pn__channel *c, struct pn__message *m,
                                      struct pn__awaitable *a);

/* --- asgi_message.c: home, inside --- */
/* A message of the application's, whose dict outlives it; all borrowed of the dict. */
struct pn__message {
    PyObject *dict;
    PyObject *type; /* a str */
    int which;      /* enum pn__asgi_word; PN__A_WORDS: a type that is none of ours */
    bool read;      /* fields has all that is in the dict */
    PyObject *fields[PN__ASGI_FIELDS];
};
/* 0, or -1 with an exception: no dict, or without a type. */
int pn__asgi_read(struct pn__asgi *asgi, PyObject *message, struct pn__message *m);
/* The value of KEY, borrowed; NULL without an exception when there is none. */
static inline PyObject *pn__asgi_field(const struct pn__asgi *asgi, const struct pn__message *m,
                                       enum pn__asgi_word key)
{
    if (pn_likely(m->read))
        return (unsigned)key < PN__ASGI_FIELDS ? m->fields[key] : NULL;
    return PyDict_GetItemWithError(m->dict, asgi->words[key]);
}
/* KEY's truth; DEFAULT_VALUE where there is none. -1 with an exception. */
int pn__asgi_flag(const struct pn__asgi *asgi, struct pn__message *m, enum pn__asgi_word key,
                  bool default_value);
/* The text of a message's type is not EXPECTED: an exception. */
void pn__asgi_raise_order(PyObject *type, const char *expected);

/* --- asgi_websocket.c: the same for WebSockets --- */
/* Owner. What X asks for: 1, and C is one's; 0: an ordinary request; -1: neither, it was answered. */
int pn__asgi_ws_check(struct pn__channel *c);
enum pn__asgi_step pn__asgi_ws_receive(struct pn__channel *c, PyObject **result);
enum pn__asgi_step pn__asgi_ws_send(struct pn__channel *c, struct pn__awaitable *a);
/* Owner. The task is over: closes what is open. FAILED: with 1011. */
void pn__asgi_ws_settle(struct pn__channel *c, bool failed);

/* --- asgi_answer.c: heads of answers from messages; home, inside --- */
/* Fills gw->asgi->answer with HEADERS, an iterable of (name, value) in bytes: 0, or -1 with an exception. */
int pn__asgi_take_headers(struct pn__asgi *asgi, PyObject *headers, const char *what);
/* The wire refused the answer's head: says why in an exception. */
void pn__asgi_raise_refused(struct pn__asgi *asgi);

/* --- asgi_heads.c: home, inside --- */
/* What is known of HEADERS, good until Python code runs; NULL: nothing. Then *KEY, if it is not 0, is for ... */
const struct pn__asgi_head *pn__asgi_head_find(struct pn__asgi *asgi, PyObject *headers,
                                               uint64_t *key);
/* ... keeping it, when gw->asgi->answer has what was made of HEADERS, and the wire has taken it. */
void pn__asgi_head_keep(struct pn__asgi *asgi, PyObject *headers, uint64_t key);
void pn__asgi_heads_fini(struct pn__asgi *asgi);

/* --- asgi_file.c --- */
/* MESSAGE is pathsend's or zerocopysend's: A gets a descriptor and a range. 0, or -1 with an exception. */
int pn__asgi_open_file(struct pn__asgi *asgi, const struct pn__message *message, bool is_path,
                       struct pn__awaitable *a);

/* --- asgi.c --- */
void pn__asgi_start(struct pn_handler *h, struct pn_exchange *x);
/* Owner or inside on home: the exchange is not looked at any more. */
void pn__asgi_release_exchange(struct pn__channel *c);
/* Owner, while the exchange's text is good: its name is kept for the log. */
void pn__asgi_keep_name(struct pn__channel *c);
/* What a send after the client's leaving raises. */
void pn__asgi_raise_gone(struct pn__channel *c);

/* The exchange is touched between these two. */
static inline struct pn_core *pn__asgi_own(void)
{
    struct pn_core *core = pn_core_self();
    pn_core_leave_app(core);
    return core;
}
static inline void pn__asgi_disown(struct pn_core *core)
{
    pn_core_enter_app(core);
}
