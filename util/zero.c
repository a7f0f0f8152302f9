/*
 * Zero detection, vectorised.
 *
 * Most pages that are not zero show it at once, so buffer_is_zero() probes the first, middle and
 * last word before anything else. What remains is nearly always zero, and then the only thing that
 * counts is to keep memory busy: wide loads, or-ed together over 512 bytes with one branch for all,
 * and a prefetch that runs ahead of them, past the end of the buffer too, because callers go through
 * memory page by page and the CPU's own prefetcher stops at each page's end.
 *
 * An implementation reads the first and last vector unaligned (they may overlap the others) and all
 * between aligned. Which one runs is decided once, before main(), by what the CPU has.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/zero.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>

#define BLOCK_BYTES 512
#define PREFETCH_BYTES 2048
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
    for (any = load64(end - 8); end - p >= 64 && !any; p += 64) {
        any = load64(p) | load64(p + 8) | load64(p + 16) | load64(p + 24) | load64(p + 32) |
              load64(p + 40) | load64(p + 48) | load64(p + 56);
    }
    for (; end - p >= 8; p += 8) {
        any |= load64(p);
    }
    return !any;
}

#ifdef __x86_64__
#include <immintrin.h>

#define PREFETCH_BLOCK(p)                                                     \
    do {                                                                      \
        for (unsigned i_ = 0; i_ < BLOCK_BYTES; i_ += CACHE_LINE_BYTES) {     \
            __builtin_prefetch((p) + PREFETCH_BYTES + i_, 0, 3);              \
        }                                                                     \
    } while (0)

/*
 * The shape that all vector widths share. VEC is the vector type; LOADU, LOAD, OR its operations;
 * ANY(v) whether any bit of v is set.
 */
#define DEFINE_ZERO(name, isa, VEC, LOADU, LOAD, OR, ANY)                               \
    __attribute__((target(isa))) RACY static bool name(const void *buf, size_t len)     \
    {                                                                                   \
        const size_t w = sizeof(VEC);                                                   \
                                                                                        \
        if (len < w) {                                                                  \
            return zero_scalar(buf, len);                                               \
        }                                                                               \
        const uint8_t *p = buf;                                                         \
        const uint8_t *end = p + len;                                                   \
        VEC any = OR(LOADU((const VEC *)p), LOADU((const VEC *)(end - w)));             \
                                                                                        \
        p = (const uint8_t *)(((uintptr_t)p + w - 1) & ~(uintptr_t)(w - 1));            \
        for (; end - p >= BLOCK_BYTES; p += BLOCK_BYTES) {                              \
            PREFETCH_BLOCK(p);                                                          \
            for (size_t i = 0; i < BLOCK_BYTES; i += 4 * w) {                           \
                VEC ab = OR(LOAD((const VEC *)(p + i)), LOAD((const VEC *)(p + i + w))); \
                VEC cd = OR(LOAD((const VEC *)(p + i + 2 * w)),                         \
                            LOAD((const VEC *)(p + i + 3 * w)));                        \
                any = OR(any, OR(ab, cd));                                              \
            }                                                                           \
            if (ANY(any)) {                                                             \
                return false;                                                           \
            }                                                                           \
        }                                                                               \
        for (; end - p >= (ptrdiff_t)w; p += w) {                                       \
            any = OR(any, LOAD((const VEC *)p));                                        \
        }                                                                               \
        return !ANY(any);                                                               \
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
    const uint8_t *p = buf;

    if (len < 8) {
        return zero_scalar(buf, len);
    }
    if (load64(p) | load64(p + (len - 8) / 2) | load64(p + len - 8)) {
        return false;
    }
    return chosen->is_zero(buf, len);
}
