/*
 * What the boot protocols share: a list of pieces of memory that never overlap and always lie in
 * RAM, and the three states in which a processor can be handed over. The descriptor table is the
 * same for protected and long mode and its selectors are those that Linux wants: 0x10 code, 0x18
 * data.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "hw/x86/boot.h"
#include "system/memory.h"
#include "util/bswap.h"

#define GIB (1024ull * 1024 * 1024)

#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TSS  0x20
#define GDT_BYTES     0x30

#define CR0_PE 0x1u
#define CR0_ET 0x10u
#define CR0_LONG 0x80050033u            /* PG, AM, WP, NE, ET, MP, PE */
#define CR4_LONG 0x620u                 /* PAE, OSFXSR, OSXMMEXCPT */
#define EFER_LONG 0x500u                /* LME, LMA */

#define PTE_PRESENT_WRITE_USER 7u
#define PTE_LARGE 0x80u
#define PAGE_BYTES 4096u
#define LARGE_PAGE_BYTES (2u * 1024 * 1024)

/* ---- pieces ---- */

BootImage *boot_image_new(void)
{
    BootImage *image = g_new0(BootImage, 1);

    image->pieces = g_array_new(FALSE, FALSE, sizeof(BootPiece));
    return image;
}

void boot_image_free(BootImage *image)
{
    if (!image) {
        return;
    }
    for (guint i = 0; i < image->pieces->len; i++) {
        BootPiece *piece = &g_array_index(image->pieces, BootPiece, i);

        g_clear_pointer(&piece->data, g_bytes_unref);
        g_free(piece->what);
    }
    g_array_free(image->pieces, TRUE);
    g_free(image);
}

static bool lies_in_ram(const BootConfig *config, uint64_t gpa, uint64_t size)
{
    uint64_t end;

    if (__builtin_add_overflow(gpa, size, &end)) {
        return false;
    }
    return end <= config->below_4g ||
           (gpa >= 4 * GIB && end - 4 * GIB <= config->above_4g);
}

static const BootPiece *overlapping(const BootImage *image, uint64_t gpa, uint64_t size)
{
    for (guint i = 0; i < image->pieces->len; i++) {
        const BootPiece *piece = &g_array_index(image->pieces, BootPiece, i);

        if (gpa < piece->gpa + piece->size && piece->gpa < gpa + size) {
            return piece;
        }
    }
    return NULL;
}

static int add_piece(BootImage *image, const BootConfig *config, BootPiece piece, const char *what,
                     Error **errp)
{
    uint64_t gpa = piece.gpa, size = piece.size;
    const BootPiece *other;

    if (size == 0) {
        return 0;
    }
    if (!lies_in_ram(config, gpa, size)) {
        error_setg(errp, "%s does not fit into RAM: it needs 0x%" PRIx64 " bytes at 0x%" PRIx64,
                   what, size, gpa);
        return -1;
    }
    other = overlapping(image, gpa, size);
    if (other) {
        error_setg(errp, "%s at 0x%" PRIx64 " (0x%" PRIx64 " bytes) overlaps %s at 0x%" PRIx64
                   " (0x%" PRIx64 " bytes)", what, gpa, size, other->what, other->gpa, other->size);
        return -1;
    }
    if (piece.data) {
        g_bytes_ref(piece.data);
    }
    piece.what = g_strdup(what);
    g_array_append_val(image->pieces, piece);
    return 0;
}

int boot_image_add(BootImage *image, const BootConfig *config, uint64_t gpa, GBytes *data,
                   uint64_t size, const char *what, Error **errp)
{
    g_assert(size >= (data ? g_bytes_get_size(data) : 0));
    return add_piece(image, config, (BootPiece){ .gpa = gpa, .size = size, .data = data }, what,
                     errp);
}

int boot_image_reserve(BootImage *image, const BootConfig *config, uint64_t gpa, uint64_t size,
                       const char *what, Error **errp)
{
    return add_piece(image, config,
                     (BootPiece){ .gpa = gpa, .size = size, .reserve_only = true }, what, errp);
}

int boot_image_add_copy(BootImage *image, const BootConfig *config, uint64_t gpa, const void *data,
                        uint64_t size, const char *what, Error **errp)
{
    g_autoptr(GBytes) bytes = g_bytes_new(data, size);

    return boot_image_add(image, config, gpa, bytes, size, what, errp);
}

