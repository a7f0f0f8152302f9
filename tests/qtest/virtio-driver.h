/*
 * A virtio-blk driver for tests: registers by the qtest protocol, rings in guest memory that the
 * test can also spoil.
 *
 * Memory from VD_MEMORY on is the driver's, handed out in order. Waits are bounded as libqtest's
 * are.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_VIRTIO_DRIVER_H
#define TESTS_QTEST_VIRTIO_DRIVER_H

#include "libqtest.h"

#define VD_MEMORY 0x1000000ull
#define VD_MEMORY_END 0x3000000ull
#define VD_QUEUES_MAX 8u

enum {
    VD_MAGIC = 0x00, VD_VERSION = 0x04, VD_DEVICE_ID = 0x08, VD_DEVICE_FEATURES = 0x10,
    VD_DEVICE_FEATURES_SEL = 0x14, VD_DRIVER_FEATURES = 0x20, VD_DRIVER_FEATURES_SEL = 0x24,
    VD_QUEUE_SEL = 0x30, VD_QUEUE_NUM_MAX = 0x34, VD_QUEUE_NUM = 0x38, VD_QUEUE_READY = 0x44,
    VD_QUEUE_NOTIFY = 0x50, VD_ISR = 0x60, VD_ISR_ACK = 0x64, VD_STATUS = 0x70,
    VD_QUEUE_DESC = 0x80, VD_QUEUE_AVAIL = 0x90, VD_QUEUE_USED = 0xa0, VD_GENERATION = 0xfc,
    VD_CONFIG = 0x100,
};
enum { VD_S_DRIVER_OK = 4, VD_S_FEATURES_OK = 8, VD_S_NEEDS_RESET = 64, VD_S_ALL = 15 };

#define VD_F_RO (1ull << 5)
#define VD_F_FLUSH (1ull << 9)
#define VD_F_CONFIG_WCE (1ull << 11)
#define VD_F_MQ (1ull << 12)
#define VD_F_DISCARD (1ull << 13)
#define VD_F_WRITE_ZEROES (1ull << 14)
#define VD_F_INDIRECT (1ull << 28)
#define VD_F_EVENT_IDX (1ull << 29)
#define VD_F_VERSION_1 (1ull << 32)
/* All but those that change how rings are used. */
#define VD_F_PLAIN (~(VD_F_INDIRECT | VD_F_EVENT_IDX))

enum { VD_IN = 0, VD_OUT = 1, VD_FLUSH = 4, VD_GET_ID = 8, VD_DISCARD = 11, VD_WRITE_ZEROES = 13 };
enum { VD_OK = 0, VD_IOERR = 1, VD_UNSUPP = 2, VD_NOTHING = 0xee };
enum { VD_NEXT = 1, VD_WRITE = 2, VD_INDIRECT = 4 };

typedef struct VdQueue {
    unsigned index, num;
    uint64_t desc, avail, used;
    uint16_t avail_idx, used_seen;
    uint16_t next_desc;         /* the next descriptor that nobody uses */
} VdQueue;

typedef struct VirtioDriver {
    QTestState *qts;
    uint64_t base;
    int gsi;
    uint64_t features;          /* that were accepted */
    unsigned num_queues;
    VdQueue queues[VD_QUEUES_MAX];
    uint64_t next_memory;
} VirtioDriver;

typedef struct VdBuffer {
    uint64_t addr;
    uint32_t len;
    bool write;                 /* by the device */
} VdBuffer;

/* A request on its way. */
typedef struct VdRequest {
    VdQueue *q;
    uint16_t head;
    uint64_t header, data, status;
    uint32_t bytes;
} VdRequest;

uint32_t vd_read(VirtioDriver *d, unsigned reg);
void vd_write(VirtioDriver *d, unsigned reg, uint32_t value);
uint64_t vd_read_features(VirtioDriver *d);
uint64_t vd_capacity(VirtioDriver *d);

/* The device in slot @slot of @qts; nothing is done to it yet. Interrupt lines are watched. */
void vd_init(VirtioDriver *d, QTestState *qts, unsigned slot);
/*
 * Reset and set up: features of @wanted that are offered, @num_queues queues of @num descriptors
 * (0: as many as there may be), DRIVER_OK.
 */
void vd_start(VirtioDriver *d, uint64_t wanted, unsigned num_queues, unsigned num);
/* @size bytes of guest memory, a multiple of 4096 from a page on. */
uint64_t vd_alloc(VirtioDriver *d, size_t size);

/*
 * Write a chain into descriptors; its head. vd_offer() puts it into the avail ring, vd_kick()
 * tells.
 */
uint16_t vd_chain(VirtioDriver *d, VdQueue *q, const VdBuffer *buffers, unsigned n);
uint16_t vd_chain_indirect(VirtioDriver *d, VdQueue *q, const VdBuffer *buffers, unsigned n);
void vd_write_desc(VirtioDriver *d, uint64_t table, unsigned i, uint64_t addr, uint32_t len,
                   uint16_t flags, uint16_t next);
void vd_offer(VirtioDriver *d, VdQueue *q, uint16_t head);
void vd_kick(VirtioDriver *d, VdQueue *q);

/* Wait until the device has given back something; the head, and how many bytes it says it wrote. */
uint16_t vd_wait_used(VirtioDriver *d, VdQueue *q, uint32_t *written);
/* Whether something was given back that vd_wait_used() has not taken. */
bool vd_has_used(VirtioDriver *d, VdQueue *q);
/* Wait for the interrupt line, then acknowledge everything. What the status was. */
uint32_t vd_wait_irq(VirtioDriver *d);
/* Wait until register @reg has all of @bits. */
void vd_wait_register(VirtioDriver *d, unsigned reg, uint32_t bits);

/*
 * A request of the usual three buffers; @out_data: what the device reads, or NULL. Offered, not
 * told.
 */
VdRequest vd_prepare(VirtioDriver *d, VdQueue *q, uint32_t type, uint64_t sector,
                     const void *out_data, uint32_t bytes);
/* Its status byte; VD_NOTHING when it has none yet. */
uint8_t vd_status(VirtioDriver *d, const VdRequest *r);
/* Begin it and wait for its end; its status. @in: where read data goes, or NULL. */
uint8_t vd_request(VirtioDriver *d, VdQueue *q, uint32_t type, uint64_t sector,
                   const void *out_data, void *in, uint32_t bytes);

#endif
