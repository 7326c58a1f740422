/* SPDX-License-Identifier: Apache-2.0 */
/* A connection's output: gathered, large, from files, for slow peers; and wants the other way
 * round. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/conn_fixture.h"

static void gathered_output_leaves_once_in_the_flush_phase(void **state)
{
    (void)state;
    gather_text("head ");
    assert_int_equal(pn_conn_write(c, "body", 4), 4);
    expect_sent("");
    turns(2);
    expect_sent("head body");
    assert_int_equal(far_end->writes, 1);
    assert_int_equal(w->writable, 0); /* nobody waited */
    assert_null(c->out.data);
}

static void flushing_at_once_leaves_nothing_to_the_turn(void **state)
{
    (void)state;
    gather_text("now");
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    expect_sent("now");
    assert_false(pn_list_linked(&c->flush.node));
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    assert_int_equal(far_end->writes, 1);
    /* The block goes from answer to answer. */
    pn_mem_fail_at(1, true);
    gather_text("and again");
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    assert_int_equal(pn_mem_fail_at(0, false), 0);
}

static void a_slow_peer_is_waited_for(void **state)
{
    (void)state;
    sim_link_set_window(far_end, 4);
    gather_text("0123456789");
    assert_int_equal(pn_conn_flush(c), PN_IO_WANT_WRITE);
    assert_false(c->writable);
    expect_sent("0123");
    turns(3);
    assert_int_equal(w->writable, 0);
    sim_link_take(far_end, 4);
    turns(2);
    expect_sent("4567");
    assert_int_equal(w->writable, 0);
    sim_link_take(far_end, 4);
    turns(2);
    expect_sent("89");
    assert_int_equal(w->writable, 1); /* empty: the flush that waited is over */
    assert_true(c->writable);
}

static void large_writes_are_not_copied(void **state)
{
    (void)state;
    static char big[1 << 20];
    memset(big, 'x', sizeof(big));
    gather_text("head");
    pn_mem_fail_at(1, true); /* no block may be had: none is needed */
    assert_int_equal(pn_conn_write(c, big, sizeof(big)), sizeof(big));
    pn_mem_fail_at(0, false);
    assert_int_equal(fault.writevs, 1);
    assert_int_equal(far_end->writes, 1);
    assert_int_equal(pn_bytes_len(&far_end->to_client), 4 + sizeof(big));
}

static void the_writer_waits_above_the_high_water_mark(void **state)
{
    (void)state;
    static char big[1 << 20];
    sim_link_set_window(far_end, 1000);
    ssize_t taken = pn_conn_write(c, big, sizeof(big));
    assert_int_equal(taken, 1000 + PN_CONN_OUT_HIGH_WATER);
    assert_true(c->write_blocked);
    assert_int_equal(pn_conn_write(c, big, 1), 0);
    size_t left = PN_CONN_OUT_HIGH_WATER;
    while (left > PN_CONN_OUT_LOW_WATER) {
        assert_int_equal(w->writable, 0);
        sim_link_take(far_end, 1000);
        turns(2);
        left -= 1000;
    }
    assert_int_equal(w->writable, 1);
    assert_false(c->write_blocked);
    sim_link_set_window(far_end, SIZE_MAX);
    turns(2);
    assert_int_equal(pn_bytes_len(&c->out), 0);
    assert_int_equal(w->writable, 1); /* told once */
}

/* A queue that was filled without a try at sending still brings its writer back. */
static void a_blocked_writer_is_told_without_an_edge(void **state)
{
    (void)state;
    static char big[PN_CONN_OUT_HIGH_WATER + 1];
    char *p = pn_conn_out_reserve(c, sizeof(big));
    memcpy(p, big, sizeof(big));
    pn_conn_out_commit(c, sizeof(big));
    c->write_blocked = true; /* as a wire does that found the queue full */
    turns(2);
    assert_int_equal(w->writable, 1);
    p = pn_conn_out_reserve(c, sizeof(big));
    pn_conn_out_commit(c, sizeof(big));
    c->write_blocked = true;
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    assert_int_equal(w->writable, 1); /* not from inside */
    turns(2);
    assert_int_equal(w->writable, 2);
}

static int make_file(size_t size)
{
    char name[] = "/tmp/pn_connXXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    char *data = pn_xmalloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 11 + i / 253);
    assert_int_equal(write(fd, data, size), size);
    free(data);
    return fd;
}

