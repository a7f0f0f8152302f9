/*
 * The graph: names, permissions between holders, changes and what they must not do, draining while
 * requests run in other threads, home contexts, switchover.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block-harness.h"
#include "util/iothread.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE

/* A holder that reads, writes and resizes and lets others do anything. */
static BlockBackend *hold(BlockDriverState *bs)
{
    return blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
                           BLK_PERM_ALL, &error_abort);
}

static BlockDriverState *null_node(const char *name)
{
    return node_open("{'driver': 'null-co', 'size': 65536, 'node-name': '%s'}", name);
}

static BlockDriverState *raw_over(const char *name, const char *file)
{
    return node_open("{'driver': 'raw', 'node-name': '%s', 'file': '%s'}", name, file);
}

/* ---- names ---- */

static void test_names(void)
{
    BlockDriverState *a = null_node("a");
    BlockBackend *blk = hold(a);
    Error *err = NULL;

    g_assert_true(bdrv_find_node("a") == a);
    g_assert_null(bdrv_find_node("b"));
    expect_no_open("*Duplicate nodes with node-name='a'*",
                   "{'driver': 'null-co', 'node-name': 'a'}");
    expect_no_open("*Invalid node-name: '1a'*", "{'driver': 'null-co', 'node-name': '1a'}");
    expect_no_open("*too long*",
                   "{'driver': 'null-co', 'node-name': 'abcdefghijklmnopqrstuvwxyzabcdef'}");
    g_assert_true(monitor_add_blk(blk, "disk0", &error_abort));
    expect_no_open("*conflicting with a device id*", "{'driver': 'null-co', 'node-name': 'disk0'}");
    g_assert_true(bdrv_lookup("disk0", &error_abort) == a);
    g_assert_null(bdrv_lookup("nobody", &err));
    expect_error(g_steal_pointer(&err), "*nobody*");
    monitor_remove_blk(blk);
    blk_unref(blk);
    bdrv_unref(a);
    g_assert_null(bdrv_next_node(NULL));
}

/* ---- permissions ---- */

static void test_conflicts(void)
{
    BlockDriverState *a = null_node("a");
    BlockBackend *writer = blk_new_with_bs(a, READ | WRITE, READ, &error_abort);
    BlockBackend *other;
    Error *err = NULL;

    g_assert_null(blk_new_with_bs(a, WRITE, BLK_PERM_ALL, &err));
    expect_error(g_steal_pointer(&err), "*does not allow write*");
    g_assert_null(blk_new_with_bs(a, READ, READ, &err));
    expect_error(g_steal_pointer(&err), "*does not allow write*");
    other = blk_new_with_bs(a, READ, READ | WRITE, &error_abort);
    g_assert_cmpint(blk_set_perm(other, READ, READ, &err), <, 0);
    expect_error(g_steal_pointer(&err), "*write*");
    g_assert_cmpint(blk_set_perm(writer, READ, READ, &error_abort), ==, 0);
    g_assert_cmpint(blk_set_perm(other, READ, READ, &error_abort), ==, 0);
    blk_unref(other);
    blk_unref(writer);
    bdrv_unref(a);
}

/* A holder far above is in the way of one far below, and a refused change leaves nothing behind. */
static void test_conflicts_through_nodes(void)
{
    BlockDriverState *a = null_node("a"), *r1 = raw_over("r1", "a"), *r2 = raw_over("r2", "a");
    BlockBackend *top = blk_new_with_bs(r1, READ | WRITE, READ, &error_abort);
    BlockBackend *low;
    Error *err = NULL;

    g_assert_null(blk_new_with_bs(r2, WRITE, BLK_PERM_ALL, &err));
    expect_error(g_steal_pointer(&err), "*Node 'a'*");
    blk_unref(top);
    low = blk_new_with_bs(r2, WRITE, READ, &error_abort);
    blk_unref(low);
    bdrv_unref(r2);
    bdrv_unref(r1);
    bdrv_unref(a);
    g_assert_null(bdrv_next_node(NULL));
}

/* ---- changes ---- */

