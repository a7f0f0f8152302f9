/*
 * The driver `copy-on-read`: a filter that asks for every read to be kept.
 *
 * What a read takes from the child's backing files is written into the child, so that it need not
 * be fetched again. With `bottom` only what comes from the nodes between the child and that one,
 * inclusive, is kept; what lies below it stays there.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/driver.h"
#include "block/drivers.h"

typedef struct CorState {
    BlockDriverState *bottom;   /* a reference; NULL: the whole chain */
} CorState;

static int set_bottom(CorState *s, BlockDriverState *file, const char *name, Error **errp)
{
    BlockDriverState *bottom = bdrv_find_node(name);

    if (!bottom) {
        error_setg(errp, "Bottom node '%s' not found", name);
        return -1;
    }
    if (bottom == file || !bdrv_chain_contains(file, bottom)) {
        error_setg(errp, "Bottom node '%s' is not among the backing nodes of '%s'", name,
                   bdrv_get_node_name(file));
        return -1;
    }
    bdrv_ref(bottom);
    s->bottom = bottom;
    return 0;
}

static int cor_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    const BlockdevOptionsCor *o = &opts->u.copy_on_read;
    CorState *s = bs->opaque;
    BlockDriverState *file;

    if (bdrv_open_file_child(bs, o->file, BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, errp) < 0) {
        return -1;
    }
    file = bs->file->bs;
    if (o->bottom && set_bottom(s, file, o->bottom, errp) < 0) {
        return -1;
    }
    bs->supported_write_flags =
        BDRV_REQ_WRITE_UNCHANGED | (BDRV_REQ_FUA & file->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
        ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) & file->supported_zero_flags);
    bs->supported_truncate_flags = file->supported_truncate_flags;
    bs->total_bytes = bdrv_getlength(file);
    return 0;
}

static void cor_close(BlockDriverState *bs)
{
    CorState *s = bs->opaque;

    bdrv_unref(s->bottom);
}

/* Reads write, even where nobody above may: but nothing that anybody could see. */
static void cor_child_perm(BlockDriverState *bs, BdrvChild *child, BdrvChildRole role,
                           uint64_t parent_perm, uint64_t parent_shared, uint64_t *perm,
                           uint64_t *shared)
{
    bdrv_default_perms(bs, child, role, parent_perm, parent_shared, perm, shared);
    if (!bs->inactive && *perm & BLK_PERM_CONSISTENT_READ) {
        *perm |= BLK_PERM_WRITE_UNCHANGED;
    }
    *shared |= BLK_PERM_WRITE_UNCHANGED;
}

/*
 * Whether the first bytes of a range come from between the child (exclusive) and the bottom
 * (inclusive), and how many do or do not. 1, 0 or a negative errno.
 */
static int coroutine_fn comes_from_between(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           int64_t *n)
{
    CorState *s = bs->opaque;
    BlockDriverState *base = bdrv_backing_chain_next(s->bottom);
    int depth, ret;

    ret = bdrv_co_block_status_above(bs->file->bs, base, offset, bytes, n, NULL, NULL, &depth);
    if (ret < 0) {
        return ret;
    }
    if (*n == 0) {
        /* Beyond the end: there is nothing to copy. */
        *n = bytes;
        return 0;
    }
    return depth > 1;
}

static int coroutine_fn read_piece(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags,
                                   bool copy)
{
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                               copy ? flags | BDRV_REQ_COPY_ON_READ : flags);
}

static int coroutine_fn cor_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    CorState *s = bs->opaque;

    /* A bottom that is no longer in the chain bounds nothing. */
    if (!s->bottom || !bdrv_chain_contains(bs->file->bs, s->bottom)) {
        return read_piece(bs, offset, bytes, qiov, qiov_offset, flags, true);
    }
    while (bytes > 0) {
        int64_t n;
        int ret = comes_from_between(bs, offset, bytes, &n);

        if (ret >= 0) {
            ret = read_piece(bs, offset, n, qiov, qiov_offset, flags, ret);
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return 0;
}

static int coroutine_fn cor_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn cor_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn cor_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

static int coroutine_fn cor_co_pwritev_compressed(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, IOVector *qiov, size_t qiov_offset)
{
    IOVector part;
    int ret;

    iovector_init_slice(&part, qiov, qiov_offset, bytes);
    ret = bdrv_co_pwritev(bs->file, offset, bytes, &part, BDRV_REQ_WRITE_COMPRESSED);
    iovector_destroy(&part);
    return ret;
}

const BlockDriver bdrv_cor = {
    .format_name = "copy-on-read",
    .driver = BLOCKDEV_DRIVER_COPY_ON_READ,
    .instance_size = sizeof(CorState),
    .is_filter = true,
    .open = cor_open,
    .close = cor_close,
    .child_perm = cor_child_perm,
    .co_preadv = cor_co_preadv,
    .co_pwritev = cor_co_pwritev,
    .co_pwrite_zeroes = cor_co_pwrite_zeroes,
    .co_pdiscard = cor_co_pdiscard,
    .co_pwritev_compressed = cor_co_pwritev_compressed,
};
