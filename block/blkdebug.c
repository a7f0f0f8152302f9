/*
 * The driver `blkdebug`: a filter that fails the requests it is told to fail, and insists on
 * limits.
 *
 * For tests of everything above it. Each rule of inject-error counts the requests that match it; a
 * request that a rule strikes does not reach the child. The limits are reported as the node's own,
 * and a request that does not keep to them is a bug of the layer above.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>

#include "block/driver.h"
#include "block/drivers.h"

#define ERRNO_MAX 4095

typedef struct Rule {
    bool any_type;              /* all kinds but block-status */
    BlkdebugIOType type;
    int64_t sector;             /* -1: any */
    uint64_t nth;               /* 0: from the first on */
    int error;                  /* positive errno */
    bool once, immediately;
    uint64_t matches, strikes;
} Rule;

typedef struct BlkdebugState {
    GArray *rules;              /* of Rule; the node's home context */
    uint64_t align, max_transfer, max_write_zero, opt_write_zero, max_discard, opt_discard;
} BlkdebugState;

/*
 * Opening
 * ------------------------------------------------------------------------------------------------
 */

static int add_rule(BlkdebugState *s, const BlkdebugInjectErrorOptions *o, Error **errp)
{
    Rule rule = {
        .any_type = !o->has_iotype, .type = o->iotype, .nth = o->has_nth ? o->nth : 0,
        .sector = o->has_sector ? o->sector : -1, .once = o->has_once && o->once,
        .immediately = o->has_immediately && o->immediately,
    };
    int64_t error = o->has_errno ? o->q_errno : EIO;

    if (error < 1 || error > ERRNO_MAX) {
        error_setg(errp, "inject-error: errno %" PRId64 " is not between 1 and %d", error,
                   ERRNO_MAX);
        return -1;
    }
    if (rule.sector < -1 || rule.sector > BDRV_MAX_LENGTH / BDRV_SECTOR_BYTES) {
        error_setg(errp, "inject-error: sector %" PRId64 " is on no disk", rule.sector);
        return -1;
    }
    if (o->has_nth && o->nth == 0) {
        error_setg(errp, "inject-error: nth counts from 1");
        return -1;
    }
    rule.error = error;
    g_array_append_val(s->rules, rule);
    return 0;
}

static int check_alignment(const char *name, uint64_t value, Error **errp)
{
    if (value > BDRV_MAX_ALIGNMENT || (value & (value - 1))) {
        error_setg(errp, "%s (%" PRIu64 ") must be a power of two of at most %d", name, value,
                   BDRV_MAX_ALIGNMENT);
        return -1;
    }
    return 0;
}

static int check_maximum(const char *name, uint64_t value, uint64_t align, Error **errp)
{
    if (value > INT_MAX || value % align) {
        error_setg(errp, "%s (%" PRIu64 ") must be a multiple of %" PRIu64 " and less than 2 GiB",
                   name, value, align);
        return -1;
    }
    return 0;
}

static int set_limits(BlkdebugState *s, const BlockdevOptionsBlkdebug *o, uint32_t child_align,
                      Error **errp)
{
    uint64_t align;

    s->align = o->align;
    s->max_transfer = o->max_transfer;
    s->max_write_zero = o->max_write_zero;
    s->opt_write_zero = o->opt_write_zero;
    s->max_discard = o->max_discard;
    s->opt_discard = o->opt_discard;
    if (check_alignment("align", s->align, errp) < 0 ||
        check_alignment("opt-write-zero", s->opt_write_zero, errp) < 0 ||
        check_alignment("opt-discard", s->opt_discard, errp) < 0) {
        return -1;
    }
    align = MAX(s->align, child_align);
    return check_maximum("max-transfer", s->max_transfer, align, errp) < 0 ||
                   check_maximum("max-write-zero", s->max_write_zero, MAX(align, s->opt_write_zero),
                                 errp) < 0 ||
                   check_maximum("max-discard", s->max_discard, MAX(align, s->opt_discard), errp) <
                       0
               ? -1
               : 0;
}

static int blkdebug_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    const BlockdevOptionsBlkdebug *o = &opts->u.blkdebug;
    BlkdebugState *s = bs->opaque;
    BlockDriverState *image;

    bs->file =
        bdrv_open_child(bs, "image", o->image, BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, errp);
    if (!bs->file) {
        return -1;
    }
    image = bs->file->bs;
    if (set_limits(s, o, image->bl.request_alignment, errp) < 0) {
        return -1;
    }
    s->rules = g_array_new(FALSE, FALSE, sizeof(Rule));
    for (BlkdebugInjectErrorOptionsList *l = o->inject_error; l; l = l->next) {
        if (add_rule(s, l->value, errp) < 0) {
            g_array_free(s->rules, TRUE);
            return -1;
        }
    }
    bs->supported_write_flags =
        BDRV_REQ_WRITE_UNCHANGED | (BDRV_REQ_FUA & image->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
        ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) & image->supported_zero_flags);
    bs->supported_truncate_flags = image->supported_truncate_flags;
    bs->total_bytes = bdrv_getlength(image);
    return 0;
}

static void blkdebug_close(BlockDriverState *bs)
{
    BlkdebugState *s = bs->opaque;

    g_array_free(s->rules, TRUE);
}

