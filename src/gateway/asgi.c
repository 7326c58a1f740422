/* SPDX-License-Identifier: Apache-2.0 */
/* One request of an ASGI application, from the exchange to the end of its task: asgi.h has the way.
 *
 * A channel lives as long as somebody refers to it: asgi->open until the task is over, and receive and
 * send, which an application may keep. */
#include <errno.h>

#include "gateway/asgi.h"

/* --- Channels ---------------------------------------------------------------------------------- */

static int run(struct pn_aio_call *call);

static PyObject *asgi_receive(PyObject *self, PyObject *unused);
static PyObject *asgi_send(PyObject *self, PyObject *message);

static PyMethodDef receive_method = {"receive", asgi_receive, METH_NOARGS,
                                     "receive(): an awaitable of the next message from the client"};
static PyMethodDef send_method = {"send", asgi_send, METH_O,
                                  "send(message): an awaitable that sends a message to the client"};

/* C may go, as soon as nobody has it: receive and send keep it, and it them. */
static void give_up_methods(struct pn__channel *c)
{
    PyObject *receive = c->methods[0];
    PyObject *send = c->methods[1];
    c->methods[0] = c->methods[1] = NULL;
    Py_XDECREF(receive);
    Py_XDECREF(send);
}

/* New; NULL without memory. */
static struct pn__channel *channel_make(struct pn__asgi *asgi)
{
    struct pn__channel *c = PyObject_New(struct pn__channel, asgi->channel_type);
    if (!c) {
        PyErr_Clear();
        return NULL;
    }
    pn_list_init(&c->call.node);
    pn_list_init(&c->node);
    c->methods[0] = PyCFunction_New(&receive_method, &c->ob_base);
    c->methods[1] = PyCFunction_New(&send_method, &c->ob_base);
    if (c->methods[0] && c->methods[1])
        return c;
    PyErr_Clear();
    c->scope = c->trailers = NULL;
    give_up_methods(c);
    Py_DECREF(&c->ob_base);
    return NULL;
}

/* New; NULL without memory. */
static struct pn__channel *channel_new(struct pn_gateway *gw, struct pn_exchange *x)
{
    struct pn__asgi *asgi = gw->asgi;
    struct pn__channel *c = asgi->free_channels;
    if (pn_likely(c)) {
        asgi->free_channels = c->next;
        asgi->free_channel_count--;
    } else if (!(c = channel_make(asgi))) {
        return NULL;
    }
    memset(&c->call, 0, offsetof(struct pn__channel, name) - offsetof(struct pn__channel, call));
    pn_aio_call_init(&c->call, run);
    pn_list_init(&c->node);
    pn_list_init(&c->waiters);
    c->gw = gw;
    c->x = x;
    return c;
}

static bool is_ours_alone(PyObject *method)
{
    return Py_REFCNT(method) == 1 && !((PyCFunctionObject *)method)->m_weakreflist;
}

/* C's request is over: lets go of C, or keeps it with its methods for the next request, where nobody else has any of
 * the three. */
static void channel_over(struct pn__channel *c)
{
    enum { OWN_REFS = 3 }; /* ours, and its methods' */
    struct pn__asgi *asgi = c->gw->asgi;
    if (pn_likely(Py_REFCNT(&c->ob_base) == OWN_REFS && is_ours_alone(c->methods[0]) &&
                  is_ours_alone(c->methods[1]) && asgi->free_channel_count < PN__ASGI_FREE_MAX &&
                  !c->gw->stopped)) {
        PN_ASSERT(!c->x && !c->ws && !c->task && !c->scope && pn_list_empty(&c->waiters));
        pn_list_remove(&c->node);
        c->next = asgi->free_channels;
        asgi->free_channels = c;
        asgi->free_channel_count++;
        return;
    }
    give_up_methods(c);
    Py_DECREF(&c->ob_base);
}

static void channel_dealloc(PyObject *self)
{
    struct pn__channel *c = (struct pn__channel *)self;
    PyTypeObject *type = Py_TYPE(self);
    PN_ASSERT(!c->methods[0] && !c->methods[1]);
    pn_list_remove(&c->node);
    pn_list_remove(&c->call.node);
    Py_CLEAR(c->scope);
    Py_CLEAR(c->trailers);
    PyObject_Free(self);
    Py_DECREF(type);
}

