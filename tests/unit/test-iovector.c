/*
 * Vectors that are built up, cut and compared with flat memory.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/iovector.h"

#include <glib.h>
#include <string.h>

#define TOTAL 23

static const size_t piece_sizes[] = { 0, 3, 1, 0, 7, 12, 0 };

static void fill(uint8_t *buf, uint8_t first)
{
    for (int i = 0; i < TOTAL; i++) {
        buf[i] = first + i;
    }
}

static void build(IOVector *v, uint8_t *buf, unsigned hint)
{
    iovector_init(v, hint);
    for (size_t i = 0; i < G_N_ELEMENTS(piece_sizes); i++) {
        iovector_add(v, buf, piece_sizes[i]);
        buf += piece_sizes[i];
    }
    g_assert_cmpuint(v->size, ==, TOTAL);
    g_assert_cmpuint(v->niov, ==, G_N_ELEMENTS(piece_sizes));
}

static void test_grow(void)
{
    char bytes[1000];
    IOVector v;

    for (unsigned hint = 0; hint < 20; hint++) {
        iovector_init(&v, hint);
        g_assert_cmpuint(v.size, ==, 0);
        for (int round = 0; round < 2; round++) {
            for (unsigned i = 0; i < 1000; i++) {
                iovector_add(&v, &bytes[i], 1);
            }
            g_assert_cmpuint(v.niov, ==, 1000);
            g_assert_cmpuint(v.size, ==, 1000);
            for (unsigned i = 0; i < 1000; i++) {
                g_assert_true(v.iov[i].iov_base == &bytes[i]);
                g_assert_cmpuint(v.iov[i].iov_len, ==, 1);
            }
            iovector_reset(&v);
            g_assert_cmpuint(v.niov + v.size, ==, 0);
        }
        iovector_destroy(&v);
    }
}

static void test_one_buffer(void)
{
    char buf[8] = "abcdefg", out[8] = "";
    struct iovec outside[2] = { { buf, 3 }, { buf + 3, 5 } };
    IOVector v;

    iovector_init_buf(&v, buf, sizeof(buf));
    g_assert_cmpuint(v.allocated, ==, 0);
    iovector_to_buf(&v, 2, out, 3);
    g_assert_cmpstr(out, ==, "cde");
    iovector_destroy(&v);

    iovector_init_external(&v, outside, 2);
    g_assert_cmpuint(v.size, ==, 8);
    iovector_to_buf(&v, 0, out, 8);
    g_assert_cmpstr(out, ==, "abcdefg");
    iovector_destroy(&v);
    g_assert_true(outside[1].iov_base == buf + 3);
}

/* Every range of the vector, as a slice, appended, copied and set, against the flat buffer. */
static void test_ranges(void)
{
    uint8_t buf[TOTAL], flat[TOTAL], model[TOTAL];

    for (size_t off = 0; off <= TOTAL; off++) {
        for (size_t n = 0; off + n <= TOTAL; n++) {
            IOVector v, slice, more;

            fill(buf, 1);
            build(&v, buf, off % 9);
            iovector_init_slice(&slice, &v, off, n);
            g_assert_cmpuint(slice.size, ==, n);
            iovector_to_buf(&slice, 0, flat, n);
            g_assert_cmpmem(flat, n, buf + off, n);

            iovector_init_slice(&more, &v, 0, off);
            iovector_concat(&more, &v, off, n);
            g_assert_cmpuint(more.size, ==, off + n);
            iovector_to_buf(&more, 0, flat, off + n);
            g_assert_cmpmem(flat, off + n, buf, off + n);

            memcpy(model, buf, TOTAL);
            fill(flat, 100);
            memcpy(model + off, flat, n);
            iovector_from_buf(&v, off, flat, n);
            g_assert_cmpmem(buf, TOTAL, model, TOTAL);

            g_assert_cmpint(iovector_is_zero(&v, off, n), ==, n == 0);
            memset(model + off, 0, n);
            iovector_memset(&v, off, 0, n);
            g_assert_cmpmem(buf, TOTAL, model, TOTAL);
            g_assert_true(iovector_is_zero(&v, off, n));
            if (off > 0) {
                g_assert_false(iovector_is_zero(&v, off - 1, n + 1));
            }
            iovector_destroy(&more);
            iovector_destroy(&slice);
            iovector_destroy(&v);
        }
    }
}

static void test_alignment(void)
{
    static char buf[4096] __attribute__((aligned(4096)));
    IOVector v;

    iovector_init(&v, 2);
    g_assert_true(iovector_is_aligned(&v, 512));
    iovector_add(&v, buf, 1024);
    g_assert_true(iovector_is_aligned(&v, 512));
    g_assert_false(iovector_is_aligned(&v, 4096));
    iovector_add(&v, buf + 512, 512);
    g_assert_true(iovector_is_aligned(&v, 512));
    g_assert_false(iovector_is_aligned(&v, 1024));
    iovector_add(&v, buf + 1, 512);
    g_assert_false(iovector_is_aligned(&v, 512));
    iovector_destroy(&v);
}

static void out_of_range(void)
{
    char buf[4], out[8];
    IOVector v;

    iovector_init_buf(&v, buf, sizeof(buf));
    iovector_to_buf(&v, 3, out, 2);
}

static void test_out_of_range(void)
{
    if (g_test_subprocess()) {
        out_of_range();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iovector/grow", test_grow);
    g_test_add_func("/iovector/one-buffer", test_one_buffer);
    g_test_add_func("/iovector/ranges", test_ranges);
    g_test_add_func("/iovector/alignment", test_alignment);
    g_test_add_func("/iovector/out-of-range", test_out_of_range);
    return g_test_run();
}
