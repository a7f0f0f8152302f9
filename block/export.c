/*
 * The life of exports, whatever they speak; and the commands for them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/export.h"

#include <string.h>

#include "qapi/qapi-commands-block-export.h"
#include "qapi/qapi-events-block-export.h"
#include "util/cutils.h"

static const BlockExportDriver *drivers[BLOCK_EXPORT_TYPE__MAX];
static GQueue exports = G_QUEUE_INIT;   /* of BlockExport, by in_exports */

void block_export_register(const BlockExportDriver *drv)
{
    g_assert(drv->instance_size >= sizeof(BlockExport));
    drivers[drv->type] = drv;
}

BlockExport *block_export_next(BlockExport *after)
{
    GList *link = after ? after->in_exports.next : exports.head;

    return link ? link->data : NULL;
}

BlockExport *block_export_find(const char *id)
{
    BlockExport *exp = NULL;

    while ((exp = block_export_next(exp)) && strcmp(exp->id, id) != 0) {
    }
    return exp;
}

/*
 * iothreads
 * -------------------------------------------------------------------------------------------
 */

static int use_iothread(BlockExport *exp, const char *id, Error **errp)
{
    IOThread *iothread = iothread_by_id(id);

    if (!iothread) {
        error_setg(errp, "iothread \"%s\" not found", id);
        return -1;
    }
    for (unsigned i = 0; i < exp->n_iothreads; i++) {
        if (exp->iothreads[i] == iothread) {
            error_setg(errp, "iothread \"%s\" is named twice", id);
            return -1;
        }
    }
    exp->iothreads = g_renew(IOThread *, exp->iothreads, exp->n_iothreads + 1);
    exp->iothreads[exp->n_iothreads++] = iothread;
    iothread_get(iothread);
    return 0;
}

