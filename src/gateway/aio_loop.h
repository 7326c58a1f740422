/* SPDX-License-Identifier: Apache-2.0 */
/* What the files aio_*.c share: the object behind pelton.Loop, and its handles.
 *
 * Who may touch what. The queues of handles are guarded by the GIL: whoever is attached may put a handle at their
 * end. The pn_loop under them has an owner (docs/lifecycle.md):
 *  - a loop of its own (home NULL): whoever is attached, since the loop gives the GIL away only
 *    around its sleep, and then another thread may arm a timer, which wakes it;
 *  - home's: cores of one OS thread (fibers, inline) at any time; with the thread carrier only who owns the loop.
 *    Everybody else hands over: timers go to `unarmed`, and home arms them.
 * Queues own one reference to each handle in them; an armed timer and a watched fd own one, too.
 * pn_loop's callbacks (due timer, ready fd) are called attached; they only move handles and run no Python code. */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <sys/types.h>

#include "base/check.h"
#include "base/list.h"
#include "gateway/aio.h"
#include "loop/loop.h"

enum {
    PN__AIO_INLINE_ARGS = 2,
    PN__AIO_HANDLES_KEEP = 256,   /* freed handles of each kind kept for reuse */
    PN__AIO_TURNS_MAX = 64,       /* without a sleep, before Python looks for signals */
    PN__AIO_SCRATCH = 256 * 1024, /* what a transport reads at once; asyncio's max_size */
};

/* Names of attributes and methods, interned by each loop. */
enum pn__aio_word {
    PN__L_ATTACH = 0,
    PN__L_BUFFER_UPDATED,
    PN__L_CALL_CONNECTION_LOST,
    PN__L_CLOSE,
    PN__L_CONNECTION_LOST,
    PN__L_CONNECTION_MADE,
    PN__L_DATA,
    PN__L_DATA_RECEIVED,
    PN__L_DETACH,
    PN__L_DONE,
    PN__L_EOF_RECEIVED,
    PN__L_FILENO,
    PN__L_GET_BUFFER,
    PN__L_PAUSE_WRITING,
    PN__L_PEERNAME,
    PN__L_PENDING,
    PN__L_READ_READY,
    PN__L_RESUME_WRITING,
    PN__L_SET_RESULT,
    PN__L_SOCKET,
    PN__L_SOCKNAME,
    PN__L_START,
    PN__L_TRANSPORTS,
    PN__L_WRITE_READY,
    PN__L_COUNT,
};

/* Methods that asyncio's C code looks up for each task and each wake of one: HomeLoop has them as attributes. */
enum pn__aio_bound {
    PN__BOUND_CALL_SOON = 0,
    PN__BOUND_GET_DEBUG,
    PN__BOUND_COUNT,
};

struct pn__handle {
    PyObject ob_base;
    struct pn__aio *aio;     /* owned reference */
    struct pn__handle *next; /* in a queue, or among the kept */
    PyObject *callback;      /* all owned; NULL once cancelled */
    PyObject *args[PN__AIO_INLINE_ARGS];
    PyObject *more_args; /* a tuple of all of them when they are more than that */
    PyObject *context;
    PyObject *source; /* debug: where it was made (traceback.StackSummary), or NULL */
    PyObject *repr;   /* debug: from before it was cancelled, or NULL */
    PyObject *weakrefs;
    /* Not NULL: CALLBACK is a method of a C object, and this is the method without Python's detour. 0, or -1 with
     * an exception. */
    int (*native)(PyObject *self);
    uint8_t arg_count; /* of args */
    bool is_timer;
    bool cancelled;
    bool queued; /* stands in ready or unarmed */
};

struct pn__timer_handle {
    struct pn__handle base;
    struct pn_list node; /* in aio->armed */
    struct pn_timer timer;
    int64_t deadline_ns;
    double when;
};

/* A transport that has gathered output: when the callback that runs is over, FLUSH is called with OWNER, which may gather
 * again. 0, or -1 with an exception. */
struct pn__gathered {
    struct pn_list node; /* in aio->gathering */
    PyObject *owner;     /* borrowed: the transport that this is a part of */
    int (*flush)(PyObject *owner);
};

/* A task that is being made, by the file aio_task.c. */
struct pn__task_start {
    PyObject *callback; /* owned: what it gave to call_soon; NULL: it has not yet */
    PyObject *context;  /* owned */
    PyObject *task;     /* borrowed: what it gave to the set of all tasks */
};

