/*
 * Linux bzImages by the 64-bit boot protocol (the kernel's Documentation/arch/x86/boot.rst). The
 * file is a real-mode part that only its header is read of, then the kernel proper, which is
 * entered 0x200 bytes after its beginning with RSI at the zero page. Of the header, at 0x1f1 in
 * file and zero page:
 *
 *    0x1f1 u8  sectors of the real-mode part     0x22c u32 last address for an initrd
 *    0x1fe u16 0xaa55                            0x230 u32 alignment of the kernel
 *    0x201 u8  the header ends at 0x202 + this   0x234 u8  relocatable
 *    0x202     "HdrS"                            0x236 u16 bit 0: has the 64-bit entry
 *    0x206 u16 version of the protocol           0x238 u32 longest command line
 *    0x210 u8  loader (0xff: unknown)            0x258 u64 preferred address
 *    0x211 u8  flags (1: loaded high)            0x260 u32 bytes it needs there
 *    0x218 u32 initrd, its size (0x21c)          0x1e8 u8, 0x2d0: E820 entries of 20 bytes
 *    0x228 u32 command line                      0x070 u64 ACPI's root pointer
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "hw/x86/boot.h"
#include "util/bswap.h"

#define SECTOR_BYTES 512u
#define HEADER_AT 0x1f1u
#define HEADER_END_MIN 0x264u           /* up to and with init_size */
#define HEADER_END_MAX 0x290u
#define ZERO_PAGE_BYTES 4096u
#define VERSION_MIN 0x20cu              /* the first with the 64-bit entry flag */
#define HAS_64BIT_ENTRY 1u
#define ENTRY_64_OFFSET 0x200u
#define DEFAULT_SECTORS 4u
#define E820_BYTES 20u

typedef struct BzImage {
    const char *name;
    const uint8_t *data;
    size_t size;
    size_t kernel_at;                   /* in the file */
    unsigned header_end;
    uint64_t init_bytes, preferred, alignment;
    uint64_t load;
} BzImage;

bool boot_is_linux(GBytes *file)
{
    size_t size;
    const uint8_t *data = g_bytes_get_data(file, &size);

    return size >= 0x206 && lduw_le_p(data + 0x1fe) == 0xaa55 && !memcmp(data + 0x202, "HdrS", 4);
}

static int parse_header(BzImage *bz, Error **errp)
{
    const uint8_t *p = bz->data;
    unsigned version = lduw_le_p(p + 0x206), sectors = p[0x1f1] ? p[0x1f1] : DEFAULT_SECTORS;

    bz->header_end = 0x202 + p[0x201];
    if (bz->size < HEADER_END_MAX) {
        error_setg(errp, "Kernel '%s' is truncated: its header is cut short", bz->name);
        return -1;
    }
    if (version < VERSION_MIN || !(lduw_le_p(p + 0x236) & HAS_64BIT_ENTRY)) {
        error_setg(errp, "Kernel '%s' has no 64-bit entry point (boot protocol %u.%02u)",
                   bz->name, version >> 8, version & 0xff);
        return -1;
    }
    if (bz->header_end < HEADER_END_MIN || bz->header_end > HEADER_END_MAX) {
        error_setg(errp, "Kernel '%s' has a header that ends at 0x%x; 0x%x to 0x%x is expected",
                   bz->name, bz->header_end, HEADER_END_MIN, HEADER_END_MAX);
        return -1;
    }
    bz->kernel_at = (sectors + 1) * SECTOR_BYTES;
    if (bz->kernel_at + ENTRY_64_OFFSET >= bz->size) {
        error_setg(errp, "Kernel '%s' is truncated: %u sectors of set-up code leave no kernel in "
                   "%zu bytes", bz->name, sectors, bz->size);
        return -1;
    }
    bz->init_bytes = MAX(ldl_le_p(p + 0x260), bz->size - bz->kernel_at);
    bz->preferred = ldq_le_p(p + 0x258);
    bz->alignment = ldl_le_p(p + 0x230);
    if (bz->alignment & (bz->alignment - 1)) {
        error_setg(errp, "Kernel '%s' asks for an alignment of 0x%" PRIx64 ", no power of two",
                   bz->name, bz->alignment);
        return -1;
    }
    return 0;
}

