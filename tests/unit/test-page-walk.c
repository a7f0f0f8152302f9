/*
 * Page walks in every paging mode, over tables laid into guest RAM, and memsave through them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include "qapi/qapi-commands-machine.h"
#include "system/accel.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "system/memory.h"
#include "system/page-walk.h"
#include "util/bswap.h"

#define RAM_BYTES (8u * 1024 * 1024)
#define CR0_PG 0x80000001u
#define PRESENT 3u
#define LARGE 0x83u

static uint8_t *ram;

static void put32(uint64_t gpa, uint32_t value)
{
    stl_le_p(ram + gpa, value);
}

static void put64(uint64_t gpa, uint64_t value)
{
    stq_le_p(ram + gpa, value);
}

static void expect(const X86CPUState *env, uint64_t vaddr, uint64_t gpa, uint64_t contiguous)
{
    uint64_t found, n;

    g_assert_cmpint(page_walk(env, vaddr, &found, &n), ==, 0);
    g_assert_cmphex(found, ==, gpa);
    g_assert_cmphex(n, ==, contiguous);
    g_assert_cmpint(page_walk(env, vaddr, &found, NULL), ==, 0);
}

static void expect_none(const X86CPUState *env, uint64_t vaddr)
{
    uint64_t gpa, n;

    g_assert_cmpint(page_walk(env, vaddr, &gpa, &n), ==, -1);
}

static void test_none(void)
{
    X86CPUState env = { .cr0 = 1 };

    expect(&env, 0x12345, 0x12345, 0xcbb);
    expect(&env, 1ull << 40, 1ull << 40, 0x1000);
}

static void test_32bit(void)
{
    X86CPUState env = { .cr0 = CR0_PG, .cr3 = 0x1000, .cr4 = 0x10 };

    put32(0x1000 + 1 * 4, 0x2000 | PRESENT);
    put32(0x2000 + 5 * 4, 0x7000 | PRESENT);
    put32(0x1000 + 2 * 4, 0x00400000 | LARGE | 3 << 13);
    expect(&env, 0x00405123, 0x7123, 0xedd);
    expect_none(&env, 0x00406000);
    expect_none(&env, 0);
    expect(&env, 0x00812345, 0x300412345, 0x400000 - 0x12345);
    expect_none(&env, 1ull << 32);
    /* Without PSE the bit means nothing, and the entry is a table's. */
    env.cr4 = 0;
    put32(0x406000, 0x9000 | PRESENT);
    expect(&env, 0x00800010, 0x9010, 0xff0);
}

static void test_pae(void)
{
    X86CPUState env = { .cr0 = CR0_PG, .cr3 = 0x3020, .cr4 = 0x20 };

    put64(0x3020 + 3 * 8, 0x4000 | 1);
    put64(0x4000, 0x5000 | PRESENT);
    put64(0x4008, 0x600000 | LARGE);
    put64(0x5000 + 8, 0x123456000 | PRESENT | 1ull << 63);
    expect(&env, 0xc0001fff, 0x123456fff, 1);
    expect(&env, 0xc0200000, 0x600000, 0x200000);
    expect_none(&env, 0xc0000000);
    expect_none(&env, 0x80000000);
}

static X86CPUState long_mode(void)
{
    X86CPUState env = { .cr0 = CR0_PG, .cr3 = 0x10000, .cr4 = 0x20, .efer = 0x500 };

    put64(0x10000 + 511 * 8, 0x11000 | PRESENT);        /* the top 512 GiB */
    put64(0x10000, 0x11000 | PRESENT);
    put64(0x11000, 0x12000 | PRESENT);
    put64(0x11008, 0x40000000 | LARGE);                 /* 1 GiB */
    put64(0x12000, 0x13000 | PRESENT);
    put64(0x12008, 0x200000 | LARGE);                   /* 2 MiB */
    put64(0x13000, 0x20000 | PRESENT);
    put64(0x13008, 0x30000 | PRESENT);
    put64(0x13010, 0);
    return env;
}

static void test_long(void)
{
    X86CPUState env = long_mode();

    expect(&env, 0x800, 0x20800, 0x800);
    expect(&env, 0xffffff8000001000, 0x30000, 0x1000);
    expect(&env, 0x345678, 0x345678, 0x200000 - 0x145678);
    expect(&env, 0x40000001, 0x40000001, 0x3fffffff);
    expect_none(&env, 0x2000);
    expect_none(&env, 1ull << 47);                      /* not canonical */
    expect_none(&env, 0x0000ff8000001000);

    /* Five levels: one more table, and more addresses are canonical. */
    env.cr4 |= 1u << 12;
    env.cr3 = 0x15000;
    put64(0x15000 + 16 * 8, 0x10000 | PRESENT);
    expect(&env, (16ull << 48) + 0x1001, 0x30001, 0xfff);
    expect_none(&env, 0x1001);

    /* A table outside RAM. */
    env.cr3 = 0xfffff000;
    expect_none(&env, 0);
}