/* asyncio's set of all tasks and what is in it; all owned, NULL: it is asyncio's own */
struct pn__aio_tasks {
    PyObject *set;
    PyObject *data;      /* a set of weak references */
    PyObject *pending;   /* a list of those that went while somebody iterated */
    PyObject *iterating; /* a set */
    PyObject *removed;   /* their callback */
};

/* First in, first out. */
struct pn__handles {
    struct pn__handle *first;
    struct pn__handle *last;
    size_t count;
};

/* One end of a descriptor: its watch and who is called. */
struct pn__aio_end {
    struct pn_watch watch;
    struct pn__handle *handle; /* owned; NULL: nobody */
    struct pn__aio *aio;
};

struct pn__aio_fd {
    struct pn__aio_end read;
    struct pn__aio_end write;
    PyObject *transport; /* borrowed: the one in C that has the descriptor, or NULL */
};

struct pn__aio {
    PyObject ob_base;
    struct pn_loop *loop;      /* NULL: closed, or home that isn't bound yet */
    struct pn_aio_home *home;  /* NULL: a loop of its own */
    struct pn_aio_home *aside; /* what home is again after a run before the worker's */
    bool owns_loop;
    struct pn__handles ready;
    struct pn__handles unarmed;   /* timers that whoever owns the loop will set */
    struct pn_list calls;         /* struct pn_aio_call */
    bool calls_due;               /* calls is not empty */
    struct pn__task_start *start; /* NULL: no task is being made */
    PyObject *unlisted; /* borrowed: a task in its first step, which the set of all tasks has not */
    struct pn__aio_tasks tasks;
    PyObject *spare_task;             /* owned: empty, not tracked; NULL: none */
    PyObject *no_args;                /* () */
    PyObject *bound[PN__BOUND_COUNT]; /* owned; NULL: not asked for yet */
    PyObject *context_names; /* owned: the keywords ("context",) that a caller gave; or NULL */
    struct pn_list armed;
    size_t armed_count;
    struct pn__aio_fd **fds; /* by number; entries are made once and kept */
    size_t fd_count;
    PyTypeObject *handle_type; /* owned */
    PyTypeObject *timer_type;
    PyTypeObject *transport_type;
    PyTypeObject *tls_type;
    PyTypeObject *sock_call_type;
    PyTypeObject *socket_type;   /* socket.socket */
    PyObject *buffered_protocol; /* asyncio.BufferedProtocol */
    PyObject *future_type;       /* asyncio.Future */
    PyObject *future_names;      /* ("loop",) */
    PyObject *transport_socket;  /* asyncio.trsock.TransportSocket */
    struct pn_list sock_waits;   /* see aio_sock.h; owns a reference to each */
    PyObject *window;            /* see aio_window.h */
    PyObject *window_args;       /* (INT_MAX, window) */
    PyObject *words[PN__L_COUNT];
    char *scratch;            /* PN__AIO_SCRATCH; made when the first transport reads */
    struct pn_list gathering; /* struct pn__gathered: transports with output of this callback */
    uint64_t callback_number; /* how many have begun */
    bool in_callback;
    struct pn__handle *kept_handles; /* dead, not tracked, of no type */
    struct pn__handle *kept_timers;
    unsigned kept_handle_count;
    unsigned kept_timer_count;
    struct pn_message wake;
    atomic_bool wake_sent;
    unsigned long thread_id; /* who runs it, as threading.get_ident() says */
    bool running;
    bool stopping;
    bool closed;
    bool debug;
    bool failed;     /* a callback's exception is to leave the loop: it is set */
    bool batch_done; /* the callbacks of a turn have run */
    bool slept;      /* since the last batch */
    bool woke;       /* the last batch came after a sleep */
    bool release_wanted;
    unsigned depth;           /* of _run_once, which a callback may call again */
    pid_t pid;                /* who made the epoll set */
    PyObject *current_handle; /* debug only; owned */
    PyThreadState *detached;  /* while sleeping */
};

static inline void pn__handles_push(struct pn__handles *q, struct pn__handle *h)
{
    h->next = NULL;
    h->queued = true;
    if (q->last)
        q->last->next = h;
    else
        q->first = h;
    q->last = h;
    /* Whoever runs the loop asks for it without the GIL. */
    __atomic_store_n(&q->count, q->count + 1, __ATOMIC_RELAXED);
}

/* NULL when there is none; the queue's reference comes along. */
static inline struct pn__handle *pn__handles_pop(struct pn__handles *q)
{
    struct pn__handle *h = q->first;
    if (!h)
        return NULL;
    q->first = h->next;
    if (!q->first)
        q->last = NULL;
    h->queued = false;
    __atomic_store_n(&q->count, q->count - 1, __ATOMIC_RELAXED);
    return h;
}

