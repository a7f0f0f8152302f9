/*
 * The address space and the ports: dispatch, splitting, errors, and the listing; and the order of
 * reset handlers.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/memory.h"

#include <string.h>

#include "system/bql.h"
#include "system/reset.h"

#define PAGE TARGET_PAGE_SIZE

/* A device that remembers its last accesses in words. */
typedef struct Recorder {
    GString *log;
    uint64_t answer;
} Recorder;

static uint64_t recorder_read(void *opaque, uint64_t offset, unsigned size)
{
    Recorder *recorder = opaque;

    g_assert_true(bql_locked());
    g_string_append_printf(recorder->log, "r%u@%x ", size, (unsigned)offset);
    return recorder->answer + offset;
}

static void recorder_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    Recorder *recorder = opaque;

    g_assert_true(bql_locked());
    g_string_append_printf(recorder->log, "w%u@%x=%" G_GINT64_MODIFIER "x ", size,
                           (unsigned)offset, value);
}

static const IOOps any_size = { recorder_read, recorder_write, 0, 0 };
static const IOOps only_4 = { recorder_read, recorder_write, 4, 4 };
static const IOOps only_1 = { recorder_read, recorder_write, 1, 1 };
static const IOOps deaf = { 0 };

static void assert_log(Recorder *recorder, const char *want)
{
    g_assert_cmpstr(recorder->log->str, ==, want);
    g_string_truncate(recorder->log, 0);
}

static void test_ram(void)
{
    RAMBlock *low = ram_block_new("low", 4 * PAGE, NULL, &error_abort);
    RAMBlock *high = ram_block_new("high", 4 * PAGE, NULL, &error_abort);
    unsigned long marks = 0;
    uint8_t buf[PAGE * 2];
    uint64_t len;

    g_assert_cmpint(memory_map_ram("b", 0x14000, high, PAGE, 3 * PAGE, false, &error_abort), ==, 0);
    g_assert_cmpint(memory_map_ram("a", 0x10000, low, 0, 4 * PAGE, false, &error_abort), ==, 0);
    g_assert_cmphex(low->guest_addr, ==, 0x10000);
    g_assert_cmphex(high->guest_addr, ==, 0x14000);

    /* Across the border of two blocks; both are marked. */
    memset(buf, 0x5a, sizeof(buf));
    high->process_dirty = &marks;
    g_assert_cmpint(address_space_write(0x13800, buf, PAGE), ==, 0);
    high->process_dirty = NULL;
    g_assert_cmphex(marks, ==, 1 << 1);
    g_assert_cmphex(low->host[4 * PAGE - 1], ==, 0x5a);
    g_assert_cmphex(high->host[PAGE], ==, 0x5a);
    g_assert_cmphex(high->host[PAGE - 1], ==, 0);
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(address_space_read(0x137ff, buf, PAGE + 2), ==, 0);
    g_assert_cmphex(buf[0], ==, 0);
    g_assert_cmphex(buf[1], ==, 0x5a);
    g_assert_cmphex(buf[PAGE], ==, 0x5a);
    g_assert_cmphex(buf[PAGE + 1], ==, 0);

    len = 0x10000;
    g_assert_true(address_space_map(0x13000, &len, true) == low->host + 3 * PAGE);
    g_assert_cmphex(len, ==, PAGE);
    len = 1;
    g_assert_null(address_space_map(0x17000, &len, false));

    /* Where RAM ends reads give ones, and both say so. */
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(address_space_read(0x16fff, buf, 4), ==, -1);
    g_assert_cmphex(buf[0], ==, 0);
    g_assert_cmphex(buf[1], ==, 0xff);
    g_assert_cmphex(buf[3], ==, 0xff);
    g_assert_cmphex(buf[4], ==, 0);
    g_assert_cmpint(address_space_write(0x16fff, "xy", 2), ==, -1);
    g_assert_cmphex(high->host[4 * PAGE - 1], ==, 'x');
    g_assert_cmpint(address_space_read(0xffff, buf, 1), ==, -1);
    g_assert_cmpint(address_space_read(UINT64_MAX, buf, 2), ==, -1);

    g_assert_cmpint(address_space_set(0x12000, 7, 3 * PAGE), ==, 0);
    g_assert_cmphex(low->host[2 * PAGE], ==, 7);
    g_assert_cmphex(high->host[2 * PAGE - 1], ==, 7);
    g_assert_cmphex(high->host[2 * PAGE], ==, 0);
    g_assert_cmpint(address_space_set(0x16000, 7, 2 * PAGE), ==, -1);

    memory_unmap_block(low);
    memory_unmap_block(high);
    ram_block_free(low);
    ram_block_free(high);
}

