/*
 * Bitmaps: arrays of unsigned long in which bit n is bit n % BITS_PER_LONG of word n /
 * BITS_PER_LONG.
 *
 * Sizes and positions count bits and are unsigned long, so one bitmap can cover every page of any
 * machine. A map of n bits occupies BITS_TO_LONGS(n) words; the bits after n in its last word are
 * zero when the map comes from bitmap_new() and no function here looks at them.
 *
 * The plain functions need a map that no other thread writes. Those with _atomic in their name may
 * run beside each other on the same map, and are full barriers: what a thread wrote before it set a
 * bit is visible to whoever sees the bit.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_BITMAP_H
#define UTIL_BITMAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define BITS_PER_LONG (sizeof(unsigned long) * 8)
#define BIT_WORD(nr) ((nr) / BITS_PER_LONG)
#define BIT_MASK(nr) (1UL << ((nr) % BITS_PER_LONG))
/* Words that hold @nr bits; no overflow for any @nr. */
#define BITS_TO_LONGS(nr) ((nr) / BITS_PER_LONG + ((nr) % BITS_PER_LONG != 0))

/* A zeroed map of @nbits bits, g_free() it; NULL when memory is short (never aborts). */
unsigned long *bitmap_try_new(unsigned long nbits);
/* The same, and the program ends when memory is short. */
unsigned long *bitmap_new(unsigned long nbits);

static inline bool test_bit(unsigned long nr, const unsigned long *map)
{
    return map[BIT_WORD(nr)] & BIT_MASK(nr);
}

static inline void set_bit(unsigned long nr, unsigned long *map)
{
    map[BIT_WORD(nr)] |= BIT_MASK(nr);
}

static inline void clear_bit(unsigned long nr, unsigned long *map)
{
    map[BIT_WORD(nr)] &= ~BIT_MASK(nr);
}

/* Set or clear bit @nr and return what it was before. */
static inline bool test_and_set_bit(unsigned long nr, unsigned long *map)
{
    bool was = test_bit(nr, map);
    set_bit(nr, map);
    return was;
}

static inline bool test_and_clear_bit(unsigned long nr, unsigned long *map)
{
    bool was = test_bit(nr, map);
    clear_bit(nr, map);
    return was;
}

/* Test bit @nr beside other threads. */
static inline bool test_bit_atomic(unsigned long nr, const unsigned long *map)
{
    return __atomic_load_n(&map[BIT_WORD(nr)], __ATOMIC_SEQ_CST) & BIT_MASK(nr);
}

/* Set bit @nr beside other threads; returns what it was before. */
static inline bool set_bit_atomic(unsigned long nr, unsigned long *map)
{
    return __atomic_fetch_or(&map[BIT_WORD(nr)], BIT_MASK(nr), __ATOMIC_SEQ_CST) & BIT_MASK(nr);
}

/* Clear bit @nr beside other threads; returns what it was before. */
static inline bool clear_bit_atomic(unsigned long nr, unsigned long *map)
{
    return __atomic_fetch_and(&map[BIT_WORD(nr)], ~BIT_MASK(nr), __ATOMIC_SEQ_CST) & BIT_MASK(nr);
}

/* Set, clear @nr bits from @start on. */
void bitmap_set(unsigned long *map, unsigned long start, unsigned long nr);
void bitmap_clear(unsigned long *map, unsigned long start, unsigned long nr);
/* bitmap_set() beside other threads; a word that is all set already is not written. */
void bitmap_set_atomic(unsigned long *map, unsigned long start, unsigned long nr);
/* Clear @nr bits from @start on beside other threads; returns whether any of them was set. */
bool bitmap_test_and_clear_atomic(unsigned long *map, unsigned long start, unsigned long nr);

/* Clear or set the bits 0 to @nbits - 1. */
void bitmap_zero(unsigned long *map, unsigned long nbits);
void bitmap_fill(unsigned long *map, unsigned long nbits);
/* Copy @nbits bits; dst and src must not overlap. */
void bitmap_copy(unsigned long *dst, const unsigned long *src, unsigned long nbits);
/*
 * Move @nbits bits from @src, which other threads are setting bits in, to @dst (added to those that
 * are set there) and clear them in @src: each bit set in @src is either taken or still there.
 * Returns how many bits were newly set in @dst.
 */
unsigned long bitmap_take_atomic(unsigned long *dst, unsigned long *src, unsigned long nbits);

/*
 * dst = a OP b, over @nbits bits; dst may be a or b. and() and andnot() return whether any is set.
 */
void bitmap_or(unsigned long *dst, const unsigned long *a, const unsigned long *b,
               unsigned long nbits);
bool bitmap_and(unsigned long *dst, const unsigned long *a, const unsigned long *b,
                unsigned long nbits);
bool bitmap_andnot(unsigned long *dst, const unsigned long *a, const unsigned long *b,
                   unsigned long nbits);

/* Whether no bit, every bit of the first @nbits is set; whether the first @nbits are the same. */
bool bitmap_empty(const unsigned long *map, unsigned long nbits);
bool bitmap_full(const unsigned long *map, unsigned long nbits);
bool bitmap_equal(const unsigned long *a, const unsigned long *b, unsigned long nbits);
/* How many of the @nr bits from @start on are set. */
unsigned long bitmap_count_one_with_offset(const unsigned long *map, unsigned long start,
                                           unsigned long nr);
unsigned long bitmap_count_one(const unsigned long *map, unsigned long nbits);

/* Position of the first set (clear) bit at or after @from in a map of @size bits; @size if none. */
unsigned long find_next_bit(const unsigned long *map, unsigned long size, unsigned long from);
unsigned long find_next_zero_bit(const unsigned long *map, unsigned long size, unsigned long from);
unsigned long find_first_bit(const unsigned long *map, unsigned long size);
/* Position of the last set bit of the first @size; @size if none. */
unsigned long find_last_bit(const unsigned long *map, unsigned long size);

/*
 * bitmap_next_run:
 * @map: a map of @size bits
 * @from: where to begin looking
 * @start: where the position of the run goes; untouched when there is none
 *
 * Find the next run of set bits at or after @from. Walk a map with
 *     for (at = 0; (n = bitmap_next_run(map, size, at, &first)); at = first + n) ...
 *
 * Returns: the length of the run, at least 1; 0 when no more bit is set.
 */
unsigned long bitmap_next_run(const unsigned long *map, unsigned long size, unsigned long from,
                              unsigned long *start);

/*
 * Between a map and its form on wire and disk: an array of 64-bit little-endian words, the same
 * bits in the same places. @nbits is rounded up to whole words of 64 bits; bits beyond @nbits are
 * written as zero. dst and src may be the same memory. The disk side may have any alignment.
 */
void bitmap_to_le(void *dst, const unsigned long *src, unsigned long nbits);
void bitmap_from_le(unsigned long *dst, const void *src, unsigned long nbits);
/* Bytes of that form for @nbits bits, a multiple of 8. */
uint64_t bitmap_le_size_bytes(unsigned long nbits);

#endif
