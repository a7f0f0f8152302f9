/*
 * Internal snapshots of an image, for reading.
 *
 * Main thread, outside of coroutines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_SNAPSHOT_H
#define BLOCK_SNAPSHOT_H

#include "block/graph.h"

/*
 * bdrv_load_snapshot:
 * @bs: open for reading only, and nobody reads it yet
 * @which: as qemu-img writes it: "snapshot.id=ID", "snapshot.name=NAME" or both with a comma
 * between; else an id or, where no snapshot has that id, a name
 *
 * From now on the node reads as the disk was when the snapshot was made, and is as long.
 * Returns: 0, or -1 with @errp set: there is none, or more than one of that name; the format has no
 * snapshots; the node can be written; it cannot be read.
 */
int bdrv_load_snapshot(BlockDriverState *bs, const char *which, Error **errp);

#endif
