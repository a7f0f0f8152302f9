/*
 * Boot protocols: what good kernels put where, in which state the processor starts, that a reset
 * puts everything back, and that every wrong kernel is refused by name and reason.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <string.h>
#include "hw/x86/boot.h"
#include "system/bql.h"
#include "system/memory.h"
#include "system/page-walk.h"
#include "util/bswap.h"

#define MIB (1024ull * 1024)
#define GIB (1024 * MIB)
#define RAM_BYTES (16 * MIB)
#define ELF_BYTES 0x3000
#define KERNEL_GPA 0x200000u
#define SEGMENT(i) (64 + (i) * 56)
#define NOTE_AT 0x2000

static BootConfig config = { .below_4g = RAM_BYTES, .cpus = 2, .cmdline = "one two" };
static X86CPUState env;

/* ---- making kernels ---- */

static void put_segment(uint8_t *elf, int i, uint32_t type, uint64_t offset, uint64_t gpa,
                        uint64_t file_bytes, uint64_t memory_bytes)
{
    uint8_t *p = elf + SEGMENT(i);

    stl_le_p(p, type);
    stq_le_p(p + 8, offset);
    stq_le_p(p + 16, gpa);
    stq_le_p(p + 24, gpa);
    stq_le_p(p + 32, file_bytes);
    stq_le_p(p + 40, memory_bytes);
    stq_le_p(p + 48, 4);
}

/* Two segments (text, and data with bss) and a PVH note; @tweak makes it another one. */
static GBytes *make_elf(void (*tweak)(uint8_t *elf, size_t *size))
{
    uint8_t *elf = g_malloc0(ELF_BYTES);
    size_t size = ELF_BYTES;

    memcpy(elf, "\177ELF\2\1\1", 7);
    stw_le_p(elf + 16, 2);
    stw_le_p(elf + 18, 62);
    stq_le_p(elf + 24, KERNEL_GPA + 0x10);
    stq_le_p(elf + 32, 64);
    stw_le_p(elf + 54, 56);
    stw_le_p(elf + 56, 3);
    put_segment(elf, 0, 1, 0x1000, KERNEL_GPA, 0x100, 0x100);
    put_segment(elf, 1, 1, 0x1100, KERNEL_GPA + 0x1000, 0x80, 0x2000);
    put_segment(elf, 2, 4, NOTE_AT, 0, 20, 0);
    memset(elf + 0x1000, 0xaa, 0x100);
    memset(elf + 0x1100, 0xbb, 0x80);
    stl_le_p(elf + NOTE_AT, 4);
    stl_le_p(elf + NOTE_AT + 4, 4);
    stl_le_p(elf + NOTE_AT + 8, 18);
    memcpy(elf + NOTE_AT + 12, "Xen", 4);
    stl_le_p(elf + NOTE_AT + 16, KERNEL_GPA + 0x20);
    if (tweak) {
        tweak(elf, &size);
    }
    return g_bytes_new_take(elf, size);
}

#define LINUX_BYTES 0x2000
#define LINUX_KERNEL_AT 0x400           /* one sector of set-up code */

static GBytes *make_linux(void (*tweak)(uint8_t *file, size_t *size))
{
    uint8_t *file = g_malloc0(LINUX_BYTES);
    size_t size = LINUX_BYTES;

    file[0x1f1] = 1;
    stw_le_p(file + 0x1fe, 0xaa55);
    file[0x201] = 0x68;
    memcpy(file + 0x202, "HdrS", 4);
    stw_le_p(file + 0x206, 0x20f);
    stl_le_p(file + 0x22c, 0x37ffffff);
    stl_le_p(file + 0x230, 0x200000);
    file[0x234] = 1;
    stw_le_p(file + 0x236, 1);
    stl_le_p(file + 0x238, 2047);
    stq_le_p(file + 0x258, 0x400000);
    stl_le_p(file + 0x260, 0x10000);
    memset(file + LINUX_KERNEL_AT, 0xcc, LINUX_BYTES - LINUX_KERNEL_AT);
    if (tweak) {
        tweak(file, &size);
    }
    return g_bytes_new_take(file, size);
}

