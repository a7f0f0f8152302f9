/*
 * ferry-img bitmap: the persistent bitmaps of an image; and what others need of them.
 *
 * Bitmaps are changed in memory and written when the image is closed, as a machine's are.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/img-bitmaps.h"

#include <errno.h>

#include "tools/img-common.h"

static const ImgOption options[] = {
    { IMG_OPT_ADD, "add", NULL, "make the bitmap" },
    { IMG_OPT_REMOVE, "remove", NULL, "remove it" },
    { IMG_OPT_CLEAR, "clear", NULL, "forget what is dirty in it" },
    { IMG_OPT_ENABLE, "enable", NULL, "let it record writes" },
    { IMG_OPT_DISABLE, "disable", NULL, "let it record no writes" },
    { IMG_OPT_MERGE, "merge", "SOURCE", "add what is dirty in the bitmap SOURCE" },
    { 'b', NULL, "FILENAME", "the image with the bitmaps that are merged (default: the same)" },
    { 'F', NULL, "FORMAT", "its format" },
    { 'g', NULL, "SIZE", "bytes that a bit stands for, for --add (default: 64k)" },
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { 0 },
};

/* ---- for others ---- */

bool img_bitmaps_supported(BlockDriverState *bs)
{
    return bs->drv->co_can_store_bitmap != NULL;
}

typedef struct StoreCall {
    BlockDriverState *bs;
    const char *name;
    uint32_t granularity;
    Error **errp;
    bool ok;
    int ret;
} StoreCall;

static void coroutine_fn can_store_entry(void *opaque)
{
    StoreCall *c = opaque;

    c->ok = c->bs->drv->co_can_store_bitmap(c->bs, c->name, c->granularity, c->errp);
}

static void coroutine_fn remove_entry(void *opaque)
{
    StoreCall *c = opaque;

    c->ret = c->bs->drv->co_remove_bitmap(c->bs, c->name, c->errp);
}

BdrvDirtyBitmap *img_add_bitmap(BlockDriverState *bs, const char *name, uint32_t granularity,
                                Error **errp)
{
    BdrvDirtyBitmap *bitmap;
    StoreCall call = { .bs = bs, .name = name, .errp = errp };

    if (!img_bitmaps_supported(bs)) {
        error_setg(errp, "Format driver '%s' does not support persistent bitmaps",
                   bs->drv->format_name);
        return NULL;
    }
    bitmap = bdrv_create_dirty_bitmap(bs, granularity, name, errp);
    if (!bitmap) {
        return NULL;
    }
    call.granularity = bdrv_dirty_bitmap_granularity(bitmap);
    img_run(can_store_entry, &call);
    if (!call.ok) {
        bdrv_release_dirty_bitmap(bitmap);
        return NULL;
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, true);
    return bitmap;
}

static int copy_bitmap(BdrvDirtyBitmap *from, BlockDriverState *dst, Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(from);
    BdrvDirtyBitmap *to = img_add_bitmap(dst, name, bdrv_dirty_bitmap_granularity(from), errp);

    if (!to || !bdrv_merge_dirty_bitmap(to, from, errp)) {
        error_prepend(errp, "Failed to populate bitmap %s: ", name);
        return -1;
    }
    if (!bdrv_dirty_bitmap_enabled(from)) {
        bdrv_disable_dirty_bitmap(to);
    }
    return 0;
}

int img_copy_bitmaps(BlockDriverState *src, BlockDriverState *dst, bool skip_broken, Error **errp)
{
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(src, NULL); b;
         b = bdrv_dirty_bitmap_next(src, b)) {
        const char *name = bdrv_dirty_bitmap_name(b);

        if (!name || !bdrv_dirty_bitmap_get_persistence(b)) {
            continue;
        }
        if (bdrv_dirty_bitmap_inconsistent(b)) {
            if (!skip_broken) {
                error_setg(errp, "Cannot copy inconsistent bitmap '%s'", name);
                error_append_hint(
                    errp, "Use --skip-broken-bitmaps, or 'ferry-img bitmap --remove' it.\n");
                return -1;
            }
            warn_report("Skipping inconsistent bitmap '%s'", name);
        } else if (copy_bitmap(b, dst, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- the subcommand ---- */

typedef struct Action {
    int what;
    const char *source;         /* of --merge */
} Action;

typedef struct BitmapJob {
    ImgOpen how, source_how;
    const char *filename, *name, *source_file;
    BlockBackend *blk, *source;
    int64_t granularity;
    GArray *actions;            /* of Action */
} BitmapJob;

static BdrvDirtyBitmap *find(BlockDriverState *bs, const char *name, Error **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    if (!bitmap) {
        error_setg(errp, "Dirty bitmap '%s' not found in '%s'", name, bdrv_get_filename(bs));
    }
    return bitmap;
}

static int remove_bitmap(BlockDriverState *bs, const char *name, BdrvDirtyBitmap *bitmap,
                         Error **errp)
{
    StoreCall call = { .bs = bs, .name = name, .errp = errp };

    if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO, errp) < 0) {
        return -1;
    }
    if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
        img_run(remove_entry, &call);
    }
    if (call.ret == 0) {
        bdrv_release_dirty_bitmap(bitmap);
    }
    return call.ret < 0 ? -1 : 0;
}

