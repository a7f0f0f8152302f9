/*
 * Zero detection: every implementation, every alignment, length and place of the one odd byte.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/zero.h"

#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_LEN 1400
#define ALIGNMENTS 64

/* Memory that ends at an unreadable page, so that a read past the end is a crash. */
static unsigned char *guarded;
static size_t guarded_size;

static void guarded_setup(void)
{
    size_t page = sysconf(_SC_PAGESIZE);

    guarded_size = 4 * page;
    guarded = mmap(NULL, guarded_size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    g_assert_true(guarded != MAP_FAILED);
    g_assert_cmpint(mprotect(guarded + guarded_size, page, PROT_NONE), ==, 0);
}

/* Each length at each alignment with non-zero bytes right before and behind. */
static void check_all(bool (*is_zero)(const void *, size_t), size_t step)
{
    memset(guarded, 0xff, guarded_size);
    for (size_t len = 0; len < MAX_LEN; len += step) {
        for (size_t align = 0; align < ALIGNMENTS; align++) {
            unsigned char *buf = guarded + ALIGNMENTS + align;

            memset(buf, 0, len);
            g_assert_true(is_zero(buf, len));
            /* All positions are too many for all alignments: all of the short, some of the long. */
            for (size_t pos = 0; pos < len; pos += len < 200 ? 1 : 1 + (pos + align) % 61) {
                buf[pos] = 1 << (pos % 8);
                g_assert_false(is_zero(buf, len));
                buf[pos] = 0;
            }
            memset(buf, 0xff, len);
        }
    }
    /* Up against the guard page. */
    for (size_t len = 0; len < MAX_LEN; len += step) {
        unsigned char *buf = guarded + guarded_size - len;

        memset(buf, 0, len);
        g_assert_true(is_zero(buf, len));
        if (len) {
            guarded[guarded_size - 1] = 0x80;
            g_assert_false(is_zero(buf, len));
            guarded[guarded_size - 1] = 0;
        }
    }
}

/* A page, every position, every bit. */
static void check_page(bool (*is_zero)(const void *, size_t))
{
    memset(guarded, 0, guarded_size);
    for (size_t pos = 0; pos < 4096; pos++) {
        for (int bit = 0; bit < 8; bit++) {
            guarded[pos] = 1 << bit;
            g_assert_false(is_zero(guarded, 4096));
        }
        guarded[pos] = 0;
        g_assert_true(is_zero(guarded, 4096));
    }
}

static void test_impl(gconstpointer opaque)
{
    const ZeroImpl *impl = opaque;

    if (!impl->supported) {
        g_test_skip("this CPU cannot run it");
        return;
    }
    check_all(impl->is_zero, g_test_slow() ? 1 : 3);
    check_page(impl->is_zero);
}

static void test_chosen(void)
{
    size_t n;
    const ZeroImpl *impls = zero_impls(&n);
    const char *best = NULL;

    for (size_t i = 0; i < n; i++) {
        best = impls[i].supported ? impls[i].name : best;
    }
    g_assert_cmpstr(zero_impl_name(), ==, best);
    check_all(buffer_is_zero, 7);
    check_page(buffer_is_zero);
}

int main(int argc, char **argv)
{
    size_t n;
    const ZeroImpl *impls = zero_impls(&n);

    g_test_init(&argc, &argv, NULL);
    guarded_setup();
    for (size_t i = 0; i < n; i++) {
        g_autofree char *path = g_strdup_printf("/zero/%s", impls[i].name);
        g_test_add_data_func(path, &impls[i], test_impl);
    }
    g_test_add_func("/zero/chosen", test_chosen);
    return g_test_run();
}