static inline bool pn__aio_has_ready(const struct pn__aio *aio)
{
    return __atomic_load_n(&aio->ready.count, __ATOMIC_RELAXED) > 0 ||
           __atomic_load_n(&aio->unarmed.count, __ATOMIC_RELAXED) > 0 ||
           __atomic_load_n(&aio->calls_due, __ATOMIC_RELAXED);
}

static inline struct pn__timer_handle *pn__handle_timer(struct pn__handle *h)
{
    return pn_container_of(h, struct pn__timer_handle, base);
}

/* --- aio_handle.c: what call_soon and its kin return --- */

/* The types, new; 0, or -1 with an exception. */
int pn__handle_types(PyObject *module, PyTypeObject **handle, PyTypeObject **timer);
/* New, with COUNT arguments from ARGS (borrowed). CONTEXT is borrowed; NULL or None: a copy of the
 * caller's. NULL with an exception. */
struct pn__handle *pn__handle_new(struct pn__aio *aio, bool is_timer, PyObject *callback,
                                  PyObject *const *args, Py_ssize_t count, PyObject *context);
/* Calls it in its context. What the callback raises goes to the loop's exception handler: 0, or -1
 * with SystemExit or KeyboardInterrupt set. */
int pn__handle_run(struct pn__handle *h);
/* The exception that CALLBACK raised, which is set, goes to the loop's exception handler; as pn__handle_run. */
int pn__handle_failed(struct pn__aio *aio, PyObject *callback, PyObject *context);
/* Drops callback and arguments; a timer is taken off where that is allowed. Runs Python code. */
int pn__handle_cancel(struct pn__handle *h);
/* The kept ones, when the loop goes. */
void pn__handles_free_kept(struct pn__aio *aio);

/* --- aio_task.c --- */
/* Whether the next call_soon is that of a new task. */
static inline bool pn__task_starts(const struct pn__aio *aio)
{
    return aio->start && !aio->start->callback;
}
/* It is this one. */
void pn__task_scheduled(struct pn__aio *aio, PyObject *callback, PyObject *context);
/* SET is asyncio's set of all tasks, a WeakSet: what is to be its add(), and the getter of its data. */
PyObject *pn__tasks_list_by(PyObject *self, PyObject *set);
int pn__tasks_traverse(struct pn__aio *aio, visitproc visit, void *arg);
void pn__tasks_clear(struct pn__aio *aio);

/* --- aio_timer.c --- */
PyObject *pn__aio_call_later(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kw);
PyObject *pn__aio_call_at(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kw);
/* Takes an armed timer off and returns true: the reference is the caller's then. */
bool pn__timer_disarm(struct pn__timer_handle *t);
/* Sets what waits in unarmed. Owner. */
void pn__aio_arm_waiting(struct pn__aio *aio);

