/*
 * Dirty bitmaps against an array of bool, one for each piece, that does everything the slow way.
 * The node is made here: a bitmap asks it for little.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/dirty-bitmap.h"

#include <string.h>

#include "block/driver.h"

#define PIECES 200
#define GRANULARITY 4096
/* The last piece is a short one. */
#define LENGTH (PIECES * GRANULARITY - 1000)

/* ---- a node ---- */

static int64_t node_length;
static bool node_read_only;
static uint32_t node_cluster_size;

int64_t bdrv_getlength(BlockDriverState *bs)
{
    return node_length;
}

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return "fake";
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return node_read_only;
}

AioContext *bdrv_get_aio_context(BlockDriverState *bs)
{
    return NULL;
}

void aio_co_run(AioContext *ctx, CoroutineEntry *fn, void *opaque)
{
    fn(opaque);
}

static int coroutine_fn fake_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    info->cluster_size = node_cluster_size;
    return 0;
}

static const BlockDriver fake_driver = { .co_get_info = fake_get_info };

static void node_init(BlockDriverState *bs, int64_t length)
{
    memset(bs, 0, sizeof(*bs));
    bs->drv = &fake_driver;
    node_length = length;
    node_read_only = false;
    node_cluster_size = 0;
}

static BdrvDirtyBitmap *make(BlockDriverState *bs, uint32_t granularity, const char *name)
{
    return bdrv_create_dirty_bitmap(bs, granularity, name, &error_abort);
}

static void expect_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

/* ---- against the model ---- */

typedef struct Model {
    BlockDriverState bs;
    BdrvDirtyBitmap *bitmap;
    bool dirty[PIECES];
} Model;

static int64_t model_next(const Model *m, int64_t offset, int64_t end, bool value)
{
    for (int64_t at = offset; at < MIN(end, LENGTH); at++) {
        if (m->dirty[at / GRANULARITY] == value) {
            return at;
        }
        at |= GRANULARITY - 1;
    }
    return -1;
}

static void model_check(Model *m)
{
    int64_t offset = g_test_rand_int_range(0, LENGTH), bytes = g_test_rand_int_range(1, LENGTH),
            count;
    int64_t end = MIN(offset + bytes, LENGTH), first = model_next(m, offset, end, true), start, n;
    int64_t max = g_test_rand_int_range(1, 10 * GRANULARITY), pieces = 0;
    bool value = m->dirty[offset / GRANULARITY], found;
    int64_t change = model_next(m, offset, end, !value);

    for (int i = 0; i < PIECES; i++) {
        pieces += m->dirty[i];
    }
    g_assert_cmpint(bdrv_get_dirty_count(m->bitmap), ==, pieces * GRANULARITY);
    g_assert_cmpint(bdrv_dirty_bitmap_get(m->bitmap, offset), ==, value);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(m->bitmap, offset, bytes), ==, first);
    g_assert_cmpint(bdrv_dirty_bitmap_next_zero(m->bitmap, offset, bytes), ==,
                    model_next(m, offset, end, false));
    g_assert_cmpint(bdrv_dirty_bitmap_status(m->bitmap, offset, bytes, &count), ==, value);
    g_assert_cmpint(count, ==, (change < 0 ? end : change) - offset);

    found = bdrv_dirty_bitmap_next_dirty_area(m->bitmap, offset, end, max, &start, &n);
    g_assert_cmpint(found, ==, first >= 0);
    if (found) {
        int64_t stop = model_next(m, first, MIN(end, first + max), false);

        g_assert_cmpint(start, ==, first);
        g_assert_cmpint(n, ==, (stop < 0 ? MIN(end, first + max) : stop) - first);
    }
}

