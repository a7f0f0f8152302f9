/*
 * The ACPI tables as a guest finds them, and as iasl, ACPI's own compiler, reads them: it takes
 * them apart without complaint and makes tables of what it wrote without a single error.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "libqtest.h"
#include "util/bswap.h"

#define FIRMWARE_START 0xe0000u
#define FIRMWARE_BYTES 0x20000u

typedef struct Tables {
    QTestState *qts;
    uint8_t *area;              /* guest memory from FIRMWARE_START to 1 MiB */
    uint64_t rsdp;              /* 0: none */
} Tables;

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t total = 0;

    while (n--) {
        total += *p++;
    }
    return total;
}

/* What pmemsave writes, as a person would get it. */
static uint8_t *dump_area(QTestState *qts)
{
    g_autofree char *path = g_build_filename(qtest_tmpdir(), "firmware", NULL);
    char *data;
    gsize size;

    qtest_qmp_assert_success(qts, "{'execute': 'pmemsave', 'arguments': {'val': %u, 'size': %u, "
                             "'filename': %s}}", FIRMWARE_START, FIRMWARE_BYTES, path);
    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    g_assert_cmpuint(size, ==, FIRMWARE_BYTES);
    return (uint8_t *)data;
}

/* As guests do: at every 16 bytes. */
static uint64_t find_rsdp(const uint8_t *area)
{
    for (uint64_t at = 0; at < FIRMWARE_BYTES; at += 16) {
        if (!memcmp(area + at, "RSD PTR ", 8) && !sum(area + at, 20)) {
            return FIRMWARE_START + at;
        }
    }
    return 0;
}

static Tables tables_of(const char *args)
{
    Tables t = { .qts = qtest_init(args) };

    t.area = dump_area(t.qts);
    t.rsdp = find_rsdp(t.area);
    return t;
}

static void tables_free(Tables *t)
{
    qtest_quit(t->qts);
    g_free(t->area);
}

static const uint8_t *at(const Tables *t, uint64_t gpa, size_t bytes)
{
    g_assert_cmphex(gpa, >=, FIRMWARE_START);
    g_assert_cmphex(gpa + bytes, <=, FIRMWARE_START + FIRMWARE_BYTES);
    return t->area + (gpa - FIRMWARE_START);
}

/* A table with a good length and sum. */
static const uint8_t *table_at(const Tables *t, uint64_t gpa, const char *signature)
{
    const uint8_t *p = at(t, gpa, 36);
    uint32_t bytes = ldl_le_p(p + 4);

    g_assert_cmpmem(p, 4, signature, 4);
    g_assert_cmpuint(bytes, >=, 36);
    g_assert_cmpuint(sum(at(t, gpa, bytes), bytes), ==, 0);
    return p;
}

/* Table number @index of the XSDT, which must have that signature. */
static const uint8_t *xsdt_table(const Tables *t, unsigned index, const char *signature)
{
    const uint8_t *rsdp = at(t, t->rsdp, 36);
    const uint8_t *xsdt;

    g_assert_cmpuint(rsdp[15], ==, 2);
    g_assert_cmpuint(sum(rsdp, 36), ==, 0);
    xsdt = table_at(t, ldq_le_p(rsdp + 24), "XSDT");
    g_assert_cmpuint(36 + (index + 1) * 8, <=, ldl_le_p(xsdt + 4));
    return table_at(t, ldq_le_p(xsdt + 36 + index * 8), signature);
}

static const uint8_t *dsdt_of(const Tables *t)
{
    const uint8_t *fadt = xsdt_table(t, 0, "FACP");

    g_assert_cmphex(ldq_le_p(fadt + 140), ==, ldl_le_p(fadt + 40));
    return table_at(t, ldq_le_p(fadt + 140), "DSDT");
}

/* ---- iasl ---- */

