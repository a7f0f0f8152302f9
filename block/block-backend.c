/*
 * BlockBackend: life, root, names, the device that holds it, its policy for errors. Requests are in
 * blk-io.c.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block/block-backend-internal.h"
#include "block/graph-internal.h"
#include "util/cutils.h"

static GQueue all_backends = G_QUEUE_INIT;

/* ---- what the edge tells ---- */

BlockBackend *blk_of_edge(const BdrvChild *child)
{
    return child->opaque;
}

static char *root_describe(const BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    if (blk->ops && blk->ops->describe) {
        return blk->ops->describe(blk->ops_opaque);
    }
    if (blk->dev) {
        return g_strdup_printf("device '%s'", blk_get_attached_dev_id(blk));
    }
    return blk->name ? g_strdup_printf("block device '%s'", blk->name) : g_strdup("a block device");
}

static void root_drained_begin(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;
    bool first = __atomic_fetch_add(&blk->quiesce_counter, 1, __ATOMIC_SEQ_CST) == 0;

    if (first && blk->ops && blk->ops->drained_begin) {
        blk->ops->drained_begin(blk->ops_opaque);
    }
}

static void wake_queued(BlockBackend *blk)
{
    GSList *queued;

    mutex_lock(&blk->queue_lock);
    queued = g_steal_pointer(&blk->queued);
    mutex_unlock(&blk->queue_lock);
    for (GSList *l = queued; l; l = l->next) {
        aio_co_wake(l->data);
    }
    g_slist_free(queued);
}

static void root_drained_end(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    g_assert(blk->quiesce_counter > 0);
    mutex_lock(&blk->queue_lock);
    __atomic_fetch_sub(&blk->quiesce_counter, 1, __ATOMIC_SEQ_CST);
    mutex_unlock(&blk->queue_lock);
    if (blk->quiesce_counter == 0) {
        if (blk->ops && blk->ops->drained_end) {
            blk->ops->drained_end(blk->ops_opaque);
        }
        wake_queued(blk);
    }
}

static bool root_drained_poll(const BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    return __atomic_load_n(&blk->in_flight, __ATOMIC_SEQ_CST) > 0 ||
           (blk->ops && blk->ops->drained_poll && blk->ops->drained_poll(blk->ops_opaque));
}

static void root_resized(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    if (blk->ops && blk->ops->resized) {
        blk->ops->resized(blk->ops_opaque);
    }
}

static bool root_may_change_context(BdrvChild *child, AioContext *ctx, Error **errp)
{
    BlockBackend *blk = child->opaque;

    if (!blk->allow_context_change) {
        g_autofree char *who = root_describe(child);

        error_setg(errp, "%s does not allow it", who);
        return false;
    }
    return true;
}

static void root_context_changed(BdrvChild *child, AioContext *ctx)
{
    BlockBackend *blk = child->opaque;

    if (blk->ops && blk->ops->context_changed) {
        blk->ops->context_changed(blk->ops_opaque, ctx);
    }
}

static const BdrvChildClass child_of_backend = {
    .describe_parent = root_describe,
    .drained_begin = root_drained_begin,
    .drained_end = root_drained_end,
    .drained_poll = root_drained_poll,
    .resized = root_resized,
    .may_change_aio_context = root_may_change_context,
    .aio_context_changed = root_context_changed,
};

/* ---- life ---- */

BlockBackend *blk_new(uint64_t perm, uint64_t shared_perm)
{
    BlockBackend *blk = g_new0(BlockBackend, 1);

    blk->refcnt = 1;
    blk->perm = perm;
    blk->shared_perm = shared_perm;
    blk->allow_context_change = true;
    blk->write_cache = true;
    blk->on_read_error = BLOCKDEV_ON_ERROR_REPORT;
    blk->on_write_error = BLOCKDEV_ON_ERROR_ENOSPC;
    mutex_init(&blk->queue_lock);
    blk->in_all.data = blk;
    g_queue_push_tail_link(&all_backends, &blk->in_all);
    return blk;
}

