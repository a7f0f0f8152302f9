/*
 * The rings are arrays of the guest's own: memory is mapped one to one. Request n always uses
 * descriptors 3n (header), 3n + 1 (data) and 3n + 2 (status).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest.h"
#include "virtio-blk.h"

#define SLOTS_BASE 0xfeb00000ul
#define SLOT_BYTES 512u
#define SLOTS 24u
#define MAGIC 0x74726976u
#define VERSION 2u
#define ID_BLOCK 2u

enum {
    REG_MAGIC = 0x00, REG_VERSION = 0x04, REG_DEVICE_ID = 0x08, REG_DEVICE_FEATURES = 0x10,
    REG_DEVICE_FEATURES_SEL = 0x14, REG_DRIVER_FEATURES = 0x20, REG_DRIVER_FEATURES_SEL = 0x24,
    REG_QUEUE_SEL = 0x30, REG_QUEUE_NUM_MAX = 0x34, REG_QUEUE_NUM = 0x38, REG_QUEUE_READY = 0x44,
    REG_QUEUE_NOTIFY = 0x50, REG_STATUS = 0x70, REG_QUEUE_DESC = 0x80, REG_QUEUE_AVAIL = 0x90,
    REG_QUEUE_USED = 0xa0, REG_CAPACITY = 0x100,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { F_FLUSH = 1u << 9, F_VERSION_1_HIGH = 1u << 0 };
enum { NEXT = 1, WRITABLE = 2, NO_INTERRUPT = 1, NO_NOTIFY = 1 };

#define QUEUE_MAX 256u

typedef struct Descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} Descriptor;

typedef struct Header {
    uint32_t type, reserved;
    uint64_t sector;
} Header;

static Descriptor descriptors[QUEUE_MAX] __attribute__((aligned(4096)));
static struct {
    uint16_t flags, idx, ring[QUEUE_MAX], used_event;
} avail __attribute__((aligned(4096)));
static struct {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[QUEUE_MAX];
    uint16_t avail_event;
} used __attribute__((aligned(4096)));

static BlkRequest requests[BLK_REQUESTS_MAX];
static Header headers[BLK_REQUESTS_MAX];
static uint8_t data[BLK_REQUESTS_MAX][BLK_BYTES] __attribute__((aligned(4096)));
static uint8_t statuses[BLK_REQUESTS_MAX];
static uintptr_t base;
static uint32_t queue_size;
static uint16_t used_seen;
static bool can_flush;

static uint32_t reg_read(unsigned offset)
{
    return *(volatile uint32_t *)(base + offset);
}

static void reg_write(unsigned offset, uint32_t value)
{
    *(volatile uint32_t *)(base + offset) = value;
}

static void reg_write_address(unsigned offset, const volatile void *address)
{
    reg_write(offset, (uint32_t)(uintptr_t)address);
    reg_write(offset + 4, (uint32_t)((uintptr_t)address >> 32));
}

static bool find_disk(unsigned index)
{
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        base = SLOTS_BASE + slot * SLOT_BYTES;
        if (reg_read(REG_MAGIC) == MAGIC && reg_read(REG_DEVICE_ID) == ID_BLOCK && !index--) {
            return true;
        }
    }
    return false;
}

static bool negotiate(void)
{
    uint32_t low;

    reg_write(REG_STATUS, 0);
    reg_write(REG_STATUS, ACKNOWLEDGE);
    reg_write(REG_STATUS, ACKNOWLEDGE | DRIVER);
    reg_write(REG_DEVICE_FEATURES_SEL, 0);
    low = reg_read(REG_DEVICE_FEATURES);
    can_flush = low & F_FLUSH;
    reg_write(REG_DRIVER_FEATURES_SEL, 0);
    reg_write(REG_DRIVER_FEATURES, low & F_FLUSH);
    reg_write(REG_DRIVER_FEATURES_SEL, 1);
    reg_write(REG_DRIVER_FEATURES, F_VERSION_1_HIGH);
    reg_write(REG_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return reg_read(REG_STATUS) & FEATURES_OK;
}

static bool set_up_queue(unsigned depth)
{
    reg_write(REG_QUEUE_SEL, 0);
    queue_size = reg_read(REG_QUEUE_NUM_MAX);
    if (queue_size > QUEUE_MAX) {
        queue_size = QUEUE_MAX;
    }
    if (queue_size < depth * 3) {
        return false;
    }
    avail.flags = NO_INTERRUPT;
    reg_write(REG_QUEUE_NUM, queue_size);
    reg_write_address(REG_QUEUE_DESC, descriptors);
    reg_write_address(REG_QUEUE_AVAIL, &avail);
    reg_write_address(REG_QUEUE_USED, &used);
    reg_write(REG_QUEUE_READY, 1);
    return true;
}

uint64_t blk_init(unsigned index, unsigned depth)
{
    uint64_t sectors;

    if (!find_disk(index)) {
        print("blk: there is no disk %u\n", index);
        return 0;
    }
    if (reg_read(REG_VERSION) != VERSION) {
        print("blk: version %u of virtio-mmio instead of %u\n", reg_read(REG_VERSION), VERSION);
        return 0;
    }
    if (!negotiate() || !set_up_queue(depth)) {
        print("blk: the disk does not take us as we are\n");
        return 0;
    }
    reg_write(REG_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    for (unsigned i = 0; i < depth; i++) {
        requests[i].data = data[i];
    }
    sectors = reg_read(REG_CAPACITY) | (uint64_t)reg_read(REG_CAPACITY + 4) << 32;
    return sectors * 512 / BLK_BYTES;
}

BlkRequest *blk_request(unsigned n)
{
    return &requests[n];
}

static void fill_descriptors(const BlkRequest *request, unsigned n)
{
    Descriptor *d = &descriptors[3 * n];

    headers[n].type = request->type;
    headers[n].sector = request->type == BLK_FLUSH ? 0 : request->block * (BLK_BYTES / 512);
    d[0] = (Descriptor){ (uintptr_t)&headers[n], sizeof(Header), NEXT, 3 * n + 1 };
    d[1] = (Descriptor){ (uintptr_t)data[n], BLK_BYTES,
                         NEXT | (request->type == BLK_READ ? WRITABLE : 0), 3 * n + 2 };
    d[2] = (Descriptor){ (uintptr_t)&statuses[n], 1, WRITABLE, 0 };
    if (request->type == BLK_FLUSH) {
        d[0].next = 3 * n + 2;
    }
}

void blk_begin(BlkRequest *request)
{
    unsigned n = request - requests;

    if (request->type == BLK_FLUSH && !can_flush) {
        /* Every write is on the disk when it is done; a read does as well. */
        request->type = BLK_READ;
        request->block = 0;
    }
    statuses[n] = 0xff;
    fill_descriptors(request, n);
    avail.ring[avail.idx & (queue_size - 1)] = 3 * n;
    __atomic_store_n(&avail.idx, (uint16_t)(avail.idx + 1), __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!(__atomic_load_n(&used.flags, __ATOMIC_RELAXED) & NO_NOTIFY)) {
        reg_write(REG_QUEUE_NOTIFY, 0);
    }
}

BlkRequest *blk_poll(void)
{
    unsigned n;

    if (__atomic_load_n(&used.idx, __ATOMIC_ACQUIRE) == used_seen) {
        return NULL;
    }
    n = used.ring[used_seen++ & (queue_size - 1)].id / 3;
    requests[n].status = __atomic_load_n(&statuses[n], __ATOMIC_RELAXED);
    return &requests[n];
}
