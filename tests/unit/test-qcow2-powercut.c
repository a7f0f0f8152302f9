/*
 * qcow2 over a disk whose power fails. The disk is memory that remembers which writes were not
 * flushed yet; at random moments it is photographed as it could be after a power cut: what was
 * flushed, and of the rest any sectors of any writes. Each photograph is opened afterwards: the
 * check must find leaks at worst, and each sector of the guest must have what was there at the last
 * flush or something newer.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph-internal.h"
#include "block/qcow2.h"
#include "tests/unit/block-harness.h"
#include "util/bswap.h"

#define SECTOR 512
#define DISK_BYTES (2u << 20)
#define DISK_SECTORS (DISK_BYTES / SECTOR)
#define MAX_PHOTOS 25
#define WORKERS 4

/* ---- the disk ---- */

typedef struct PendingWrite {
    uint64_t offset;
    GByteArray *data;
} PendingWrite;

typedef struct MemDisk {
    GByteArray *now, *flushed;
    GPtrArray *pending;                 /* of PendingWrite, since the last flush began */
} MemDisk;

static GRand *rng;
/* Called in the middle of requests when set. */
static void (*moment)(BlockDriverState *bs);

static void pending_free(void *opaque)
{
    PendingWrite *w = opaque;

    g_byte_array_unref(w->data);
    g_free(w);
}

/* Let others run for a while. */
static void coroutine_fn wander(BlockDriverState *bs)
{
    if (moment) {
        moment(bs);
    }
    for (unsigned n = g_rand_int_range(rng, 0, 3); n; n--) {
        aio_co_schedule(aio_current(), coroutine_self());
        coroutine_yield();
    }
}

static int coroutine_fn mem_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    MemDisk *d = bs->opaque;

    wander(bs);
    g_assert(offset + bytes <= d->now->len);
    iovector_from_buf(qiov, qiov_offset, d->now->data + offset, bytes);
    return 0;
}

static void store(MemDisk *d, uint64_t offset, const void *data, uint64_t bytes)
{
    PendingWrite *w = g_new(PendingWrite, 1);
    guint old = d->now->len;

    if (offset + bytes > old) {
        g_byte_array_set_size(d->now, offset + bytes);
        memset(d->now->data + old, 0, d->now->len - old);
    }
    memcpy(d->now->data + offset, data, bytes);
    w->offset = offset;
    w->data = g_byte_array_append(g_byte_array_new(), data, bytes);
    g_ptr_array_add(d->pending, w);
}

static int coroutine_fn mem_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    wander(bs);
    iovector_to_buf(qiov, qiov_offset, buf, bytes);
    store(bs->opaque, offset, buf, bytes);
    wander(bs);
    return 0;
}

static int coroutine_fn mem_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags)
{
    g_autofree uint8_t *zeroes = g_malloc0(bytes);

    wander(bs);
    store(bs->opaque, offset, zeroes, bytes);
    return 0;
}

/* A discarded sector has anything. */
static int coroutine_fn mem_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *junk = g_malloc(bytes);

    memset(junk, 0xdd, bytes);
    wander(bs);
    store(bs->opaque, offset, junk, bytes);
    return 0;
}

static int coroutine_fn mem_flush(BlockDriverState *bs)
{
    MemDisk *d = bs->opaque;
    g_autoptr(GPtrArray) done = d->pending;
    GByteArray *content = g_byte_array_append(g_byte_array_new(), d->now->data, d->now->len);

    d->pending = g_ptr_array_new_with_free_func(pending_free);
    wander(bs);
    /* Writes that began after the flush may still be lost: they are in the new list. */
    g_byte_array_unref(d->flushed);
    d->flushed = content;
    return 0;
}

static int64_t coroutine_fn mem_getlength(BlockDriverState *bs)
{
    return ((MemDisk *)bs->opaque)->now->len;
}

static int coroutine_fn mem_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                     PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    MemDisk *d = bs->opaque;
    guint old = d->now->len;

    wander(bs);
    g_byte_array_set_size(d->now, offset);
    if (offset > old) {
        memset(d->now->data + old, 0, offset - old);
    }
    return 0;
}

static void mem_close(BlockDriverState *bs)
{
    MemDisk *d = bs->opaque;

    g_byte_array_unref(d->now);
    g_byte_array_unref(d->flushed);
    g_ptr_array_unref(d->pending);
}

static const BlockDriver mem_driver = {
    .format_name = "memory", .driver = BLOCKDEV_DRIVER_FILE, .instance_size = sizeof(MemDisk),
    .close = mem_close,
    .co_preadv = mem_preadv, .co_pwritev = mem_pwritev, .co_pwrite_zeroes = mem_pwrite_zeroes,
    .co_pdiscard = mem_pdiscard, .co_flush_to_disk = mem_flush, .co_getlength = mem_getlength,
    .co_truncate = mem_truncate,
};