int boot_image_add_cmdline(BootImage *image, const BootConfig *config, uint64_t max_bytes,
                           Error **errp)
{
    size_t bytes = strlen(config->cmdline) + 1;

    max_bytes = MIN(max_bytes, BOOT_CMDLINE_MAX);
    if (bytes > max_bytes) {
        error_setg(errp, "The kernel command line is too long: %zu bytes, at most %" PRIu64
                   " are possible", bytes - 1, max_bytes - 1);
        return -1;
    }
    return boot_image_add_copy(image, config, BOOT_CMDLINE, config->cmdline, bytes,
                               "the kernel command line", errp);
}

/*
 * Go down from the top until the initrd meets no piece; each piece met moves the top below itself,
 * so this ends.
 */
int boot_image_add_initrd(BootImage *image, const BootConfig *config, uint64_t max_address,
                          uint64_t *gpa, Error **errp)
{
    uint64_t top = MIN(config->below_4g, max_address == UINT64_MAX ? UINT64_MAX : max_address + 1);
    uint64_t size;
    g_autofree char *what = NULL;

    *gpa = 0;
    if (!config->initrd) {
        return 0;
    }
    size = g_bytes_get_size(config->initrd);
    what = g_strdup_printf("initrd '%s'", config->initrd_name);
    for (;;) {
        uint64_t start = top < size ? 0 : (top - size) & ~(uint64_t)(PAGE_BYTES - 1);
        const BootPiece *other;

        if (start < BOOT_HIGH_START) {
            error_setg(errp, "%s (%" PRIu64 " bytes) does not fit into RAM beside the kernel", what,
                       size);
            return -1;
        }
        other = overlapping(image, start, size);
        if (!other) {
            *gpa = start;
            return boot_image_add(image, config, start, config->initrd, size, what, errp);
        }
        top = other->gpa;
    }
}

/* ---- what every protocol may need in low memory ---- */

static void make_page_tables(uint8_t tables[6 * PAGE_BYTES])
{
    uint8_t *pml4 = tables, *pdpt = tables + PAGE_BYTES, *directories = tables + 2 * PAGE_BYTES;

    stq_le_p(pml4, (BOOT_PAGE_TABLES + PAGE_BYTES) | PTE_PRESENT_WRITE_USER);
    for (unsigned i = 0; i < 4; i++) {
        stq_le_p(pdpt + i * 8,
                 (BOOT_PAGE_TABLES + (2 + i) * PAGE_BYTES) | PTE_PRESENT_WRITE_USER);
    }
    for (unsigned i = 0; i < 4 * 512; i++) {
        stq_le_p(directories + i * 8,
                 (uint64_t)i * LARGE_PAGE_BYTES | PTE_LARGE | PTE_PRESENT_WRITE_USER);
    }
}

