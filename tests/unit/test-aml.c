/*
 * AML byte by byte, against what the specification says (and iasl writes) for the same terms.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hw/acpi/aml.h"
#include "hw/acpi/tables.h"
#include "util/bswap.h"

#define ASSERT_BYTES(out, ...) do { \
    const uint8_t expected_[] = { __VA_ARGS__ }; \
    g_assert_cmpmem((out)->data, (out)->len, expected_, sizeof(expected_)); \
    g_byte_array_unref(out); \
} while (0)

static GByteArray *filled(unsigned n)
{
    GByteArray *body = g_byte_array_new();

    g_byte_array_set_size(body, n);
    for (unsigned i = 0; i < n; i++) {
        body->data[i] = 0xa3;
    }
    return body;
}

static void test_integers(void)
{
    static const struct {
        uint64_t value;
        uint8_t bytes[9];
        unsigned n;
    } cases[] = {
        { 0, { 0x00 }, 1 },
        { 1, { 0x01 }, 1 },
        { 2, { 0x0a, 2 }, 2 },
        { 0xff, { 0x0a, 0xff }, 2 },
        { 0x100, { 0x0b, 0x00, 0x01 }, 3 },
        { 0xffff, { 0x0b, 0xff, 0xff }, 3 },
        { 0x10000, { 0x0c, 0, 0, 1, 0 }, 5 },
        { 0xffffffff, { 0x0c, 0xff, 0xff, 0xff, 0xff }, 5 },
        { 0x123456789, { 0x0e, 0x89, 0x67, 0x45, 0x23, 0x01, 0, 0, 0 }, 9 },
        { UINT64_MAX, { 0x0e, 255, 255, 255, 255, 255, 255, 255, 255 }, 9 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GByteArray *out = g_byte_array_new();

        aml_name_integer(out, "_UID", cases[i].value);
        g_assert_cmpmem(out->data, 5, "\x08_UID", 5);
        g_assert_cmpmem(out->data + 5, out->len - 5, cases[i].bytes, cases[i].n);
        g_byte_array_unref(out);
    }
}

static void test_names(void)
{
    GByteArray *out = g_byte_array_new();

    aml_name_string(out, "_HID", "AB");
    ASSERT_BYTES(out, 0x08, '_', 'H', 'I', 'D', 0x0d, 'A', 'B', 0);
    out = g_byte_array_new();
    aml_name_eisaid(out, "_HID", "PNP0501");
    ASSERT_BYTES(out, 0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x05, 0x01);
    out = g_byte_array_new();
    aml_name_package(out, "\\_S5_", (const uint64_t[]){ 5, 1, 0 }, 3);
    ASSERT_BYTES(out, 0x08, '\\', '_', 'S', '5', '_', 0x12, 0x06, 3, 0x0a, 5, 1, 0);
}

/* A length counts itself: one byte up to 63, two up to 4095, three up to 2^20 - 1, then four. */
static void test_lengths(void)
{
    static const struct {
        unsigned body;          /* without the name's four bytes */
        uint8_t bytes[4];
        unsigned n;
    } cases[] = {
        { 0, { 5 }, 1 },
        { 58, { 63 }, 1 },
        { 59, { 0x41, 0x04 }, 2 },                      /* 65 */
        { 4089, { 0x4f, 0xff }, 2 },                    /* 4095 */
        { 4090, { 0x81, 0x00, 0x01 }, 3 },              /* 4097 */
        { 1048568, { 0x8f, 0xff, 0xff }, 3 },           /* 2^20 - 1 */
        { 1048569, { 0xc1, 0x00, 0x00, 0x01 }, 4 },     /* 2^20 + 1 */
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GByteArray *out = g_byte_array_new();
        unsigned n = cases[i].n;

        aml_scope(out, "_SB_", filled(cases[i].body));
        g_assert_cmphex(out->data[0], ==, 0x10);
        g_assert_cmpmem(out->data + 1, n, cases[i].bytes, n);
        g_assert_cmpmem(out->data + 1 + n, 4, "_SB_", 4);
        g_assert_cmpuint(out->len, ==, 1 + n + 4 + cases[i].body);
        g_byte_array_unref(out);
    }
}

static void test_device(void)
{
    GByteArray *out = g_byte_array_new(), *dev = g_byte_array_new(), *crs = g_byte_array_new();

    aml_resource_io(crs, 0x3f8, 8);
    aml_resource_irq(crs, 4);
    aml_resource_memory(crs, 0xfeb00000, 512);
    aml_resource_interrupt(crs, 16);
    g_assert_cmpuint(crs->len, ==, 8 + 3 + 12 + 9);
    aml_name_resources(dev, "_CRS", crs);
    aml_device(out, "COM1", dev);
    ASSERT_BYTES(out, 0x5b, 0x82, 0x30, 'C', 'O', 'M', '1',
                 0x08, '_', 'C', 'R', 'S', 0x11, 0x25, 0x0a, 34,
                 0x47, 1, 0xf8, 0x03, 0xf8, 0x03, 1, 8,
                 0x22, 0x10, 0x00,
                 0x86, 9, 0, 1, 0, 0, 0xb0, 0xfe, 0, 2, 0, 0,
                 0x89, 6, 0, 0x09, 1, 16, 0, 0, 0,
                 0x79, 0);
}

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t total = 0;

    while (n--) {
        total += *p++;
    }
    return total;
}

/* Addresses are right wherever the tables are placed, and every table sums up to zero. */
static void test_tables(void)
{
    static const uint64_t places[] = { 0xe0000, 0x7fff0000 };
    const AcpiConfig config = { .cpus = 4, .local_apic = 0xfee00000, .io_apic = 0xfec00000,
                                .io_apic_id = 4 };

    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autoptr(GBytes) bytes = acpi_build_tables(&config, places[i], filled(100));
        size_t size;
        const uint8_t *base = g_bytes_get_data(bytes, &size), *xsdt, *fadt;

        g_assert_cmpmem(base, 8, "RSD PTR ", 8);
        g_assert_cmpuint(sum(base, 20), ==, 0);
        g_assert_cmpuint(sum(base, 36), ==, 0);
        xsdt = base + (ldq_le_p(base + 24) - places[i]);
        g_assert_cmpuint(ldl_le_p(xsdt + 4), ==, 36 + 2 * 8);
        for (unsigned n = 0; n < 2; n++) {
            const uint8_t *table = base + (ldq_le_p(xsdt + 36 + n * 8) - places[i]);

            g_assert_cmpuint(table - base + ldl_le_p(table + 4), <=, size);
            g_assert_cmpuint(sum(table, ldl_le_p(table + 4)), ==, 0);
        }
        fadt = base + (ldq_le_p(xsdt + 36) - places[i]);
        g_assert_cmpmem(base + (ldq_le_p(fadt + 140) - places[i]), 4, "DSDT", 4);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aml/integers", test_integers);
    g_test_add_func("/aml/names", test_names);
    g_test_add_func("/aml/lengths", test_lengths);
    g_test_add_func("/aml/device", test_device);
    g_test_add_func("/acpi/tables", test_tables);
    return g_test_run();
}
