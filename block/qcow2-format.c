/*
 * qcow2: laying out a new image. All of it is known in advance, so it is written from beginning to
 * end:
 *
 *     header | refcount table | refcount blocks | L1 table | L2 tables | data
 *
 * the last two only with preallocation. Everything there has a count of 1, and the blocks, which
 * stand in a row, count themselves as well, so their number depends on itself (plan()).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

#define BUFFER_BYTES (UINT64_C(1) << 20)

/* Numbers of clusters. */
typedef struct Layout {
    uint64_t reftable, blocks, l1, l2, data;
    uint64_t l1_entries;
    uint64_t total;
} Layout;

static uint64_t divide_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

static bool plan(const Qcow2FormatOptions *opts, bool preallocate, Layout *l, Error **errp)
{
    uint64_t cluster = UINT64_C(1) << opts->cluster_bits;
    uint64_t per_table = cluster / (opts->extended_l2 ? 16 : 8);
    uint64_t per_block = cluster * 8 >> opts->refcount_order, before;
    uint64_t data = divide_up(opts->size, cluster), l2 = divide_up(data, per_table);

    *l = (Layout) { .l1_entries = MAX(l2, 1) };
    l->l1 = divide_up(l->l1_entries * 8, cluster);
    if (l->l1_entries * 8 > QCOW2_MAX_L1_BYTES) {
        error_setg(errp,
                   "The image is too large for a cluster size of %" PRIu64 " bytes (%" PRIu64
                   " bytes at most)",
                   cluster,
                   MIN(QCOW2_MAX_L1_BYTES / 8 * per_table * cluster, (uint64_t)BDRV_MAX_LENGTH));
        return false;
    }
    if (preallocate) {
        l->l2 = l2;
        l->data = data;
    }
    do {
        before = l->total;
        l->total = 1 + l->reftable + l->blocks + l->l1 + l->l2 + l->data;
        l->blocks = divide_up(l->total, per_block);
        l->reftable = MAX(divide_up(l->blocks * 8, cluster), 1);
    } while (l->total != before);
    if (l->reftable * cluster > QCOW2_MAX_REFTABLE_BYTES ||
        l->total > QCOW2_MAX_HOST_OFFSET / cluster) {
        error_setg(errp,
                   "The image is too large to be preallocated with a cluster size of %" PRIu64
                   " bytes and "
                   "refcounts of %u bits",
                   cluster, 1u << opts->refcount_order);
        return false;
    }
    return true;
}

uint64_t qcow2_format_bytes(const Qcow2FormatOptions *opts, uint64_t data_bytes)
{
    uint64_t cluster = UINT64_C(1) << opts->cluster_bits;
    Layout l;

    if (!plan(opts, true, &l, NULL)) {
        return UINT64_MAX;
    }
    return (l.total - l.data + divide_up(data_bytes, cluster)) * cluster;
}

/* ---- parts ---- */

typedef struct Format {
    BdrvChild *file;
    const Qcow2FormatOptions *opts;
    Layout l;
    uint8_t *buf;                       /* a buffer of that length, whole clusters */
    size_t buf_bytes;
} Format;

static uint64_t cluster_offset(const Format *f, uint64_t cluster)
{
    return cluster << f->opts->cluster_bits;
}

/* The content of cluster @n of a part, in zeroed memory. */
typedef void FillFn(const Format *f, uint64_t n, uint8_t *cluster);

static void fill_zeroes(const Format *f, uint64_t n, uint8_t *cluster)
{
}

static void fill_entries(uint8_t *table, uint64_t per_table, uint64_t first_index,
                         uint64_t end_index, uint64_t target, unsigned cluster_bits, uint64_t flags)
{
    for (uint64_t i = 0; i < per_table && first_index + i < end_index; i++) {
        stq_be_p(table + i * 8, ((target + first_index + i) << cluster_bits) | flags);
    }
}

static void fill_reftable(const Format *f, uint64_t n, uint8_t *table)
{
    uint64_t per_table = cluster_offset(f, 1) / 8;

    fill_entries(table, per_table, n * per_table, f->l.blocks, 1 + f->l.reftable,
                 f->opts->cluster_bits, 0);
}

static void fill_block(const Format *f, uint64_t n, uint8_t *block)
{
    uint64_t per_block = cluster_offset(f, 8) >> f->opts->refcount_order;
    uint64_t used = MIN(f->l.total - n * per_block, per_block);

    for (uint64_t i = 0; i < used; i++) {
        qcow2_refcount_store(block, f->opts->refcount_order, i, 1);
    }
}

static uint64_t first_l2(const Format *f)
{
    return 1 + f->l.reftable + f->l.blocks + f->l.l1;
}

static void fill_l1(const Format *f, uint64_t n, uint8_t *table)
{
    uint64_t per_table = cluster_offset(f, 1) / 8;

    fill_entries(table, per_table, n * per_table, f->l.l2, first_l2(f), f->opts->cluster_bits,
                 QCOW2_COPIED);
}

/* As qcow2_entry_store() does it for an open image. */
static void fill_extended_l2(const Format *f, uint64_t n, uint8_t *table)
{
    uint64_t per_table = cluster_offset(f, 1) / 16, target = first_l2(f) + f->l.l2;

    for (uint64_t i = 0; i < per_table && n * per_table + i < f->l.data; i++) {
        stq_be_p(table + i * 16, cluster_offset(f, target + n * per_table + i) | QCOW2_COPIED);
        stq_be_p(table + i * 16 + 8, QCOW2_BITMAP_ALLOC_ALL);
    }
}

