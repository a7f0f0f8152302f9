/*
 * Sizes, numbers and identifiers: what is taken, what is refused, and in what words.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/cutils.h"

static void good_size(const char *str, uint64_t unit, uint64_t want)
{
    uint64_t got = 0;
    g_assert_true(parse_size_unit(str, unit, &got, &error_abort));
    g_assert_cmpuint(got, ==, want);
}

static void bad_size(const char *str, const char *msg)
{
    uint64_t got = 42;
    g_autoptr(Error) err = NULL;

    g_assert_false(parse_size(str, &got, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, msg);
    g_assert_cmpuint(got, ==, 42);
}

static void test_size(void)
{
    good_size("0", 1, 0);
    good_size("512", 1, 512);
    good_size("512", MiB, 512 * MiB);
    good_size("512b", MiB, 512);
    good_size("4k", 1, 4096);
    good_size("4K", MiB, 4096);
    good_size("1.5G", 1, 1536 * MiB);
    good_size("0.1k", 1, 102);
    good_size("1.5", MiB, 1536 * KiB);
    good_size("2.000", 1, 2);
    good_size("3T", 1, 3 * TiB);
    good_size("3p", 1, 3 * PiB);
    good_size("15E", 1, 15 * EiB);
    good_size("0x1000", 1, 4096);
    good_size("0x10M", 1, 16 * MiB);
    good_size("0xB", 1, 11);
    good_size("18446744073709551615", 1, UINT64_MAX);
    good_size("0.00000000000000000000000000000000000000001E", 1, 0);
}

static void test_size_bad(void)
{
    static const char *const not_sizes[] = {
        "", " 1", "1 ", "-1", "+1", "k", "x", "abc", "1kk", "1x", "1.", "1.k", ".5k", "1e3", "0x",
        "0x1.5k", "1,5G", "99999999999999999999z", "\xff",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(not_sizes); i++) {
        g_autofree char *msg =
            g_strdup_printf("'%s' is not a size: a number with an optional suffix "
                            "k, M, G, T, P or E is expected",
                            not_sizes[i]);
        bad_size(not_sizes[i], msg);
    }
    bad_size("1.5", "Size '1.5' is not a whole number of bytes");
    bad_size("16E", "Size '16E' is too large: it must be less than 2^64 bytes");
    bad_size("18446744073709551616",
             "Size '18446744073709551616' is too large: it must be less than 2^64 bytes");
    bad_size("0x10000000000000000",
             "Size '0x10000000000000000' is too large: it must be less than 2^64 bytes");
}

static void test_uint64(void)
{
    uint64_t v = 0;
    g_autoptr(Error) err = NULL, err2 = NULL, err3 = NULL;

    g_assert_true(parse_uint64("18446744073709551615", &v, &error_abort));
    g_assert_cmpuint(v, ==, UINT64_MAX);
    g_assert_true(parse_uint64("0xfF", &v, &error_abort));
    g_assert_cmpuint(v, ==, 255);
    g_assert_true(parse_uint64_range("7", 7, 7, &v, &error_abort));
    g_assert_cmpuint(v, ==, 7);

    g_assert_false(parse_uint64("7k", &v, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "'7k' is not a number");
    g_assert_false(parse_uint64_range("65536", 1, 65535, &v, &err2));
    g_assert_cmpstr(error_get_pretty(err2), ==,
                    "'65536' is out of range: a number from 1 to 65535 is expected");
    g_assert_false(parse_uint64("18446744073709551616", &v, &err3));
    g_assert_cmpstr(error_get_pretty(err3), ==,
                    "'18446744073709551616' is out of range: a number from 0 to "
                    "18446744073709551615 is expected");
    g_assert_false(parse_uint64("", &v, NULL));
    g_assert_false(parse_uint64("-1", &v, NULL));
    g_assert_false(parse_uint64("ff", &v, NULL));
}

static void test_bool(void)
{
    bool v = false;
    g_autoptr(Error) err = NULL;

    g_assert_true(parse_bool("wait", "on", &v, &error_abort));
    g_assert_true(v);
    g_assert_true(parse_bool("wait", "no", &v, &error_abort));
    g_assert_false(v);
    g_assert_false(parse_bool("wait", "maybe", &v, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Parameter 'wait' expects 'on' or 'off', not 'maybe'");
}

static void test_id(void)
{
    g_assert_true(id_wellformed("a"));
    g_assert_true(id_wellformed("disk-0.a_B"));
    g_assert_false(id_wellformed(""));
    g_assert_false(id_wellformed("0a"));
    g_assert_false(id_wellformed("_a"));
    g_assert_false(id_wellformed("a b"));
    g_assert_false(id_wellformed("a/b"));
    g_assert_false(id_wellformed("\xc3\xa4"));
}

static void test_to_str(void)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        { 0, "0 B" }, { 512, "512 B" }, { 1000, "0.977 KiB" }, { 1536 * MiB, "1.5 GiB" },
        { UINT64_MAX, "16 EiB" }, { 256 * GiB, "256 GiB" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = size_to_str(cases[i].bytes);
        g_assert_cmpstr(text, ==, cases[i].text);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cutils/size", test_size);
    g_test_add_func("/cutils/size-bad", test_size_bad);
    g_test_add_func("/cutils/uint64", test_uint64);
    g_test_add_func("/cutils/bool", test_bool);
    g_test_add_func("/cutils/id", test_id);
    g_test_add_func("/cutils/size-to-str", test_to_str);
    return g_test_run();
}
