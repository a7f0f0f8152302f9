/*
 * Virtqueues against a driver that may break every rule: rings in a piece of guest memory, what is
 * taken and given back, and what each broken rule is called.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hw/virtio/virtqueue.h"
#include "system/memory.h"
#include "util/bswap.h"

#define RAM_BYTES (4u << 20)
#define SECOND_GPA 0x40000000ull        /* a second range of RAM, far away */
#define SECOND_BYTES (1u << 20)
#define ROM_GPA 0x50000000ull
#define ROM_BYTES 0x10000u

#define NUM 8u
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define TABLE 0x4000u                   /* an indirect one */
#define DATA 0x100000u

static RAMBlock *ram, *second;
static VirtQueue vq;
static uint16_t avail_idx;

static void write_desc_at(uint64_t table, unsigned i, uint64_t addr, uint32_t len, uint16_t flags,
                          uint16_t next)
{
    uint8_t d[16];

    stq_le_p(d, addr);
    stl_le_p(d + 8, len);
    stw_le_p(d + 12, flags);
    stw_le_p(d + 14, next);
    g_assert_cmpint(address_space_write(table + i * 16, d, sizeof(d)), ==, 0);
}

static void write_desc(unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    write_desc_at(DESC, i, addr, len, flags, next);
}

static void set16(uint64_t gpa, uint16_t value)
{
    uint8_t bytes[2];

    stw_le_p(bytes, value);
    address_space_write(gpa, bytes, 2);
}

static uint16_t get16(uint64_t gpa)
{
    uint8_t bytes[2];

    address_space_read(gpa, bytes, 2);
    return lduw_le_p(bytes);
}

static uint32_t get32(uint64_t gpa)
{
    uint8_t bytes[4];

    address_space_read(gpa, bytes, 4);
    return ldl_le_p(bytes);
}

static void offer(uint16_t head)
{
    set16(AVAIL + 4 + avail_idx % NUM * 2, head);
    set16(AVAIL + 2, ++avail_idx);
}

static void begin(bool event_idx, bool indirect)
{
    virtqueue_stop(&vq);
    address_space_set(0, 0, DATA);
    vq.num_max = 256;
    virtqueue_reset(&vq);
    g_assert_cmpuint(vq.num, ==, 256);
    vq.num = NUM;
    vq.desc = DESC;
    vq.avail = AVAIL;
    vq.used = USED;
    avail_idx = 0;
    g_assert_cmpint(virtqueue_start(&vq, event_idx, indirect, &error_abort), ==, 0);
}

static VirtQueueElement *pop(void)
{
    return virtqueue_pop(&vq, sizeof(VirtQueueElement), &error_abort);
}

static void pop_fails(const char *message)
{
    Error *err = NULL;
    uint16_t before = vq.last_avail_idx;

    g_assert_null(virtqueue_pop(&vq, sizeof(VirtQueueElement), &err));
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
    g_assert_cmpuint(vq.last_avail_idx, ==, before);
}

/* ---- the rules kept ---- */

static void test_round(void)
{
    begin(false, false);
    g_assert_true(virtqueue_empty(&vq));
    g_assert_null(pop());
    write_desc(3, DATA, 16, VRING_DESC_NEXT, 1);
    write_desc(1, DATA + 0x1000, 512, VRING_DESC_NEXT | VRING_DESC_WRITE, 6);
    write_desc(6, DATA + 0x2000, 1, VRING_DESC_WRITE, 0);
    /* Indices run on over 65535. */
    vq.last_avail_idx = vq.used_idx = avail_idx = 65530;
    for (unsigned round = 0; round < 20; round++) {
        VirtQueueElement *elem;

        offer(3);
        g_assert_false(virtqueue_empty(&vq));
        elem = pop();
        g_assert_cmpuint(elem->head, ==, 3);
        g_assert_cmpuint(elem->out_num, ==, 1);
        g_assert_cmpuint(elem->in_num, ==, 2);
        g_assert_cmpuint(elem->out_bytes, ==, 16);
        g_assert_cmpuint(elem->in_bytes, ==, 513);
        g_assert_true(elem->out[0].iov_base == ram->host + DATA);
        g_assert_true(elem->in[1].iov_base == ram->host + DATA + 0x2000);
        g_assert_null(pop());
        virtqueue_push(&vq, elem, 100 + round);
        g_free(elem);
        g_assert_cmpuint(get16(USED + 2), ==, (uint16_t)(65530 + round + 1));
        g_assert_cmpuint(get32(USED + 4 + (65530 + round) % 65536 % NUM * 8), ==, 3);
        g_assert_cmpuint(get32(USED + 4 + (65530 + round) % 65536 % NUM * 8 + 4), ==, 100 + round);
    }
}

