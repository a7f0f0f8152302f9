/*
 * Drivers that stand on others (raw, blkdebug, throttle, copy-on-read), and null-co.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/unit/block-harness.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/throttle-groups.h"
#include "util/iothread.h"

#define FILE_BYTES (1024 * 1024)
#define MS INT64_C(1000000)

/*
 * raw
 * -------------------------------------------------------------------------------------------------
 */

static void test_raw_plain(void)
{
    g_autofree char *path = make_file("raw", FILE_BYTES, 1);
    BlockBackend *blk = blk_from("{'driver': 'raw', 'discard': 'unmap', 'file': {'driver': 'file', "
                                 "'filename': '%s'}}", path);
    BlockDriverState *file;
    int64_t n, map;

    g_assert_cmpint(blk_getlength(blk), ==, FILE_BYTES);
    g_assert_cmpstr(bdrv_get_filename(blk_bs(blk)), ==, path);
    g_assert_true(bdrv_is_thread_safe(blk_bs(blk)));
    expect_pattern(blk, 0, FILE_BYTES, 1);
    write_pattern(blk, 12345, 54321, 2);
    expect_pattern(blk, 12345, 54321, 2);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 131072, 65536, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 262144, 65536), ==, 0);
    expect_zeroes(blk, 262144, 65536);
    g_assert_true(
        blk_block_status_above(blk, NULL, 131072, FILE_BYTES - 131072, &n, &map, &file, NULL) &
        BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 65536);
    g_assert_cmpint(map, ==, 131072);
    g_assert_true(file == bdrv_primary_bs(blk_bs(blk)));
    g_assert_cmpint(blk_truncate(blk, 65536, true, PREALLOC_MODE_OFF, 0, &error_abort), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 65536);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
}

