/*
 * The list of what there is: one line for each class of device, in alphabetical order.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/devices.h"

const DeviceClass *const device_classes[] = {
    NULL,
};
