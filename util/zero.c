/*
 * Zero detection, vectorised.
 *
 * Most pages that are not zero show it in their first word, which is looked at before anything
 * else. What remains is nearly always zero, and then all that counts is to keep memory busy. That
 * is done best by the plainest loop: strictly upwards, a cache line at a time with a branch for
 * each, so that the CPU's own prefetcher sees one stream through page after page. Measured (see
 * tests/bench/zero-bench.c): probing the middle and the end of each page first costs a fifth of the
 * bandwidth, software prefetch as much, and reading two halves of a page at once more than half.
 *
 * Which width runs is decided once, before main(), by what the CPU has.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/zero.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>

#define CACHE_LINE_BYTES 64

/* Guests write what is read here: see the header. */
#define RACY __attribute__((no_sanitize("thread")))

RACY static inline uint64_t load64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

RACY static bool zero_scalar(const void *buf, size_t len)
{
    const uint8_t *p = buf;
    const uint8_t *end = p + len;
    uint64_t any = 0;

    if (len < 8) {
        while (p < end) {
            any |= *p++;
        }
        return !any;
    }
    for (; end - p >= CACHE_LINE_BYTES && !any; p += CACHE_LINE_BYTES) {
        any = load64(p) | load64(p + 8) | load64(p + 16) | load64(p + 24) | load64(p + 32) |
              load64(p + 40) | load64(p + 48) | load64(p + 56);
    }
    for (; end - p >= 8; p += 8) {
        any |= load64(p);
    }
    return !(any | load64(end - 8));
}

#ifdef __x86_64__
#include <immintrin.h>

/*
 * The shape that all vector widths share: an unaligned line, aligned lines, an unaligned line; the
 * three may overlap. VEC is the vector type; LOADU, LOAD, OR its operations; ANY(v) whether any bit
 * of v is set. The inner loop over a line is unrolled by the compiler.
 */
#define DEFINE_ZERO(name, isa, VEC, LOADU, LOAD, OR, ANY)                                    \
    __attribute__((target(isa))) RACY static bool name(const void *buf, size_t len)          \
    {                                                                                        \
        if (len < CACHE_LINE_BYTES) {                                                        \
            return zero_scalar(buf, len);                                                    \
        }                                                                                    \
        const uint8_t *p = buf;                                                              \
        const uint8_t *last = p + len - CACHE_LINE_BYTES;                                    \
        VEC any = LOADU((const VEC *)p);                                                     \
        for (size_t i = sizeof(VEC); i < CACHE_LINE_BYTES; i += sizeof(VEC)) {               \
            any = OR(any, LOADU((const VEC *)(p + i)));                                      \
        }                                                                                    \
        p = (const uint8_t *)(((uintptr_t)p | (CACHE_LINE_BYTES - 1)) + 1);                  \
        for (; p < last && !ANY(any); p += CACHE_LINE_BYTES) {                               \
            any = LOAD((const VEC *)p);                                                      \
            for (size_t i = sizeof(VEC); i < CACHE_LINE_BYTES; i += sizeof(VEC)) {           \
                any = OR(any, LOAD((const VEC *)(p + i)));                                   \
            }                                                                                \
        }                                                                                    \
        for (size_t i = 0; i < CACHE_LINE_BYTES; i += sizeof(VEC)) {                         \
            any = OR(any, LOADU((const VEC *)(last + i)));                                   \
        }                                                                                    \
        return !ANY(any);                                                                    \
    }

#define SSE2_ANY(v) (_mm_movemask_epi8(_mm_cmpeq_epi8((v), _mm_setzero_si128())) != 0xffff)
#define AVX2_ANY(v) (!_mm256_testz_si256((v), (v)))
#define AVX512_ANY(v) (_mm512_test_epi64_mask((v), (v)) != 0)

DEFINE_ZERO(zero_sse2, "sse2", __m128i, _mm_loadu_si128, _mm_load_si128, _mm_or_si128, SSE2_ANY)
DEFINE_ZERO(zero_avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_load_si256, _mm256_or_si256,
            AVX2_ANY)
DEFINE_ZERO(zero_avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_load_si512, _mm512_or_si512,
            AVX512_ANY)
#endif

static ZeroImpl impls[] = {
    { "scalar", zero_scalar, true },
#ifdef __x86_64__
    { "sse2", zero_sse2, true },
    { "avx2", zero_avx2, false },
    { "avx512", zero_avx512, false },
#endif
};
static const ZeroImpl *chosen = &impls[0];

__attribute__((constructor)) static void zero_choose(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    impls[2].supported = __builtin_cpu_supports("avx2");
    impls[3].supported = __builtin_cpu_supports("avx512f");
#endif
    for (size_t i = 0; i < G_N_ELEMENTS(impls); i++) {
        if (impls[i].supported) {
            chosen = &impls[i];
        }
    }
}

const ZeroImpl *zero_impls(size_t *n)
{
    *n = G_N_ELEMENTS(impls);
    return impls;
}

const char *zero_impl_name(void)
{
    return chosen->name;
}

RACY bool buffer_is_zero(const void *buf, size_t len)
{
    if (len < 8) {
        return zero_scalar(buf, len);
    }
    return !load64(buf) && chosen->is_zero(buf, len);
}
