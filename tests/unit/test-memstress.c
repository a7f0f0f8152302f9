/*
 * memstress: its patterns, that it writes only while the machine runs, that what it writes is
 * marked dirty, that its verdict is right, and that another one can take over its state and memory.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "device-harness.h"
#include "hw/misc/memstress-pattern.h"
#include "system/bql.h"
#include "system/memory-backend.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "util/bitmap.h"

#define PAGE TARGET_PAGE_SIZE
#define REGION (64 * PAGE)
#define DEADLINE_US (20 * G_USEC_PER_SEC)

static RAMBlock *ram;

static void test_pattern(void)
{
    uint8_t page[PAGE];
    uint64_t index, generation;

    memstress_pattern_fill(page, 7, 12, 3);
    g_assert_true(memstress_pattern_check(page, 7, 12, 3));
    g_assert_false(memstress_pattern_check(page, 8, 12, 3));
    g_assert_false(memstress_pattern_check(page, 7, 13, 3));
    g_assert_false(memstress_pattern_check(page, 7, 12, 4));
    memstress_pattern_names(page, &index, &generation);
    g_assert_cmpuint(index, ==, 12);
    g_assert_cmpuint(generation, ==, 3);
    /* No byte may differ. */
    for (unsigned i = 0; i < PAGE; i++) {
        page[i] ^= 0x10;
        g_assert_false(memstress_pattern_check(page, 7, 12, 3));
        page[i] ^= 0x10;
    }
}

static void test_step(void)
{
    for (uint64_t pages = 1; pages <= 2000; pages++) {
        uint64_t step = memstress_step(pages), index = 0;
        g_autofree uint8_t *seen = g_malloc0(pages);

        for (uint64_t i = 0; i < pages; i++) {
            g_assert_cmpuint(seen[index]++, ==, 0);
            index = (index + step) % pages;
        }
        g_assert_cmpuint(index, ==, 0);
    }
}

/* Wait until the device has written @n pages in all. */
static void wait_written(DeviceState *dev, uint64_t n)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_US;

    while (harness_get_uint(dev, "pages-written") < n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
}

static void verify(DeviceState *dev, const char *result)
{
    g_autofree char *got = NULL;

    device_set_bool(dev, "verify", true, &error_abort);
    got = harness_get_str(dev, "verify-result");
    g_assert_cmpstr(got, ==, result);
}

static void test_run_and_stop(void)
{
    DeviceState *dev = harness_device("memstress,id=m,start=0x10000,size=256K,rate=0");
    g_autofree char *result = harness_get_str(dev, "verify-result");
    g_autofree uint8_t *copy = NULL;
    uint64_t written;

    g_assert_cmpstr(result, ==, "not run");
    g_assert_false(harness_get_bool(dev, "running"));
    vm_start();
    g_assert_cmpuint(harness_get_uint(dev, "pages-written"), ==, 0);
    device_set_bool(dev, "running", true, &error_abort);
    wait_written(dev, 200);
    verify(dev, "ok");
    wait_written(dev, harness_get_uint(dev, "pages-written") + 200);

    /* A machine that stands is not written to, and a verdict does not start it. */
    vm_stop(RUN_STATE_PAUSED);
    written = harness_get_uint(dev, "pages-written");
    copy = g_memdup2(ram->host + 0x10000, REGION);
    verify(dev, "ok");
    device_set_uint(dev, "rate", 5, &error_abort);
    device_set_uint(dev, "rate", 0, &error_abort);
    g_assert_cmpuint(harness_get_uint(dev, "pages-written"), ==, written);
    g_assert_cmpint(memcmp(copy, ram->host + 0x10000, REGION), ==, 0);
    g_assert_cmpuint(harness_get_uint(dev, "generation"), ==, written / 64 + 1);

    vm_start();
    wait_written(dev, written + 100);
    device_set_bool(dev, "running", false, &error_abort);
    written = harness_get_uint(dev, "pages-written");
    verify(dev, "ok");
    g_assert_cmpuint(harness_get_uint(dev, "pages-written"), ==, written);
    vm_stop(RUN_STATE_PAUSED);
    device_delete(dev);
    /* Nothing outside the region was touched. */
    g_assert_true(ram->host[0xffff] == 0 && ram->host[0x10000 + REGION] == 0);
}

