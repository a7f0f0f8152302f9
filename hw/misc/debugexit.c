/*
 * isa-debug-exit: a guest writes a value v to a port and the process ends with status (v << 1) | 1,
 * so that tests can let the guest say how it went. Status 0 is not among them: it is what a machine
 * that was shut down in the ordinary way ends with.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/devices.h"
#include "system/memory.h"
#include "system/runstate.h"

typedef struct DebugExit {
    DeviceState parent;
    uint32_t iobase, iosize;
} DebugExit;

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void debug_exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    system_shutdown_request_with_code(SHUTDOWN_CAUSE_GUEST_SHUTDOWN,
                                      (int)((value << 1 | 1) & 0xff));
}

static const IOOps debug_exit_ops = {
    .read = debug_exit_read, .write = debug_exit_write, .min_size = 1, .max_size = 4,
};

static bool debug_exit_realize(DeviceState *dev, Error **errp)
{
    DebugExit *s = DEVICE_CAST(DebugExit, dev);

    if (s->iosize < 1 || s->iobase > UINT16_MAX || s->iosize > UINT16_MAX + 1u - s->iobase) {
        error_setg(errp, "isa-debug-exit: ports 0x%x to 0x%llx do not exist", s->iobase,
                   (unsigned long long)s->iobase + s->iosize - 1);
        return false;
    }
    return memory_map_ports("isa-debug-exit", (uint16_t)s->iobase, (uint16_t)s->iosize,
                            &debug_exit_ops, s, errp) == 0;
}

static void debug_exit_unrealize(DeviceState *dev)
{
    memory_unmap_opaque(dev);
}

static const Property debug_exit_properties[] = {
    DEFINE_PROP_UINT32("iobase", DebugExit, iobase, 0x501, 0, "first port"),
    DEFINE_PROP_UINT32("iosize", DebugExit, iosize, 0x02, 0, "number of ports"),
    DEFINE_PROP_END(),
};

const DeviceClass device_debug_exit = {
    .name = "isa-debug-exit",
    .desc = "ends the process with a status that the guest chooses",
    .instance_size = sizeof(DebugExit),
    .properties = debug_exit_properties,
    .user_creatable = true,
    .realize = debug_exit_realize,
    .unrealize = debug_exit_unrealize,
};
