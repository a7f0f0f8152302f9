/*
 * What a node can be asked besides reading and writing: discard, flush, its length, to change it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/dirty-bitmap.h"
#include "block/graph-internal.h"
#include "block/io-internal.h"

/* ---- discard ---- */

/* A piece that the driver takes: up to a boundary, then whole units, then the rest. */
static int64_t discard_piece(const BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t align = MAX(bs->bl.pdiscard_alignment, bs->bl.request_alignment);
    int64_t max = bs->bl.max_pdiscard ? MIN(bs->bl.max_pdiscard, BDRV_REQUEST_MAX_BYTES)
                                      : BDRV_REQUEST_MAX_BYTES;
    int64_t n = MIN(bytes, MAX(round_down_i64(max, align), align));

    if (offset % align) {
        return MIN(n, align - offset % align);
    }
    return n > align ? round_down_i64(n, align) : n;
}

static int coroutine_fn discard_range(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    uint32_t align = bs->bl.request_alignment;
    int64_t end = round_down_i64(offset + bytes, align);

    for (offset = round_up_i64(offset, align); offset < end;) {
        int64_t n = discard_piece(bs, offset, end - offset);
        int ret = bs->drv->co_pdiscard(bs, offset, n);

        if (ret < 0 && ret != -ENOTSUP) {
            return ret;
        }
        offset += n;
    }
    return 0;
}

int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes)
{
    BlockDriverState *bs = child->bs;
    int64_t total = bdrv_getlength(bs);
    BdrvTrackedRequest req;
    int ret = bdrv_check_range(offset, bytes);

    if (ret == 0) {
        ret = bdrv_check_writable(child);
    }
    if (ret < 0) {
        return ret;
    }
    if (total < 0 || offset + bytes > total) {
        return total < 0 ? total : -EIO;
    }
    if (!bs->discard_unmap || !bs->drv->co_pdiscard || bytes == 0) {
        return 0;
    }
    bdrv_inc_in_flight(bs);
    bdrv_tracked_begin(&req, bs, offset, bytes, BDRV_TRACKED_DISCARD);
    ret = discard_range(bs, offset, bytes);
    if (ret >= 0) {
        bdrv_note_write(bs, offset, bytes);
    }
    bdrv_tracked_end(&req);
    bdrv_dec_in_flight(bs);
    return ret;
}

/* ---- flush ---- */

static int coroutine_fn flush_children(BlockDriverState *bs)
{
    int result = 0;
    BdrvChild *c;

    BDRV_FOREACH_CHILD(bs, c) {
        if (c->perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
            int ret = bdrv_co_flush(c->bs);

            result = result < 0 ? result : ret;
        }
    }
    return result;
}

static int coroutine_fn flush_locked(BlockDriverState *bs)
{
    uint64_t gen = __atomic_load_n(&bs->write_gen, __ATOMIC_SEQ_CST);
    int ret = 0;

    if (bs->drv->co_flush_to_os) {
        ret = bs->drv->co_flush_to_os(bs);
    }
    if (ret >= 0 && !bs->cache_no_flush && bs->drv->co_flush_to_disk && bs->flushed_gen != gen) {
        ret = bs->drv->co_flush_to_disk(bs);
    }
    if (ret >= 0) {
        ret = flush_children(bs);
    }
    if (ret >= 0) {
        bs->flushed_gen = gen;
    }
    return MIN(ret, 0);
}

int coroutine_fn bdrv_co_flush(BlockDriverState *bs)
{
    int ret;

    if (bs->inactive || (bs->read_only && !bs->drv->co_flush_to_os)) {
        return 0;
    }
    bdrv_inc_in_flight(bs);
    co_mutex_lock(&bs->flush_lock);
    ret = flush_locked(bs);
    co_mutex_unlock(&bs->flush_lock);
    bdrv_dec_in_flight(bs);
    return ret;
}

/* ---- length ---- */

int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs)
{
    int ret = bdrv_co_refresh_length(bs);

    return ret < 0 ? ret : bdrv_getlength(bs);
}

int coroutine_fn bdrv_co_refresh_length(BlockDriverState *bs)
{
    BlockDriverState *filtered = bs->drv->is_filter ? bdrv_primary_bs(bs) : NULL;
    int64_t length, old = bdrv_getlength(bs);

    if (bs->drv->co_getlength) {
        length = bs->drv->co_getlength(bs);
    } else if (filtered) {
        length = bdrv_co_getlength(filtered);
    } else {
        length = old;
    }
    if (length > BDRV_MAX_LENGTH) {
        length = -EFBIG;
    }
    __atomic_store_n(&bs->total_bytes, length, __ATOMIC_SEQ_CST);
    if (length >= 0 && old != length) {
        bdrv_dirty_bitmap_truncate(bs, length);
        bdrv_parents_resized(bs);
    }
    return MIN(length, 0);
}

typedef struct LengthCall {
    BlockDriverState *bs;
    int ret;
} LengthCall;

