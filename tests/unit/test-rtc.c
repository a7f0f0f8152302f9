/*
 * The RTC and CMOS: time in every format, setting it, flags, memory sizes, migration.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "device-harness.h"
#include "hw/rtc/cmos.h"
#include "system/bql.h"
#include "system/memory.h"
#include "system/reset.h"

/* 2026-03-01 00:00:00 UTC, a Sunday. */
#define BASE_S INT64_C(1772323200)

static int64_t now_us;

static int64_t fake_clock(void)
{
    return now_us;
}

static uint8_t get(uint8_t index)
{
    port_write(0x70, index, 1);
    return (uint8_t)port_read(0x71, 1);
}

static void put(uint8_t index, uint8_t value)
{
    port_write(0x70, index, 1);
    port_write(0x71, value, 1);
}

static DeviceState *make(const char *properties)
{
    DeviceState *dev = device_new("mc146818rtc", NULL, &error_abort);
    char **pairs = g_strsplit(properties, ",", -1);

    for (char **pair = pairs; *pair && **pair; pair++) {
        char **parts = g_strsplit(*pair, "=", 2);

        device_set_text(dev, parts[0], parts[1], &error_abort);
        g_strfreev(parts);
    }
    g_strfreev(pairs);
    g_assert_true(device_realize(dev, &error_abort));
    return dev;
}

static void assert_time(uint8_t hour, uint8_t minute, uint8_t second)
{
    g_assert_cmphex(get(4), ==, hour);
    g_assert_cmphex(get(2), ==, minute);
    g_assert_cmphex(get(0), ==, second);
}

static void test_time(void)
{
    DeviceState *dev = make("");

    now_us = (BASE_S + 13 * 3600 + 45 * 60 + 9) * 1000000;
    g_assert_cmphex(get(0x0b), ==, 0x02);
    g_assert_cmphex(get(0x0d), ==, 0x80);
    assert_time(0x13, 0x45, 0x09);
    g_assert_cmphex(get(6), ==, 0x01);
    g_assert_cmphex(get(7), ==, 0x01);
    g_assert_cmphex(get(8), ==, 0x03);
    g_assert_cmphex(get(9), ==, 0x26);
    g_assert_cmphex(get(0x32), ==, 0x20);
    g_assert_cmphex(get(0x37), ==, 0x20);

    /* Binary, then 12 hours: afternoon, noon and midnight. */
    put(0x0b, 0x06);
    assert_time(13, 45, 9);
    put(0x0b, 0x04);
    assert_time(0x81, 45, 9);
    now_us = (BASE_S + 12 * 3600) * 1000000;
    assert_time(0x8c, 0, 0);
    now_us = BASE_S * 1000000;
    assert_time(12, 0, 0);

    /* Before 1970. */
    put(0x0b, 0x02);
    now_us = -1;
    assert_time(0x23, 0x59, 0x59);
    g_assert_cmphex(get(9), ==, 0x69);
    device_delete(dev);
}

static void test_set(void)
{
    DeviceState *dev = make("");

    now_us = BASE_S * 1000000;
    /* With SET held nothing counts until it is dropped. */
    put(0x0b, 0x82);
    put(0, 0x56);
    put(2, 0x34);
    put(4, 0x12);
    put(7, 0x31);
    put(8, 0x12);
    put(9, 0x99);
    put(0x32, 0x19);
    now_us += 5000000;
    assert_time(0x12, 0x34, 0x56);
    put(0x0b, 0x02);
    assert_time(0x12, 0x34, 0x56);
    now_us += 4000000;
    assert_time(0x12, 0x35, 0x00);
    g_assert_cmphex(get(8), ==, 0x12);
    g_assert_cmphex(get(0x32), ==, 0x19);

    /* A single register, at once. */
    put(4, 0x23);
    assert_time(0x23, 0x35, 0x00);
    now_us += INT64_C(3600) * 1000000;
    g_assert_cmphex(get(0x32), ==, 0x20);
    g_assert_cmphex(get(9), ==, 0x00);
    g_assert_cmphex(get(7), ==, 0x01);
    device_delete(dev);
}