/* A node with that content (taken over; NULL: empty). */
static BlockDriverState *mem_node(const char *name, GByteArray *content)
{
    BlockDriverState *bs = bdrv_new(&mem_driver, name, &error_abort);
    MemDisk *d = bs->opaque;

    d->now = content ? content : g_byte_array_new();
    d->flushed = g_byte_array_append(g_byte_array_new(), d->now->data, d->now->len);
    d->pending = g_ptr_array_new_with_free_func(pending_free);
    bs->opened = true;
    bs->discard_unmap = true;
    bs->filename = g_strdup(name);
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    bs->total_bytes = d->now->len;
    return bs;
}

/* ---- what the guest may find ---- */

typedef struct Sector {
    uint32_t sure;                      /* version at the last flush */
    GArray *later;                      /* versions since */
} Sector;

static Sector sectors[DISK_SECTORS];
static uint32_t last_version;

static void model_write(uint64_t first, uint64_t n, uint32_t version)
{
    for (uint64_t s = first; s < first + n; s++) {
        g_array_append_val(sectors[s].later, version);
    }
}

/* Versions up to @limit were complete when the flush began. */
static void model_flush(uint32_t limit)
{
    for (unsigned s = 0; s < DISK_SECTORS; s++) {
        GArray *later = sectors[s].later;
        guint n = 0;

        while (n < later->len && (g_array_index(later, uint32_t, n) & 0x7fffffff) <= limit) {
            sectors[s].sure = g_array_index(later, uint32_t, n++);
        }
        g_array_remove_range(later, 0, n);
    }
}

/* Zeroes have versions too, with the highest bit set. */
#define ZERO_VERSION 0x80000000u

static bool model_allows(const Sector *sector, uint32_t version)
{
    bool zero = version == 0;

    if (zero ? !sector->sure || (sector->sure & ZERO_VERSION) : sector->sure == version) {
        return true;
    }
    for (guint i = 0; i < sector->later->len; i++) {
        uint32_t v = g_array_index(sector->later, uint32_t, i);

        if (zero ? (v & ZERO_VERSION) != 0 : v == version) {
            return true;
        }
    }
    return false;
}

/* ---- photographs ---- */

typedef struct Photo {
    GByteArray *image;
    Sector *sectors;
} Photo;

static GPtrArray *photos;

static void photo_free(void *opaque)
{
    Photo *p = opaque;

    for (unsigned s = 0; s < DISK_SECTORS; s++) {
        g_array_unref(p->sectors[s].later);
    }
    g_free(p->sectors);
    g_free(p);
}

/*
 * Each sector of what was not flushed may have reached the disk or not, in any order between
 * writes.
 */
static GByteArray *photograph(MemDisk *d)
{
    GByteArray *image = g_byte_array_append(g_byte_array_new(), d->flushed->data, d->flushed->len);
    unsigned chance = g_rand_int_range(rng, 0, 11);

    for (guint i = 0; i < d->pending->len; i++) {
        const PendingWrite *w = d->pending->pdata[i];

        for (uint64_t at = w->offset; at < w->offset + w->data->len;) {
            uint64_t n = MIN(SECTOR - at % SECTOR, w->offset + w->data->len - at);

            if (g_rand_int_range(rng, 0, 10) < (gint32)chance) {
                guint old = image->len;

                if (at + n > old) {
                    g_byte_array_set_size(image, at + n);
                    memset(image->data + old, 0, image->len - old);
                }
                memcpy(image->data + at, w->data->data + (at - w->offset), n);
            }
            at += n;
        }
    }
    return image;
}

static void maybe_photograph(BlockDriverState *bs)
{
    Photo *p;

    if (photos->len >= MAX_PHOTOS || g_rand_int_range(rng, 0, 60)) {
        return;
    }
    p = g_new0(Photo, 1);
    p->image = photograph(bs->opaque);
    p->sectors = g_new(Sector, DISK_SECTORS);
    for (unsigned s = 0; s < DISK_SECTORS; s++) {
        p->sectors[s].sure = sectors[s].sure;
        p->sectors[s].later = g_array_copy(sectors[s].later);
    }
    g_ptr_array_add(photos, p);
}

/* ---- the guest ---- */

typedef struct Guest {
    BlockBackend *blk;
    unsigned ops, running;
    uint32_t busy[WORKERS];             /* version under way; 0: none */
    Coroutine *main;
} Guest;

typedef struct Worker {
    Guest *g;
    unsigned number;
} Worker;

static void tag(uint8_t *buf, uint64_t first, uint64_t n, uint32_t version)
{
    for (uint64_t i = 0; i < n * SECTOR; i += 8) {
        stl_le_p(buf + i, version);
        stl_le_p(buf + i + 4, first + i / SECTOR);
    }
}

