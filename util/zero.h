/*
 * Is a buffer all zero bytes? At the speed of memory, whatever the CPU.
 *
 * Any thread may call at any time, also while another thread or a guest writes the buffer: the
 * answer then is about no particular moment, and whoever needs to know (migration) relies on
 * dirty tracking to look again.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_ZERO_H
#define UTIL_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Whether the @len bytes at @buf, of any length and alignment, are all zero; true when @len is 0.
 */
bool buffer_is_zero(const void *buf, size_t len);

/* One way to do it, for tests and benchmarks: they compare all of them. */
typedef struct ZeroImpl {
    const char *name;       /* "scalar", "sse2", "avx2", "avx512" */
    bool (*is_zero)(const void *buf, size_t len);
    bool supported;         /* whether this CPU can run it */
} ZeroImpl;

/* All implementations, slowest first; *@n receives their number. */
const ZeroImpl *zero_impls(size_t *n);
/* The name of the one that buffer_is_zero() uses on this CPU. */
const char *zero_impl_name(void);

#endif