/* ---- looking at the result ---- */

static uint64_t guest64(uint64_t gpa)
{
    uint8_t bytes[8];

    g_assert_cmpint(address_space_read(gpa, bytes, 8), ==, 0);
    return ldq_le_p(bytes);
}

static uint32_t guest32(uint64_t gpa)
{
    return guest64(gpa);
}

static uint8_t guest8(uint64_t gpa)
{
    return guest64(gpa);
}

static void assert_cmdline(uint64_t gpa)
{
    char text[8];

    g_assert_cmpint(address_space_read(gpa, text, sizeof(text)), ==, 0);
    g_assert_cmpmem(text, sizeof(text), "one two", 8);
}

static void install(const BootImage *image)
{
    x86_cpu_state_reset(&env, true);
    boot_image_install(image, &env);
}

static void check_elf_memory(void)
{
    g_assert_cmphex(guest64(KERNEL_GPA), ==, 0xaaaaaaaaaaaaaaaa);
    g_assert_cmphex(guest64(KERNEL_GPA + 0x1078), ==, 0xbbbbbbbbbbbbbbbb);
    g_assert_cmphex(guest64(KERNEL_GPA + 0x1080), ==, 0);
    g_assert_cmphex(guest64(KERNEL_GPA + 0x2ff8), ==, 0);
}

static void check_start_info(bool initrd)
{
    uint64_t info = BOOT_START_INFO, map;

    g_assert_cmphex(guest32(info), ==, 0x336ec578);
    g_assert_cmpuint(guest32(info + 4), ==, 1);
    g_assert_cmpuint(guest32(info + 12), ==, initrd);
    assert_cmdline(guest64(info + 24));
    if (initrd) {
        uint64_t module = guest64(info + 16);

        g_assert_cmphex(guest64(guest64(module)), ==, 0x6472746964727469);
        g_assert_cmpuint(guest64(module + 8), ==, g_bytes_get_size(config.initrd));
        g_assert_cmphex(guest64(module) % 4096, ==, 0);
    }
    map = guest64(info + 40);
    g_assert_cmpuint(guest32(info + 48), ==, 4);
    g_assert_cmphex(guest64(map), ==, 0);
    g_assert_cmphex(guest64(map + 3 * 24), ==, MIB);
    g_assert_cmphex(guest64(map + 3 * 24 + 8), ==, RAM_BYTES - MIB);
    g_assert_cmpuint(guest32(map + 3 * 24 + 16), ==, 1);
}

/* ---- good kernels ---- */

static void test_elf_pvh(void)
{
    g_autoptr(GBytes) file = make_elf(NULL);
    g_autoptr(GBytes) initrd = g_bytes_new_static("itrditrdX", 9);
    g_autoptr(BootImage) image = NULL;

    config.initrd = initrd;
    config.initrd_name = "initrd";
    image = boot_kernel_load(&config, file, "vmlinux", &error_abort);
    config.initrd = NULL;
    for (int round = 0; round < 2; round++) {
        /* The second time over what a guest may have left. */
        install(image);
        check_elf_memory();
        config.initrd = initrd;
        check_start_info(true);
        config.initrd = NULL;
        g_assert_cmphex(env.rip, ==, KERNEL_GPA + 0x20);
        g_assert_cmphex(env.regs[R_RBX], ==, BOOT_START_INFO);
        g_assert_cmphex(env.cr0, ==, 0x11);
        g_assert_cmphex(env.efer, ==, 0);
        g_assert_cmpint(env.seg[SEG_CS].db, ==, 1);
        g_assert_cmpint(env.seg[SEG_CS].l, ==, 0);
        address_space_set(0x1000, 0x5a, RAM_BYTES - 0x1000);
    }
}

