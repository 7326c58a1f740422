/* SPDX-License-Identifier: Apache-2.0 */
/* LoopCore, the C base class of pelton.Loop: its life, call_soon and call_soon_threadsafe, and the private fields that
 * asyncio.base_events reads and writes, which live here and not in the instance's dict.
 *
 *   made (tp_new) --_open--> open --close(): _release--> closed
 *   made -----------------pn_aio_home_bind--> open      (home's, see aio_home.c) */
#include "gateway/aio_accept.h"
#include "gateway/aio_sock.h"
#include "gateway/aio_tls.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <structmember.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "gateway/aio_window.h"

/* --- Who may do what --------------------------------------------------------------------------- */

bool pn__aio_may_touch(const struct pn__aio *aio)
{
    if (pn_likely(!aio->home))
        return true;
    struct pn_core *core = pn_core_self();
    if (!aio->loop || !core)
        return false;
    return pn_cores_carrier(pn_core_cores(core)) != PN_CARRIER_THREADS || pn_core_owns_loop(core);
}

int pn__aio_check_closed(const struct pn__aio *aio)
{
    if (pn_likely(!aio->closed && (aio->loop || aio->home)))
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

static bool right_thread(const struct pn__aio *aio)
{
    if (!aio->running || (aio->home && pn_core_self()))
        return true;
    return PyThread_get_thread_ident() == aio->thread_id;
}

PN_COLD int pn__aio_check_debug(struct pn__aio *aio, PyObject *callback, const char *name,
                                bool threadsafe)
{
    if (!threadsafe && !right_thread(aio)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Non-thread-safe operation invoked on an event loop other than the current "
                        "one");
        return -1;
    }
    PyObject *r = PyObject_CallMethod((PyObject *)aio, "_check_callback", "Os", callback, name);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static PyObject **find_argument(const struct pn__argument *wanted, size_t count, PyObject *key)
{
    for (size_t i = 0; i < count; i++)
        if (!*wanted[i].value && PyUnicode_CompareWithASCIIString(key, wanted[i].name) == 0)
            return wanted[i].value;
    return NULL;
}

int pn__aio_keywords(const char *name, PyObject *const *values, PyObject *kw,
                     const struct pn__argument *wanted, size_t count)
{
    Py_ssize_t n = PyTuple_GET_SIZE(kw);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyTuple_GET_ITEM(kw, i);
        PyObject **value = find_argument(wanted, count, key);
        if (!value) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", name,
                         key);
            return -1;
        }
        *value = values[i];
    }
    return 0;
}

/* --- call_soon --------------------------------------------------------------------------------- */

static PyObject *soon(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t n,
                      PyObject *kw, bool threadsafe)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    PyObject *callback = n > 0 ? args[0] : NULL;
    PyObject *context = NULL;
    if (pn_likely(kw &&
                  kw == aio->context_names)) { /* asyncio's, who always gives the same object */
        context = args[n];
    } else if (kw) {
        const struct pn__argument named[] = {{"callback", &callback}, {"context", &context}};
        if (pn__aio_keywords(name, args + n, kw, named, PN_ARRAY_LEN(named)) < 0)
            return NULL;
        if (context && PyTuple_GET_SIZE(kw) == 1)
            Py_XSETREF(aio->context_names, Py_NewRef(kw));
    }
    if (pn_unlikely(!callback)) {
        PyErr_Format(PyExc_TypeError, "%s() needs a callback", name);
        return NULL;
    }
    if (pn_unlikely(pn__aio_check_closed(aio) < 0))
        return NULL;
    if (pn_unlikely(aio->debug) && pn__aio_check_debug(aio, callback, name, threadsafe) < 0)
        return NULL;
    if (pn__task_starts(aio) && !threadsafe && context && n == 1) {
        pn__task_scheduled(aio, callback, context);
        Py_RETURN_NONE; /* asyncio.Task drops it */
    }
    struct pn__handle *h =
        pn__handle_new(aio, false, callback, args + 1, n > 0 ? n - 1 : 0, context);
    if (pn_unlikely(!h))
        return NULL;
    if (pn_unlikely(pn__aio_check_closed(aio) < 0)) { /* a collection closed it */
        Py_DECREF(h);
        return NULL;
    }
    Py_INCREF(h);
    pn__handles_push(&aio->ready, h);
    return (PyObject *)h;
}

