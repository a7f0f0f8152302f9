/*
 * The driver `throttle`: a filter whose requests keep to the limits of a group
 * (block/throttle-groups.h).
 *
 * While the node is drained its requests go at once, as whoever drains waits for them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block/driver.h"
#include "block/drivers.h"
#include "block/throttle-groups.h"

typedef struct ThrottleNode {
    ThrottleMember *member;
} ThrottleNode;

static ThrottleGroup *find_group(const char *name, Error **errp)
{
    ThrottleGroup *group = throttle_group_by_name(name);

    if (!group) {
        error_setg(errp, "Throttle group '%s' does not exist", name);
    }
    return group;
}

static int throttle_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    const BlockdevOptionsThrottle *o = &opts->u.throttle;
    ThrottleNode *s = bs->opaque;
    ThrottleGroup *group = find_group(o->throttle_group, errp);
    BlockDriverState *file;

    if (!group ||
        bdrv_open_file_child(bs, o->file, BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, errp) < 0) {
        return -1;
    }
    file = bs->file->bs;
    s->member = throttle_group_join(group);
    bs->supported_write_flags =
        BDRV_REQ_WRITE_UNCHANGED | (BDRV_REQ_FUA & file->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
        ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) & file->supported_zero_flags);
    bs->supported_truncate_flags = file->supported_truncate_flags;
    bs->total_bytes = bdrv_getlength(file);
    return 0;
}

static void throttle_close(BlockDriverState *bs)
{
    ThrottleNode *s = bs->opaque;

    throttle_group_leave(s->member);
}

static void throttle_drain_begin(BlockDriverState *bs)
{
    ThrottleNode *s = bs->opaque;

    throttle_member_unlimit(s->member);
}

static void throttle_drain_end(BlockDriverState *bs)
{
    ThrottleNode *s = bs->opaque;

    throttle_member_limit(s->member);
}

/*
 * Opening anew: into another group, perhaps
 * -------------------------------------------------------------
 */

static int throttle_reopen_prepare(BdrvReopenState *state, Error **errp)
{
    ThrottleGroup *group = find_group(state->options->u.throttle.throttle_group, errp);

    state->opaque = group;
    return group ? 0 : -1;
}

static void throttle_reopen_commit(BdrvReopenState *state)
{
    ThrottleNode *s = state->bs->opaque;

    if (throttle_member_group(s->member) != state->opaque) {
        /* A drained node is unlimited, and stays it in the new group until the drain ends. */
        s->member = throttle_member_move(s->member, state->opaque);
    }
    state->opaque = NULL;
}

static void throttle_reopen_abort(BdrvReopenState *state)
{
    state->opaque = NULL;
}

/*
 * Requests
 * ------------------------------------------------------------------------------------------------
 */

static void coroutine_fn wait_turn(BlockDriverState *bs, ThrottleDirection dir, int64_t bytes)
{
    ThrottleNode *s = bs->opaque;

    throttle_member_co_wait(s->member, dir, bytes);
}

static int coroutine_fn throttle_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           IOVector *qiov, size_t qiov_offset,
                                           BdrvRequestFlags flags)
{
    wait_turn(bs, THROTTLE_READ, bytes);
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn throttle_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *qiov, size_t qiov_offset,
                                            BdrvRequestFlags flags)
{
    wait_turn(bs, THROTTLE_WRITE, bytes);
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn throttle_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, BdrvRequestFlags flags)
{
    wait_turn(bs, THROTTLE_WRITE, bytes);
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn throttle_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    wait_turn(bs, THROTTLE_WRITE, bytes);
    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

static int coroutine_fn throttle_co_pwritev_compressed(BlockDriverState *bs, int64_t offset,
                                                       int64_t bytes, IOVector *qiov,
                                                       size_t qiov_offset)
{
    IOVector part;
    int ret;

    wait_turn(bs, THROTTLE_WRITE, bytes);
    iovector_init_slice(&part, qiov, qiov_offset, bytes);
    ret = bdrv_co_pwritev(bs->file, offset, bytes, &part, BDRV_REQ_WRITE_COMPRESSED);
    iovector_destroy(&part);
    return ret;
}

const BlockDriver bdrv_throttle = {
    .format_name = "throttle",
    .driver = BLOCKDEV_DRIVER_THROTTLE,
    .instance_size = sizeof(ThrottleNode),
    .is_filter = true,
    .thread_safe = true,
    .open = throttle_open,
    .close = throttle_close,
    .drain_begin = throttle_drain_begin,
    .drain_end = throttle_drain_end,
    .reopen_prepare = throttle_reopen_prepare,
    .reopen_commit = throttle_reopen_commit,
    .reopen_abort = throttle_reopen_abort,
    .co_preadv = throttle_co_preadv,
    .co_pwritev = throttle_co_pwritev,
    .co_pwrite_zeroes = throttle_co_pwrite_zeroes,
    .co_pdiscard = throttle_co_pdiscard,
    .co_pwritev_compressed = throttle_co_pwritev_compressed,
};