static void test_flags(void)
{
    DeviceState *dev;

    now_us = BASE_S * 1000000;
    dev = make("");
    put(0x0a, 0x20);            /* no periodic rate */
    get(0x0c);
    g_assert_cmphex(get(0x0c), ==, 0);
    g_assert_cmphex(get(0x0a), ==, 0x20);
    now_us += 999800;
    g_assert_cmphex(get(0x0a), ==, 0xa0);
    g_assert_cmphex(get(0x0c), ==, 0);
    put(1, 0xff);
    put(3, 0x00);
    put(5, 0x01);
    now_us += 200;
    g_assert_cmphex(get(0x0a), ==, 0x20);
    g_assert_cmphex(get(0x0c), ==, 0x10);
    g_assert_cmphex(get(0x0c), ==, 0);

    /* The alarm: at any second of 01:00. */
    now_us += INT64_C(3598) * 1000000;
    g_assert_cmphex(get(0x0c), ==, 0x10);
    now_us += 1000000;
    g_assert_cmphex(get(0x0c), ==, 0x30);

    /* 1024 Hz. */
    put(0x0a, 0x26);
    now_us += 100;
    get(0x0c);
    now_us += 1000;
    g_assert_cmphex(get(0x0c), ==, 0x40);
    device_delete(dev);
}

static unsigned get16(uint8_t index)
{
    return get(index) | get(index + 1) << 8;
}

static void test_sizes(void)
{
    DeviceState *dev = make("ram-below-4g=3G,ram-above-4g=61G,cpus=16");

    g_assert_cmpuint(get16(0x15), ==, 640);
    g_assert_cmpuint(get16(0x17), ==, 65535);
    g_assert_cmpuint(get16(0x30), ==, 65535);
    g_assert_cmpuint(get16(0x34), ==, (3072 - 16) * 16);
    g_assert_cmpuint(get16(0x5b) | get(0x5d) << 16, ==, 61 * 1024 * 16);
    g_assert_cmpuint(get(0x5f), ==, 15);
    g_assert_cmphex(port_read(0x70, 1), ==, 0xff);
    device_delete(dev);

    dev = make("ram-below-4g=8M");
    g_assert_cmpuint(get16(0x17), ==, 7 * 1024);
    g_assert_cmpuint(get16(0x34), ==, 0);
    g_assert_cmpuint(get(0x5f), ==, 0);
    /* Plain CMOS memory, and its survival of a reset. */
    put(0x40, 0x5a);
    put(0x0b, 0x72);
    reset_run();
    g_assert_cmphex(get(0x40), ==, 0x5a);
    g_assert_cmphex(get(0x0b), ==, 0x02);
    device_delete(dev);
}

static void test_migration(void)
{
    DeviceState *dev, *other;
    g_autoptr(GBytes) state = NULL, bad = NULL;
    g_autofree uint8_t *bytes = NULL;
    Error *err = NULL;
    size_t size;

    now_us = BASE_S * 1000000;
    dev = make("");
    put(4, 0x05);
    put(0x40, 0x77);
    port_write(0x70, 0x32, 1);
    state = harness_save(dev);
    device_delete(dev);

    /* A host whose clock agrees: time goes on; the index is where it was. */
    now_us += 2000000;
    other = make("ram-below-4g=8M");
    g_assert_cmpint(harness_load(other, state, &error_abort), ==, 0);
    g_assert_cmphex(port_read(0x71, 1), ==, 0x20);
    assert_time(0x05, 0x00, 0x02);
    g_assert_cmphex(get(0x40), ==, 0x77);

    bytes = g_memdup2(g_bytes_get_data(state, &size), g_bytes_get_size(state));
    bytes[128] = 0x80;
    bad = g_bytes_new(bytes, g_bytes_get_size(state));
    g_assert_cmpint(harness_load(other, bad, &err), ==, -1);
    harness_error_is(&err, "mc146818rtc: register index 0x80 does not exist");
    g_clear_pointer(&bad, g_bytes_unref);
    bytes[128] = 0;
    bytes[129] = 0x7f;
    bad = g_bytes_new(bytes, g_bytes_get_size(state));
    g_assert_cmpint(harness_load(other, bad, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "is out of range"));
    error_free(err);
    device_delete(other);
}

static void test_errors(void)
{
    DeviceState *dev = device_new("mc146818rtc", NULL, &error_abort);
    Error *err = NULL;

    device_set_uint(dev, "cpus", 300, &error_abort);
    g_assert_false(device_realize(dev, &err));
    harness_error_is(&err, "mc146818rtc: 300 is no number of vCPUs that the CMOS can hold");
    device_delete(dev);
    harness_device_fails("mc146818rtc",
                         "Parameter 'driver' expects a pluggable device type, not 'mc146818rtc'");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bql_lock();
    cmos_set_clock(fake_clock);
    g_test_add_func("/rtc/time", test_time);
    g_test_add_func("/rtc/set", test_set);
    g_test_add_func("/rtc/flags", test_flags);
    g_test_add_func("/rtc/sizes", test_sizes);
    g_test_add_func("/rtc/migration", test_migration);
    g_test_add_func("/rtc/errors", test_errors);
    return g_test_run();
}
