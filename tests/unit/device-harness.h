/*
 * What the tests of devices share: making a device, and carrying its state to another one through
 * the bytes of a migration stream.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_UNIT_DEVICE_HARNESS_H
#define TESTS_UNIT_DEVICE_HARNESS_H

#include "hw/device.h"

/* A realized device from -device text; failure ends the test. */
DeviceState *harness_device(const char *text);
/* The error that -device gives for @text; success fails the test. */
void harness_device_fails(const char *text, const char *message);

/* The body of the section of @dev, as saved. */
GBytes *harness_save(DeviceState *dev);
/* Load it into @dev, a device of the same class. Returns 0 or -1 with @errp set. */
int harness_load(DeviceState *dev, GBytes *state, Error **errp);

uint64_t harness_get_uint(DeviceState *dev, const char *property);
bool harness_get_bool(DeviceState *dev, const char *property);
char *harness_get_str(DeviceState *dev, const char *property);

/* Take @err, which must be set and have this message. */
void harness_error_is(Error **err, const char *message);

#endif
