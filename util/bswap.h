/*
 * Numbers in a stated byte order: in a register (cpu_to_be32), in memory (ldl_be_p, stq_le_p).
 *
 * The memory functions take any address, aligned or not, and are how every packed format of wire
 * and disk is read and written; nothing casts a byte pointer to a wider type. The letters are the
 * width: b 8, w 16, l 32, q 64 bits. Loads narrower than 32 bits say whether they extend the sign
 * (lduw, ldsw); ldl and ldq are unsigned.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_BSWAP_H
#define UTIL_BSWAP_H

#include <stdint.h>
#include <string.h>

static inline uint16_t bswap16(uint16_t x)
{
    return __builtin_bswap16(x);
}

static inline uint32_t bswap32(uint32_t x)
{
    return __builtin_bswap32(x);
}

static inline uint64_t bswap64(uint64_t x)
{
    return __builtin_bswap64(x);
}

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BSWAP_BE(width, x) ((uint##width##_t)(x))
#define BSWAP_LE(width, x) bswap##width(x)
#else
#define BSWAP_BE(width, x) bswap##width(x)
#define BSWAP_LE(width, x) ((uint##width##_t)(x))
#endif

/* cpu_to_be16() ... le64_to_cpu(): a value between the CPU's order and the one named. */
#define BSWAP_DEFINE_CONVERT(lower, upper, width)                         \
    static inline uint##width##_t cpu_to_##lower##width(uint##width##_t x) \
    {                                                                     \
        return BSWAP_##upper(width, x);                                   \
    }                                                                     \
    static inline uint##width##_t lower##width##_to_cpu(uint##width##_t x) \
    {                                                                     \
        return BSWAP_##upper(width, x);                                   \
    }

BSWAP_DEFINE_CONVERT(be, BE, 16)
BSWAP_DEFINE_CONVERT(be, BE, 32)
BSWAP_DEFINE_CONVERT(be, BE, 64)
BSWAP_DEFINE_CONVERT(le, LE, 16)
BSWAP_DEFINE_CONVERT(le, LE, 32)
BSWAP_DEFINE_CONVERT(le, LE, 64)

/* ld*_be_p(), ld*_le_p(), st*_be_p(), st*_le_p(): a number at an address of any alignment. */
#define BSWAP_DEFINE_LOAD(name, order, width, type)          \
    static inline type name##_##order##_p(const void *ptr)   \
    {                                                        \
        uint##width##_t raw;                                 \
        memcpy(&raw, ptr, sizeof(raw));                      \
        return (type)order##width##_to_cpu(raw);             \
    }
#define BSWAP_DEFINE_STORE(name, order, width)                               \
    static inline void name##_##order##_p(void *ptr, uint##width##_t value)  \
    {                                                                        \
        uint##width##_t raw = cpu_to_##order##width(value);                  \
        memcpy(ptr, &raw, sizeof(raw));                                      \
    }

BSWAP_DEFINE_LOAD(lduw, be, 16, uint16_t)
BSWAP_DEFINE_LOAD(ldsw, be, 16, int16_t)
BSWAP_DEFINE_LOAD(ldl, be, 32, uint32_t)
BSWAP_DEFINE_LOAD(ldq, be, 64, uint64_t)
BSWAP_DEFINE_LOAD(lduw, le, 16, uint16_t)
BSWAP_DEFINE_LOAD(ldsw, le, 16, int16_t)
BSWAP_DEFINE_LOAD(ldl, le, 32, uint32_t)
BSWAP_DEFINE_LOAD(ldq, le, 64, uint64_t)
BSWAP_DEFINE_STORE(stw, be, 16)
BSWAP_DEFINE_STORE(stl, be, 32)
BSWAP_DEFINE_STORE(stq, be, 64)
BSWAP_DEFINE_STORE(stw, le, 16)
BSWAP_DEFINE_STORE(stl, le, 32)
BSWAP_DEFINE_STORE(stq, le, 64)

static inline uint8_t ldub_p(const void *ptr)
{
    return *(const uint8_t *)ptr;
}

static inline int8_t ldsb_p(const void *ptr)
{
    return *(const int8_t *)ptr;
}

static inline void stb_p(void *ptr, uint8_t value)
{
    *(uint8_t *)ptr = value;
}

#undef BSWAP_DEFINE_CONVERT
#undef BSWAP_DEFINE_LOAD
#undef BSWAP_DEFINE_STORE

#endif
