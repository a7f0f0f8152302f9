/*
 * The start info of the PVH boot protocol (Xen's start_info.h), all in one page:
 *
 *      0  u32 magic 0x336ec578        32  u64 RSDP, 0: none
 *      4  u32 version 1               40  u64 memory map
 *      8  u32 flags                   48  u32 its entries
 *     12  u32 modules                 52  u32 0
 *     16  u64 module list
 *     24  u64 command line
 *
 * A module is u64 address, u64 size, u64 command line, u64 0; the initrd is the first and only one.
 * A map entry is u64 address, u64 size, u32 type as in E820, u32 0.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/x86/boot.h"
#include "util/bswap.h"

#define MAGIC 0x336ec578u
#define VERSION 1
#define MODULE_AT 56
#define MODULE_BYTES 32
#define MAP_AT (MODULE_AT + MODULE_BYTES)
#define MAP_ENTRY_BYTES 24

static void put_map(uint8_t *info, const BootConfig *config)
{
    BootMapEntry map[BOOT_MAP_MAX];
    unsigned n = boot_memory_map(config, map);

    stq_le_p(info + 40, BOOT_START_INFO + MAP_AT);
    stl_le_p(info + 48, n);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = info + MAP_AT + i * MAP_ENTRY_BYTES;

        stq_le_p(p, map[i].start);
        stq_le_p(p + 8, map[i].size);
        stl_le_p(p + 16, map[i].type);
    }
}

int boot_image_add_start_info(BootImage *image, const BootConfig *config, Error **errp)
{
    uint8_t info[MAP_AT + BOOT_MAP_MAX * MAP_ENTRY_BYTES] = {};
    uint64_t initrd;

    if (boot_image_add_cmdline(image, config, BOOT_CMDLINE_MAX, errp) < 0 ||
        boot_image_add_initrd(image, config, UINT32_MAX, &initrd, errp) < 0) {
        return -1;
    }
    stl_le_p(info, MAGIC);
    stl_le_p(info + 4, VERSION);
    stq_le_p(info + 24, BOOT_CMDLINE);
    stq_le_p(info + 32, config->rsdp);
    if (initrd) {
        stl_le_p(info + 12, 1);
        stq_le_p(info + 16, BOOT_START_INFO + MODULE_AT);
        stq_le_p(info + MODULE_AT, initrd);
        stq_le_p(info + MODULE_AT + 8, g_bytes_get_size(config->initrd));
    }
    put_map(info, config);
    image->info = BOOT_START_INFO;
    return boot_image_add_copy(image, config, BOOT_START_INFO, info, sizeof(info),
                               "the PVH start info", errp);
}