void pn__asgi_keep_name(struct pn__channel *c)
{
    struct pn_str method = pn_exchange_text(c->x, c->x->method);
    struct pn_str target = pn_exchange_text(c->x, c->x->target);
    size_t n = pn_min_size(method.n, 32);
    size_t more = pn_min_size(target.n, PN__ASGI_NAME_MAX - 1 - n);
    memcpy(c->name, method.p, n);
    c->name[n++] = ' ';
    memcpy(c->name + n, target.p, more);
    c->name_size = (uint8_t)(n + more);
}

void pn__asgi_release_exchange(struct pn__channel *c)
{
    struct pn_exchange *x = c->x;
    if (!x)
        return;
    c->x = NULL;
    if (x->handler == c) { /* else it is a WebSocket's by now */
        x->notify = NULL;
        x->handler = NULL;
    }
    pn_exchange_unpin(x);
}

void pn__asgi_raise_gone(struct pn__channel *c)
{
    pn__raise_disconnected(c->gw, c->why);
}

/* --- The end ----------------------------------------------------------------------------------- */

/* Inside. The application has come back, or failed with the exception that is set: whether that is
 * somebody's fault. */
static bool is_quiet(const struct pn__channel *c)
{
    const struct pn_gateway *gw = c->gw;
    if (PyErr_ExceptionMatches(gw->request_cut))
        return true;
    if (c->cut && PyErr_ExceptionMatches(gw->asgi->cancelled))
        return true;
    return (c->why != PN_CANCEL_NONE || c->told_end) && pn__is_disconnection(c->gw);
}

static void say_incomplete(struct pn__channel *c, const char *what)
{
    char target[256];
    struct pn_core *core = pn__asgi_own();
    size_t n = pn_log_escape(target, sizeof target, pn_exchange_text(c->x, c->x->target));
    pn__asgi_disown(core);
    pn_log_error(c->gw->log, "%.*s: %s", (int)n, target, what);
}

/* Inside. What the client gets when the application did not end the answer. LOGGED: its failure was. */
static void settle_exchange(struct pn__channel *c, bool failed, bool logged)
{
    /* Whoever has heard that the client has left may leave as well. */
    bool left = c->told_end && !c->cut && !logged;
    if (!failed && !c->cut && !left)
        say_incomplete(c, c->ws_stage == PN__ASGI_WS_CONNECTING
                              ? "the application returned without answering the handshake"
                          : c->stage == PN__ASGI_STARTING
                              ? "the application returned without starting its response"
                              : "the application returned without completing its response");
    if (!c->x) /* the log had to wait */
        return;
    struct pn_core *core = pn__asgi_own();
    struct pn_exchange *x = c->x;
    if (left)
        pn_exchange_cancel(x, PN_CANCEL_CLIENT_GONE);
    else if (x->state == PN_EXCHANGE_RECEIVED)
        pn_exchange_answer_status(x, c->cut ? 503 : 500, c->cut);
    else if (x->state == PN_EXCHANGE_STARTED)
        pn_exchange_cancel(x, c->cut ? PN_CANCEL_SHUTDOWN : PN_CANCEL_HANDLER);
    pn__asgi_release_exchange(c);
    pn__asgi_disown(core);
}

static void settle_websocket(struct pn__channel *c, bool failed)
{
    struct pn_core *core = pn__asgi_own();
    pn__asgi_ws_settle(c, failed);
    pn__asgi_disown(core);
}

static void log_failure(struct pn__channel *c)
{
    static const char what[] = "the application failed";
    if (c->x)
        pn__log_exception_of(c->gw, c->x, what);
    else if (c->name_size)
        pn__log_exception_at(c->gw, (struct pn_str){c->name, c->name_size}, what);
    else
        pn__log_exception_at(c->gw, PN_STR("a request whose client has left"), what);
}

/* Inside, once. An exception that is set is the application's. Drops the list's reference. */
static void finish(struct pn__channel *c)
{
    struct pn_gateway *gw = c->gw;
    bool failed = PyErr_Occurred() != NULL;
    bool logged = failed && !is_quiet(c);
    if (pn_unlikely(logged))
        log_failure(c);
    else if (pn_unlikely(failed))
        PyErr_Clear();
    if (pn_unlikely(c->ws))
        settle_websocket(c, failed);
    else if (pn_unlikely(c->x))
        settle_exchange(c, failed, logged);
    pn_list_remove(&c->call.node);
    pn_list_remove(&c->node);
    pn_list_push_back(&gw->asgi->left, &c->node);
    gw->asgi->open_count--;
    Py_CLEAR(c->scope);
    Py_CLEAR(c->trailers);
    PyObject *task = c->task;
    c->task = NULL;
    if (pn_likely(task != NULL))
        pn_aio_home_drop_task(gw->asgi->config.home, gw->asgi->task_type, task);
    if (pn_unlikely(!pn_list_empty(&c->waiters)))
        pn__asgi_wake_all(c);
    channel_over(c);
}