static void test_indirect(void)
{
    VirtQueueElement *elem;

    begin(false, true);
    /* Longer than the queue, and after a descriptor of the queue's own. */
    write_desc(0, DATA, 8, VRING_DESC_NEXT, 1);
    write_desc(1, TABLE + 4, 40 * 16, VRING_DESC_INDIRECT, 0);
    for (unsigned i = 0; i < 40; i++) {
        write_desc_at(TABLE + 4, i, DATA + i * 256, 256, (i < 39 ? VRING_DESC_NEXT : 0) |
                      (i >= 20 ? VRING_DESC_WRITE : 0), i + 1);
    }
    offer(0);
    elem = pop();
    g_assert_cmpuint(elem->out_num, ==, 21);
    g_assert_cmpuint(elem->in_num, ==, 20);
    g_assert_cmpuint(elem->in_bytes, ==, 20 * 256);
    g_free(elem);
}

static void test_pop_again(void)
{
    VirtQueueElement *elem, *again;

    begin(false, false);
    write_desc(5, DATA, 16, 0, 0);
    offer(5);
    elem = pop();
    again = virtqueue_pop_again(&vq, 5, sizeof(*again), &error_abort);
    g_assert_cmpuint(again->head, ==, 5);
    g_assert_true(again->out[0].iov_base == elem->out[0].iov_base);
    g_assert_cmpuint(vq.last_avail_idx, ==, 1);
    g_free(again);
    g_free(elem);
    virtqueue_unpop(&vq);
    elem = pop();
    g_assert_cmpuint(elem->head, ==, 5);
    g_free(elem);
}

static void test_interrupts(void)
{
    VirtQueueElement *elem;

    begin(false, false);
    write_desc(0, DATA, 16, 0, 0);
    offer(0);
    elem = pop();
    virtqueue_push(&vq, elem, 0);
    g_assert_true(virtqueue_should_notify(&vq));
    set16(AVAIL, VRING_AVAIL_NO_INTERRUPT);
    g_assert_false(virtqueue_should_notify(&vq));
    virtqueue_set_notification(&vq, false);
    g_assert_cmpuint(get16(USED), ==, VRING_USED_NO_NOTIFY);
    virtqueue_set_notification(&vq, true);
    g_assert_cmpuint(get16(USED), ==, 0);
    g_free(elem);
}

static void push_one(void)
{
    VirtQueueElement *elem;

    offer(0);
    elem = pop();
    virtqueue_push(&vq, elem, 0);
    g_free(elem);
}

static void test_event_idx(void)
{
    const uint64_t used_event = AVAIL + 4 + NUM * 2, avail_event = USED + 4 + NUM * 8;

    begin(true, false);
    write_desc(0, DATA, 16, 0, 0);
    push_one();
    /* The first time nobody knows what was told. */
    g_assert_true(virtqueue_should_notify(&vq));
    set16(used_event, 3);
    push_one();
    g_assert_false(virtqueue_should_notify(&vq));
    push_one();
    push_one();
    /* From 2 to 4, past 3. */
    g_assert_true(virtqueue_should_notify(&vq));
    push_one();
    g_assert_false(virtqueue_should_notify(&vq));
    /* Flags do not count. */
    set16(AVAIL, VRING_AVAIL_NO_INTERRUPT);
    set16(used_event, 5);
    push_one();
    g_assert_true(virtqueue_should_notify(&vq));
    set16(avail_event, 0x77);
    virtqueue_set_notification(&vq, false);
    g_assert_cmpuint(get16(avail_event), ==, 0x77);
    g_assert_cmpuint(get16(USED), ==, 0);
    virtqueue_set_notification(&vq, true);
    g_assert_cmpuint(get16(avail_event), ==, 6);
}