static void test_raw_window(void)
{
    g_autofree char *path = make_file("window", FILE_BYTES, 1);
    BlockBackend *blk = blk_from(
                     "{'driver': 'raw', 'offset': 100000, 'size': 50000, 'discard': 'unmap', "
                     "'file': {'driver': 'file', 'filename': '%s'}}",
                     path),
                 *whole;
    g_autofree uint8_t *buf = g_malloc(50000);
    Error *err = NULL;
    int64_t n, map;

    g_assert_cmpint(blk_getlength(blk), ==, 50000);
    g_assert_cmpint(blk_pread(blk, 0, 50000, buf, 0), ==, 0);
    check_pattern(buf, 100000, 50000, 1);
    write_pattern(blk, 0, 100, 2);
    write_pattern(blk, 49990, 10, 2);
    g_assert_cmpint(blk_pwrite(blk, 49990, 11, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pread(blk, 50000, 1, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 20000, 10000, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_true(blk_block_status_above(blk, NULL, 10, 49990, &n, &map, NULL, NULL) &
                  BDRV_BLOCK_DATA);
    g_assert_cmpint(map, ==, 100010);
    g_assert_cmpint(blk_truncate(blk, 60000, true, PREALLOC_MODE_OFF, 0, &err), <, 0);
    expect_error(err, "Cannot resize a raw node of fixed size");
    blk_unref(blk);

    /* Nothing around it was touched. */
    whole = blk_from("{'driver': 'file', 'filename': '%s'}", path);
    expect_pattern(whole, 0, 100000, 1);
    expect_pattern(whole, 100100, 19900, 1);
    expect_zeroes(whole, 120000, 10000);
    expect_pattern(whole, 130000, 19990, 1);
    expect_pattern(whole, 150000, FILE_BYTES - 150000, 1);
    blk_unref(whole);
}

/* A window that ends with the file follows its length. */
static void test_raw_offset(void)
{
    g_autofree char *path = make_file("offset", FILE_BYTES, 1);
    g_autoptr(BlockdevOptions) file_opts = node_options(
        "{'driver': 'file', 'node-name': 'below', 'filename': '%s'}", path);
    BlockDriverState *file = bdrv_open(file_opts, &error_abort);
    BlockBackend *blk = blk_from("{'driver': 'raw', 'offset': 1000, 'file': 'below'}");

    g_assert_cmpint(blk_getlength(blk), ==, FILE_BYTES - 1000);
    g_assert_cmpint(blk_truncate(blk, 3000, true, PREALLOC_MODE_OFF, 0, &error_abort), ==, 0);
    g_assert_cmpint(bdrv_getlength(file), ==, 4000);
    g_assert_cmpint(blk_getlength(blk), ==, 3000);
    blk_unref(blk);
    bdrv_unref(file);
}

static void test_raw_refused(void)
{
    g_autofree char *path = make_file("refused", 1000, 1);

    expect_no_open(
        "Offset (1001) cannot be greater than the length of the containing file (1000)",
        "{'driver': 'raw', 'offset': 1001, 'file': {'driver': 'file', 'filename': '%s'}}", path);
    expect_no_open("The sum of offset (500) and size (501) has to be smaller or equal*",
                   "{'driver': 'raw', 'offset': 500, 'size': 501, 'file': {'driver': 'file', "
                   "'filename': '%s'}}", path);
    expect_no_open("The sum of offset (500) and size (18446744073709551615)*",
                   "{'driver': 'raw', 'offset': 500, 'size': 18446744073709551615, 'file': "
                   "{'driver': 'file', 'filename': '%s'}}", path);
}

/*
 * null-co
 * -------------------------------------------------------------------------------------------------
 */

static void test_null(void)
{
    BlockBackend *blk = blk_from("{'driver': 'null-co'}");
    g_autofree uint8_t *buf = g_malloc(4096);
    int64_t n;

    g_assert_cmpint(blk_getlength(blk), ==, 1 << 30);
    fill_pattern(buf, 0, 4096, 1);
    g_assert_cmpint(blk_pread(blk, 0, 4096, buf, 0), ==, 0);
    check_pattern(buf, 0, 4096, 1);
    g_assert_cmpint(blk_pwrite(blk, 0, 4096, buf, BDRV_REQ_FUA), ==, 0);
    g_assert_true(status_at(blk, 0, 4096, &n) & BDRV_BLOCK_DATA);
    blk_unref(blk);

    blk = blk_from(
        "{'driver': 'null-co', 'size': 5000, 'read-zeroes': true, 'latency-ns': 20000000}");
    g_assert_cmpint(blk_getlength(blk), ==, 5000);
    int64_t start = aio_clock_ns();
    expect_zeroes(blk, 900, 4100);
    g_assert_cmpint(aio_clock_ns() - start, >=, 20 * MS);
    start = aio_clock_ns();
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 5000, 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(aio_clock_ns() - start, >=, 40 * MS);
    g_assert_true(status_at(blk, 0, 5000, &n) & BDRV_BLOCK_ZERO);
    blk_unref(blk);
    expect_no_open("size 18446744073709551615 is too large",
                   "{'driver': 'null-co', 'size': 18446744073709551615}");
}

/*
 * blkdebug
 * -------------------------------------------------------------------------------------------------
 */

static BlockBackend *debug_from(const char *extra)
{
    return blk_from("{'driver': 'blkdebug', 'discard': 'unmap', 'image': {'driver': 'null-co', "
                    "'size': 1048576, 'read-zeroes': true}, %s}", extra);
}

static int read_at(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    return blk_pread(blk, offset, bytes, buf, 0);
}

static int write_at(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc0(bytes);

    return blk_pwrite(blk, offset, bytes, buf, 0);
}

static void test_blkdebug_types(void)
{
    BlockBackend *blk = debug_from("'inject-error': [{'iotype': 'write', 'errno': 28}]");
    int64_t n;

    g_assert_cmpint(read_at(blk, 0, 4096), ==, 0);
    g_assert_cmpint(write_at(blk, 0, 4096), ==, -ENOSPC);
    g_assert_cmpint(write_at(blk, 512, 1), ==, -ENOSPC);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 4096, 0), ==, 0);
    blk_unref(blk);

    /* All but block-status, and EIO, where nothing is said. */
    blk = debug_from("'inject-error': [{'immediately': true}]");
    g_assert_cmpint(read_at(blk, 0, 4096), ==, -EIO);
    g_assert_cmpint(write_at(blk, 0, 4096), ==, -EIO);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 4096, 0), ==, -EIO);
    g_assert_cmpint(blk_pdiscard(blk, 0, 4096), ==, -EIO);
    g_assert_cmpint(blk_block_status_above(blk, NULL, 0, 4096, &n, NULL, NULL, NULL) &
                        BDRV_BLOCK_ZERO,
                    ==, BDRV_BLOCK_ZERO);
    blk_unref(blk);

    blk = debug_from("'inject-error': [{'iotype': 'block-status', 'errno': 5},"
                     "{'iotype': 'flush', 'errno': 30, 'once': true}]");
    g_assert_cmpint(blk_block_status_above(blk, NULL, 0, 4096, &n, NULL, NULL, NULL), ==, -EIO);
    g_assert_cmpint(write_at(blk, 0, 4096), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, -EROFS);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
}