static void fill_l2(const Format *f, uint64_t n, uint8_t *table)
{
    uint64_t per_table = cluster_offset(f, 1) / 8;

    fill_entries(table, per_table, n * per_table, f->l.data, first_l2(f) + f->l.l2,
                 f->opts->cluster_bits, QCOW2_COPIED);
}

static int coroutine_fn write_part(Format *f, uint64_t *at, uint64_t clusters, FillFn *fill)
{
    uint64_t per_buf = f->buf_bytes >> f->opts->cluster_bits;

    for (uint64_t done = 0; done < clusters;) {
        uint64_t n = MIN(per_buf, clusters - done);
        int ret;

        memset(f->buf, 0, cluster_offset(f, n));
        for (uint64_t i = 0; i < n; i++) {
            fill(f, done + i, f->buf + cluster_offset(f, i));
        }
        ret = bdrv_co_pwrite(f->file, cluster_offset(f, *at), cluster_offset(f, n), f->buf, 0);
        if (ret < 0) {
            return ret;
        }
        *at += n;
        done += n;
    }
    return 0;
}

/* Everything but the header, whose place stays zero until the end. */
static int coroutine_fn write_tables(Format *f)
{
    uint64_t at = 0;
    int ret = write_part(f, &at, 1, fill_zeroes);

    ret = ret < 0 ? ret : write_part(f, &at, f->l.reftable, fill_reftable);
    ret = ret < 0 ? ret : write_part(f, &at, f->l.blocks, fill_block);
    ret = ret < 0 ? ret : write_part(f, &at, f->l.l1, fill_l1);
    return ret < 0 ? ret
                   : write_part(f, &at, f->l.l2,
                                f->opts->extended_l2 ? fill_extended_l2 : fill_l2);
}

static int coroutine_fn write_header(Format *f, Error **errp)
{
    const Qcow2FormatOptions *o = f->opts;
    Qcow2Header hdr = {
        .version = o->version, .cluster_bits = o->cluster_bits, .size = o->size,
        .l1_size = f->l.l1_entries, .l1_offset = cluster_offset(f, 1 + f->l.reftable + f->l.blocks),
        .reftable_offset = cluster_offset(f, 1), .reftable_clusters = f->l.reftable,
        .refcount_order = o->refcount_order, .compression = o->compression,
        .incompatible = (o->compression ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                        (o->extended_l2 ? QCOW2_INCOMPAT_EXTENDED_L2 : 0),
        .compatible = o->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0,
        .backing_file = (char *)o->backing_file, .backing_format = (char *)o->backing_format,
    };
    int ret;

    memset(f->buf, 0, cluster_offset(f, 1));
    if (!qcow2_header_serialize(&hdr, f->buf, errp)) {
        return -EINVAL;
    }
    ret = bdrv_co_pwrite(f->file, 0, cluster_offset(f, 1), f->buf, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the qcow2 header");
    }
    return ret;
}

/* The file as long as the image, empty but for what is preallocated. */
static int coroutine_fn size_file(Format *f, Error **errp)
{
    PreallocMode mode = f->opts->preallocation == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF
                                                                         : f->opts->preallocation;
    uint64_t data_at = cluster_offset(f, first_l2(f) + f->l.l2);
    int ret = bdrv_co_truncate(f->file, 0, false, PREALLOC_MODE_OFF, 0, errp);

    if (ret == 0) {
        ret = bdrv_co_truncate(f->file, cluster_offset(f, f->l.total), false, mode, 0, errp);
    }
    /* What could not be cut off has old content where the disk is to be zero. */
    if (ret == 0 && f->l.data &&
        bdrv_co_is_zero_fast(f->file->bs, data_at, cluster_offset(f, f->l.data)) <= 0 &&
        mode == PREALLOC_MODE_OFF) {
        ret = bdrv_co_pwrite_zeroes(f->file, data_at, cluster_offset(f, f->l.data), 0);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not write zeroes to the new image");
        }
    }
    return ret;
}

static int coroutine_fn format_file(Format *f, Error **errp)
{
    int ret = size_file(f, errp);

    if (ret < 0) {
        return ret;
    }
    ret = write_tables(f);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the metadata of the new qcow2 image");
        return ret;
    }
    ret = write_header(f, errp);
    if (ret == 0) {
        ret = bdrv_co_flush(f->file->bs);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not flush the new qcow2 image");
        }
    }
    return ret;
}

bool qcow2_format_possible(const Qcow2FormatOptions *opts, Error **errp)
{
    Layout l;

    return plan(opts, opts->preallocation != PREALLOC_MODE_OFF, &l, errp);
}

int coroutine_fn qcow2_format(BdrvChild *file, const Qcow2FormatOptions *opts, Error **errp)
{
    Format f = { .file = file, .opts = opts };
    int ret;

    if (!plan(opts, opts->preallocation != PREALLOC_MODE_OFF, &f.l, errp)) {
        return -EINVAL;
    }
    f.buf_bytes = MAX(BUFFER_BYTES, cluster_offset(&f, 1));
    f.buf = bdrv_try_blockalign(file->bs, f.buf_bytes);
    if (!f.buf) {
        error_setg(errp, "Not enough memory to make a qcow2 image");
        return -ENOMEM;
    }
    ret = format_file(&f, errp);
    free(f.buf);
    return ret < 0 ? ret : 0;
}
