/*
 * The state of a virtio-blk device as it moves: it arrives whole, and a stream that was made up is
 * refused or leaves a device that harms nobody.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "block-harness.h"
#include "device-harness.h"
#include "hw/block/virtio-blk.h"
#include "hw/virtio/virtio-mmio.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "util/bswap.h"

#define RAM_BYTES (4u << 20)
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define QUEUES 2u
#define QUEUE_SIZE 16u

/* Where things are in the stream. */
enum {
    AT_SLOT = 0, AT_STATUS = 4, AT_FEATURES = 21, AT_BROKEN = 33, AT_NUM_QUEUES = 34, AT_QUEUE = 38,
    QUEUE_NUM_MAX = 0, QUEUE_NUM = 4, QUEUE_READY = 8, QUEUE_DESC = 9, QUEUE_AVAIL = 17,
    QUEUE_USED = 25,
    QUEUE_LAST_AVAIL = 33, QUEUE_USED_IDX = 35, QUEUE_BYTES = 40,
};

static DeviceState *dev;

static void reg_write(unsigned reg, uint32_t value)
{
    uint8_t bytes[4];

    stl_le_p(bytes, value);
    address_space_write(VIRTIO_MMIO_BASE + reg, bytes, 4);
}

static uint32_t reg_read(unsigned reg)
{
    uint8_t bytes[4];

    address_space_read(VIRTIO_MMIO_BASE + reg, bytes, 4);
    return ldl_le_p(bytes);
}

/* A driver that has set up one of the queues. */
static void drive(void)
{
    reg_write(0x70, 0);
    reg_write(0x70, 3);
    reg_write(0x24, 1);
    reg_write(0x20, 1);
    reg_write(0x70, 11);
    reg_write(0x30, 1);
    reg_write(0x38, QUEUE_SIZE);
    reg_write(0x80, DESC);
    reg_write(0x90, AVAIL);
    reg_write(0xa0, USED);
    reg_write(0x44, 1);
    reg_write(0x70, 15);
    g_assert_cmphex(reg_read(0x70), ==, 15);
}

static DeviceState *new_device(void)
{
    g_autofree char *text = g_strdup_printf(
        "virtio-blk-device,drive=n0,num-queues=%u,queue-size=%u", QUEUES, QUEUE_SIZE);

    return harness_device(text);
}

static void renew(void)
{
    device_delete(dev);
    dev = new_device();
}

static GBytes *driven_state(void)
{
    renew();
    drive();
    return harness_save(dev);
}

static void test_travels(void)
{
    g_autoptr(GBytes) state = driven_state(), again = NULL;

    renew();
    g_assert_cmphex(reg_read(0x70), ==, 0);
    g_assert_cmpint(harness_load(dev, state, &error_abort), ==, 0);
    g_assert_cmphex(reg_read(0x70), ==, 15);
    g_assert_cmpuint(reg_read(0x44), ==, 1);
    again = harness_save(dev);
    g_assert_true(g_bytes_equal(state, again));
}

typedef struct Change {
    unsigned at, bytes;
    uint64_t value;
    const char *message;        /* NULL: it is loaded */
} Change;

static GBytes *changed(GBytes *state, const Change *c)
{
    size_t size;
    const uint8_t *data = g_bytes_get_data(state, &size);
    uint8_t *copy = g_memdup2(data, size), value[8];

    stq_be_p(value, c->value);
    memcpy(copy + c->at, value + 8 - c->bytes, c->bytes);
    return g_bytes_new_take(copy, size);
}

static void test_refused(void)
{
    const unsigned q1 = AT_QUEUE + QUEUE_BYTES;
    const Change changes[] = {
        { AT_STATUS, 1, 7, "/machine/peripheral-anon/device[0]: status 0x7 is not possible" },
        { AT_FEATURES, 8, 1ull << 50,
          "/machine/peripheral-anon/device[0]: the guest uses features "
          "0x4000000000000, which this side does not offer" },
        { q1 + QUEUE_NUM, 4, 0,
          "/machine/peripheral-anon/device[0]: queue 1: a size of 0 is not a power of "
          "two up to 16" },
        { q1 + QUEUE_NUM, 4, 32,
          "/machine/peripheral-anon/device[0]: queue 1: a size of 32 is not a power "
          "of two up to 16" },
        { q1 + QUEUE_DESC, 8, 1ull << 40,
          "/machine/peripheral-anon/device[0]: queue 1: the descriptor "
          "table, 256 bytes at 0x10000000000, is not in RAM" },
        { q1 + QUEUE_AVAIL, 8, 1,
          "/machine/peripheral-anon/device[0]: queue 1: the avail ring at 0x1 is not "
          "aligned to 2 bytes" },
        { q1 + QUEUE_USED, 8, RAM_BYTES - 4,
          "/machine/peripheral-anon/device[0]: queue 1: the used ring, "
          "134 bytes at 0x3ffffc, is not in RAM" },
        { q1 + QUEUE_LAST_AVAIL, 2, 17,
          "/machine/peripheral-anon/device[0]: queue 1: 17 chains cannot be in "
          "use in a queue of 16" },
        /*
         * Queue 0 is not in use, and a broken device is of no use: what is there does not matter.
         */
        { AT_QUEUE + QUEUE_DESC, 8, 1ull << 40, NULL },
        { q1 + QUEUE_LAST_AVAIL, 2, 16, NULL },
        { AT_BROKEN, 1, 1, NULL },
    };
    g_autoptr(GBytes) state = driven_state();

    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_autoptr(GBytes) other = changed(state, &changes[i]);
        Error *err = NULL;
        int ret;

        renew();
        ret = harness_load(dev, other, &err);
        g_assert_cmpint(ret, ==, changes[i].message ? -1 : 0);
        if (changes[i].message) {
            g_assert_nonnull(strstr(error_get_pretty(err), changes[i].message));
            error_free(err);
        }
    }
}

