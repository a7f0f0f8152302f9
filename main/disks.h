/*
 * What the command line says about disks: -blockdev, -drive.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MAIN_DISKS_H
#define MAIN_DISKS_H

#include "system/cmdline.h"

/*
 * Open them: first nodes, then drives, each in the order given. Objects that they name exist. The
 * first drive that brings a device becomes the machine's boot disk.
 */
int disks_open(CommandLine *cl, Error **errp);
/* A virtio-blk device for each drive with if=virtio. The machine exists. */
int disks_create_devices(Error **errp);
/* At the end of the process, when devices, exports and jobs are gone: flush and close all. */
void disks_close(void);

#endif