static void model_step(Model *m)
{
    int64_t offset = g_test_rand_int_range(0, LENGTH),
            bytes = g_test_rand_int_range(0, 12 * GRANULARITY);
    int64_t first, last;

    switch (g_test_rand_int_range(0, 4)) {
    case 0:
        bdrv_set_dirty_bitmap(m->bitmap, offset, bytes);
        break;
    case 1:
        bdrv_set_dirty(&m->bs, offset, bytes);
        break;
    default:
        offset -= offset % GRANULARITY;
        bytes -= bytes % GRANULARITY;
        bdrv_reset_dirty_bitmap(m->bitmap, offset, bytes);
        for (int64_t i = offset / GRANULARITY; i < MIN(PIECES, (offset + bytes) / GRANULARITY);
             i++) {
            m->dirty[i] = false;
        }
        return;
    }
    first = offset / GRANULARITY;
    last = MIN(PIECES, (offset + bytes + GRANULARITY - 1) / GRANULARITY);
    for (int64_t i = first; bytes && i < last; i++) {
        m->dirty[i] = true;
    }
}

static void test_model(void)
{
    Model m = {};

    node_init(&m.bs, LENGTH);
    m.bitmap = make(&m.bs, GRANULARITY, "b");
    for (int i = 0; i < 4000; i++) {
        model_step(&m);
        model_check(&m);
    }
    bdrv_clear_dirty_bitmap(m.bitmap);
    memset(m.dirty, 0, sizeof(m.dirty));
    model_check(&m);
    bdrv_release_dirty_bitmap(m.bitmap);
}

/* ---- the rest ---- */

static void test_ends(void)
{
    BlockDriverState bs;
    BdrvDirtyBitmap *b;
    int64_t count, start, n;

    node_init(&bs, LENGTH);
    b = make(&bs, GRANULARITY, NULL);
    /* Ranges that reach over the end, or lie behind it, touch what there is. */
    bdrv_set_dirty_bitmap(b, LENGTH - 1, INT64_MAX - LENGTH);
    bdrv_set_dirty_bitmap(b, LENGTH, 1);
    bdrv_set_dirty_bitmap(b, 0, 0);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, GRANULARITY);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(b, 0, INT64_MAX), ==, (PIECES - 1) * GRANULARITY);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(b, LENGTH, INT64_MAX), ==, -1);
    g_assert_false(bdrv_dirty_bitmap_get(b, LENGTH));
    g_assert_false(bdrv_dirty_bitmap_status(b, LENGTH, 77, &count));
    g_assert_cmpint(count, ==, 77);
    g_assert_true(bdrv_dirty_bitmap_next_dirty_area(b, 0, INT64_MAX, INT64_MAX, &start, &n));
    g_assert_cmpint(start, ==, (PIECES - 1) * GRANULARITY);
    g_assert_cmpint(n, ==, GRANULARITY - 1000);
    /* The short piece at the end can be cleared. */
    bdrv_reset_dirty_bitmap(b, start, n);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 0);
    bdrv_release_dirty_bitmap(b);

    node_init(&bs, 0);
    b = make(&bs, 0, NULL);
    bdrv_set_dirty(&bs, 0, 10);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 0);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(b, 0, INT64_MAX), ==, -1);
    bdrv_release_dirty_bitmap(b);
}