/* Where it prefers to be; when RAM ends before, as low as its alignment allows, if it may move. */
static void choose_address(BzImage *bz, const BootConfig *config)
{
    uint64_t end, alignment = MAX(bz->alignment, 4096);

    bz->load = bz->preferred;
    if (bz->data[0x234] &&
        (bz->load < BOOT_HIGH_START ||
         __builtin_add_overflow(bz->load, bz->init_bytes, &end) || end > config->below_4g)) {
        bz->load = (BOOT_HIGH_START + alignment - 1) & ~(alignment - 1);
    }
}

static int place_kernel(const BzImage *bz, GBytes *file, BootImage *image,
                        const BootConfig *config, Error **errp)
{
    size_t kernel_bytes = bz->size - bz->kernel_at;
    g_autoptr(GBytes) kernel = g_bytes_new_from_bytes(file, bz->kernel_at, kernel_bytes);
    g_autofree char *what = g_strdup_printf("Kernel '%s'", bz->name);
    g_autofree char *room = g_strdup_printf("the working memory of kernel '%s'", bz->name);

    if (boot_image_add(image, config, bz->load, kernel, kernel_bytes, what, errp) < 0) {
        return -1;
    }
    return boot_image_reserve(image, config, bz->load + kernel_bytes,
                              bz->init_bytes - kernel_bytes, room, errp);
}

static void put_e820(uint8_t *page, const BootConfig *config)
{
    BootMapEntry map[BOOT_MAP_MAX];
    unsigned n = boot_memory_map(config, map);

    page[0x1e8] = n;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = page + 0x2d0 + i * E820_BYTES;

        stq_le_p(p, map[i].start);
        stq_le_p(p + 8, map[i].size);
        stl_le_p(p + 16, map[i].type);
    }
}

static int place_zero_page(const BzImage *bz, BootImage *image, const BootConfig *config,
                           uint64_t initrd, Error **errp)
{
    uint8_t page[ZERO_PAGE_BYTES] = {};

    memcpy(page + HEADER_AT, bz->data + HEADER_AT, bz->header_end - HEADER_AT);
    stw_le_p(page + 0x1fa, 0xffff);     /* video mode: as it is */
    stq_le_p(page + 0x70, config->rsdp);
    page[0x210] = 0xff;
    page[0x211] |= 1;
    stl_le_p(page + 0x214, bz->load);
    stl_le_p(page + 0x218, initrd);
    stl_le_p(page + 0x21c, initrd ? g_bytes_get_size(config->initrd) : 0);
    stl_le_p(page + 0x228, BOOT_CMDLINE);
    put_e820(page, config);
    image->info = BOOT_ZERO_PAGE;
    return boot_image_add_copy(image, config, BOOT_ZERO_PAGE, page, sizeof(page),
                               "the zero page", errp);
}

BootImage *boot_linux_load(const BootConfig *config, GBytes *file, const char *name, Error **errp)
{
    g_autoptr(BootImage) image = boot_image_new();
    BzImage bz = { .name = name };
    uint64_t initrd, initrd_max, cmdline_max;

    bz.data = g_bytes_get_data(file, &bz.size);
    if (parse_header(&bz, errp) < 0) {
        return NULL;
    }
    choose_address(&bz, config);
    initrd_max = ldl_le_p(bz.data + 0x22c);
    cmdline_max = (uint64_t)ldl_le_p(bz.data + 0x238) + 1;
    if (place_kernel(&bz, file, image, config, errp) < 0 ||
        boot_image_add_long_mode(image, config, errp) < 0 ||
        boot_image_add_cmdline(image, config, cmdline_max, errp) < 0 ||
        boot_image_add_initrd(image, config, initrd_max, &initrd, errp) < 0 ||
        place_zero_page(&bz, image, config, initrd, errp) < 0) {
        return NULL;
    }
    image->entry = bz.load + ENTRY_64_OFFSET;
    image->setup_cpu = boot_cpu_long;
    return g_steal_pointer(&image);
}
