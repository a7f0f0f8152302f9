/*
 * All drivers, and the search for one.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "block/driver.h"
#include "block/drivers.h"

const BlockDriver *const block_drivers[] = {
    &bdrv_blkdebug,
    &bdrv_cor,
    &bdrv_file,
    &bdrv_host_device,
    &bdrv_nbd,
    &bdrv_null_co,
    &bdrv_qcow2,
    &bdrv_raw,
    &bdrv_throttle,
    NULL,
};

const BlockDriver *bdrv_driver_of(BlockdevDriver driver)
{
    for (size_t i = 0; block_drivers[i]; i++) {
        if (block_drivers[i]->driver == driver) {
            return block_drivers[i];
        }
    }
    return NULL;
}

const BlockDriver *bdrv_find_driver(const char *format_name, Error **errp)
{
    for (size_t i = 0; block_drivers[i]; i++) {
        if (!strcmp(block_drivers[i]->format_name, format_name)) {
            return block_drivers[i];
        }
    }
    error_setg(errp, "Unknown driver '%s'", format_name);
    return NULL;
}
