/*
 * What there is to say of a node as an image, as data (`ferry-img info`, query-block) and as text
 * for people.
 *
 * Main thread, outside of coroutines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_IMAGE_INFO_H
#define BLOCK_IMAGE_INFO_H

#include "block/graph.h"
#include "qapi/qapi-types-block-core.h"

/*
 * The image and, unless @flat, the chain of its backing files (through filters). The caller's; NULL
 * with
 * @errp set when a length or the list of snapshots cannot be read.
 */
ImageInfo *bdrv_query_image_info(BlockDriverState *bs, bool flat, Error **errp);
/* The node and all of its children. The caller's; NULL with @errp set. */
BlockGraphInfo *bdrv_query_block_graph_info(BlockDriverState *bs, Error **errp);

/*
 * Append lines that describe an image, each after @indent spaces. @protocol: it is what holds the
 * bytes of another ("filename", "file length" instead of "image", "virtual size").
 */
void bdrv_node_info_print(GString *out, const BlockNodeInfo *info, int indent, bool protocol);
/* A table of snapshots; nothing for an empty list. */
void bdrv_snapshots_print(GString *out, const SnapshotInfoList *list, int indent);
/* The members of what a driver says, one a line. */
void bdrv_image_specific_print(GString *out, const ImageInfoSpecific *info, int indent);

#endif
