/*
 * The virtio-mmio transport (virtio 1.2, 4.2), version 2: 24 slots of 512 bytes, as the microvm
 * machine of QEMU has them.
 *
 * A virtio device is plugged into a slot. Slots share eight interrupt lines, slot n has line n % 8;
 * they are level-triggered.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_VIRTIO_MMIO_H
#define HW_VIRTIO_VIRTIO_MMIO_H

#include "hw/virtio/virtio.h"

#define VIRTIO_MMIO_BASE 0xfeb00000u
#define VIRTIO_MMIO_SLOT_BYTES 512u
#define VIRTIO_MMIO_SLOTS 24u
#define VIRTIO_MMIO_LINES 8u

/*
 * Put @vdev into the slot that its property "bus" names, or the first that is free, and let its
 * reads and writes come. False with @errp set: no machine with such slots, none free, no such bus.
 */
bool virtio_mmio_plug(VirtIODevice *vdev, Error **errp);
void virtio_mmio_unplug(VirtIODevice *vdev);
/* State was loaded: the line is as the interrupt controller's own state has it. */
void virtio_mmio_loaded(VirtIODevice *vdev);

/* Whether something is in the slot, and where: for ACPI and kernel command lines. */
bool virtio_mmio_slot(unsigned slot, uint32_t *base, unsigned *gsi);

#endif