static void no_note(uint8_t *elf, size_t *size)
{
    stw_le_p(elf + 56, 2);
}

static void test_elf_long(void)
{
    g_autoptr(GBytes) file = make_elf(no_note);
    g_autoptr(BootImage) image = NULL;
    uint64_t gpa, n;

    image = boot_kernel_load(&config, file, "vmlinux", &error_abort);
    install(image);
    check_elf_memory();
    check_start_info(false);
    g_assert_cmphex(env.rip, ==, KERNEL_GPA + 0x10);
    g_assert_cmphex(env.regs[R_RBX], ==, BOOT_START_INFO);
    g_assert_cmphex(env.efer, ==, 0x500);
    g_assert_cmpint(env.seg[SEG_CS].l, ==, 1);
    /* The identity map, as the processor would read it. */
    for (uint64_t address = 0x123; address < 4 * GIB; address += 511 * MIB) {
        g_assert_cmpint(page_walk(&env, address, &gpa, &n), ==, 0);
        g_assert_cmphex(gpa, ==, address);
    }
    g_assert_cmpint(page_walk(&env, 4 * GIB, &gpa, &n), ==, -1);
    g_assert_cmpint(page_walk(&env, 1ull << 63, &gpa, &n), ==, -1);
}

static void drop_note(uint8_t *elf, size_t *size)
{
    no_note(elf, size);
    /* An entry given as a virtual address far from the physical one. */
    stq_le_p(elf + SEGMENT(0) + 16, 0xffffffff80000000);
    stq_le_p(elf + 24, 0xffffffff80000010);
}

static void test_elf_without_note(void)
{
    g_autoptr(GBytes) file = make_elf(drop_note);
    g_autoptr(BootImage) image = NULL;

    image = boot_kernel_load(&config, file, "vmlinux", &error_abort);
    install(image);
    g_assert_cmphex(env.rip, ==, KERNEL_GPA + 0x10);
    g_assert_cmphex(env.efer, ==, 0x500);
}

static void test_linux(void)
{
    g_autoptr(GBytes) file = make_linux(NULL);
    g_autoptr(GBytes) initrd = g_bytes_new_static("itrditrdX", 9);
    g_autoptr(BootImage) image = NULL;

    config.initrd = initrd;
    config.initrd_name = "initrd";
    image = boot_kernel_load(&config, file, "bzImage", &error_abort);
    config.initrd = NULL;
    install(image);
    g_assert_cmphex(env.rip, ==, 0x400200);
    g_assert_cmphex(env.regs[R_RSI], ==, BOOT_ZERO_PAGE);
    g_assert_cmphex(env.seg[SEG_CS].selector, ==, 0x10);
    g_assert_cmphex(env.seg[SEG_DS].selector, ==, 0x18);
    g_assert_cmphex(guest64(0x400000), ==, 0xcccccccccccccccc);
    g_assert_cmphex(guest32(BOOT_ZERO_PAGE + 0x202), ==, 0x53726448);
    g_assert_cmphex(guest8(BOOT_ZERO_PAGE + 0x210), ==, 0xff);
    assert_cmdline(guest32(BOOT_ZERO_PAGE + 0x228));
    g_assert_cmphex(guest64(guest32(BOOT_ZERO_PAGE + 0x218)), ==, 0x6472746964727469);
    g_assert_cmpuint(guest32(BOOT_ZERO_PAGE + 0x21c), ==, 9);
    g_assert_cmpuint(guest8(BOOT_ZERO_PAGE + 0x1e8), ==, 4);
    g_assert_cmphex(guest64(BOOT_ZERO_PAGE + 0x2d0 + 3 * 20), ==, MIB);
}

/* Prefers an address beyond RAM, but may move. */
static void prefer_high(uint8_t *file, size_t *size)
{
    stq_le_p(file + 0x258, 64 * MIB);
}

