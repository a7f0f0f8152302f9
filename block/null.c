/*
 * The driver `null-co`: a disk without a medium. Reads return at once, or after a given latency;
 * what is written is forgotten. It shows what everything above a disk costs.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>

#include "block/driver.h"
#include "block/drivers.h"

#define DEFAULT_LENGTH (INT64_C(1) << 30)

typedef struct NullState {
    int64_t length;
    int64_t latency_ns;
    bool read_zeroes;
} NullState;

static int null_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    const BlockdevOptionsNull *o = &opts->u.null_co;
    NullState *s = bs->opaque;

    if (o->has_size && o->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "size %" PRIu64 " is too large", o->size);
        return -1;
    }
    if (o->has_latency_ns && o->latency_ns > INT64_MAX / 2) {
        error_setg(errp, "latency-ns %" PRIu64 " is too large", o->latency_ns);
        return -1;
    }
    s->length = o->has_size ? (int64_t)o->size : DEFAULT_LENGTH;
    s->latency_ns = o->has_latency_ns ? o->latency_ns : 0;
    s->read_zeroes = o->has_read_zeroes && o->read_zeroes;
    bs->total_bytes = s->length;
    bs->filename = g_strdup("null-co://");
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    return 0;
}

static int coroutine_fn take_time(BlockDriverState *bs)
{
    NullState *s = bs->opaque;

    if (s->latency_ns > 0) {
        aio_co_sleep_ns(s->latency_ns);
    }
    return 0;
}

static int coroutine_fn null_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    NullState *s = bs->opaque;

    if (s->read_zeroes) {
        iovector_memset(qiov, qiov_offset, 0, bytes);
    }
    return take_time(bs);
}

static int coroutine_fn null_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    return take_time(bs);
}

static int coroutine_fn null_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags)
{
    return take_time(bs);
}

static int coroutine_fn null_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return take_time(bs);
}

static int64_t coroutine_fn null_co_getlength(BlockDriverState *bs)
{
    NullState *s = bs->opaque;

    return s->length;
}

static int coroutine_fn null_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                             int64_t bytes, int64_t *pnum, int64_t *map,
                                             BlockDriverState **file)
{
    NullState *s = bs->opaque;

    *pnum = bytes;
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID | (s->read_zeroes ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA);
}

static int64_t coroutine_fn null_co_get_allocated_file_size(BlockDriverState *bs)
{
    return 0;
}

const BlockDriver bdrv_null_co = {
    .format_name = "null-co",
    .driver = BLOCKDEV_DRIVER_NULL_CO,
    .instance_size = sizeof(NullState),
    .thread_safe = true,
    .open = null_open,
    .co_preadv = null_co_preadv,
    .co_pwritev = null_co_pwritev,
    .co_pwrite_zeroes = null_co_pwrite_zeroes,
    .co_pdiscard = null_co_pdiscard,
    .co_flush_to_disk = take_time,
    .co_block_status = null_co_block_status,
    .co_getlength = null_co_getlength,
    .co_get_allocated_file_size = null_co_get_allocated_file_size,
};
