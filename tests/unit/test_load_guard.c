/* SPDX-License-Identifier: Apache-2.0 */
/* SIGTERM and SIGINT before there is a loop: noted, passed on or not, and never the default. */
#include "main/load_guard.h"

#include <signal.h>
#include <string.h>

#include "loop/loop.h"
#include "test_base.h"

static unsigned interrupts, own_calls, loop_calls;

static void interrupt(void)
{
    interrupts++;
}

static void own_handler(int PN_UNUSED signo)
{
    own_calls++;
}

static void on_signal(void *ctx, int PN_UNUSED signo)
{
    loop_calls++;
    pn_loop_stop(ctx);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, own_handler);
    interrupts = own_calls = loop_calls = 0;
    pn__load_guard_begin(interrupt);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pn__load_guard_end();
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    return 0;
}

static void (*handler_of(int signo))(int)
{
    struct sigaction now;
    assert_int_equal(sigaction(signo, NULL, &now), 0);
    return now.sa_handler;
}

static void while_it_holds_signals_are_only_noted(void **state)
{
    (void)state;
    assert_false(pn__load_guard_came());
    raise(SIGTERM);
    raise(SIGINT);
    assert_int_equal(interrupts + own_calls, 0);
    assert_true(pn__load_guard_came());
    assert_true(pn__load_guard_pass(true));
}

static void while_it_passes_they_also_interrupt(void **state)
{
    (void)state;
    assert_false(pn__load_guard_pass(true));
    raise(SIGTERM);
    assert_int_equal(interrupts, 1);
    raise(SIGINT);
    assert_int_equal(own_calls, 1);
    assert_true(pn__load_guard_pass(false));
    raise(SIGTERM);
    raise(SIGINT);
    assert_int_equal(interrupts + own_calls, 2);
}

/* An asyncio.run() at import sets handlers and takes them back, behind the guard's. */
static void what_the_application_has_set_is_taken_over(void **state)
{
    (void)state;
    pn__load_guard_pass(true);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, own_handler);
    assert_false(pn__load_guard_pass(false));
    raise(SIGTERM);
    raise(SIGINT);
    assert_int_equal(own_calls, 0);
    assert_true(pn__load_guard_came());
}

static void what_is_ignored_stays_ignored(void **state)
{
    (void)state;
    pn__load_guard_end();
    signal(SIGINT, SIG_IGN);
    pn__load_guard_begin(interrupt);
    raise(SIGINT);
    assert_false(pn__load_guard_came());
    assert_ptr_equal(handler_of(SIGINT), SIG_IGN);
}

/* No moment without one of the two: the loop's handler goes back to the guard's. */
static void a_loop_stands_in_front(void **state)
{
    struct pn_loop *loop = pn_loop_create(pn_poller_epoll_create());
    (void)state;
    assert_int_equal(pn_signal_watch(loop, SIGTERM, on_signal, loop), 0);
    raise(SIGTERM);
    assert_false(pn__load_guard_came());
    while (pn_loop_step(loop) != PN_STEP_STOPPED)
        continue;
    assert_int_equal(loop_calls, 1);
    pn_loop_destroy(loop);
    raise(SIGTERM);
    assert_true(pn__load_guard_came());
}

static void the_end_puts_handlers_back(void **state)
{
    (void)state;
    raise(SIGTERM);
    pn__load_guard_end();
    pn__load_guard_end();
    assert_ptr_equal(handler_of(SIGTERM), SIG_DFL);
    assert_ptr_equal(handler_of(SIGINT), own_handler);
    assert_true(pn__load_guard_came());
}

static void children(void **state)
{
    (void)state;
    raise(SIGTERM);
    pn__load_guard_after_fork_child(true);
    assert_false(pn__load_guard_came());
    raise(SIGTERM);
    assert_true(pn__load_guard_came());
    pn__load_guard_after_fork_child(false);
    assert_ptr_equal(handler_of(SIGTERM), SIG_DFL);
    assert_ptr_equal(handler_of(SIGINT), own_handler);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(while_it_holds_signals_are_only_noted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(while_it_passes_they_also_interrupt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_the_application_has_set_is_taken_over, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_ignored_stays_ignored, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_loop_stands_in_front, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_end_puts_handlers_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(children, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
