/*
 * Zero detection beside the memory's read bandwidth.
 *
 * Both sides read the same memory, too large for any cache, in turn: one thread that only reads
 * (the fastest of several read loops, whole buffer) against buffer_is_zero() called page by page,
 * as migration calls it. Several rounds; the verdict is the ratio of the medians.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/zero.h"

#include <glib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096
#define ROUNDS 9

typedef uint64_t Vec8 __attribute__((vector_size(64)));

static uint8_t *mem;
static size_t mem_bytes = 512UL << 20;
static volatile uint64_t sink;

/* Read everything and do next to nothing with it. */
#define DEFINE_READ(name, isa)                                                  \
    __attribute__((target(isa))) static void name(void)                         \
    {                                                                           \
        Vec8 a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };                        \
                                                                                \
        for (const uint8_t *p = mem; p < mem + mem_bytes; p += 256) {           \
            a |= *(const Vec8 *)p;                                              \
            b |= *(const Vec8 *)(p + 64);                                       \
            c |= *(const Vec8 *)(p + 128);                                      \
            d |= *(const Vec8 *)(p + 192);                                      \
        }                                                                       \
        a |= b | c | d;                                                         \
        sink = a[0] | a[1] | a[2] | a[3] | a[4] | a[5] | a[6] | a[7];           \
    }

DEFINE_READ(read_sse2, "sse2")
DEFINE_READ(read_avx2, "avx2")
DEFINE_READ(read_avx512, "avx512f")

static const ZeroImpl *current;

static void detect(void)
{
    for (const uint8_t *p = mem; p < mem + mem_bytes; p += PAGE_BYTES) {
        if (!(current ? current->is_zero : buffer_is_zero)(p, PAGE_BYTES)) {
            abort();
        }
    }
}

static double gib_per_s(void (*fn)(void))
{
    gint64 before = g_get_monotonic_time();

    fn();
    gint64 us = MAX(g_get_monotonic_time() - before, 1);
    return (double)mem_bytes / (1UL << 30) / (us / 1e6);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof(*v), compare);
    return v[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    double reads[ROUNDS], zeroes[ROUNDS];
    size_t n;
    const ZeroImpl *impls = zero_impls(&n);

    if (argc > 1) {
        mem_bytes = strtoul(argv[1], NULL, 0) << 20;
    }
    if (argc > 2 || mem_bytes < (16UL << 20)) {
        fprintf(stderr, "usage: %s [MIB, at least 16]\n", argv[0]);
        return 1;
    }
    mem = mmap(NULL, mem_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    /* Real pages of its own for every address, as a guest that has used them has. */
    memset(mem, 1, mem_bytes);
    memset(mem, 0, mem_bytes);

    for (int i = 0; i < ROUNDS; i++) {
        reads[i] = gib_per_s(read_sse2);
        if (__builtin_cpu_supports("avx2")) {
            reads[i] = MAX(reads[i], gib_per_s(read_avx2));
        }
        if (__builtin_cpu_supports("avx512f")) {
            reads[i] = MAX(reads[i], gib_per_s(read_avx512));
        }
        zeroes[i] = gib_per_s(detect);
    }
    double read = median(reads), zero = median(zeroes);

    printf("ratio zero-detect %.2f\n", zero / read);
    printf(
        "  %zu MiB, %d rounds, medians: zero detection (%s) %.2f GiB/s, memory read %.2f GiB/s\n",
        mem_bytes >> 20, ROUNDS, zero_impl_name(), zero, read);
    for (size_t i = 0; i < n; i++) {
        if (impls[i].supported) {
            current = &impls[i];
            printf("  %-7s %.2f GiB/s\n", impls[i].name, gib_per_s(detect));
        }
    }
    return 0;
}
