/*
 * What commands about nodes and the command line share: the handlers behind block.json.
 *
 * Main thread, outside of coroutines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_BLOCKDEV_H
#define BLOCK_BLOCKDEV_H

#include "block/block-backend.h"
#include "qapi/qapi-types-block.h"

/* The node of a drive, or of that name; one of the names is NULL. NULL with @errp set. */
BlockDriverState *blockdev_find(const char *device, const char *node_name, Error **errp);
/* Open a node that the monitor owns: blockdev-add, -blockdev. NULL with @errp set. */
BlockDriverState *blockdev_add(const BlockdevOptions *options, Error **errp);

/*
 * A node as query-block tells of it; @blk is who holds it, or NULL. The caller's; NULL with @errp
 * set.
 */
BlockDeviceInfo *blockdev_query(BlockBackend *blk, BlockDriverState *bs, bool flat, Error **errp);

#endif