static void test_names(void)
{
    BlockDriverState bs;
    BdrvDirtyBitmap *a, *job, *c;
    g_autofree char *longest = g_strnfill(BDRV_BITMAP_NAME_MAX, 'x');
    g_autofree char *too_long = g_strnfill(BDRV_BITMAP_NAME_MAX + 1, 'x');
    Error *err = NULL;

    node_init(&bs, LENGTH);
    a = make(&bs, 512, "a");
    job = make(&bs, 0, NULL);
    c = make(&bs, 0, longest);
    g_assert_true(bdrv_find_dirty_bitmap(&bs, "a") == a);
    g_assert_true(bdrv_find_dirty_bitmap(&bs, longest) == c);
    g_assert_null(bdrv_find_dirty_bitmap(&bs, "b"));
    g_assert_true(bdrv_dirty_bitmap_next(&bs, NULL) == a);
    g_assert_true(bdrv_dirty_bitmap_next(&bs, a) == job);
    g_assert_true(bdrv_dirty_bitmap_next(&bs, job) == c);
    g_assert_null(bdrv_dirty_bitmap_next(&bs, c));
    g_assert_cmpstr(bdrv_dirty_bitmap_name(job), ==, NULL);
    g_assert_true(bdrv_dirty_bitmap_bs(job) == &bs);

    g_assert_null(bdrv_create_dirty_bitmap(&bs, 0, "a", &err));
    expect_error(g_steal_pointer(&err), "Bitmap already exists: a");
    g_assert_null(bdrv_create_dirty_bitmap(&bs, 0, too_long, &err));
    expect_error(g_steal_pointer(&err),
                 "Bitmap name too long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... has more "
                 "than 1023 bytes");
    g_assert_null(bdrv_create_dirty_bitmap(&bs, 1000, "b", &err));
    expect_error(g_steal_pointer(&err), "Granularity must be power of 2, not 1000");
    g_assert_null(bdrv_create_dirty_bitmap(&bs, 256, "b", &err));
    expect_error(g_steal_pointer(&err), "Granularity must be at least 512 bytes");
    node_length = -EIO;
    g_assert_null(bdrv_create_dirty_bitmap(&bs, 0, "b", &err));
    expect_error(g_steal_pointer(&err),
                 "Could not get the length of node 'fake': Input/output error");

    bdrv_release_named_dirty_bitmaps(&bs);
    g_assert_true(bdrv_dirty_bitmap_next(&bs, NULL) == job);
    g_assert_null(bdrv_dirty_bitmap_next(&bs, job));
    bdrv_release_dirty_bitmap(job);
    g_assert_null(bs.dirty_bitmaps);
    bdrv_set_dirty(&bs, 0, 1);
}

static void test_granularity(void)
{
    static const struct {
        uint32_t cluster, granularity;
    } cases[] = {
        { 0, 65536 }, { 512, 4096 }, { 4096, 4096 }, { 32768, 32768 }, { 2 << 20, 65536 },
    };
    BlockDriverState bs;

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        BdrvDirtyBitmap *b;

        node_init(&bs, LENGTH);
        node_cluster_size = cases[i].cluster;
        b = make(&bs, 0, "b");
        g_assert_cmpuint(bdrv_dirty_bitmap_granularity(b), ==, cases[i].granularity);
        g_assert_cmpint(bdrv_dirty_bitmap_size(b), ==, LENGTH);
        bdrv_release_dirty_bitmap(b);
    }
    node_init(&bs, LENGTH);
    {
        BdrvDirtyBitmap *b = make(&bs, BDRV_BITMAP_MAX_GRANULARITY, "b");

        bdrv_set_dirty(&bs, 5, 1);
        g_assert_cmpint(bdrv_get_dirty_count(b), ==, INT64_C(1) << 31);
        bdrv_release_dirty_bitmap(b);
    }
}

