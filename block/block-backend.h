/*
 * BlockBackend: how a device, an export, a job or a tool holds a disk.
 *
 * It owns an edge to the root node, with permissions; it may be empty. Its requests can be made
 * from any AioContext's coroutine: they are carried to the root node's home context where that is
 * needed, and the caller goes on in its own. While the root is drained, new requests wait.
 *
 * Making, changing and freeing: main thread. Requests: any context; the functions without `co` run
 * one to its end from outside of coroutines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_BLOCK_BACKEND_H
#define BLOCK_BLOCK_BACKEND_H

#include "block/accounting.h"
#include "block/graph.h"
#include "block/io.h"

/* What the holder wants to be told; every function may be NULL. */
typedef struct BlockDevOps {
    /* The length of the disk changed. Any thread: the node's home context. */
    void (*resized)(void *opaque);
    /* Stop taking new requests from the guest or client; go on. Main thread. */
    void (*drained_begin)(void *opaque);
    void (*drained_end)(void *opaque);
    /* Whether requests are under way that are not counted by the BlockBackend. Any thread. */
    bool (*drained_poll)(void *opaque);
    /* For messages: "device 'virtio-blk0'", "export 'e'"; g_free() it. NULL: the name. */
    char *(*describe)(void *opaque);
    /* The root is about to move to another home context, has moved. Main thread, drained. */
    void (*context_changed)(void *opaque, AioContext *ctx);
} BlockDevOps;

/*
 * Life
 * ------------------------------------------------------------------------------------------------
 */

/* An empty one. @perm, @shared_perm: BlockPermission, as soon as it has a root. */
BlockBackend *blk_new(uint64_t perm, uint64_t shared_perm);
/* One with @bs as its root (a reference is taken); NULL with @errp set. */
BlockBackend *blk_new_with_bs(BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                              Error **errp);
/*
 * Open an image and hold it: bdrv_open(), consistent read and, unless read-only, write and resize.
 */
BlockBackend *blk_new_open(const BlockdevOptions *opts, Error **errp);
void blk_ref(BlockBackend *blk);
/* The last one waits for its requests, then lets go of the root. NULL is allowed. */
void blk_unref(BlockBackend *blk);

int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp);
void blk_remove_bs(BlockBackend *blk);
/* The root node, NULL when there is none; the edge, for the functions of io.h. */
BlockDriverState *blk_bs(const BlockBackend *blk);
BdrvChild *blk_root(const BlockBackend *blk);

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque);
int blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm, Error **errp);
void blk_get_perm(const BlockBackend *blk, uint64_t *perm, uint64_t *shared_perm);
/* While set, permissions are not taken: the machine they belong to waits for a migration. */
void blk_set_disable_perm(BlockBackend *blk, bool disable);
/*
 * Whether requests made while the root is drained fail to wait (they go through): for jobs in
 * drained code.
 */
void blk_set_disable_request_queuing(BlockBackend *blk, bool disable);
/*
 * Let the holder's wishes about the home context be asked: whether the root may be moved by others.
 */
void blk_set_allow_aio_context_change(BlockBackend *blk, bool allow);
/* Move the root to @ctx. 0, or -1 with @errp set. */
int blk_set_aio_context(BlockBackend *blk, AioContext *ctx, Error **errp);
AioContext *blk_get_aio_context(BlockBackend *blk);

/* Names: -drive's id. A named one is a reference that the monitor owns. */
bool monitor_add_blk(BlockBackend *blk, const char *name, Error **errp);
void monitor_remove_blk(BlockBackend *blk);
const char *blk_name(const BlockBackend *blk);         /* "" when it has none */
BlockBackend *blk_by_name(const char *name);
BlockBackend *blk_next(BlockBackend *after);           /* the named ones */
BlockBackend *blk_all_next(BlockBackend *after);       /* all */
/*
 * The device that holds it: at most one; @id for messages and query-block, may be "". 0 or -EBUSY.
 */
int blk_attach_dev(BlockBackend *blk, const char *id, const char *path, const BlockDevOps *ops,
                   void *dev);
void blk_detach_dev(BlockBackend *blk);
void *blk_get_attached_dev(const BlockBackend *blk);
const char *blk_get_attached_dev_id(const BlockBackend *blk);   /* id, or path; "" */

