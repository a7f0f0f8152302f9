/*
 * ACPI's static tables (ACPI specification 6.4, chapter 5), placed one after the other at an
 * address that is known before: RSDP, XSDT, FADT, MADT, DSDT.
 *
 * The machine is "hardware-reduced": it has none of the fixed registers that PCs have had since
 * 1996. Power off and reset are the sleep registers and the reset register that the FADT names.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_ACPI_TABLES_H
#define HW_ACPI_TABLES_H

#include <glib.h>
#include <stdint.h>

typedef struct AcpiConfig {
    unsigned cpus;                  /* local APIC ids 0 to cpus - 1 */
    uint32_t local_apic, io_apic;   /* addresses */
    uint8_t io_apic_id;
    uint16_t sleep_control_port, sleep_status_port;
    uint16_t reset_port;
    uint8_t reset_value;
} AcpiConfig;

/*
 * acpi_build_tables:
 * @gpa: guest physical address at which the bytes will be, below 4 GiB and a multiple of 64
 * @dsdt: the AML of the DSDT, without header; freed here
 *
 * Returns: the tables, the RSDP first, for the caller to unref.
 */
GBytes *acpi_build_tables(const AcpiConfig *config, uint64_t gpa, GByteArray *dsdt);

#endif
