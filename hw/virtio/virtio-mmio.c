/*
 * One memory region for all slots, one switch for the registers of a slot, all 32 bits wide but for
 * the device's configuration from 0x100 on:
 *
 *    0x000 r  "virt"              0x030  w  queue number        0x080  w  descriptors, low (0x084 high)
 *    0x004 r  version 2           0x034 r   its largest size    0x090  w  avail ring
 *    0x008 r  device id, 0 none   0x038  w  its size            0x0a0  w  used ring
 *    0x00c r  vendor id           0x044 rw  it is ready         0x0ac  w  shared memory: there is none
 *    0x010 r  features            0x050  w  notify a queue      0x0fc r   generation of configuration
 *    0x014  w which 32 of them    0x060 r   interrupt status
 *    0x020  w driver's features   0x064  w  acknowledge it
 *    0x024  w which 32 of them    0x070 rw  device status
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/virtio/virtio-mmio.h"

#include <inttypes.h>
#include <string.h>

#include "hw/devices.h"
#include "system/irq.h"
#include "system/memory.h"
#include "util/bswap.h"
#include "util/cutils.h"

#define MAGIC 0x74726976u               /* "virt" */
#define VERSION 2u
#define VENDOR 0x59525246u              /* "FRRY" */
#define BUS_NAME "virtio-mmio-bus."

enum {
    REG_MAGIC = 0x00, REG_VERSION = 0x04, REG_DEVICE_ID = 0x08, REG_VENDOR_ID = 0x0c,
    REG_DEVICE_FEATURES = 0x10, REG_DEVICE_FEATURES_SEL = 0x14, REG_DRIVER_FEATURES = 0x20,
    REG_DRIVER_FEATURES_SEL = 0x24, REG_QUEUE_SEL = 0x30, REG_QUEUE_NUM_MAX = 0x34,
    REG_QUEUE_NUM = 0x38, REG_QUEUE_READY = 0x44, REG_QUEUE_NOTIFY = 0x50,
    REG_INTERRUPT_STATUS = 0x60, REG_INTERRUPT_ACK = 0x64, REG_STATUS = 0x70,
    REG_QUEUE_DESC_LOW = 0x80, REG_QUEUE_DESC_HIGH = 0x84, REG_QUEUE_AVAIL_LOW = 0x90,
    REG_QUEUE_AVAIL_HIGH = 0x94, REG_QUEUE_USED_LOW = 0xa0, REG_QUEUE_USED_HIGH = 0xa4,
    REG_SHM_LEN_LOW = 0xb0, REG_SHM_LEN_HIGH = 0xb4, REG_SHM_BASE_LOW = 0xb8,
    REG_SHM_BASE_HIGH = 0xbc, REG_CONFIG_GENERATION = 0xfc, REG_CONFIG = 0x100,
};

typedef struct VirtIOMMIO {
    DeviceState parent;
    uint32_t irq_base;                  /* properties */
    bool force_legacy;
    VirtIODevice *slots[VIRTIO_MMIO_SLOTS];
    bool line_level[VIRTIO_MMIO_LINES];
} VirtIOMMIO;

static VirtIOMMIO *the_bus;

/* ---- interrupts ---- */

/* Devices that share a line pull it together. */
static bool line_wanted(unsigned line)
{
    for (unsigned slot = line; slot < VIRTIO_MMIO_SLOTS; slot += VIRTIO_MMIO_LINES) {
        const VirtIODevice *vdev = the_bus->slots[slot];

        if (vdev && __atomic_load_n(&vdev->isr, __ATOMIC_SEQ_CST)) {
            return true;
        }
    }
    return false;
}

static void update_line(unsigned line)
{
    bool level = line_wanted(line);

    if (the_bus->line_level[line] != level) {
        the_bus->line_level[line] = level;
        irq_set(the_bus->irq_base + line, level);
    }
}

static void update_irq(VirtIODevice *vdev)
{
    update_line(vdev->slot % VIRTIO_MMIO_LINES);
}

void virtio_mmio_loaded(VirtIODevice *vdev)
{
    unsigned line = vdev->slot % VIRTIO_MMIO_LINES;

    the_bus->line_level[line] = line_wanted(line);
}

static const VirtIOTransport mmio_transport = { .update_irq = update_irq };

/* ---- registers ---- */

/* The queue that the driver looks at, if there is one. */
static VirtQueue *selected_queue(VirtIODevice *vdev)
{
    return vdev->queue_sel < vdev->num_queues ? &vdev->queues[vdev->queue_sel] : NULL;
}