static void test_readonly(void)
{
    RAMBlock *rom = ram_block_new("rom", PAGE, NULL, &error_abort);
    uint64_t len = 8;
    uint8_t byte = 1;

    strcpy((char *)rom->host, "firmware");
    memory_map_ram("rom", 0xf0000, rom, 0, PAGE, true, &error_abort);
    g_assert_cmpint(address_space_write(0xf0000, &byte, 1), ==, 0);
    g_assert_cmpint(address_space_set(0xf0000, 1, PAGE), ==, 0);
    g_assert_cmpstr((char *)rom->host, ==, "firmware");
    g_assert_null(address_space_map(0xf0000, &len, true));
    g_assert_nonnull(address_space_map(0xf0000, &len, false));
    memory_unmap_block(rom);
    ram_block_free(rom);
}

static void test_last_page(void)
{
    RAMBlock *block = ram_block_new("last", PAGE, NULL, &error_abort);
    uint8_t buf[8] = { 0 };

    memory_map_ram("last", UINT64_MAX - PAGE + 1, block, 0, PAGE, false, &error_abort);
    g_assert_cmpint(address_space_write(UINT64_MAX - 3, "abcd", 4), ==, 0);
    g_assert_cmpint(memcmp(block->host + PAGE - 4, "abcd", 4), ==, 0);
    g_assert_cmpint(address_space_set(UINT64_MAX, 'z', 1), ==, 0);
    /* The address space does not go around. */
    g_assert_cmpint(address_space_read(UINT64_MAX, buf, 3), ==, -1);
    g_assert_cmphex(buf[0], ==, 'z');
    g_assert_cmphex(buf[1], ==, 0xff);
    g_assert_cmphex(buf[3], ==, 0);
    g_assert_cmpint(address_space_set(UINT64_MAX, 'z', 2), ==, -1);
    memory_unmap_block(block);
    ram_block_free(block);
}

static void test_mmio(void)
{
    Recorder dev = { g_string_new(NULL), 0x1000 };
    uint8_t buf[16] = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99 };

    memory_map_mmio("any", 0x1000, 0x100, &any_size, &dev, &error_abort);
    memory_map_mmio("four", 0x2000, 0x100, &only_4, &dev, &error_abort);
    memory_map_mmio("deaf", 0x3000, 0x100, &deaf, &dev, &error_abort);

    address_space_write(0x1008, buf, 8);
    assert_log(&dev, "w8@8=8877665544332211 ");
    address_space_write(0x1003, buf, 8);
    assert_log(&dev, "w1@3=11 w4@4=55443322 w2@8=7766 w1@a=88 ");
    address_space_read(0x1004, buf, 4);
    assert_log(&dev, "r4@4 ");
    g_assert_cmphex(buf[0], ==, 0x04);
    g_assert_cmphex(buf[1], ==, 0x10);

    /* Too large is split, too small is refused. */
    address_space_write(0x2008, "abcdefgh", 8);
    assert_log(&dev, "w4@8=64636261 w4@c=68676665 ");
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(address_space_read(0x2000, buf, 2), ==, 0);
    assert_log(&dev, "");
    g_assert_cmphex(buf[0], ==, 0xff);
    g_assert_cmphex(buf[1], ==, 0xff);
    g_assert_cmphex(buf[2], ==, 0);
    address_space_write(0x2000, "a", 1);
    assert_log(&dev, "");
    g_assert_cmpint(address_space_read(0x3000, buf, 4), ==, 0);
    g_assert_cmphex(buf[3], ==, 0xff);
    g_assert_cmpint(address_space_write(0x3000, buf, 4), ==, 0);

    address_space_set(0x10f8, 1, 8);
    assert_log(&dev, "w8@f8=101010101010101 ");
    /* The region ends within the access. */
    g_assert_cmpint(address_space_read(0x10fe, buf, 4), ==, -1);
    assert_log(&dev, "r2@fe ");

    /* With the lock held already. */
    bql_lock();
    address_space_read(0x1000, buf, 1);
    g_assert_true(bql_locked());
    bql_unlock();
    assert_log(&dev, "r1@0 ");

    memory_unmap_opaque(&dev);
    g_assert_cmpint(address_space_read(0x1000, buf, 1), ==, -1);
    g_string_free(dev.log, TRUE);
}

