/*
 * Zero pages of a run: both ways say what buffer_is_zero() says, on every kind of memory.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/zero-scan.h"

#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "system/ramblock.h"
#include "util/zero.h"

typedef bool ScanWay(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero);

static bool either_way(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero)
{
    zero_scan(scan, host, n, zero);
    return true;
}

static ScanWay *const ways[] = { zero_scan_touching, zero_scan_asking, either_way };

static uint8_t *map_memory(bool shared, size_t pages)
{
    uint8_t *host = mmap(NULL, pages * TARGET_PAGE_SIZE, PROT_READ | PROT_WRITE,
                         (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);

    g_assert_true(host != MAP_FAILED);
    return host;
}

/* Zero, data from its first word on, data that begins with zeroes, never touched. */
static void fill(GRand *rnd, uint8_t *host, size_t pages)
{
    for (size_t i = 0; i < pages; i++) {
        uint8_t *page = host + i * TARGET_PAGE_SIZE;

        switch (g_rand_int_range(rnd, 0, 5)) {
        case 0:
            memset(page, 0, TARGET_PAGE_SIZE);
            break;
        case 1:
            page[g_rand_int_range(rnd, 0, 8)] = 0x80;
            break;
        case 2:
            page[g_rand_int_range(rnd, 8, TARGET_PAGE_SIZE)] = 1;
            break;
        case 3:
            page[TARGET_PAGE_SIZE - 1] = 1;
            break;
        }
    }
}

static void test_same(gconstpointer shared)
{
    g_autoptr(GRand) rnd = g_rand_new_with_seed(3);
    size_t pages = 4 * ZERO_SCAN_PAGES;
    uint8_t *host = map_memory(shared != NULL, pages);
    ZeroScan *scan = zero_scan_new(true);

    fill(rnd, host, pages);
    for (unsigned round = 0; round < 2000; round++) {
        unsigned n = 1 + g_rand_int(rnd) % (round % 2 ? ZERO_SCAN_PAGES : 40);
        const uint8_t *at = host + g_rand_int_range(rnd, 0, pages - n + 1) * TARGET_PAGE_SIZE;
        bool zero[ZERO_SCAN_PAGES + 1];

        memset(zero, 0xee, sizeof(zero));
        if (!ways[round % 3](scan, at, n, zero)) {
            g_test_skip("this process may not ask the kernel for its own memory");
            break;
        }
        for (unsigned i = 0; i < n; i++) {
            g_assert_cmpint(*(uint8_t *)&zero[i], ==,
                            buffer_is_zero(at + i * TARGET_PAGE_SIZE, TARGET_PAGE_SIZE));
        }
        g_assert_cmphex(*(uint8_t *)&zero[n], ==, 0xee);
    }
    zero_scan_free(scan);
    munmap(host, pages * TARGET_PAGE_SIZE);
}

/* Memory that the kernel refuses to read is not taken for zero. */
static void test_refused(void)
{
    uint8_t *host = map_memory(false, 64);
    ZeroScan *scan = zero_scan_new(true);
    bool zero[64];

    g_assert_cmpint(mprotect(host + 40 * TARGET_PAGE_SIZE, TARGET_PAGE_SIZE, PROT_NONE), ==, 0);
    g_assert_false(zero_scan_asking(scan, host, 64, zero));
    zero_scan_free(scan);
    munmap(host, 64 * TARGET_PAGE_SIZE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/zero-scan/private", NULL, test_same);
    g_test_add_data_func("/zero-scan/shared", "", test_same);
    g_test_add_func("/zero-scan/refused", test_refused);
    return g_test_run();
}
