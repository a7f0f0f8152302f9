/*
 * The classes of hw/, one line each in alphabetical order; devices.c lists them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_DEVICES_H
#define HW_DEVICES_H

#include "hw/device.h"

extern const DeviceClass device_acpi_sleep;
extern const DeviceClass device_cmos;
extern const DeviceClass device_debug_exit;
extern const DeviceClass device_memstress;
extern const DeviceClass device_port92;
extern const DeviceClass device_reset_control;
extern const DeviceClass device_serial;
extern const DeviceClass device_virtio_blk;
extern const DeviceClass device_virtio_mmio;

#endif
