/*
 * Who owns the images when a machine moves: the source writes everything out and becomes inactive,
 * which takes its locks away; then the destination becomes active, takes the locks and reads
 * metadata anew. In between nobody writes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/graph-internal.h"

bool bdrv_is_inactive(const BlockDriverState *bs)
{
    return bs->inactive;
}

/* Every node before those that it stands on. */
static void add_from_top(BlockDriverState *bs, GHashTable *seen, GPtrArray *post_order)
{
    BdrvChild *c;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    BDRV_FOREACH_CHILD(bs, c) {
        add_from_top(c->bs, seen, post_order);
    }
    g_ptr_array_add(post_order, bs);
}

/* @bs and what is below it, or all nodes: those at the bottom first. */
static GPtrArray *nodes_from_bottom(BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    GPtrArray *order = g_ptr_array_new();

    if (bs) {
        add_from_top(bs, seen, order);
        return order;
    }
    while ((bs = bdrv_next_node(bs)) != NULL) {
        add_from_top(bs, seen, order);
    }
    return order;
}

typedef struct NodeCall {
    BlockDriverState *bs;
    Error **errp;
    int ret;
} NodeCall;

static void coroutine_fn co_inactivate(void *opaque)
{
    NodeCall *call = opaque;

    call->ret = call->bs->drv->co_inactivate(call->bs);
}

static void coroutine_fn co_invalidate(void *opaque)
{
    NodeCall *call = opaque;

    call->ret = call->bs->drv->co_invalidate_cache(call->bs, call->errp);
}

static int activate_nodes(GPtrArray *order, Error **errp)
{
    guint n = order->len, i;

    for (i = 0; i < n; i++) {
        BlockDriverState *bs = order->pdata[i];

        order->pdata[i] = bs->inactive ? bs : NULL;
        bs->inactive = false;
    }
    /* From the top: locks and conflicts first, before anything is read. */
    for (i = n; i-- > 0;) {
        if (order->pdata[i] && bdrv_update_perms(order->pdata[i], errp) < 0) {
            goto fail;
        }
    }
    for (i = 0; i < n; i++) {
        NodeCall call = { .bs = order->pdata[i], .errp = errp };

        if (!call.bs) {
            continue;
        }
        if (call.bs->drv->co_invalidate_cache) {
            aio_co_run(call.bs->aio_context, co_invalidate, &call);
        }
        if (call.ret < 0) {
            goto fail;
        }
        call.ret = bdrv_refresh_length(call.bs);
        if (call.ret < 0) {
            error_setg_errno(errp, -call.ret, "Could not read the length of node '%s'",
                             call.bs->node_name);
            goto fail;
        }
    }
    return 0;

fail:
    for (i = 0; i < n; i++) {
        if (order->pdata[i]) {
            ((BlockDriverState *)order->pdata[i])->inactive = true;
        }
    }
    for (i = 0; i < n; i++) {
        if (order->pdata[i]) {
            bdrv_update_perms(order->pdata[i], NULL);
        }
    }
    return -1;
}

static int activate_drained(BlockDriverState *bs, Error **errp)
{
    g_autoptr(GPtrArray) order = nodes_from_bottom(bs);
    int ret;

    bdrv_drain_all_begin();
    ret = activate_nodes(order, errp);
    bdrv_drain_all_end();
    return ret;
}

int bdrv_activate(BlockDriverState *bs, Error **errp)
{
    return bs->inactive ? activate_drained(bs, errp) : 0;
}

int bdrv_activate_all(Error **errp)
{
    bdrv_set_open_inactive(false);
    return activate_drained(NULL, errp);
}

/* From the top, so that what a format writes at the end still finds its file active. */
static int inactivate_nodes(GPtrArray *order, Error **errp)
{
    for (guint i = order->len; i-- > 0;) {
        NodeCall call = { .bs = order->pdata[i] };

        if (call.bs->inactive) {
            order->pdata[i] = NULL;
            continue;
        }
        if (call.bs->drv->co_inactivate) {
            aio_co_run(call.bs->aio_context, co_inactivate, &call);
        }
        if (call.ret < 0) {
            error_setg_errno(errp, -call.ret,
                             "Could not write node '%s' (file '%s') out before giving it "
                             "up",
                             call.bs->node_name, bdrv_get_filename(call.bs));
            return -1;
        }
    }
    return 0;
}

static int inactivate_drained(Error **errp)
{
    g_autoptr(GPtrArray) order = nodes_from_bottom(NULL);
    int ret;

    if (inactivate_nodes(order, errp) < 0) {
        return -1;
    }
    /* What the formats wrote last is to be on disk as well. */
    ret = bdrv_flush_all();
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the disks before giving them up");
        return -1;
    }
    for (guint i = 0; i < order->len; i++) {
        if (order->pdata[i]) {
            ((BlockDriverState *)order->pdata[i])->inactive = true;
        }
    }
    for (guint i = order->len; i-- > 0;) {
        if (order->pdata[i] && bdrv_update_perms(order->pdata[i], errp) < 0) {
            return -1;
        }
    }
    return 0;
}

int bdrv_inactivate_all(Error **errp)
{
    int ret;

    bdrv_drain_all_begin();
    ret = bdrv_flush_all();
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the disks before giving them up");
    } else {
        ret = inactivate_drained(errp);
    }
    bdrv_drain_all_end();
    if (ret < 0) {
        Error *err = NULL;

        if (bdrv_activate_all(&err) < 0) {
            error_report("a disk stays inactive: %s", error_get_pretty(err));
            error_free(err);
        }
        return -1;
    }
    return 0;
}
