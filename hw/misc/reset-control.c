/*
 * reset-control: the chipset's reset control register, port 0xcf9. Bit 2 starts a reset of the kind
 * that bits 1 and 3 choose; here there is one kind, of the whole machine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/devices.h"
#include "system/memory.h"
#include "system/runstate.h"

enum { RESET_CPU = 0x04, RESET_KINDS = 0x0a };

typedef struct ResetControl {
    DeviceState parent;
    uint8_t rst_cnt;
} ResetControl;

static uint64_t reset_control_read(void *opaque, uint64_t offset, unsigned size)
{
    ResetControl *s = opaque;

    return s->rst_cnt;
}

static void reset_control_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    ResetControl *s = opaque;

    s->rst_cnt = value & RESET_KINDS;
    if (value & RESET_CPU) {
        system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
    }
}

static const IOOps reset_control_ops = {
    .read = reset_control_read, .write = reset_control_write, .min_size = 1, .max_size = 1,
};

static void reset_control_reset(DeviceState *dev)
{
    DEVICE_CAST(ResetControl, dev)->rst_cnt = 0;
}

static bool reset_control_realize(DeviceState *dev, Error **errp)
{
    return memory_map_ports("reset-control", 0xcf9, 1, &reset_control_ops, dev, errp) == 0;
}

static void reset_control_unrealize(DeviceState *dev)
{
    memory_unmap_opaque(dev);
}

static const VMStateDescription vmstate_reset_control = {
    .name = "reset-control",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(rst_cnt, ResetControl),
        VMSTATE_END_OF_LIST() },
};

const DeviceClass device_reset_control = {
    .name = "reset-control",
    .desc = "reset control register at port 0xcf9",
    .instance_size = sizeof(ResetControl),
    .realize = reset_control_realize,
    .unrealize = reset_control_unrealize,
    .reset = reset_control_reset,
    .vmsd = &vmstate_reset_control,
};