int pn__aio_soon(struct pn__aio *aio, PyObject *callback, PyObject *const *args, Py_ssize_t count,
                 PyObject *context)
{
    if (pn_unlikely(pn__aio_check_closed(aio) < 0))
        return -1;
    struct pn__handle *h = pn__handle_new(aio, false, callback, args, count, context);
    if (pn_unlikely(!h))
        return -1;
    if (pn_unlikely(pn__aio_check_closed(aio) < 0)) {
        Py_DECREF(h);
        return -1;
    }
    pn__handles_push(&aio->ready, h);
    pn__aio_wake_if_foreign(aio);
    return 0;
}

static PyObject *call_soon(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kw)
{
    PyObject *h = soon(self, "call_soon", args, n, kw, false);
    if (pn_likely(h != NULL))
        pn__aio_wake_if_foreign((struct pn__aio *)self);
    return h;
}

static PyObject *call_soon_threadsafe(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                      PyObject *kw)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    PyObject *h = soon(self, "call_soon_threadsafe", args, n, kw, true);
    if (!h)
        return NULL;
    if (aio->home)
        pn__aio_wake_if_foreign(aio);
    else if (!aio->running || PyThread_get_thread_ident() != aio->thread_id)
        pn__aio_wake(aio);
    return h;
}

/* A handle that asyncio's Python code made (signal handlers), or one of ours. */
static PyObject *add_callback(PyObject *self, PyObject *handle)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    struct pn__handle *h;
    if (Py_IS_TYPE(handle, aio->handle_type) || Py_IS_TYPE(handle, aio->timer_type)) {
        h = (struct pn__handle *)Py_NewRef(handle);
        if (h->aio != aio || h->queued || h->cancelled) {
            Py_DECREF(h);
            Py_RETURN_NONE;
        }
    } else {
        PyObject *run = PyObject_GetAttrString(handle, "_run");
        if (!run)
            return NULL;
        h = pn__handle_new(aio, false, run, NULL, 0, NULL);
        Py_DECREF(run);
        if (!h)
            return NULL;
    }
    pn__handles_push(&aio->ready, h);
    pn__aio_wake_if_foreign(aio);
    Py_RETURN_NONE;
}

static PyObject *write_to_self(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pn__aio_wake((struct pn__aio *)self);
    Py_RETURN_NONE;
}

static PyObject *loop_time(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    return PyFloat_FromDouble((double)pn_clock_mono_ns() / 1e9);
}

/* --- Life -------------------------------------------------------------------------------------- */

static void wake_delivered(struct pn_message *message)
{
    struct pn__aio *aio = pn_container_of(message, struct pn__aio, wake);
    /* Cleared first: what is queued from here on sends again. */
    atomic_store(&aio->wake_sent, false);
}

/* The handles' types hang on the base class, where the garbage collector sees them. */
static PyTypeObject *type_attr(PyTypeObject *type, const char *name)
{
    PyObject *o = PyObject_GetAttrString((PyObject *)type, name);
    if (o && !PyType_Check(o)) {
        PyErr_Format(PyExc_TypeError, "%s.%s is not a type", type->tp_name, name);
        Py_CLEAR(o);
    }
    return (PyTypeObject *)o;
}

static const char *const word_text[PN__L_COUNT] = {
    [PN__L_ATTACH] = "_attach",
    [PN__L_BUFFER_UPDATED] = "buffer_updated",
    [PN__L_CALL_CONNECTION_LOST] = "_call_connection_lost",
    [PN__L_CLOSE] = "close",
    [PN__L_CONNECTION_LOST] = "connection_lost",
    [PN__L_CONNECTION_MADE] = "connection_made",
    [PN__L_DATA] = "data",
    [PN__L_DATA_RECEIVED] = "data_received",
    [PN__L_DETACH] = "_detach",
    [PN__L_DONE] = "done",
    [PN__L_EOF_RECEIVED] = "eof_received",
    [PN__L_FILENO] = "fileno",
    [PN__L_GET_BUFFER] = "get_buffer",
    [PN__L_PAUSE_WRITING] = "pause_writing",
    [PN__L_PEERNAME] = "peername",
    [PN__L_PENDING] = "pending",
    [PN__L_READ_READY] = "_read_ready",
    [PN__L_RESUME_WRITING] = "resume_writing",
    [PN__L_SET_RESULT] = "set_result",
    [PN__L_SOCKET] = "socket",
    [PN__L_SOCKNAME] = "sockname",
    [PN__L_START] = "_start",
    [PN__L_TRANSPORTS] = "_transports",
    [PN__L_WRITE_READY] = "_write_ready",
};