static void test_linux_moved(void)
{
    g_autoptr(GBytes) file = make_linux(prefer_high);
    g_autoptr(BootImage) image = boot_kernel_load(&config, file, "bzImage", &error_abort);

    install(image);
    g_assert_cmphex(env.rip, ==, 0x200200);
    g_assert_cmphex(guest64(0x200000), ==, 0xcccccccccccccccc);
}

static void test_flat(void)
{
    g_autoptr(GBytes) file = g_bytes_new_static("\xf4\xeb\xfd_more_of", 11);
    g_autoptr(BootImage) image = boot_kernel_load(&config, file, "flat", &error_abort);

    install(image);
    g_assert_cmphex(env.rip, ==, MIB);
    g_assert_cmphex(guest64(MIB), ==, 0x65726f6d5ffdebf4);
    g_assert_cmphex(env.efer, ==, 0x500);
    check_start_info(false);
}

static void test_sector(void)
{
    uint8_t sector[512] = { 0xeb, 0xfe, [510] = 0x55, [511] = 0xaa };
    g_autoptr(GBytes) file = g_bytes_new(sector, sizeof(sector));
    g_autoptr(BootImage) image = boot_sector_load(&config, file, "disk", &error_abort);

    install(image);
    g_assert_cmphex(env.rip, ==, 0x7c00);
    g_assert_cmphex(env.seg[SEG_CS].base, ==, 0);
    g_assert_cmphex(env.cr0 & 1, ==, 0);
    g_assert_cmphex(env.regs[R_RDX], ==, 0x80);
    g_assert_cmphex(guest32(0x7c00), ==, 0xfeeb);
    g_assert_cmphex(guest32(0x7c00 + 508), ==, 0xaa550000);
}

static void test_mp_table(void)
{
    g_autoptr(GBytes) table = boot_mp_table(16, BOOT_EBDA, 1u << 5);
    size_t size;
    const uint8_t *p = g_bytes_get_data(table, &size);
    uint8_t sum = 0;

    g_assert_cmpuint(size, <=, 1024);
    g_assert_cmpmem(p, 4, "_MP_", 4);
    for (int i = 0; i < 16; i++) {
        sum += p[i];
    }
    g_assert_cmpuint(sum, ==, 0);
    g_assert_cmphex(ldl_le_p(p + 4), ==, BOOT_EBDA + 16);
    p += 16;
    g_assert_cmpmem(p, 4, "PCMP", 4);
    g_assert_cmpuint(lduw_le_p(p + 4), ==, size - 16);
    for (size_t i = 0; i < size - 16; i++) {
        sum += p[i];
    }
    g_assert_cmpuint(sum, ==, 0);
    /* Walk the entries: as many as it says, and they end where it ends. */
    {
        const uint8_t *entry = p + 44;
        unsigned n = 0, processors = 0;

        while (entry < p + size - 16) {
            processors += *entry == 0;
            entry += *entry == 0 ? 20 : 8;
            n++;
        }
        g_assert_true(entry == p + size - 16);
        g_assert_cmpuint(n, ==, lduw_le_p(p + 34));
        g_assert_cmpuint(processors, ==, 16);
    }
}

/* ---- bad kernels ---- */

#define TWEAK(name, code) \
    static void name(uint8_t *f, size_t *size) { code; }

