/*
 * qcow2: making all refcounts anew, when those in the image cannot be trusted. The new blocks and
 * their table are written behind everything that is in use, flushed, and then the header leads to
 * them; the old ones are free by that, since nothing counts them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

/* Where the new structure goes: @blocks blocks, then the table. In clusters. */
typedef struct Plan {
    uint64_t first, blocks, table;
} Plan;

/* Is any cluster in use for which block @index has the count? */
static bool block_needed(const Qcow2State *s, const Qcow2Counts *counts, const Plan *p,
                         uint64_t index)
{
    uint64_t per_block = UINT64_C(1) << s->refblock_bits, from = index * per_block,
             to = from + per_block;

    if (from < p->first + p->blocks + p->table && to > p->first) {
        return true;
    }
    return from < counts->n && qcow2_counts_any(counts, from, per_block);
}

/* How many entries the table has: up to the end of the new structure. */
static uint64_t table_entries(const Qcow2State *s, const Plan *p)
{
    uint64_t per_block = UINT64_C(1) << s->refblock_bits;

    return (p->first + p->blocks + p->table + per_block - 1) / per_block;
}

static int make_plan(const Qcow2State *s, const Qcow2Counts *counts, Plan *p)
{
    uint64_t blocks, table, n;

    *p = (Plan) { .first = counts->n };
    for (;;) {
        n = table_entries(s, p);
        blocks = 0;
        for (uint64_t i = 0; i < n; i++) {
            blocks += block_needed(s, counts, p, i);
        }
        table = qcow2_clusters_up(s, n * 8);
        if (table << s->cluster_bits > QCOW2_MAX_REFTABLE_BYTES) {
            return -EFBIG;
        }
        if (blocks <= p->blocks && table <= p->table) {
            return 0;
        }
        p->blocks = MAX(p->blocks, blocks);
        p->table = MAX(p->table, table);
    }
}

static void fill_block(const Qcow2State *s, const Qcow2Counts *counts, const Plan *p,
                       uint64_t index, uint8_t *buf)
{
    uint64_t per_block = UINT64_C(1) << s->refblock_bits;

    memset(buf, 0, s->cluster_size);
    for (uint64_t i = 0; i < per_block; i++) {
        uint64_t cluster = index * per_block + i, n = 0;

        if (cluster < counts->n) {
            n = qcow2_counts_get(counts, cluster);
        } else if (cluster >= p->first && cluster < p->first + p->blocks + p->table) {
            n = 1;
        }
        qcow2_refcount_store(buf, s->hdr.refcount_order, i, MIN(n, s->refcount_max));
    }
}

static int coroutine_fn write_blocks(BlockDriverState *bs, const Qcow2Counts *counts, const Plan *p,
                                     Qcow2Table *table)
{
    Qcow2State *s = qcow2_state(bs);
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, s->cluster_size);
    uint64_t at = p->first;
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < table_entries(s, p) && ret >= 0; i++) {
        if (block_needed(s, counts, p, i)) {
            fill_block(s, counts, p, i, buf);
            table->entry[i] = at++ << s->cluster_bits;
            ret = bdrv_co_pwrite(bs->file, table->entry[i], s->cluster_size, buf, 0);
        }
    }
    free(buf);
    return MIN(ret, 0);
}

static int coroutine_fn write_location(BlockDriverState *bs, const Plan *p, uint64_t offset)
{
    uint8_t buf[12];
    int ret;

    stq_be_p(buf, offset);
    stl_be_p(buf + 8, p->table);
    ret = bdrv_co_pwrite(bs->file, QCOW2_AT_REFTABLE_OFFSET, sizeof(buf), buf, 0);
    return ret < 0 ? ret : bdrv_co_flush(bs->file->bs);
}

static int coroutine_fn write_structure(BlockDriverState *bs, const Qcow2Counts *counts,
                                        const Plan *p, Qcow2Table *table)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t end = (p->first + p->blocks + p->table) << s->cluster_bits;
    int ret = qcow2_extend_file(bs, end);

    if (ret == 0) {
        s->used_end = MAX(s->used_end, end);
        s->zero_from = MAX(s->zero_from, end);
        ret = write_blocks(bs, counts, p, table);
    }
    if (ret == 0) {
        ret = qcow2_table_write(bs, table);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    return ret < 0 ? ret : write_location(bs, p, table->offset);
}

int coroutine_fn qcow2_rebuild_refcounts(BlockDriverState *bs, Qcow2Counts *counts)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Table table;
    Plan plan;
    int ret = make_plan(s, counts, &plan);

    if (ret < 0) {
        return ret;
    }
    if (!qcow2_table_init(&table, (plan.table << s->cluster_bits) / 8,
                          (plan.first + plan.blocks) << s->cluster_bits)) {
        return -ENOMEM;
    }
    ret = write_structure(bs, counts, &plan, &table);
    if (ret < 0) {
        qcow2_table_clear(&table);
        return ret;
    }
    /* What was cached of the old blocks is worth nothing. */
    qcow2_cache_drop(&s->ref_cache);
    qcow2_table_clear(&s->reftable);
    s->reftable = table;
    s->hdr.reftable_offset = table.offset;
    s->hdr.reftable_clusters = plan.table;
    return 0;
}