static void test_blkdebug_counts(void)
{
    BlockBackend *blk = debug_from("'inject-error': [{'iotype': 'read', 'nth': 3}, "
                                   "{'iotype': 'read', 'sector': 10, 'errno': 61, 'once': true}]");

    g_assert_cmpint(read_at(blk, 0, 5120), ==, 0);
    g_assert_cmpint(read_at(blk, 5631, 1), ==, -ENODATA);
    g_assert_cmpint(read_at(blk, 5631, 1), ==, -EIO);
    g_assert_cmpint(read_at(blk, 5632, 512), ==, 0);
    g_assert_cmpint(read_at(blk, 0, 8192), ==, 0);
    blk_unref(blk);
    blk = debug_from("'inject-error': [{'sector': 3}]");
    g_assert_cmpint(write_at(blk, 0, 1536), ==, 0);
    g_assert_cmpint(write_at(blk, 0, 1537), ==, -EIO);
    g_assert_cmpint(write_at(blk, 0, 1537), ==, -EIO);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
}

/* The limits hold for whatever comes from above; the driver asserts that. */
static void test_blkdebug_limits(void)
{
    g_autofree char *path = make_file("limits", FILE_BYTES, 1);
    BlockBackend *blk =
        blk_from("{'driver': 'blkdebug', 'discard': 'unmap', 'align': 4096, "
                 "'max-transfer': 8192, 'opt-write-zero': 32768, 'max-write-zero': 65536, "
                 "'opt-discard': 16384, 'max-discard': 16384, "
                 "'image': {'driver': 'file', 'filename': '%s'}}",
                 path);

    g_assert_cmpint(blk_get_request_alignment(blk), ==, 4096);
    expect_pattern(blk, 0, FILE_BYTES, 1);
    expect_pattern(blk, 4095, 30000, 1);
    write_pattern(blk, 4095, 30000, 2);
    expect_pattern(blk, 4095, 30000, 2);
    expect_pattern(blk, 0, 4095, 1);
    expect_pattern(blk, 34095, 30000, 1);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 100001, 400000, 0), ==, 0);
    expect_zeroes(blk, 100001, 400000);
    expect_pattern(blk, 100001 - 4096, 4096, 1);
    expect_pattern(blk, 500001, 4096, 1);
    g_assert_cmpint(blk_pdiscard(blk, 600000, 100000), ==, 0);
    expect_pattern(blk, 600000 - 4096, 4096, 1);
    expect_pattern(blk, 700000, 4096, 1);
    blk_unref(blk);
}

static void test_blkdebug_refused(void)
{
    static const struct {
        const char *opts, *message;
    } bad[] = {
        { "'align': 3", "align (3) must be a power of two of at most 67108864" },
        { "'align': 134217728", "align (134217728) must be a power of two*" },
        { "'opt-discard': 5", "opt-discard (5) must be a power of two*" },
        { "'align': 4096, 'max-transfer': 6000",
          "max-transfer (6000) must be a multiple of 4096*" },
        { "'opt-write-zero': 65536, 'max-write-zero': 4096",
          "max-write-zero (4096) must be a multiple of 65536*" },
        { "'inject-error': [{'errno': 0}]", "inject-error: errno 0 is not between 1 and 4095" },
        { "'inject-error': [{'errno': 5000}]", "inject-error: errno 5000 is not*" },
        { "'inject-error': [{'sector': -2}]", "inject-error: sector -2 is on no disk" },
        { "'inject-error': [{'nth': 0}]", "inject-error: nth counts from 1" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        expect_no_open(bad[i].message, "{'driver': 'blkdebug', 'image': {'driver': 'null-co'}, %s}",
                       bad[i].opts);
    }
}

/*
 * copy-on-read
 * -----------------------------------------------------------------------------------------------
 */

static void run_ok(const char *const *argv)
{
    g_autofree char *message = NULL;
    g_autoptr(GError) err = NULL;
    int status;

    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL,
                 NULL, NULL, &message, &status, &err);
    g_assert_no_error(err);
    if (status != 0) {
        g_error("%s failed: %s", argv[0], message);
    }
}

/*
 * A chain top -> middle -> base of qcow2 over raw, the pattern being in base and the second half of
 * middle.
 */