static void test_verdict(void)
{
    DeviceState *dev = harness_device("memstress,id=m,start=0x10000,size=256K,rate=0,running=on");
    uint64_t generation;
    g_autofree char *result = NULL;

    vm_start();
    wait_written(dev, 640);
    vm_stop(RUN_STATE_PAUSED);
    generation = harness_get_uint(dev, "generation");
    verify(dev, "ok");
    g_assert_cmpuint(harness_get_uint(dev, "verify-errors"), ==, 0);

    /* One bit in one page; and two pages of an older state. */
    ram->host[0x10000 + 5 * PAGE + 4000] ^= 1;
    device_set_bool(dev, "verify", true, &error_abort);
    g_assert_cmpuint(harness_get_uint(dev, "verify-errors"), ==, 1);
    result = harness_get_str(dev, "verify-result");
    g_assert_true(g_str_has_prefix(result, "failed: page 5 at 0x15000 must be of generation "));
    ram->host[0x10000 + 5 * PAGE + 4000] ^= 1;
    verify(dev, "ok");
    memstress_pattern_fill(ram->host + 0x10000, 1, 0, generation - 2);
    memstress_pattern_fill(ram->host + 0x11000, 1, 1, generation - 2);
    device_set_bool(dev, "verify", true, &error_abort);
    g_assert_cmpuint(harness_get_uint(dev, "verify-errors"), ==, 2);
    device_delete(dev);
}

static void test_marks_dirty(void)
{
    DeviceState *dev = harness_device("memstress,id=m,start=0x10000,size=256K,rate=0");
    unsigned long marks[BITS_TO_LONGS(1024)] = { 0 };

    ram->process_dirty = marks;
    device_set_bool(dev, "running", true, &error_abort);
    vm_start();
    wait_written(dev, 64);
    vm_stop(RUN_STATE_PAUSED);
    ram->process_dirty = NULL;
    for (unsigned i = 0; i < 128; i++) {
        g_assert_cmpint(test_bit(i, marks), ==, i >= 16 && i < 80);
    }
    device_delete(dev);
}

static int stalled;

/* The thread that is sent this does nothing for a while. */
static void stall(int signo)
{
    gint64 end = g_get_monotonic_time() + 200000;

    while (g_get_monotonic_time() < end) {
    }
    g_atomic_int_set(&stalled, 1);
}

