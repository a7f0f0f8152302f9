/*
 * Draining: from the node upwards every holder is told to hold its requests back; then the calling
 * thread turns its loop until none is under way. Requests below a drained node come from above it,
 * so they end too.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/block-backend.h"
#include "block/graph-internal.h"

static unsigned drain_all_count;

unsigned bdrv_drain_all_count(void)
{
    return drain_all_count;
}

void bdrv_inc_in_flight(BlockDriverState *bs)
{
    __atomic_fetch_add(&bs->in_flight, 1, __ATOMIC_SEQ_CST);
}

void bdrv_dec_in_flight(BlockDriverState *bs)
{
    __atomic_fetch_sub(&bs->in_flight, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

void bdrv_edge_quiesce(BdrvChild *child, int n)
{
    for (; n > 0; n--) {
        child->klass->drained_begin(child);
    }
    for (; n < 0; n++) {
        child->klass->drained_end(child);
    }
}

void bdrv_quiesce(BlockDriverState *bs)
{
    BdrvChild *c;

    bs->quiesce_counter++;
    BDRV_FOREACH_PARENT(bs, c) {
        c->klass->drained_begin(c);
    }
    if (bs->quiesce_counter == 1 && bs->opened && bs->drv->drain_begin) {
        bs->drv->drain_begin(bs);
    }
}

void bdrv_unquiesce(BlockDriverState *bs)
{
    BdrvChild *c;

    g_assert(bs->quiesce_counter > 0);
    if (bs->quiesce_counter == 1 && bs->opened && bs->drv->drain_end) {
        bs->drv->drain_end(bs);
    }
    bs->quiesce_counter--;
    BDRV_FOREACH_PARENT(bs, c) {
        c->klass->drained_end(c);
    }
}

bool bdrv_drain_pending(BlockDriverState *bs)
{
    BdrvChild *c;

    BDRV_FOREACH_PARENT(bs, c) {
        if (c->klass->drained_poll(c)) {
            return true;
        }
    }
    return __atomic_load_n(&bs->in_flight, __ATOMIC_SEQ_CST) > 0;
}

void bdrv_drained_begin(BlockDriverState *bs)
{
    g_assert(!in_coroutine());
    bdrv_quiesce(bs);
    AIO_WAIT_WHILE(bdrv_drain_pending(bs));
}

void bdrv_drained_end(BlockDriverState *bs)
{
    bdrv_unquiesce(bs);
}

void bdrv_drain(BlockDriverState *bs)
{
    bdrv_drained_begin(bs);
    bdrv_drained_end(bs);
}

static bool any_pending(void)
{
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (bdrv_drain_pending(bs)) {
            return true;
        }
    }
    return false;
}

void bdrv_drain_all_begin(void)
{
    g_assert(!in_coroutine());
    drain_all_count++;
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        bdrv_quiesce(bs);
    }
    AIO_WAIT_WHILE(any_pending());
}

void bdrv_drain_all_end(void)
{
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        bdrv_unquiesce(bs);
    }
    drain_all_count--;
}

void bdrv_drain_all(void)
{
    bdrv_drain_all_begin();
    bdrv_drain_all_end();
}
