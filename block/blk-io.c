/*
 * Requests of a BlockBackend.
 *
 * A request is counted first, waits while the root is drained, moves to the root's home context
 * when it must run there, and comes back. While it is counted, neither root nor home context
 * change.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/block-backend-internal.h"
#include "block/graph-internal.h"

void blk_inc_in_flight(BlockBackend *blk)
{
    __atomic_fetch_add(&blk->in_flight, 1, __ATOMIC_SEQ_CST);
}

void blk_dec_in_flight(BlockBackend *blk)
{
    __atomic_fetch_sub(&blk->in_flight, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

/* Does not count while it waits, or the drain would wait for it. */
static void coroutine_fn wait_while_drained(BlockBackend *blk)
{
    while (__atomic_load_n(&blk->quiesce_counter, __ATOMIC_SEQ_CST) &&
           !__atomic_load_n(&blk->disable_queuing, __ATOMIC_SEQ_CST)) {
        mutex_lock(&blk->queue_lock);
        if (!__atomic_load_n(&blk->quiesce_counter, __ATOMIC_SEQ_CST)) {
            mutex_unlock(&blk->queue_lock);
            break;
        }
        blk->queued = g_slist_append(blk->queued, coroutine_self());
        mutex_unlock(&blk->queue_lock);
        blk_dec_in_flight(blk);
        coroutine_yield();
        blk_inc_in_flight(blk);
    }
}

typedef struct BlkRequest {
    BlockBackend *blk;
    BlockDriverState *bs;
    AioContext *caller;         /* where to go back to; NULL: it did not move */
} BlkRequest;

/* 0, or -ENOMEDIUM; to be ended in both cases. */
static int coroutine_fn request_begin(BlkRequest *req, BlockBackend *blk)
{
    AioContext *here;

    req->blk = blk;
    req->caller = NULL;
    blk_inc_in_flight(blk);
    wait_while_drained(blk);
    req->bs = blk_bs(blk);
    if (!req->bs) {
        return -ENOMEDIUM;
    }
    if (!req->bs->thread_safe) {
        here = aio_co_context(coroutine_self());
        if (here != req->bs->aio_context) {
            req->caller = here;
            aio_co_reschedule_self(req->bs->aio_context);
        }
    }
    return 0;
}

static void coroutine_fn request_end(BlkRequest *req)
{
    if (req->caller) {
        aio_co_reschedule_self(req->caller);
    }
    blk_dec_in_flight(req->blk);
}

/* Inside the disk? Guests and clients get no more than they see. */
static int check_range(const BlkRequest *req, int64_t offset, int64_t bytes)
{
    int64_t total = bdrv_getlength(req->bs);

    if (total < 0) {
        return total;
    }
    return offset < 0 || bytes < 0 || offset > total || bytes > total - offset ? -EIO : 0;
}

static BdrvRequestFlags write_flags(const BlockBackend *blk, BdrvRequestFlags flags)
{
    return blk_enable_write_cache(blk) ? flags : flags | BDRV_REQ_FUA;
}

int coroutine_fn blk_co_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                    IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BlkRequest req;
    int ret = request_begin(&req, blk);

    if (ret == 0) {
        ret = check_range(&req, offset, bytes);
    }
    if (ret == 0) {
        ret = bdrv_co_preadv_part(blk->root, offset, bytes, qiov, qiov_offset, flags);
    }
    request_end(&req);
    return ret;
}

int coroutine_fn blk_co_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BlkRequest req;
    int ret = request_begin(&req, blk);

    if (ret == 0) {
        ret = check_range(&req, offset, bytes);
    }
    if (ret == 0) {
        ret = bdrv_co_pwritev_part(blk->root, offset, bytes, qiov, qiov_offset,
                                   write_flags(blk, flags));
    }
    request_end(&req);
    return ret;
}

int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags)
{
    BlkRequest req;
    int ret = request_begin(&req, blk);

    if (ret == 0) {
        ret = check_range(&req, offset, bytes);
    }
    if (ret == 0) {
        ret = bdrv_co_pwrite_zeroes(blk->root, offset, bytes, write_flags(blk, flags));
    }
    request_end(&req);
    return ret;
}

int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    BlkRequest req;
    int ret = request_begin(&req, blk);

    if (ret == 0) {
        ret = check_range(&req, offset, bytes);
    }
    if (ret == 0) {
        ret = bdrv_co_pdiscard(blk->root, offset, bytes);
    }
    request_end(&req);
    return ret;
}

int coroutine_fn blk_co_flush(BlockBackend *blk)
{
    BlkRequest req;
    int ret = request_begin(&req, blk);

    if (ret == 0) {
        ret = bdrv_co_flush(req.bs);
    }
    request_end(&req);
    return ret;
}

int64_t coroutine_fn blk_co_getlength(BlockBackend *blk)
{
    BlkRequest req;
    int64_t ret = request_begin(&req, blk);

    if (ret == 0) {
        ret = bdrv_co_getlength(req.bs);
    }
    request_end(&req);
    return ret;
}

int coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t offset, bool exact,
                                 PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BlkRequest req;
    int ret = request_begin(&req, blk);

    if (ret == 0) {
        ret = bdrv_co_truncate(blk->root, offset, exact, prealloc, flags, errp);
    } else {
        error_setg(errp, "There is no medium");
    }
    request_end(&req);
    return ret;
}

int coroutine_fn blk_co_block_status_above(BlockBackend *blk, BlockDriverState *base,
                                           int64_t offset, int64_t bytes, int64_t *pnum,
                                           int64_t *map, BlockDriverState **file, int *depth)
{
    BlkRequest req;
    int ret = request_begin(&req, blk);

    *pnum = 0;
    if (ret == 0) {
        ret = bdrv_co_block_status_above(req.bs, base, offset, bytes, pnum, map, file, depth);
    }
    request_end(&req);
    return ret;
}

