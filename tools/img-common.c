/*
 * Opening images for ferry-img, and its texts.
 *
 * A name, or with --image-opts a description, becomes BlockdevOptions; what the command line says
 * of caches, sharing and backing files is filled in where the description leaves it open.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/img-common.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "block/snapshot.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-block-core.h"
#include "util/json-writer.h"
#include "util/keyval.h"

/* ---- cache modes ---- */

typedef struct CacheMode {
    const char *name;
    bool direct, no_flush, writethrough;
} CacheMode;

static const CacheMode cache_modes[] = {
    { "none", true, false, false },
    { "off", true, false, false },
    { "writeback", false, false, false },
    { "writethrough", false, false, true },
    { "directsync", true, false, true },
    { "unsafe", false, true, false },
};

static const CacheMode *find_cache_mode(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cache_modes); i++) {
        if (!strcmp(cache_modes[i].name, name)) {
            return &cache_modes[i];
        }
    }
    return NULL;
}

bool img_cache_mode_ok(const char *mode)
{
    return find_cache_mode(mode) != NULL;
}

/* ---- descriptions ---- */

void img_drop_backing(BlockdevOptions *opts)
{
    if (opts->driver == BLOCKDEV_DRIVER_QCOW2) {
        BlockdevOptionsQcow2 *q = &opts->u.qcow2;

        qapi_free_BlockdevRefOrNull(q->backing);
        q->backing = g_new0(BlockdevRefOrNull, 1);
        q->backing->type = QTYPE_QNULL;
    }
}

static void set_cache(BlockdevOptions *opts, const CacheMode *mode)
{
    if (!opts->cache) {
        opts->cache = g_new0(BlockdevCacheOptions, 1);
    }
    if (!opts->cache->has_direct) {
        opts->cache->has_direct = true;
        opts->cache->direct = mode->direct;
    }
    if (!opts->cache->has_no_flush) {
        opts->cache->has_no_flush = true;
        opts->cache->no_flush = mode->no_flush;
    }
}

/* The engine goes to the file at the bottom of a format. */
static void set_aio(BlockdevOptions *opts, BlockdevAioOptions aio)
{
    BlockdevRef *file = opts->driver == BLOCKDEV_DRIVER_RAW ? opts->u.raw.file
                      : opts->driver == BLOCKDEV_DRIVER_QCOW2 ? opts->u.qcow2.file : NULL;
    BlockdevOptionsFile *o = opts->driver == BLOCKDEV_DRIVER_FILE          ? &opts->u.file
                             : opts->driver == BLOCKDEV_DRIVER_HOST_DEVICE ? &opts->u.host_device
                                                                           : NULL;

    if (file && file->type == QTYPE_QDICT) {
        set_aio(&file->u.definition, aio);
    }
    if (o && !o->has_aio) {
        o->has_aio = true;
        o->aio = aio;
    }
}

static void fill_in(BlockdevOptions *opts, const ImgOpen *how)
{
    if (!opts->has_read_only) {
        opts->has_read_only = true;
        opts->read_only = !how->writable;
    }
    if (!opts->has_force_share && how->force_share) {
        opts->has_force_share = opts->force_share = true;
    }
    if (!opts->has_discard) {
        opts->has_discard = true;
        opts->discard =
            how->writable ? BLOCKDEV_DISCARD_OPTIONS_UNMAP : BLOCKDEV_DISCARD_OPTIONS_IGNORE;
    }
    set_cache(opts, find_cache_mode(how->cache ? how->cache : "writeback"));
    if (how->has_aio) {
        set_aio(opts, how->aio);
    }
    if (how->no_backing) {
        img_drop_backing(opts);
    }
}

BlockdevOptions *img_describe(const char *name, const ImgOpen *how, Error **errp)
{
    BlockdevOptions *opts;

    if (how->image_opts) {
        opts = bdrv_options_from_text(name, errp);
    } else {
        if (how->format && !bdrv_find_driver(how->format, NULL)) {
            error_setg(errp, "Unknown driver '%s'", how->format);
            return NULL;
        }
        opts = bdrv_options_for_file(name, how->format, errp);
        if (opts && how->format && strcmp(how->format, BlockdevDriver_str(opts->driver))) {
            error_setg(errp, "its description says driver '%s', the command line '%s'",
                       BlockdevDriver_str(opts->driver), how->format);
            qapi_free_BlockdevOptions(opts);
            return NULL;
        }
    }
    if (opts) {
        fill_in(opts, how);
    }
    return opts;
}

static void warn_of_guess(const char *name)
{
    warn_report(
        "Image format was not specified for '%s' and probing guessed raw. "
        "Give it with -f, so that nobody's data are ever taken for an image of another format",
        name);
}

BlockBackend *img_open(const char *name, const ImgOpen *how, Error **errp)
{
    g_autoptr(BlockdevOptions) opts = NULL;
    const CacheMode *mode = find_cache_mode(how->cache ? how->cache : "writeback");
    g_autofree char *prefix = g_strdup_printf("Could not open '%s'", name);
    BlockBackend *blk = NULL;
    Error *err = NULL;

    opts = img_describe(name, how, &err);
    if (opts) {
        bdrv_set_open_for_check(how->for_check);
        blk = blk_new_open(opts, &err);
        bdrv_set_open_for_check(false);
    }
    if (!blk) {
        if (!g_str_has_prefix(error_get_pretty(err), prefix)) {
            error_prepend(&err, "%s: ", prefix);
        }
        error_propagate(errp, err);
        return NULL;
    }
    if (how->snapshot && bdrv_load_snapshot(blk_bs(blk), how->snapshot, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    blk_set_enable_write_cache(blk, !mode->writethrough);
    if (how->writable && !how->quiet && !how->format && !how->image_opts &&
        opts->driver == BLOCKDEV_DRIVER_RAW && !g_str_has_prefix(name, "json:")) {
        warn_of_guess(name);
    }
    return blk;
}

char *img_path_of(const char *name)
{
    g_autoptr(BlockdevOptions) opts = NULL;
    const BlockdevRef *file;

    if (g_str_has_prefix(name, "json:")) {
        return NULL;
    }
    opts = bdrv_options_for_file(name, "raw", NULL);
    file = opts && opts->driver == BLOCKDEV_DRIVER_RAW ? opts->u.raw.file : NULL;
    if (!file || file->type != QTYPE_QDICT || file->u.definition.driver != BLOCKDEV_DRIVER_FILE) {
        return NULL;
    }
    return g_strdup(file->u.definition.u.file.filename);
}

bool img_new_is_zero(BlockDriverState *bs)
{
    switch (bs->drv->driver) {
    case BLOCKDEV_DRIVER_FILE:
        return true;
    case BLOCKDEV_DRIVER_RAW:
        return img_new_is_zero(bs->file->bs);
    case BLOCKDEV_DRIVER_QCOW2:
        return !bs->backing_file && !bs->backing && img_new_is_zero(bs->file->bs);
    default:
        return false;
    }
}

/* ---- texts ---- */

void img_print_json(struct json_object *value)
{
    g_autoptr(GString) text = g_string_new(NULL);

    json_write(text, value, true);
    puts(text->str);
    json_object_put(value);
}

bool img_flush_stdout(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        error_report("Could not write the output: %s", g_strerror(errno ? errno : EIO));
        return false;
    }
    return true;
}
