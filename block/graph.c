/*
 * Nodes: their names, their references, the list of all of them, and walks through the graph.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block/block-backend.h"
#include "block/dirty-bitmap.h"
#include "block/graph-internal.h"
#include "util/cutils.h"

/* What QEMU allows; management programs count on names that fit. */
#define NODE_NAME_MAX 31

static GQueue all_nodes = G_QUEUE_INIT;

BlockDriverState *bdrv_find_node(const char *node_name)
{
    for (GList *l = all_nodes.head; l; l = l->next) {
        BlockDriverState *bs = l->data;

        if (!strcmp(bs->node_name, node_name)) {
            return bs;
        }
    }
    return NULL;
}

static bool check_name(const char *name, Error **errp)
{
    if (!id_wellformed(name)) {
        error_setg(errp, "Invalid node-name: '%s'", name);
    } else if (strlen(name) > NODE_NAME_MAX) {
        error_setg(errp, "Node name '%s' is too long: at most %d characters", name, NODE_NAME_MAX);
    } else if (blk_by_name(name)) {
        error_setg(errp, "node-name=%s is conflicting with a device id", name);
    } else if (bdrv_find_node(name)) {
        error_setg(errp, "Duplicate nodes with node-name='%s'", name);
    } else {
        return true;
    }
    return false;
}

BlockDriverState *bdrv_new(const BlockDriver *drv, const char *node_name, Error **errp)
{
    static unsigned generated;
    BlockDriverState *bs;

    if (node_name && !check_name(node_name, errp)) {
        return NULL;
    }
    bs = g_new0(BlockDriverState, 1);
    bs->drv = drv;
    bs->node_name = node_name ? g_strdup(node_name) : g_strdup_printf("#block%03u", generated++);
    bs->opaque = g_malloc0(drv->instance_size);
    bs->refcnt = 1;
    bs->aio_context = aio_context_main();
    bs->quiesce_counter = bdrv_drain_all_count();
    bs->bl.request_alignment = 1;
    bs->bl.min_mem_alignment = 1;
    bs->bl.opt_mem_alignment = 4096;
    mutex_init(&bs->reqs_lock);
    mutex_init(&bs->dirty_lock);
    co_mutex_init(&bs->flush_lock);
    bs->in_all_nodes.data = bs;
    g_queue_push_tail_link(&all_nodes, &bs->in_all_nodes);
    return bs;
}

void bdrv_delete_node(BlockDriverState *bs)
{
    g_assert(!bs->children.length && !bs->parents.length);
    bdrv_release_named_dirty_bitmaps(bs);
    g_assert(!bs->dirty_bitmaps);
    g_queue_unlink(&all_nodes, &bs->in_all_nodes);
    qapi_free_BlockdevOptions(bs->options);
    qapi_free_BlockdevOptions(bs->explicit_options);
    mutex_destroy(&bs->reqs_lock);
    mutex_destroy(&bs->dirty_lock);
    g_free(bs->opaque);
    g_free(bs->backing_file);
    g_free(bs->backing_format);
    g_free(bs->node_name);
    g_free(bs->filename);
    g_free(bs);
}

void bdrv_ref(BlockDriverState *bs)
{
    bs->refcnt++;
}

void bdrv_unref(BlockDriverState *bs)
{
    if (!bs) {
        return;
    }
    g_assert(bs->refcnt > 0);
    if (bs->refcnt > 1) {
        bs->refcnt--;
        return;
    }
    bdrv_close(bs);
}

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_get_filename(const BlockDriverState *bs)
{
    return bs->filename ? bs->filename : "";
}

const char *bdrv_get_format_name(const BlockDriverState *bs)
{
    return bs->drv->format_name;
}

BlockDriverState *bdrv_lookup(const char *device_or_node, Error **errp)
{
    BlockBackend *blk = blk_by_name(device_or_node);
    BlockDriverState *bs;

    if (blk) {
        bs = blk_bs(blk);
        if (!bs) {
            error_setg(errp, "Device '%s' has no medium", device_or_node);
        }
        return bs;
    }
    bs = bdrv_find_node(device_or_node);
    if (!bs) {
        error_setg(errp, "Cannot find device='' nor node-name='%s'", device_or_node);
    }
    return bs;
}

BlockDriverState *bdrv_next_node(BlockDriverState *after)
{
    GList *link = after ? after->in_all_nodes.next : all_nodes.head;

    return link ? link->data : NULL;
}

void bdrv_set_monitor_owned(BlockDriverState *bs)
{
    bs->monitor_owned = true;
}

BlockDriverState *bdrv_next_monitor_owned(BlockDriverState *after)
{
    BlockDriverState *bs = after;

    do {
        bs = bdrv_next_node(bs);
    } while (bs && !bs->monitor_owned);
    return bs;
}

void bdrv_close_all(void)
{
    BlockBackend *blk;
    BlockDriverState *bs;

    bdrv_drain_all();
    while ((blk = blk_next(NULL)) != NULL) {
        monitor_remove_blk(blk);
    }
    while ((bs = bdrv_next_monitor_owned(NULL)) != NULL) {
        bs->monitor_owned = false;
        bdrv_unref(bs);
    }
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return bs->read_only;
}

bool bdrv_is_inserted(BlockDriverState *bs)
{
    return bs != NULL;
}

int64_t bdrv_getlength(BlockDriverState *bs)
{
    return __atomic_load_n(&bs->total_bytes, __ATOMIC_SEQ_CST);
}

/* ---- walks ---- */

static BdrvChild *child_of_role(BlockDriverState *bs, BdrvChildRole role)
{
    BdrvChild *c;

    BDRV_FOREACH_CHILD(bs, c) {
        if (c->role & role) {
            return c;
        }
    }
    return NULL;
}

static BlockDriverState *filtered_bs(BlockDriverState *bs)
{
    BdrvChild *c = bs->drv->is_filter ? child_of_role(bs, BDRV_CHILD_FILTERED) : NULL;

    return c ? c->bs : NULL;
}

BlockDriverState *bdrv_filter_or_cow_bs(BlockDriverState *bs)
{
    BlockDriverState *filtered = filtered_bs(bs);

    return filtered ? filtered : bs->backing ? bs->backing->bs : NULL;
}

BlockDriverState *bdrv_skip_filters(BlockDriverState *bs)
{
    BlockDriverState *below;

    while (bs && (below = filtered_bs(bs)) != NULL) {
        bs = below;
    }
    return bs;
}

BlockDriverState *bdrv_backing_chain_next(BlockDriverState *bs)
{
    BlockDriverState *top = bdrv_skip_filters(bs);

    return top->backing ? bdrv_skip_filters(top->backing->bs) : NULL;
}

BlockDriverState *bdrv_primary_bs(BlockDriverState *bs)
{
    BlockDriverState *filtered = filtered_bs(bs);
    BdrvChild *c = child_of_role(bs, BDRV_CHILD_PRIMARY);

    return filtered ? filtered : c ? c->bs : NULL;
}

bool bdrv_chain_contains(BlockDriverState *top, BlockDriverState *base)
{
    while (top && top != base) {
        top = bdrv_filter_or_cow_bs(top);
    }
    return top != NULL;
}