static void test_read(void)
{
    X86CPUState env = long_mode();
    char text[16];

    memcpy(ram + 0x20ffc, "over", 4);
    memcpy(ram + 0x30000, "page", 5);
    g_assert_cmpint(page_walk_read(&env, 0xffc, text, 9), ==, 0);
    g_assert_cmpstr(text, ==, "overpage");
    g_assert_cmpint(page_walk_read(&env, 0x1fff, text, 2), ==, -1);
}

/* ---- memsave and pmemsave ---- */

static char *dir;

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void expect_file(const char *path, const void *bytes, gsize size)
{
    g_autofree char *data = NULL;
    gsize n;

    g_assert_true(g_file_get_contents(path, &data, &n, NULL));
    g_assert_cmpmem(data, n, bytes, size);
}

static void expect_error(Error *err, const char *message)
{
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void test_memsave(void)
{
    g_autofree char *path = path_of("memory");
    Error *err = NULL;

    cpu_get(0)->env = long_mode();
    memcpy(ram + 0x20ffc, "over", 4);
    memcpy(ram + 0x30000, "page", 4);
    qmp_memsave(0xffc, 8, path, false, 0, &error_abort);
    expect_file(path, "overpage", 8);
    qmp_pmemsave(0x30000, 4, path, &error_abort);
    expect_file(path, "page", 4);
    qmp_pmemsave(0, RAM_BYTES, path, &error_abort);
    expect_file(path, ram, RAM_BYTES);
    qmp_pmemsave(0, 0, path, &error_abort);
    expect_file(path, "", 0);

    g_assert_cmpint(g_unlink(path), ==, 0);
    qmp_memsave(0x1ff0, 0x20, path, false, 0, &err);
    expect_error(err, "Invalid addr 0x0000000000001ff0/size 32 specified");
    err = NULL;
    qmp_pmemsave(RAM_BYTES - 8, 9, path, &err);
    expect_error(err, "Invalid addr 0x00000000007ffff8/size 9 specified");
    err = NULL;
    qmp_pmemsave(UINT64_MAX, 9, path, &err);
    expect_error(err, "Invalid addr 0xffffffffffffffff/size 9 specified");
    err = NULL;
    qmp_memsave(0, 1, path, true, 1, &err);
    expect_error(err, "Parameter 'cpu-index' expects a CPU number");
    err = NULL;
    qmp_memsave(0, 1, path, true, -1, &err);
    expect_error(err, "Parameter 'cpu-index' expects a CPU number");
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void test_memsave_full(void)
{
    Error *err = NULL;

    qmp_pmemsave(0, 8192, "/dev/full", &err);
    expect_error(err, "Could not write memory to '/dev/full': No space left on device");
    err = NULL;
    qmp_pmemsave(0, 1, "/nonexistent/file", &err);
    expect_error(err, "Could not open '/nonexistent/file': No such file or directory");
}

static const AccelClass no_accel = { .name = "none" };

int main(int argc, char **argv)
{
    RAMBlock *block;
    int ret;

    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    block = ram_block_new("ram", RAM_BYTES, NULL, &error_abort);
    memory_map_ram("ram", 0, block, 0, RAM_BYTES, false, &error_abort);
    ram = block->host;
    accel_init(&no_accel, NULL, NULL, 1, &error_abort);
    cpus_create(1, &error_abort);
    dir = g_dir_make_tmp("ferry-page-walk-XXXXXX", NULL);
    g_assert_nonnull(dir);

    g_test_add_func("/page-walk/none", test_none);
    g_test_add_func("/page-walk/32-bit", test_32bit);
    g_test_add_func("/page-walk/pae", test_pae);
    g_test_add_func("/page-walk/long", test_long);
    g_test_add_func("/page-walk/read", test_read);
    g_test_add_func("/memsave/good-and-bad", test_memsave);
    g_test_add_func("/memsave/file-errors", test_memsave_full);
    ret = g_test_run();

    cpus_destroy();
    bql_unlock();
    g_rmdir(dir);
    g_free(dir);
    return ret;
}
