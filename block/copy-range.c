/*
 * Copying inside the block layer: from a backing file into the node that was read.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>

#include "block/io-internal.h"

#define COPY_BYTES (1024 * 1024)

/* One piece of the node, whole clusters, from its backing into itself. */
static int coroutine_fn copy_up(BlockDriverState *bs, int64_t offset, int64_t bytes, void *bounce)
{
    IOVector part;
    int ret;

    iovector_init_buf(&part, bounce, bytes);
    ret = bdrv_driver_preadv(bs, offset, bytes, &part, 0, 0);
    if (ret < 0) {
        return ret;
    }
    if (bs->drv->co_pwrite_zeroes && iovector_is_zero(&part, 0, bytes)) {
        return bdrv_driver_pwrite_zeroes(bs, offset, bytes, BDRV_REQ_WRITE_UNCHANGED);
    }
    return bdrv_driver_pwritev(bs, offset, bytes, &part, 0, BDRV_REQ_WRITE_UNCHANGED);
}

static uint32_t copy_unit(BlockDriverState *bs)
{
    BlockDriverInfo info = { 0 };
    uint32_t align = bs->bl.request_alignment;

    if (bs->drv->co_get_info && bs->drv->co_get_info(bs, &info) >= 0 && info.cluster_size) {
        return MAX(info.cluster_size, align);
    }
    return MAX(align, 64 * 1024);
}

int coroutine_fn bdrv_co_copy_on_read(BdrvTrackedRequest *req, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = req->bs;
    int64_t unit = copy_unit(bs), size = MAX(COPY_BYTES, unit);
    int64_t total = round_up_i64(bdrv_getlength(bs), bs->bl.request_alignment);
    uint8_t *bounce = bdrv_try_blockalign(bs, size);
    int ret = bounce ? 0 : -ENOMEM;

    bdrv_make_serialising(req, unit);
    while (ret >= 0 && bytes > 0) {
        int64_t start = round_down_i64(offset, unit);
        int64_t end = MIN(round_up_i64(offset + bytes, unit), start + round_down_i64(size, unit));
        int64_t n = MIN(bytes, end - offset), pnum;
        IOVector part;

        end = MIN(end, total);
        ret = bdrv_co_is_allocated(bs, start, MAX(end - start, 0), &pnum);
        if (ret == 0 && pnum > 0) {
            end = MIN(end, round_up_i64(start + pnum, unit));
            n = MIN(n, end - offset);
            ret = copy_up(bs, start, end - start, bounce);
        } else if (ret > 0 && pnum > offset - start) {
            n = MIN(n, start + pnum - offset);
        }
        if (ret >= 0 && !(flags & BDRV_REQ_PREFETCH)) {
            int64_t first = round_down_i64(offset, bs->bl.request_alignment);
            int64_t chunk = round_up_i64(offset + n, bs->bl.request_alignment) - first;

            n = MIN(n, size - (offset - first));
            chunk = MIN(chunk, size);
            iovector_init_buf(&part, bounce, chunk);
            ret = first < total
                      ? bdrv_driver_preadv(bs, first, MIN(chunk, total - first), &part, 0, 0)
                      : 0;
            if (ret >= 0 && first + chunk > total) {
                int64_t there = MAX(total - first, 0);

                iovector_memset(&part, there, 0, chunk - there);
            }
            if (ret >= 0) {
                iovector_from_buf(qiov, qiov_offset, bounce + (offset - first), n);
            }
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    free(bounce);
    return MIN(ret, 0);
}