static void test_states(void)
{
    BlockDriverState bs;
    BdrvDirtyBitmap *b;
    BlockDirtyInfoList *list;
    Error *err = NULL;

    node_init(&bs, LENGTH);
    b = make(&bs, GRANULARITY, "b");
    g_assert_true(bdrv_dirty_bitmap_enabled(b));
    bdrv_disable_dirty_bitmap(b);
    bdrv_set_dirty(&bs, 0, LENGTH);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 0);
    bdrv_enable_dirty_bitmap(b);
    bdrv_set_dirty(&bs, 0, 1);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, GRANULARITY);
    g_assert_cmpint(bdrv_dirty_bitmap_check(b, BDRV_BITMAP_DEFAULT, &error_abort), ==, 0);

    bdrv_dirty_bitmap_set_busy(b, true);
    g_assert_cmpint(bdrv_dirty_bitmap_check(b, BDRV_BITMAP_DEFAULT, &err), ==, -1);
    expect_error(g_steal_pointer(&err),
                 "Bitmap 'b' is currently in use by another operation and cannot be "
                 "used");
    g_assert_cmpint(bdrv_dirty_bitmap_check(b, BDRV_BITMAP_RO, &error_abort), ==, 0);
    bdrv_dirty_bitmap_set_busy(b, false);
    node_read_only = true;
    g_assert_cmpint(bdrv_dirty_bitmap_check(b, BDRV_BITMAP_DEFAULT, &error_abort), ==, 0);
    bdrv_dirty_bitmap_set_persistence(b, true);
    g_assert_cmpint(bdrv_dirty_bitmap_check(b, BDRV_BITMAP_DEFAULT, &err), ==, -1);
    expect_error(g_steal_pointer(&err), "Bitmap 'b' is readonly and cannot be modified");
    node_read_only = false;
    bdrv_dirty_bitmap_set_inconsistent(b);
    g_assert_cmpint(bdrv_dirty_bitmap_check(b, BDRV_BITMAP_DEFAULT, &err), ==, -1);
    expect_error(g_steal_pointer(&err), "Bitmap 'b' is inconsistent and cannot be used");
    g_assert_false(bdrv_dirty_bitmap_enabled(b));

    list = bdrv_query_dirty_bitmaps(&bs);
    g_assert_nonnull(list);
    g_assert_null(list->next);
    g_assert_cmpstr(list->value->name, ==, "b");
    g_assert_cmpint(list->value->count, ==, GRANULARITY);
    g_assert_cmpuint(list->value->granularity, ==, GRANULARITY);
    g_assert_true(list->value->persistent && list->value->inconsistent &&
                  list->value->has_inconsistent);
    g_assert_false(list->value->recording || list->value->busy);
    qapi_free_BlockDirtyInfoList(list);
    bdrv_release_dirty_bitmap(b);
    g_assert_null(bdrv_query_dirty_bitmaps(&bs));
}

static void test_merge(void)
{
    BlockDriverState a, b;
    BdrvDirtyBitmap *coarse, *fine, *other;
    Error *err = NULL;

    node_init(&b, LENGTH);
    node_init(&a, LENGTH);
    fine = make(&a, 512, "fine");
    coarse = make(&a, 65536, "coarse");
    other = make(&b, 512, "other");
    bdrv_set_dirty_bitmap(fine, 70000, 1);
    bdrv_set_dirty_bitmap(fine, LENGTH - 1, 1);
    bdrv_set_dirty_bitmap(other, 0, 1024);

    g_assert_true(bdrv_merge_dirty_bitmap(other, fine, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(other), ==, 2048);
    g_assert_true(bdrv_merge_dirty_bitmap(coarse, fine, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(coarse), ==, 2 * 65536);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(coarse, 0, LENGTH), ==, 65536);
    g_assert_true(bdrv_merge_dirty_bitmap(fine, coarse, &error_abort));
    g_assert_true(bdrv_dirty_bitmap_get(fine, 65536));
    g_assert_true(bdrv_dirty_bitmap_get(fine, 2 * 65536 - 1));
    g_assert_false(bdrv_dirty_bitmap_get(fine, 65535));
    g_assert_true(bdrv_merge_dirty_bitmap(fine, fine, &error_abort));

    bdrv_dirty_bitmap_truncate(&b, LENGTH + 4096);
    g_assert_false(bdrv_merge_dirty_bitmap(other, fine, &err));
    expect_error(g_steal_pointer(&err),
                 "Bitmaps are of different sizes (destination size is 822296, source "
                 "size is 818200) and can't be merged");
    bdrv_release_named_dirty_bitmaps(&a);
    bdrv_release_named_dirty_bitmaps(&b);
}

static void test_truncate(void)
{
    BlockDriverState bs;
    BdrvDirtyBitmap *b;

    node_init(&bs, LENGTH);
    b = make(&bs, GRANULARITY, "b");
    bdrv_set_dirty(&bs, 0, LENGTH);
    bdrv_dirty_bitmap_truncate(&bs, 10 * GRANULARITY);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 10 * GRANULARITY);
    bdrv_dirty_bitmap_truncate(&bs, LENGTH * 3);
    /* What is added is clean, also where the map was dirty before it shrank. */
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 10 * GRANULARITY);
    g_assert_cmpint(bdrv_dirty_bitmap_next_zero(b, 0, LENGTH), ==, 10 * GRANULARITY);
    bdrv_set_dirty(&bs, LENGTH * 3 - 1, 1);
    g_assert_true(bdrv_dirty_bitmap_get(b, LENGTH * 3 - 1));
    bdrv_dirty_bitmap_truncate(&bs, 0);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 0);
    bdrv_release_dirty_bitmap(b);
}