static bool make_chain(void)
{
    g_autofree char *base = make_file("base", FILE_BYTES, 1), *middle = test_path("middle");
    g_autofree char *top = test_path("top"), *qemu_img = g_find_program_in_path("qemu-img");
    const char *make_middle[] = { "qemu-img", "create", "-f",  "qcow2", "-b",
                                  base,       "-F",     "raw", middle,  NULL };
    const char *write_middle[] = { "qemu-io", "-f", "qcow2", "-c", "write -P 9 512k 256k",
                                   middle,    NULL };
    const char *make_top[] = { "qemu-img", "create", "-f",    "qcow2", "-b",
                               middle,     "-F",     "qcow2", top,     NULL };

    if (!qemu_img || !bdrv_find_driver("qcow2", NULL)) {
        g_test_skip("needs qemu-img and the driver qcow2");
        return false;
    }
    run_ok(make_middle);
    run_ok(write_middle);
    run_ok(make_top);
    return true;
}

static BlockBackend *cor_from(const char *bottom)
{
    g_autofree char *base = test_path("base"), *middle = test_path("middle"),
                    *top = test_path("top");

    return blk_from("{'driver': 'copy-on-read', 'node-name': 'cor'%s, 'file': {'driver': 'qcow2', "
                    "'node-name': 'top', 'file': {'driver': 'file', 'filename': '%s'}, "
                    "'backing': {'driver': 'qcow2', 'node-name': 'middle', 'read-only': true, "
                    "'file': {'driver': 'file', 'filename': '%s'}, 'backing': {'driver': 'raw', "
                    "'node-name': 'base', 'read-only': true, "
                    "'file': {'driver': 'file', 'filename': '%s'}}}}}", bottom, top, middle, base);
}

typedef struct AllocatedCall {
    int64_t offset, bytes, n;
    int ret;
} AllocatedCall;

static void coroutine_fn allocated_entry(void *opaque)
{
    AllocatedCall *c = opaque;

    c->ret = bdrv_co_is_allocated(bdrv_find_node("top"), c->offset, c->bytes, &c->n);
}

/* Whether all of the range is in the node "top" itself, or nothing of it. */
static bool in_top(int64_t offset, int64_t bytes)
{
    bool first = false;

    for (int64_t done = 0; done < bytes;) {
        AllocatedCall c = { .offset = offset + done, .bytes = bytes - done };

        run_co(allocated_entry, &c);
        g_assert_cmpint(c.ret, >=, 0);
        g_assert_cmpint(c.n, >, 0);
        first = done == 0 ? c.ret : first;
        g_assert_cmpint(c.ret, ==, first);
        done += c.n;
    }
    return first;
}

static void expect_byte(BlockBackend *blk, int64_t offset, int64_t bytes, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, 0);
    for (int64_t i = 0; i < bytes; i++) {
        g_assert_cmpint(buf[i], ==, byte);
    }
}

static void test_cor(void)
{
    BlockBackend *blk;

    if (!make_chain()) {
        return;
    }
    blk = cor_from("");
    g_assert_cmpint(blk_getlength(blk), ==, FILE_BYTES);
    g_assert_false(in_top(0, FILE_BYTES));
    expect_pattern(blk, 100, 1000, 1);
    g_assert_true(in_top(0, 65536));
    g_assert_false(in_top(65536, 524288 - 65536));
    expect_byte(blk, 524288, 65536, 9);
    g_assert_true(in_top(524288, 65536));
    /* It holds what was read, and writes go on as ever. */
    expect_pattern(blk, 0, 524288, 1);
    g_assert_true(in_top(0, 524288));
    write_pattern(blk, 0, 1000, 5);
    expect_pattern(blk, 0, 1000, 5);
    expect_pattern(blk, 1000, 1000, 1);
    blk_unref(blk);
}

/* Who may only read still copies; with a bottom, what comes from below it is not copied. */
static void test_cor_bottom(void)
{
    BlockBackend *blk;
    Error *err = NULL;

    if (!make_chain()) {
        return;
    }
    blk = cor_from(", 'bottom': 'middle'");
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err), ==, 0);
    expect_pattern(blk, 0, 524288, 1);
    g_assert_false(in_top(0, 524288));
    expect_byte(blk, 600000, 1000, 9);
    g_assert_true(in_top(589824, 65536));
    g_assert_false(in_top(0, 589824));
    expect_pattern(blk, 786432, 262144, 1);
    g_assert_false(in_top(786432, 262144));
    blk_unref(blk);
}