static void coroutine_fn refresh_entry(void *opaque)
{
    LengthCall *call = opaque;

    call->ret = bdrv_co_refresh_length(call->bs);
}

int bdrv_refresh_length(BlockDriverState *bs)
{
    LengthCall call = { .bs = bs };

    aio_co_run(bs->aio_context, refresh_entry, &call);
    return call.ret;
}

void coroutine_fn bdrv_co_set_length(BlockDriverState *bs, int64_t bytes)
{
    if (__atomic_exchange_n(&bs->total_bytes, bytes, __ATOMIC_SEQ_CST) != bytes) {
        bdrv_dirty_bitmap_truncate(bs, bytes);
        bdrv_parents_resized(bs);
    }
}

int64_t coroutine_fn bdrv_co_get_allocated_file_size(BlockDriverState *bs)
{
    int64_t sum = 0;
    bool any = false;
    BdrvChild *c;

    if (bs->drv->co_get_allocated_file_size) {
        return bs->drv->co_get_allocated_file_size(bs);
    }
    BDRV_FOREACH_CHILD(bs, c) {
        if (c->role & (BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_FILTERED)) {
            int64_t n = bdrv_co_get_allocated_file_size(c->bs);

            if (n < 0) {
                return n;
            }
            sum += n;
            any = true;
        }
    }
    return any ? sum : -ENOTSUP;
}

/* ---- truncate ---- */

/* What appears when @bs gets longer must not be what its backing file has there. */
static BdrvRequestFlags growth_flags(BlockDriverState *bs, int64_t old, BdrvRequestFlags flags)
{
    BlockDriverState *backing = bs->backing ? bs->backing->bs : NULL;

    return backing && bdrv_getlength(backing) > old ? flags | BDRV_REQ_ZERO_WRITE : flags;
}

static int coroutine_fn truncate_driver(BlockDriverState *bs, int64_t offset, bool exact,
                                        PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BdrvChild *file = bs->file;

    if (bs->drv->co_truncate) {
        if (flags & ~bs->supported_truncate_flags) {
            error_setg(
                errp,
                "Driver '%s' of node '%s' cannot make sure that the added part reads as zeroes",
                bs->drv->format_name, bs->node_name);
            return -ENOTSUP;
        }
        return bs->drv->co_truncate(bs, offset, exact, prealloc, flags, errp);
    }
    if (bs->drv->is_filter && file) {
        return bdrv_co_truncate(file, offset, exact, prealloc, flags, errp);
    }
    error_setg(errp, "Driver '%s' of node '%s' does not support resizing", bs->drv->format_name,
               bs->node_name);
    return -ENOTSUP;
}

static int coroutine_fn truncate_tracked(BlockDriverState *bs, int64_t old, int64_t offset,
                                         bool exact, PreallocMode prealloc, BdrvRequestFlags flags,
                                         Error **errp)
{
    Error *err = NULL;
    int ret;

    if (offset > old) {
        flags = growth_flags(bs, old, flags);
    } else {
        flags &= ~(BdrvRequestFlags)BDRV_REQ_ZERO_WRITE;
    }
    ret = truncate_driver(bs, offset, exact, prealloc, flags, &err);
    if (ret >= 0) {
        ret = bdrv_co_refresh_length(bs);
        if (ret < 0) {
            error_setg_errno(&err, -ret, "Could not read the new length of node '%s'",
                             bs->node_name);
        }
    }
    if (ret >= 0 && offset > old) {
        bdrv_note_write(bs, old, MAX(MIN(offset, bdrv_getlength(bs)) - old, 0));
    }
    if (ret < 0 && !err) {
        error_setg_errno(&err, -ret, "Could not resize node '%s'", bs->node_name);
    }
    error_propagate(errp, err);
    return MIN(ret, 0);
}

int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BlockDriverState *bs = child->bs;
    int64_t old = bdrv_getlength(bs);
    BdrvTrackedRequest req;
    int ret;

    if (offset < 0 || offset > BDRV_MAX_LENGTH) {
        error_setg(errp, "Required size out of range: %" G_GINT64_FORMAT " bytes", offset);
        return -EINVAL;
    }
    ret = old < 0 ? old : bs->inactive ? -EPERM : bs->read_only ? -EACCES
          : child->perm & BLK_PERM_RESIZE ? 0 : -EPERM;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Node '%s' cannot be resized", bs->node_name);
        return ret;
    }
    bdrv_inc_in_flight(bs);
    bdrv_tracked_begin(&req, bs, MIN(old, offset), MAX(old, offset) - MIN(old, offset),
                       BDRV_TRACKED_TRUNCATE);
    if (old != offset) {
        bdrv_make_serialising(&req, 1);
    }
    ret = truncate_tracked(bs, old, offset, exact, prealloc, flags, errp);
    bdrv_tracked_end(&req);
    bdrv_dec_in_flight(bs);
    return ret;
}