char *pn__aio_scratch(struct pn__aio *aio)
{
    if (pn_unlikely(!aio->scratch)) {
        aio->scratch = pn_try_malloc(PN__AIO_SCRATCH);
        if (!aio->scratch)
            PyErr_NoMemory();
    }
    return aio->scratch;
}

static int intern_words(struct pn__aio *aio)
{
    aio->future_names = Py_BuildValue("(s)", "loop");
    if (!aio->future_names)
        return -1;
    for (int i = 0; i < PN__L_COUNT; i++) {
        aio->words[i] = PyUnicode_InternFromString(word_text[i]);
        if (!aio->words[i])
            return -1;
    }
    return 0;
}

static int make_window(struct pn__aio *aio, PyTypeObject *type)
{
    PyTypeObject *window_type = type_attr(type, "_Window");
    if (!window_type)
        return -1;
    aio->window = pn__window_new(window_type);
    Py_DECREF(window_type);
    if (aio->window)
        aio->window_args = Py_BuildValue("(iO)", INT_MAX, aio->window);
    return aio->window_args ? 0 : -1;
}

static PyObject *core_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kw))
{
    struct pn__aio *aio = (struct pn__aio *)type->tp_alloc(type, 0); /* zeroed */
    if (!aio)
        return NULL;
    pn_list_init(&aio->calls);
    pn_list_init(&aio->armed);
    pn_list_init(&aio->gathering);
    pn_list_init(&aio->sock_waits);
    aio->wake.deliver = wake_delivered;
    atomic_init(&aio->wake_sent, false);
    aio->handle_type = type_attr(type, "_Handle");
    aio->timer_type = type_attr(type, "_TimerHandle");
    aio->transport_type = type_attr(type, "_Transport");
    aio->tls_type = type_attr(type, "_TlsTransport");
    aio->sock_call_type = type_attr(type, "_SocketCall");
    aio->socket_type = type_attr(type, "_socket");
    aio->buffered_protocol = (PyObject *)type_attr(type, "_BufferedProtocol");
    aio->future_type = (PyObject *)type_attr(type, "_Future");
    aio->transport_socket = (PyObject *)type_attr(type, "_TransportSocket");
    aio->no_args = PyTuple_New(0);
    if (aio->no_args && aio->handle_type && aio->timer_type && aio->transport_type &&
        aio->tls_type && aio->sock_call_type && aio->socket_type && aio->buffered_protocol &&
        aio->future_type && aio->transport_socket && intern_words(aio) == 0 &&
        make_window(aio, type) == 0)
        return (PyObject *)aio;
    Py_DECREF(aio);
    return NULL;
}

int pn__aio_open(struct pn__aio *aio)
{
    struct pn_poller *poller = pn_poller_epoll_create();
    if (!poller) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    aio->owns_loop = true;
    aio->pid = getpid();
    pn__aio_attach_loop(aio, pn_loop_create(poller));
    return 0;
}

