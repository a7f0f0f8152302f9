/*
 * A small writer of AML, the byte code in ACPI's DSDT (ACPI specification 6.4, chapter 20).
 *
 * Terms are appended to a GByteArray. What has a body (a scope, a device) takes it as an array of
 * its own, written before, because its length stands in front of it:
 *
 *     GByteArray *dev = g_byte_array_new(), *crs = g_byte_array_new();
 *     aml_name_eisaid(dev, "_HID", "PNP0501");
 *     aml_resource_io(crs, 0x3f8, 8);
 *     aml_name_resources(dev, "_CRS", crs);
 *     aml_device(scope, "COM1", dev);
 *
 * Functions that take a body free it. Names are one segment of four characters, padded by the
 * caller with '_', optionally with a leading '\'. Any thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_ACPI_AML_H
#define HW_ACPI_AML_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- objects ---- */

void aml_scope(GByteArray *out, const char *name, GByteArray *body);
void aml_device(GByteArray *out, const char *name, GByteArray *body);

/* Name (@name, value). Integers take the shortest form. */
void aml_name_integer(GByteArray *out, const char *name, uint64_t value);
void aml_name_string(GByteArray *out, const char *name, const char *value);
/* @id: three capital letters and four hexadecimal digits, "PNP0501". */
void aml_name_eisaid(GByteArray *out, const char *name, const char *id);
/* A package of @n integers, at most 255. */
void aml_name_package(GByteArray *out, const char *name, const uint64_t *values, unsigned n);
/* A buffer of the resource descriptors in @body, which get their end tag here. */
void aml_name_resources(GByteArray *out, const char *name, GByteArray *body);

/* ---- resource descriptors ---- */

/* @n ports from @port on, decoded in 16 bits. */
void aml_resource_io(GByteArray *out, uint16_t port, uint8_t n);
/* Read and write memory that does not move. */
void aml_resource_memory(GByteArray *out, uint32_t address, uint32_t bytes);
/* An ISA line, 0 to 15: edge-triggered, active high, exclusive. */
void aml_resource_irq(GByteArray *out, unsigned line);
/* A global system interrupt: level-triggered, active high, shared. */
void aml_resource_interrupt(GByteArray *out, uint32_t gsi);

#endif
