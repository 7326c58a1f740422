/* SPDX-License-Identifier: Apache-2.0 */
/* The scoreboard: slots, states, and what another process sees of them. */
#include "board/board.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/bounds.h"
#include "test_base.h"

static void fresh_board_is_empty(void **state)
{
    (void)state;
    struct pn_board *board = pn_board_create(3);
    assert_non_null(board);
    assert_int_equal(pn_board_count(board), 3);
    assert_int_equal(pn_board_count_state(board, PN_BOARD_EMPTY), 3);
    struct pn_board_view view;
    pn_board_read(board, 2, &view);
    assert_int_equal(view.pid, 0);
    assert_int_equal(view.state, PN_BOARD_EMPTY);
    assert_int_equal(view.figures.requests, 0);
    pn_board_destroy(board);
}

static void largest_board(void **state)
{
    (void)state;
    struct pn_board *board = pn_board_create(PN_WORKERS_MAX);
    assert_non_null(board);
    pn_board_start(board, PN_WORKERS_MAX - 1, 7, 8);
    assert_int_equal(pn_board_count_state(board, PN_BOARD_STARTING), 1);
    pn_board_destroy(board);
    pn_board_destroy(NULL);
}

static void figures_come_back(void **state)
{
    (void)state;
    struct pn_board *board = pn_board_create(2);
    const struct pn_board_figures figures = {1, 2, 3, 4, 5, 6};
    pn_board_start(board, 1, 4711, 99);
    pn_board_publish(board, 1, &figures);
    pn_board_set_state(board, 1, PN_BOARD_READY);
    struct pn_board_view view;
    pn_board_read(board, 1, &view);
    assert_int_equal(view.pid, 4711);
    assert_int_equal(view.started_ns, 99);
    assert_int_equal(view.state, PN_BOARD_READY);
    assert_int_equal(view.figures.accepted, 1);
    assert_int_equal(view.figures.requests, 2);
    assert_int_equal(view.figures.bad_requests, 3);
    assert_int_equal(view.figures.cancelled, 4);
    assert_int_equal(view.figures.waits, 5);
    assert_int_equal(view.figures.hand_overs, 6);
    pn_board_read(board, 0, &view);
    assert_int_equal(view.pid, 0);
    assert_int_equal(view.figures.hand_overs, 0);
    pn_board_destroy(board);
}

static void start_clears_the_last_worker(void **state)
{
    (void)state;
    struct pn_board *board = pn_board_create(1);
    const struct pn_board_figures figures = {1, 2, 3, 4, 5, 6};
    pn_board_start(board, 0, 10, 1);
    pn_board_publish(board, 0, &figures);
    pn_board_set_state(board, 0, PN_BOARD_STOPPING);
    pn_board_start(board, 0, 11, 2);
    struct pn_board_view view;
    pn_board_read(board, 0, &view);
    assert_int_equal(view.pid, 11);
    assert_int_equal(view.state, PN_BOARD_STARTING);
    assert_int_equal(view.figures.accepted, 0);
    assert_int_equal(view.figures.hand_overs, 0);
    pn_board_destroy(board);
}

static void a_child_writes_and_the_parent_reads(void **state)
{
    (void)state;
    struct pn_board *board = pn_board_create(2);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct pn_board_figures figures = {.requests = 12};
        pn_board_start(board, 0, (int)getpid(), 5);
        pn_board_publish(board, 0, &figures);
        pn_board_set_state(board, 0, PN_BOARD_ENDED);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    struct pn_board_view view;
    pn_board_read(board, 0, &view);
    assert_int_equal(view.pid, pid);
    assert_int_equal(view.figures.requests, 12);
    assert_int_equal(view.state, PN_BOARD_ENDED);
    pn_board_destroy(board);
}

static void every_state_has_a_name(void **state)
{
    (void)state;
    for (int i = PN_BOARD_EMPTY; i <= PN_BOARD_ENDED; i++)
        assert_string_not_equal(pn_board_state_name((enum pn_board_state)i), "?");
    assert_string_equal(pn_board_state_name((enum pn_board_state) - 1), "?");
    assert_string_equal(pn_board_state_name((enum pn_board_state)(PN_BOARD_ENDED + 1)), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_board_is_empty),
        cmocka_unit_test(largest_board),
        cmocka_unit_test(figures_come_back),
        cmocka_unit_test(start_clears_the_last_worker),
        cmocka_unit_test(a_child_writes_and_the_parent_reads),
        cmocka_unit_test(every_state_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