/* --- aio_fd.c: add_reader and its kin, as SelectorEventLoop's own code calls them --- */
PyObject *pn__aio_add_reader(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *pn__aio_add_writer(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *pn__aio_remove_reader(PyObject *self, PyObject *fd);
PyObject *pn__aio_remove_writer(PyObject *self, PyObject *fd);
/* (reader or None, writer or None), or None when nobody watches FD. */
PyObject *pn__aio_watched(PyObject *self, PyObject *fd);
/* A list of (fd, reader or None, writer or None). */
PyObject *pn__aio_watched_all(PyObject *self, PyObject *unused);
/* The transport in C of the descriptor FD; None: it has none, or is no descriptor. */
PyObject *pn__aio_transport_of(PyObject *self, PyObject *fd);
/* From now on it is T, which takes itself off again before it is gone. 0 or -1. */
int pn__aio_set_transport(struct pn__aio *aio, int fd, PyObject *t);
void pn__aio_unset_transport(struct pn__aio *aio, int fd, PyObject *t);
bool pn__aio_has_transport(const struct pn__aio *aio, int fd);
int pn__aio_fds_traverse(struct pn__aio *aio, visitproc visit, void *arg);
/* Watches everything whose handle is there on aio->loop, or nothing; handles stay. */
void pn__aio_fds_watch(struct pn__aio *aio);
void pn__aio_fds_unwatch(struct pn__aio *aio);
/* The same for transports: CALLBACK (borrowed) is called, by NATIVE if that is not NULL, when FD has one of EVENTS
 * (EPOLLIN or EPOLLOUT). NATIVE is the method that CALLBACK, a PyCFunction, is bound to. 0 or -1. */
int pn__aio_watch(struct pn__aio *aio, int fd, uint32_t events, PyObject *callback,
                  int (*native)(PyObject *self));
/* 1: nobody watches any more; 0: nobody did; -1. */
int pn__aio_unwatch(struct pn__aio *aio, int fd, uint32_t events);
/* Stops watching all; the references go at the end of DROPPED, the entries are freed. */
void pn__aio_fds_drop(struct pn__aio *aio, struct pn__handles *dropped);

/* --- aio_run.c --- */
/* Owner: takes what stands in aio->calls to TODO, an initialised head, and puts back what is left of it. */
void pn__aio_calls_take(struct pn__aio *aio, struct pn_list *todo);
void pn__aio_calls_put_back(struct pn__aio *aio, struct pn_list *todo);
/* Runs what stands in TODO: 0, or -1 with an exception that ends the loop. */
int pn__aio_calls_run(struct pn_list *todo);
/* At most MAX of the calls that are ready now, in order: 0, or -1 with an exception that ends the loop. */
int pn__aio_run_batch(struct pn__aio *aio, size_t max);
/* The pn_loop LOOP runs AIO's callbacks itself from now on, in its HOME phase; one that AIO owns
 * gives the GIL away in its sleep. */
void pn__aio_attach_loop(struct pn__aio *aio, struct pn_loop *loop);
PyObject *pn__aio_run_once(PyObject *self, PyObject *unused);
/* Ends the loop's sleep, or keeps it from the next one. Any thread. */
void pn__aio_wake(struct pn__aio *aio);

/* --- aio_loop.c --- */
/* call_soon from C, without debug mode's questions: CALLBACK and ARGS are borrowed, CONTEXT as pn__handle_new. 0,
 * or -1 with an exception. */
int pn__aio_soon(struct pn__aio *aio, PyObject *callback, PyObject *const *args, Py_ssize_t count,
                 PyObject *context);
/* Whether the caller, who is attached, may set timers and watch descriptors now. */
bool pn__aio_may_touch(const struct pn__aio *aio);
/* A handle was queued by somebody who may not touch the loop: wakes it. */
static inline void pn__aio_wake_if_foreign(struct pn__aio *aio)
{
    if (aio->home && !pn__aio_may_touch(aio))
        pn__aio_wake(aio);
}
/* FUTURE, unless it is done: None is its result, or EXC (borrowed, may be NULL) its exception. 0 or -1. */
int pn__aio_settle_future(PyObject *future, PyObject *exc);
/* Flushes all that have gathered something, in CONTEXT, the callback's: 0, or -1 with SystemExit or KeyboardInterrupt. An
 * exception that is set stays. */
int pn__aio_flush_gathered(struct pn__aio *aio, PyObject *context);
/* PN__AIO_SCRATCH bytes, good until Python code runs; NULL with MemoryError. */
char *pn__aio_scratch(struct pn__aio *aio);
/* RuntimeError when it is closed. 0 or -1. */
int pn__aio_check_closed(const struct pn__aio *aio);
/* Debug mode: the thread, unless THREADSAFE, and whether CALLBACK can be called. NAME is the method's. */
int pn__aio_check_debug(struct pn__aio *aio, PyObject *callback, const char *name, bool threadsafe);
/* An argument that may be given by name: *VALUE is borrowed, and NULL where it was not given. */
struct pn__argument {
    const char *name;
    PyObject **value;
};
/* Takes the COUNT arguments of WANTED from keywords, of the method NAME: 0, or -1 for others, and for those that were
 * given already. */
int pn__aio_keywords(const char *name, PyObject *const *values, PyObject *kw,
                     const struct pn__argument *wanted, size_t count);
/* Gives it a pn_loop and an epoll set of its own. 0, or -1 with an exception. */
int pn__aio_open(struct pn__aio *aio);
/* Every call that is not due yet goes; runs Python code. */
void pn__aio_drop_timers(struct pn__aio *aio);
/* Every scheduled call and every watch goes; runs Python code. */
void pn__aio_drop_all(struct pn__aio *aio);
/* The same, and the pn_loop is gone, or given back. */
void pn__aio_release(struct pn__aio *aio);

/* --- aio_home.c: home's loop runs by itself while the worker does not run yet --- */
PyObject *pn__aio_open_alone(PyObject *self, PyObject *unused); /* False: it is not that early */
PyObject *pn__aio_close_alone(PyObject *self, PyObject *unused);