/* A buffer over the border of two ranges that lie side by side is two pieces. */
static void test_pieces(void)
{
    VirtQueueElement *elem;

    begin(false, false);
    write_desc(0, SECOND_GPA - 4096, 3 * 4096, VRING_DESC_WRITE, 0);
    offer(0);
    elem = pop();
    g_assert_cmpuint(elem->in_num, ==, 2);
    g_assert_cmpuint(elem->in[0].iov_len, ==, 4096);
    g_assert_cmpuint(elem->in[1].iov_len, ==, 8192);
    g_assert_true(elem->in[1].iov_base == second->host);
    g_assert_cmpuint(elem->in_bytes, ==, 3 * 4096);
    g_free(elem);
}

/* What is given back is dirty: the buffers, the ring. */
static void test_dirty(void)
{
    VirtQueueElement *elem;
    unsigned long bits[RAM_BYTES / 4096 / 64 + 1] = { 0 };

    begin(false, false);
    write_desc(0, DATA + 0x5000, 0x2001, VRING_DESC_WRITE, 0);
    offer(0);
    elem = pop();
    ram->process_dirty = bits;
    virtqueue_push(&vq, elem, 1);
    ram->process_dirty = NULL;
    for (unsigned page = 0; page < RAM_BYTES / 4096; page++) {
        bool expected = page == USED / 4096 ||
                        (page >= (DATA + 0x5000) / 4096 && page <= (DATA + 0x7000) / 4096);

        g_assert_cmpint(bits[page / 64] >> page % 64 & 1, ==, expected);
    }
    g_free(elem);
}

/* ---- the rules broken ---- */

static void test_bad_rings(void)
{
    static const struct {
        uint32_t num;
        uint64_t desc, avail, used;
        const char *message;
    } cases[] = {
        { 0, DESC, AVAIL, USED, "a size of 0 is not a power of two up to 256" },
        { 3, DESC, AVAIL, USED, "a size of 3 is not a power of two up to 256" },
        { 512, DESC, AVAIL, USED, "a size of 512 is not a power of two up to 256" },
        { 8, DESC + 8, AVAIL, USED, "the descriptor table at 0x1008 is not aligned to 16 bytes" },
        { 8, DESC, AVAIL + 1, USED, "the avail ring at 0x2001 is not aligned to 2 bytes" },
        { 8, DESC, AVAIL, USED + 2, "the used ring at 0x3002 is not aligned to 4 bytes" },
        { 8, 0x80000000, AVAIL, USED,
          "the descriptor table, 128 bytes at 0x80000000, is not in RAM" },
        { 256, RAM_BYTES - 4080, AVAIL, USED,
          "the descriptor table, 4096 bytes at 0x3ff010, is not in RAM" },
        { 8, DESC, UINT64_MAX - 1, USED,
          "the avail ring, 22 bytes at 0xfffffffffffffffe, is not in RAM" },
        { 8, DESC, AVAIL, ROM_GPA, "the used ring, 70 bytes at 0x50000000, is not in RAM" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;

        virtqueue_stop(&vq);
        vq.num_max = 256;
        virtqueue_reset(&vq);
        vq.num = cases[i].num;
        vq.desc = cases[i].desc;
        vq.avail = cases[i].avail;
        vq.used = cases[i].used;
        g_assert_cmpint(virtqueue_start(&vq, false, false, &err), ==, -1);
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i].message);
        g_assert_false(vq.started);
        error_free(err);
    }
    virtqueue_reset(&vq);
    vq.num = NUM;
    vq.desc = DESC;
    vq.avail = AVAIL;
    vq.used = USED;
    vq.last_avail_idx = 9;
    {
        Error *err = NULL;

        g_assert_cmpint(virtqueue_start(&vq, false, false, &err), ==, -1);
        g_assert_cmpstr(error_get_pretty(err), ==, "9 chains cannot be in use in a queue of 8");
        error_free(err);
    }
}