static uint32_t begin_version(Worker *w, uint32_t flag, uint64_t first, uint64_t n)
{
    uint32_t version = ++last_version;

    w->g->busy[w->number] = version;
    model_write(first, n, version | flag);
    return version;
}

static void coroutine_fn flush(Guest *g)
{
    uint32_t limit = last_version;

    for (unsigned i = 0; i < WORKERS; i++) {
        limit = g->busy[i] ? MIN(limit, g->busy[i] - 1) : limit;
    }
    g_assert_cmpint(blk_co_flush(g->blk), ==, 0);
    model_flush(limit);
}

static void coroutine_fn one_op(Worker *w)
{
    Guest *g = w->g;
    uint32_t cluster = qcow2_state(blk_bs(g->blk))->cluster_size / SECTOR;
    /* Workers have parts of their own, so the order of versions of a sector is known. */
    uint64_t part = DISK_SECTORS / WORKERS, n = g_rand_int_range(rng, 1, MAX(3 * cluster, 20));
    uint64_t at = g_rand_int_range(rng, 0, part), first = w->number * part + at;
    unsigned kind = g_rand_int_range(rng, 0, 20);
    g_autofree uint8_t *buf = g_malloc(part * SECTOR);
    uint32_t version;

    n = MIN(n, part - at);
    if (kind < 11) {
        version = begin_version(w, 0, first, n);
        tag(buf, first, n, version);
        g_assert_cmpint(blk_co_pwrite(g->blk, first * SECTOR, n * SECTOR, buf, 0), ==, 0);
    } else if (kind < 14) {
        begin_version(w, ZERO_VERSION, first, n);
        g_assert_cmpint(blk_co_pwrite_zeroes(g->blk, first * SECTOR, n * SECTOR,
                                             kind & 1 ? BDRV_REQ_MAY_UNMAP : 0), ==, 0);
    } else if (kind < 16 && at / cluster * cluster + cluster <= part) {
        first = w->number * part + at / cluster * cluster;
        version = begin_version(w, 0, first, cluster);
        tag(buf, first, cluster, version);
        g_assert_cmpint(
            blk_co_pwrite_compressed(g->blk, first * SECTOR, (int64_t)cluster * SECTOR, buf), ==,
            0);
    } else if (kind < 18) {
        begin_version(w, ZERO_VERSION, first / cluster * cluster, 0);
        /* Whole clusters of it, which then read as zeroes. */
        first = (first + cluster - 1) / cluster * cluster;
        if (first + cluster <= (w->number + 1) * part) {
            begin_version(w, ZERO_VERSION, first, cluster);
            g_assert_cmpint(blk_co_pdiscard(g->blk, first * SECTOR, (int64_t)cluster * SECTOR), ==,
                            0);
        }
    } else if (kind == 18) {
        w->g->busy[w->number] = 0;
        flush(g);
    }
    w->g->busy[w->number] = 0;
}

static void coroutine_fn worker(void *opaque)
{
    Worker *w = opaque;

    while (w->g->ops) {
        w->g->ops--;
        one_op(w);
    }
    if (--w->g->running == 0) {
        aio_co_wake(w->g->main);
    }
}

static void coroutine_fn guest_entry(void *opaque)
{
    Guest *g = opaque;
    Worker workers[WORKERS];

    g->main = coroutine_self();
    g->running = WORKERS;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (Worker) { g, i };
        coroutine_enter(coroutine_create(worker, &workers[i]));
    }
    while (g->running) {
        coroutine_yield();
    }
}

/* ---- verdicts ---- */

typedef struct CheckCall {
    BlockDriverState *bs;
    BdrvCheckResult result;
} CheckCall;

static void coroutine_fn check_entry(void *opaque)
{
    CheckCall *call = opaque;

    g_assert_cmpint(bdrv_qcow2.co_check(call->bs, &call->result, 0), ==, 0);
}

static void verify_content(BlockBackend *blk, const Sector *model)
{
    g_autofree uint8_t *disk = g_malloc(DISK_BYTES);

    g_assert_cmpint(blk_pread(blk, 0, DISK_BYTES, disk, 0), ==, 0);
    for (unsigned s = 0; s < DISK_SECTORS; s++) {
        const uint8_t *p = disk + s * SECTOR;
        uint32_t version = ldl_le_p(p);

        for (unsigned i = 0; i < SECTOR; i += 8) {
            if (ldl_le_p(p + i) != version || ldl_le_p(p + i + 4) != (version ? s : 0)) {
                g_error("sector %u is torn or not its own: %08x of %u at %u, version %u", s,
                        ldl_le_p(p + i), ldl_le_p(p + i + 4), i, version);
            }
        }
        if (!model_allows(&model[s], version)) {
            g_error("sector %u has version %u, but %u was flushed (%u later ones)", s, version,
                    model[s].sure, model[s].later->len);
        }
    }
}

