/*
 * qcow2: another length of the disk.
 *
 * Longer: the L1 table must be large enough (a larger one is written elsewhere first), then the
 * header says so; what is asked to be preallocated is allocated as zero clusters would be, but with
 * the file's space reserved. Shorter: the clusters behind the new end are given up first, so that a
 * crash in between leaves a disk of the old length whose end is zero.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

#define ZERO_BYTES (UINT64_C(1) << 20)

/* ---- the L1 table ---- */

static int coroutine_fn write_l1_location(BlockDriverState *bs, uint32_t n, uint64_t offset)
{
    uint8_t buf[12];
    int ret;

    stl_be_p(buf, n);
    stq_be_p(buf + 4, offset);
    ret = bdrv_co_pwrite(bs->file, QCOW2_AT_L1_SIZE, sizeof(buf), buf, 0);
    return ret < 0 ? ret : bdrv_co_flush(bs->file->bs);
}

/* The new table takes the place of the old one, which is up to date in the file. */
static int coroutine_fn replace_l1(BlockDriverState *bs, Qcow2Table *table)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t old_offset = s->l1.offset, old_bytes = (uint64_t)s->l1.n * 8;
    int ret;

    memcpy(table->entry, s->l1.entry, (size_t)s->l1.n * 8);
    ret = qcow2_table_write(bs, table);
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret >= 0) {
        ret = write_l1_location(bs, table->n, table->offset);
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_table_clear(&s->l1);
    s->l1 = *table;
    *table = (Qcow2Table) { 0 };
    s->hdr.l1_size = s->l1.n;
    s->hdr.l1_offset = s->l1.offset;
    qcow2_free_later(s, old_offset, old_bytes, QCOW2_DISCARD_OTHER);
    return 0;
}

/* With the lock. */
static int coroutine_fn grow_l1(BlockDriverState *bs, uint64_t n, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Table table;
    int64_t offset;
    bool zeroed;
    int ret;

    if (n <= s->l1.n) {
        return 0;
    }
    if (n * 8 > QCOW2_MAX_L1_BYTES) {
        error_setg(errp, "The image is too large for a cluster size of %u bytes", s->cluster_size);
        return -EFBIG;
    }
    offset = qcow2_alloc_clusters(bs, qcow2_clusters_up(s, n * 8), &zeroed);
    ret = offset < 0 ? (int)offset : qcow2_write_back_all(bs);
    if (ret == 0 && !qcow2_table_init(&table, n, offset)) {
        ret = -ENOMEM;
    }
    if (ret == 0) {
        co_mutex_lock(&s->flush_lock);
        ret = replace_l1(bs, &table);
        co_mutex_unlock(&s->flush_lock);
        qcow2_table_clear(&table);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not make the L1 table larger");
    }
    return ret;
}

static int coroutine_fn write_size(BlockDriverState *bs, uint64_t size, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint8_t buf[8];
    int ret;

    stq_be_p(buf, size);
    ret = bdrv_co_pwrite(bs->file, QCOW2_AT_SIZE, sizeof(buf), buf, 0);
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the new length of the image");
        return ret;
    }
    s->hdr.size = size;
    return 0;
}

/* ---- preallocation ---- */

/* The new clusters have zeroes already, or get them; and the file's space for them. */
static int coroutine_fn reserve(BlockDriverState *bs, uint64_t host, uint64_t bytes, bool zeroed,
                                PreallocMode mode)
{
    g_autofree uint8_t *zeroes = NULL;
    int ret = -ENOTSUP;

    if (zeroed && mode == PREALLOC_MODE_METADATA) {
        return 0;
    }
    if (mode != PREALLOC_MODE_FULL) {
        ret = bdrv_co_pwrite_zeroes(bs->file, host, bytes, BDRV_REQ_NO_FALLBACK);
    }
    if (ret == -ENOTSUP) {
        zeroes = g_malloc0(ZERO_BYTES);
        ret = 0;
        for (uint64_t at = 0; at < bytes && ret >= 0; at += ZERO_BYTES) {
            ret = bdrv_co_pwrite(bs->file, host + at, MIN(ZERO_BYTES, bytes - at), zeroes, 0);
        }
    }
    return MIN(ret, 0);
}

/*
 * Clusters from @offset on that are not allocated get some, as many as one slice has. With the
 * lock.
 */
static int coroutine_fn preallocate_slice(BlockDriverState *bs, uint64_t offset, uint64_t end,
                                          PreallocMode mode, uint64_t *done)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t n = qcow2_clusters_up(s, end - offset);
    Qcow2Mapping map;
    Qcow2Slice *slice;
    int64_t host;
    unsigned index;
    bool zeroed;
    int ret;

    qcow2_wait_for_allocs(s, offset, end - offset);
    ret = qcow2_map(bs, offset, end - offset, &map);
    if (ret < 0) {
        return ret;
    }
    *done = map.bytes;
    if (map.type != QCOW2_UNALLOCATED && map.type != QCOW2_ZERO_PLAIN) {
        return 0;
    }
    ret = qcow2_slice_for_change(bs, offset, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    n = MIN(MIN(n, qcow2_clusters_up(s, map.bytes)), s->slice_entries - index);
    host = qcow2_alloc_run(bs, &n, &zeroed);
    ret = MIN(host, 0);
    if (ret == 0) {
        ret = reserve(bs, host, n << s->cluster_bits, zeroed, mode);
    }
    for (uint64_t i = 0; i < n && ret >= 0; i++) {
        qcow2_replace_entry(s, slice, index + i,
                            qcow2_data_entry(s, host + (i << s->cluster_bits)),
                            QCOW2_DISCARD_NEVER);
    }
    qcow2_cache_put(&s->l2_cache, slice);
    s->data_before_l2 = true;
    *done = MIN(n << s->cluster_bits, end - offset);
    return MIN(ret, 0);
}

