/*
 * The request path, against a model in memory: every kind of request at offsets of any alignment,
 * over nodes whose driver needs alignments from 1 to 4096, one at a time and many at once.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block-harness.h"
#include "util/cutils.h"

#define DISK_BYTES (256 * 1024)

/* A holder that reads, writes and resizes and lets others do anything. */
static BlockBackend *hold(BlockDriverState *bs)
{
    return blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
                           BLK_PERM_ALL, &error_abort);
}

typedef struct Disk {
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t model[DISK_BYTES];
} Disk;

static Disk *disk_new(unsigned align, const char *more)
{
    g_autofree char *path = make_file("disk", DISK_BYTES, 0);
    Disk *d = g_new0(Disk, 1);

    d->bs = align > 1
            ? node_open("{'driver': 'blkdebug', 'align': %u, 'discard': 'unmap', 'image': "
                           "{'driver': 'file', 'filename': '%s'}%s}", align, path, more)
            : node_open("{'driver': 'raw', 'discard': 'unmap', 'file': "
                           "{'driver': 'file', 'filename': '%s'}%s}", path, more);
    d->blk = hold(d->bs);
    g_assert_cmpint(blk_getlength(d->blk), ==, DISK_BYTES);
    return d;
}

static void disk_free(Disk *d)
{
    blk_unref(d->blk);
    bdrv_unref(d->bs);
    g_free(d);
}

static void check_all(Disk *d)
{
    g_autofree uint8_t *buf = g_malloc(DISK_BYTES);

    g_assert_cmpint(blk_pread(d->blk, 0, DISK_BYTES, buf, 0), ==, 0);
    g_assert_cmpmem(buf, DISK_BYTES, d->model, DISK_BYTES);
}

static void random_range(GRand *rand, int64_t *offset, int64_t *bytes)
{
    int64_t max = g_rand_boolean(rand) ? 700 : DISK_BYTES / 4;

    *bytes = g_rand_int_range(rand, 1, max);
    *offset = g_rand_int_range(rand, 0, DISK_BYTES - *bytes + 1);
    if (g_rand_int_range(rand, 0, 3) == 0) {
        *offset &= ~INT64_C(4095);
        *bytes = MIN((*bytes + 4095) & ~INT64_C(4095), DISK_BYTES - *offset);
    }
}

static void random_write(Disk *d, GRand *rand, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, g_rand_int_range(rand, 0, 256), bytes);
    g_assert_cmpint(blk_pwrite(d->blk, offset, bytes, buf,
                               g_rand_boolean(rand) ? BDRV_REQ_FUA : 0), ==, 0);
    memcpy(d->model + offset, buf, bytes);
}

static void random_read(Disk *d, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(blk_pread(d->blk, offset, bytes, buf, 0), ==, 0);
    g_assert_cmpmem(buf, bytes, d->model + offset, bytes);
}

static void random_request(Disk *d, GRand *rand)
{
    int64_t offset, bytes;

    random_range(rand, &offset, &bytes);
    switch (g_rand_int_range(rand, 0, 4)) {
    case 0:
        random_read(d, offset, bytes);
        break;
    case 1:
        g_assert_cmpint(blk_pwrite_zeroes(d->blk, offset, bytes,
                                          g_rand_boolean(rand) ? BDRV_REQ_MAY_UNMAP : 0), ==, 0);
        memset(d->model + offset, 0, bytes);
        break;
    default:
        random_write(d, rand, offset, bytes);
    }
}

static void test_random(gconstpointer opaque)
{
    Disk *d = disk_new(GPOINTER_TO_UINT(opaque), "");
    g_autoptr(GRand) rand = g_rand_new_with_seed(17);

    for (int i = 0; i < 400; i++) {
        random_request(d, rand);
    }
    g_assert_cmpint(blk_flush(d->blk), ==, 0);
    check_all(d);
    disk_free(d);
}

/* ---- many at once: neighbours in one unit must not lose each other's bytes ---- */

typedef struct Writer {
    Disk *d;
    unsigned i, *running;
} Writer;

