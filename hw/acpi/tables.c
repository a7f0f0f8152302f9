/*
 * Every table but the RSDP begins with the same 36 bytes:
 *
 *    0  signature      8  revision    10 OEM id (6)         24 OEM revision
 *    4  length (u32)   9  checksum    16 OEM table id (8)   28 creator id, 32 its revision
 *
 * and sums up to zero. Tables that others point to are placed first, so that their addresses are
 * known.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/acpi/tables.h"

#include <string.h>

#include "util/bswap.h"

#define HEADER_BYTES 36
#define RSDP_BYTES 36
#define TABLE_ALIGN 64
#define OEM_ID "FERRY "
#define OEM_TABLE_ID "MICROVM "

/* FADT, revision 6.4: what is not zero in it. */
#define FADT_BYTES 276
#define FADT_REVISION 6
#define FADT_MINOR 4
enum {
    FADT_DSDT = 40, FADT_BOOT_ARCH = 109, FADT_FLAGS = 112, FADT_RESET_REG = 116,
    FADT_RESET_VALUE = 128, FADT_MINOR_REVISION = 131, FADT_X_DSDT = 140, FADT_SLEEP_CONTROL = 244,
    FADT_SLEEP_STATUS = 256,
};
enum { BOOT_ARCH_LEGACY_DEVICES = 1 << 0, BOOT_ARCH_NO_VGA = 1 << 2 };
enum {
    FLAG_WBINVD = 1 << 0, FLAG_PROC_C1 = 1 << 2, FLAG_NO_FIXED_POWER_BUTTON = 1 << 4,
    FLAG_NO_FIXED_SLEEP_BUTTON = 1 << 5, FLAG_RESET_REG = 1 << 10, FLAG_HEADLESS = 1 << 12,
    FLAG_HW_REDUCED = 1 << 20,
};
enum { SPACE_IO = 1, ACCESS_BYTE = 1 };

enum { MADT_REVISION = 5, MADT_LOCAL_APIC = 0, MADT_IO_APIC = 1, MADT_LOCAL_NMI = 4 };

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--) {
        sum += *p++;
    }
    return -sum;
}

/* An empty table of @bytes; table_end() finishes it. */
static GByteArray *table_begin(const char *signature, uint8_t revision, unsigned bytes)
{
    GByteArray *table = g_byte_array_new();

    g_byte_array_set_size(table, bytes);
    memset(table->data, 0, bytes);
    memcpy(table->data, signature, 4);
    table->data[8] = revision;
    memcpy(table->data + 10, OEM_ID, 6);
    memcpy(table->data + 16, OEM_TABLE_ID, 8);
    stl_le_p(table->data + 24, 1);
    memcpy(table->data + 28, "FRRY", 4);
    stl_le_p(table->data + 32, 1);
    return table;
}

/* Append it to @out, aligned, and free it. Returns its address. */
static uint64_t table_end(GByteArray *table, GByteArray *out, uint64_t gpa)
{
    static const uint8_t padding[TABLE_ALIGN];
    uint64_t address;

    stl_le_p(table->data + 4, table->len);
    table->data[9] = checksum(table->data, table->len);
    g_byte_array_append(out, padding, -out->len % TABLE_ALIGN);
    address = gpa + out->len;
    g_byte_array_append(out, table->data, table->len);
    g_byte_array_unref(table);
    return address;
}

static uint64_t put_dsdt(GByteArray *out, uint64_t gpa, GByteArray *aml)
{
    GByteArray *table = table_begin("DSDT", 2, HEADER_BYTES);

    g_byte_array_append(table, aml->data, aml->len);
    g_byte_array_unref(aml);
    return table_end(table, out, gpa);
}

/* A generic address structure: one byte-wide I/O port. */
static void put_port(uint8_t *p, uint16_t port)
{
    p[0] = SPACE_IO;
    p[1] = 8;
    p[2] = 0;
    p[3] = ACCESS_BYTE;
    stq_le_p(p + 4, port);
}

