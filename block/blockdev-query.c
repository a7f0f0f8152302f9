/*
 * QMP commands that ask about nodes and disks.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/blockdev.h"

#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "block/image-info.h"
#include "qapi/qapi-commands-block.h"

/* ---- nodes ---- */

static int64_t backing_depth(BlockDriverState *bs)
{
    int64_t depth = 0;

    while ((bs = bdrv_backing_chain_next(bs)) != NULL) {
        depth++;
    }
    return depth;
}

static BlockdevChildList *children_of(const BlockDriverState *bs)
{
    BlockdevChildList *list = NULL, **tail = &list;
    BdrvChild *c;

    BDRV_FOREACH_CHILD(bs, c) {
        BlockdevChild *child = g_new0(BlockdevChild, 1);

        child->child = g_strdup(c->name);
        child->node_name = g_strdup(bdrv_get_node_name(c->bs));
        QAPI_LIST_APPEND(tail, child);
    }
    return list;
}

BlockDeviceInfo *blockdev_query(BlockBackend *blk, BlockDriverState *bs, bool flat, Error **errp)
{
    g_autoptr(BlockDeviceInfo) info = g_new0(BlockDeviceInfo, 1);

    info->file = g_strdup(bdrv_get_filename(bs));
    info->node_name = g_strdup(bdrv_get_node_name(bs));
    info->ro = bdrv_is_read_only(bs);
    info->drv = g_strdup(bdrv_get_format_name(bs));
    info->backing_file = bs->backing ? g_strdup(bdrv_get_filename(bs->backing->bs)) : NULL;
    info->backing_file_depth = backing_depth(bs);
    info->children = children_of(bs);
    info->active = !bdrv_is_inactive(bs);
    info->detect_zeroes = bs->detect_zeroes;
    info->cache = g_new0(BlockdevCacheInfo, 1);
    info->cache->writeback = blk ? blk_enable_write_cache(blk) : true;
    info->cache->direct = bs->cache_direct;
    info->cache->no_flush = bs->cache_no_flush;
    info->dirty_bitmaps = bdrv_query_dirty_bitmaps(bs);
    info->has_dirty_bitmaps = info->dirty_bitmaps != NULL;
    info->image = bdrv_query_image_info(bs, flat, errp);
    return info->image ? g_steal_pointer(&info) : NULL;
}

BlockDeviceInfoList *qmp_query_named_block_nodes(bool has_flat, bool flat, Error **errp)
{
    g_autoptr(BlockDeviceInfoList) list = NULL;
    BlockDeviceInfoList **tail = &list;

    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        BlockDeviceInfo *info = blockdev_query(NULL, bs, has_flat && flat, errp);

        if (!info) {
            return NULL;
        }
        QAPI_LIST_APPEND(tail, info);
    }
    return g_steal_pointer(&list);
}

/* ---- disks ---- */

/* Named ones are drives; others are worth telling of when a device has them. */
static bool is_disk(const BlockBackend *blk)
{
    return *blk_name(blk) || blk_get_attached_dev(blk);
}

static char *device_id(const BlockBackend *blk)
{
    const char *id = blk_get_attached_dev(blk) ? blk_get_attached_dev_id(blk) : "";

    return *id ? g_strdup(id) : NULL;
}

static BlockInfo *query_disk(BlockBackend *blk, Error **errp)
{
    g_autoptr(BlockInfo) info = g_new0(BlockInfo, 1);

    info->device = g_strdup(blk_name(blk));
    info->qdev = device_id(blk);
    info->type = g_strdup("unknown");
    info->removable = !blk_get_attached_dev(blk);
    info->has_io_status = blk_iostatus_is_enabled(blk);
    info->io_status = info->has_io_status ? blk_iostatus(blk) : BLOCK_DEVICE_IO_STATUS_OK;
    if (blk_bs(blk)) {
        info->inserted = blockdev_query(blk, blk_bs(blk), false, errp);
        if (!info->inserted) {
            return NULL;
        }
    }
    return g_steal_pointer(&info);
}

BlockInfoList *qmp_query_block(Error **errp)
{
    g_autoptr(BlockInfoList) list = NULL;
    BlockInfoList **tail = &list;

    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        BlockInfo *info;

        if (!is_disk(blk)) {
            continue;
        }
        info = query_disk(blk, errp);
        if (!info) {
            return NULL;
        }
        QAPI_LIST_APPEND(tail, info);
    }
    return g_steal_pointer(&list);
}

