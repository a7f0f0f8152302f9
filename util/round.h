/*
 * Rounding to multiples of a unit that need not be a power of two.
 *
 * Values are not negative, units are positive, and who rounds up has made sure that the result fits.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_ROUND_H
#define UTIL_ROUND_H

#include <stdint.h>

static inline int64_t round_down_i64(int64_t value, int64_t unit)
{
    return value - value % unit;
}

static inline int64_t round_up_i64(int64_t value, int64_t unit)
{
    return round_down_i64(value + unit - 1, unit);
}

static inline uint64_t round_up_u64(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

#endif