static int coroutine_fn preallocate(BlockDriverState *bs, uint64_t offset, uint64_t end,
                                    PreallocMode mode, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    for (offset = qcow2_start_of_cluster(s, offset); offset < end && ret == 0;) {
        uint64_t done = 0;

        co_mutex_lock(&s->lock);
        ret = preallocate_slice(bs, offset, end, mode, &done);
        co_mutex_unlock(&s->lock);
        offset += done;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not preallocate the new part of the image");
    }
    return ret;
}

/* ---- the cluster in which the disk ends ---- */

/* Its rest is to read as zeroes when the disk reaches over it. */
static int coroutine_fn zero_rest(BlockDriverState *bs, uint64_t from, uint64_t to)
{
    Qcow2State *s = qcow2_state(bs);
    g_autofree uint8_t *zeroes = g_malloc0(ZERO_BYTES);
    Qcow2Mapping map;
    int ret;

    to = MIN(to, round_up_u64(from, s->cluster_size));
    if (from >= to) {
        return 0;
    }
    ret = qcow2_map(bs, from, to - from, &map);
    if (ret < 0 || (map.bytes == to - from &&
                    (qcow2_is_zero(map.type) ||
                     (qcow2_is_backing(map.type) && from >= qcow2_backing_len(bs))))) {
        return ret;
    }
    while (from < to && ret >= 0) {
        uint64_t n = MIN(to - from, ZERO_BYTES);
        IOVector qiov;

        iovector_init_buf(&qiov, zeroes, n);
        ret = qcow2_co_pwritev(bs, from, n, &qiov, 0, 0);
        from += n;
    }
    return ret;
}

/* ---- longer and shorter ---- */

/*
 * The rest of the last cluster always: it may have what was there before the disk was made shorter.
 */
static int coroutine_fn zero_added(BlockDriverState *bs, uint64_t from, uint64_t to, bool all,
                                   Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t start = round_up_u64(from, s->cluster_size), backing = qcow2_backing_len(bs);
    int ret = zero_rest(bs, from, to);

    /* Where there is no backing file nothing is there. */
    if (ret >= 0 && all && start < MIN(to, backing)) {
        ret = qcow2_zero_clusters(bs, start,
                                  MIN(to, round_up_u64(backing, s->cluster_size)) - start, 0);
    }
    if (ret == -ENOTSUP) {
        error_setg(errp, "A qcow2 image of version 2 cannot be made longer where its backing file "
                         "is longer than it");
    } else if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write zeroes to the new part of the image");
    }
    return ret;
}

static int coroutine_fn grow(BlockDriverState *bs, uint64_t old, uint64_t size,
                             PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;

    co_mutex_lock(&s->lock);
    ret = grow_l1(bs, qcow2_l1_needed(&s->hdr, size), errp);
    co_mutex_unlock(&s->lock);
    if (ret == 0) {
        ret = zero_added(bs, old, size, flags & BDRV_REQ_ZERO_WRITE, errp);
    }
    if (ret == 0 && prealloc != PREALLOC_MODE_OFF) {
        ret = preallocate(bs, round_up_u64(old, s->cluster_size), size, prealloc, errp);
    }
    if (ret == 0) {
        ret = qcow2_write_back(bs);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not write the metadata of the image");
        }
    }
    return ret < 0 ? ret : write_size(bs, size, errp);
}

static int coroutine_fn shrink(BlockDriverState *bs, uint64_t old, uint64_t size, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t start = round_up_u64(size, s->cluster_size);
    int ret = 0;

    if (start < old) {
        ret = qcow2_discard_clusters(bs, start, old - start, true, QCOW2_DISCARD_REQUEST);
    }
    if (ret == 0) {
        ret = qcow2_settle(bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not give up the end of the image");
        return ret;
    }
    return write_size(bs, size, errp);
}

int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t old = s->hdr.size, size = offset;
    int ret;

    for (guint i = 0; i < s->snapshots->len; i++) {
        const Qcow2Snapshot *snap = s->snapshots->pdata[i];

        if (!snap->has_disk_size) {
            error_setg(
                errp,
                "The image cannot be resized: its snapshot '%s' does not say how long the disk was",
                snap->name);
            return -ENOTSUP;
        }
    }
    if (prealloc != PREALLOC_MODE_OFF && (size <= old || qcow2_backing_len(bs) > old)) {
        error_setg(
            errp,
            "Preallocation is only possible for what makes an image longer than its backing file");
        return -EINVAL;
    }
    if (size > old && !qcow2_bitmaps_fit(bs, size)) {
        error_setg(errp, "The bitmaps of '%s' would need too much memory for a disk of %" PRIu64
                   " bytes: at most %u bytes", bdrv_get_filename(bs), size,
                   QCOW2_MAX_BITMAPS_BYTES);
        return -EFBIG;
    }
    ret = qcow2_begin_change(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "'%s' cannot be resized", bdrv_get_filename(bs));
        return ret;
    }
    return size == old ? 0 : size > old ? grow(bs, old, size, prealloc, flags, errp)
                                        : shrink(bs, old, size, errp);
}
