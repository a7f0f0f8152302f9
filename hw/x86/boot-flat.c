/*
 * Images without any structure: a flat program, placed and entered at 1 MiB in long mode with the
 * first 4 GiB mapped one to one and the address of a PVH start info in RBX; and a disk's boot
 * sector, entered in real mode as a PC's firmware would, the disk's number in DL, only that there
 * is no firmware to call afterwards.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "hw/x86/boot.h"

#define SECTOR_BYTES 512
#define SECTOR_GPA 0x7c00
#define FIRST_HARD_DISK 0x80

BootImage *boot_flat_load(const BootConfig *config, GBytes *file, const char *name, Error **errp)
{
    g_autoptr(BootImage) image = boot_image_new();
    g_autofree char *what = g_strdup_printf("Kernel '%s'", name);

    if (g_bytes_get_size(file) == 0) {
        error_setg(errp, "Kernel '%s' is empty", name);
        return NULL;
    }
    if (boot_image_add(image, config, BOOT_HIGH_START, file, g_bytes_get_size(file), what,
                       errp) < 0 ||
        boot_image_add_long_mode(image, config, errp) < 0 ||
        boot_image_add_start_info(image, config, errp) < 0) {
        return NULL;
    }
    image->entry = BOOT_HIGH_START;
    image->setup_cpu = boot_cpu_long;
    return g_steal_pointer(&image);
}

BootImage *boot_sector_load(const BootConfig *config, GBytes *sector, const char *name,
                            Error **errp)
{
    g_autoptr(BootImage) image = boot_image_new();
    size_t size;
    const uint8_t *data = g_bytes_get_data(sector, &size);

    if (size < SECTOR_BYTES) {
        error_setg(errp, "Disk '%s' has no boot sector: it has %zu bytes, a sector %u", name, size,
                   SECTOR_BYTES);
        return NULL;
    }
    if (data[510] != 0x55 || data[511] != 0xaa) {
        error_setg(errp, "Disk '%s' is not bootable: its first sector ends in %02x %02x, not in "
                   "55 aa", name, data[510], data[511]);
        return NULL;
    }
    if (boot_image_add_copy(image, config, SECTOR_GPA, data, SECTOR_BYTES, "the boot sector",
                            errp) < 0) {
        return NULL;
    }
    image->entry = SECTOR_GPA;
    image->info = FIRST_HARD_DISK;
    image->setup_cpu = boot_cpu_real;
    return g_steal_pointer(&image);
}