static PyObject *core_open(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    if (aio->loop || aio->home) {
        PyErr_SetString(PyExc_RuntimeError, "the loop is open already");
        return NULL;
    }
    if (pn__aio_open(aio) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Moves what FROM holds to the end of TO. */
static void move_all(struct pn__handles *to, struct pn__handles *from)
{
    struct pn__handle *h;
    while ((h = pn__handles_pop(from)))
        pn__handles_push(to, h);
}

static void drop(struct pn__handles *handles)
{
    struct pn__handle *h;
    while ((h = pn__handles_pop(handles)))
        Py_DECREF(h);
}

static void take_timers(struct pn__aio *aio, struct pn__handles *dropped)
{
    struct pn_list *node;
    move_all(dropped, &aio->unarmed);
    while ((node = pn_list_pop_front(&aio->armed))) {
        struct pn__timer_handle *t = pn_list_entry(node, struct pn__timer_handle, node);
        if (aio->loop)
            pn_timer_cancel(aio->loop, &t->timer);
        else
            t->timer.heap_pos = 0; /* its heap has gone with a fork */
        pn__handles_push(dropped, &t->base);
    }
    aio->armed_count = 0;
}

void pn__aio_drop_timers(struct pn__aio *aio)
{
    struct pn__handles dropped = {NULL, NULL, 0};
    take_timers(aio, &dropped);
    drop(&dropped);
}

void pn__aio_drop_all(struct pn__aio *aio)
{
    struct pn__handles dropped = {NULL, NULL, 0};
    move_all(&dropped, &aio->ready);
    take_timers(aio, &dropped);
    pn__aio_fds_drop(aio, &dropped);
    struct pn_list waits;
    pn_list_init(&waits);
    pn__sock_take_all(aio, &waits);
    /* From here on Python code may run: everything is settled. */
    drop(&dropped);
    pn__sock_let_go(&waits);
}

void pn__aio_release(struct pn__aio *aio)
{
    if (aio->depth > 0) { /* closed by its own callback: when that is over */
        aio->release_wanted = true;
        return;
    }
    aio->release_wanted = false;
    struct pn_loop *loop = aio->loop;
    /* In the child of a fork the epoll set is the parent's, too: it is left alone. */
    if (loop && aio->owns_loop && aio->pid != getpid())
        pn_loop_after_fork_child(loop);
    pn__aio_drop_all(aio);
    if (aio->loop != loop) /* somebody else was faster, in a finaliser */
        return;
    aio->loop = NULL;
    if (loop && aio->owns_loop)
        pn_loop_destroy(loop);
    atomic_store(&aio->wake_sent, false);
}

static PyObject *core_release(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    aio->closed = true;
    pn__aio_release(aio);
    Py_RETURN_NONE;
}

static int visit_queue(const struct pn__handles *q, visitproc visit, void *arg)
{
    for (struct pn__handle *h = q->first; h; h = h->next)
        Py_VISIT((PyObject *)h);
    return 0;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(aio->handle_type);
    Py_VISIT(aio->timer_type);
    Py_VISIT(aio->transport_type);
    Py_VISIT(aio->tls_type);
    Py_VISIT(aio->sock_call_type);
    Py_VISIT(aio->socket_type);
    Py_VISIT(aio->buffered_protocol);
    Py_VISIT(aio->future_type);
    Py_VISIT(aio->transport_socket);
    Py_VISIT(aio->current_handle);
    for (int i = 0; i < PN__BOUND_COUNT; i++)
        Py_VISIT(aio->bound[i]);
    int rc = pn__tasks_traverse(aio, visit, arg);
    if (rc == 0)
        rc = visit_queue(&aio->ready, visit, arg);
    if (rc == 0)
        rc = visit_queue(&aio->unarmed, visit, arg);
    struct pn_list *node;
    if (rc != 0)
        return rc;
    pn_list_for_each(node, &aio->armed)
        Py_VISIT((PyObject *)pn_list_entry(node, struct pn__timer_handle, node));
    rc = pn__sock_traverse(aio, visit, arg);
    return rc ? rc : pn__aio_fds_traverse(aio, visit, arg);
}

static int core_clear(PyObject *self)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    pn__aio_drop_all(aio);
    pn__tasks_clear(aio);
    Py_CLEAR(aio->current_handle);
    for (int i = 0; i < PN__BOUND_COUNT; i++)
        Py_CLEAR(aio->bound[i]);
    return 0;
}

static void core_dealloc(PyObject *self)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    aio->closed = true;
    aio->depth = 0;
    pn__aio_release(aio);
    pn__handles_free_kept(aio);
    pn__tasks_clear(aio);
    Py_CLEAR(aio->no_args);
    Py_CLEAR(aio->current_handle);
    Py_CLEAR(aio->context_names);
    for (int i = 0; i < PN__BOUND_COUNT; i++)
        Py_CLEAR(aio->bound[i]);
    Py_CLEAR(aio->handle_type);
    Py_CLEAR(aio->timer_type);
    Py_CLEAR(aio->transport_type);
    Py_CLEAR(aio->tls_type);
    Py_CLEAR(aio->sock_call_type);
    Py_CLEAR(aio->socket_type);
    Py_CLEAR(aio->buffered_protocol);
    Py_CLEAR(aio->future_type);
    Py_CLEAR(aio->transport_socket);
    Py_CLEAR(aio->future_names);
    Py_CLEAR(aio->window_args);
    Py_CLEAR(aio->window);
    for (int i = 0; i < PN__L_COUNT; i++)
        Py_CLEAR(aio->words[i]);
    free(aio->scratch);
    type->tp_free(self);
    Py_DECREF(type);
}

/* --- Fields of asyncio.base_events ------------------------------------------------------------- */

/* CLOSURE is the offset of a bool. */
static PyObject *get_flag(PyObject *self, void *closure)
{
    return PyBool_FromLong(*(bool *)((char *)self + (size_t)closure));
}

