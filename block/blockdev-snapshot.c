/*
 * Snapshots by overlay: the node keeps its content, and another one above it takes the writes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "block/block-action.h"
#include "block/driver.h"
#include "qapi/qapi-commands-block.h"

typedef struct SnapshotState {
    BlockDriverState *node, *overlay;   /* references */
    bool appended;
} SnapshotState;

/* ---- the overlay of blockdev-snapshot-sync ---- */

typedef struct CreateCall {
    const BlockDriver *drv;
    const char *filename;
    uint64_t size;
    struct json_object *opts;
    Error **errp;
    int ret;
} CreateCall;

static void coroutine_fn create_entry(void *opaque)
{
    CreateCall *c = opaque;

    c->ret = c->drv->co_create_opts(c->filename, c->size, c->opts, c->errp);
}

/* The name by which an image in another directory finds @bs. */
static char *lasting_name(BlockDriverState *bs)
{
    BlockDriverState *bytes = bdrv_skip_filters(bs);

    while (bdrv_primary_bs(bytes)) {
        bytes = bdrv_primary_bs(bytes);
    }
    return bytes->drv->driver == BLOCKDEV_DRIVER_FILE ||
                   bytes->drv->driver == BLOCKDEV_DRIVER_HOST_DEVICE
               ? g_canonicalize_filename(bdrv_get_filename(bytes), NULL)
               : g_strdup(bdrv_get_filename(bs));
}

static int create_overlay(const BlockDriver *drv, const char *filename, BlockDriverState *bs,
                          Error **errp)
{
    g_autofree char *backing = lasting_name(bs);
    CreateCall call = {
        .drv = drv, .filename = filename, .size = bdrv_getlength(bs), .errp = errp
    };

    if (!drv->co_create_opts || !drv->supports_backing) {
        error_setg(errp, "Format '%s' cannot make an image with a backing file", drv->format_name);
        return -1;
    }
    call.opts = json_object_new_object();
    json_object_object_add(call.opts, "backing_file", json_object_new_string(backing));
    json_object_object_add(call.opts, "backing_fmt",
                           json_object_new_string(bdrv_get_format_name(bdrv_skip_filters(bs))));
    aio_co_run(aio_context_main(), create_entry, &call);
    json_object_put(call.opts);
    return call.ret < 0 ? -1 : 0;
}

/* The backing node is attached later. */
static int set_no_backing(BlockdevOptions *opts, Error **errp)
{
    BlockdevRefOrNull *none;

    if (opts->driver != BLOCKDEV_DRIVER_QCOW2) {
        error_setg(errp, "The overlay does not support backing images");
        return -1;
    }
    none = g_new0(BlockdevRefOrNull, 1);
    none->type = QTYPE_QNULL;
    qapi_free_BlockdevRefOrNull(opts->u.qcow2.backing);
    opts->u.qcow2.backing = none;
    return 0;
}

/* The overlay uses caches and discards as the node does. */
static BlockDriverState *open_overlay(const BlockdevSnapshotSync *sync, const char *format,
                                      BlockDriverState *bs, Error **errp)
{
    g_autoptr(BlockdevOptions) opts = bdrv_options_for_file(sync->snapshot_file, format, errp);

    if (!opts || set_no_backing(opts, errp) < 0) {
        return NULL;
    }
    opts->node_name = g_strdup(sync->snapshot_node_name);
    opts->cache = g_new0(BlockdevCacheOptions, 1);
    opts->cache->has_direct = opts->cache->has_no_flush = true;
    opts->cache->direct = bs->cache_direct;
    opts->cache->no_flush = bs->cache_no_flush;
    opts->has_discard = true;
    opts->discard =
        bs->discard_unmap ? BLOCKDEV_DISCARD_OPTIONS_UNMAP : BLOCKDEV_DISCARD_OPTIONS_IGNORE;
    opts->has_detect_zeroes = true;
    opts->detect_zeroes = bs->detect_zeroes;
    return bdrv_open(opts, errp);
}

