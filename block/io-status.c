/*
 * Where the content of a range comes from, and what is known of it without reading it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/io-internal.h"

typedef struct Extent {
    int64_t pnum, map;
    BlockDriverState *file;
} Extent;

/* The driver's answer for a range of any alignment, cut to what was asked. */
static int coroutine_fn ask_driver(BlockDriverState *bs, bool want_zero, int64_t offset,
                                   int64_t bytes, Extent *e)
{
    uint32_t align = bs->bl.request_alignment;
    int64_t start = round_down_i64(offset, align), end = round_up_i64(offset + bytes, align);
    int ret =
        bs->drv->co_block_status(bs, want_zero, start, end - start, &e->pnum, &e->map, &e->file);

    if (ret < 0) {
        return ret;
    }
    g_assert(e->pnum > 0);
    e->pnum = MIN(e->pnum - (offset - start), bytes);
    if (ret & (BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RAW)) {
        e->map += offset - start;
    }
    /* A driver that answers for less than one unit has an end in the middle of it. */
    if (e->pnum <= 0) {
        e->pnum = MIN(bytes, start + align - offset);
    }
    return ret;
}

static int coroutine_fn status_without_driver(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              Extent *e)
{
    BlockDriverState *below = bs->drv->is_filter ? bdrv_primary_bs(bs) : NULL;

    if (below) {
        return bdrv_co_block_status(below, offset, bytes, &e->pnum, &e->map, &e->file);
    }
    e->pnum = bytes;
    if (bs->file) {
        return BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
    }
    e->map = offset;
    e->file = bs;
    return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ALLOCATED;
}

/* What the file below knows of zeroes that the format does not. */
static int coroutine_fn ask_below_for_zeroes(BlockDriverState *bs, int ret, Extent *e)
{
    int64_t n;
    int below;

    if (!(ret & BDRV_BLOCK_RECURSE) || !(ret & BDRV_BLOCK_DATA) || (ret & BDRV_BLOCK_ZERO) ||
        !(ret & BDRV_BLOCK_OFFSET_VALID) || !e->file || e->file == bs) {
        return ret;
    }
    below = bdrv_co_block_status(e->file, e->map, e->pnum, &n, NULL, NULL);
    if (below < 0 || n == 0) {
        /* Beyond the end of the file nothing was written yet. */
        return below >= 0 ? ret | BDRV_BLOCK_ZERO : ret;
    }
    e->pnum = MIN(e->pnum, n);
    return below & BDRV_BLOCK_ZERO ? ret | BDRV_BLOCK_ZERO : ret;
}

static int coroutine_fn status_inside(BlockDriverState *bs, bool want_zero, int64_t offset,
                                      int64_t bytes, Extent *e)
{
    BlockDriverState *file;
    int64_t map, n;
    int ret;

    if (!bs->drv->co_block_status) {
        return status_without_driver(bs, offset, bytes, e);
    }
    ret = ask_driver(bs, want_zero, offset, bytes, e);
    if (ret < 0) {
        return ret;
    }
    if (ret & BDRV_BLOCK_RAW) {
        file = e->file;
        map = e->map;
        n = e->pnum;
        ret = bdrv_co_block_status(file, map, n, &e->pnum, &e->map, &e->file);
        if (ret >= 0 && e->pnum == 0) {
            e->pnum = n;
            ret = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
        }
        return ret;
    }
    if (ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        ret |= BDRV_BLOCK_ALLOCATED;
    } else if (!(ret & BDRV_BLOCK_ALLOCATED) && bs->drv->supports_backing) {
        BlockDriverState *backing = bs->backing ? bs->backing->bs : NULL;

        if (!backing || bdrv_getlength(backing) <= offset) {
            ret |= BDRV_BLOCK_ZERO;
        }
    }
    return want_zero ? ask_below_for_zeroes(bs, ret, e) : ret;
}

static int coroutine_fn status_of_node(BlockDriverState *bs, bool want_zero, int64_t offset,
                                       int64_t bytes, Extent *e)
{
    int64_t total = bdrv_getlength(bs);
    int ret;

    *e = (Extent) { 0 };
    if (total < 0) {
        return total;
    }
    if (offset < 0 || bytes < 0) {
        return -EINVAL;
    }
    if (offset >= total) {
        return BDRV_BLOCK_EOF;
    }
    bytes = MIN(bytes, total - offset);
    if (bytes == 0) {
        return 0;
    }
    bdrv_inc_in_flight(bs);
    ret = status_inside(bs, want_zero, offset, bytes, e);
    bdrv_dec_in_flight(bs);
    if (ret < 0) {
        return ret;
    }
    ret &= ~(BDRV_BLOCK_EOF | BDRV_BLOCK_RECURSE | BDRV_BLOCK_RAW);
    return offset + e->pnum == total ? ret | BDRV_BLOCK_EOF : ret;
}

static int give(int ret, const Extent *e, int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    *pnum = e->pnum;
    if (map) {
        *map = e->map;
    }
    if (file) {
        *file = e->file;
    }
    return ret;
}

int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    Extent e;
    int ret = status_of_node(bs, true, offset, bytes, &e);

    return give(ret, &e, pnum, map, file);
}

static int coroutine_fn status_above(BlockDriverState *bs, BlockDriverState *base, bool want_zero,
                                     int64_t offset, int64_t bytes, Extent *e, int *depth)
{
    int ret = status_of_node(bs, want_zero, offset, bytes, e);
    int64_t total = bdrv_getlength(bs);
    BlockDriverState *p = bs;

    *depth = 1;
    while (ret >= 0 && e->pnum > 0 && !(ret & BDRV_BLOCK_ALLOCATED)) {
        int64_t n = e->pnum;
        BlockDriverState *below = bdrv_filter_or_cow_bs(p);

        if (!below || below == base) {
            *depth = 0;
            break;
        }
        /* A filter's answer is that of its child already. */
        *depth += !p->drv->is_filter;
        p = below;
        ret = status_of_node(p, want_zero, offset, n, e);
        if (ret >= 0 && e->pnum == 0) {
            /* The backing file is shorter: what is above it there is zero, and comes from here. */
            *e = (Extent) { .pnum = n };
            ret = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
        }
    }
    if (ret >= 0) {
        ret &= ~BDRV_BLOCK_EOF;
        if (offset + e->pnum >= total) {
            ret |= BDRV_BLOCK_EOF;
        }
    }
    return ret;
}

int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                                            int64_t offset, int64_t bytes, int64_t *pnum,
                                            int64_t *map, BlockDriverState **file, int *depth)
{
    Extent e;
    int d, ret = status_above(bs, base, true, offset, bytes, &e, &d);

    if (depth) {
        *depth = d;
    }
    return give(ret, &e, pnum, map, file);
}

int coroutine_fn bdrv_co_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum)
{
    Extent e;
    int ret = status_of_node(bs, false, offset, bytes, &e);

    *pnum = e.pnum;
    return ret < 0 ? ret : !!(ret & BDRV_BLOCK_ALLOCATED);
}

int coroutine_fn bdrv_co_is_zero_fast(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    while (bytes > 0) {
        Extent e;
        int depth, ret = status_above(bs, NULL, true, offset, bytes, &e, &depth);

        if (ret < 0) {
            return ret;
        }
        if (e.pnum == 0 || !(ret & BDRV_BLOCK_ZERO)) {
            return e.pnum == 0;
        }
        offset += e.pnum;
        bytes -= e.pnum;
    }
    return 1;
}
