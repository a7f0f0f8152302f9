/*
 * Where the sleep registers are, and the type of sleep that is power off; for the tables that say
 * so.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_ACPI_SLEEP_H
#define HW_ACPI_SLEEP_H

#define ACPI_SLEEP_CONTROL_PORT 0x600u
#define ACPI_SLEEP_STATUS_PORT 0x601u
#define ACPI_SLEEP_TYPE_S5 5u

#endif
