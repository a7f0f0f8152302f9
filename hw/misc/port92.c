/*
 * port92: system control port A. Bit 0 resets the machine when it goes from 0 to 1; bit 1 is the
 * A20 gate, which is always open here: it is kept and shown, and nothing depends on it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/devices.h"
#include "system/memory.h"
#include "system/runstate.h"

enum { PORT92_RESET = 0x01, PORT92_A20 = 0x02 };

typedef struct Port92 {
    DeviceState parent;
    uint8_t outport;
} Port92;

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
    Port92 *s = opaque;

    return s->outport;
}

static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    Port92 *s = opaque;
    bool reset = (value & PORT92_RESET) && !(s->outport & PORT92_RESET);

    s->outport = (uint8_t)value;
    if (reset) {
        system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
    }
}

static const IOOps port92_ops = {
    .read = port92_read, .write = port92_write, .min_size = 1, .max_size = 1,
};

static void port92_reset(DeviceState *dev)
{
    DEVICE_CAST(Port92, dev)->outport = PORT92_A20;
}

static bool port92_realize(DeviceState *dev, Error **errp)
{
    return memory_map_ports("port92", 0x92, 1, &port92_ops, dev, errp) == 0;
}

static void port92_unrealize(DeviceState *dev)
{
    memory_unmap_opaque(dev);
}

static const VMStateDescription vmstate_port92 = {
    .name = "port92",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(outport, Port92),
        VMSTATE_END_OF_LIST() },
};

const DeviceClass device_port92 = {
    .name = "port92",
    .desc = "system control port A: fast reset and A20",
    .instance_size = sizeof(Port92),
    .realize = port92_realize,
    .unrealize = port92_unrealize,
    .reset = port92_reset,
    .vmsd = &vmstate_port92,
};