static char *run_iasl(const char *option, const char *name)
{
    g_autofree char *iasl = g_find_program_in_path("iasl");
    const char *argv[] = { iasl, option ?: name, option ? name : NULL, NULL };
    char *out = NULL, *err = NULL;
    int status = -1;

    g_assert_true(g_spawn_sync(qtest_tmpdir(), (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL,
                               &out, &err, &status, NULL));
    if (status) {
        g_test_message("iasl %s: %s%s", name, out, err);
    }
    g_assert_cmpint(status, ==, 0);
    char *all = g_strconcat(out, err, NULL);
    g_free(out);
    g_free(err);
    return all;
}

/* Take the table apart, put it together again; what iasl wrote of it. */
static char *through_iasl(const uint8_t *table, const char *name)
{
    g_autofree char *dat = g_strdup_printf("%s.dat", name), *dsl = g_strdup_printf("%s.dsl", name);
    g_autofree char *dat_path = g_build_filename(qtest_tmpdir(), dat, NULL);
    g_autofree char *dsl_path = g_build_filename(qtest_tmpdir(), dsl, NULL);
    g_autofree char *apart = NULL, *together = NULL;
    char *text;

    g_assert_true(g_file_set_contents(dat_path, (const char *)table, ldl_le_p(table + 4), NULL));
    apart = run_iasl("-d", dat);
    g_assert_null(strstr(apart, "Error"));
    g_assert_true(g_file_get_contents(dsl_path, &text, NULL, NULL));
    together = run_iasl(NULL, dsl);
    if (!strstr(together, "0 Errors, 0 Warnings")) {
        g_test_message("%s", together);
    }
    g_assert_nonnull(strstr(together, "0 Errors, 0 Warnings"));
    return text;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;

    while ((text = strstr(text, what)) != NULL) {
        text += strlen(what);
        n++;
    }
    return n;
}

/* ---- tests ---- */

static void test_walk(void)
{
    Tables t = tables_of("-m 64 -smp 3 -serial null");
    const uint8_t *fadt, *madt;

    g_assert_cmphex(t.rsdp, ==, FIRMWARE_START);
    fadt = xsdt_table(&t, 0, "FACP");
    g_assert_cmpuint(ldl_le_p(fadt + 4), ==, 276);
    g_assert_cmphex(ldl_le_p(fadt + 112) & (1u << 20 | 1u << 10), ==, 1u << 20 | 1u << 10);
    g_assert_cmphex(ldq_le_p(fadt + 116 + 4), ==, 0xcf9);
    madt = xsdt_table(&t, 1, "APIC");
    g_assert_cmphex(ldl_le_p(madt + 36), ==, 0xfee00000);
    for (unsigned cpu = 0; cpu < 3; cpu++) {
        const uint8_t *entry = madt + 44 + cpu * 8;

        g_assert_cmpuint(entry[0], ==, 0);
        g_assert_cmpuint(entry[3], ==, cpu);
        g_assert_cmpuint(ldl_le_p(entry + 4), ==, 1);
    }
    g_assert_cmpuint(madt[44 + 24], ==, 1);
    g_assert_cmphex(ldl_le_p(madt + 44 + 24 + 4), ==, 0xfec00000);
    dsdt_of(&t);
    tables_free(&t);
}

static void test_iasl(void)
{
    Tables t;
    g_autofree char *found = g_find_program_in_path("iasl"), *dsdt = NULL, *fadt = NULL,
                    *madt = NULL;

    if (!found) {
        g_test_skip("iasl is not installed");
        return;
    }
    t = tables_of("-m 64 -smp 2 -serial null");
    dsdt = through_iasl(dsdt_of(&t), "dsdt");
    fadt = through_iasl(xsdt_table(&t, 0, "FACP"), "facp");
    madt = through_iasl(xsdt_table(&t, 1, "APIC"), "apic");
    g_assert_cmpuint(count(dsdt, "\"ACPI0007\""), ==, 2);
    g_assert_cmpuint(count(dsdt, "PNP0501"), ==, 1);
    g_assert_cmpuint(count(dsdt, "\"LNRO0005\""), ==, 0);
    g_assert_nonnull(strstr(dsdt, "0x03F8,"));
    g_assert_nonnull(strstr(dsdt, "Name (\\_S5"));
    g_assert_nonnull(strstr(fadt, "Hardware Reduced (V5) : 1"));
    g_assert_cmpuint(count(madt, "[Processor Local APIC]"), ==, 2);
    tables_free(&t);
}

/* The sleep register that the FADT names, with the type that \_S5 has, ends the machine. */
static void test_power_off(void)
{
    Tables t = tables_of("-m 64");
    const uint8_t *fadt = xsdt_table(&t, 0, "FACP");
    uint16_t port = ldq_le_p(fadt + 244 + 4);

    g_assert_cmphex(qtest_inb(t.qts, port), ==, 0);
    qtest_outb(t.qts, port, 5 << 2);    /* no enable bit */
    qtest_outb(t.qts, port, 1 << 2 | 1 << 5);   /* another type */
    qtest_outb(t.qts, port + 1, 5 << 2 | 1 << 5);       /* another register */
    qtest_qmp_assert_success(t.qts, "{'execute': 'query-status'}");
    g_assert_null(qtest_qmp_event_ref(t.qts, "SHUTDOWN"));
    qtest_outb(t.qts, port, 5 << 2 | 1 << 5);
    qtest_qmp_eventwait(t.qts, "SHUTDOWN");
    g_assert_cmpint(qtest_wait_exit(t.qts), ==, 0);
    tables_free(&t);
}

static void test_reset(void)
{
    Tables t = tables_of("-m 64");
    g_autofree uint8_t *before = g_memdup2(t.area, FIRMWARE_BYTES);
    /* The XSDT is the last. */
    uint64_t xsdt = ldq_le_p(at(&t, t.rsdp, 36) + 24) - FIRMWARE_START;
    size_t bytes = xsdt + ldl_le_p(t.area + xsdt + 4);

    /* A guest that overwrote them finds them again. */
    qtest_memset(t.qts, FIRMWARE_START, 0x5a, 4096);
    qtest_qmp_assert_success(t.qts, "{'execute': 'system_reset'}");
    qtest_qmp_eventwait(t.qts, "RESET");
    g_free(t.area);
    t.area = dump_area(t.qts);
    g_assert_cmphex(find_rsdp(t.area), ==, t.rsdp);
    g_assert_cmpmem(t.area, bytes, before, bytes);
    tables_free(&t);
}

static void test_off(void)
{
    Tables t = tables_of("-machine microvm,acpi=off -m 64");

    g_assert_cmphex(t.rsdp, ==, 0);
    g_assert_cmphex(qtest_inb(t.qts, 0x600), ==, 0xff);
    tables_free(&t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("acpi/walk", test_walk);
    qtest_add_func("acpi/iasl", test_iasl);
    qtest_add_func("acpi/power-off", test_power_off);
    qtest_add_func("acpi/reset", test_reset);
    qtest_add_func("acpi/off", test_off);
    return g_test_run();
}
