/*
 * Bitmaps against an array of bool that does everything the slow way.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/bitmap.h"

#include <string.h>

#define BITS 333

typedef struct Pair {
    unsigned long *map;
    bool model[BITS];
} Pair;

static void pair_init(Pair *p)
{
    p->map = bitmap_new(BITS);
    memset(p->model, 0, sizeof(p->model));
}

static void pair_random(Pair *p)
{
    pair_init(p);
    for (int i = 0; i < BITS; i++) {
        /* Runs, not noise: change value one time in eight. */
        bool prev = i && p->model[i - 1];
        p->model[i] = g_test_rand_int_range(0, 8) ? prev : !prev;
        if (p->model[i]) {
            set_bit(i, p->map);
        }
    }
}

static void pair_check(const Pair *p)
{
    for (int i = 0; i < BITS; i++) {
        g_assert_cmpint(test_bit(i, p->map), ==, p->model[i]);
    }
    /* Nothing was written after the last bit. */
    g_assert_cmphex(p->map[BITS / BITS_PER_LONG] >> (BITS % BITS_PER_LONG), ==, 0);
}

static unsigned long model_find(const bool *model, unsigned long size, unsigned long from,
                                bool value)
{
    while (from < size && model[from] != value) {
        from++;
    }
    return MIN(from, size);
}

static void test_ranges(void)
{
    for (unsigned long start = 0; start < 140; start += 7) {
        for (unsigned long n = 0; n <= BITS - start; n += 1 + n / 9) {
            Pair p;
            bool any = false;

            pair_init(&p);
            bitmap_set(p.map, start, n);
            memset(p.model + start, 1, n);
            pair_check(&p);
            g_assert_cmpuint(bitmap_count_one(p.map, BITS), ==, n);

            bitmap_fill(p.map, BITS);
            memset(p.model, 1, BITS);
            bitmap_clear(p.map, start, n);
            memset(p.model + start, 0, n);
            pair_check(&p);

            bitmap_set_atomic(p.map, start, n);
            memset(p.model + start, 1, n);
            pair_check(&p);

            any = bitmap_test_and_clear_atomic(p.map, start, n);
            g_assert_cmpint(any, ==, n != 0);
            memset(p.model + start, 0, n);
            pair_check(&p);
            g_assert_false(bitmap_test_and_clear_atomic(p.map, start, n));
            g_free(p.map);
        }
    }
}

static void test_find(void)
{
    for (int round = 0; round < 20; round++) {
        Pair p;

        pair_random(&p);
        for (unsigned long size = 0; size <= BITS; size += 1 + size / 5) {
            unsigned long count = 0, last = size, first = 0;

            for (unsigned long i = 0; i < size; i++) {
                count += p.model[i];
                last = p.model[i] ? i : last;
            }
            g_assert_cmpuint(find_last_bit(p.map, size), ==, last);
            g_assert_cmpuint(bitmap_count_one(p.map, size), ==, count);
            g_assert_cmpint(bitmap_empty(p.map, size), ==, count == 0);
            g_assert_cmpint(bitmap_full(p.map, size), ==, count == size);
            for (unsigned long from = 0; from <= size; from++) {
                first = model_find(p.model, size, from, true);
                g_assert_cmpuint(find_next_bit(p.map, size, from), ==, first);
                g_assert_cmpuint(find_next_zero_bit(p.map, size, from), ==,
                                 model_find(p.model, size, from, false));
                unsigned long start = 12345;
                unsigned long run = bitmap_next_run(p.map, size, from, &start);
                g_assert_cmpuint(run, ==, model_find(p.model, size, first, false) - first);
                g_assert_cmpuint(start, ==, run ? first : 12345);
            }
        }
        for (unsigned long start = 0; start < BITS; start += 11) {
            unsigned long count = 0;
            for (unsigned long n = 0; start + n < BITS; count += p.model[start + n++]) {
                g_assert_cmpuint(bitmap_count_one_with_offset(p.map, start, n), ==, count);
            }
        }
        g_free(p.map);
    }
}