static void test_ports(void)
{
    Recorder a = { g_string_new(NULL), 0x40 }, b = { g_string_new(NULL), 0x80 };

    memory_map_ports("a", 0x3f8, 8, &only_1, &a, &error_abort);
    memory_map_ports("b", 0x400, 4, &any_size, &b, &error_abort);
    memory_map_ports("top", 0xffff, 1, &any_size, &b, &error_abort);

    g_assert_cmphex(port_read(0x3f9, 1), ==, 0x41);
    assert_log(&a, "r1@1 ");
    g_assert_cmphex(port_read(0x3f8, 4), ==, 0x43424140);
    assert_log(&a, "r1@0 r1@1 r1@2 r1@3 ");
    port_write(0x3fa, 0xbeef, 2);
    assert_log(&a, "w1@2=ef w1@3=be ");
    port_write(0x400, 0xdeadbeef, 4);
    assert_log(&b, "w4@0=deadbeef ");
    g_assert_cmphex(port_read(0x402, 2), ==, 0x82);
    assert_log(&b, "r2@2 ");

    /* Across two devices, and off the end of one. */
    g_assert_cmphex(port_read(0x3ff, 2), ==, 0x8047);
    assert_log(&a, "r1@7 ");
    assert_log(&b, "r1@0 ");
    g_assert_cmphex(port_read(0x403, 4), ==, 0xffffff83);
    assert_log(&b, "r1@3 ");
    g_assert_cmphex(port_read(0xffff, 4), ==, 0xffffff80);
    assert_log(&b, "r1@0 ");
    port_write(0xffff, 0x1234, 2);
    assert_log(&b, "w1@0=34 ");

    g_assert_cmphex(port_read(0x10, 1), ==, 0xff);
    g_assert_cmphex(port_read(0x10, 2), ==, 0xffff);
    g_assert_cmphex(port_read(0x10, 4), ==, 0xffffffff);
    port_write(0x10, 1, 1);

    memory_unmap_opaque(&a);
    memory_unmap_opaque(&b);
    g_assert_cmphex(port_read(0x3f8, 1), ==, 0xff);
    g_string_free(a.log, TRUE);
    g_string_free(b.log, TRUE);
}

static void expect_error(Error *err, const char *want)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    error_free(err);
}