/*
 * Requests
 * ---------------------------------------------------------------------------------------------
 */

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *qiov,
                               BdrvRequestFlags flags);
int coroutine_fn blk_co_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                    IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *qiov,
                                BdrvRequestFlags flags);
int coroutine_fn blk_co_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                               BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite_compressed(BlockBackend *blk, int64_t offset, int64_t bytes,
                                          const void *buf);
int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int coroutine_fn blk_co_flush(BlockBackend *blk);
int64_t coroutine_fn blk_co_getlength(BlockBackend *blk);
int coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t offset, bool exact,
                                 PreallocMode prealloc, BdrvRequestFlags flags, Error **errp);
int coroutine_fn blk_co_block_status_above(BlockBackend *blk, BlockDriverState *base,
                                           int64_t offset, int64_t bytes, int64_t *pnum,
                                           int64_t *map, BlockDriverState **file, int *depth);

/*
 * What the page cache holds of a plain file, without copying it. Neither waits, for a drain or the
 * disk; any thread, in coroutines and outside.
 *
 * Whether all of the range is there; false also when nobody knows, or the node is more than a file.
 */
bool blk_is_cached(BlockBackend *blk, int64_t offset, int64_t bytes);
/*
 * Send the range to a non-blocking socket as far as that takes it. Returns the bytes sent, at least
 * 1; -EAGAIN: the socket is full; another negative errno: the rest must be read, or the socket is
 * broken.
 */
ssize_t blk_try_sendfile(BlockBackend *blk, int64_t offset, int64_t bytes, int sock);

/* To the end, from outside of coroutines. */
int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf, BdrvRequestFlags flags);
int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
               BdrvRequestFlags flags);
int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int blk_flush(BlockBackend *blk);
int blk_truncate(BlockBackend *blk, int64_t offset, bool exact, PreallocMode prealloc,
                 BdrvRequestFlags flags, Error **errp);
int blk_block_status_above(BlockBackend *blk, BlockDriverState *base, int64_t offset, int64_t bytes,
                           int64_t *pnum, int64_t *map, BlockDriverState **file, int *depth);
/* The length as last known. Any thread. -ENOMEDIUM without a root. */
int64_t blk_getlength(BlockBackend *blk);

/* Wait until no request of this one, or of any, is under way. Main thread. */
void blk_drain(BlockBackend *blk);
/* Count activity of the holder that drains must wait for. Any thread. */
void blk_inc_in_flight(BlockBackend *blk);
void blk_dec_in_flight(BlockBackend *blk);

/*
 * Facts
 * ------------------------------------------------------------------------------------------------
 */

bool blk_is_available(BlockBackend *blk);       /* has a root */
bool blk_is_writable(BlockBackend *blk); /* it, or whoever asks, could have write permission */
uint32_t blk_get_request_alignment(BlockBackend *blk);
uint64_t blk_get_max_transfer(BlockBackend *blk);
uint32_t blk_get_max_iov(BlockBackend *blk);
void *blk_try_blockalign(BlockBackend *blk, size_t bytes);
/* A write cache that guests see: off means every write is BDRV_REQ_FUA. Default: on. */
void blk_set_enable_write_cache(BlockBackend *blk, bool on);
bool blk_enable_write_cache(const BlockBackend *blk);

/* What to do about failed requests of a guest (werror, rerror). */
void blk_set_on_error(BlockBackend *blk, BlockdevOnError on_read_error,
                      BlockdevOnError on_write_error);
BlockdevOnError blk_get_on_error(const BlockBackend *blk, bool is_read);
/* What that policy says about @error (positive errno). */
BlockErrorAction blk_get_error_action(BlockBackend *blk, bool is_read, int error);
/* Remembered for query-block: I/O status. */
void blk_iostatus_enable(BlockBackend *blk);
bool blk_iostatus_is_enabled(const BlockBackend *blk);
BlockDeviceIoStatus blk_iostatus(const BlockBackend *blk);
void blk_iostatus_reset(BlockBackend *blk);
void blk_iostatus_set_err(BlockBackend *blk, int error);

BlockAcctStats *blk_get_stats(BlockBackend *blk);

#endif
