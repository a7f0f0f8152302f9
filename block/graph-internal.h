/*
 * What the files of the graph share with each other and with block-backend.c.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_GRAPH_INTERNAL_H
#define BLOCK_GRAPH_INTERNAL_H

#include "block/driver.h"

/* graph.c: a node without driver instance, listed under its name, quiesced as all others are. */
BlockDriverState *bdrv_new(const BlockDriver *drv, const char *node_name, Error **errp);
/* The reverse; it has no edges any more. */
void bdrv_delete_node(BlockDriverState *bs);

/* open.c: what a definition gets from the node above it. */
BlockDriverState *bdrv_open_inherit(const BlockdevOptions *opts, BlockDriverState *parent,
                                    BdrvChildRole role, Error **errp);
void bdrv_close(BlockDriverState *bs);
/*
 * What a node that is opened by a definition inside its parent takes from it, where the definition
 * is silent.
 */
typedef struct BdrvInherited {
    bool read_only, force_share, cache_direct, cache_no_flush;
} BdrvInherited;
BdrvInherited bdrv_inherited_from(const BlockDriverState *parent);
void bdrv_inherit_options(BlockdevOptions *opts, const BdrvInherited *from, BdrvChildRole role);
/* Whether the generic members go together; false with @errp set. */
bool bdrv_check_options(const BlockdevOptions *opts, Error **errp);
/* Take the generic members of @opts over into the node. */
void bdrv_apply_options(BlockDriverState *bs, const BlockdevOptions *opts);

/* edges.c: whether @target is @bs or reachable from it downwards. */
bool bdrv_reaches(BlockDriverState *bs, BlockDriverState *target);
extern const BdrvChildClass bdrv_child_of_node;

/*
 * perm.c: recompute the permissions of @bs and everything below it after edges changed. Returns 0,
 * or -1 with @errp set and every edge below as it was; the caller undoes its own change then.
 */
int bdrv_update_perms(BlockDriverState *bs, Error **errp);
/* The same for several nodes at once. */
int bdrv_update_perms_of(BlockDriverState **nodes, size_t n, Error **errp);
/* What all holders together do to @bs and let others do. */
void bdrv_cumulative_perms(const BlockDriverState *bs, uint64_t *perm, uint64_t *shared);

/* drain.c: the two halves of bdrv_drained_begin(), and the question between them. */
void bdrv_quiesce(BlockDriverState *bs);
void bdrv_unquiesce(BlockDriverState *bs);
bool bdrv_drain_pending(BlockDriverState *bs);
/*
 * Tell the holder of @child of @n begins (ends, when negative): an edge came or goes while drained.
 */
void bdrv_edge_quiesce(BdrvChild *child, int n);
/* How many bdrv_drain_all_begin() are open. */
unsigned bdrv_drain_all_count(void);

/* context.c: bring two nodes that are to be connected into one home context. */
int bdrv_unify_contexts(BlockDriverState *parent, BlockDriverState *child, Error **errp);
/* thread_safe of @bs and of all above it, anew. */
void bdrv_refresh_thread_safe(BlockDriverState *bs);

/* io.c: a node's length changed outside of a request of its own; tell those above. Any thread. */
void bdrv_parents_resized(BlockDriverState *bs);
int coroutine_fn bdrv_co_refresh_length(BlockDriverState *bs);
/* From outside of coroutines. */
int bdrv_refresh_length(BlockDriverState *bs);

/* block-backend.c */
BlockBackend *blk_of_edge(const BdrvChild *child);

#endif