static int merge(BitmapJob *j, BdrvDirtyBitmap *bitmap, const char *source, Error **errp)
{
    BdrvDirtyBitmap *from = find(blk_bs(j->source ? j->source : j->blk), source, errp);

    if (!from || bdrv_dirty_bitmap_check(from, BDRV_BITMAP_INCONSISTENT, errp) < 0) {
        return -1;
    }
    return bdrv_merge_dirty_bitmap(bitmap, from, errp) ? 0 : -1;
}

static int act(BitmapJob *j, const Action *a, Error **errp)
{
    BlockDriverState *bs = blk_bs(j->blk);
    BdrvDirtyBitmap *bitmap;

    if (a->what == IMG_OPT_ADD) {
        return img_add_bitmap(bs, j->name, j->granularity, errp) ? 0 : -1;
    }
    bitmap = find(bs, j->name, errp);
    if (!bitmap) {
        return -1;
    }
    if (a->what == IMG_OPT_REMOVE) {
        return remove_bitmap(bs, j->name, bitmap, errp);
    }
    if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT, errp) < 0) {
        return -1;
    }
    switch (a->what) {
    case IMG_OPT_CLEAR:
        bdrv_clear_dirty_bitmap(bitmap);
        return 0;
    case IMG_OPT_ENABLE:
        bdrv_enable_dirty_bitmap(bitmap);
        return 0;
    case IMG_OPT_DISABLE:
        bdrv_disable_dirty_bitmap(bitmap);
        return 0;
    default:
        return merge(j, bitmap, a->source, errp);
    }
}

static int open_images(BitmapJob *j, Error **errp)
{
    j->how.writable = true;
    j->how.no_backing = j->source_how.no_backing = true;
    if (j->source_file) {
        j->source = img_open(j->source_file, &j->source_how, errp);
        if (!j->source) {
            return -1;
        }
    }
    j->blk = img_open(j->filename, &j->how, errp);
    if (j->blk && !img_bitmaps_supported(blk_bs(j->blk))) {
        error_setg(errp, "Format driver '%s' does not support persistent bitmaps",
                   blk_bs(j->blk)->drv->format_name);
        return -1;
    }
    return j->blk ? 0 : -1;
}

static int work(BitmapJob *j, Error **errp)
{
    int ret = open_images(j, errp);

    for (guint i = 0; ret == 0 && i < j->actions->len; i++) {
        ret = act(j, &g_array_index(j->actions, Action, i), errp);
        if (ret < 0) {
            error_prepend(errp, "Operation on bitmap '%s' failed: ", j->name);
        }
    }
    blk_unref(j->source);
    blk_unref(j->blk);
    return ret;
}

static bool has_action(const BitmapJob *j, int what)
{
    for (guint i = 0; i < j->actions->len; i++) {
        if (g_array_index(j->actions, Action, i).what == what) {
            return true;
        }
    }
    return false;
}

static int check_options(ImgArgs *args, const BitmapJob *j)
{
    if (args->n_operands != 2) {
        return img_usage_error(args, "Expecting filename and bitmap name");
    }
    if (!j->actions->len) {
        return img_usage_error(
            args, "Need at least one of --add, --remove, --clear, --enable, --disable, or "
                  "--merge");
    }
    if (j->granularity && !has_action(j, IMG_OPT_ADD)) {
        return img_usage_error(args, "granularity only supported with --add");
    }
    if (j->source_how.format && !j->source_file) {
        return img_usage_error(args, "-F only supported with -b");
    }
    if (j->source_file && !has_action(j, IMG_OPT_MERGE)) {
        return img_usage_error(args, "Merge bitmap source file only supported with --merge");
    }
    return 0;
}

static void take_option(ImgArgs *args, BitmapJob *j, int opt)
{
    Action action = { .what = opt };

    switch (opt) {
    case 'b': j->source_file = args->arg; break;
    case 'F': j->source_how.format = args->arg; break;
    case 'f': j->how.format = args->arg; break;
    case IMG_OPT_IMAGE_OPTS: j->how.image_opts = true; break;
    case 'g':
        img_arg_size(args, "granularity", BDRV_BITMAP_MIN_GRANULARITY, BDRV_BITMAP_MAX_GRANULARITY,
                     &j->granularity);
        break;
    default:
        action.source = opt == IMG_OPT_MERGE ? args->arg : NULL;
        g_array_append_val(j->actions, action);
        break;
    }
}

static int run(ImgArgs *args)
{
    g_autoptr(GArray) actions = g_array_new(false, false, sizeof(Action));
    BitmapJob j = { .actions = actions };
    Error *err = NULL;
    int opt;

    while ((opt = img_next_option(args)) != -1) {
        take_option(args, &j, opt);
    }
    if (args->stop || check_options(args, &j)) {
        return args->status;
    }
    j.filename = args->operands[0];
    j.name = args->operands[1];
    if (work(&j, &err) < 0) {
        error_report_err(err);
        return 1;
    }
    return 0;
}

const ImgCommand img_cmd_bitmap = {
    "bitmap", "Change the persistent bitmaps of an image", "FILENAME BITMAP", options, 1, run,
};
