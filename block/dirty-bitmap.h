/*
 * Dirty bitmaps: which parts of a node were written since the bitmap was made or cleared.
 *
 * A bit stands for `granularity` bytes. Named ones are the user's (backup, NBD's
 * qemu:dirty-bitmap:NAME), those without a name belong to jobs. Recording happens in the write path
 * of the node, in any thread; everything here locks for itself, any thread, unless it says main
 * thread. Bitmaps of a node are in the order in which they were made.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_DIRTY_BITMAP_H
#define BLOCK_DIRTY_BITMAP_H

#include "block/common.h"
#include "qapi/qapi-types-block-core.h"

#define BDRV_BITMAP_MIN_GRANULARITY 512
#define BDRV_BITMAP_MAX_GRANULARITY (UINT32_C(1) << 31)
#define BDRV_BITMAP_NAME_MAX 1023

/*
 * @granularity: a power of two in range; 0: the node's cluster size, between 4 KiB and 64 KiB.
 * @name: NULL for a job's. All clean, enabled. NULL with @errp set: name taken or too long, bad
 * granularity, no memory. Main thread.
 */
BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs, uint32_t granularity,
                                          const char *name, Error **errp);
/* Remove it from its node. Main thread, or the home context where nobody else knows it. */
void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap);
BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs, const char *name);
/* NULL starts, NULL ends. */
BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *after);
void bdrv_release_named_dirty_bitmaps(BlockDriverState *bs);

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap);     /* NULL: none */
BlockDriverState *bdrv_dirty_bitmap_bs(const BdrvDirtyBitmap *bitmap);
uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap);
int64_t bdrv_dirty_bitmap_size(const BdrvDirtyBitmap *bitmap);         /* bytes covered */

/* A disabled one records nothing. */
bool bdrv_dirty_bitmap_enabled(const BdrvDirtyBitmap *bitmap);
void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap);
void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap);
/* Saved with the image when that is closed. */
bool bdrv_dirty_bitmap_get_persistence(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap, bool persistent);
/* Its content cannot be trusted (the image was not closed properly); only removal is allowed. */
bool bdrv_dirty_bitmap_inconsistent(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap);
/* In use by an export or a job: nobody else may change it. */
bool bdrv_dirty_bitmap_busy(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy);

typedef enum BdrvBitmapCheck {
    BDRV_BITMAP_BUSY = 1 << 0, BDRV_BITMAP_RO = 1 << 1, BDRV_BITMAP_INCONSISTENT = 1 << 2,
} BdrvBitmapCheck;
#define BDRV_BITMAP_DEFAULT (BDRV_BITMAP_BUSY | BDRV_BITMAP_RO | BDRV_BITMAP_INCONSISTENT)
/* Whether none of @flags is true of it; -1 with @errp set. */
int bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, unsigned flags, Error **errp);

/*
 * Content: ranges in bytes; rounded outwards when setting, clearing needs multiples of the
 * granularity.
 */
void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
void bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset);
int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *bitmap);                 /* bytes */
/* The first dirty (clean) byte at or after @offset, looking at @bytes at most; -1: none. */
int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/* The first dirty range inside [@start, @end), at most @max_bytes long. False: none. */
bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t start, int64_t end,
                                       int64_t max_bytes, int64_t *dirty_start,
                                       int64_t *dirty_count);
/* Whether @offset is dirty; *@count: how many of @bytes bytes from there are the same. */
bool bdrv_dirty_bitmap_status(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                              int64_t *count);
/* dest |= src, whatever their granularities. False with @errp set: sizes differ. */
bool bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *src, Error **errp);

/* Persistence: the bitmap as bits, little-endian 64-bit words as in qcow2, a piece at a time. */
uint64_t bdrv_dirty_bitmap_serialization_size(const BdrvDirtyBitmap *bitmap); /* bytes, whole */
void bdrv_dirty_bitmap_serialize(BdrvDirtyBitmap *bitmap, void *buf, uint64_t byte_offset,
                                 uint64_t bytes);
void bdrv_dirty_bitmap_deserialize(BdrvDirtyBitmap *bitmap, const void *buf, uint64_t byte_offset,
                                   uint64_t bytes);

/* For query-block; the caller's. */
BlockDirtyInfoList *bdrv_query_dirty_bitmaps(BlockDriverState *bs);

/* The layer's own: a write happened; the node changed its length. */
void bdrv_set_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes);
void bdrv_dirty_bitmap_truncate(BlockDriverState *bs, int64_t bytes);

#endif
