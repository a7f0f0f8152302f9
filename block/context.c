/*
 * Home contexts: everything that is connected moves together, drained, and only when each holder
 * agrees.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/graph-internal.h"

AioContext *bdrv_get_aio_context(BlockDriverState *bs)
{
    return bs->aio_context;
}

bool bdrv_is_thread_safe(const BlockDriverState *bs)
{
    return bs->thread_safe;
}

void bdrv_refresh_thread_safe(BlockDriverState *bs)
{
    bool safe = bs->drv->thread_safe;
    BdrvChild *c;

    BDRV_FOREACH_CHILD(bs, c) {
        safe = safe && c->bs->thread_safe;
    }
    if (bs->thread_safe == safe) {
        return;
    }
    bs->thread_safe = safe;
    BDRV_FOREACH_PARENT(bs, c) {
        if (c->parent) {
            bdrv_refresh_thread_safe(c->parent);
        }
    }
}

/* All nodes that are connected with @bs, upwards or downwards. */
static void collect(BlockDriverState *bs, GHashTable *nodes)
{
    BdrvChild *c;

    if (!g_hash_table_add(nodes, bs)) {
        return;
    }
    BDRV_FOREACH_CHILD(bs, c) {
        collect(c->bs, nodes);
    }
    BDRV_FOREACH_PARENT(bs, c) {
        if (c->parent) {
            collect(c->parent, nodes);
        }
    }
}

static bool holders_agree(BlockDriverState *bs, AioContext *ctx, Error **errp)
{
    BdrvChild *c;

    BDRV_FOREACH_PARENT(bs, c) {
        if (c->klass->may_change_aio_context && !c->klass->may_change_aio_context(c, ctx, errp)) {
            return false;
        }
    }
    return true;
}

static void tell_holders(BlockDriverState *bs, AioContext *ctx)
{
    BdrvChild *c;

    BDRV_FOREACH_PARENT(bs, c) {
        if (c->klass->aio_context_changed) {
            c->klass->aio_context_changed(c, ctx);
        }
    }
}

static void move(GHashTable *nodes, AioContext *ctx)
{
    GHashTableIter it;
    gpointer key;

    g_hash_table_iter_init(&it, nodes);
    while (g_hash_table_iter_next(&it, &key, NULL)) {
        BlockDriverState *bs = key;

        if (bs->drv->detach_aio_context) {
            bs->drv->detach_aio_context(bs);
        }
        bs->aio_context = ctx;
        if (bs->drv->attach_aio_context) {
            bs->drv->attach_aio_context(bs, ctx);
        }
    }
    g_hash_table_iter_init(&it, nodes);
    while (g_hash_table_iter_next(&it, &key, NULL)) {
        tell_holders(key, ctx);
    }
}

int bdrv_try_change_aio_context(BlockDriverState *bs, AioContext *ctx, Error **errp)
{
    g_autoptr(GHashTable) nodes = g_hash_table_new(NULL, NULL);
    GHashTableIter it;
    gpointer key;

    if (bs->aio_context == ctx) {
        return 0;
    }
    collect(bs, nodes);
    g_hash_table_iter_init(&it, nodes);
    while (g_hash_table_iter_next(&it, &key, NULL)) {
        if (!holders_agree(key, ctx, errp)) {
            error_prepend(errp, "Cannot move node '%s' to another AioContext: ", bs->node_name);
            return -1;
        }
    }
    bdrv_drain_all_begin();
    move(nodes, ctx);
    bdrv_drain_all_end();
    return 0;
}

int bdrv_unify_contexts(BlockDriverState *parent, BlockDriverState *child, Error **errp)
{
    if (parent->aio_context == child->aio_context ||
        bdrv_try_change_aio_context(parent, child->aio_context, NULL) == 0) {
        return 0;
    }
    return bdrv_try_change_aio_context(child, parent->aio_context, errp);
}