static void blkdebug_refresh_limits(BlockDriverState *bs)
{
    BlkdebugState *s = bs->opaque;
    BlockLimits *bl = &bs->bl;

    bl->request_alignment = MAX(bl->request_alignment, s->align);
    if (s->max_transfer) {
        bl->max_transfer =
            bl->max_transfer ? MIN(bl->max_transfer, s->max_transfer) : s->max_transfer;
    }
    if (s->opt_write_zero) {
        bl->pwrite_zeroes_alignment = s->opt_write_zero;
    }
    if (s->max_write_zero) {
        bl->max_pwrite_zeroes = s->max_write_zero;
    }
    if (s->opt_discard) {
        bl->pdiscard_alignment = s->opt_discard;
    }
    if (s->max_discard) {
        bl->max_pdiscard = s->max_discard;
    }
}

/*
 * Rules
 * -------------------------------------------------------------------------------------------------
 */

static bool rule_matches(const Rule *rule, BlkdebugIOType type, int64_t offset, int64_t bytes)
{
    int64_t byte = rule->sector * BDRV_SECTOR_BYTES;

    if (rule->any_type ? type == BLKDEBUG_IO_TYPE_BLOCK_STATUS : type != rule->type) {
        return false;
    }
    if (rule->sector < 0) {
        return true;
    }
    return offset < byte + BDRV_SECTOR_BYTES && byte < offset + bytes;
}

static bool rule_strikes(Rule *rule, BlkdebugIOType type, int64_t offset, int64_t bytes)
{
    if (!rule_matches(rule, type, offset, bytes)) {
        return false;
    }
    rule->matches++;
    if ((rule->nth && rule->matches != rule->nth) || (rule->once && rule->strikes > 0)) {
        return false;
    }
    rule->strikes++;
    return true;
}

/* 0, or the error that this request gets. All rules count it; the first that strikes decides. */
static int coroutine_fn inject(BlockDriverState *bs, BlkdebugIOType type, int64_t offset,
                               int64_t bytes)
{
    BlkdebugState *s = bs->opaque;
    bool immediately = true;
    int error = 0;

    for (guint i = 0; i < s->rules->len; i++) {
        Rule *rule = &g_array_index(s->rules, Rule, i);

        if (rule_strikes(rule, type, offset, bytes) && error == 0) {
            error = -rule->error;
            immediately = rule->immediately;
        }
    }
    if (!immediately) {
        aio_co_schedule(aio_current(), coroutine_self());
        coroutine_yield();
    }
    return error;
}

/*
 * Requests
 * -----------------------------------------------------------------------------------------------
 */

static void assert_valid(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    g_assert(offset % bs->bl.request_alignment == 0 && bytes % bs->bl.request_alignment == 0);
    g_assert(bytes > 0 && (bs->bl.max_transfer == 0 || bytes <= bs->bl.max_transfer));
}

static int coroutine_fn blkdebug_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           IOVector *qiov, size_t qiov_offset,
                                           BdrvRequestFlags flags)
{
    int ret;

    assert_valid(bs, offset, bytes);
    ret = inject(bs, BLKDEBUG_IO_TYPE_READ, offset, bytes);
    return ret < 0 ? ret : bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn blkdebug_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *qiov, size_t qiov_offset,
                                            BdrvRequestFlags flags)
{
    int ret;

    assert_valid(bs, offset, bytes);
    ret = inject(bs, BLKDEBUG_IO_TYPE_WRITE, offset, bytes);
    return ret < 0 ? ret : bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn blkdebug_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, BdrvRequestFlags flags)
{
    uint32_t align = MAX(bs->bl.pwrite_zeroes_alignment, bs->bl.request_alignment);
    int ret;

    /* A part of a unit: such a device cannot do that, and the layer has to write zeroes. */
    if (offset % align || bytes % align) {
        return -ENOTSUP;
    }
    g_assert(bs->bl.max_pwrite_zeroes == 0 || bytes <= bs->bl.max_pwrite_zeroes);
    ret = inject(bs, BLKDEBUG_IO_TYPE_WRITE_ZEROES, offset, bytes);
    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn blkdebug_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    uint32_t align = MAX(bs->bl.pdiscard_alignment, bs->bl.request_alignment);
    int ret;

    if (offset % align || bytes % align) {
        return -ENOTSUP;
    }
    g_assert(bs->bl.max_pdiscard == 0 || bytes <= bs->bl.max_pdiscard);
    ret = inject(bs, BLKDEBUG_IO_TYPE_DISCARD, offset, bytes);
    return ret < 0 ? ret : bdrv_co_pdiscard(bs->file, offset, bytes);
}

/* The layer flushes the child afterwards. */
static int coroutine_fn blkdebug_co_flush(BlockDriverState *bs)
{
    return inject(bs, BLKDEBUG_IO_TYPE_FLUSH, 0, 0);
}

static int coroutine_fn blkdebug_co_block_status(BlockDriverState *bs, bool want_zero,
                                                 int64_t offset, int64_t bytes, int64_t *pnum,
                                                 int64_t *map, BlockDriverState **file)
{
    int ret = inject(bs, BLKDEBUG_IO_TYPE_BLOCK_STATUS, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    *pnum = bytes;
    *map = offset;
    *file = bs->file->bs;
    return BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RAW;
}

const BlockDriver bdrv_blkdebug = {
    .format_name = "blkdebug",
    .driver = BLOCKDEV_DRIVER_BLKDEBUG,
    .instance_size = sizeof(BlkdebugState),
    .is_filter = true,
    .open = blkdebug_open,
    .close = blkdebug_close,
    .refresh_limits = blkdebug_refresh_limits,
    .co_preadv = blkdebug_co_preadv,
    .co_pwritev = blkdebug_co_pwritev,
    .co_pwrite_zeroes = blkdebug_co_pwrite_zeroes,
    .co_pdiscard = blkdebug_co_pdiscard,
    .co_flush_to_disk = blkdebug_co_flush,
    .co_block_status = blkdebug_co_block_status,
};
