/*
 * acpi-sleep: the sleep control and sleep status registers of a hardware-reduced ACPI machine (ACPI
 * 6.4, 4.8.3.7). A guest writes the type of sleep that \_S5 names together with SLP_EN, and the
 * machine is off.
 *
 *    control  bits 2-4 SLP_TYP, bit 5 SLP_EN (reads as 0)
 *    status   bit 7 WAK_STS: there is nothing to wake from, so it stays 0
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/acpi/sleep.h"
#include "hw/devices.h"
#include "system/memory.h"
#include "system/runstate.h"

enum { SLP_TYP_SHIFT = 2, SLP_TYP_MASK = 7, SLP_EN = 1 << 5 };

static uint64_t sleep_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void sleep_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset == 0 && (value & SLP_EN) &&
        (value >> SLP_TYP_SHIFT & SLP_TYP_MASK) == ACPI_SLEEP_TYPE_S5) {
        system_shutdown_request(SHUTDOWN_CAUSE_GUEST_SHUTDOWN);
    }
}

static const IOOps sleep_ops = {
    .read = sleep_read, .write = sleep_write, .min_size = 1, .max_size = 1,
};

static bool sleep_realize(DeviceState *dev, Error **errp)
{
    return memory_map_ports("acpi-sleep", ACPI_SLEEP_CONTROL_PORT, 2, &sleep_ops, dev, errp) == 0;
}

static void sleep_unrealize(DeviceState *dev)
{
    memory_unmap_opaque(dev);
}

const DeviceClass device_acpi_sleep = {
    .name = "acpi-sleep",
    .desc = "sleep registers of hardware-reduced ACPI",
    .instance_size = sizeof(DeviceState),
    .realize = sleep_realize,
    .unrealize = sleep_unrealize,
};
