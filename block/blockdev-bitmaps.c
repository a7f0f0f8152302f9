/*
 * QMP commands about dirty bitmaps, and the actions that they are.
 *
 * An action changes the bitmap when it is prepared, for those that follow it are to see that; it
 * keeps what was there, as bits, to put it back.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "block/block-action.h"
#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "qapi/qapi-commands-block.h"

typedef struct BitmapState {
    BdrvDirtyBitmap *bitmap;
    bool was_enabled;
    void *content;              /* as it was; NULL: unchanged */
    uint64_t content_bytes;
} BitmapState;

static BdrvDirtyBitmap *find_bitmap(const char *node, const char *name, Error **errp)
{
    BlockDriverState *bs = bdrv_lookup(node, errp);
    BdrvDirtyBitmap *bitmap = bs ? bdrv_find_dirty_bitmap(bs, name) : NULL;

    if (bs && !bitmap) {
        error_setg(errp, "Dirty bitmap '%s' not found", name);
    }
    return bitmap;
}

/* ---- content ---- */

static int keep_content(BitmapState *s, Error **errp)
{
    s->content_bytes = bdrv_dirty_bitmap_serialization_size(s->bitmap);
    s->content = g_try_malloc(MAX(s->content_bytes, 1));
    if (!s->content) {
        error_setg(errp, "No memory to keep the content of bitmap '%s'",
                   bdrv_dirty_bitmap_name(s->bitmap));
        return -1;
    }
    bdrv_dirty_bitmap_serialize(s->bitmap, s->content, 0, s->content_bytes);
    return 0;
}

static void put_content_back(void *state)
{
    BitmapState *s = state;

    bdrv_dirty_bitmap_deserialize(s->bitmap, s->content, 0, s->content_bytes);
}

static void free_content(void *state)
{
    g_free(((BitmapState *)state)->content);
}

/* ---- add ---- */

typedef struct StoreCall {
    BlockDriverState *bs;
    const char *name;
    uint32_t granularity;
    Error **errp;
    bool ok;
} StoreCall;

static void coroutine_fn ask_can_store(void *opaque)
{
    StoreCall *c = opaque;

    c->ok = c->bs->drv->co_can_store_bitmap(c->bs, c->name, c->granularity, c->errp);
}

static bool can_store(BlockDriverState *bs, const char *name, uint32_t granularity, Error **errp)
{
    StoreCall call = { .bs = bs, .name = name, .granularity = granularity, .errp = errp };

    if (!bs->drv->co_can_store_bitmap) {
        error_setg(errp,
                   "Cannot store dirty bitmaps in file '%s': driver '%s' has no place for them",
                   bdrv_get_filename(bs), bdrv_get_format_name(bs));
        return false;
    }
    aio_co_run(bdrv_get_aio_context(bs), ask_can_store, &call);
    return call.ok;
}

static int add_prepare(void *state, const TransactionAction *action, Error **errp)
{
    const BlockDirtyBitmapAdd *add = action->u.block_dirty_bitmap_add.data;
    BlockDriverState *bs = bdrv_lookup(add->node, errp);
    bool persistent = add->has_persistent && add->persistent;
    BitmapState *s = state;

    if (!bs) {
        return -1;
    }
    if (!*add->name) {
        error_setg(errp, "Bitmap name cannot be empty");
        return -1;
    }
    if (add->has_granularity && add->granularity < BDRV_BITMAP_MIN_GRANULARITY) {
        error_setg(errp, "Granularity must be power of 2 and at least %d",
                   BDRV_BITMAP_MIN_GRANULARITY);
        return -1;
    }
    s->bitmap =
        bdrv_create_dirty_bitmap(bs, add->has_granularity ? add->granularity : 0, add->name, errp);
    if (!s->bitmap) {
        return -1;
    }
    if (persistent && !can_store(bs, add->name, bdrv_dirty_bitmap_granularity(s->bitmap), errp)) {
        bdrv_release_dirty_bitmap(s->bitmap);
        return -1;
    }
    bdrv_dirty_bitmap_set_persistence(s->bitmap, persistent);
    if (add->has_disabled && add->disabled) {
        bdrv_disable_dirty_bitmap(s->bitmap);
    }
    return 0;
}

static void add_abort(void *state)
{
    bdrv_release_dirty_bitmap(((BitmapState *)state)->bitmap);
}

const BlockActionOps action_bitmap_add = {
    .state_bytes = sizeof(BitmapState), .prepare = add_prepare, .abort = add_abort,
};

void qmp_block_dirty_bitmap_add(BlockDirtyBitmapAdd *add, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD };

    action.u.block_dirty_bitmap_add.data = add;
    block_action_run(&action, errp);
}

/* ---- remove ---- */

static void coroutine_fn remove_stored(void *opaque)
{
    StoreCall *c = opaque;

    c->ok = c->bs->drv->co_remove_bitmap(c->bs, c->name, c->errp) >= 0;
}

/*
 * From the image at once, if it is there; an abort lets it be saved again when the image is closed.
 */
static int remove_prepare(void *state, const TransactionAction *action, Error **errp)
{
    const BlockDirtyBitmap *which = action->u.block_dirty_bitmap_remove.data;
    BdrvDirtyBitmap *bitmap = find_bitmap(which->node, which->name, errp);
    BitmapState *s = state;

    if (!bitmap || bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO, errp) < 0) {
        return -1;
    }
    if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
        StoreCall call = { .bs = bdrv_dirty_bitmap_bs(bitmap), .name = which->name, .errp = errp };

        aio_co_run(bdrv_get_aio_context(call.bs), remove_stored, &call);
        if (!call.ok) {
            return -1;
        }
    }
    s->bitmap = bitmap;
    bdrv_dirty_bitmap_set_busy(bitmap, true);
    return 0;
}