static int use_iothreads(BlockExport *exp, const BlockExportIothreads *names, Error **errp)
{
    if (names && names->type == QTYPE_QSTRING) {
        return use_iothread(exp, names->u.single, errp);
    }
    if (names && !names->u.multi) {
        error_setg(errp, "the list of iothreads is empty");
        return -1;
    }
    for (strList *l = names ? names->u.multi : NULL; l; l = l->next) {
        if (use_iothread(exp, l->value, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Move the node to the first iothread; only a fixed one insists. */
static int move_node(BlockExport *exp, bool fixed, Error **errp)
{
    Error *err = NULL;

    if (exp->n_iothreads > 0 &&
        blk_set_aio_context(exp->blk, iothread_context(exp->iothreads[0]), &err) < 0) {
        if (fixed) {
            error_propagate(errp, err);
            return -1;
        }
        error_free(err);
    }
    blk_set_allow_aio_context_change(exp->blk, !fixed);
    return 0;
}

/*
 * Life
 * ------------------------------------------------------------------------------------------------
 */

static char *describe(void *opaque)
{
    const BlockExport *exp = opaque;

    return g_strdup_printf("export '%s'", exp->id);
}

static const BlockDevOps export_dev_ops = {
    .describe = describe,
};

static int hold_node(BlockExport *exp, const BlockExportOptions *opts, uint64_t shared_perm,
                     Error **errp)
{
    BlockDriverState *bs = bdrv_lookup(opts->node_name, errp);
    uint64_t perm = BLK_PERM_CONSISTENT_READ;

    if (!bs) {
        return -1;
    }
    if (exp->writable) {
        perm |= BLK_PERM_WRITE;
        if (bdrv_is_read_only(bs)) {
            error_setg(errp, "Cannot export read-only node as writable");
            return -1;
        }
    }
    if (bdrv_is_inactive(bs) && bdrv_activate(bs, errp) < 0) {
        return -1;
    }
    exp->blk = blk_new(perm, shared_perm);
    blk_set_dev_ops(exp->blk, &export_dev_ops, exp);
    if (blk_insert_bs(exp->blk, bs, errp) < 0) {
        return -1;
    }
    blk_set_allow_aio_context_change(exp->blk, true);
    blk_set_enable_write_cache(exp->blk, !(opts->has_writethrough && opts->writethrough));
    return 0;
}

/* What all exports hold. The id must not be there, or be gone from the list. */
static void export_free(BlockExport *exp)
{
    blk_unref(exp->blk);
    for (unsigned i = 0; i < exp->n_iothreads; i++) {
        iothread_put(exp->iothreads[i]);
    }
    g_free(exp->iothreads);
    g_free(exp->id);
    g_free(exp);
}

BlockExport *block_export_add(const BlockExportOptions *opts, uint64_t shared_perm, Error **errp)
{
    const BlockExportDriver *drv = drivers[opts->type];
    bool fixed = opts->has_fixed_iothread && opts->fixed_iothread;
    BlockExport *exp;

    if (!drv) {
        error_setg(errp, "This program has no exports of type '%s'",
                   BlockExportType_str(opts->type));
        return NULL;
    }
    if (!id_wellformed(opts->id)) {
        error_setg(errp, "Invalid block export id '%s'", opts->id);
        return NULL;
    }
    if (block_export_find(opts->id)) {
        error_setg(errp, "Block export id '%s' is already in use", opts->id);
        return NULL;
    }
    if (fixed && !opts->iothread) {
        error_setg(errp, "fixed-iothread needs an iothread");
        return NULL;
    }
    exp = g_malloc0(drv->instance_size);
    exp->drv = drv;
    exp->id = g_strdup(opts->id);
    exp->refcount = 1;
    exp->writable = opts->has_writable && opts->writable;
    exp->in_exports.data = exp;
    if (use_iothreads(exp, opts->iothread, errp) < 0 ||
        hold_node(exp, opts, shared_perm, errp) < 0 || move_node(exp, fixed, errp) < 0 ||
        drv->create(exp, opts, errp) < 0) {
        export_free(exp);
        return NULL;
    }
    g_queue_push_tail_link(&exports, &exp->in_exports);
    return exp;
}

void block_export_ref(BlockExport *exp)
{
    g_assert(exp->refcount > 0);
    exp->refcount++;
}

/* In the main context and outside of coroutines: letting go of a node may wait. */
static void export_delete(void *opaque)
{
    BlockExport *exp = opaque;
    g_autofree char *id = g_strdup(exp->id);

    exp->drv->destroy(exp);
    g_queue_unlink(&exports, &exp->in_exports);
    export_free(exp);
    qapi_event_send_block_export_deleted(id);
    aio_wait_kick();
}

void block_export_unref(BlockExport *exp)
{
    g_assert(exp->refcount > 0);
    if (--exp->refcount > 0) {
        return;
    }
    if (in_coroutine()) {
        aio_bh_schedule_oneshot(aio_context_main(), export_delete, exp);
    } else {
        export_delete(exp);
    }
}

int block_export_remove(BlockExport *exp, BlockExportRemoveMode mode, Error **errp)
{
    if (exp->shutting_down) {
        return 0;
    }
    if (mode == BLOCK_EXPORT_REMOVE_MODE_SAFE && exp->refcount > 1) {
        error_setg(errp, "export '%s' still in use", exp->id);
        error_append_hint(errp, "Use mode='hard' to force client disconnect\n");
        return -1;
    }
    exp->shutting_down = true;
    exp->drv->request_shutdown(exp);
    block_export_unref(exp);
    return 0;
}

static bool have_export_of(BlockExportType type)
{
    BlockExport *exp = NULL;

    while ((exp = block_export_next(exp)) && exp->drv->type != type) {
    }
    return exp;
}

void block_export_close_all_of(BlockExportType type)
{
    BlockExport *next;

    for (BlockExport *exp = block_export_next(NULL); exp; exp = next) {
        next = block_export_next(exp);
        if (exp->drv->type == type) {
            block_export_remove(exp, BLOCK_EXPORT_REMOVE_MODE_HARD, &error_abort);
        }
    }
    AIO_WAIT_WHILE(have_export_of(type));
}

void block_export_close_all(void)
{
    for (BlockExportType type = 0; type < BLOCK_EXPORT_TYPE__MAX; type++) {
        block_export_close_all_of(type);
    }
}

/*
 * Commands
 * --------------------------------------------------------------------------------------------
 */

void qmp_block_export_add(BlockExportOptions *opts, Error **errp)
{
    block_export_add(opts, BLK_PERM_ALL, errp);
}

void qmp_block_export_del(const char *id, bool has_mode, BlockExportRemoveMode mode, Error **errp)
{
    BlockExport *exp = block_export_find(id);

    if (!exp) {
        error_setg(errp, "Export '%s' is not found", id);
        return;
    }
    if (exp->shutting_down) {
        error_setg(errp, "Export '%s' is already shutting down", id);
        return;
    }
    block_export_remove(exp, has_mode ? mode : BLOCK_EXPORT_REMOVE_MODE_SAFE, errp);
}

BlockExportInfoList *qmp_query_block_exports(Error **errp)
{
    BlockExportInfoList *list = NULL, **tail = &list;
    BlockExport *exp = NULL;

    while ((exp = block_export_next(exp))) {
        BlockExportInfo *info = g_new0(BlockExportInfo, 1);

        info->id = g_strdup(exp->id);
        info->type = exp->drv->type;
        info->node_name = g_strdup(bdrv_get_node_name(blk_bs(exp->blk)));
        info->shutting_down = exp->shutting_down;
        *tail = g_new0(BlockExportInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return list;
}