/* The task is over: takes its outcome, so that asyncio has nothing to complain of. */
static void take_outcome(struct pn__channel *c)
{
    PyObject *args[2] = {NULL, c->task};
    Py_INCREF(c->task);
    PyObject *result = PyObject_Vectorcall(c->gw->asgi->task_result, args + 1,
                                           1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[1]);
    Py_XDECREF(result);
    finish(c);
}

static PyObject *task_over(PyObject *self, PyObject *task PN_UNUSED)
{
    struct pn__channel *c = (struct pn__channel *)self;
    if (c->gw && c->task)
        take_outcome(c);
    Py_RETURN_NONE;
}

/* --- The beginning ----------------------------------------------------------------------------- */

static PyObject *asgi_receive(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__channel *c = (struct pn__channel *)self;
    if (pn_likely(c->gw))
        return pn__asgi_awaitable(c, NULL);
    PyErr_SetString(PyExc_RuntimeError, "receive() was called when the server had ended");
    return NULL;
}

static PyObject *asgi_send(PyObject *self, PyObject *message)
{
    struct pn__channel *c = (struct pn__channel *)self;
    if (pn_likely(c->gw))
        return pn__asgi_awaitable(c, message);
    PyErr_SetString(PyExc_RuntimeError, "send() was called when the server had ended");
    return NULL;
}

static PyMethodDef over_method = {"task_over", task_over, METH_O, NULL};

/* What the application returned as a coroutine; steals it. */
static PyObject *as_coroutine(struct pn__asgi *asgi, PyObject *o)
{
    if (pn_likely(o && PyCoro_CheckExact(o)))
        return o;
    PyObject *coroutine = o ? PyObject_CallOneArg(asgi->as_coroutine, o) : NULL;
    Py_XDECREF(o);
    return coroutine;
}

/* Calls the application: a coroutine, new, or NULL with an exception. Steals SCOPE. */
static PyObject *call_app(struct pn__channel *c, PyObject *scope)
{
    struct pn_gateway *gw = c->gw;
    PyObject *args[4] = {NULL, scope, Py_NewRef(c->methods[0]), Py_NewRef(c->methods[1])};
    PyObject *result = NULL;
    if (pn_likely(gw->asgi->config.version == 3)) {
        result = PyObject_Vectorcall(gw->app, args + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    } else {
        PyObject *instance = PyObject_CallOneArg(gw->app, scope);
        if (instance)
            result = PyObject_Vectorcall(instance, args + 2, 2, NULL);
        Py_XDECREF(instance);
    }
    Py_DECREF(scope);
    Py_DECREF(args[2]);
    Py_DECREF(args[3]);
    return as_coroutine(gw->asgi, result);
}

/* The arguments of a task: steals COROUTINE; NULL with an exception. The tuple comes again, and is none that
 * the collector shows to anybody. */
static PyObject *task_args(struct pn__asgi *asgi, PyObject *coroutine)
{
    PyObject *args = asgi->task_args;
    asgi->task_args = NULL;
    if (pn_unlikely(!args)) {
        args = PyTuple_New(1);
        if (!args) {
            Py_DECREF(coroutine);
            return NULL;
        }
        PyObject_GC_UnTrack(args);
    }
    PyTuple_SET_ITEM(args, 0, coroutine);
    return args;
}

static void drop_task_args(struct pn__asgi *asgi, PyObject *args)
{
    if (pn_unlikely(Py_REFCNT(args) > 1 || asgi->task_args)) {
        Py_DECREF(args);
        return;
    }
    PyObject *coroutine = PyTuple_GET_ITEM(args, 0);
    PyTuple_SET_ITEM(args, 0, NULL);
    asgi->task_args = args;
    Py_DECREF(coroutine);
}

/* Inside a context that the task takes a copy of: makes the task of COROUTINE, which it steals, and runs its
 * first step. As pn_aio_call.run. */
static int begin_task(struct pn__channel *c, PyObject *coroutine)
{
    struct pn__asgi *asgi = c->gw->asgi;
    PyObject *args = task_args(asgi, coroutine);
    PyObject *task = NULL;
    int rc = 0;
    if (pn_likely(args)) {
        rc = pn_aio_home_start_task(asgi->config.home, asgi->task_type, args, asgi->task_named,
                                    &task);
        if (pn_unlikely(pn_core_self() == NULL))
            pn__leave_child();
        drop_task_args(asgi, args);
    }
    c->task = task;
    /* A task that starts by itself hands on what ends the server, and is gone. */
    if (pn_unlikely(!task) && (PyErr_ExceptionMatches(PyExc_SystemExit) ||
                               PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)))
        return -1;
    return rc;
}