static uint64_t put_fadt(GByteArray *out, uint64_t gpa, const AcpiConfig *config, uint64_t dsdt)
{
    GByteArray *table = table_begin("FACP", FADT_REVISION, FADT_BYTES);
    uint8_t *p = table->data;

    stl_le_p(p + FADT_DSDT, dsdt);
    stw_le_p(p + FADT_BOOT_ARCH, BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_NO_VGA);
    stl_le_p(p + FADT_FLAGS, FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_FIXED_POWER_BUTTON |
             FLAG_NO_FIXED_SLEEP_BUTTON | FLAG_RESET_REG | FLAG_HEADLESS | FLAG_HW_REDUCED);
    put_port(p + FADT_RESET_REG, config->reset_port);
    p[FADT_RESET_VALUE] = config->reset_value;
    p[FADT_MINOR_REVISION] = FADT_MINOR;
    stq_le_p(p + FADT_X_DSDT, dsdt);
    put_port(p + FADT_SLEEP_CONTROL, config->sleep_control_port);
    put_port(p + FADT_SLEEP_STATUS, config->sleep_status_port);
    return table_end(table, out, gpa);
}

static uint64_t put_madt(GByteArray *out, uint64_t gpa, const AcpiConfig *config)
{
    GByteArray *table = table_begin("APIC", MADT_REVISION, HEADER_BYTES + 8);
    uint8_t io_apic[12] = { MADT_IO_APIC, sizeof(io_apic), config->io_apic_id };
    /* Of all processors (0xff), at LINT1, polarity and trigger as the bus has them. */
    const uint8_t nmi[6] = { MADT_LOCAL_NMI, sizeof(nmi), 0xff, 0, 0, 1 };

    stl_le_p(table->data + HEADER_BYTES, config->local_apic);
    stl_le_p(table->data + HEADER_BYTES + 4, 1);        /* there are two 8259s as well */
    for (unsigned i = 0; i < config->cpus; i++) {
        const uint8_t entry[8] = { MADT_LOCAL_APIC, sizeof(entry), i, i, 1 };   /* enabled */

        g_byte_array_append(table, entry, sizeof(entry));
    }
    stl_le_p(io_apic + 4, config->io_apic);             /* and its first interrupt is number 0 */
    g_byte_array_append(table, io_apic, sizeof(io_apic));
    g_byte_array_append(table, nmi, sizeof(nmi));
    return table_end(table, out, gpa);
}

static uint64_t put_xsdt(GByteArray *out, uint64_t gpa, const uint64_t *tables, unsigned n)
{
    GByteArray *table = table_begin("XSDT", 1, HEADER_BYTES + n * 8);

    for (unsigned i = 0; i < n; i++) {
        stq_le_p(table->data + HEADER_BYTES + i * 8, tables[i]);
    }
    return table_end(table, out, gpa);
}

/* The checksum at 8 is over the first 20 bytes, that at 32 over all. */
static void fill_rsdp(uint8_t *p, uint64_t xsdt)
{
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, OEM_ID, 6);
    p[15] = 2;                          /* revision: there is an XSDT */
    stl_le_p(p + 20, RSDP_BYTES);
    stq_le_p(p + 24, xsdt);
    p[8] = checksum(p, 20);
    p[32] = checksum(p, RSDP_BYTES);
}

GBytes *acpi_build_tables(const AcpiConfig *config, uint64_t gpa, GByteArray *dsdt)
{
    GByteArray *out = g_byte_array_new();
    uint64_t tables[2], xsdt;

    g_assert(gpa % TABLE_ALIGN == 0);
    g_byte_array_set_size(out, RSDP_BYTES);
    memset(out->data, 0, RSDP_BYTES);
    tables[0] = put_fadt(out, gpa, config, put_dsdt(out, gpa, dsdt));
    tables[1] = put_madt(out, gpa, config);
    xsdt = put_xsdt(out, gpa, tables, G_N_ELEMENTS(tables));
    fill_rsdp(out->data, xsdt);
    return g_byte_array_free_to_bytes(out);
}
