/*
 * What the loader tells: command line and memory map from the PVH start info, or, when there is
 * none, memory sizes from the CMOS as firmware has kept them since the first PCs.
 *
 * Everything is copied out of low memory at once, because the trampoline of the other processors is
 * put there later. RAM below the end of the guest's image is never handed out.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest.h"

#define START_INFO_MAGIC 0x336ec578u
#define MEMMAP_RAM 1
#define SEGMENTS_MAX 8
#define MAPPED_2M (64ull << 30)         /* start.S maps so much in 2 MiB pages, */
#define MAPPED_1G (512ull << 30)        /* and so much with 1 GiB pages */

typedef struct StartInfo {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp;
    uint64_t memmap;                    /* from version 1 */
    uint32_t memmap_entries, reserved;
} StartInfo;

typedef struct MemmapEntry {
    uint64_t addr, size;
    uint32_t type, reserved;
} MemmapEntry;

typedef struct Segment {
    uint64_t start, pages;
} Segment;

extern uint64_t start_info_address;
extern char image_end[];

static char cmdline[4096];
static Segment segments[SEGMENTS_MAX];
static unsigned n_segments;

uint8_t cmos_read(uint8_t index)
{
    out8(0x70, index);
    return in8(0x71);
}

static uint64_t mapped_end(void)
{
    uint32_t a, b, c, d;

    cpuid(0x80000000u, &a, &b, &c, &d);
    if (a < 0x80000001u) {
        return MAPPED_2M;
    }
    cpuid(0x80000001u, &a, &b, &c, &d);
    return d & (1u << 26) ? MAPPED_1G : MAPPED_2M;
}

static void add_ram(uint64_t start, uint64_t size)
{
    uint64_t low = ((uintptr_t)image_end + 0xfffff) & ~0xfffffull;
    uint64_t end = start + size;

    start = start < low ? low : (start + GUEST_PAGE_SIZE - 1) & ~(uint64_t)(GUEST_PAGE_SIZE - 1);
    if (end > mapped_end()) {
        end = mapped_end();
    }
    end &= ~(uint64_t)(GUEST_PAGE_SIZE - 1);
    if (end > start && n_segments < SEGMENTS_MAX) {
        segments[n_segments].start = start;
        segments[n_segments++].pages = (end - start) / GUEST_PAGE_SIZE;
    }
}

static void ram_from_cmos(void)
{
    uint64_t above_16m = cmos_read(0x34) | (uint64_t)cmos_read(0x35) << 8;
    uint64_t above_4g = cmos_read(0x5b) | (uint64_t)cmos_read(0x5c) << 8 |
                        (uint64_t)cmos_read(0x5d) << 16;

    if (above_16m != 0xffff) {
        add_ram(0, (16ull << 20) + (above_16m << 16));
    }
    if (above_4g != 0xffffff) {
        add_ram(4ull << 30, above_4g << 16);
    }
}

void boot_info_init(void)
{
    const StartInfo *info = (const StartInfo *)start_info_address;

    if (!start_info_address || start_info_address >= (4ull << 30) - sizeof(*info) ||
        info->magic != START_INFO_MAGIC) {
        ram_from_cmos();
        return;
    }
    if (info->cmdline) {
        const char *text = (const char *)info->cmdline;

        for (unsigned i = 0; i < sizeof(cmdline) - 1 && text[i]; i++) {
            cmdline[i] = text[i];
        }
    }
    if (info->version < 1 || !info->memmap_entries) {
        ram_from_cmos();
        return;
    }
    for (uint32_t i = 0; i < info->memmap_entries; i++) {
        const MemmapEntry *entry = (const MemmapEntry *)info->memmap + i;

        if (entry->type == MEMMAP_RAM) {
            add_ram(entry->addr, entry->size);
        }
    }
}

const char *boot_cmdline(void)
{
    return cmdline;
}

/* The number at @text, which must end with a space or the end of the text. */
static bool parse_number(const char *text, uint64_t *value)
{
    unsigned base = 10;
    bool any = false;

    *value = 0;
    if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        text += 2;
    }
    for (;; text++, any = true) {
        char c = *text;
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') :
                         c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 99;

        if (digit >= base) {
            break;
        }
        *value = *value * base + digit;
    }
    switch (*text) {
    case 'G':
        *value <<= 10;
        /* fall through */
    case 'M':
        *value <<= 10;
        /* fall through */
    case 'K':
        *value <<= 10;
        text++;
    }
    return any && (*text == 0 || *text == ' ');
}

uint64_t boot_option(const char *name, uint64_t fallback)
{
    size_t len = strlen(name);
    uint64_t value;

    for (const char *at = cmdline; *at;) {
        if (!strncmp(at, name, len) && at[len] == '=') {
            return parse_number(at + len + 1, &value) ? value : fallback;
        }
        while (*at && *at != ' ') {
            at++;
        }
        while (*at == ' ') {
            at++;
        }
    }
    return fallback;
}

uint64_t ram_pages(void)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < n_segments; i++) {
        pages += segments[i].pages;
    }
    return pages;
}

void *ram_page(uint64_t index)
{
    for (unsigned i = 0; i < n_segments; i++) {
        if (index < segments[i].pages) {
            return (void *)(segments[i].start + index * GUEST_PAGE_SIZE);
        }
        index -= segments[i].pages;
    }
    return NULL;
}