static void test_cor_refused(void)
{
    expect_no_open(
        "Bottom node 'nowhere' not found",
        "{'driver': 'copy-on-read', 'bottom': 'nowhere', 'file': {'driver': 'null-co'}}");
    expect_no_open("Bottom node 'n' is not among the backing nodes of 'n'",
                   "{'driver': 'copy-on-read', 'bottom': 'n', 'file': {'driver': 'null-co', "
                   "'node-name': 'n'}}");
}

/*
 * throttle
 * -------------------------------------------------------------------------------------------------
 */

static ThrottleGroup *group_of(const char *name, ThrottleBucketType bucket, uint64_t avg)
{
    ThrottleConfig cfg;

    throttle_config_init(&cfg);
    cfg.limits[bucket].avg = avg;
    return throttle_group_new(name, &cfg, &error_abort);
}

static BlockBackend *throttled(const char *group)
{
    return blk_from("{'driver': 'throttle', 'throttle-group': '%s', 'file': {'driver': 'null-co', "
                    "'read-zeroes': true}}", group);
}

typedef struct Load {
    BlockBackend *blk;
    int64_t bytes;
    unsigned depth;             /* how many at a time */
    unsigned left, running;     /* to begin; under way; atomic */
    unsigned done;              /* atomic */
} Load;