static void test_replace(void)
{
    BlockDriverState *a = null_node("a"), *b = null_node("b"), *r = raw_over("r", "a");
    BlockBackend *blk = hold(r), *blocker;
    Error *err = NULL;

    g_assert_cmpint(bdrv_replace_node(a, b, &error_abort), ==, 0);
    g_assert_true(r->file->bs == b);
    g_assert_cmpint(a->refcnt, ==, 1);
    /* r stands on b: b cannot come to stand on r. */
    g_assert_cmpint(bdrv_replace_child(r->file, r, &err), <, 0);
    expect_error(g_steal_pointer(&err), "*cycle*");
    blocker = blk_new_with_bs(a, READ, READ, &error_abort);
    g_assert_cmpint(bdrv_replace_node(b, a, &err), <, 0);
    expect_error(g_steal_pointer(&err), "*write*");
    g_assert_true(r->file->bs == b);
    r->file->frozen = true;
    g_assert_cmpint(bdrv_replace_node(b, a, &err), <, 0);
    expect_error(g_steal_pointer(&err), "*a job depends on it*");
    r->file->frozen = false;
    blk_unref(blocker);
    blk_unref(blk);
    bdrv_unref(r);
    bdrv_unref(b);
    bdrv_unref(a);
    g_assert_null(bdrv_next_node(NULL));
}

/* ---- draining ---- */

#define LOADS 8u

typedef struct Load {
    BlockBackend *blk;
    AioContext *ctx;
    bool stop;                  /* atomic */
    unsigned running, done;     /* atomic */
} Load;

