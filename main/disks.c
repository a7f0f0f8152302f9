/*
 * Disks of the command line. Each text is read once, by the same code that serves blockdev-add.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "main/disks.h"

#include "block/blockdev.h"
#include "block/drive.h"
#include "block/qemu-io-cmds.h"
#include "hw/device.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-block-core.h"

static GPtrArray *drives;       /* of DriveOptions, all open */

static int each(const GArray *texts, int (*fn)(const char *text, Error **errp), Error **errp)
{
    for (guint i = 0; i < texts->len; i++) {
        const TextOption *option = &g_array_index(texts, TextOption, i);

        if (fn(option->text, errp) < 0) {
            error_prepend(errp, "-%s %s: ", option->option, option->text);
            return -1;
        }
    }
    return 0;
}

static int open_blockdev(const char *text, Error **errp)
{
    g_autoptr(BlockdevOptions) opts = NULL;
    Visitor *v = json_input_visitor_new_str(text, "driver", errp);
    bool ok = v && visit_type_BlockdevOptions(v, NULL, &opts, errp);

    if (v) {
        visit_free(v);
    }
    return ok && blockdev_add(opts, errp) ? 0 : -1;
}

static int open_drive(const char *text, Error **errp)
{
    g_autoptr(DriveOptions) drive = drive_options_parse(text, errp);

    if (!drive || !drive_new(drive, errp)) {
        return -1;
    }
    g_ptr_array_add(drives, g_steal_pointer(&drive));
    return 0;
}

int disks_open(CommandLine *cl, Error **errp)
{
    drives = g_ptr_array_new_with_free_func((GDestroyNotify)drive_options_free);
    /* Another process owns the images until the migration is over. */
    bdrv_set_open_inactive(cl->incoming != NULL);
    if (each(cl->blockdevs, open_blockdev, errp) < 0 || each(cl->drives, open_drive, errp) < 0) {
        return -1;
    }
    for (guint i = 0; i < drives->len && !cl->machine.boot_disk; i++) {
        const DriveOptions *drive = drives->pdata[i];

        cl->machine.boot_disk = drive->interface == DRIVE_IF_VIRTIO ? g_strdup(drive->id) : NULL;
    }
    return 0;
}

static int create_device(const DriveOptions *drive, Error **errp)
{
    DeviceState *dev = device_new("virtio-blk-device", NULL, errp);

    if (!dev) {
        return -1;
    }
    if (!device_set_str(dev, "drive", drive->id, errp) || !device_realize(dev, errp)) {
        device_delete(dev);
        return -1;
    }
    return 0;
}

int disks_create_devices(Error **errp)
{
    for (guint i = 0; i < drives->len; i++) {
        const DriveOptions *drive = drives->pdata[i];

        if (drive->interface == DRIVE_IF_VIRTIO && create_device(drive, errp) < 0) {
            error_prepend(errp, "-drive: device for '%s': ", drive->id);
            return -1;
        }
    }
    return 0;
}

void disks_close(void)
{
    g_clear_pointer(&drives, g_ptr_array_unref);
    qemu_io_wait();
    bdrv_close_all();
}
