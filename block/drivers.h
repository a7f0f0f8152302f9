/*
 * The drivers that there are; each is a line here and one in drivers.c.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_DRIVERS_H
#define BLOCK_DRIVERS_H

#include "block/driver.h"

extern const BlockDriver bdrv_blkdebug;
extern const BlockDriver bdrv_cor;
extern const BlockDriver bdrv_file;
extern const BlockDriver bdrv_host_device;
extern const BlockDriver bdrv_nbd;
extern const BlockDriver bdrv_null_co;
extern const BlockDriver bdrv_qcow2;
extern const BlockDriver bdrv_raw;
extern const BlockDriver bdrv_throttle;

#endif