static void coroutine_fn read_for_ever(void *opaque)
{
    Load *load = opaque;
    uint8_t buf[512];

    while (!__atomic_load_n(&load->stop, __ATOMIC_SEQ_CST)) {
        g_assert_cmpint(blk_co_pread(load->blk, 0, sizeof(buf), buf, 0), ==, 0);
        g_assert_true(aio_current() == load->ctx);
        __atomic_fetch_add(&load->done, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_fetch_sub(&load->running, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

static void start_load(Load *load, unsigned n)
{
    load->running = n;
    for (unsigned i = 0; i < n; i++) {
        aio_co_schedule(load->ctx, coroutine_create(read_for_ever, load));
    }
}

static unsigned done(Load *load)
{
    return __atomic_load_n(&load->done, __ATOMIC_SEQ_CST);
}

static void stop_load(Load *load)
{
    __atomic_store_n(&load->stop, true, __ATOMIC_SEQ_CST);
    AIO_WAIT_WHILE(__atomic_load_n(&load->running, __ATOMIC_SEQ_CST));
}

/* @moved: the node lives in the iothread too; else each request goes over and back. */
static void drain_under_load(bool moved)
{
    IOThread *iothread = iothread_new("io0", 0, &error_abort);
    BlockDriverState *n = node_open("{'driver': 'null-co', 'size': 65536, 'latency-ns': 10000, "
                                       "'node-name': 'n'}");
    Load load = { .blk = hold(n), .ctx = iothread_context(iothread) };

    if (moved) {
        g_assert_cmpint(blk_set_aio_context(load.blk, load.ctx, &error_abort), ==, 0);
    }
    start_load(&load, LOADS);
    for (int i = 0; i < 50; i++) {
        unsigned before;

        bdrv_drained_begin(n);
        g_assert_cmpuint(n->in_flight, ==, 0);
        before = done(&load);
        while (aio_poll(aio_current(), false)) {
        }
        /* A thread may yet count the request that had ended by then, but begin no other. */
        g_assert_cmpuint(done(&load) - before, <=, LOADS);
        g_assert_cmpuint(n->in_flight, ==, 0);
        before = done(&load) + LOADS;
        bdrv_drained_end(n);
        while (done(&load) <= before) {
            aio_poll(aio_current(), false);
        }
    }
    bdrv_drain_all();
    stop_load(&load);
    g_assert_cmpuint(done(&load), >, 0);
    blk_unref(load.blk);
    bdrv_unref(n);
    iothread_free(iothread);
}

static void test_drain_iothread(void)
{
    drain_under_load(true);
}

static void test_drain_hopping(void)
{
    drain_under_load(false);
}

/* ---- home contexts ---- */

static void test_move(void)
{
    IOThread *iothread = iothread_new("io0", 0, &error_abort);
    AioContext *io = iothread_context(iothread);
    BlockDriverState *a = null_node("a"), *r = raw_over("r", "a"), *b = null_node("b"), *r2;
    BlockBackend *blk = hold(r), *insists = hold(a);
    Error *err = NULL;

    blk_set_allow_aio_context_change(insists, false);
    g_assert_cmpint(blk_set_aio_context(blk, io, &err), <, 0);
    expect_error(g_steal_pointer(&err), "*Cannot move node*");
    g_assert_true(bdrv_get_aio_context(a) == aio_context_main());
    blk_set_allow_aio_context_change(insists, true);
    g_assert_cmpint(blk_set_aio_context(blk, io, &error_abort), ==, 0);
    g_assert_true(bdrv_get_aio_context(a) == io && bdrv_get_aio_context(r) == io);
    /* Who is connected comes along. */
    r2 = raw_over("r2", "b");
    g_assert_cmpint(bdrv_replace_node(b, a, &error_abort), ==, 0);
    g_assert_true(bdrv_get_aio_context(r2) == bdrv_get_aio_context(a));
    g_assert_cmpint(blk_set_aio_context(blk, aio_context_main(), &error_abort), ==, 0);
    blk_unref(insists);
    blk_unref(blk);
    bdrv_unref(r2);
    bdrv_unref(r);
    bdrv_unref(b);
    bdrv_unref(a);
    iothread_free(iothread);
}

/* ---- switchover ---- */

static void test_inactivate(void)
{
    g_autofree char *path = make_file("disk", 65536, 0);
    BlockDriverState *bs = node_open("{'driver': 'raw', 'node-name': 'r', 'file': "
                                     "{'driver': 'file', 'filename': '%s', 'node-name': 'f'}}",
                                     path);
    BlockBackend *blk = blk_new_with_bs(bs, READ | WRITE, READ, &error_abort), *second;
    uint8_t byte = 9;

    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(bdrv_inactivate_all(&error_abort), ==, 0);
    g_assert_true(bdrv_is_inactive(bs));
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, -EPERM);
    /* Somebody else may have it now, and we must not take it back while they do. */
    second = blk_new_with_bs(bdrv_find_node("f"), WRITE, READ, &error_abort);
    g_assert_cmpint(blk_set_perm(second, 0, BLK_PERM_ALL, &error_abort), ==, 0);
    g_assert_cmpint(bdrv_activate_all(&error_abort), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    blk_unref(second);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_activate_refused(void)
{
    BlockDriverState *a;
    BlockBackend *one, *two;
    Error *err = NULL;

    bdrv_set_open_inactive(true);
    a = null_node("a");
    /* Nobody is asked as long as nobody owns the image. */
    one = blk_new_with_bs(a, READ | WRITE, READ, &error_abort);
    two = blk_new_with_bs(a, READ | WRITE, READ, &error_abort);
    g_assert_cmpint(bdrv_activate_all(&err), <, 0);
    expect_error(g_steal_pointer(&err), "*does not allow write*");
    g_assert_true(bdrv_is_inactive(a));
    g_assert_cmpint(blk_set_perm(two, READ, READ | WRITE, &error_abort), ==, 0);
    g_assert_cmpint(bdrv_activate_all(&error_abort), ==, 0);
    g_assert_false(bdrv_is_inactive(a));
    blk_unref(two);
    blk_unref(one);
    bdrv_unref(a);
}

int main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    aio_context_main();
    g_test_add_func("/block-graph/names", test_names);
    g_test_add_func("/block-graph/conflicts", test_conflicts);
    g_test_add_func("/block-graph/conflicts-through-nodes", test_conflicts_through_nodes);
    g_test_add_func("/block-graph/replace", test_replace);
    g_test_add_func("/block-graph/drain/iothread", test_drain_iothread);
    g_test_add_func("/block-graph/drain/hopping", test_drain_hopping);
    g_test_add_func("/block-graph/move", test_move);
    g_test_add_func("/block-graph/inactivate", test_inactivate);
    g_test_add_func("/block-graph/activate-refused", test_activate_refused);
    status = g_test_run();
    block_harness_clean_up();
    return status;
}
