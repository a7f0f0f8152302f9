/*
 * The driver. Descriptors are used one after the other, round and round: a test has fewer under way
 * than a queue has.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio-driver.h"

#include <string.h>

#include "util/bswap.h"

#define SLOTS_BASE 0xfeb00000ull
#define SLOT_BYTES 512u
#define LINES 8
#define IRQ_BASE 16

uint32_t vd_read(VirtioDriver *d, unsigned reg)
{
    return qtest_readl(d->qts, d->base + reg);
}

void vd_write(VirtioDriver *d, unsigned reg, uint32_t value)
{
    qtest_writel(d->qts, d->base + reg, value);
}

static void write_address(VirtioDriver *d, unsigned reg, uint64_t address)
{
    vd_write(d, reg, address);
    vd_write(d, reg + 4, address >> 32);
}

uint64_t vd_read_features(VirtioDriver *d)
{
    uint64_t low;

    vd_write(d, VD_DEVICE_FEATURES_SEL, 0);
    low = vd_read(d, VD_DEVICE_FEATURES);
    vd_write(d, VD_DEVICE_FEATURES_SEL, 1);
    return low | (uint64_t)vd_read(d, VD_DEVICE_FEATURES) << 32;
}

uint64_t vd_capacity(VirtioDriver *d)
{
    return vd_read(d, VD_CONFIG) | (uint64_t)vd_read(d, VD_CONFIG + 4) << 32;
}

void vd_init(VirtioDriver *d, QTestState *qts, unsigned slot)
{
    memset(d, 0, sizeof(*d));
    d->qts = qts;
    d->base = SLOTS_BASE + slot * SLOT_BYTES;
    d->gsi = IRQ_BASE + slot % LINES;
    d->next_memory = VD_MEMORY;
    qtest_irq_intercept_in(qts, "ioapic");
}

uint64_t vd_alloc(VirtioDriver *d, size_t size)
{
    uint64_t at = d->next_memory;

    d->next_memory += (size + 4095) & ~4095ull;
    g_assert_cmphex(d->next_memory, <=, VD_MEMORY_END);
    return at;
}

static void start_queue(VirtioDriver *d, unsigned index, unsigned num)
{
    VdQueue *q = &d->queues[index];

    memset(q, 0, sizeof(*q));
    q->index = index;
    vd_write(d, VD_QUEUE_SEL, index);
    q->num = num ?: vd_read(d, VD_QUEUE_NUM_MAX);
    g_assert_cmpuint(q->num, <=, vd_read(d, VD_QUEUE_NUM_MAX));
    q->desc = vd_alloc(d, q->num * 16);
    q->avail = vd_alloc(d, 6 + q->num * 2);
    q->used = vd_alloc(d, 6 + q->num * 8);
    qtest_memset(d->qts, q->avail, 0, 6 + q->num * 2);
    qtest_memset(d->qts, q->used, 0, 6 + q->num * 8);
    vd_write(d, VD_QUEUE_NUM, q->num);
    write_address(d, VD_QUEUE_DESC, q->desc);
    write_address(d, VD_QUEUE_AVAIL, q->avail);
    write_address(d, VD_QUEUE_USED, q->used);
    vd_write(d, VD_QUEUE_READY, 1);
    g_assert_cmpuint(vd_read(d, VD_QUEUE_READY), ==, 1);
}

void vd_start(VirtioDriver *d, uint64_t wanted, unsigned num_queues, unsigned num)
{
    vd_write(d, VD_STATUS, 0);
    g_assert_cmphex(vd_read(d, VD_STATUS), ==, 0);
    vd_write(d, VD_STATUS, 1);
    vd_write(d, VD_STATUS, 3);
    d->features = vd_read_features(d) & (wanted | VD_F_VERSION_1);
    vd_write(d, VD_DRIVER_FEATURES_SEL, 0);
    vd_write(d, VD_DRIVER_FEATURES, d->features);
    vd_write(d, VD_DRIVER_FEATURES_SEL, 1);
    vd_write(d, VD_DRIVER_FEATURES, d->features >> 32);
    vd_write(d, VD_STATUS, 3 | VD_S_FEATURES_OK);
    g_assert_cmphex(vd_read(d, VD_STATUS), ==, 3 | VD_S_FEATURES_OK);
    d->next_memory = VD_MEMORY;
    d->num_queues = num_queues;
    for (unsigned i = 0; i < num_queues; i++) {
        start_queue(d, i, num);
    }
    vd_write(d, VD_STATUS, VD_S_ALL);
    g_assert_cmphex(vd_read(d, VD_STATUS), ==, VD_S_ALL);
}

/* ---- chains ---- */

void vd_write_desc(VirtioDriver *d, uint64_t table, unsigned i, uint64_t addr, uint32_t len,
                   uint16_t flags, uint16_t next)
{
    uint8_t bytes[16];

    stq_le_p(bytes, addr);
    stl_le_p(bytes + 8, len);
    stw_le_p(bytes + 12, flags);
    stw_le_p(bytes + 14, next);
    qtest_memwrite(d->qts, table + i * 16, bytes, sizeof(bytes));
}

