/*
 * Static 64-bit ELF kernels. Each PT_LOAD segment is placed at its physical address. A kernel with
 * the Xen note PHYS32_ENTRY is entered by the PVH protocol; one without at e_entry in long mode.
 * Both are given the PVH start info, in EBX (RBX).
 *
 * ELF header (64 bytes)                       program header (56 bytes)
 *    0  7f 'E' 'L' 'F', class 2, data 1          0  u32 type: 1 LOAD, 4 NOTE
 *   16  u16 type: 2 = EXEC                       8  u64 offset in the file
 *   18  u16 machine: 62 = x86-64                16  u64 virtual address
 *   24  u64 entry                               24  u64 physical address
 *   32  u64 offset of program headers           32  u64 bytes in the file
 *   54  u16 bytes of one                        40  u64 bytes in memory
 *   56  u16 number of them                      48  u64 alignment
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "hw/x86/boot.h"
#include "util/bswap.h"

#define ELF_HEADER_BYTES 64
#define PROGRAM_HEADER_BYTES 56
#define PROGRAM_HEADERS_MAX 256

#define CLASS_64 2
#define DATA_LITTLE_ENDIAN 1
#define TYPE_EXEC 2
#define MACHINE_X86_64 62
#define SEGMENT_LOAD 1
#define SEGMENT_NOTE 4

#define NOTE_PHYS32_ENTRY 18

typedef struct Elf {
    const char *name;
    GBytes *file;
    const uint8_t *data;
    size_t size;
    uint64_t entry, headers;
    unsigned n_headers;
} Elf;

typedef struct Segment {
    uint32_t type;
    uint64_t offset, vaddr, paddr, file_bytes, memory_bytes, align;
} Segment;

bool boot_is_elf(GBytes *file)
{
    size_t size;
    const void *data = g_bytes_get_data(file, &size);

    return size >= 4 && !memcmp(data, "\177ELF", 4);
}

static int parse_header(Elf *elf, Error **errp)
{
    const uint8_t *p = elf->data;
    uint64_t end;

    if (elf->size < ELF_HEADER_BYTES) {
        error_setg(errp, "Kernel '%s' is truncated: an ELF header has 64 bytes, the file %zu",
                   elf->name, elf->size);
        return -1;
    }
    if (p[4] != CLASS_64 || p[5] != DATA_LITTLE_ENDIAN || lduw_le_p(p + 18) != MACHINE_X86_64) {
        error_setg(errp, "Kernel '%s' is not a 64-bit x86 ELF file (class %u, machine %u)",
                   elf->name, p[4], lduw_le_p(p + 18));
        return -1;
    }
    if (lduw_le_p(p + 16) != TYPE_EXEC) {
        error_setg(errp, "Kernel '%s' is not a static executable (ELF type %u)", elf->name,
                   lduw_le_p(p + 16));
        return -1;
    }
    elf->entry = ldq_le_p(p + 24);
    elf->headers = ldq_le_p(p + 32);
    elf->n_headers = lduw_le_p(p + 56);
    if (lduw_le_p(p + 54) != PROGRAM_HEADER_BYTES || elf->n_headers == 0 ||
        elf->n_headers > PROGRAM_HEADERS_MAX) {
        error_setg(errp, "Kernel '%s' has %u program headers of %u bytes; 1 to %u of %u are "
                   "expected", elf->name, elf->n_headers, lduw_le_p(p + 54), PROGRAM_HEADERS_MAX,
                   PROGRAM_HEADER_BYTES);
        return -1;
    }
    if (__builtin_add_overflow(elf->headers, elf->n_headers * PROGRAM_HEADER_BYTES, &end) ||
        end > elf->size) {
        error_setg(errp, "Kernel '%s' is truncated: its program headers lie beyond the end of the "
                   "file", elf->name);
        return -1;
    }
    return 0;
}

static Segment get_segment(const Elf *elf, unsigned i)
{
    const uint8_t *p = elf->data + elf->headers + i * PROGRAM_HEADER_BYTES;

    return (Segment){
        .type = ldl_le_p(p),
        .offset = ldq_le_p(p + 8),
        .vaddr = ldq_le_p(p + 16),
        .paddr = ldq_le_p(p + 24),
        .file_bytes = ldq_le_p(p + 32),
        .memory_bytes = ldq_le_p(p + 40),
        .align = ldq_le_p(p + 48),
    };
}

static int check_segment(const Elf *elf, unsigned i, const Segment *segment, Error **errp)
{
    uint64_t end;

    if (__builtin_add_overflow(segment->offset, segment->file_bytes, &end) || end > elf->size) {
        error_setg(errp, "Kernel '%s' is truncated: segment %u lies beyond the end of the file",
                   elf->name, i);
        return -1;
    }
    if (segment->type == SEGMENT_LOAD && segment->file_bytes > segment->memory_bytes) {
        error_setg(errp, "Kernel '%s': segment %u has 0x%" PRIx64 " bytes in the file but only 0x%"
                   PRIx64 " in memory", elf->name, i, segment->file_bytes, segment->memory_bytes);
        return -1;
    }
    return 0;
}

static int load_segment(const Elf *elf, unsigned i, const Segment *segment, BootImage *image,
                        const BootConfig *config, Error **errp)
{
    g_autoptr(GBytes) data = g_bytes_new_from_bytes(elf->file, segment->offset,
                                                    segment->file_bytes);
    g_autofree char *what = g_strdup_printf("Segment %u of kernel '%s'", i, elf->name);

    return boot_image_add(image, config, segment->paddr, data, segment->memory_bytes, what, errp);
}

/*
 * Look through a note segment: u32 name bytes, u32 value bytes, u32 type, then name and value, each
 * padded. A note that does not fit ends the search.
 */