static void test_serialize(void)
{
    BlockDriverState bs;
    BdrvDirtyBitmap *b, *copy;
    uint64_t size;
    uint8_t buf[64], expected[64] = {};

    node_init(&bs, LENGTH);
    b = make(&bs, GRANULARITY, "b");
    copy = make(&bs, GRANULARITY, "copy");
    bdrv_set_dirty_bitmap(b, 0, 1);
    bdrv_set_dirty_bitmap(b, 9 * GRANULARITY, 1);
    bdrv_set_dirty_bitmap(b, LENGTH - 1, 1);
    expected[0] = 0x01;
    expected[1] = 0x02;
    expected[(PIECES - 1) / 8] |= 1 << (PIECES - 1) % 8;
    size = bdrv_dirty_bitmap_serialization_size(b);
    g_assert_cmpuint(size, ==, 32);

    /* More than there is: zeroes. */
    memset(buf, 0xff, sizeof(buf));
    bdrv_dirty_bitmap_serialize(b, buf, 0, sizeof(buf));
    g_assert_cmpmem(buf, sizeof(buf), expected, sizeof(expected));
    /* In pieces. */
    for (uint64_t at = 0; at < 64; at += 16) {
        bdrv_dirty_bitmap_serialize(b, buf, at, 16);
        g_assert_cmpmem(buf, 16, expected + at, 16);
        bdrv_dirty_bitmap_deserialize(copy, buf, at, 16);
    }
    bdrv_dirty_bitmap_serialize(copy, buf, 0, sizeof(buf));
    g_assert_cmpmem(buf, sizeof(buf), expected, sizeof(expected));
    g_assert_cmpint(bdrv_get_dirty_count(copy), ==, 3 * GRANULARITY);

    /* Bits behind the end, from an image that somebody else wrote. */
    memset(buf, 0xff, sizeof(buf));
    bdrv_dirty_bitmap_deserialize(copy, buf, 0, sizeof(buf));
    g_assert_cmpint(bdrv_get_dirty_count(copy), ==, PIECES * GRANULARITY);
    bdrv_dirty_bitmap_truncate(&bs, 2 * LENGTH);
    g_assert_cmpint(bdrv_get_dirty_count(copy), ==, PIECES * GRANULARITY);
    bdrv_release_named_dirty_bitmaps(&bs);
}

static void *mark(void *opaque)
{
    BlockDriverState *bs = opaque;

    for (int i = 0; i < 20000; i++) {
        bdrv_set_dirty(bs, (int64_t)i * GRANULARITY % LENGTH, 1);
    }
    return NULL;
}

/* Writers in other threads, while bitmaps come and go. */
static void test_threads(void)
{
    BlockDriverState bs;
    GThread *threads[3];
    BdrvDirtyBitmap *b;

    node_init(&bs, LENGTH);
    b = make(&bs, GRANULARITY, "all");
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = g_thread_new("mark", mark, &bs);
    }
    for (int i = 0; i < 200; i++) {
        bdrv_release_dirty_bitmap(make(&bs, 512, "temporary"));
    }
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_thread_join(threads[i]);
    }
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, PIECES * GRANULARITY);
    bdrv_release_dirty_bitmap(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dirty-bitmap/model", test_model);
    g_test_add_func("/dirty-bitmap/ends", test_ends);
    g_test_add_func("/dirty-bitmap/names", test_names);
    g_test_add_func("/dirty-bitmap/granularity", test_granularity);
    g_test_add_func("/dirty-bitmap/states", test_states);
    g_test_add_func("/dirty-bitmap/merge", test_merge);
    g_test_add_func("/dirty-bitmap/truncate", test_truncate);
    g_test_add_func("/dirty-bitmap/serialize", test_serialize);
    g_test_add_func("/dirty-bitmap/threads", test_threads);
    return g_test_run();
}