static void test_operations(void)
{
    for (unsigned long n = 0; n <= BITS; n++) {
        Pair a, b, d;
        bool any_and = false, any_andnot = false, same = true;
        unsigned long added = 0;

        pair_random(&a);
        pair_random(&b);
        for (unsigned long i = 0; i < n; i++) {
            any_and |= a.model[i] && b.model[i];
            any_andnot |= a.model[i] && !b.model[i];
            added += a.model[i] && !b.model[i];
            same &= a.model[i] == b.model[i];
        }
        g_assert_cmpint(bitmap_equal(a.map, b.map, n), ==, same);

        pair_random(&d);
        bitmap_or(d.map, a.map, b.map, n);
        for (unsigned long i = 0; i < n; i++) {
            d.model[i] = a.model[i] || b.model[i];
        }
        pair_check(&d);
        g_assert_cmpint(bitmap_and(d.map, a.map, b.map, n), ==, any_and);
        for (unsigned long i = 0; i < n; i++) {
            d.model[i] = a.model[i] && b.model[i];
        }
        pair_check(&d);
        g_assert_cmpint(bitmap_andnot(d.map, a.map, b.map, n), ==, any_andnot);
        for (unsigned long i = 0; i < n; i++) {
            d.model[i] = a.model[i] && !b.model[i];
        }
        pair_check(&d);
        bitmap_copy(d.map, a.map, n);
        memcpy(d.model, a.model, n);
        pair_check(&d);
        g_assert_true(bitmap_equal(d.map, a.map, n));

        /* b gets what a has, a loses it. */
        g_assert_cmpuint(bitmap_take_atomic(b.map, a.map, n), ==, added);
        for (unsigned long i = 0; i < n; i++) {
            b.model[i] |= a.model[i];
            a.model[i] = false;
        }
        pair_check(&a);
        pair_check(&b);
        g_free(a.map);
        g_free(b.map);
        g_free(d.map);
    }
}

static void test_little_endian(void)
{
    unsigned long *map = bitmap_new(70), *back = bitmap_new(70);
    uint8_t raw[17];
    const uint8_t want[16] = { 0x02, 0, 0, 0, 0, 0, 0, 0x80, 0x21, 0, 0, 0, 0, 0, 0, 0 };

    g_assert_cmpuint(bitmap_le_size_bytes(0), ==, 0);
    g_assert_cmpuint(bitmap_le_size_bytes(64), ==, 8);
    g_assert_cmpuint(bitmap_le_size_bytes(70), ==, 16);
    set_bit(1, map);
    set_bit(63, map);
    set_bit(64, map);
    set_bit(69, map);
    map[1] |= 1UL << 6; /* bit 70 is not part of it */
    bitmap_to_le(raw + 1, map, 70);
    g_assert_cmpmem(raw + 1, 16, want, 16);

    raw[1 + 8] |= 0x40;
    bitmap_from_le(back, raw + 1, 70);
    g_assert_cmphex(back[0], ==, 1UL << 63 | 2);
    g_assert_cmphex(back[1], ==, 0x21);
    g_free(map);
    g_free(back);
}

#define RACE_BITS 4096
static unsigned long *race_map;

static gpointer race_setter(gpointer opaque)
{
    unsigned id = GPOINTER_TO_UINT(opaque);

    for (unsigned i = id; i < RACE_BITS; i += 2) {
        if (i % 3) {
            g_assert_false(set_bit_atomic(i, race_map));
        } else {
            bitmap_set_atomic(race_map, i, 1);
        }
    }
    return NULL;
}

/* Two threads set neighbouring bits while a third takes them: each arrives exactly once. */
static void test_race(void)
{
    unsigned long *got = bitmap_new(RACE_BITS);
    unsigned long total = 0;

    race_map = bitmap_new(RACE_BITS);
    GThread *a = g_thread_new("even", race_setter, GUINT_TO_POINTER(0));
    GThread *b = g_thread_new("odd", race_setter, GUINT_TO_POINTER(1));
    while (total < RACE_BITS) {
        total += bitmap_take_atomic(got, race_map, RACE_BITS);
    }
    g_thread_join(a);
    g_thread_join(b);
    g_assert_true(bitmap_full(got, RACE_BITS));
    g_assert_true(test_bit_atomic(5, got));
    g_assert_true(bitmap_empty(race_map, RACE_BITS));
    g_assert_false(test_bit_atomic(5, race_map));
    g_assert_false(clear_bit_atomic(5, race_map));
    g_free(got);
    g_free(race_map);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/bitmap/ranges", test_ranges);
    g_test_add_func("/bitmap/find", test_find);
    g_test_add_func("/bitmap/operations", test_operations);
    g_test_add_func("/bitmap/little-endian", test_little_endian);
    g_test_add_func("/bitmap/race", test_race);
    return g_test_run();
}