TWEAK(elf_short, *size = 63)
TWEAK(elf_32bit, f[4] = 1)
TWEAK(elf_arm, stw_le_p(f + 18, 183))
TWEAK(elf_shared, stw_le_p(f + 16, 3))
TWEAK(elf_no_headers, stw_le_p(f + 56, 0))
TWEAK(elf_many_headers, stw_le_p(f + 56, 0xffff))
TWEAK(elf_header_size, stw_le_p(f + 54, 32))
TWEAK(elf_headers_beyond, stq_le_p(f + 32, ELF_BYTES - 100))
TWEAK(elf_headers_overflow, stq_le_p(f + 32, UINT64_MAX - 100))
TWEAK(elf_segment_beyond, stq_le_p(f + SEGMENT(1) + 8, ELF_BYTES - 0x7f))
TWEAK(elf_segment_overflow, stq_le_p(f + SEGMENT(1) + 8, UINT64_MAX - 1))
TWEAK(elf_file_over_memory, stq_le_p(f + SEGMENT(1) + 40, 0x7f))
TWEAK(elf_beyond_ram, stq_le_p(f + SEGMENT(1) + 24, RAM_BYTES - 0x1000))
TWEAK(elf_wraps, stq_le_p(f + SEGMENT(1) + 24, UINT64_MAX - 0xfff))
TWEAK(elf_huge, stq_le_p(f + SEGMENT(1) + 40, UINT64_MAX))
TWEAK(elf_overlap, stq_le_p(f + SEGMENT(1) + 24, KERNEL_GPA + 0xff))
TWEAK(elf_low, stq_le_p(f + SEGMENT(1) + 24, BOOT_START_INFO))
TWEAK(elf_entry, stq_le_p(f + 24, 0x1234); stw_le_p(f + 56, 2))
TWEAK(elf_pvh_entry, stl_le_p(f + NOTE_AT + 16, 0x1234))
TWEAK(elf_nothing, stl_le_p(f + SEGMENT(0), 6); stl_le_p(f + SEGMENT(1), 6))
TWEAK(elf_note_beyond, stq_le_p(f + SEGMENT(2) + 32, ELF_BYTES))

TWEAK(linux_short, *size = 0x240)
TWEAK(linux_old, stw_le_p(f + 0x206, 0x20b))
TWEAK(linux_32bit, stw_le_p(f + 0x236, 0))
TWEAK(linux_header_long, f[0x201] = 0xff)
TWEAK(linux_header_short, f[0x201] = 0x20)
TWEAK(linux_no_kernel, f[0x1f1] = 0x40)
TWEAK(linux_fixed_high, f[0x234] = 0; stq_le_p(f + 0x258, 64 * MIB))
TWEAK(linux_preferred_wraps, f[0x234] = 0; stq_le_p(f + 0x258, UINT64_MAX - 4095))
TWEAK(linux_init_huge, stl_le_p(f + 0x260, UINT32_MAX))
TWEAK(linux_alignment, stl_le_p(f + 0x230, 0x201000))
TWEAK(linux_cmdline, stl_le_p(f + 0x238, 6))