/* ---- statistics ---- */

static uint64_t get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void fill_stats(BlockDeviceStats *to, const BlockAcctStats *from)
{
    int64_t last = __atomic_load_n(&from->last_access_ns, __ATOMIC_RELAXED);

    to->rd_bytes = get(&from->bytes[BLOCK_ACCT_READ]);
    to->wr_bytes = get(&from->bytes[BLOCK_ACCT_WRITE]);
    to->unmap_bytes = get(&from->bytes[BLOCK_ACCT_UNMAP]);
    to->rd_operations = get(&from->ops[BLOCK_ACCT_READ]);
    to->wr_operations = get(&from->ops[BLOCK_ACCT_WRITE]);
    to->flush_operations = get(&from->ops[BLOCK_ACCT_FLUSH]);
    to->unmap_operations = get(&from->ops[BLOCK_ACCT_UNMAP]);
    to->rd_total_time_ns = get(&from->total_time_ns[BLOCK_ACCT_READ]);
    to->wr_total_time_ns = get(&from->total_time_ns[BLOCK_ACCT_WRITE]);
    to->flush_total_time_ns = get(&from->total_time_ns[BLOCK_ACCT_FLUSH]);
    to->unmap_total_time_ns = get(&from->total_time_ns[BLOCK_ACCT_UNMAP]);
    to->rd_merged = get(&from->merged[BLOCK_ACCT_READ]);
    to->wr_merged = get(&from->merged[BLOCK_ACCT_WRITE]);
    to->unmap_merged = get(&from->merged[BLOCK_ACCT_UNMAP]);
    to->failed_rd_operations = get(&from->failed[BLOCK_ACCT_READ]);
    to->failed_wr_operations = get(&from->failed[BLOCK_ACCT_WRITE]);
    to->failed_flush_operations = get(&from->failed[BLOCK_ACCT_FLUSH]);
    to->failed_unmap_operations = get(&from->failed[BLOCK_ACCT_UNMAP]);
    to->invalid_rd_operations = get(&from->invalid[BLOCK_ACCT_READ]);
    to->invalid_wr_operations = get(&from->invalid[BLOCK_ACCT_WRITE]);
    to->invalid_flush_operations = get(&from->invalid[BLOCK_ACCT_FLUSH]);
    to->invalid_unmap_operations = get(&from->invalid[BLOCK_ACCT_UNMAP]);
    to->has_idle_time_ns = last > 0;
    to->idle_time_ns = last > 0 ? MAX(aio_clock_ns() - last, 0) : 0;
}

static BlockStats *node_stats(BlockDriverState *bs, bool with_backing)
{
    BlockStats *stats = g_new0(BlockStats, 1);
    BlockDriverState *primary = bdrv_primary_bs(bs), *below = bdrv_filter_or_cow_bs(bs);

    stats->node_name = g_strdup(bdrv_get_node_name(bs));
    stats->stats = g_new0(BlockDeviceStats, 1);
    stats->stats->wr_highest_offset = get(&bs->wr_highest_offset);
    stats->stats->account_invalid = stats->stats->account_failed = true;
    stats->parent = primary ? node_stats(primary, with_backing) : NULL;
    stats->backing = with_backing && below ? node_stats(below, with_backing) : NULL;
    return stats;
}

static BlockStats *disk_stats(BlockBackend *blk)
{
    BlockStats *stats;

    if (blk_bs(blk)) {
        stats = node_stats(blk_bs(blk), true);
    } else {
        stats = g_new0(BlockStats, 1);
        stats->stats = g_new0(BlockDeviceStats, 1);
        stats->stats->account_invalid = stats->stats->account_failed = true;
    }
    stats->device = g_strdup(blk_name(blk));
    stats->qdev = device_id(blk);
    fill_stats(stats->stats, blk_get_stats(blk));
    return stats;
}

BlockStatsList *qmp_query_blockstats(bool has_query_nodes, bool query_nodes, Error **errp)
{
    BlockStatsList *list = NULL, **tail = &list;

    if (has_query_nodes && query_nodes) {
        for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
            QAPI_LIST_APPEND(tail, node_stats(bs, false));
        }
        return list;
    }
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (is_disk(blk)) {
            QAPI_LIST_APPEND(tail, disk_stats(blk));
        }
    }
    return list;
}