static void coroutine_fn write_stripes(void *opaque)
{
    Writer *w = opaque;

    for (int64_t at = w->i * 100; at + 100 <= DISK_BYTES; at += 1600) {
        uint8_t buf[100];

        memset(buf, w->i + 1, sizeof(buf));
        g_assert_cmpint(blk_co_pwrite(w->d->blk, at, sizeof(buf), buf, 0), ==, 0);
    }
    __atomic_fetch_sub(w->running, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

static void test_neighbours(gconstpointer opaque)
{
    Disk *d = disk_new(GPOINTER_TO_UINT(opaque), "");
    unsigned running = 16;
    Writer writers[16];

    for (unsigned i = 0; i < 16; i++) {
        writers[i] = (Writer) { d, i, &running };
        for (int64_t at = i * 100; at + 100 <= DISK_BYTES; at += 1600) {
            memset(d->model + at, i + 1, 100);
        }
        aio_co_enter(aio_current(), coroutine_create(write_stripes, &writers[i]));
    }
    AIO_WAIT_WHILE(__atomic_load_n(&running, __ATOMIC_SEQ_CST));
    check_all(d);
    disk_free(d);
}

/* ---- ends and errors ---- */

static void test_beyond_end(void)
{
    Disk *d = disk_new(1, "");
    uint8_t buf[512] = { 0 };

    g_assert_cmpint(blk_pread(d->blk, DISK_BYTES - 100, 101, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pwrite(d->blk, DISK_BYTES, 1, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pread(d->blk, -1, 1, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pread(d->blk, INT64_MAX, 2, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pwrite_zeroes(d->blk, 0, INT64_MAX, 0), ==, -EIO);
    g_assert_cmpint(blk_pdiscard(d->blk, 1, DISK_BYTES), ==, -EIO);
    g_assert_cmpint(blk_pread(d->blk, DISK_BYTES, 0, buf, 0), ==, 0);
    disk_free(d);
}

static void test_read_only(void)
{
    g_autofree char *path = make_file("disk", DISK_BYTES, 0);
    BlockDriverState *bs =
        node_open("{'driver': 'file', 'filename': '%s', 'read-only': true}", path);
    BlockBackend *blk;
    Error *err = NULL;
    uint8_t byte = 1;

    g_assert_null(blk_new_with_bs(bs, BLK_PERM_WRITE, BLK_PERM_ALL, &err));
    expect_error(g_steal_pointer(&err), "*is read-only*");
    blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, -EACCES);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 1, 0), ==, -EACCES);
    g_assert_cmpint(blk_truncate(blk, 0, true, PREALLOC_MODE_OFF, 0, &err), ==, -EACCES);
    expect_error(g_steal_pointer(&err), "*cannot be resized*");
    g_assert_cmpint(blk_pread(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 0);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_detect_zeroes(void)
{
    Disk *d = disk_new(1, ", 'detect-zeroes': 'unmap'");
    g_autofree uint8_t *buf = g_malloc(DISK_BYTES);
    int64_t pnum;

    memset(buf, 7, DISK_BYTES);
    g_assert_cmpint(blk_pwrite(d->blk, 0, DISK_BYTES, buf, 0), ==, 0);
    memset(buf, 0, DISK_BYTES);
    g_assert_cmpint(blk_pwrite(d->blk, 0, DISK_BYTES / 2, buf, 0), ==, 0);
    g_assert_cmpint(blk_block_status_above(d->blk, NULL, 0, DISK_BYTES, &pnum, NULL, NULL, NULL) &
                    BDRV_BLOCK_ZERO, ==, BDRV_BLOCK_ZERO);
    g_assert_cmpint(pnum, ==, DISK_BYTES / 2);
    memset(d->model + DISK_BYTES / 2, 7, DISK_BYTES / 2);
    check_all(d);
    disk_free(d);
}

static void test_truncate(gconstpointer opaque)
{
    unsigned align = GPOINTER_TO_UINT(opaque);
    Disk *d = disk_new(align, "");
    uint8_t buf[4096];

    memset(buf, 5, sizeof(buf));
    g_assert_cmpint(blk_pwrite(d->blk, DISK_BYTES - 4096, 4096, buf, 0), ==, 0);
    g_assert_cmpint(
        blk_truncate(d->blk, DISK_BYTES - 4096, true, PREALLOC_MODE_OFF, 0, &error_abort), ==, 0);
    g_assert_cmpint(blk_getlength(d->blk), ==, DISK_BYTES - 4096);
    g_assert_cmpint(blk_pread(d->blk, DISK_BYTES - 4096, 1, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_truncate(d->blk, DISK_BYTES, true, PREALLOC_MODE_OFF, 0, &error_abort), ==,
                    0);
    g_assert_cmpint(blk_getlength(d->blk), ==, DISK_BYTES);
    check_all(d);
    disk_free(d);
}

/* ---- the end of an image that is no multiple of what its driver needs ---- */

static void test_odd_length(void)
{
    g_autofree char *path = make_file("disk", 10000, 0);
    BlockDriverState *bs =
        node_open("{'driver': 'file', 'filename': '%s', 'cache': {'direct': true}}", path);
    BlockBackend *blk = hold(bs);
    uint8_t buf[10000], back[10000];

    for (unsigned i = 0; i < sizeof(buf); i++) {
        buf[i] = i * 7;
    }
    g_assert_cmpint(blk_getlength(blk), ==, 10000);
    g_assert_cmpint(blk_pwrite(blk, 0, 10000, buf, 0), ==, 0);
    g_assert_cmpint(blk_pread(blk, 0, 10000, back, 0), ==, 0);
    g_assert_cmpmem(buf, 10000, back, 10000);
    g_assert_cmpint(blk_pread(blk, 9999, 1, back, 0), ==, 0);
    g_assert_cmpint(back[0], ==, buf[9999]);
    blk_unref(blk);
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    static const unsigned aligns[] = { 1, 512, 4096 };
    int status;

    g_test_init(&argc, &argv, NULL);
    aio_context_main();
    for (size_t i = 0; i < G_N_ELEMENTS(aligns); i++) {
        g_autofree char *random = g_strdup_printf("/block-io/random/%u", aligns[i]);
        g_autofree char *neighbours = g_strdup_printf("/block-io/neighbours/%u", aligns[i]);
        g_autofree char *truncate = g_strdup_printf("/block-io/truncate/%u", aligns[i]);

        g_test_add_data_func(random, GUINT_TO_POINTER(aligns[i]), test_random);
        g_test_add_data_func(neighbours, GUINT_TO_POINTER(aligns[i]), test_neighbours);
        g_test_add_data_func(truncate, GUINT_TO_POINTER(aligns[i]), test_truncate);
    }
    g_test_add_func("/block-io/beyond-end", test_beyond_end);
    g_test_add_func("/block-io/read-only", test_read_only);
    g_test_add_func("/block-io/detect-zeroes", test_detect_zeroes);
    g_test_add_func("/block-io/odd-length", test_odd_length);
    status = g_test_run();
    block_harness_clean_up();
    return status;
}