static int sync_open(void *state, const TransactionAction *action, Error **errp)
{
    const BlockdevSnapshotSync *sync = action->u.blockdev_snapshot_sync.data;
    const char *format = sync->format ? sync->format : "qcow2";
    BlockDriverState *bs = blockdev_find(sync->device, sync->node_name, errp);
    const BlockDriver *drv = bs ? bdrv_find_driver(format, errp) : NULL;
    SnapshotState *s = state;

    if (!drv) {
        return -1;
    }
    if (sync->snapshot_node_name && bdrv_find_node(sync->snapshot_node_name)) {
        error_setg(errp, "New overlay node-name already in use");
        return -1;
    }
    if ((!sync->has_mode || sync->mode == NEW_IMAGE_MODE_ABSOLUTE_PATHS) &&
        create_overlay(drv, sync->snapshot_file, bs, errp) < 0) {
        return -1;
    }
    s->overlay = open_overlay(sync, format, bs, errp);
    if (!s->overlay) {
        return -1;
    }
    s->node = bs;
    bdrv_ref(bs);
    return 0;
}

/* ---- both ---- */

static int snapshot_open(void *state, const TransactionAction *action, Error **errp)
{
    const BlockdevSnapshot *snapshot = action->u.blockdev_snapshot.data;
    BlockDriverState *node = bdrv_lookup(snapshot->node, errp);
    BlockDriverState *overlay = node ? bdrv_lookup(snapshot->overlay, errp) : NULL;
    SnapshotState *s = state;

    if (!overlay) {
        return -1;
    }
    s->node = node;
    s->overlay = overlay;
    bdrv_ref(node);
    bdrv_ref(overlay);
    return 0;
}

static int check_overlay(const SnapshotState *s, Error **errp)
{
    BlockDriverState *overlay = s->overlay;

    if (overlay->parents.length) {
        BdrvChild *c = overlay->parents.head->data;
        g_autofree char *who = c->klass->describe_parent(c);

        error_setg(errp, "The overlay is already in use: by %s", who);
        return -1;
    }
    if (overlay->backing) {
        error_setg(errp, "The overlay already has a backing image");
        return -1;
    }
    if (!overlay->drv->supports_backing) {
        error_setg(errp, "The overlay does not support backing images");
        return -1;
    }
    return 0;
}

static int snapshot_prepare(void *state, const TransactionAction *action, Error **errp)
{
    SnapshotState *s = state;
    int ret;

    if (check_overlay(s, errp) < 0) {
        return -1;
    }
    if (!bdrv_is_read_only(s->node)) {
        ret = bdrv_flush(s->node);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not flush node '%s'", bdrv_get_node_name(s->node));
            return -1;
        }
    }
    if (bdrv_append(s->overlay, s->node, errp) < 0) {
        return -1;
    }
    s->appended = true;
    return 0;
}

/*
 * Nobody writes the node any more; that it cannot be made read-only is no failure of the snapshot.
 */
static void snapshot_commit(void *state)
{
    SnapshotState *s = state;

    bdrv_reopen_set_read_only(s->node, true, NULL);
}

static void snapshot_abort(void *state)
{
    SnapshotState *s = state;
    Error *err = NULL;

    if (bdrv_replace_node(s->overlay, s->node, &err) < 0 ||
        bdrv_set_backing_hd(s->overlay, NULL, &err) < 0) {
        error_prepend(
            &err, "the snapshot of node '%s' could not be undone: ", bdrv_get_node_name(s->node));
        error_report_err(err);
    }
}

static void snapshot_clean(void *state)
{
    SnapshotState *s = state;

    bdrv_unref(s->overlay);
    bdrv_unref(s->node);
}

const BlockActionOps action_snapshot = {
    .state_bytes = sizeof(SnapshotState), .open = snapshot_open, .prepare = snapshot_prepare,
    .commit = snapshot_commit, .abort = snapshot_abort, .clean = snapshot_clean,
};
const BlockActionOps action_snapshot_sync = {
    .state_bytes = sizeof(SnapshotState), .open = sync_open, .prepare = snapshot_prepare,
    .commit = snapshot_commit, .abort = snapshot_abort, .clean = snapshot_clean,
};

void qmp_blockdev_snapshot(BlockdevSnapshot *snapshot, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT };

    action.u.blockdev_snapshot.data = snapshot;
    block_action_run(&action, errp);
}

void qmp_blockdev_snapshot_sync(BlockdevSnapshotSync *sync, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_SYNC };

    action.u.blockdev_snapshot_sync.data = sync;
    block_action_run(&action, errp);
}