BlockBackend *blk_new_with_bs(BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                              Error **errp)
{
    BlockBackend *blk = blk_new(perm, shared_perm);

    if (blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

BlockBackend *blk_new_open(const BlockdevOptions *opts, Error **errp)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ, shared = BLK_PERM_ALL;
    BlockDriverState *bs = bdrv_open(opts, errp);
    BlockBackend *blk;

    if (!bs) {
        return NULL;
    }
    if (!bs->read_only) {
        perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
    if (!bs->force_share) {
        shared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    }
    blk = blk_new_with_bs(bs, perm, shared, errp);
    bdrv_unref(bs);
    return blk;
}

void blk_ref(BlockBackend *blk)
{
    blk->refcnt++;
}

void blk_unref(BlockBackend *blk)
{
    if (!blk || --blk->refcnt > 0) {
        return;
    }
    g_assert(!blk->dev && !blk->name);
    if (blk->root) {
        blk->refcnt++;          /* callbacks of the drain may look at it */
        blk_remove_bs(blk);
        blk->refcnt--;
    }
    blk_drain(blk);
    g_assert(!blk->queued);
    g_queue_unlink(&all_backends, &blk->in_all);
    mutex_destroy(&blk->queue_lock);
    g_free(blk->dev_id);
    g_free(blk->dev_path);
    g_free(blk);
}

static void effective_perms(const BlockBackend *blk, uint64_t *perm, uint64_t *shared)
{
    *perm = blk->disable_perm ? 0 : blk->perm;
    *shared = blk->disable_perm ? BLK_PERM_ALL : blk->shared_perm;
}

int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    uint64_t perm, shared;

    g_assert(!blk->root);
    effective_perms(blk, &perm, &shared);
    blk->root = bdrv_root_attach_child(bs, "root", &child_of_backend, perm, shared, blk, errp);
    return blk->root ? 0 : -1;
}

void blk_remove_bs(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    BdrvChild *root = blk->root;

    if (!root) {
        return;
    }
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    blk->root = NULL;
    bdrv_root_detach_child(root);
    bdrv_drained_end(bs);
    bdrv_unref(bs);
}

BlockDriverState *blk_bs(const BlockBackend *blk)
{
    return blk->root ? blk->root->bs : NULL;
}

BdrvChild *blk_root(const BlockBackend *blk)
{
    return blk->root;
}

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque)
{
    blk->ops = ops;
    blk->ops_opaque = opaque;
    if (ops && ops->drained_begin && blk->quiesce_counter) {
        ops->drained_begin(opaque);
    }
}

/* ---- permissions ---- */

static int apply_perms(BlockBackend *blk, Error **errp)
{
    uint64_t perm, shared;

    effective_perms(blk, &perm, &shared);
    return blk->root ? bdrv_child_try_set_perm(blk->root, perm, shared, errp) : 0;
}

int blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm, Error **errp)
{
    uint64_t old_perm = blk->perm, old_shared = blk->shared_perm;

    blk->perm = perm;
    blk->shared_perm = shared_perm;
    if (apply_perms(blk, errp) < 0) {
        blk->perm = old_perm;
        blk->shared_perm = old_shared;
        return -1;
    }
    return 0;
}

void blk_get_perm(const BlockBackend *blk, uint64_t *perm, uint64_t *shared_perm)
{
    *perm = blk->perm;
    *shared_perm = blk->shared_perm;
}

void blk_set_disable_perm(BlockBackend *blk, bool disable)
{
    blk->disable_perm = disable;
}

void blk_set_disable_request_queuing(BlockBackend *blk, bool disable)
{
    __atomic_store_n(&blk->disable_queuing, disable, __ATOMIC_SEQ_CST);
}

/* ---- home context ---- */

void blk_set_allow_aio_context_change(BlockBackend *blk, bool allow)
{
    blk->allow_context_change = allow;
}

int blk_set_aio_context(BlockBackend *blk, AioContext *ctx, Error **errp)
{
    bool allowed = blk->allow_context_change;
    int ret;

    if (!blk->root) {
        return 0;
    }
    blk->allow_context_change = true;
    ret = bdrv_try_change_aio_context(blk_bs(blk), ctx, errp);
    blk->allow_context_change = allowed;
    return ret;
}

AioContext *blk_get_aio_context(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs ? bdrv_get_aio_context(bs) : aio_context_main();
}

/* ---- names ---- */

BlockBackend *blk_by_name(const char *name)
{
    for (GList *l = all_backends.head; l; l = l->next) {
        BlockBackend *blk = l->data;

        if (blk->name && !strcmp(blk->name, name)) {
            return blk;
        }
    }
    return NULL;
}

bool monitor_add_blk(BlockBackend *blk, const char *name, Error **errp)
{
    g_assert(!blk->name && name);
    if (!id_wellformed(name)) {
        error_setg(errp, "Invalid device name '%s'", name);
    } else if (blk_by_name(name)) {
        error_setg(errp, "Device with id '%s' already exists", name);
    } else if (bdrv_find_node(name)) {
        error_setg(errp, "Device name '%s' conflicts with an existing node name", name);
    } else {
        blk_ref(blk);
        blk->name = g_strdup(name);
        return true;
    }
    return false;
}

void monitor_remove_blk(BlockBackend *blk)
{
    if (blk->name) {
        g_clear_pointer(&blk->name, g_free);
        blk_unref(blk);
    }
}

const char *blk_name(const BlockBackend *blk)
{
    return blk->name ? blk->name : "";
}

BlockBackend *blk_all_next(BlockBackend *after)
{
    GList *link = after ? after->in_all.next : all_backends.head;

    return link ? link->data : NULL;
}

BlockBackend *blk_next(BlockBackend *after)
{
    BlockBackend *blk = after;

    do {
        blk = blk_all_next(blk);
    } while (blk && !blk->name);
    return blk;
}

/* ---- the device ---- */

