/*
 * The driver `raw`: the bytes of its child as they are, or a window on them.
 *
 * It is not a filter in the graph's sense, as a window has another content than its child; but
 * every request is handed down with nothing changed but its offset.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>

#include "block/create.h"
#include "block/driver.h"
#include "block/drivers.h"

typedef struct RawState {
    int64_t offset;             /* where the window begins in the child */
    bool has_size;              /* the window has an end of its own: */
    int64_t size;
} RawState;

/* The length of the window on a child of @child_length bytes. */
static int64_t window_length(const RawState *s, int64_t child_length)
{
    if (child_length < 0) {
        return child_length;
    }
    return s->has_size ? s->size : MAX(child_length - s->offset, 0);
}

static int set_window(BlockDriverState *bs, RawState *s, const BlockdevOptionsRaw *o, Error **errp)
{
    int64_t length = bdrv_getlength(bs->file->bs);
    uint64_t offset = o->has_offset ? o->offset : 0, end;

    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get the length of node '%s'",
                         bdrv_get_node_name(bs->file->bs));
        return -1;
    }
    if (offset > (uint64_t)length) {
        error_setg(errp,
                   "Offset (%" PRIu64 ") cannot be greater than the length of the containing file "
                   "(%" PRId64 ")",
                   offset, length);
        return -1;
    }
    if (o->has_size && (__builtin_add_overflow(offset, o->size, &end) || end > (uint64_t)length)) {
        error_setg(errp,
                   "The sum of offset (%" PRIu64 ") and size (%" PRIu64
                   ") has to be smaller or equal "
                   "to the length of the containing file (%" PRId64 ")",
                   offset, o->size, length);
        return -1;
    }
    s->offset = offset;
    s->has_size = o->has_size;
    s->size = o->size;
    bs->total_bytes = window_length(s, length);
    return 0;
}

static void set_flags(BlockDriverState *bs)
{
    BlockDriverState *file = bs->file->bs;

    bs->supported_write_flags =
        BDRV_REQ_WRITE_UNCHANGED | (BDRV_REQ_FUA & file->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
        ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) & file->supported_zero_flags);
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE & file->supported_truncate_flags;
}

static int raw_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    const BlockdevOptionsRaw *o = &opts->u.raw;
    RawState *s = bs->opaque;

    if (bdrv_open_file_child(bs, o->file, BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, errp) < 0 ||
        set_window(bs, s, o, errp) < 0) {
        return -1;
    }
    set_flags(bs);
    return 0;
}

static void raw_refresh_limits(BlockDriverState *bs)
{
    const BlockLimits *file = &bs->file->bs->bl;
    RawState *s = bs->opaque;

    /*
     * A window that begins between two units cannot be aligned: the child reads and writes around
     * it.
     */
    if (s->offset % file->request_alignment == 0) {
        bs->bl.request_alignment = file->request_alignment;
    }
    if (file->pwrite_zeroes_alignment && s->offset % file->pwrite_zeroes_alignment == 0) {
        bs->bl.pwrite_zeroes_alignment = file->pwrite_zeroes_alignment;
    }
    if (file->pdiscard_alignment && s->offset % file->pdiscard_alignment == 0) {
        bs->bl.pdiscard_alignment = file->pdiscard_alignment;
    }
    bs->bl.max_pwrite_zeroes = file->max_pwrite_zeroes;
    bs->bl.max_pdiscard = file->max_pdiscard;
}

static int raw_reopen_prepare(BdrvReopenState *state, Error **errp)
{
    const BlockdevOptionsRaw *o = &state->options->u.raw;
    BlockDriverState *bs = state->bs;
    RawState window = { 0 };
    int64_t length = bs->total_bytes;

    if (set_window(bs, &window, o, errp) < 0) {
        bs->total_bytes = length;
        return -1;
    }
    bs->total_bytes = length;
    state->opaque = g_memdup2(&window, sizeof(window));
    return 0;
}

