/*
 * Vectors of buffers: every offset and length over pieces of awkward sizes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/iov.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>

#define TOTAL 23

static const size_t piece_sizes[] = { 0, 3, 0, 1, 7, 0, 12, 0 };
#define N_PIECES G_N_ELEMENTS(piece_sizes)

/* Lay the pieces over @buf with no gaps, so that a flat copy is the model. */
static void make_iov(struct iovec *iov, uint8_t *buf)
{
    for (size_t i = 0; i < N_PIECES; i++) {
        iov[i].iov_base = buf;
        iov[i].iov_len = piece_sizes[i];
        buf += piece_sizes[i];
    }
}

static void fill(uint8_t *buf, uint8_t first)
{
    for (int i = 0; i < TOTAL; i++) {
        buf[i] = first + i;
    }
}

static void test_copy_buf(void)
{
    struct iovec iov[N_PIECES];
    uint8_t buf[TOTAL], model[TOTAL], flat[TOTAL + 1];

    for (size_t off = 0; off <= TOTAL + 1; off++) {
        for (size_t n = 0; n <= TOTAL + 1; n++) {
            size_t want = off >= TOTAL ? 0 : MIN(n, TOTAL - off);

            make_iov(iov, buf);
            fill(buf, 1);
            memset(flat, 0xee, sizeof(flat));
            g_assert_cmpuint(iov_to_buf(iov, N_PIECES, off, flat, n), ==, want);
            g_assert_cmpmem(flat, want, buf + off * (want != 0), want);
            g_assert_cmphex(flat[want], ==, 0xee);

            fill(flat, 100);
            fill(model, 1);
            memcpy(model + off * (want != 0), flat, want);
            g_assert_cmpuint(iov_from_buf(iov, N_PIECES, off, flat, n), ==, want);
            g_assert_cmpmem(buf, TOTAL, model, TOTAL);

            memset(model + off * (want != 0), 0x55, want);
            g_assert_cmpuint(iov_memset(iov, N_PIECES, off, 0x55, n), ==, want);
            g_assert_cmpmem(buf, TOTAL, model, TOTAL);
        }
    }
}

static void test_discard(void)
{
    struct iovec iov[N_PIECES];
    uint8_t buf[TOTAL], flat[TOTAL];

    fill(buf, 1);
    for (size_t n = 0; n <= TOTAL + 1; n++) {
        size_t want = MIN(n, TOTAL);
        struct iovec *at = iov;
        unsigned niov = N_PIECES;

        make_iov(iov, buf);
        g_assert_cmpuint(iov_size(iov, niov), ==, TOTAL);
        g_assert_cmpuint(iov_discard_front(&at, &niov, n), ==, want);
        g_assert_cmpuint(iov_size(at, niov), ==, TOTAL - want);
        g_assert_cmpuint(iov_to_buf(at, niov, 0, flat, TOTAL), ==, TOTAL - want);
        g_assert_cmpmem(flat, TOTAL - want, buf + want, TOTAL - want);

        niov = N_PIECES;
        make_iov(iov, buf);
        g_assert_cmpuint(iov_discard_back(iov, &niov, n), ==, want);
        g_assert_cmpuint(iov_to_buf(iov, niov, 0, flat, TOTAL), ==, TOTAL - want);
        g_assert_cmpmem(flat, TOTAL - want, buf, TOTAL - want);
    }
}

static void test_copy(void)
{
    struct iovec iov[N_PIECES], sub[N_PIECES];
    uint8_t buf[TOTAL], flat[TOTAL];

    fill(buf, 1);
    make_iov(iov, buf);
    for (size_t off = 0; off <= TOTAL; off++) {
        for (size_t n = 0; n <= TOTAL - off; n++) {
            unsigned cnt = iov_copy(sub, N_PIECES, iov, N_PIECES, off, n);
            g_assert_cmpuint(iov_size(sub, cnt), ==, n);
            iov_to_buf(sub, cnt, 0, flat, TOTAL);
            g_assert_cmpmem(flat, n, buf + off, n);
        }
    }
    /* No room: the description ends early. */
    g_assert_cmpuint(iov_copy(sub, 2, iov, N_PIECES, 0, TOTAL), ==, 2);
    g_assert_cmpuint(iov_size(sub, 2), ==, 4);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/copy-buf", test_copy_buf);
    g_test_add_func("/iov/discard", test_discard);
    g_test_add_func("/iov/copy", test_copy);
    return g_test_run();
}