/* What must be the same on both sides. */
static void test_other_machine(void)
{
    const Change changes[] = {
        { AT_SLOT, 4, 3 }, { AT_NUM_QUEUES, 4, 1 }, { AT_QUEUE + QUEUE_NUM_MAX, 4, 256 },
    };
    g_autoptr(GBytes) state = driven_state();

    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_autoptr(GBytes) other = changed(state, &changes[i]);
        Error *err = NULL;

        renew();
        g_assert_cmpint(harness_load(dev, other, &err), ==, -1);
        g_assert_nonnull(err);
        error_free(err);
    }
}

/* A stream with a subsection of requests that are to be done again. */
static GBytes *with_held(GBytes *state, uint32_t n, uint16_t queue, uint16_t head)
{
    static const char name[] = "virtio-blk/held";
    size_t size;
    const uint8_t *data = g_bytes_get_data(state, &size);
    GByteArray *out = g_byte_array_new();
    uint8_t word[4];

    g_byte_array_append(out, data, size);
    g_byte_array_append(out, (const uint8_t[]){ 0x05, sizeof(name) - 1 }, 2);
    g_byte_array_append(out, (const uint8_t *)name, sizeof(name) - 1);
    stl_be_p(word, 1);
    g_byte_array_append(out, word, 4);
    stl_be_p(word, n);
    g_byte_array_append(out, word, 4);
    for (uint32_t i = 0; i < MIN(n, 4); i++) {
        stw_be_p(word, queue);
        stw_be_p(word + 2, head);
        g_byte_array_append(out, word, 4);
    }
    return g_byte_array_free_to_bytes(out);
}

static void test_held(void)
{
    static const struct {
        uint32_t n;
        uint16_t queue, head;
        bool ok;
    } cases[] = {
        { 1, 1, 0, true },           { 2, 1, 15, true }, { 1, 1, 16, false },
        { 1, 0, 0, false },          { 1, 2, 0, false }, { VIRTIO_BLK_TAKEN_MAX + 1, 1, 0, false },
        { UINT32_MAX, 1, 0, false },
    };
    g_autoptr(GBytes) state = driven_state();

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GBytes) other = with_held(state, cases[i].n, cases[i].queue, cases[i].head);
        Error *err = NULL;

        renew();
        g_assert_cmpint(harness_load(dev, other, &err), ==, cases[i].ok ? 0 : -1);
        if (cases[i].ok) {
            /* It goes on from here to a third machine, without ever having run. */
            g_autoptr(GBytes) again = harness_save(dev);

            g_assert_true(g_bytes_equal(other, again));
        }
        error_free(err);
    }
}

static void run_for_a_moment(void)
{
    vm_start();
    for (unsigned i = 0; i < 10; i++) {
        main_loop_iterate(false);
    }
    vm_stop(RUN_STATE_PAUSED);
}

/* Held requests whose chains are not what they were: the device is broken, and that is all. */
static void test_held_run(void)
{
    g_autoptr(GBytes) state = driven_state(), other = with_held(state, 2, 1, 5);

    address_space_set(DESC, 0xff, 4096);
    renew();
    g_assert_cmpint(harness_load(dev, other, &error_abort), ==, 0);
    run_for_a_moment();
    g_assert_cmphex(reg_read(0x70), ==, 15 | 64);
    reg_write(0x70, 0);
    g_assert_cmphex(reg_read(0x70), ==, 0);
}

/* Any byte changed: loaded or refused, and what was loaded runs without harm. */
static void test_any_byte(void)
{
    g_autoptr(GBytes) state = driven_state();
    size_t size = g_bytes_get_size(state);

    for (size_t at = 0; at < size; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            const uint8_t *data = g_bytes_get_data(state, NULL);
            const Change c = { at, 1, data[at] ^ 1u << bit };
            g_autoptr(GBytes) other = changed(state, &c);
            Error *err = NULL;

            renew();
            address_space_set(0, 0, 0x4000);
            if (harness_load(dev, other, &err) == 0) {
                run_for_a_moment();
            }
            error_free(err);
        }
    }
}

int main(int argc, char **argv)
{
    RAMBlock *ram;
    BlockDriverState *bs;
    DeviceState *bus;
    int ret;

    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    aio_context_main();
    aio_set_main_home(bql_locked);
    ram = ram_block_new("ram", RAM_BYTES, NULL, &error_abort);
    memory_map_ram("ram", 0, ram, 0, RAM_BYTES, false, &error_abort);
    bs = node_open("{'driver': 'null-co', 'node-name': 'n0', 'size': 1048576}");
    bus = device_new("virtio-mmio", NULL, &error_abort);
    device_realize(bus, &error_abort);
    dev = new_device();

    g_test_add_func("/virtio-blk/state/travels", test_travels);
    g_test_add_func("/virtio-blk/state/refused", test_refused);
    g_test_add_func("/virtio-blk/state/other-machine", test_other_machine);
    g_test_add_func("/virtio-blk/state/held", test_held);
    g_test_add_func("/virtio-blk/state/held-run", test_held_run);
    g_test_add_func("/virtio-blk/state/any-byte", test_any_byte);
    ret = g_test_run();
    device_delete_all();
    bdrv_unref(bs);
    return ret;
}