static int set_flag(PyObject *self, PyObject *value, void *closure)
{
    int truth = value ? PyObject_IsTrue(value) : 0;
    if (truth < 0)
        return -1;
    *(bool *)((char *)self + (size_t)closure) = truth > 0;
    return 0;
}

static PyObject *get_thread_id(PyObject *self, void *Py_UNUSED(closure))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    if (!aio->running)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(aio->thread_id);
}

static int set_thread_id(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    if (!value || value == Py_None) {
        aio->running = false;
        return 0;
    }
    unsigned long id = PyLong_AsUnsignedLong(value);
    if (id == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    aio->thread_id = id;
    aio->running = true;
    return 0;
}

static PyObject *get_current_handle(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *h = ((struct pn__aio *)self)->current_handle;
    return Py_NewRef(h ? h : Py_None);
}

static int set_current_handle(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    Py_XSETREF(aio->current_handle, value == Py_None ? NULL : Py_XNewRef(value));
    return 0;
}

static PyObject *core_create_future(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    return PyObject_Vectorcall(aio->future_type, &self, 0, aio->future_names);
}

static PyObject *core_is_running(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct pn__aio *)self)->running);
}

static PyObject *core_is_closed(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct pn__aio *)self)->closed);
}

static PyObject *core_get_debug(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct pn__aio *)self)->debug);
}

/* Whether the caller is home, when it is home's loop. */
static PyObject *core_on_home(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    struct pn_core *core = pn_core_self();
    if (core)
        return PyBool_FromLong(pn_core_number(core) == 0);
    return PyBool_FromLong(!aio->running || PyThread_get_thread_ident() == aio->thread_id);
}

/* --- The type ---------------------------------------------------------------------------------- */

#define FASTCALL(fn) (PyCFunction)(void (*)(void))(fn)

#define KW (METH_FASTCALL | METH_KEYWORDS)