int blk_attach_dev(BlockBackend *blk, const char *id, const char *path, const BlockDevOps *ops,
                   void *dev)
{
    if (blk->dev) {
        return -EBUSY;
    }
    blk_ref(blk);
    blk->dev = dev;
    blk->dev_id = g_strdup(id);
    blk->dev_path = g_strdup(path);
    blk_set_dev_ops(blk, ops, dev);
    return 0;
}

void blk_detach_dev(BlockBackend *blk)
{
    g_assert(blk->dev);
    blk->dev = NULL;
    blk->ops = NULL;
    blk->ops_opaque = NULL;
    g_clear_pointer(&blk->dev_id, g_free);
    g_clear_pointer(&blk->dev_path, g_free);
    blk_unref(blk);
}

void *blk_get_attached_dev(const BlockBackend *blk)
{
    return blk->dev;
}

const char *blk_get_attached_dev_id(const BlockBackend *blk)
{
    return blk->dev_id && *blk->dev_id ? blk->dev_id : blk->dev_path ? blk->dev_path : "";
}

/* ---- facts ---- */

bool blk_is_available(BlockBackend *blk)
{
    return blk->root != NULL;
}

bool blk_is_writable(BlockBackend *blk)
{
    return blk->perm & BLK_PERM_WRITE;
}

uint32_t blk_get_request_alignment(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs ? bs->bl.request_alignment : BDRV_SECTOR_BYTES;
}

uint64_t blk_get_max_transfer(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs && bs->bl.max_transfer ? MIN(bs->bl.max_transfer, BDRV_REQUEST_MAX_BYTES)
                                     : BDRV_REQUEST_MAX_BYTES;
}

uint32_t blk_get_max_iov(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs && bs->bl.max_iov ? bs->bl.max_iov : 1024;
}

void *blk_try_blockalign(BlockBackend *blk, size_t bytes)
{
    return bdrv_try_blockalign(blk_bs(blk), bytes);
}

void blk_set_enable_write_cache(BlockBackend *blk, bool on)
{
    __atomic_store_n(&blk->write_cache, on, __ATOMIC_SEQ_CST);
}

bool blk_enable_write_cache(const BlockBackend *blk)
{
    return __atomic_load_n(&blk->write_cache, __ATOMIC_SEQ_CST);
}

BlockAcctStats *blk_get_stats(BlockBackend *blk)
{
    return &blk->stats;
}

/* ---- errors of guests' requests ---- */

void blk_set_on_error(BlockBackend *blk, BlockdevOnError on_read_error,
                      BlockdevOnError on_write_error)
{
    blk->on_read_error = on_read_error;
    blk->on_write_error = on_write_error;
}

BlockdevOnError blk_get_on_error(const BlockBackend *blk, bool is_read)
{
    return is_read ? blk->on_read_error : blk->on_write_error;
}

BlockErrorAction blk_get_error_action(BlockBackend *blk, bool is_read, int error)
{
    switch (blk_get_on_error(blk, is_read)) {
    case BLOCKDEV_ON_ERROR_ENOSPC:
        return error == ENOSPC ? BLOCK_ERROR_ACTION_STOP : BLOCK_ERROR_ACTION_REPORT;
    case BLOCKDEV_ON_ERROR_AUTO:
        return !is_read && error == ENOSPC ? BLOCK_ERROR_ACTION_STOP : BLOCK_ERROR_ACTION_REPORT;
    case BLOCKDEV_ON_ERROR_STOP:
        return BLOCK_ERROR_ACTION_STOP;
    case BLOCKDEV_ON_ERROR_IGNORE:
        return BLOCK_ERROR_ACTION_IGNORE;
    default:
        return BLOCK_ERROR_ACTION_REPORT;
    }
}

void blk_iostatus_enable(BlockBackend *blk)
{
    blk->iostatus_enabled = true;
    blk_iostatus_reset(blk);
}

bool blk_iostatus_is_enabled(const BlockBackend *blk)
{
    return blk->iostatus_enabled &&
           (blk->on_write_error == BLOCKDEV_ON_ERROR_ENOSPC ||
            blk->on_write_error == BLOCKDEV_ON_ERROR_STOP ||
            blk->on_read_error == BLOCKDEV_ON_ERROR_STOP);
}

BlockDeviceIoStatus blk_iostatus(const BlockBackend *blk)
{
    return __atomic_load_n(&blk->iostatus, __ATOMIC_SEQ_CST);
}

void blk_iostatus_reset(BlockBackend *blk)
{
    __atomic_store_n(&blk->iostatus, BLOCK_DEVICE_IO_STATUS_OK, __ATOMIC_SEQ_CST);
}

void blk_iostatus_set_err(BlockBackend *blk, int error)
{
    int ok = BLOCK_DEVICE_IO_STATUS_OK;

    __atomic_compare_exchange_n(&blk->iostatus, &ok,
                                error == ENOSPC ? BLOCK_DEVICE_IO_STATUS_NOSPACE
                                                : BLOCK_DEVICE_IO_STATUS_FAILED,
                                false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