static void coroutine_fn load_entry(void *opaque)
{
    Load *load = opaque;
    g_autofree uint8_t *buf = g_malloc(load->bytes);

    while (load->left > 0) {
        load->left--;
        g_assert_cmpint(blk_co_pread(load->blk, 0, load->bytes, buf, 0), ==, 0);
        __atomic_fetch_add(&load->done, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_fetch_sub(&load->running, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

static void load_start(Load *load, AioContext *ctx)
{
    load->running = load->depth;
    for (unsigned i = 0; i < load->depth; i++) {
        aio_co_schedule(ctx, coroutine_create(load_entry, load));
    }
}

static void load_wait(Load *load)
{
    AIO_WAIT_WHILE(__atomic_load_n(&load->running, __ATOMIC_SEQ_CST) > 0);
}

/* 1000 requests a second: the first 100 come at once, the others take their time. */
static void test_throttle_rate(void)
{
    ThrottleGroup *group = group_of("g", THROTTLE_OPS_TOTAL, 1000);
    BlockBackend *blk = throttled("g");
    Load load = { .blk = blk, .bytes = 4096, .depth = 16, .left = 400 };
    int64_t start = aio_clock_ns();

    load_start(&load, aio_context_main());
    load_wait(&load);
    g_assert_cmpint(aio_clock_ns() - start, >=, 295 * MS);
    g_assert_cmpint(aio_clock_ns() - start, <, 3000 * MS);
    g_assert_cmpint(throttle_group_members(group), ==, 1);
    blk_unref(blk);
    throttle_group_delete(group);
}

/* One that has a hundred requests waiting does not starve one that has a single one. */
static void test_throttle_fair(void)
{
    ThrottleGroup *group = group_of("g", THROTTLE_OPS_TOTAL, 1000);
    BlockBackend *greedy = throttled("g"), *modest = throttled("g");
    Load a = { .blk = greedy, .bytes = 4096, .depth = 100, .left = 100000 };
    Load b = { .blk = modest, .bytes = 4096, .depth = 1, .left = 150 };

    load_start(&a, aio_context_main());
    AIO_WAIT_WHILE(__atomic_load_n(&a.done, __ATOMIC_SEQ_CST) < 100);
    unsigned before = a.done;
    load_start(&b, aio_context_main());
    load_wait(&b);
    g_assert_cmpuint(a.done - before, <=, 150 + 20);
    g_assert_cmpuint(a.done - before, >=, 150 - 20);
    a.left = 0;
    load_wait(&a);
    blk_unref(greedy);
    blk_unref(modest);
    throttle_group_delete(group);
}

/* A drain does not wait for the limits, and those that were waiting complete. */
static void test_throttle_drain(void)
{
    ThrottleGroup *group = group_of("g", THROTTLE_OPS_TOTAL, 1);
    BlockBackend *blk = throttled("g");
    Load load = { .blk = blk, .bytes = 4096, .depth = 20, .left = 20 };
    int64_t start = aio_clock_ns();

    load_start(&load, aio_context_main());
    while (load.left > 0) {
        aio_poll(aio_context_main(), true);
    }
    g_assert_cmpuint(load.done, <, 20);
    bdrv_drained_begin(blk_bs(blk));
    g_assert_cmpuint(load.done, ==, 20);
    g_assert_cmpint(aio_clock_ns() - start, <, 5000 * MS);
    bdrv_drained_end(blk_bs(blk));
    load_wait(&load);
    blk_unref(blk);
    throttle_group_delete(group);
}

/* New limits hold for those that wait. */
static void test_throttle_change(void)
{
    ThrottleGroup *group = group_of("g", THROTTLE_BPS_READ, 1);
    BlockBackend *blk = throttled("g");
    Load load = { .blk = blk, .bytes = 4096, .depth = 5, .left = 5 };
    ThrottleConfig cfg;

    load_start(&load, aio_context_main());
    while (load.left > 0) {
        aio_poll(aio_context_main(), true);
    }
    g_assert_cmpuint(load.done, <, 5);
    throttle_group_get_config(group, &cfg);
    g_assert_cmpint(cfg.limits[THROTTLE_BPS_READ].avg, ==, 1);
    cfg.limits[THROTTLE_BPS_READ].avg = 0;
    throttle_group_set_config(group, &cfg);
    load_wait(&load);
    blk_unref(blk);
    throttle_group_delete(group);
}

/* Members in other threads share the limits. */
static void test_throttle_threads(void)
{
    ThrottleGroup *group = group_of("g", THROTTLE_OPS_TOTAL, 2000);
    BlockBackend *blks[3];
    IOThread *threads[3];
    Load loads[3];
    int64_t start = aio_clock_ns();

    for (int i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("t%d", i);

        blks[i] = throttled("g");
        threads[i] = iothread_new(name, 0, &error_abort);
        g_assert_cmpint(blk_set_aio_context(blks[i], iothread_context(threads[i]), &error_abort),
                        ==, 0);
        loads[i] = (Load){ .blk = blks[i], .bytes = 512, .depth = 8, .left = 300 };
        load_start(&loads[i], iothread_context(threads[i]));
    }
    for (int i = 0; i < 3; i++) {
        load_wait(&loads[i]);
        g_assert_cmpuint(loads[i].done, ==, 300);
    }
    /* 900 requests, of which 200 came at once. */
    g_assert_cmpint(aio_clock_ns() - start, >=, 345 * MS);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(blk_set_aio_context(blks[i], aio_context_main(), &error_abort), ==, 0);
        blk_unref(blks[i]);
        iothread_free(threads[i]);
    }
    throttle_group_delete(group);
}

static void test_throttle_names(void)
{
    ThrottleGroup *group = group_of("g", THROTTLE_OPS_TOTAL, 1000), *other;
    ThrottleConfig cfg;
    Error *err = NULL;
    BlockBackend *blk;

    throttle_config_init(&cfg);
    g_assert_null(throttle_group_new("g", &cfg, &err));
    expect_error(err, "A throttle group with name 'g' exists already");
    expect_no_open("Throttle group 'h' does not exist",
                   "{'driver': 'throttle', 'throttle-group': 'h', 'file': {'driver': 'null-co'}}");
    /* Its node keeps a group that has lost its name. */
    blk = throttled("g");
    throttle_group_delete(group);
    g_assert_null(throttle_group_by_name("g"));
    other = group_of("g", THROTTLE_OPS_TOTAL, 1000);
    g_assert_cmpint(read_at(blk, 0, 4096), ==, 0);
    g_assert_cmpuint(throttle_group_members(other), ==, 0);
    blk_unref(blk);
    throttle_group_delete(other);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/raw/plain", test_raw_plain);
    g_test_add_func("/raw/window", test_raw_window);
    g_test_add_func("/raw/offset", test_raw_offset);
    g_test_add_func("/raw/refused", test_raw_refused);
    g_test_add_func("/null-co", test_null);
    g_test_add_func("/blkdebug/types", test_blkdebug_types);
    g_test_add_func("/blkdebug/counts", test_blkdebug_counts);
    g_test_add_func("/blkdebug/limits", test_blkdebug_limits);
    g_test_add_func("/blkdebug/refused", test_blkdebug_refused);
    g_test_add_func("/copy-on-read/chain", test_cor);
    g_test_add_func("/copy-on-read/bottom", test_cor_bottom);
    g_test_add_func("/copy-on-read/refused", test_cor_refused);
    g_test_add_func("/throttle/rate", test_throttle_rate);
    g_test_add_func("/throttle/fair", test_throttle_fair);
    g_test_add_func("/throttle/drain", test_throttle_drain);
    g_test_add_func("/throttle/change", test_throttle_change);
    g_test_add_func("/throttle/threads", test_throttle_threads);
    g_test_add_func("/throttle/names", test_throttle_names);
    ret = g_test_run();
    block_harness_clean_up();
    return ret;
}
