/*
 * The last step of a request: to the driver, in pieces that it takes, with what it cannot do
 * emulated.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/io-internal.h"

#define ZERO_BUFFER_BYTES (1024 * 1024)

static int64_t piece(uint64_t limit, uint32_t align, int64_t bytes)
{
    int64_t max = limit ? round_down_i64(MIN(limit, BDRV_REQUEST_MAX_BYTES), align)
                        : BDRV_REQUEST_MAX_BYTES;

    return MIN(MAX(max, align), bytes);
}

int coroutine_fn bdrv_driver_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    flags &= ~(BdrvRequestFlags)(BDRV_REQ_COPY_ON_READ | BDRV_REQ_PREFETCH | BDRV_REQ_SERIALISING);
    while (bytes > 0) {
        int64_t n = piece(bs->bl.max_transfer, bs->bl.request_alignment, bytes);
        int ret = bs->drv->co_preadv ? bs->drv->co_preadv(bs, offset, n, qiov, qiov_offset, flags)
                                     : -ENOTSUP;

        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return 0;
}

/* The driver does not know BDRV_REQ_FUA: the same by a flush. */
static int coroutine_fn flush_for_fua(BlockDriverState *bs, BdrvRequestFlags flags,
                                      BdrvRequestFlags supported)
{
    if (!(flags & BDRV_REQ_FUA) || (supported & BDRV_REQ_FUA)) {
        return 0;
    }
    __atomic_fetch_add(&bs->write_gen, 1, __ATOMIC_SEQ_CST);
    return bdrv_co_flush(bs);
}

int coroutine_fn bdrv_driver_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BdrvRequestFlags supported = bs->supported_write_flags;

    while (bytes > 0) {
        int64_t n = piece(bs->bl.max_transfer, bs->bl.request_alignment, bytes);
        int ret = bs->drv->co_pwritev
                  ? bs->drv->co_pwritev(bs, offset, n, qiov, qiov_offset, flags & supported)
                  : -ENOTSUP;

        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return flush_for_fua(bs, flags, supported);
}

int coroutine_fn bdrv_driver_pwritev_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                IOVector *qiov, size_t qiov_offset)
{
    if (!bs->drv->co_pwritev_compressed) {
        return -ENOTSUP;
    }
    return bs->drv->co_pwritev_compressed(bs, offset, bytes, qiov, qiov_offset);
}

/* ---- zeroes ---- */

/* Buffers of zeroes where the driver cannot do better. */
static int coroutine_fn write_zero_buffers(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t size = MIN(bytes, MAX(ZERO_BUFFER_BYTES, bs->bl.request_alignment));
    void *buf = bdrv_try_blockalign(bs, size);
    int ret = 0;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, size);
    while (bytes > 0 && ret >= 0) {
        int64_t n = MIN(bytes, size);
        IOVector qiov;

        iovector_init_buf(&qiov, buf, n);
        ret = bdrv_driver_pwritev(bs, offset, n, &qiov, 0, 0);
        offset += n;
        bytes -= n;
    }
    free(buf);
    return ret;
}

/*
 * How much to ask the driver for: up to the next of its boundaries first, then whole ones, then the
 * rest.
 */
static int64_t zero_piece(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    uint32_t align = MAX(bs->bl.pwrite_zeroes_alignment, bs->bl.request_alignment);
    int64_t head = offset % align, n = piece(bs->bl.max_pwrite_zeroes, align, bytes);

    if (head) {
        return MIN(n, (int64_t)align - head);
    }
    return n > align ? round_down_i64(n, align) : n;
}

int coroutine_fn bdrv_driver_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           BdrvRequestFlags flags)
{
    BdrvRequestFlags supported = bs->supported_zero_flags;
    bool written_as_data = false;

    if (!bs->discard_unmap) {
        flags &= ~(BdrvRequestFlags)BDRV_REQ_MAY_UNMAP;
    }
    while (bytes > 0) {
        int64_t n = zero_piece(bs, offset, bytes);
        int ret = -ENOTSUP;

        if (bs->drv->co_pwrite_zeroes &&
            (!(flags & BDRV_REQ_NO_FALLBACK) || (supported & BDRV_REQ_NO_FALLBACK))) {
            ret = bs->drv->co_pwrite_zeroes(bs, offset, n, flags & supported);
        }
        if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
            ret = write_zero_buffers(bs, offset, n);
            written_as_data = true;
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return flush_for_fua(bs, flags, written_as_data ? 0 : supported);
}
