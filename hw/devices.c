/*
 * The list of what there is: one line for each class of device, in alphabetical order.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/devices.h"

const DeviceClass *const device_classes[] = {
    &device_acpi_sleep,
    &device_debug_exit,         /* isa-debug-exit */
    &device_serial,             /* isa-serial */
    &device_cmos,               /* mc146818rtc */
    &device_memstress,
    &device_port92,
    &device_reset_control,
    &device_virtio_blk,
    &device_virtio_mmio,
    NULL,
};
