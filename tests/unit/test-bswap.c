/*
 * Byte order functions: known bytes against known numbers, at odd addresses.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/bswap.h"

#include <glib.h>

/* One byte of misalignment in front, guards at both ends. */
static const uint8_t bytes[] = { 0xee, 0x81, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7, 0xf8, 0xee };

static void test_load(void)
{
    const uint8_t *p = bytes + 1;

    g_assert_cmphex(ldub_p(p), ==, 0x81);
    g_assert_cmpint(ldsb_p(p), ==, -0x7f);
    g_assert_cmphex(lduw_be_p(p), ==, 0x8192);
    g_assert_cmphex(lduw_le_p(p), ==, 0x9281);
    g_assert_cmpint(ldsw_be_p(p), ==, 0x8192 - 0x10000);
    g_assert_cmpint(ldsw_le_p(p), ==, 0x9281 - 0x10000);
    g_assert_cmphex(ldl_be_p(p), ==, 0x8192a3b4);
    g_assert_cmphex(ldl_le_p(p), ==, 0xb4a39281);
    g_assert_cmphex(ldq_be_p(p), ==, 0x8192a3b4c5d6e7f8);
    g_assert_cmphex(ldq_le_p(p), ==, 0xf8e7d6c5b4a39281);
    /* An unsigned load does not extend its sign on the way to 64 bits. */
    uint64_t wide = ldl_be_p(p);
    g_assert_cmphex(wide, ==, 0x8192a3b4);
}

static void test_store(void)
{
    uint8_t out[10];

#define CHECK(call, n)                              \
    do {                                            \
        memset(out, 0xee, sizeof(out));             \
        call;                                       \
        g_assert_cmpmem(out + 1, n, bytes + 1, n);  \
        g_assert_cmphex(out[0], ==, 0xee);          \
        g_assert_cmphex(out[n + 1], ==, 0xee);      \
    } while (0)

    CHECK(stb_p(out + 1, 0x81), 1);
    CHECK(stw_be_p(out + 1, 0x8192), 2);
    CHECK(stw_le_p(out + 1, 0x9281), 2);
    CHECK(stl_be_p(out + 1, 0x8192a3b4), 4);
    CHECK(stl_le_p(out + 1, 0xb4a39281), 4);
    CHECK(stq_be_p(out + 1, 0x8192a3b4c5d6e7f8), 8);
    CHECK(stq_le_p(out + 1, 0xf8e7d6c5b4a39281), 8);
}

static void test_convert(void)
{
    g_assert_cmphex(bswap16(0x1234), ==, 0x3412);
    g_assert_cmphex(bswap32(0x12345678), ==, 0x78563412);
    g_assert_cmphex(bswap64(0x123456789abcdef0), ==, 0xf0debc9a78563412);

    uint64_t be = cpu_to_be64(0x0102030405060708);
    g_assert_cmphex(((uint8_t *)&be)[0], ==, 1);
    g_assert_cmphex(be64_to_cpu(be), ==, 0x0102030405060708);
    uint32_t le = cpu_to_le32(0x01020304);
    g_assert_cmphex(((uint8_t *)&le)[0], ==, 4);
    g_assert_cmphex(le32_to_cpu(le), ==, 0x01020304);
    uint16_t be16 = cpu_to_be16(0x0102);
    g_assert_cmphex(((uint8_t *)&be16)[0], ==, 1);
    g_assert_cmphex(be16_to_cpu(be16), ==, 0x0102);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/bswap/load", test_load);
    g_test_add_func("/bswap/store", test_store);
    g_test_add_func("/bswap/convert", test_convert);
    return g_test_run();
}