static uint32_t features_word(VirtIODevice *vdev)
{
    return vdev->device_features_sel < 2
               ? virtio_offered_features(vdev) >> (32 * vdev->device_features_sel) : 0;
}

static uint32_t register_read(VirtIODevice *vdev, unsigned offset)
{
    const VirtQueue *vq = selected_queue(vdev);

    switch (offset) {
    case REG_DEVICE_ID:
        return vdev->vclass->id;
    case REG_DEVICE_FEATURES:
        return features_word(vdev);
    case REG_QUEUE_NUM_MAX:
        return vq ? vq->num_max : 0;
    case REG_QUEUE_READY:
        return vq ? vq->ready : 0;
    case REG_INTERRUPT_STATUS:
        return __atomic_load_n(&vdev->isr, __ATOMIC_SEQ_CST);
    case REG_STATUS:
        return vdev->status;
    case REG_SHM_LEN_LOW: case REG_SHM_LEN_HIGH: case REG_SHM_BASE_LOW: case REG_SHM_BASE_HIGH:
        return UINT32_MAX;
    case REG_CONFIG_GENERATION:
        return vdev->config_generation;
    default:
        return 0;
    }
}

static uint64_t config_read(VirtIODevice *vdev, unsigned offset, unsigned size)
{
    uint8_t bytes[8] = { 0 };

    virtio_config_read(vdev, offset, bytes, size);
    return ldq_le_p(bytes);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    VirtIOMMIO *bus = opaque;
    VirtIODevice *vdev = bus->slots[offset / VIRTIO_MMIO_SLOT_BYTES];

    offset %= VIRTIO_MMIO_SLOT_BYTES;
    if (offset >= REG_CONFIG) {
        return vdev ? config_read(vdev, offset - REG_CONFIG, size) : 0;
    }
    if (size != 4) {
        return 0;
    }
    switch (offset) {
    case REG_MAGIC:
        return MAGIC;
    case REG_VERSION:
        return VERSION;
    case REG_VENDOR_ID:
        return VENDOR;
    default:
        return vdev ? register_read(vdev, offset) : 0;
    }
}

static void set_half(uint64_t *address, bool high, uint32_t value)
{
    *address = high ? (*address & UINT32_MAX) | (uint64_t)value << 32
                    : (*address & ~(uint64_t)UINT32_MAX) | value;
}

/* Size and addresses of a queue; what is ready does not change any more. */
static void queue_write(VirtQueue *vq, unsigned offset, uint32_t value)
{
    if (!vq || vq->ready) {
        return;
    }
    switch (offset) {
    case REG_QUEUE_NUM:
        vq->num = value;
        break;
    case REG_QUEUE_DESC_LOW: case REG_QUEUE_DESC_HIGH:
        set_half(&vq->desc, offset == REG_QUEUE_DESC_HIGH, value);
        break;
    case REG_QUEUE_AVAIL_LOW: case REG_QUEUE_AVAIL_HIGH:
        set_half(&vq->avail, offset == REG_QUEUE_AVAIL_HIGH, value);
        break;
    case REG_QUEUE_USED_LOW: case REG_QUEUE_USED_HIGH:
        set_half(&vq->used, offset == REG_QUEUE_USED_HIGH, value);
        break;
    }
}

static void set_driver_features(VirtIODevice *vdev, uint32_t value)
{
    /* Once accepted they hold until a reset. */
    if (vdev->driver_features_sel < 2 && !(vdev->status & VIRTIO_STATUS_FEATURES_OK)) {
        set_half(&vdev->driver_features, vdev->driver_features_sel == 1, value);
    }
}

static void register_write(VirtIODevice *vdev, unsigned offset, uint32_t value)
{
    switch (offset) {
    case REG_DEVICE_FEATURES_SEL:
        vdev->device_features_sel = value;
        break;
    case REG_DRIVER_FEATURES:
        set_driver_features(vdev, value);
        break;
    case REG_DRIVER_FEATURES_SEL:
        vdev->driver_features_sel = value;
        break;
    case REG_QUEUE_SEL:
        vdev->queue_sel = value;
        break;
    case REG_QUEUE_READY:
        if (selected_queue(vdev)) {
            virtio_set_queue_ready(vdev, vdev->queue_sel, value & 1);
        }
        break;
    case REG_QUEUE_NOTIFY:
        virtio_notify_queue(vdev, value);
        break;
    case REG_INTERRUPT_ACK:
        virtio_ack_isr(vdev, value);
        break;
    case REG_STATUS:
        virtio_set_status(vdev, value);
        break;
    default:
        queue_write(selected_queue(vdev), offset, value);
    }
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    VirtIOMMIO *bus = opaque;
    VirtIODevice *vdev = bus->slots[offset / VIRTIO_MMIO_SLOT_BYTES];
    uint8_t bytes[8];

    offset %= VIRTIO_MMIO_SLOT_BYTES;
    if (vdev && offset >= REG_CONFIG) {
        stq_le_p(bytes, value);
        virtio_config_write(vdev, offset - REG_CONFIG, bytes, size);
    } else if (vdev && size == 4) {
        register_write(vdev, offset, value);
    }
}