static void test_errors(void)
{
    RAMBlock *block = ram_block_new("blk", 4 * PAGE, NULL, &error_abort);
    Error *err = NULL;

    memory_map_ram("ram", 0x4000, block, 0, 4 * PAGE, false, &error_abort);
    g_assert_cmpint(memory_map_mmio("m", 0x7fff, 1, &deaf, NULL, &err), ==, -1);
    expect_error(g_steal_pointer(&err),
                 "Cannot map 'm' at 0x7fff-0x7fff: 'ram' is at 0x4000-0x7fff");
    g_assert_cmpint(memory_map_mmio("m", 0x3000, 0x10000, &deaf, NULL, &err), ==, -1);
    expect_error(g_steal_pointer(&err),
                 "Cannot map 'm' at 0x3000-0x12fff: 'ram' is at 0x4000-0x7fff");
    g_assert_cmpint(memory_map_mmio("m", UINT64_MAX, 2, &deaf, NULL, &err), ==, -1);
    expect_error(g_steal_pointer(&err), "Cannot map 'm': 2 bytes at 0xffffffffffffffff are not in "
                 "the address space");
    g_assert_cmpint(memory_map_mmio("m", 0, 0, &deaf, NULL, &err), ==, -1);
    expect_error(g_steal_pointer(&err), "Cannot map 'm': 0 bytes at 0x0 are not in the address "
                 "space");
    g_assert_cmpint(memory_map_ports("p", 0xfffe, 3, &deaf, NULL, &err), ==, -1);
    expect_error(g_steal_pointer(&err), "Cannot map 'p': 3 bytes at 0xfffe are not in the address "
                 "space");
    g_assert_cmpint(memory_map_ram("r", 0x100, block, 0, PAGE, false, &err), ==, -1);
    expect_error(g_steal_pointer(&err),
                 "Cannot map 'r': 0x1000 bytes from 0x0 of RAM block 'blk' at "
                 "0x100 are not whole pages");
    g_assert_cmpint(memory_map_ram("r", 0x10000, block, 2 * PAGE, 3 * PAGE, false, &err), ==, -1);
    expect_error(g_steal_pointer(&err), "Cannot map 'r': RAM block 'blk' ends before 0x3000 bytes "
                 "from 0x2000");
    memory_unmap_block(block);
    ram_block_free(block);
}

static int refuse_far(const RAMRange *range, void *opaque, Error **errp)
{
    GString *log = opaque;

    if (range->gpa >= 0x100000) {
        error_setg(errp, "too far");
        return -1;
    }
    g_string_append_printf(log, "%x+%x:%s ", (unsigned)range->gpa, (unsigned)range->size,
                           range->block->idstr);
    return 0;
}

static void test_listener(void)
{
    RAMBlock *block = ram_block_new("blk", 4 * PAGE, NULL, &error_abort);
    g_autoptr(GString) log = g_string_new(NULL);
    const RAMRange *ranges;
    Error *err = NULL;
    uint8_t byte;

    memory_map_ram("two", 0x8000, block, PAGE, PAGE, false, &error_abort);
    memory_map_ram("one", 0x4000, block, 0, PAGE, true, &error_abort);
    g_assert_cmpint(memory_set_listener(refuse_far, log, &error_abort), ==, 0);
    g_assert_cmpstr(log->str, ==, "4000+1000:blk 8000+1000:blk ");
    memory_map_ram("three", 0x6000, block, 2 * PAGE, PAGE, false, &error_abort);
    g_assert_cmpstr(log->str, ==, "4000+1000:blk 8000+1000:blk 6000+1000:blk ");
    g_assert_cmpint(memory_map_ram("far", 0x100000, block, 0, PAGE, false, &err), ==, -1);
    expect_error(err, "too far");
    g_assert_cmpint(address_space_read(0x100000, &byte, 1), ==, -1);

    g_assert_cmpuint(memory_ram_ranges(&ranges), ==, 3);
    g_assert_cmphex(ranges[0].gpa, ==, 0x4000);
    g_assert_true(ranges[0].readonly);
    g_assert_cmphex(ranges[1].gpa, ==, 0x6000);
    g_assert_cmphex(ranges[1].offset, ==, 2 * PAGE);
    g_assert_cmphex(ranges[2].gpa, ==, 0x8000);
    g_assert_cmphex(block->guest_addr, ==, 0x4000);
    memory_set_listener(NULL, NULL, &error_abort);
    memory_unmap_block(block);
    g_assert_cmpuint(memory_ram_ranges(&ranges), ==, 0);
    ram_block_free(block);
}