static void stall_thread(const char *name)
{
    g_autoptr(GDir) tasks = g_dir_open("/proc/self/task", 0, NULL);
    gint64 end = g_get_monotonic_time() + DEADLINE_US;
    const char *tid;

    signal(SIGUSR2, stall);
    g_atomic_int_set(&stalled, 0);
    while ((tid = g_dir_read_name(tasks))) {
        g_autofree char *path = g_strdup_printf("/proc/self/task/%s/comm", tid);
        g_autofree char *comm = NULL;

        if (g_file_get_contents(path, &comm, NULL, NULL) && !strcmp(g_strchomp(comm), name)) {
            g_assert_cmpint(syscall(SYS_tgkill, getpid(), atoi(tid), SIGUSR2), ==, 0);
        }
    }
    while (!g_atomic_int_get(&stalled)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
}

/* A thread that could not keep up forgets what it missed, and no more than that. */
static void test_rate_after_stall(void)
{
    DeviceState *dev =
        harness_device("memstress,id=m,start=0x10000,size=256K,rate=1000,running=on");
    gint64 begin = g_get_monotonic_time(), took;
    uint64_t written;

    vm_start();
    wait_written(dev, 3);
    stall_thread("memstress");
    wait_written(dev, 600);
    written = harness_get_uint(dev, "pages-written");
    took = g_get_monotonic_time() - begin;
    g_assert_cmpuint(written, <=, (uint64_t)took * 1000 / G_USEC_PER_SEC + 2);
    vm_stop(RUN_STATE_PAUSED);
    verify(dev, "ok");
    device_delete(dev);
}

static void test_rate(void)
{
    DeviceState *dev = harness_device("memstress,id=m,start=0x10000,size=256K,rate=10,running=on");
    gint64 begin = g_get_monotonic_time(), took;
    uint64_t written;

    vm_start();
    wait_written(dev, 3);
    written = harness_get_uint(dev, "pages-written");
    took = g_get_monotonic_time() - begin;
    /* Never faster than asked for; how much slower is the host's business. */
    g_assert_cmpuint(written, <=, (uint64_t)took * 10 / G_USEC_PER_SEC + 2);
    device_set_uint(dev, "rate", 0, &error_abort);
    wait_written(dev, 10000);
    vm_stop(RUN_STATE_PAUSED);
    verify(dev, "ok");
    device_delete(dev);
}

static void test_migration(void)
{
    DeviceState *dev = harness_device(
        "memstress,id=m,start=0x10000,size=256K,rate=0,seed=99,running=on");
    g_autoptr(GBytes) state = NULL, bad = NULL;
    g_autofree uint8_t *bytes = NULL;
    uint64_t written, generation;
    Error *err = NULL;

    vm_start();
    wait_written(dev, 1000);
    vm_stop(RUN_STATE_PAUSED);
    state = harness_save(dev);
    written = harness_get_uint(dev, "pages-written");
    generation = harness_get_uint(dev, "generation");
    device_delete(dev);

    /* Another device in the same memory, told nothing but where it is. */
    dev = harness_device("memstress,id=m,start=0x10000,size=256K");
    g_assert_cmpint(harness_load(dev, state, &error_abort), ==, 0);
    g_assert_cmpuint(harness_get_uint(dev, "pages-written"), ==, written);
    g_assert_cmpuint(harness_get_uint(dev, "generation"), ==, generation);
    g_assert_cmpuint(harness_get_uint(dev, "seed"), ==, 99);
    verify(dev, "ok");
    vm_start();
    wait_written(dev, written + 200);
    vm_stop(RUN_STATE_PAUSED);
    verify(dev, "ok");

    /* A position beyond the region is refused. */
    bytes = g_memdup2(g_bytes_get_data(state, NULL), g_bytes_get_size(state));
    bytes[8 * 4 + 1 + 8 + 7] = 64;
    bad = g_bytes_new(bytes, g_bytes_get_size(state));
    g_assert_cmpint(harness_load(dev, bad, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "cannot be in a region of 64 pages"));
    g_clear_pointer(&err, error_free);
    device_delete(dev);

    /* So is a region that is not the same. */
    dev = harness_device("memstress,id=m,start=0x20000,size=256K");
    g_assert_cmpint(harness_load(dev, state, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "start"));
    error_free(err);
    device_delete(dev);
}

static void test_memdev(void)
{
    DeviceState *dev;
    RAMBlock *own;

    g_assert_nonnull(object_new_from_str("memory-backend-ram,id=own,size=256K", &error_abort));
    dev = harness_device("memstress,id=m,memdev=own,start=0x40000000,rate=0,running=on");
    own = ram_block_by_name("/objects/own");
    g_assert_nonnull(own);
    g_assert_cmphex(own->guest_addr, ==, 0x40000000);
    g_assert_cmpuint(harness_get_uint(dev, "size"), ==, REGION);
    vm_start();
    wait_written(dev, 64);
    vm_stop(RUN_STATE_PAUSED);
    verify(dev, "ok");
    own->host[0] ^= 1;
    device_set_bool(dev, "verify", true, &error_abort);
    g_assert_cmpuint(harness_get_uint(dev, "verify-errors"), ==, 1);
    harness_device_fails("memstress,memdev=own,start=0x50000000",
                         "Memory backend 'own' is in use already");
    device_delete(dev);
}

static void test_errors(void)
{
    const char *alignment = "memstress: start and size must be multiples of 4096, and size not 0";

    harness_device_fails("memstress", alignment);
    harness_device_fails("memstress,size=100", alignment);
    harness_device_fails("memstress,start=1,size=4096", alignment);
    harness_device_fails("memstress,start=0xfffffffffffff000,size=8K", alignment);
    harness_device_fails("memstress,start=0x10000000,size=4K",
                         "memstress: there is no writable RAM at 0x10000000");
    harness_device_fails("memstress,start=0x300000,size=2M",
                         "memstress: there is no writable RAM at 0x400000");
    harness_device_fails("memstress,memdev=nothing", "Memory backend 'nothing' not found");
    harness_device_fails(
        "memstress,size=4K,verify=on",
        "Property 'memstress.verify' can be set only after the device was realized");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bql_lock();
    ram = ram_block_new("ram", 1024 * PAGE, NULL, &error_abort);
    memory_map_ram("ram", 0, ram, 0, ram->used_length, false, &error_abort);
    g_test_add_func("/memstress/pattern", test_pattern);
    g_test_add_func("/memstress/step", test_step);
    g_test_add_func("/memstress/run-and-stop", test_run_and_stop);
    g_test_add_func("/memstress/verdict", test_verdict);
    g_test_add_func("/memstress/marks-dirty", test_marks_dirty);
    g_test_add_func("/memstress/rate", test_rate);
    g_test_add_func("/memstress/rate-after-stall", test_rate_after_stall);
    g_test_add_func("/memstress/migration", test_migration);
    g_test_add_func("/memstress/memdev", test_memdev);
    g_test_add_func("/memstress/errors", test_errors);
    return g_test_run();
}
