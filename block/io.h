/*
 * Requests to a node, through the edge by which its user holds it.
 *
 * For drivers (to their children) and block-backend.c. All are coroutines in the node's home
 * context (or, for thread-safe trees, in any). Offsets and lengths are bytes, of any alignment:
 * what the driver needs aligned is read, changed and written back, serialised against others. A
 * length is at most BDRV_REQUEST_MAX_BYTES; larger ones are -EINVAL. Requests beyond the end of the
 * node are -EIO, and writes to a node that is inactive or read-only -EPERM or -EACCES.
 *
 * All return 0 or a negative errno unless it says otherwise.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_IO_H
#define BLOCK_IO_H

#include "block/common.h"
#include "qapi/qapi-types-block-core.h"

/* Into and out of @bytes bytes of the vector from @qiov_offset on. */
int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *qiov,
                                BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *qiov,
                                 BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                BdrvRequestFlags flags);
/* Any length. The node's content there reads as zeroes afterwards. */
int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags);
/* Any length. A hint: the content is not needed any more. 0 also when nothing was done. */
int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes);

/* All that was written before is on stable storage, the metadata that leads to it too. */
int coroutine_fn bdrv_co_flush(BlockDriverState *bs);

/*
 * bdrv_co_block_status:
 * @bs: the node
 * @offset, @bytes: what to ask about
 * @pnum: how many bytes from @offset on have that status, at least 1 (0 at or beyond the end)
 * @map: where they lie in *@file, when BDRV_BLOCK_OFFSET_VALID
 *
 * Of this node alone: a range without BDRV_BLOCK_ALLOCATED comes from its backing.
 * Returns: BdrvBlockStatus flags, or a negative errno. @map and @file may be NULL.
 */
int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map, BlockDriverState **file);
/*
 * The same through the chain of backing files down to @base, exclusive (NULL: to its end). @depth,
 * when not NULL: how many layers down the range was found, 1 is @bs; 0: nowhere above @base.
 */
int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                                            int64_t offset, int64_t bytes, int64_t *pnum,
                                            int64_t *map, BlockDriverState **file, int *depth);
/* Whether the range is allocated in @bs itself: 1, 0, or a negative errno. */
int coroutine_fn bdrv_co_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum);
/* Whether the range is known to read as zeroes without reading it. */
int coroutine_fn bdrv_co_is_zero_fast(BlockDriverState *bs, int64_t offset, int64_t bytes);

/* The length now, in bytes. */
int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs);
/* Disk space that it occupies, or a negative errno. */
int64_t coroutine_fn bdrv_co_get_allocated_file_size(BlockDriverState *bs);

/*
 * bdrv_co_truncate:
 * @exact: exactly that length, else at least (block devices have theirs)
 * @prealloc: of what is added
 * @flags: BDRV_REQ_ZERO_WRITE: what is added must read as zeroes (also over a backing file)
 */
int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags, Error **errp);

/* Memory for requests to @bs: aligned as it needs; free() it. NULL when memory is short. */
void *bdrv_try_blockalign(BlockDriverState *bs, size_t bytes);
size_t bdrv_min_mem_align(BlockDriverState *bs);

#endif
