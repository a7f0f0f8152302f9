/*
 * QMP commands that open, close, change and resize nodes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/blockdev.h"

#include <inttypes.h>
#include <string.h>

#include "block/driver.h"
#include "qapi/qapi-commands-block.h"

/* ---- which node ---- */

BlockDriverState *blockdev_find(const char *device, const char *node_name, Error **errp)
{
    BlockDriverState *bs;
    BlockBackend *blk;

    if (!device == !node_name) {
        error_setg(errp, "Exactly one of 'device' and 'node-name' must be given");
        return NULL;
    }
    if (device) {
        blk = blk_by_name(device);
        if (!blk) {
            error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", device);
            return NULL;
        }
        bs = blk_bs(blk);
        if (!bs) {
            error_setg(errp, "Device '%s' has no medium", device);
        }
        return bs;
    }
    bs = bdrv_find_node(node_name);
    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", node_name);
    }
    return bs;
}

/* ---- blockdev-add, blockdev-del ---- */

BlockDriverState *blockdev_add(const BlockdevOptions *options, Error **errp)
{
    BlockDriverState *bs;

    if (!options->node_name) {
        error_setg(errp, "'node-name' must be specified for the root node");
        return NULL;
    }
    bs = bdrv_open(options, errp);
    if (bs) {
        bdrv_set_monitor_owned(bs);
    }
    return bs;
}

void qmp_blockdev_add(BlockdevOptions *options, Error **errp)
{
    blockdev_add(options, errp);
}

void qmp_blockdev_del(const char *node_name, Error **errp)
{
    BlockDriverState *bs = blockdev_find(NULL, node_name, errp);
    BdrvChild *c;

    if (!bs) {
        return;
    }
    BDRV_FOREACH_PARENT(bs, c) {
        g_autofree char *who = c->klass->describe_parent(c);

        error_setg(errp, "Node '%s' is in use: by %s as '%s'", node_name, who, c->name);
        return;
    }
    if (!bs->monitor_owned) {
        error_setg(errp, "Node %s is not owned by the monitor", node_name);
        return;
    }
    if (bs->refcnt > 1) {
        error_setg(errp, "Node '%s' is in use", node_name);
        return;
    }
    bs->monitor_owned = false;
    bdrv_unref(bs);
}

/* ---- blockdev-reopen ---- */

void qmp_blockdev_reopen(BlockdevOptionsList *options, Error **errp)
{
    bdrv_reopen_multiple(options, errp);
}

/* ---- block_resize ---- */

void qmp_block_resize(const char *device, const char *node_name, int64_t size, Error **errp)
{
    BlockDriverState *bs = blockdev_find(device, node_name, errp);
    BlockBackend *blk;

    if (!bs) {
        return;
    }
    if (size < 0) {
        error_setg(errp, "Parameter 'size' expects a >0 size");
        return;
    }
    blk = blk_new_with_bs(bs, BLK_PERM_RESIZE, BLK_PERM_ALL, errp);
    if (!blk) {
        return;
    }
    blk_truncate(blk, size, false, PREALLOC_MODE_OFF, 0, errp);
    blk_unref(blk);
}