static const struct {
    const char *path;
    GBytes *(*make)(void (*tweak)(uint8_t *file, size_t *size));
    void (*tweak)(uint8_t *file, size_t *size);
    const char *message;
} bad[] = {
    { "elf/short", make_elf, elf_short,
      "Kernel 'k' is truncated: an ELF header has 64 bytes, the file 63" },
    { "elf/32-bit", make_elf, elf_32bit,
      "Kernel 'k' is not a 64-bit x86 ELF file (class 1, machine 62)" },
    { "elf/arm", make_elf, elf_arm,
      "Kernel 'k' is not a 64-bit x86 ELF file (class 2, machine 183)" },
    { "elf/shared", make_elf, elf_shared, "Kernel 'k' is not a static executable (ELF type 3)" },
    { "elf/no-headers", make_elf, elf_no_headers,
      "Kernel 'k' has 0 program headers of 56 bytes; 1 to 256 of 56 are expected" },
    { "elf/many-headers", make_elf, elf_many_headers,
      "Kernel 'k' has 65535 program headers of 56 bytes; 1 to 256 of 56 are expected" },
    { "elf/header-size", make_elf, elf_header_size,
      "Kernel 'k' has 3 program headers of 32 bytes; 1 to 256 of 56 are expected" },
    { "elf/headers-beyond", make_elf, elf_headers_beyond,
      "Kernel 'k' is truncated: its program headers lie beyond the end of the file" },
    { "elf/headers-overflow", make_elf, elf_headers_overflow,
      "Kernel 'k' is truncated: its program headers lie beyond the end of the file" },
    { "elf/segment-beyond", make_elf, elf_segment_beyond,
      "Kernel 'k' is truncated: segment 1 lies beyond the end of the file" },
    { "elf/segment-overflow", make_elf, elf_segment_overflow,
      "Kernel 'k' is truncated: segment 1 lies beyond the end of the file" },
    { "elf/file-over-memory", make_elf, elf_file_over_memory,
      "Kernel 'k': segment 1 has 0x80 bytes in the file but only 0x7f in memory" },
    { "elf/beyond-ram", make_elf, elf_beyond_ram,
      "Segment 1 of kernel 'k' does not fit into RAM: it needs 0x2000 bytes at 0xfff000" },
    { "elf/wraps", make_elf, elf_wraps,
      "Segment 1 of kernel 'k' does not fit into RAM: it needs 0x2000 bytes at "
      "0xfffffffffffff000" },
    { "elf/huge", make_elf, elf_huge,
      "Segment 1 of kernel 'k' does not fit into RAM: it needs 0xffffffffffffffff bytes at "
      "0x201000" },
    { "elf/overlap", make_elf, elf_overlap,
      "Segment 1 of kernel 'k' at 0x2000ff (0x2000 bytes) overlaps Segment 0 of kernel 'k' at "
      "0x200000 (0x100 bytes)" },
    { "elf/low", make_elf, elf_low,
      "the PVH start info at 0x6000 (0x118 bytes) overlaps Segment 1 of kernel 'k' at 0x6000 "
      "(0x2000 bytes)" },
    { "elf/entry", make_elf, elf_entry,
      "Kernel 'k': its entry point 0x1234 is in none of its segments" },
    { "elf/pvh-entry", make_elf, elf_pvh_entry,
      "Kernel 'k': its PVH entry point 0x1234 is in none of its segments below 4 GiB" },
    { "elf/nothing", make_elf, elf_nothing, "Kernel 'k' has nothing to load" },
    { "elf/note-beyond", make_elf, elf_note_beyond,
      "Kernel 'k' is truncated: segment 2 lies beyond the end of the file" },
    { "linux/short", make_linux, linux_short,
      "Kernel 'k' is truncated: its header is cut short" },
    { "linux/old", make_linux, linux_old,
      "Kernel 'k' has no 64-bit entry point (boot protocol 2.11)" },
    { "linux/32-bit", make_linux, linux_32bit,
      "Kernel 'k' has no 64-bit entry point (boot protocol 2.15)" },
    { "linux/header-long", make_linux, linux_header_long,
      "Kernel 'k' has a header that ends at 0x301; 0x264 to 0x290 is expected" },
    { "linux/header-short", make_linux, linux_header_short,
      "Kernel 'k' has a header that ends at 0x222; 0x264 to 0x290 is expected" },
    { "linux/no-kernel", make_linux, linux_no_kernel,
      "Kernel 'k' is truncated: 64 sectors of set-up code leave no kernel in 8192 bytes" },
    { "linux/fixed-high", make_linux, linux_fixed_high,
      "Kernel 'k' does not fit into RAM: it needs 0x1c00 bytes at 0x4000000" },
    { "linux/preferred-wraps", make_linux, linux_preferred_wraps,
      "Kernel 'k' does not fit into RAM: it needs 0x1c00 bytes at 0xfffffffffffff000" },
    { "linux/init-huge", make_linux, linux_init_huge,
      "the working memory of kernel 'k' does not fit into RAM: it needs 0xffffe3ff bytes at "
      "0x201c00" },
    { "linux/alignment", make_linux, linux_alignment,
      "Kernel 'k' asks for an alignment of 0x201000, no power of two" },
    { "linux/cmdline", make_linux, linux_cmdline,
      "The kernel command line is too long: 7 bytes, at most 6 are possible" },
};