static void verify_photo(Photo *p, bool lazy)
{
    BlockDriverState *mem = mem_node("photo", p->image);
    BlockBackend *blk =
        blk_from("{'driver': 'qcow2', 'node-name': 'q', 'file': 'photo', 'read-only': true}");
    CheckCall call = { .bs = blk_bs(blk) };

    verify_content(blk, p->sectors);
    run_co(check_entry, &call);
    if (!lazy) {
        g_assert_cmpuint(call.result.corruptions, ==, 0);
        g_assert_cmpuint(call.result.check_errors, ==, 0);
    }
    blk_unref(blk);
    /* And it can be used: a lazy one is repaired by that. */
    blk = blk_from("{'driver': 'qcow2', 'node-name': 'q', 'file': 'photo'}");
    write_pattern(blk, 0, DISK_BYTES / 2, 7);
    expect_pattern(blk, 0, DISK_BYTES / 2, 7);
    blk_flush(blk);
    call.bs = blk_bs(blk);
    run_co(check_entry, &call);
    g_assert_cmpuint(call.result.corruptions, ==, 0);
    g_assert_cmpuint(call.result.check_errors, ==, 0);
    blk_unref(blk);
    bdrv_unref(mem);
}

typedef struct FormatCall {
    BlockDriverState *mem;
    unsigned cluster_bits, refcount_order;
    bool lazy;
} FormatCall;

static void coroutine_fn format_entry(void *opaque)
{
    FormatCall *call = opaque;
    BlockdevCreateOptions opts = { .driver = BLOCKDEV_DRIVER_QCOW2 };
    BlockdevRef ref = { .type = QTYPE_QSTRING, .u.reference = call->mem->node_name };

    opts.u.qcow2 = (BlockdevCreateOptionsQcow2){
        .file = &ref,
        .size = DISK_BYTES,
        .has_cluster_size = true,
        .cluster_size = 1u << call->cluster_bits,
        .has_refcount_bits = true,
        .refcount_bits = 1 << call->refcount_order,
        .has_lazy_refcounts = true,
        .lazy_refcounts = call->lazy,
    };
    g_assert_cmpint(qcow2_co_create(&opts, &error_abort), ==, 0);
}

static void power_cuts(unsigned seed, unsigned cluster_bits, unsigned refcount_order, bool lazy)
{
    FormatCall format = { .cluster_bits = cluster_bits,
                          .refcount_order = refcount_order,
                          .lazy = lazy };
    Guest guest = { .ops = 700 };

    rng = g_rand_new_with_seed(seed);
    last_version = 0;
    for (unsigned s = 0; s < DISK_SECTORS; s++) {
        sectors[s] = (Sector) { .later = g_array_new(FALSE, FALSE, sizeof(uint32_t)) };
    }
    photos = g_ptr_array_new_with_free_func(photo_free);
    format.mem = mem_node("mem", NULL);
    run_co(format_entry, &format);
    guest.blk =
        blk_from("{'driver': 'qcow2', 'node-name': 'q', 'file': 'mem', 'discard': 'unmap', "
                 "'pass-discard-other': true, 'l2-cache-size': 1, 'refcount-cache-size': 1}");
    moment = maybe_photograph;
    run_co(guest_entry, &guest);
    moment = NULL;
    blk_unref(guest.blk);
    bdrv_unref(format.mem);
    g_assert_cmpuint(photos->len, >, 5);
    for (guint i = 0; i < photos->len; i++) {
        verify_photo(photos->pdata[i], lazy);
    }
    g_ptr_array_unref(photos);
    for (unsigned s = 0; s < DISK_SECTORS; s++) {
        g_array_unref(sectors[s].later);
    }
    g_rand_free(rng);
}

static void test_small_clusters(void)
{
    power_cuts(g_test_rand_int(), 9, 4, false);
}

static void test_narrow_refcounts(void)
{
    power_cuts(g_test_rand_int(), 12, 0, false);
}

static void test_large_clusters(void)
{
    power_cuts(g_test_rand_int(), 16, 4, false);
}

static void test_growing_tables(void)
{
    power_cuts(g_test_rand_int(), 9, 6, false);
}

static void test_lazy_refcounts(void)
{
    power_cuts(g_test_rand_int(), 12, 4, true);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/powercut/small-clusters", test_small_clusters);
    g_test_add_func("/qcow2/powercut/narrow-refcounts", test_narrow_refcounts);
    g_test_add_func("/qcow2/powercut/large-clusters", test_large_clusters);
    g_test_add_func("/qcow2/powercut/growing-tables", test_growing_tables);
    g_test_add_func("/qcow2/powercut/lazy-refcounts", test_lazy_refcounts);
    return g_test_run();
}