static void test_describe(void)
{
    RAMBlock *block = ram_block_new("microvm.ram", 4 * PAGE, NULL, &error_abort);
    Recorder dev = { 0 };
    g_autofree char *text = NULL;

    memory_map_ram("ram-below-4g", 0, block, 0, 3 * PAGE, false, &error_abort);
    memory_map_ram("ram-above-4g", UINT64_C(1) << 32, block, 3 * PAGE, PAGE, true, &error_abort);
    memory_map_mmio("virtio-mmio", 0xfeb00000, 0x200, &any_size, &dev, &error_abort);
    memory_map_ports("serial", 0x3f8, 8, &any_size, &dev, &error_abort);
    text = memory_describe();
    g_assert_cmpstr(text, ==,
        "address-space: I/O\n"
        "  0000000000000000-000000000000ffff (prio 0, i/o): io\n"
        "    00000000000003f8-00000000000003ff (prio 0, i/o): serial\n"
        "\n"
        "address-space: memory\n"
        "  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n"
        "    0000000000000000-0000000000002fff (prio 0, ram): alias ram-below-4g @microvm.ram "
        "0000000000000000-0000000000002fff\n"
        "    00000000feb00000-00000000feb001ff (prio 0, i/o): virtio-mmio\n"
        "    0000000100000000-0000000100000fff (prio 0, rom): alias ram-above-4g @microvm.ram "
        "0000000000003000-0000000000003fff\n"
        "\n"
        "memory-region: microvm.ram\n"
        "  0000000000000000-0000000000003fff (prio 0, ram): microvm.ram\n");
    memory_unmap_opaque(&dev);
    memory_unmap_block(block);
    ram_block_free(block);
}

#define CHANGES 5000

static void *keep_writing(void *stop)
{
    uint64_t value = 0, back;

    while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED)) {
        g_assert_cmpint(address_space_write(0x80000, &value, sizeof(value)), ==, 0);
        g_assert_cmpint(address_space_read(0x80000, &back, sizeof(back)), ==, 0);
        g_assert_cmpint(back, ==, value);
        value++;
    }
    return NULL;
}

/*
 * A thread that transfers data while devices come and go, on both sides of it and for more than the
 * map had room.
 */
static void test_changes(void)
{
    RAMBlock *block = ram_block_new("ram", PAGE, NULL, &error_abort);
    Recorder dev = { 0 };
    bool stop = false;
    GThread *thread;

    memory_map_ram("ram", 0x80000, block, 0, PAGE, false, &error_abort);
    thread = g_thread_new("dma", keep_writing, &stop);
    for (unsigned i = 0; i < CHANGES; i++) {
        for (uint64_t gpa = 0; gpa < 0x100000; gpa += gpa == 0x70000 ? 0x20000 : 0x10000) {
            memory_map_mmio("device", gpa, PAGE, &any_size, &dev, &error_abort);
        }
        memory_unmap_opaque(&dev);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    g_thread_join(thread);
    memory_unmap_block(block);
    ram_block_free(block);
}

static GString *reset_log;

static void reset_note(void *opaque)
{
    g_string_append(reset_log, opaque);
}

static void reset_leave(void *opaque)
{
    g_string_append(reset_log, "x");
    reset_unregister(reset_note, opaque);
    reset_unregister(reset_leave, opaque);
}

static void test_reset(void)
{
    static char a[] = "a", b[] = "b", c[] = "c";

    reset_log = g_string_new(NULL);
    reset_run();
    reset_register(reset_note, a);
    reset_register(reset_leave, c);
    reset_register(reset_note, b);
    reset_register(reset_note, c);
    reset_run();
    g_assert_cmpstr(reset_log->str, ==, "axb");
    reset_run();
    g_assert_cmpstr(reset_log->str, ==, "axbab");
    reset_unregister(reset_note, a);
    reset_run();
    g_assert_cmpstr(reset_log->str, ==, "axbabb");
    reset_unregister(reset_note, b);
    g_string_free(reset_log, TRUE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memory/ram", test_ram);
    g_test_add_func("/memory/readonly", test_readonly);
    g_test_add_func("/memory/last-page", test_last_page);
    g_test_add_func("/memory/mmio", test_mmio);
    g_test_add_func("/memory/ports", test_ports);
    g_test_add_func("/memory/errors", test_errors);
    g_test_add_func("/memory/listener", test_listener);
    g_test_add_func("/memory/describe", test_describe);
    g_test_add_func("/memory/changes", test_changes);
    g_test_add_func("/memory/reset", test_reset);
    return g_test_run();
}
