/*
 * The multiprocessor table tells a guest without ACPI about processors and interrupt lines: a
 * floating pointer that guests search for in the last KiB of conventional memory, and behind it the
 * table: a header of 44 bytes, then entries of which the first byte is the kind.
 *
 *    0 processor  20 bytes: APIC id, version, flags (1 usable, 2 boot), signature, features
 *    1 bus         8 bytes: id, six letters
 *    2 I/O APIC    8 bytes: id, version, flags (1 usable), address
 *    3 line        8 bytes: kind, flags, bus, line, APIC, pin
 *    4 local line  8 bytes: the same for an APIC's LINT pins
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "hw/x86/boot.h"
#include "util/bswap.h"

#define POINTER_BYTES 16
#define HEADER_BYTES 44
#define SPEC_REVISION 4                 /* 1.4 */
#define ISA_LINES 16
#define ISA_BUS 0

#define FLAGS_LEVEL_HIGH 0x0d

enum { LINE_INT = 0, LINE_NMI = 1, LINE_EXTINT = 3 };

/* The byte that makes the sum of all zero. */
static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--) {
        sum += *p++;
    }
    return -sum;
}

static void add_processors(GByteArray *table, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        uint8_t entry[20] = { 0, i, 0x14, i == 0 ? 3 : 1 };

        stl_le_p(entry + 4, 0x600);
        stl_le_p(entry + 8, 0x201);     /* an FPU and a local APIC */
        g_byte_array_append(table, entry, sizeof(entry));
    }
}

static void add_lines(GByteArray *table, unsigned io_apic, uint32_t level_lines)
{
    for (unsigned line = 0; line < ISA_LINES; line++) {
        uint8_t flags = level_lines >> line & 1 ? FLAGS_LEVEL_HIGH : 0;
        uint8_t entry[8] = { 3, LINE_INT, flags, 0, ISA_BUS, line, io_apic, line };

        /* Line 2 is the second controller's cascade. */
        if (line != 2) {
            g_byte_array_append(table, entry, sizeof(entry));
        }
    }
    g_byte_array_append(table, (uint8_t[8]){ 4, LINE_EXTINT, 0, 0, ISA_BUS, 0, 0xff, 0 }, 8);
    g_byte_array_append(table, (uint8_t[8]){ 4, LINE_NMI, 0, 0, ISA_BUS, 0, 0xff, 1 }, 8);
}

GBytes *boot_mp_table(unsigned cpus, uint64_t gpa, uint32_t level_lines)
{
    GByteArray *table = g_byte_array_new();
    uint8_t io_apic[8] = { 2, cpus, 0x11, 1 };
    uint8_t *p;
    size_t bytes;

    g_byte_array_set_size(table, POINTER_BYTES + HEADER_BYTES);
    memset(table->data, 0, table->len);
    add_processors(table, cpus);
    g_byte_array_append(table, (const uint8_t *)"\1\0ISA   ", 8);
    stl_le_p(io_apic + 4, BOOT_IO_APIC);
    g_byte_array_append(table, io_apic, sizeof(io_apic));
    add_lines(table, cpus, level_lines);

    p = table->data;
    memcpy(p, "_MP_", 4);
    stl_le_p(p + 4, gpa + POINTER_BYTES);
    p[8] = 1;
    p[9] = SPEC_REVISION;
    p[10] = checksum(p, POINTER_BYTES);

    p += POINTER_BYTES;
    bytes = table->len - POINTER_BYTES;
    memcpy(p, "PCMP", 4);
    stw_le_p(p + 4, bytes);
    p[6] = SPEC_REVISION;
    memcpy(p + 8, "FERRY   MICROVM     ", 20);
    stw_le_p(p + 34, cpus + 1 + 1 + (ISA_LINES - 1) + 2);
    stl_le_p(p + 36, BOOT_LOCAL_APIC);
    p[7] = checksum(p, bytes);
    return g_byte_array_free_to_bytes(table);
}