static void test_bad_indices(void)
{
    begin(false, false);
    write_desc(0, DATA, 16, 0, 0);
    set16(AVAIL + 2, 9);
    pop_fails("the avail index moved from 0 to 9 in a queue of 8 of which 0 are in use");
    begin(false, false);
    write_desc(0, DATA, 16, 0, 0);
    for (unsigned i = 0; i < NUM; i++) {
        offer(0);
        g_free(pop());
    }
    offer(0);
    pop_fails("the avail index moved from 8 to 9 in a queue of 8 of which 8 are in use");
    begin(false, false);
    offer(8);
    pop_fails("descriptor 8 is outside of a table of 8");
}

static void test_bad_chains(void)
{
    begin(false, false);
    write_desc(0, DATA, 16, VRING_DESC_NEXT, 1);
    write_desc(1, DATA, 16, VRING_DESC_NEXT, 0);
    offer(0);
    pop_fails("a chain of descriptors does not end");
    write_desc(0, DATA, 16, VRING_DESC_NEXT, 0);
    pop_fails("a chain of descriptors does not end");
    write_desc(0, DATA, 16, VRING_DESC_NEXT, 0xffff);
    pop_fails("descriptor 65535 is outside of a table of 8");
    write_desc(0, DATA, 0, 0, 0);
    pop_fails("a buffer at 0x100000 has no length");
    write_desc(0, DATA, 16, VRING_DESC_NEXT | VRING_DESC_WRITE, 1);
    write_desc(1, DATA, 16, 0, 0);
    pop_fails("a buffer to read comes after one to write");
    write_desc(0, 0x80000000, 16, 0, 0);
    pop_fails("a buffer of 16 bytes at 0x80000000 is not in RAM");
    write_desc(0, RAM_BYTES - 8, 16, 0, 0);
    pop_fails("a buffer of 16 bytes at 0x3ffff8 is not in RAM");
    write_desc(0, DATA, UINT32_MAX, 0, 0);
    pop_fails("a buffer of 4294967295 bytes at 0x100000 is not in RAM");
    write_desc(0, UINT64_MAX - 7, 16, 0, 0);
    pop_fails("a buffer of 16 bytes at 0xfffffffffffffff8 is not in RAM");
    write_desc(0, ROM_GPA, 16, VRING_DESC_WRITE, 0);
    pop_fails("a buffer of 16 bytes at 0x50000000 is not in writable RAM");
    write_desc(0, TABLE, 16, VRING_DESC_INDIRECT, 0);
    pop_fails("an indirect descriptor was not negotiated");
}

static void test_bad_indirect(void)
{
    begin(false, true);
    write_desc(0, TABLE, 16, VRING_DESC_INDIRECT | VRING_DESC_NEXT, 1);
    offer(0);
    pop_fails("an indirect table of 16 bytes with flags 0x5 is not possible");
    write_desc(0, TABLE, 0, VRING_DESC_INDIRECT, 1);
    pop_fails("an indirect table of 0 bytes with flags 0x4 is not possible");
    write_desc(0, TABLE, 24, VRING_DESC_INDIRECT, 1);
    pop_fails("an indirect table of 24 bytes with flags 0x4 is not possible");
    write_desc(0, RAM_BYTES - 16, 32, VRING_DESC_INDIRECT, 1);
    pop_fails("an indirect table of 32 bytes at 0x3ffff0 is not in RAM");
    write_desc(0, TABLE, 32, VRING_DESC_INDIRECT, 1);
    write_desc_at(TABLE, 0, TABLE + 0x100, 16, VRING_DESC_INDIRECT, 0);
    pop_fails("an indirect table is inside of another");
    write_desc_at(TABLE, 0, DATA, 16, VRING_DESC_NEXT, 2);
    pop_fails("descriptor 2 is outside of a table of 2");
    write_desc_at(TABLE, 0, DATA, 16, VRING_DESC_NEXT, 0);
    pop_fails("a chain of descriptors does not end");
}

