/*
 * ferry-nbd: the image as a description of nodes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/ferry-nbd-image.h"

#include <string.h>

#include "block/snapshot.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-block-core.h"

/* The description of the file at the bottom; NULL when there is none here. */
static BlockdevOptionsFile *find_file(BlockdevOptions *opts)
{
    BlockdevRef *below;

    switch (opts->driver) {
    case BLOCKDEV_DRIVER_FILE:
        return &opts->u.file;
    case BLOCKDEV_DRIVER_HOST_DEVICE:
        return &opts->u.host_device;
    case BLOCKDEV_DRIVER_RAW:
        below = opts->u.raw.file;
        break;
    case BLOCKDEV_DRIVER_QCOW2:
        below = opts->u.qcow2.file;
        break;
    default:
        return NULL;
    }
    return below->type == QTYPE_QDICT ? find_file(&below->u.definition) : NULL;
}

/*
 * An image of which nobody said what it is: raw ones can be made to look like another format by a
 * client.
 */
static int warn_of_raw(const char *image, Error **errp)
{
    const char *format = bdrv_probe_format(image, errp);

    if (!format) {
        return -1;
    }
    if (strcmp(format, "raw") == 0) {
        warn_report(
            "'%s' looks like a raw image, and will look like what clients write into it: give its "
            "format with -f raw",
            image);
    }
    return 0;
}

static BlockdevOptions *describe(const NbdToolOptions *o, Error **errp)
{
    if (o->image_opts) {
        return bdrv_options_from_text(o->image, errp);
    }
    if (!o->format && warn_of_raw(o->image, errp) < 0) {
        return NULL;
    }
    return bdrv_options_for_file(o->image, o->format, errp);
}

/* A raw node above @opts, which it takes over, from the offset on. */
static BlockdevOptions *above_offset(BlockdevOptions *opts, uint64_t offset)
{
    BlockdevOptions *raw = g_new0(BlockdevOptions, 1);

    raw->driver = BLOCKDEV_DRIVER_RAW;
    raw->u.raw.has_offset = true;
    raw->u.raw.offset = offset;
    raw->u.raw.file = g_new0(BlockdevRef, 1);
    raw->u.raw.file->type = QTYPE_QDICT;
    raw->u.raw.file->u.definition = *opts;
    g_free(opts);
    return raw;
}

/* Set the members that every node has; nodes below inherit them. */
static int set_generic(BlockdevOptions *opts, const NbdToolOptions *o, Error **errp)
{
    if (o->read_only || o->snapshot) {
        opts->has_read_only = opts->read_only = true;
    }
    if (o->has_cache) {
        if (!opts->cache) {
            opts->cache = g_new0(BlockdevCacheOptions, 1);
        }
        opts->cache->has_direct = opts->cache->has_no_flush = true;
        opts->cache->direct = o->cache_direct;
        opts->cache->no_flush = o->cache_no_flush;
    }
    if (o->discard_unmap) {
        opts->has_discard = true;
        opts->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    }
    if (o->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF) {
        opts->has_detect_zeroes = true;
        opts->detect_zeroes = o->detect_zeroes;
    }
    return 0;
}

static int set_aio(BlockdevOptions *opts, const NbdToolOptions *o, Error **errp)
{
    BlockdevOptionsFile *file = find_file(opts);

    if (!file) {
        error_setg(errp, "--aio=%s: the image is not in a file", BlockdevAioOptions_str(o->aio));
        return -1;
    }
    file->has_aio = true;
    file->aio = o->aio;
    return 0;
}

BlockDriverState *nbd_tool_open_image(const NbdToolOptions *o, Error **errp)
{
    g_autoptr(BlockdevOptions) opts = describe(o, errp);
    BlockDriverState *bs;

    if (!opts) {
        return NULL;
    }
    if (o->offset > 0) {
        opts = above_offset(opts, o->offset);
    }
    if (set_generic(opts, o, errp) < 0 || (o->has_aio && set_aio(opts, o, errp) < 0)) {
        return NULL;
    }
    bs = bdrv_open(opts, errp);
    if (bs && o->snapshot && bdrv_load_snapshot(bs, o->snapshot, errp) < 0) {
        bdrv_unref(bs);
        return NULL;
    }
    return bs;
}
