/*
 * Making what lies below an image.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/create.h"

#include <errno.h>

int coroutine_fn bdrv_co_create_protocol(const char *filename, uint64_t size,
                                         struct json_object *opts, Error **errp)
{
    g_autoptr(BlockdevOptions) image = bdrv_options_for_file(filename, "raw", errp);
    const BlockdevOptions *protocol;
    const BlockDriver *drv;
    const char *path;

    if (!image) {
        return -EINVAL;
    }
    if (image->driver != BLOCKDEV_DRIVER_RAW || image->u.raw.file->type != QTYPE_QDICT) {
        error_setg(errp, "Could not create '%s': a description is no name for a new image",
                   filename);
        return -EINVAL;
    }
    protocol = &image->u.raw.file->u.definition;
    drv = bdrv_driver_of(protocol->driver);
    if (!drv || !drv->co_create_opts) {
        error_setg(errp, "Could not create '%s': the driver '%s' does not make images", filename,
                   BlockdevDriver_str(protocol->driver));
        return -ENOTSUP;
    }
    path = protocol->driver == BLOCKDEV_DRIVER_FILE          ? protocol->u.file.filename
           : protocol->driver == BLOCKDEV_DRIVER_HOST_DEVICE ? protocol->u.host_device.filename
                                                             : filename;
    return drv->co_create_opts(path, size, opts, errp);
}