uint16_t vd_chain(VirtioDriver *d, VdQueue *q, const VdBuffer *buffers, unsigned n)
{
    uint16_t head = q->next_desc;

    for (unsigned i = 0; i < n; i++) {
        uint16_t next = (q->next_desc + 1) % q->num;

        vd_write_desc(d, q->desc, q->next_desc, buffers[i].addr, buffers[i].len,
                      (buffers[i].write ? VD_WRITE : 0) | (i + 1 < n ? VD_NEXT : 0), next);
        q->next_desc = next;
    }
    return head;
}

uint16_t vd_chain_indirect(VirtioDriver *d, VdQueue *q, const VdBuffer *buffers, unsigned n)
{
    uint16_t head = q->next_desc;
    uint64_t table = vd_alloc(d, n * 16);

    for (unsigned i = 0; i < n; i++) {
        vd_write_desc(d, table, i, buffers[i].addr, buffers[i].len,
                      (buffers[i].write ? VD_WRITE : 0) | (i + 1 < n ? VD_NEXT : 0), i + 1);
    }
    vd_write_desc(d, q->desc, head, table, n * 16, VD_INDIRECT, 0);
    q->next_desc = (head + 1) % q->num;
    return head;
}

void vd_offer(VirtioDriver *d, VdQueue *q, uint16_t head)
{
    qtest_writew(d->qts, q->avail + 4 + q->avail_idx % q->num * 2, head);
    qtest_writew(d->qts, q->avail + 2, ++q->avail_idx);
}

void vd_kick(VirtioDriver *d, VdQueue *q)
{
    vd_write(d, VD_QUEUE_NOTIFY, q->index);
}

bool vd_has_used(VirtioDriver *d, VdQueue *q)
{
    return qtest_readw(d->qts, q->used + 2) != q->used_seen;
}

uint16_t vd_wait_used(VirtioDriver *d, VdQueue *q, uint32_t *written)
{
    gint64 deadline = qtest_deadline();
    uint64_t at = q->used + 4 + q->used_seen % q->num * 8;

    while (!vd_has_used(d, q)) {
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(d->qts, "the device gave nothing back on queue %u", q->index);
        }
    }
    q->used_seen++;
    if (written) {
        *written = qtest_readl(d->qts, at + 4);
    }
    return qtest_readl(d->qts, at);
}

uint32_t vd_wait_irq(VirtioDriver *d)
{
    gint64 deadline = qtest_deadline();
    uint32_t isr;

    while (!qtest_get_irq(d->qts, d->gsi)) {
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(d->qts, "there was no interrupt");
        }
        /* Levels come along with answers. */
        vd_read(d, VD_MAGIC);
    }
    isr = vd_read(d, VD_ISR);
    vd_write(d, VD_ISR_ACK, isr);
    return isr;
}

void vd_wait_register(VirtioDriver *d, unsigned reg, uint32_t bits)
{
    gint64 deadline = qtest_deadline();

    while ((vd_read(d, reg) & bits) != bits) {
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(d->qts, "register 0x%x is 0x%x, without 0x%x", reg, vd_read(d, reg), bits);
        }
    }
}

/* ---- requests ---- */

VdRequest vd_prepare(VirtioDriver *d, VdQueue *q, uint32_t type, uint64_t sector,
                     const void *out_data, uint32_t bytes)
{
    VdRequest r = { .q = q, .header = vd_alloc(d, 4096), .bytes = bytes };
    uint8_t header[16] = { 0 };
    VdBuffer buffers[3];
    unsigned n = 0;

    r.status = r.header + 16;
    stl_le_p(header, type);
    stq_le_p(header + 8, sector);
    qtest_memwrite(d->qts, r.header, header, sizeof(header));
    qtest_writeb(d->qts, r.status, VD_NOTHING);
    buffers[n++] = (VdBuffer){ r.header, sizeof(header), false };
    if (bytes) {
        r.data = vd_alloc(d, bytes);
        if (out_data) {
            qtest_bufwrite(d->qts, r.data, out_data, bytes);
        }
        buffers[n++] = (VdBuffer){ r.data, bytes, !out_data };
    }
    buffers[n++] = (VdBuffer){ r.status, 1, true };
    r.head = vd_chain(d, q, buffers, n);
    vd_offer(d, q, r.head);
    return r;
}

uint8_t vd_status(VirtioDriver *d, const VdRequest *r)
{
    return qtest_readb(d->qts, r->status);
}

uint8_t vd_request(VirtioDriver *d, VdQueue *q, uint32_t type, uint64_t sector,
                   const void *out_data, void *in, uint32_t bytes)
{
    uint64_t memory = d->next_memory;
    VdRequest r = vd_prepare(d, q, type, sector, out_data, bytes);
    uint32_t written;

    vd_kick(d, q);
    g_assert_cmpuint(vd_wait_used(d, q, &written), ==, r.head);
    g_assert_cmpuint(written, ==, out_data || !bytes ? 1 : type == VD_GET_ID ? 1 + MIN(bytes, 20)
                                                                            : 1 + bytes);
    if (in) {
        qtest_bufread(d->qts, r.data, in, bytes);
    }
    d->next_memory = memory;
    return vd_status(d, &r);
}
