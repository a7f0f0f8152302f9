/*
 * Booting without firmware: what is placed in guest memory, and in which state the first vCPU
 * starts.
 *
 * A boot protocol (boot-elf.c, boot-linux.c, boot-flat.c, boot-sector.c) reads its file once,
 * checks every number in it, and describes the result in a BootImage. At each reset
 * boot_image_install() writes the image into guest memory and sets the vCPU, so that a guest which
 * overwrote its kernel starts from a fresh one.
 *
 * Where things lie below 1 MiB is in the table below; a kernel must not overlap what its protocol
 * uses.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_X86_BOOT_H
#define HW_X86_BOOT_H

#include <glib.h>
#include "system/cpu-state.h"
#include "system/machine.h"
#include "util/error.h"

/* Guest physical addresses. */
#define BOOT_START_INFO     0x6000u     /* PVH start info, modules and memory map: one page */
#define BOOT_ZERO_PAGE      0x7000u     /* Linux boot_params: one page */
#define BOOT_GDT            0x8000u     /* one page */
#define BOOT_PAGE_TABLES    0x9000u     /* identity map of the first 4 GiB: six pages */
#define BOOT_STACK_TOP      0x20000u    /* the stack grows down from here, 64 KiB */
#define BOOT_CMDLINE        0x20000u
#define BOOT_CMDLINE_MAX    0x10000u    /* bytes with the final NUL */
#define BOOT_AREA_END       0x30000u
#define BOOT_EBDA           0x9fc00u    /* end of conventional memory; the MP table */
#define BOOT_FIRMWARE_START 0xe0000u    /* to 1 MiB: where firmware would be; the ACPI tables */
#define BOOT_HIGH_START     0x100000u   /* 1 MiB: where kernels begin */

#define BOOT_LOCAL_APIC     0xfee00000u
#define BOOT_IO_APIC        0xfec00000u

#define BOOT_E820_RAM       1
#define BOOT_E820_RESERVED  2
#define BOOT_MAP_MAX        8

typedef struct BootMapEntry {
    uint64_t start, size;
    uint32_t type;
} BootMapEntry;

/*
 * RAM as the guest will see it, and what is known about the machine before a kernel is looked at.
 */
typedef struct BootConfig {
    uint64_t below_4g, above_4g;        /* bytes of RAM from 0 and from 4 GiB */
    unsigned cpus;
    const char *cmdline;                /* "" when none was given */
    GBytes *initrd;                     /* or NULL */
    const char *initrd_name;
    uint64_t rsdp;                      /* where ACPI's root pointer is, 0: nowhere */
} BootConfig;

/* Bytes to place: @data, then zeroes up to @size. */
typedef struct BootPiece {
    uint64_t gpa, size;
    GBytes *data;                       /* or NULL: all zeroes */
    bool reserve_only;                  /* its contents do not matter */
    char *what;
} BootPiece;

typedef struct BootImage {
    GArray *pieces;                     /* of BootPiece, disjoint */
    void (*setup_cpu)(X86CPUState *env, uint64_t entry, uint64_t info);
    uint64_t entry;
    uint64_t info;                      /* start info or zero page, for setup_cpu */
} BootImage;

/* An image without pieces; whoever made it frees it, with the bytes that its pieces refer to. */
BootImage *boot_image_new(void);
void boot_image_free(BootImage *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BootImage, boot_image_free)

/*
 * boot_image_add:
 * @data: the bytes; a reference is taken; NULL for none
 * @size: bytes in guest memory, at least those of @data; the rest becomes zero
 * @what: names the piece in messages: "segment 2 of 'vmlinux'"
 *
 * Fails when the piece does not lie in RAM as a whole, or overlaps one that was added before.
 */
int boot_image_add(BootImage *image, const BootConfig *config, uint64_t gpa, GBytes *data,
                   uint64_t size, const char *what, Error **errp);
/* Keep a range free of other pieces; its contents are not set. */
int boot_image_reserve(BootImage *image, const BootConfig *config, uint64_t gpa, uint64_t size,
                       const char *what, Error **errp);
/* The same as boot_image_add() for bytes in memory, which are copied. */
int boot_image_add_copy(BootImage *image, const BootConfig *config, uint64_t gpa, const void *data,
                        uint64_t size, const char *what, Error **errp);
/* Descriptor table; for long mode also the identity map. */
int boot_image_add_protected_mode(BootImage *image, const BootConfig *config, Error **errp);
int boot_image_add_long_mode(BootImage *image, const BootConfig *config, Error **errp);
/* The command line, with its NUL. */
int boot_image_add_cmdline(BootImage *image, const BootConfig *config, uint64_t max_bytes,
                           Error **errp);
/* Start info of the PVH protocol with command line, initrd (placed by this) and memory map. */
int boot_image_add_start_info(BootImage *image, const BootConfig *config, Error **errp);
/*
 * Place the initrd as high as RAM below 4 GiB and @max_address (its last byte) allow, page aligned,
 * clear of all pieces so far. *@gpa is where; 0 when there is none.
 */
int boot_image_add_initrd(BootImage *image, const BootConfig *config, uint64_t max_address,
                          uint64_t *gpa, Error **errp);

/* The memory map a guest is told, ascending. Returns the number of entries. */
unsigned boot_memory_map(const BootConfig *config, BootMapEntry map[BOOT_MAP_MAX]);

/*
 * The multiprocessor table (MP specification 1.4), for guests that look for it below 640 KiB.
 * @level_lines: a bit for each ISA line that is level-triggered and active high.
 */
GBytes *boot_mp_table(unsigned cpus, uint64_t gpa, uint32_t level_lines);
/*
 * The ACPI tables of the machine with the devices that it has now, to be placed at @gpa: RSDP
 * first.
 */
GBytes *boot_acpi_tables(unsigned cpus, uint64_t gpa);

/*
 * Write all pieces to guest memory and put the first vCPU into the protocol's state; @env has been
 * reset. Cannot fail: everything was checked when it was added.
 */
void boot_image_install(const BootImage *image, X86CPUState *env);

/* The states: @info in RBX (and RSI), entry point @entry. */
void boot_cpu_protected(X86CPUState *env, uint64_t entry, uint64_t info);
void boot_cpu_long(X86CPUState *env, uint64_t entry, uint64_t info);
void boot_cpu_real(X86CPUState *env, uint64_t entry, uint64_t info);

/*
 * The protocols. @file: the whole file; @name: its name for messages. Each checks everything before
 * it returns an image.
 */
BootImage *boot_elf_load(const BootConfig *config, GBytes *file, const char *name, Error **errp);
BootImage *boot_linux_load(const BootConfig *config, GBytes *file, const char *name, Error **errp);
/* Anything else: loaded and entered at 1 MiB, in long mode, RBX = start info. */
BootImage *boot_flat_load(const BootConfig *config, GBytes *file, const char *name, Error **errp);
/*
 * @sector: the first 512 bytes of a disk. Loaded and entered at 0000:7c00 in real mode, DL = 0x80.
 */
BootImage *boot_sector_load(const BootConfig *config, GBytes *sector, const char *name,
                            Error **errp);

/* Whether the file begins as such a kernel does. */
bool boot_is_elf(GBytes *file);
bool boot_is_linux(GBytes *file);

/* By its first bytes: ELF, Linux, or flat. */
BootImage *boot_kernel_load(const BootConfig *config, GBytes *file, const char *name, Error **errp);

#endif