static void send_whole_file(size_t size)
{
    int fd = make_file(size);
    off_t offset = 0;
    size_t left = size, calls = 0;
    gather_text("head");
    while (left > 0) {
        ssize_t taken = pn_conn_send_file(c, fd, &offset, left);
        assert_true(taken >= 0 && (size_t)taken <= left);
        left -= (size_t)taken;
        assert_int_equal(offset, size - left);
        if (left > 0) {
            unsigned told = w->writable;
            sim_link_take(far_end, 0);
            for (int i = 0; i < 10 && w->writable == told; i++)
                turns(1);
            assert_int_equal(w->writable, told + 1);
        }
        assert_true(++calls < 1000);
    }
    turns(2);
    assert_int_equal(pn_bytes_len(&c->out), 0);
    assert_int_equal(pn_bytes_len(&far_end->to_client), size + 4);
    const char *sent = pn_bytes_view(&far_end->to_client).p;
    assert_memory_equal(sent, "head", 4);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(sent[4 + i], (char)(i * 11 + i / 253));
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 5), -ENODATA);
    close(fd);
}

static void files_by_sendfile(void **state)
{
    (void)state;
    send_whole_file(300000);
}

static void files_by_reading_and_writing(void **state)
{
    (void)state;
    fault.no_sendfile = true;
    send_whole_file(700000);
}

static void a_file_for_a_slow_peer(void **state)
{
    (void)state;
    int fd = make_file(5000);
    off_t offset = 0;
    sim_link_set_window(far_end, 1000);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 5000), 1000);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 4000), 0);
    turns(3);
    assert_int_equal(w->writable, 0);
    sim_link_take(far_end, 600);
    turns(2);
    assert_int_equal(w->writable, 1);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 4000), 600);
    assert_int_equal(offset, 1600);
    sim_link_take(far_end, 1000);
    turns(2);
    gather_text("0123456789"); /* the queue is in the way first */
    sim_link_set_window(far_end, 4);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 3400), 0);
    expect_sent("0123");
    close(fd);
}

/* Telling the writer of a file that it may go on, while the socket is full, would keep the loop busy. */
static void a_flush_behind_a_file_that_waits(void **state)
{
    (void)state;
    int fd = make_file(5000);
    off_t offset = 0;
    sim_link_set_window(far_end, 4);
    gather_text("0123456789");
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 5000), 0);
    assert_int_equal(pn_conn_flush(c), PN_IO_WANT_WRITE);
    turns(3);
    assert_int_equal(w->writable, 0);
    sim_link_set_window(far_end, 10); /* the queue leaves, and there is no room for more */
    assert_int_equal(pn_conn_flush(c), PN_IO_WANT_WRITE);
    turns(3);
    assert_int_equal(w->writable, 1);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 5000), 0);
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    turns(3);
    assert_int_equal(w->writable, 1);
    sim_link_take(far_end, 10);
    turns(2);
    assert_int_equal(w->writable, 2);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 5000), 10);
    close(fd);
}

/* --- Wants the other way round --------------------------------------------------------------- */

static void a_read_that_wants_to_write(void **state)
{
    (void)state;
    fault.swap_reads = true;
    send_text("x");
    assert_int_equal(pn_conn_read(c, 100), PN_IO_WANT_READ);
    turns(2);
    assert_int_equal(w->readable, 1);
    assert_true(c->readable);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
}

static void a_write_that_wants_to_read(void **state)
{
    (void)state;
    fault.swap_writes = true;
    gather_text("x");
    assert_int_equal(pn_conn_flush(c), PN_IO_WANT_WRITE);
    turns(2);
    send_text("key");
    turns(3);
    expect_sent("x");
    assert_int_equal(w->writable, 1);
    assert_int_equal(w->readable, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(gathered_output_leaves_once_in_the_flush_phase),
        TEST(flushing_at_once_leaves_nothing_to_the_turn),
        TEST(a_slow_peer_is_waited_for),
        TEST(large_writes_are_not_copied),
        TEST(the_writer_waits_above_the_high_water_mark),
        TEST(a_blocked_writer_is_told_without_an_edge),
        TEST(files_by_sendfile),
        TEST(files_by_reading_and_writing),
        TEST(a_flush_behind_a_file_that_waits),
        TEST(a_file_for_a_slow_peer),
        TEST(a_read_that_wants_to_write),
        TEST(a_write_that_wants_to_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
