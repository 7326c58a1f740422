/* SPDX-License-Identifier: Apache-2.0 */
/* The application's own signal handlers (signal.signal) while the server runs: CPython runs them in the main
 * thread alone, which here is home, and home may be asleep for ever.
 *
 * CPython writes a byte to the wakeup fd for each signal that has a Python handler; the loop reads it and lets
 * home do a step. An application that has set a wakeup fd of its own keeps it, and home's callbacks run
 * the handlers then (--asyncio: likewise, with the next callback). */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "gateway/internal.h"

static void drain(const struct pn__home_signals *s)
{
    char bytes[64];
    while (read(s->fds[0], bytes, sizeof bytes) > 0)
        continue;
}

static void signalled(struct pn_watch *watch, uint32_t revents PN_UNUSED)
{
    struct pn__home_signals *s = pn_container_of(watch, struct pn__home_signals, watch);
    drain(s);
    atomic_store(&s->due, true);
}

/* No GIL: also the watchdog asks. */
static bool is_due(void *ctx)
{
    const struct pn_gateway *gw = ctx;
    return atomic_load(&gw->home_signals.due);
}

/* Inside. What a handler raises would hit whatever the main thread is doing; here that is nothing. */
PN_COLD static void say_raised(void)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear(); /* an interruption that came too late */
        return;
    }
    PyObject *exc = pn_pycompat_take_exception();
    PyObject *what = PyUnicode_FromString("a signal handler");
    pn_pycompat_restore_exception(exc);
    PyErr_WriteUnraisable(what);
    Py_XDECREF(what);
}

static void run_handlers(void *ctx)
{
    struct pn_gateway *gw = ctx;
    struct pn_core *core = pn_core_self();
    atomic_store(&gw->home_signals.due, false);
    pn_core_enter_app(core);
    int rc = PyErr_CheckSignals();
    if (pn_unlikely(pn_core_self() != core))
        pn__leave_child();
    if (rc < 0)
        say_raised();
    pn_core_leave_app(core);
}

static void close_both(struct pn__home_signals *s)
{
    close(s->fds[0]);
    close(s->fds[1]);
    s->on = false;
}

/* signal.set_wakeup_fd: what was set before, -1 for none; -2 when it failed, for which nobody is to blame: the
 * application's handlers then run when home runs Python for another reason. */
static int set_wakeup_fd(int fd)
{
    PyObject *module = PyImport_ImportModule("signal");
    PyObject *set = module ? PyObject_GetAttrString(module, "set_wakeup_fd") : NULL;
    PyObject *args = set ? Py_BuildValue("(i)", fd) : NULL;
    PyObject *options = args ? Py_BuildValue("{sO}", "warn_on_full_buffer", Py_False) : NULL;
    PyObject *before = options ? PyObject_Call(set, args, options) : NULL;
    long result = before ? PyLong_AsLong(before) : -2;
    PyErr_Clear();
    Py_XDECREF(before);
    Py_XDECREF(options);
    Py_XDECREF(args);
    Py_XDECREF(set);
    Py_XDECREF(module);
    return (int)result;
}

int pn__home_signals_start(struct pn_gateway *gw)
{
    struct pn__home_signals *s = &gw->home_signals;
    struct pn_loop *loop = pn_cores_loop(gw->cores);
    const struct pn_home_work work = {is_due, run_handlers, gw, 1};
    if (!loop)
        return 0;
    if (pipe2(s->fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    s->on = true;
    pn_watch_init(&s->watch, signalled);
    int rc = pn_watch_add(loop, &s->watch, s->fds[0], EPOLLIN);
    if (rc < 0) {
        close_both(s);
        return rc;
    }
    int others = set_wakeup_fd(s->fds[1]);
    if (others >= 0)
        (void)set_wakeup_fd(others);
    pn_cores_set_home_work(gw->cores, &work);
    return 0;
}

void pn__home_signals_stop(struct pn_gateway *gw)
{
    struct pn__home_signals *s = &gw->home_signals;
    if (!s->on)
        return;
    int now = set_wakeup_fd(-1);
    if (now >= 0 && now != s->fds[1])
        (void)set_wakeup_fd(now);
    pn_watch_remove(pn_cores_loop(gw->cores), &s->watch);
    pn_cores_set_home_work(gw->cores, NULL);
    close_both(s);
}