static void raw_reopen_commit(BdrvReopenState *state)
{
    RawState *s = state->bs->opaque;

    *s = *(RawState *)state->opaque;
    set_flags(state->bs);
    g_free(state->opaque);
    state->opaque = NULL;
}

static void raw_reopen_abort(BdrvReopenState *state)
{
    g_free(state->opaque);
    state->opaque = NULL;
}

/*
 * Requests
 * ----------------------------------------------------------------------------------------------
 */

/* The place of a request in the child. A window with an end does not grow. */
static int translate(BlockDriverState *bs, int64_t *offset, int64_t bytes, bool write)
{
    RawState *s = bs->opaque;

    if (s->has_size && (*offset > s->size || bytes > s->size - *offset)) {
        return write ? -ENOSPC : -EIO;
    }
    return __builtin_add_overflow(*offset, s->offset, offset) ? -EIO : 0;
}

static int coroutine_fn raw_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int ret = translate(bs, &offset, bytes, false);

    return ret < 0 ? ret : bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn raw_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int ret = translate(bs, &offset, bytes, true);

    return ret < 0 ? ret : bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn raw_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    int ret = translate(bs, &offset, bytes, true);

    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn raw_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int ret = translate(bs, &offset, bytes, true);

    return ret < 0 ? ret : bdrv_co_pdiscard(bs->file, offset, bytes);
}

static int coroutine_fn raw_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                            int64_t bytes, int64_t *pnum, int64_t *map,
                                            BlockDriverState **file)
{
    RawState *s = bs->opaque;

    *pnum = bytes;
    *map = offset + s->offset;
    *file = bs->file->bs;
    return BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RAW;
}

static int raw_page_cache_fd(BlockDriverState *bs, int64_t *offset, int64_t bytes)
{
    BlockDriverState *file = bs->file->bs;

    if (!file->drv->page_cache_fd || translate(bs, offset, bytes, false) < 0) {
        return -1;
    }
    return file->drv->page_cache_fd(file, offset, bytes);
}

static int64_t coroutine_fn raw_co_getlength(BlockDriverState *bs)
{
    return window_length(bs->opaque, bdrv_co_getlength(bs->file->bs));
}

static int64_t raw_length_by_child(BlockDriverState *bs, BdrvChild *child)
{
    return window_length(bs->opaque, bdrv_getlength(child->bs));
}

static int coroutine_fn raw_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                        PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    RawState *s = bs->opaque;

    if (s->has_size) {
        error_setg(errp, "Cannot resize a raw node of fixed size");
        return -ENOTSUP;
    }
    if (offset > BDRV_MAX_LENGTH - s->offset) {
        error_setg(errp, "%" PRId64 " bytes behind an offset of %" PRId64 " are too many", offset,
                   s->offset);
        return -EINVAL;
    }
    return bdrv_co_truncate(bs->file, offset + s->offset, exact, prealloc, flags, errp);
}

const BlockDriver bdrv_raw = {
    .format_name = "raw",
    .driver = BLOCKDEV_DRIVER_RAW,
    .instance_size = sizeof(RawState),
    .thread_safe = true,
    .open = raw_open,
    .refresh_limits = raw_refresh_limits,
    .reopen_prepare = raw_reopen_prepare,
    .reopen_commit = raw_reopen_commit,
    .reopen_abort = raw_reopen_abort,
    .co_preadv = raw_co_preadv,
    .co_pwritev = raw_co_pwritev,
    .co_pwrite_zeroes = raw_co_pwrite_zeroes,
    .co_pdiscard = raw_co_pdiscard,
    .co_block_status = raw_co_block_status,
    .page_cache_fd = raw_page_cache_fd,
    .co_getlength = raw_co_getlength,
    .length_by_child = raw_length_by_child,
    .co_truncate = raw_co_truncate,
    .co_create_opts = bdrv_co_create_protocol,
    .create_options = file_create_options,
};