static void test_bad(const void *data)
{
    size_t i = GPOINTER_TO_SIZE(data);
    g_autoptr(GBytes) file = bad[i].make(bad[i].tweak);
    Error *err = NULL;

    g_assert_null(boot_kernel_load(&config, file, "k", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, bad[i].message);
    error_free(err);
}

static void test_bad_sector(void)
{
    g_autoptr(GBytes) empty = g_bytes_new(NULL, 0);
    g_autofree void *zeroes = g_malloc0(512);
    g_autoptr(GBytes) blank = g_bytes_new(zeroes, 512);
    Error *err = NULL;

    g_assert_null(boot_sector_load(&config, empty, "d", &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Disk 'd' has no boot sector: it has 0 bytes, a sector 512");
    g_clear_pointer(&err, error_free);
    g_assert_null(boot_sector_load(&config, blank, "d", &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Disk 'd' is not bootable: its first sector ends in 00 00, not in 55 aa");
    error_free(err);
}

static void test_bad_initrd(void)
{
    g_autoptr(GBytes) file = make_elf(NULL);
    g_autoptr(GBytes) initrd = g_bytes_new_take(g_malloc0(RAM_BYTES - 3 * MIB),
                                                RAM_BYTES - 3 * MIB);
    Error *err = NULL;

    config.initrd = initrd;
    config.initrd_name = "i";
    config.below_4g = 14 * MIB;
    g_assert_null(boot_kernel_load(&config, file, "k", &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "initrd 'i' (13631488 bytes) does not fit into RAM beside the kernel");
    error_free(err);
    config.initrd = NULL;
    config.below_4g = RAM_BYTES;
}

/*
 * Kernels that are good but for some random bytes: any answer, but no crash and nothing out of RAM.
 */
static void test_random(void)
{
    for (int i = 0; i < 20000; i++) {
        g_autoptr(GBytes) good = i % 2 ? make_elf(NULL) : make_linux(NULL);
        size_t size;
        uint8_t *data = g_bytes_unref_to_data(g_steal_pointer(&good), &size);
        g_autoptr(GBytes) file = NULL;
        g_autoptr(BootImage) image = NULL;

        for (int n = g_test_rand_int_range(1, 6); n; n--) {
            size_t at = i % 2 ? g_test_rand_int_range(0, SEGMENT(3))
                              : g_test_rand_int_range(0x1f1, 0x290);

            data[at] = g_test_rand_int_range(0, 256);
        }
        file = g_bytes_new_take(data, size);
        image = boot_kernel_load(&config, file, "k", NULL);
        for (guint n = 0; image && n < image->pieces->len; n++) {
            const BootPiece *piece = &g_array_index(image->pieces, BootPiece, n);

            g_assert_cmphex(piece->size, <=, RAM_BYTES);
            g_assert_cmphex(piece->gpa, <=, RAM_BYTES - piece->size);
        }
    }
}

int main(int argc, char **argv)
{
    RAMBlock *ram;

    g_test_init(&argc, &argv, NULL);
    bql_lock();
    ram = ram_block_new("ram", RAM_BYTES, NULL, &error_abort);
    memory_map_ram("ram", 0, ram, 0, RAM_BYTES, false, &error_abort);

    g_test_add_func("/boot/elf/pvh", test_elf_pvh);
    g_test_add_func("/boot/elf/long", test_elf_long);
    g_test_add_func("/boot/elf/without-note", test_elf_without_note);
    g_test_add_func("/boot/linux", test_linux);
    g_test_add_func("/boot/linux/moved", test_linux_moved);
    g_test_add_func("/boot/flat", test_flat);
    g_test_add_func("/boot/sector", test_sector);
    g_test_add_func("/boot/mp-table", test_mp_table);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *path = g_strdup_printf("/boot/bad/%s", bad[i].path);

        g_test_add_data_func(path, GSIZE_TO_POINTER(i), test_bad);
    }
    g_test_add_func("/boot/bad/sector", test_bad_sector);
    g_test_add_func("/boot/bad/initrd", test_bad_initrd);
    g_test_add_func("/boot/random", test_random);
    return g_test_run();
}