/* The first ones have an order: bound_methods. */
static PyMethodDef methods[] = {
    {"call_soon", FASTCALL(call_soon), METH_FASTCALL | METH_KEYWORDS,
     "call_soon($self, callback, /, *args, context=None)\n--\n\n"
     "Call callback(*args) in the next turn, after what was scheduled before."},
    {"get_debug", core_get_debug, METH_NOARGS, "Whether debug mode is on."},
    {"call_soon_threadsafe", FASTCALL(call_soon_threadsafe), METH_FASTCALL | METH_KEYWORDS,
     "call_soon_threadsafe($self, callback, /, *args, context=None)\n--\n\n"
     "Like call_soon(), from any thread."},
    {"call_later", FASTCALL(pn__aio_call_later), METH_FASTCALL | METH_KEYWORDS,
     "call_later($self, delay, callback, /, *args, context=None)\n--\n\n"
     "Call callback(*args) in delay seconds."},
    {"call_at", FASTCALL(pn__aio_call_at), METH_FASTCALL | METH_KEYWORDS,
     "call_at($self, when, callback, /, *args, context=None)\n--\n\n"
     "Call callback(*args) when time() is at least when."},
    {"time", loop_time, METH_NOARGS, "The loop's clock, in seconds (CLOCK_MONOTONIC)."},
    {"is_running", core_is_running, METH_NOARGS, "Whether the loop is running."},
    {"is_closed", core_is_closed, METH_NOARGS, "Whether the loop was closed."},
    {"_run_once", pn__aio_run_once, METH_NOARGS, NULL},
    {"_add_callback", add_callback, METH_O, NULL},
    {"_write_to_self", write_to_self, METH_NOARGS, NULL},
    {"_add_reader", FASTCALL(pn__aio_add_reader), METH_FASTCALL, NULL},
    {"_add_writer", FASTCALL(pn__aio_add_writer), METH_FASTCALL, NULL},
    {"_remove_reader", pn__aio_remove_reader, METH_O, NULL},
    {"_remove_writer", pn__aio_remove_writer, METH_O, NULL},
    {"_watched", pn__aio_watched, METH_O, NULL},
    {"_transport_of", pn__aio_transport_of, METH_O, NULL},
    {"_watched_all", pn__aio_watched_all, METH_NOARGS, NULL},
    {"create_future", core_create_future, METH_NOARGS, "A future of this loop."},
    {"sock_recv", FASTCALL(pn__sock_recv), KW, "Receive at most so many bytes."},
    {"sock_recv_into", FASTCALL(pn__sock_recv_into), KW, "Receive into a buffer."},
    {"sock_sendall", FASTCALL(pn__sock_sendall), KW, "Send all of the data."},
    {"sock_accept", FASTCALL(pn__sock_accept), KW, "Accept a connection."},
    {"sock_connect", FASTCALL(pn__sock_connect), KW, "Connect to an address."},
    {"sock_recvfrom", FASTCALL(pn__sock_recvfrom), KW, "Receive a datagram and its sender."},
    {"sock_recvfrom_into", FASTCALL(pn__sock_recvfrom_into), KW, "The same, into a buffer."},
    {"sock_sendto", FASTCALL(pn__sock_sendto), KW, "Send a datagram to an address."},
    {"_accept", FASTCALL(pn__aio_accept), METH_FASTCALL, NULL},
    {"_new_transport", FASTCALL(pn__transport_new), METH_FASTCALL, NULL},
    {"_make_transport_type", pn__transport_make_type, METH_O | METH_STATIC, NULL},
    {"_new_tls", FASTCALL(pn__tls_new), METH_FASTCALL, NULL},
    {"_make_tls_type", pn__tls_make_type, METH_O | METH_STATIC, NULL},
    {"_open", core_open, METH_NOARGS, NULL},
    {"_release", core_release, METH_NOARGS, NULL},
    {"_on_home", core_on_home, METH_NOARGS, NULL},
    {"_list_tasks_by", pn__tasks_list_by, METH_O, NULL},
    {"_open_alone", pn__aio_open_alone, METH_NOARGS, NULL},
    {"_close_alone", pn__aio_close_alone, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* --- HomeLoop's hot methods -------------------------------------------------------------------- */

static PyMethodDef *const bound_methods[PN__BOUND_COUNT] = {
    [PN__BOUND_CALL_SOON] = &methods[0],
    [PN__BOUND_GET_DEBUG] = &methods[1],
};

/* CLOSURE is an enum pn__aio_bound. */
static PyObject *get_bound(PyObject *self, void *closure)
{
    PyObject **bound = &((struct pn__aio *)self)->bound[(size_t)closure];
    if (pn_unlikely(!*bound))
        *bound = PyCFunction_New(bound_methods[(size_t)closure], self);
    return Py_XNewRef(*bound);
}

/* As with any attribute: what is put in its place counts until it is deleted. */
static int set_bound(PyObject *self, PyObject *value, void *closure)
{
    Py_XSETREF(((struct pn__aio *)self)->bound[(size_t)closure], Py_XNewRef(value));
    return 0;
}

static PyGetSetDef getset[] = {
    {"_bound_call_soon", get_bound, set_bound, NULL, (void *)PN__BOUND_CALL_SOON},
    {"_bound_get_debug", get_bound, set_bound, NULL, (void *)PN__BOUND_GET_DEBUG},
    {"_closed", get_flag, set_flag, NULL, (void *)offsetof(struct pn__aio, closed)},
    {"_stopping", get_flag, set_flag, NULL, (void *)offsetof(struct pn__aio, stopping)},
    {"_debug", get_flag, set_flag, NULL, (void *)offsetof(struct pn__aio, debug)},
    {"_thread_id", get_thread_id, set_thread_id, NULL, NULL},
    {"_current_handle", get_current_handle, set_current_handle, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_clear, core_clear},
    {Py_tp_traverse, core_traverse},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pelton._pelton.LoopCore",
    .basicsize = sizeof(struct pn__aio),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

int pn_aio_add_types(PyObject *module)
{
    PyTypeObject *handle = NULL;
    PyTypeObject *timer = NULL;
    PyObject *core = PyType_FromModuleAndSpec(module, &spec, NULL);
    PyObject *sock_call = pn__sock_make_type(module);
    PyObject *window = pn__window_make_type(module);
    int rc = -1;
    if (core && pn__handle_types(module, &handle, &timer) == 0 &&
        PyObject_SetAttrString(core, "_Handle", (PyObject *)handle) == 0 &&
        PyObject_SetAttrString(core, "_TimerHandle", (PyObject *)timer) == 0 && sock_call &&
        PyObject_SetAttrString(core, "_SocketCall", sock_call) == 0 && window &&
        PyObject_SetAttrString(core, "_Window", window) == 0)
        rc = PyModule_AddObjectRef(module, "LoopCore", core);
    Py_XDECREF(core);
    Py_XDECREF(sock_call);
    Py_XDECREF(window);
    Py_XDECREF(handle);
    Py_XDECREF(timer);
    return rc;
}
