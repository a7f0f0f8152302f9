/*
 * qcow2: the file gets longer, and the refcount table with it.
 *
 * The file is extended in steps that are larger than what is needed at the moment, so that not
 * every allocation changes its length; what lies behind the last cluster in use is a hole and costs
 * nothing. Closing gives it back. All of what was added is known to be zero until it is allocated.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

#define MIN_STEP_BYTES (UINT64_C(1) << 20)
#define MAX_STEP_BYTES (UINT64_C(64) << 20)

static int coroutine_fn extend_to(BlockDriverState *bs, uint64_t len)
{
    return bdrv_co_truncate(bs->file, len, false, PREALLOC_MODE_OFF, BDRV_REQ_ZERO_WRITE, NULL);
}

int coroutine_fn qcow2_extend_file(BlockDriverState *bs, uint64_t end)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t step = CLAMP(s->file_len / 8, MIN_STEP_BYTES, MAX_STEP_BYTES);
    int64_t len;
    int ret;

    if (end <= s->file_len) {
        return 0;
    }
    if (end > BDRV_MAX_LENGTH - step - s->cluster_size) {
        return -EFBIG;
    }
    ret = extend_to(bs, round_up_u64(end + step, s->cluster_size));
    if (ret < 0) {
        ret = extend_to(bs, end);
    }
    if (ret < 0) {
        return ret == -EINVAL || ret == -ENOTSUP ? -ENOSPC : ret;
    }
    len = bdrv_co_getlength(bs->file->bs);
    if (len < 0) {
        return len;
    }
    s->file_len = len;
    return end <= s->file_len ? 0 : -ENOSPC;
}

void coroutine_fn qcow2_trim_file(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t keep = MAX(s->used_end, s->file_len_opened);

    if (s->file_len <= keep) {
        return;
    }
    /* Where it cannot be made shorter (a block device) it stays as it is. */
    if (bdrv_co_truncate(bs->file, keep, true, PREALLOC_MODE_OFF, 0, NULL) == 0) {
        s->file_len = keep;
        s->zero_from = MAX(s->zero_from, keep);
    }
}

/* ---- the refcount table ---- */

/*
 * Where a new table goes: right behind what the old one covers, @blocks blocks that cover both
 * behind it.
 */
typedef struct NewTable {
    uint64_t first;                     /* cluster */
    uint64_t clusters, blocks;
    Qcow2Table table;
} NewTable;

static int plan(const Qcow2State *s, uint64_t cluster, NewTable *nt)
{
    uint64_t per_block = UINT64_C(1) << s->refblock_bits, entries, used;

    nt->first = (uint64_t)s->reftable.n << s->refblock_bits;
    entries =
        MAX((uint64_t)s->reftable.n + s->reftable.n / 2, (cluster + per_block - 1) / per_block) + 1;
    for (;;) {
        nt->clusters = qcow2_clusters_up(s, entries * 8);
        entries = nt->clusters * s->cluster_size / 8;
        nt->blocks = 0;
        while (nt->blocks * per_block < nt->clusters + nt->blocks) {
            nt->blocks++;
        }
        used = nt->first + nt->clusters + nt->blocks;
        if (entries * 8 > QCOW2_MAX_REFTABLE_BYTES) {
            return -EFBIG;
        }
        if (entries * per_block >= MAX(used, cluster)) {
            return 0;
        }
        entries = (MAX(used, cluster) + per_block - 1) / per_block;
    }
}

/* The blocks, with a count of 1 for each cluster of the new table and of themselves. */
static int coroutine_fn write_blocks(BlockDriverState *bs, const NewTable *nt)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t bytes = nt->blocks << s->cluster_bits;
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, bytes);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, bytes);
    for (uint64_t i = 0; i < nt->clusters + nt->blocks; i++) {
        qcow2_refcount_store(buf, s->hdr.refcount_order, i, 1);
    }
    ret = bdrv_co_pwrite(bs->file, (nt->first + nt->clusters) << s->cluster_bits, bytes, buf, 0);
    free(buf);
    return ret;
}

static int coroutine_fn write_table(BlockDriverState *bs, NewTable *nt)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t n = (nt->clusters << s->cluster_bits) / 8;

    if (!qcow2_table_init(&nt->table, n, nt->first << s->cluster_bits)) {
        return -ENOMEM;
    }
    memcpy(nt->table.entry, s->reftable.entry, (size_t)s->reftable.n * 8);
    for (uint64_t i = 0; i < nt->blocks; i++) {
        nt->table.entry[s->reftable.n + i] = (nt->first + nt->clusters + i) << s->cluster_bits;
    }
    return qcow2_table_write(bs, &nt->table);
}

static int coroutine_fn write_location(BlockDriverState *bs, uint64_t offset, uint32_t clusters)
{
    uint8_t buf[12];
    int ret;

    stq_be_p(buf, offset);
    stl_be_p(buf + 8, clusters);
    ret = bdrv_co_pwrite(bs->file, QCOW2_AT_REFTABLE_OFFSET, sizeof(buf), buf, 0);
    return ret < 0 ? ret : bdrv_co_flush(bs->file->bs);
}

static int coroutine_fn adopt(BlockDriverState *bs, NewTable *nt)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t old_offset = s->reftable.offset, old_bytes = (uint64_t)s->reftable.n * 8;
    int ret = 0;

    qcow2_table_clear(&s->reftable);
    s->reftable = nt->table;
    nt->table = (Qcow2Table) { 0 };
    s->hdr.reftable_offset = s->reftable.offset;
    s->hdr.reftable_clusters = nt->clusters;
    for (uint64_t i = 0; i < nt->blocks && ret == 0; i++) {
        ret = qcow2_overlap_add(s, (nt->first + nt->clusters + i) << s->cluster_bits,
                                QCOW2_META_REFBLOCK);
    }
    qcow2_free_later(s, old_offset, old_bytes, QCOW2_DISCARD_OTHER);
    return ret;
}

/* Everything about it goes to the disk before the header says so. */
static int coroutine_fn grow_locked(BlockDriverState *bs, NewTable *nt)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t end = (nt->first + nt->clusters + nt->blocks) << s->cluster_bits;
    int ret = qcow2_extend_file(bs, end);

    if (ret == 0) {
        ret = qcow2_overlap_check(bs, nt->first << s->cluster_bits,
                                  (nt->clusters + nt->blocks) << s->cluster_bits);
    }
    if (ret == 0) {
        s->zero_from = MAX(s->zero_from, end);
        s->used_end = MAX(s->used_end, end);
        ret = write_blocks(bs, nt);
    }
    if (ret == 0) {
        ret = write_table(bs, nt);
    }
    if (ret == 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret == 0) {
        ret = write_location(bs, nt->table.offset, nt->clusters);
    }
    return ret < 0 ? ret : adopt(bs, nt);
}

int coroutine_fn qcow2_grow_reftable(BlockDriverState *bs, uint64_t cluster)
{
    Qcow2State *s = qcow2_state(bs);
    NewTable nt = { 0 };
    int ret = plan(s, cluster, &nt);

    if (ret < 0) {
        return ret;
    }
    /*
     * The copy of the old table must not miss entries that are about to be written to the old
     * place.
     */
    ret = qcow2_write_back(bs);
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&s->flush_lock);
    ret = grow_locked(bs, &nt);
    co_mutex_unlock(&s->flush_lock);
    qcow2_table_clear(&nt.table);
    return ret;
}
