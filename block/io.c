/*
 * Reads and writes of a node: checked, counted, aligned, then handed to its driver.
 *
 * Most requests are aligned and go straight through. One that is not is done in chunks by way of a
 * bounce buffer: a read takes more than was asked for and drops the rest; a write reads what
 * surrounds it, and is serialised with its neighbours meanwhile.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/dirty-bitmap.h"
#include "block/graph-internal.h"
#include "block/io-internal.h"

#define BOUNCE_BYTES (1024 * 1024)

/* ---- checks ---- */

int bdrv_check_range(int64_t offset, int64_t bytes)
{
    if (offset < 0 || bytes < 0) {
        return -EIO;
    }
    if (bytes > BDRV_MAX_LENGTH || offset > BDRV_MAX_LENGTH - bytes) {
        return -EIO;
    }
    return 0;
}

static int check_request(int64_t offset, int64_t bytes)
{
    return bytes > BDRV_REQUEST_MAX_BYTES ? -EINVAL : bdrv_check_range(offset, bytes);
}

int bdrv_check_writable(const BdrvChild *child)
{
    if (child->bs->inactive) {
        return -EPERM;
    }
    if (child->bs->read_only) {
        return -EACCES;
    }
    return child->perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED) ? 0 : -EPERM;
}

/* ---- memory ---- */

size_t bdrv_min_mem_align(BlockDriverState *bs)
{
    return MAX(bs->bl.min_mem_alignment, 1);
}

void *bdrv_try_blockalign(BlockDriverState *bs, size_t bytes)
{
    size_t align = MAX(bs->bl.opt_mem_alignment, 4096);
    void *mem;

    return posix_memalign(&mem, align, bytes ? bytes : 1) == 0 ? mem : NULL;
}

/* ---- reads ---- */