static void remove_commit(void *state)
{
    bdrv_release_dirty_bitmap(((BitmapState *)state)->bitmap);
}

static void remove_abort(void *state)
{
    bdrv_dirty_bitmap_set_busy(((BitmapState *)state)->bitmap, false);
}

const BlockActionOps action_bitmap_remove = {
    .state_bytes = sizeof(BitmapState), .prepare = remove_prepare, .commit = remove_commit,
    .abort = remove_abort,
};

void qmp_block_dirty_bitmap_remove(BlockDirtyBitmap *which, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE };

    action.u.block_dirty_bitmap_remove.data = which;
    block_action_run(&action, errp);
}

/* ---- clear ---- */

static int clear_prepare(void *state, const TransactionAction *action, Error **errp)
{
    const BlockDirtyBitmap *which = action->u.block_dirty_bitmap_clear.data;
    BitmapState *s = state;

    s->bitmap = find_bitmap(which->node, which->name, errp);
    if (!s->bitmap || bdrv_dirty_bitmap_check(s->bitmap, BDRV_BITMAP_DEFAULT, errp) < 0 ||
        keep_content(s, errp) < 0) {
        return -1;
    }
    bdrv_clear_dirty_bitmap(s->bitmap);
    return 0;
}

const BlockActionOps action_bitmap_clear = {
    .state_bytes = sizeof(BitmapState), .prepare = clear_prepare, .abort = put_content_back,
    .clean = free_content,
};

void qmp_block_dirty_bitmap_clear(BlockDirtyBitmap *which, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR };

    action.u.block_dirty_bitmap_clear.data = which;
    block_action_run(&action, errp);
}

/* ---- enable, disable ---- */

static void set_enabled(BdrvDirtyBitmap *bitmap, bool enable)
{
    if (enable) {
        bdrv_enable_dirty_bitmap(bitmap);
    } else {
        bdrv_disable_dirty_bitmap(bitmap);
    }
}

static int switch_prepare(BitmapState *s, const BlockDirtyBitmap *which, bool enable, Error **errp)
{
    s->bitmap = find_bitmap(which->node, which->name, errp);
    if (!s->bitmap ||
        bdrv_dirty_bitmap_check(s->bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT, errp) < 0) {
        return -1;
    }
    s->was_enabled = bdrv_dirty_bitmap_enabled(s->bitmap);
    set_enabled(s->bitmap, enable);
    return 0;
}

static int enable_prepare(void *state, const TransactionAction *action, Error **errp)
{
    return switch_prepare(state, action->u.block_dirty_bitmap_enable.data, true, errp);
}

static int disable_prepare(void *state, const TransactionAction *action, Error **errp)
{
    return switch_prepare(state, action->u.block_dirty_bitmap_disable.data, false, errp);
}

static void switch_abort(void *state)
{
    BitmapState *s = state;

    set_enabled(s->bitmap, s->was_enabled);
}

const BlockActionOps action_bitmap_enable = {
    .state_bytes = sizeof(BitmapState), .prepare = enable_prepare, .abort = switch_abort,
};
const BlockActionOps action_bitmap_disable = {
    .state_bytes = sizeof(BitmapState), .prepare = disable_prepare, .abort = switch_abort,
};

void qmp_block_dirty_bitmap_enable(BlockDirtyBitmap *which, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE };

    action.u.block_dirty_bitmap_enable.data = which;
    block_action_run(&action, errp);
}

void qmp_block_dirty_bitmap_disable(BlockDirtyBitmap *which, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE };

    action.u.block_dirty_bitmap_disable.data = which;
    block_action_run(&action, errp);
}

/* ---- merge ---- */

static bool merge_one(BdrvDirtyBitmap *target, const char *node, const BlockDirtyBitmapOrStr *from,
                      Error **errp)
{
    const BlockDirtyBitmap *external = &from->u.external;
    BdrvDirtyBitmap *src = from->type == QTYPE_QSTRING
                               ? find_bitmap(node, from->u.local, errp)
                               : find_bitmap(external->node, external->name, errp);

    return src &&
           bdrv_dirty_bitmap_check(src, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT, errp) == 0 &&
           bdrv_merge_dirty_bitmap(target, src, errp);
}

static int merge_prepare(void *state, const TransactionAction *action, Error **errp)
{
    const BlockDirtyBitmapMerge *merge = action->u.block_dirty_bitmap_merge.data;
    BitmapState *s = state;

    s->bitmap = find_bitmap(merge->node, merge->target, errp);
    if (!s->bitmap || bdrv_dirty_bitmap_check(s->bitmap, BDRV_BITMAP_DEFAULT, errp) < 0 ||
        keep_content(s, errp) < 0) {
        return -1;
    }
    for (BlockDirtyBitmapOrStrList *l = merge->bitmaps; l; l = l->next) {
        if (!merge_one(s->bitmap, merge->node, l->value, errp)) {
            put_content_back(s);
            return -1;
        }
    }
    return 0;
}

const BlockActionOps action_bitmap_merge = {
    .state_bytes = sizeof(BitmapState), .prepare = merge_prepare, .abort = put_content_back,
    .clean = free_content,
};

void qmp_block_dirty_bitmap_merge(BlockDirtyBitmapMerge *merge, Error **errp)
{
    TransactionAction action = { .type = TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE };

    action.u.block_dirty_bitmap_merge.data = merge;
    block_action_run(&action, errp);
}