static bool find_pvh_note(const Elf *elf, const Segment *segment, uint64_t *entry)
{
    const uint8_t *p = elf->data + segment->offset;
    uint64_t left = segment->file_bytes, align = segment->align == 8 ? 8 : 4;

    while (left >= 12) {
        uint64_t name_bytes = ldl_le_p(p), value_bytes = ldl_le_p(p + 4);
        uint64_t value_at = (12 + name_bytes + align - 1) & ~(align - 1);
        uint64_t end = (value_at + value_bytes + align - 1) & ~(align - 1);

        if (value_at + value_bytes > left) {
            return false;
        }
        if (ldl_le_p(p + 8) == NOTE_PHYS32_ENTRY && name_bytes == 4 && !memcmp(p + 12, "Xen", 4) &&
            (value_bytes == 4 || value_bytes == 8)) {
            *entry = value_bytes == 4 ? ldl_le_p(p + value_at) : ldq_le_p(p + value_at);
            return true;
        }
        if (end >= left) {
            return false;
        }
        p += end;
        left -= end;
    }
    return false;
}

/* Where the entry point is in physical memory: e_entry may be given as either kind of address. */
static int resolve_entry(const Elf *elf, uint64_t *entry, bool pvh, Error **errp)
{
    for (unsigned i = 0; i < elf->n_headers; i++) {
        Segment segment = get_segment(elf, i);

        if (segment.type == SEGMENT_LOAD && *entry - segment.paddr < segment.memory_bytes) {
            if (pvh && *entry > UINT32_MAX) {
                break;
            }
            return 0;
        }
    }
    for (unsigned i = 0; i < elf->n_headers && !pvh; i++) {
        Segment segment = get_segment(elf, i);

        if (segment.type == SEGMENT_LOAD && *entry - segment.vaddr < segment.memory_bytes) {
            *entry = *entry - segment.vaddr + segment.paddr;
            return 0;
        }
    }
    error_setg(errp, "Kernel '%s': its %s 0x%" PRIx64 " is in none of its segments%s", elf->name,
               pvh ? "PVH entry point" : "entry point", *entry, pvh ? " below 4 GiB" : "");
    return -1;
}

static int load_segments(const Elf *elf, BootImage *image, const BootConfig *config, bool *has_pvh,
                         uint64_t *pvh_entry, Error **errp)
{
    unsigned loaded = 0;

    for (unsigned i = 0; i < elf->n_headers; i++) {
        Segment segment = get_segment(elf, i);

        if (segment.type != SEGMENT_LOAD && segment.type != SEGMENT_NOTE) {
            continue;
        }
        if (check_segment(elf, i, &segment, errp) < 0) {
            return -1;
        }
        if (segment.type == SEGMENT_NOTE) {
            *has_pvh = *has_pvh || find_pvh_note(elf, &segment, pvh_entry);
            continue;
        }
        if (load_segment(elf, i, &segment, image, config, errp) < 0) {
            return -1;
        }
        loaded++;
    }
    if (!loaded) {
        error_setg(errp, "Kernel '%s' has nothing to load", elf->name);
        return -1;
    }
    return 0;
}

BootImage *boot_elf_load(const BootConfig *config, GBytes *file, const char *name, Error **errp)
{
    g_autoptr(BootImage) image = boot_image_new();
    Elf elf = { .name = name, .file = file };
    uint64_t pvh_entry = 0;
    bool has_pvh = false;
    int ret;

    elf.data = g_bytes_get_data(file, &elf.size);
    if (parse_header(&elf, errp) < 0 ||
        load_segments(&elf, image, config, &has_pvh, &pvh_entry, errp) < 0) {
        return NULL;
    }
    image->entry = has_pvh ? pvh_entry : elf.entry;
    image->setup_cpu = has_pvh ? boot_cpu_protected : boot_cpu_long;
    if (resolve_entry(&elf, &image->entry, has_pvh, errp) < 0) {
        return NULL;
    }
    ret = has_pvh ? boot_image_add_protected_mode(image, config, errp)
                  : boot_image_add_long_mode(image, config, errp);
    if (ret < 0 || boot_image_add_start_info(image, config, errp) < 0) {
        return NULL;
    }
    return g_steal_pointer(&image);
}
