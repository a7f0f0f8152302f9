/*
 * What the files of the request path share.
 *
 * A request passes: io.c (is it valid, count it, align it), tracked.c (does it have to wait for
 * others), io-driver.c (to the driver, in pieces that it takes).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_IO_INTERNAL_H
#define BLOCK_IO_INTERNAL_H

#include "block/driver.h"
#include "util/round.h"

/*
 * tracked.c
 * ----------------------------------------------------------------------------------------
 */

typedef enum BdrvTrackedType {
    BDRV_TRACKED_READ,
    BDRV_TRACKED_WRITE,         /* writes, zeroes */
    BDRV_TRACKED_DISCARD,
    BDRV_TRACKED_TRUNCATE,
} BdrvTrackedType;

/* On the stack of a request, from begin to end. */
struct BdrvTrackedRequest {
    BlockDriverState *bs;
    BdrvTrackedType type;
    int64_t offset, bytes;              /* as asked for */
    int64_t overlap_offset, overlap_bytes;      /* what nobody else may touch when serialising */
    bool serialising;
    BdrvTrackedRequest *waiting_for;
    GSList *waiters;                    /* of Coroutine */
    BdrvTrackedRequest *prev, *next;
};

/* List the request; waits while it overlaps one that is serialising. */
void coroutine_fn bdrv_tracked_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                                     int64_t bytes, BdrvTrackedType type);
/*
 * From now on others that overlap, rounded outwards to @align, wait; first wait for those under
 * way.
 */
void coroutine_fn bdrv_make_serialising(BdrvTrackedRequest *req, uint64_t align);
void bdrv_tracked_end(BdrvTrackedRequest *req);

/*
 * io-driver.c: aligned to request_alignment, memory aligned; any length up to
 * BDRV_REQUEST_MAX_BYTES ---
 */

int coroutine_fn bdrv_driver_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv_driver_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv_driver_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           BdrvRequestFlags flags);
int coroutine_fn bdrv_driver_pwritev_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                IOVector *qiov, size_t qiov_offset);

/*
 * io.c
 * ----------------------------------------------------------------------------------------------
 */

/* Whether offset and length are sane: 0, -EIO or -EINVAL. */
int bdrv_check_range(int64_t offset, int64_t bytes);
/* May @child's holder write? 0, or the reason not to. */
int bdrv_check_writable(const BdrvChild *child);
/*
 * Note that [offset, offset + bytes) was written (or discarded): generation, dirty bitmaps, length.
 */
void bdrv_note_write(BlockDriverState *bs, int64_t offset, int64_t bytes);

/* copy-range.c: a read that also copies into the node what it takes from the backing file. */
int coroutine_fn bdrv_co_copy_on_read(BdrvTrackedRequest *req, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);

#endif