static void test_long_chain(void)
{
    const unsigned n = VIRTQUEUE_CHAIN_MAX;

    begin(false, true);
    for (unsigned i = 0; i <= n; i++) {
        write_desc_at(DATA, i, DATA, 1, VRING_DESC_NEXT, i + 1);
    }
    write_desc_at(DATA, n - 1, DATA, 1, 0, 0);
    write_desc(0, DATA, n * 16, VRING_DESC_INDIRECT, 0);
    offer(0);
    {
        VirtQueueElement *elem = pop();

        g_assert_cmpuint(elem->out_num, ==, n);
        virtqueue_push(&vq, elem, 0);
        g_free(elem);
    }
    write_desc_at(DATA, n - 1, DATA, 1, VRING_DESC_NEXT, n);
    write_desc_at(DATA, n, DATA, 1, 0, 0);
    write_desc(0, DATA, (n + 1) * 16, VRING_DESC_INDIRECT, 0);
    offer(0);
    pop_fails("a chain of descriptors does not end");
    /* Fewer descriptors, but one of them is two pieces. */
    write_desc_at(DATA, n - 1, SECOND_GPA - 1, 2, 0, 0);
    write_desc(0, DATA, n * 16, VRING_DESC_INDIRECT, 0);
    pop_fails("a chain has more than 1024 buffers");
}

/* Whatever is in the rings: an element that lies in RAM, or an error. */
static void test_random(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(g_test_rand_int());

    for (unsigned round = 0; round < 20000; round++) {
        VirtQueueElement *elem;
        Error *err = NULL;

        begin(round & 1, round & 2);
        for (unsigned i = 0; i < NUM; i++) {
            uint64_t addr = g_rand_int_range(rand, 0, 8) ? g_rand_int_range(rand, 0, RAM_BYTES)
                                                         : g_rand_int(rand);
            uint32_t len = g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 0, 0x4000)
                                                        : g_rand_int(rand);

            write_desc(i, addr, len, g_rand_int_range(rand, 0, 8), g_rand_int_range(rand, 0, 9));
            write_desc_at(TABLE, i, addr, len, g_rand_int_range(rand, 0, 8),
                          g_rand_int_range(rand, 0, 9));
        }
        write_desc(g_rand_int_range(rand, 0, NUM), TABLE, NUM * 16, VRING_DESC_INDIRECT, 0);
        offer(g_rand_int_range(rand, 0, NUM + 1));
        elem = virtqueue_pop(&vq, sizeof(*elem), &err);
        g_assert_true(!elem == !!err);
        for (unsigned i = 0; elem && i < elem->out_num + elem->in_num; i++) {
            uint64_t offset;

            g_assert_nonnull(ram_block_from_host(elem->out[i].iov_base, &offset));
            g_assert_cmpuint(elem->out[i].iov_len, >, 0);
        }
        if (elem) {
            virtqueue_push(&vq, elem, 1);
        }
        g_free(elem);
        error_free(err);
    }
}

int main(int argc, char **argv)
{
    RAMBlock *below, *rom;

    g_test_init(&argc, &argv, NULL);
    ram = ram_block_new("ram", RAM_BYTES, NULL, &error_abort);
    below = ram_block_new("below", SECOND_BYTES, NULL, &error_abort);
    second = ram_block_new("second", SECOND_BYTES, NULL, &error_abort);
    rom = ram_block_new("rom", ROM_BYTES, NULL, &error_abort);
    memory_map_ram("ram", 0, ram, 0, RAM_BYTES, false, &error_abort);
    memory_map_ram("below", SECOND_GPA - SECOND_BYTES, below, 0, SECOND_BYTES, false, &error_abort);
    memory_map_ram("second", SECOND_GPA, second, 0, SECOND_BYTES, false, &error_abort);
    memory_map_ram("rom", ROM_GPA, rom, 0, ROM_BYTES, true, &error_abort);

    g_test_add_func("/virtqueue/round", test_round);
    g_test_add_func("/virtqueue/indirect", test_indirect);
    g_test_add_func("/virtqueue/pop-again", test_pop_again);
    g_test_add_func("/virtqueue/interrupts", test_interrupts);
    g_test_add_func("/virtqueue/event-idx", test_event_idx);
    g_test_add_func("/virtqueue/pieces", test_pieces);
    g_test_add_func("/virtqueue/dirty", test_dirty);
    g_test_add_func("/virtqueue/bad-rings", test_bad_rings);
    g_test_add_func("/virtqueue/bad-indices", test_bad_indices);
    g_test_add_func("/virtqueue/bad-chains", test_bad_chains);
    g_test_add_func("/virtqueue/bad-indirect", test_bad_indirect);
    g_test_add_func("/virtqueue/long-chain", test_long_chain);
    g_test_add_func("/virtqueue/random", test_random);
    return g_test_run();
}