/* The first step has been made: the task is over, or will say so. */
static void after_first_step(struct pn__channel *c)
{
    struct pn__asgi *asgi = c->gw->asgi;
    PyObject *args[3] = {NULL, c->task, NULL};
    PyObject *done =
        PyObject_Vectorcall(asgi->task_done, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    pn_aio_home_task_started(asgi->config.home, c->task, done == Py_True);
    if (pn_likely(done == Py_True)) {
        Py_DECREF(done);
        take_outcome(c);
        return;
    }
    args[2] = done ? PyCFunction_New(&over_method, &c->ob_base) : NULL;
    PyObject *added = NULL;
    if (args[2])
        added = PyObject_VectorcallMethod(asgi->words[PN__A_ADD_DONE_CALLBACK], args + 1,
                                          2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_XDECREF(done);
    Py_XDECREF(args[2]);
    if (pn_unlikely(!added)) /* without memory nobody hears of its end: the client at least */
        finish(c);
    Py_XDECREF(added);
}

/* Whether calling the application runs none of its code: that begins with the task's first step. */
static bool only_makes_coroutine(const struct pn_gateway *gw)
{
    return gw->asgi->config.version == 3 && PyFunction_Check(gw->app) &&
           ((PyCodeObject *)PyFunction_GET_CODE(gw->app))->co_flags & CO_COROUTINE;
}

/* The context that the application is called in, entered: new. The task takes a copy of it, so the one that
 * all requests begin with does where no code runs in it. NULL with an exception. */
static PyObject *enter_context(const struct pn_gateway *gw, bool shared)
{
    if (pn_likely(shared)) {
        if (pn_likely(PyContext_Enter(gw->base_context) == 0))
            return Py_NewRef(gw->base_context);
        PyErr_Clear(); /* we are inside it: another request's first step runs the loop */
    }
    PyObject *context = PyContext_Copy(gw->base_context);
    if (pn_likely(context && PyContext_Enter(context) == 0))
        return context;
    Py_XDECREF(context);
    return NULL;
}

/* Inside on home. As pn_aio_call.run; C->task is NULL when the application could not be called. Drops
 * SCOPE. */
static int call_in_context(struct pn__channel *c, PyObject *scope)
{
    bool shared = only_makes_coroutine(c->gw);
    PyObject *context = enter_context(c->gw, shared);
    int rc = 0;
    if (pn_unlikely(!context)) {
        Py_DECREF(scope);
        return 0;
    }
    int gc = shared ? pn_pycompat_hold_gc() : 0; /* no finaliser's code runs in it either */
    PyObject *coroutine = call_app(c, scope);
    pn_pycompat_release_gc(gc);
    if (pn_unlikely(pn_core_self() == NULL))
        pn__leave_child();
    if (pn_likely(coroutine))
        rc = begin_task(c, coroutine);
    if (pn_unlikely(PyContext_Exit(context) < 0))
        PyErr_WriteUnraisable(context);
    Py_DECREF(context);
    return rc;
}

/* Inside on home. As pn_aio_call.run. */
static int begin(struct pn__channel *c)
{
    PyObject *scope = c->scope;
    c->begun = true;
    c->scope = NULL;
    int rc = call_in_context(c, scope);
    if (pn_unlikely(rc < 0)) {
        /* SystemExit or KeyboardInterrupt, which the task has as well. */
        PyObject *exc = pn_pycompat_take_exception();
        if (c->task) {
            pn_aio_home_task_started(c->gw->asgi->config.home, c->task, true);
            take_outcome(c);
        } else {
            pn_pycompat_restore_exception(Py_NewRef(exc));
            finish(c);
        }
        pn_pycompat_restore_exception(exc);
        return -1;
    }
    if (pn_likely(c->task))
        after_first_step(c);
    else
        finish(c);
    return 0;
}

static void cancel_task(struct pn__channel *c)
{
    c->cut_due = false;
    if (!c->task)
        return;
    PyObject *args[2] = {NULL, c->task};
    PyObject *done = PyObject_VectorcallMethod(c->gw->asgi->words[PN__A_CANCEL], args + 1,
                                               1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (!done)
        PyErr_WriteUnraisable(c->task);
    Py_XDECREF(done);
}

/* On home, inside: the request begins, or something has happened to it. */
static int run(struct pn_aio_call *call)
{
    struct pn__channel *c = pn_container_of(call, struct pn__channel, call);
    if (pn_likely(!c->begun)) {
        if (pn_likely(c->x && !c->cut))
            return begin(c);
        finish(c); /* the client has gone before it began */
        return 0;
    }
    Py_INCREF(&c->ob_base);
    pn__asgi_wake_all(c);
    if (c->cut_due)
        cancel_task(c);
    Py_DECREF(&c->ob_base);
    return 0;
}

/* --- The wire ---------------------------------------------------------------------------------- */

/* Owner; never from inside a call of ours. */
static void notified(struct pn_exchange *x, unsigned why)
{
    struct pn__channel *c = x->handler;
    struct pn_aio_home *home = c->gw->asgi->config.home;
    if (why & PN_NOTIFY_PEER_ENDED)
        c->peer_ended = true;
    if (why & PN_NOTIFY_CANCELLED) {
        c->why = x->cancel;
        pn__asgi_keep_name(c);
        pn__asgi_release_exchange(c);
    }
    pn_aio_home_call(home, &c->call);
}

void pn__asgi_start(struct pn_handler *h, struct pn_exchange *x)
{
    struct pn_gateway *gw = pn_container_of(h, struct pn_gateway, handler);
    struct pn__asgi *asgi = gw->asgi;
    int gc = pn_pycompat_hold_gc();
    struct pn__channel *c = channel_new(gw, x);
    int kind = pn_unlikely(c && x->upgrade_asked) ? pn__asgi_ws_check(c) : 0;
    if (pn_likely(c && kind >= 0))
        c->scope = pn__asgi_scope(gw, x, kind > 0);
    pn_pycompat_release_gc(gc);
    if (pn_unlikely(kind < 0)) {
        c->x = NULL;
        channel_over(c);
        return;
    }
    if (pn_unlikely(!c || !c->scope)) {
        PyErr_Clear();
        pn_log_error(gw->log, "a request was refused: no memory for its scope");
        pn_exchange_answer_status(x, 503, false);
        if (c) {
            c->x = NULL;
            channel_over(c);
        }
        return;
    }
    __atomic_store_n(&gw->requests_total, gw->requests_total + 1, __ATOMIC_RELAXED);
    pn_exchange_pin(x);
    x->handler = c;
    x->notify = notified;
    x->tell_end = true;
    pn_list_push_back(&asgi->open, &c->node);
    asgi->open_count++;
    pn_aio_home_call(asgi->config.home, &c->call);
}

unsigned pn_gateway_open(const struct pn_gateway *gw)
{
    return gw->asgi ? gw->asgi->open_count : 0;
}

void pn_gateway_cut(struct pn_gateway *gw)
{
    struct pn_list *node;
    if (!gw->asgi)
        return;
    pn_list_for_each(node, &gw->asgi->open)
    {
        struct pn__channel *c = pn_list_entry(node, struct pn__channel, node);
        c->cut = c->cut_due = true;
        pn_aio_home_call(gw->asgi->config.home, &c->call);
    }
}

/* --- Life -------------------------------------------------------------------------------------- */

static PyType_Slot channel_slots[] = {
    {Py_tp_dealloc, channel_dealloc},
    {0, NULL},
};

static PyType_Spec channel_spec = {
    .name = "pelton.Channel",
    .basicsize = sizeof(struct pn__channel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = channel_slots,
};

static PyObject *attribute(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *o = module ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return o;
}

static int find_asyncio(struct pn__asgi *asgi)
{
    asgi->task_type = attribute("asyncio", "Task");
    asgi->future_type = attribute("asyncio", "Future");
    asgi->cancelled = attribute("asyncio", "CancelledError");
    asgi->as_coroutine = attribute("pelton._asgi", "as_coroutine");
    asgi->future_names = PyTuple_Pack(1, asgi->words[PN__A_LOOP]);
    if (!asgi->task_type || !asgi->future_type || !asgi->cancelled || !asgi->as_coroutine ||
        !asgi->future_names)
        return -1;
    asgi->task_done = PyObject_GetAttr(asgi->task_type, asgi->words[PN__A_DONE]);
    asgi->task_result = PyObject_GetAttr(asgi->task_type, asgi->words[PN__A_RESULT]);
    asgi->task_named = PyDict_New();
    if (!asgi->task_done || !asgi->task_result || !asgi->task_named ||
        PyDict_SetItem(asgi->task_named, asgi->words[PN__A_LOOP],
                       pn_aio_home_loop(asgi->config.home)) < 0 ||
        PyDict_SetItem(asgi->task_named, asgi->words[PN__A_NAME], asgi->words[PN__A_TASK_NAME]) < 0)
        return -1;
    return PN_PYCOMPAT_EAGER_TASKS
               ? PyDict_SetItem(asgi->task_named, asgi->words[PN__A_EAGER_START], Py_True)
               : 0;
}

int pn_gateway_use_asgi(struct pn_gateway *gw, const struct pn_gateway_asgi *config,
                        enum pn_carrier carrier, unsigned count, char *err, size_t err_size)
{
    PN_BUG_ON(gw->asgi || carrier == PN_CARRIER_THREADS);
    if (pn_pycompat_selftest(carrier, err, err_size) < 0)
        return -1;
    struct pn__asgi *asgi = pn_xcalloc(1, sizeof *asgi);
    gw->asgi = asgi;
    gw->carrier = carrier;
    gw->cores_count = count;
    gw->handler.start = pn__asgi_start;
    asgi->config = *config;
    asgi->config.root_path = pn_xstrdup(config->root_path);
    asgi->root_len = strlen(config->root_path);
    pn_list_init(&asgi->open);
    pn_list_init(&asgi->left);
    pn__answer_init(&asgi->answer);
    asgi->channel_type = (PyTypeObject *)PyType_FromSpec(&channel_spec);
    if (asgi->channel_type && pn__asgi_names_init(asgi) == 0 && pn__asgi_await_init(asgi) == 0 &&
        pn__asgi_scope_init(gw, asgi) == 0 && find_asyncio(asgi) == 0)
        return 0;
    PyErr_Print();
    snprintf(err, err_size, "what ASGI needs could not be made");
    return -1;
}

/* Inside. Channels that are not over, when the loop is closed: their tasks have been cancelled, and said so
 * where they did not end. */
void pn__asgi_stop(struct pn_gateway *gw)
{
    struct pn__asgi *asgi = gw->asgi;
    struct pn_list *node;
    while ((node = pn_list_pop_front(&asgi->open))) {
        struct pn__channel *c = pn_list_entry(node, struct pn__channel, node);
        if (c->ws)
            pn__asgi_ws_settle(c, false);
        pn__asgi_release_exchange(c);
        pn_list_remove(&c->call.node);
        pn_list_push_back(&asgi->left, &c->node);
        asgi->open_count--;
        Py_CLEAR(c->scope);
        Py_CLEAR(c->task);
        give_up_methods(c);
        Py_DECREF(&c->ob_base);
    }
    while ((node = pn_list_pop_front(&asgi->left)))
        pn_list_entry(node, struct pn__channel, node)->gw = NULL;
    while (asgi->free_channels) {
        struct pn__channel *c = asgi->free_channels;
        asgi->free_channels = c->next;
        asgi->free_channel_count--;
        give_up_methods(c);
        Py_DECREF(&c->ob_base);
    }
    Py_CLEAR(asgi->task_args);
    pn__answer_clear(&asgi->answer);
    Py_CLEAR(asgi->state);
    Py_CLEAR(asgi->lifespan);
}

void pn__asgi_destroy(struct pn_gateway *gw)
{
    struct pn__asgi *asgi = gw->asgi;
    pn__asgi_stop(gw);
    pn__asgi_await_fini(asgi);
    pn__asgi_scope_fini(gw, asgi);
    pn__asgi_headers_fini(asgi);
    pn__asgi_heads_fini(asgi);
    pn__asgi_names_fini(asgi);
    Py_CLEAR(asgi->task_type);
    Py_CLEAR(asgi->future_type);
    Py_CLEAR(asgi->cancelled);
    Py_CLEAR(asgi->as_coroutine);
    Py_CLEAR(asgi->task_named);
    Py_CLEAR(asgi->task_done);
    Py_CLEAR(asgi->task_result);
    Py_CLEAR(asgi->future_names);
    Py_CLEAR(asgi->channel_type);
    free((char *)asgi->config.root_path);
    free(asgi);
    gw->asgi = NULL;
}