/* ---- with other arguments ---- */

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *qiov,
                               BdrvRequestFlags flags)
{
    return blk_co_preadv_part(blk, offset, bytes, qiov, 0, flags);
}

int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *qiov,
                                BdrvRequestFlags flags)
{
    return blk_co_pwritev_part(blk, offset, bytes, qiov, 0, flags);
}

int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              BdrvRequestFlags flags)
{
    IOVector qiov;

    iovector_init_buf(&qiov, buf, MAX(bytes, 0));
    return blk_co_preadv_part(blk, offset, bytes, &qiov, 0, flags);
}

int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                               BdrvRequestFlags flags)
{
    IOVector qiov;

    iovector_init_buf(&qiov, (void *)buf, MAX(bytes, 0));
    return blk_co_pwritev_part(blk, offset, bytes, &qiov, 0, flags);
}

int coroutine_fn blk_co_pwrite_compressed(BlockBackend *blk, int64_t offset, int64_t bytes,
                                          const void *buf)
{
    return blk_co_pwrite(blk, offset, bytes, buf, BDRV_REQ_WRITE_COMPRESSED);
}

/* ---- from outside of coroutines ---- */

typedef struct BlkCall {
    BlockBackend *blk;
    int64_t offset, bytes;
    void *buf;
    BdrvRequestFlags flags;
    bool exact;
    PreallocMode prealloc;
    Error **errp;
    BlockDriverState *base;
    int64_t *pnum, *map;
    BlockDriverState **file;
    int *depth;
    int ret;
} BlkCall;

static int run_call(CoroutineEntry *entry, BlkCall *call)
{
    if (in_coroutine()) {
        entry(call);
    } else {
        aio_co_run(blk_get_aio_context(call->blk), entry, call);
    }
    return call->ret;
}

static void coroutine_fn pread_entry(void *opaque)
{
    BlkCall *c = opaque;

    c->ret = blk_co_pread(c->blk, c->offset, c->bytes, c->buf, c->flags);
}

static void coroutine_fn pwrite_entry(void *opaque)
{
    BlkCall *c = opaque;

    c->ret = blk_co_pwrite(c->blk, c->offset, c->bytes, c->buf, c->flags);
}

static void coroutine_fn pwrite_zeroes_entry(void *opaque)
{
    BlkCall *c = opaque;

    c->ret = blk_co_pwrite_zeroes(c->blk, c->offset, c->bytes, c->flags);
}

static void coroutine_fn pdiscard_entry(void *opaque)
{
    BlkCall *c = opaque;

    c->ret = blk_co_pdiscard(c->blk, c->offset, c->bytes);
}

static void coroutine_fn flush_entry(void *opaque)
{
    BlkCall *c = opaque;

    c->ret = blk_co_flush(c->blk);
}

static void coroutine_fn truncate_entry(void *opaque)
{
    BlkCall *c = opaque;

    c->ret = blk_co_truncate(c->blk, c->offset, c->exact, c->prealloc, c->flags, c->errp);
}

static void coroutine_fn status_entry(void *opaque)
{
    BlkCall *c = opaque;

    c->ret = blk_co_block_status_above(c->blk, c->base, c->offset, c->bytes, c->pnum, c->map,
                                       c->file, c->depth);
}

int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf, BdrvRequestFlags flags)
{
    BlkCall c = { .blk = blk, .offset = offset, .bytes = bytes, .buf = buf, .flags = flags };

    return run_call(pread_entry, &c);
}

int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
               BdrvRequestFlags flags)
{
    BlkCall c = {
        .blk = blk, .offset = offset, .bytes = bytes, .buf = (void *)buf, .flags = flags
    };

    return run_call(pwrite_entry, &c);
}

int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    BlkCall c = { .blk = blk, .offset = offset, .bytes = bytes, .flags = flags };

    return run_call(pwrite_zeroes_entry, &c);
}

int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    BlkCall c = { .blk = blk, .offset = offset, .bytes = bytes };

    return run_call(pdiscard_entry, &c);
}

int blk_flush(BlockBackend *blk)
{
    BlkCall c = { .blk = blk };

    return run_call(flush_entry, &c);
}

int blk_truncate(BlockBackend *blk, int64_t offset, bool exact, PreallocMode prealloc,
                 BdrvRequestFlags flags, Error **errp)
{
    BlkCall c = { .blk = blk,
                  .offset = offset,
                  .exact = exact,
                  .prealloc = prealloc,
                  .flags = flags,
                  .errp = errp };

    return run_call(truncate_entry, &c);
}

int blk_block_status_above(BlockBackend *blk, BlockDriverState *base, int64_t offset, int64_t bytes,
                           int64_t *pnum, int64_t *map, BlockDriverState **file, int *depth)
{
    BlkCall c = { .blk = blk,
                  .base = base,
                  .offset = offset,
                  .bytes = bytes,
                  .pnum = pnum,
                  .map = map,
                  .file = file,
                  .depth = depth };

    return run_call(status_entry, &c);
}

int64_t blk_getlength(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs ? bdrv_getlength(bs) : -ENOMEDIUM;
}

void blk_drain(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    if (bs) {
        bdrv_ref(bs);
        bdrv_drained_begin(bs);
    }
    AIO_WAIT_WHILE(__atomic_load_n(&blk->in_flight, __ATOMIC_SEQ_CST) > 0);
    if (bs) {
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    }
}