static int add_gdt(BootImage *image, const BootConfig *config, bool long_mode, Error **errp)
{
    uint8_t gdt[GDT_BYTES] = {};

    /* Flat, 4 GiB, present, ring 0: code (execute, read), data (read, write), a task segment. */
    stq_le_p(gdt + SELECTOR_CODE, long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
    stq_le_p(gdt + SELECTOR_DATA, 0x00cf93000000ffff);
    stq_le_p(gdt + SELECTOR_TSS, 0x00008b0000000067);
    return boot_image_add_copy(image, config, BOOT_GDT, gdt, sizeof(gdt),
                               "the boot descriptor table", errp);
}

int boot_image_add_protected_mode(BootImage *image, const BootConfig *config, Error **errp)
{
    return add_gdt(image, config, false, errp);
}

int boot_image_add_long_mode(BootImage *image, const BootConfig *config, Error **errp)
{
    g_autofree uint8_t *tables = g_malloc0(6 * PAGE_BYTES);

    make_page_tables(tables);
    if (boot_image_add_copy(image, config, BOOT_PAGE_TABLES, tables, 6 * PAGE_BYTES,
                            "the boot page tables", errp) < 0) {
        return -1;
    }
    return add_gdt(image, config, true, errp);
}

unsigned boot_memory_map(const BootConfig *config, BootMapEntry map[BOOT_MAP_MAX])
{
    unsigned n = 0;

    map[n++] = (BootMapEntry){ 0, BOOT_EBDA, BOOT_E820_RAM };
    map[n++] = (BootMapEntry){ BOOT_EBDA, 0xa0000 - BOOT_EBDA, BOOT_E820_RESERVED };
    map[n++] = (BootMapEntry){ BOOT_FIRMWARE_START, BOOT_HIGH_START - BOOT_FIRMWARE_START,
                               BOOT_E820_RESERVED };
    if (config->below_4g > BOOT_HIGH_START) {
        map[n++] = (BootMapEntry){ BOOT_HIGH_START, config->below_4g - BOOT_HIGH_START,
                                   BOOT_E820_RAM };
    }
    if (config->above_4g) {
        map[n++] = (BootMapEntry){ 4 * GIB, config->above_4g, BOOT_E820_RAM };
    }
    return n;
}

/* ---- installing ---- */

static void install_piece(const BootPiece *piece)
{
    size_t bytes = 0;
    const void *data = piece->data ? g_bytes_get_data(piece->data, &bytes) : NULL;

    if (bytes) {
        address_space_write(piece->gpa, data, bytes);
    }
    if (piece->size > bytes) {
        address_space_set(piece->gpa + bytes, 0, piece->size - bytes);
    }
}

void boot_image_install(const BootImage *image, X86CPUState *env)
{
    for (guint i = 0; i < image->pieces->len; i++) {
        const BootPiece *piece = &g_array_index(image->pieces, BootPiece, i);

        if (!piece->reserve_only) {
            install_piece(piece);
        }
    }
    image->setup_cpu(env, image->entry, image->info);
}

/* ---- processor states ---- */

static void flat_segments(X86CPUState *env, bool long_mode)
{
    X86Segment data = { .selector = SELECTOR_DATA, .limit = UINT32_MAX, .type = 3, .s = 1,
                        .present = 1, .db = 1, .g = 1 };

    for (int i = 0; i < SEG_LDT; i++) {
        env->seg[i] = data;
    }
    env->seg[SEG_CS] = (X86Segment){ .selector = SELECTOR_CODE, .limit = UINT32_MAX, .type = 11,
                                     .s = 1, .present = 1, .db = !long_mode, .l = long_mode,
                                     .g = 1 };
    env->seg[SEG_TR] = (X86Segment){ .selector = SELECTOR_TSS, .limit = 0x67, .type = 11,
                                     .present = 1 };
    env->seg[SEG_LDT] = (X86Segment){ .limit = 0xffff, .type = 2, .present = 1 };
}

/*
 * PVH: paging off, flat segments, EBX = start info; what is not said there is left as reset has it.
 */
void boot_cpu_protected(X86CPUState *env, uint64_t entry, uint64_t info)
{
    flat_segments(env, false);
    env->gdt = (X86Table){ .base = BOOT_GDT, .limit = GDT_BYTES - 1 };
    env->idt = (X86Table){ .base = 0, .limit = 0 };
    env->cr0 = CR0_PE | CR0_ET;
    env->rip = entry;
    env->regs[R_RBX] = info;
    env->regs[R_RDX] = 0;
}

void boot_cpu_long(X86CPUState *env, uint64_t entry, uint64_t info)
{
    flat_segments(env, true);
    env->gdt = (X86Table){ .base = BOOT_GDT, .limit = GDT_BYTES - 1 };
    env->idt = (X86Table){ .base = 0, .limit = 0 };
    env->cr0 = CR0_LONG;
    env->cr3 = BOOT_PAGE_TABLES;
    env->cr4 = CR4_LONG;
    env->efer = EFER_LONG;
    env->rip = entry;
    env->regs[R_RSP] = BOOT_STACK_TOP;
    env->regs[R_RBX] = info;
    env->regs[R_RSI] = info;
    env->regs[R_RDX] = 0;
}

void boot_cpu_real(X86CPUState *env, uint64_t entry, uint64_t info)
{
    for (int i = 0; i < SEG_LDT; i++) {
        env->seg[i].selector = 0;
        env->seg[i].base = 0;
    }
    env->idt = (X86Table){ .base = 0, .limit = 0x3ff };
    env->rip = entry;
    env->regs[R_RSP] = entry;
    env->regs[R_RDX] = info;
}

BootImage *boot_kernel_load(const BootConfig *config, GBytes *file, const char *name, Error **errp)
{
    if (boot_is_elf(file)) {
        return boot_elf_load(config, file, name, errp);
    }
    if (boot_is_linux(file)) {
        return boot_linux_load(config, file, name, errp);
    }
    return boot_flat_load(config, file, name, errp);
}