/* Aligned to the node; what lies beyond its end reads as zeroes. */
static int coroutine_fn read_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int64_t total = bdrv_getlength(bs), there;
    int ret;

    if (total < 0) {
        return total;
    }
    there = round_up_i64(MAX(total - offset, 0), bs->bl.request_alignment);
    if (bytes <= there) {
        return bdrv_driver_preadv(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    ret = there > 0 ? bdrv_driver_preadv(bs, offset, there, qiov, qiov_offset, flags) : 0;
    if (ret >= 0) {
        iovector_memset(qiov, qiov_offset + there, 0, bytes - there);
    }
    return ret;
}

static int coroutine_fn read_bounced(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    uint32_t align = bs->bl.request_alignment;
    int64_t start = round_down_i64(offset, align), end = round_up_i64(offset + bytes, align);
    int64_t size = MIN(end - start, MAX(BOUNCE_BYTES, align));
    uint8_t *bounce = bdrv_try_blockalign(bs, size);
    int ret = bounce ? 0 : -ENOMEM;

    while (ret >= 0 && bytes > 0) {
        int64_t head = offset - start, chunk = MIN(end - start, size), n = MIN(bytes, chunk - head);
        IOVector part;

        iovector_init_buf(&part, bounce, chunk);
        ret = read_aligned(bs, start, chunk, &part, 0, flags);
        if (ret >= 0) {
            iovector_from_buf(qiov, qiov_offset, bounce + head, n);
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
        start += chunk;
    }
    free(bounce);
    return ret;
}

static bool needs_bounce(BlockDriverState *bs, int64_t offset, int64_t bytes, const IOVector *qiov)
{
    size_t mem = bs->bl.min_mem_alignment;

    return ((offset | bytes) & (bs->bl.request_alignment - 1)) ||
           (mem > 1 && !iovector_is_aligned(qiov, mem));
}

int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;
    int ret = check_request(offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    bdrv_inc_in_flight(bs);
    bdrv_tracked_begin(&req, bs, offset, bytes, BDRV_TRACKED_READ);
    if (flags & BDRV_REQ_COPY_ON_READ) {
        ret = bdrv_co_copy_on_read(&req, offset, bytes, qiov, qiov_offset, flags);
    } else if (needs_bounce(bs, offset, bytes, qiov)) {
        ret = read_bounced(bs, offset, bytes, qiov, qiov_offset, flags);
    } else {
        ret = read_aligned(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    bdrv_tracked_end(&req);
    bdrv_dec_in_flight(bs);
    return ret;
}

/* ---- writes ---- */

void bdrv_parents_resized(BlockDriverState *bs)
{
    BdrvChild *c;

    BDRV_FOREACH_PARENT(bs, c) {
        if (c->klass->resized) {
            c->klass->resized(c);
        }
    }
}

void bdrv_note_write(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t end = offset + bytes, total = bdrv_getlength(bs);
    uint64_t highest = __atomic_load_n(&bs->wr_highest_offset, __ATOMIC_RELAXED);

    __atomic_fetch_add(&bs->write_gen, 1, __ATOMIC_SEQ_CST);
    while (highest < (uint64_t)end &&
           !__atomic_compare_exchange_n(&bs->wr_highest_offset, &highest, (uint64_t)end, true,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    bdrv_set_dirty(bs, offset, bytes);
    while (total >= 0 && total < end) {
        if (__atomic_compare_exchange_n(&bs->total_bytes, &total, end, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
            bdrv_dirty_bitmap_truncate(bs, end);
            bdrv_parents_resized(bs);
            break;
        }
    }
}

/* Whether the range is inside the node, or its holder may make it longer. */
static int check_end(const BdrvChild *child, int64_t offset, int64_t bytes)
{
    int64_t total = bdrv_getlength(child->bs);

    if (total < 0) {
        return total;
    }
    return offset + bytes <= total || (child->perm & BLK_PERM_RESIZE) ? 0 : -EIO;
}

static BdrvRequestFlags detect_zeroes(BlockDriverState *bs, int64_t bytes, const IOVector *qiov,
                                      size_t qiov_offset, BdrvRequestFlags flags)
{
    if (bs->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF ||
        (flags & (BDRV_REQ_ZERO_WRITE | BDRV_REQ_WRITE_COMPRESSED)) || !bs->drv->co_pwrite_zeroes ||
        !iovector_is_zero(qiov, qiov_offset, bytes)) {
        return flags;
    }
    flags |= BDRV_REQ_ZERO_WRITE;
    if (bs->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP) {
        flags |= BDRV_REQ_MAY_UNMAP;
    }
    return flags;
}

static int coroutine_fn write_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int ret;

    flags = detect_zeroes(bs, bytes, qiov, qiov_offset, flags);
    if (flags & BDRV_REQ_ZERO_WRITE) {
        ret = bdrv_driver_pwrite_zeroes(bs, offset, bytes,
                                        flags & ~(BdrvRequestFlags)BDRV_REQ_ZERO_WRITE);
    } else if (flags & BDRV_REQ_WRITE_COMPRESSED) {
        ret = bdrv_driver_pwritev_compressed(bs, offset, bytes, qiov, qiov_offset);
    } else {
        ret = bdrv_driver_pwritev(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    return ret;
}

/* The part of the chunk at @start that the request leaves as it is, before it and behind it. */
static int coroutine_fn read_surroundings(BlockDriverState *bs, uint8_t *bounce, int64_t start,
                                          int64_t chunk, int64_t head, int64_t n)
{
    uint32_t align = bs->bl.request_alignment;
    int64_t tail = round_down_i64(head + n, align);
    IOVector part;
    int ret;

    if (head || (n < chunk && tail == 0)) {
        iovector_init_buf(&part, bounce, align);
        ret = read_aligned(bs, start, align, &part, 0, 0);
        if (ret < 0) {
            return ret;
        }
    }
    if (head + n < chunk && tail > 0) {
        iovector_init_buf(&part, bounce + tail, align);
        return read_aligned(bs, start + tail, align, &part, 0, 0);
    }
    return 0;
}

/* @qiov NULL: zeroes. */
static int coroutine_fn write_bounced(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    uint32_t align = bs->bl.request_alignment;
    int64_t start = round_down_i64(offset, align), end = round_up_i64(offset + bytes, align);
    int64_t size = MIN(end - start, MAX(BOUNCE_BYTES, align));
    uint8_t *bounce = bdrv_try_blockalign(bs, size);
    int ret = bounce ? 0 : -ENOMEM;

    flags &= ~(BdrvRequestFlags)BDRV_REQ_ZERO_WRITE;
    while (ret >= 0 && bytes > 0) {
        int64_t head = offset - start, chunk = MIN(end - start, size), n = MIN(bytes, chunk - head);
        IOVector part;

        ret = read_surroundings(bs, bounce, start, chunk, head, n);
        if (ret < 0) {
            break;
        }
        if (qiov) {
            iovector_to_buf(qiov, qiov_offset, bounce + head, n);
        } else {
            memset(bounce + head, 0, n);
        }
        iovector_init_buf(&part, bounce, chunk);
        ret = write_aligned(bs, start, chunk, &part, 0, flags);
        offset += n;
        qiov_offset += n;
        bytes -= n;
        start += chunk;
    }
    free(bounce);
    return ret;
}

static int coroutine_fn write_tracked(BdrvTrackedRequest *req, IOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    BlockDriverState *bs = req->bs;

    if (flags & BDRV_REQ_SERIALISING) {
        bdrv_make_serialising(req, bs->bl.request_alignment);
        flags &= ~(BdrvRequestFlags)BDRV_REQ_SERIALISING;
    }
    if (!needs_bounce(bs, req->offset, req->bytes, qiov)) {
        return write_aligned(bs, req->offset, req->bytes, qiov, qiov_offset, flags);
    }
    if ((req->offset | req->bytes) & (bs->bl.request_alignment - 1)) {
        if (flags & BDRV_REQ_WRITE_COMPRESSED) {
            return -EINVAL;
        }
        bdrv_make_serialising(req, bs->bl.request_alignment);
    }
    return write_bounced(bs, req->offset, req->bytes, qiov, qiov_offset, flags);
}

int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;
    int ret = check_request(offset, bytes);

    if (ret == 0) {
        ret = bdrv_check_writable(child);
    }
    /* The end of compressed writing is an empty one. */
    if (ret < 0 || (bytes == 0 && !(flags & BDRV_REQ_WRITE_COMPRESSED))) {
        return ret;
    }
    ret = check_end(child, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    bdrv_inc_in_flight(bs);
    bdrv_tracked_begin(&req, bs, offset, bytes, BDRV_TRACKED_WRITE);
    ret = write_tracked(&req, qiov, qiov_offset, flags);
    if (ret >= 0) {
        bdrv_note_write(bs, offset, bytes);
        ret = 0;
    }
    bdrv_tracked_end(&req);
    bdrv_dec_in_flight(bs);
    return ret;
}

/* ---- zeroes ---- */

/* At most BDRV_REQUEST_MAX_BYTES; the aligned middle as zeroes, the edges by read-modify-write. */
static int coroutine_fn zero_range(BlockDriverState *bs, BdrvTrackedRequest *req,
                                   BdrvRequestFlags flags)
{
    uint32_t align = bs->bl.request_alignment;
    int64_t end = req->offset + req->bytes;
    int64_t middle = round_up_i64(req->offset, align), middle_end = round_down_i64(end, align);
    int ret = 0;

    if ((req->offset | req->bytes) & (align - 1)) {
        if (flags & BDRV_REQ_NO_FALLBACK) {
            return -ENOTSUP;
        }
        bdrv_make_serialising(req, align);
    }
    if (middle > middle_end) {
        return write_bounced(bs, req->offset, req->bytes, NULL, 0, flags);
    }
    if (req->offset < middle) {
        ret = write_bounced(bs, req->offset, middle - req->offset, NULL, 0, flags);
    }
    if (ret >= 0 && middle < middle_end) {
        ret = bdrv_driver_pwrite_zeroes(bs, middle, middle_end - middle, flags);
    }
    if (ret >= 0 && middle_end < end) {
        ret = write_bounced(bs, middle_end, end - middle_end, NULL, 0, flags);
    }
    return ret;
}

int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret = bdrv_check_range(offset, bytes);

    if (ret == 0) {
        ret = bdrv_check_writable(child);
    }
    if (ret == 0) {
        ret = check_end(child, offset, bytes);
    }
    while (ret == 0 && bytes > 0) {
        int64_t n = MIN(bytes, BDRV_REQUEST_MAX_BYTES);
        BdrvTrackedRequest req;

        bdrv_inc_in_flight(bs);
        bdrv_tracked_begin(&req, bs, offset, n, BDRV_TRACKED_WRITE);
        if (flags & BDRV_REQ_SERIALISING) {
            bdrv_make_serialising(&req, bs->bl.request_alignment);
        }
        ret = zero_range(bs, &req, flags & ~(BdrvRequestFlags)BDRV_REQ_SERIALISING);
        if (ret >= 0) {
            bdrv_note_write(bs, offset, n);
            ret = 0;
        }
        bdrv_tracked_end(&req);
        bdrv_dec_in_flight(bs);
        offset += n;
        bytes -= n;
    }
    return ret;
}

/* ---- with other arguments ---- */

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *qiov,
                                BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(child, offset, bytes, qiov, 0, flags);
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *qiov,
                                 BdrvRequestFlags flags)
{
    return bdrv_co_pwritev_part(child, offset, bytes, qiov, 0, flags);
}

int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               BdrvRequestFlags flags)
{
    IOVector qiov;

    iovector_init_buf(&qiov, buf, bytes);
    return bdrv_co_preadv_part(child, offset, bytes, &qiov, 0, flags);
}

int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                BdrvRequestFlags flags)
{
    IOVector qiov;

    iovector_init_buf(&qiov, (void *)buf, bytes);
    return bdrv_co_pwritev_part(child, offset, bytes, &qiov, 0, flags);
}