static const IOOps mmio_ops = {
    .read = mmio_read, .write = mmio_write, .min_size = 1, .max_size = 4,
};

/* ---- slots ---- */

static int parse_bus(const char *name, unsigned *slot, Error **errp)
{
    uint64_t number;

    if (!g_str_has_prefix(name, BUS_NAME) ||
        !parse_uint64_range(name + strlen(BUS_NAME), 0, VIRTIO_MMIO_SLOTS - 1, &number, NULL)) {
        error_setg(errp, "Bus '%s' not found", name);
        return -1;
    }
    *slot = number;
    return 0;
}

bool virtio_mmio_plug(VirtIODevice *vdev, Error **errp)
{
    const char *driver = vdev->parent.klass->name;
    unsigned slot = 0;

    if (!the_bus) {
        error_setg(errp, "No 'virtio-bus' bus found for device '%s'", driver);
        return false;
    }
    if (vdev->bus) {
        if (parse_bus(vdev->bus, &slot, errp) < 0) {
            return false;
        }
        if (the_bus->slots[slot]) {
            error_setg(errp, "Bus '%s' is full", vdev->bus);
            return false;
        }
    }
    while (slot < VIRTIO_MMIO_SLOTS && the_bus->slots[slot]) {
        slot++;
    }
    if (slot == VIRTIO_MMIO_SLOTS) {
        error_setg(errp, "No free virtio-mmio slot for device '%s': all %u are taken", driver,
                   VIRTIO_MMIO_SLOTS);
        return false;
    }
    vdev->transport = &mmio_transport;
    vdev->slot = slot;
    the_bus->slots[slot] = vdev;
    return true;
}

void virtio_mmio_unplug(VirtIODevice *vdev)
{
    the_bus->slots[vdev->slot] = NULL;
    update_irq(vdev);
}

bool virtio_mmio_slot(unsigned slot, uint32_t *base, unsigned *gsi)
{
    *base = VIRTIO_MMIO_BASE + slot * VIRTIO_MMIO_SLOT_BYTES;
    *gsi = (the_bus ? the_bus->irq_base : 0) + slot % VIRTIO_MMIO_LINES;
    return the_bus && the_bus->slots[slot];
}

/* ---- the device that is the bus ---- */

static bool virtio_mmio_realize(DeviceState *dev, Error **errp)
{
    VirtIOMMIO *s = DEVICE_CAST(VirtIOMMIO, dev);

    if (s->force_legacy) {
        error_setg(errp, "virtio-mmio: force-legacy=on is not supported: there is version 2 only");
        return false;
    }
    if (memory_map_mmio("virtio-mmio", VIRTIO_MMIO_BASE, VIRTIO_MMIO_SLOTS * VIRTIO_MMIO_SLOT_BYTES,
                        &mmio_ops, s, errp) < 0) {
        return false;
    }
    the_bus = s;
    return true;
}

static void virtio_mmio_unrealize(DeviceState *dev)
{
    memory_unmap_opaque(dev);
    the_bus = NULL;
}

static const Property virtio_mmio_properties[] = {
    DEFINE_PROP_UINT32("irq-base", VirtIOMMIO, irq_base, 16, 0, "first of eight interrupt lines"),
    DEFINE_PROP_BOOL("force-legacy", VirtIOMMIO, force_legacy, false, 0, "version 1; must be off"),
    DEFINE_PROP_END(),
};

const DeviceClass device_virtio_mmio = {
    .name = "virtio-mmio",
    .desc = "24 slots for virtio devices",
    .instance_size = sizeof(VirtIOMMIO),
    .properties = virtio_mmio_properties,
    .realize = virtio_mmio_realize,
    .unrealize = virtio_mmio_unrealize,
};
