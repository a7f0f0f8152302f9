/*
 * Bitmaps, a word at a time.
 *
 * Every range is cut into words by one iteration: a mask for the (possibly partial) word, then the
 * next. Long ranges are whole words in their middle, for which the mask is all ones; compilers make
 * good loops of it, and there is one shape to get right instead of three.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/bitmap.h"

#include <string.h>

#include "util/barrier.h"
#include "util/bswap.h"

G_STATIC_ASSERT(sizeof(unsigned long) == 8);

/* The bits of the word that holds @start which lie in the @nr bits from @start on; @nr is not 0. */
static inline unsigned long range_mask(unsigned long start, unsigned long nr, unsigned long *taken)
{
    unsigned long shift = start % BITS_PER_LONG;
    unsigned long n = MIN(nr, BITS_PER_LONG - shift);

    *taken = n;
    return n == BITS_PER_LONG ? ~0UL : ((1UL << n) - 1) << shift;
}

/* The valid bits of the last word of a map of @nbits bits, when that word is partial. */
static inline unsigned long tail_mask(unsigned long nbits)
{
    return (1UL << (nbits % BITS_PER_LONG)) - 1;
}

unsigned long *bitmap_try_new(unsigned long nbits)
{
    return g_try_malloc0_n(MAX(BITS_TO_LONGS(nbits), 1), sizeof(unsigned long));
}

unsigned long *bitmap_new(unsigned long nbits)
{
    return g_malloc0_n(MAX(BITS_TO_LONGS(nbits), 1), sizeof(unsigned long));
}

void bitmap_set(unsigned long *map, unsigned long start, unsigned long nr)
{
    for (unsigned long n; nr; start += n, nr -= n) {
        map[BIT_WORD(start)] |= range_mask(start, nr, &n);
    }
}

void bitmap_clear(unsigned long *map, unsigned long start, unsigned long nr)
{
    for (unsigned long n; nr; start += n, nr -= n) {
        map[BIT_WORD(start)] &= ~range_mask(start, nr, &n);
    }
}

void bitmap_set_atomic(unsigned long *map, unsigned long start, unsigned long nr)
{
    /* The barrier that the skipped writes would have been. */
    memory_barrier();
    for (unsigned long n; nr; start += n, nr -= n) {
        unsigned long *word = &map[BIT_WORD(start)];
        unsigned long mask = range_mask(start, nr, &n);

        if ((__atomic_load_n(word, __ATOMIC_SEQ_CST) & mask) != mask) {
            __atomic_fetch_or(word, mask, __ATOMIC_SEQ_CST);
        }
    }
}

bool bitmap_test_and_clear_atomic(unsigned long *map, unsigned long start, unsigned long nr)
{
    unsigned long dirty = 0;

    for (unsigned long n; nr; start += n, nr -= n) {
        unsigned long *word = &map[BIT_WORD(start)];
        unsigned long mask = range_mask(start, nr, &n);

        if (__atomic_load_n(word, __ATOMIC_SEQ_CST) & mask) {
            dirty |= __atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST) & mask;
        }
    }
    return dirty;
}

void bitmap_zero(unsigned long *map, unsigned long nbits)
{
    bitmap_clear(map, 0, nbits);
}

void bitmap_fill(unsigned long *map, unsigned long nbits)
{
    bitmap_set(map, 0, nbits);
}

/*
 * Put the first @nbits bits of @value in *@word, leaving the others; all of it when @nbits is 64.
 */
static inline void store_word(unsigned long *word, unsigned long value, unsigned long nbits)
{
    if (nbits < BITS_PER_LONG) {
        unsigned long mask = tail_mask(nbits);
        value = (value & mask) | (*word & ~mask);
    }
    *word = value;
}

void bitmap_copy(unsigned long *dst, const unsigned long *src, unsigned long nbits)
{
    memcpy(dst, src, BIT_WORD(nbits) * sizeof(*dst));
    if (nbits % BITS_PER_LONG) {
        store_word(&dst[BIT_WORD(nbits)], src[BIT_WORD(nbits)], nbits % BITS_PER_LONG);
    }
}

unsigned long bitmap_take_atomic(unsigned long *dst, unsigned long *src, unsigned long nbits)
{
    unsigned long added = 0;

    for (unsigned long at = 0, n; at < nbits; at += n) {
        unsigned long mask = range_mask(at, nbits - at, &n);
        unsigned long *word = &src[BIT_WORD(at)];

        if (!(__atomic_load_n(word, __ATOMIC_SEQ_CST) & mask)) {
            continue;
        }
        unsigned long got = __atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST) & mask;
        added += __builtin_popcountl(got & ~dst[BIT_WORD(at)]);
        dst[BIT_WORD(at)] |= got;
    }
    return added;
}

void bitmap_or(unsigned long *dst, const unsigned long *a, const unsigned long *b,
               unsigned long nbits)
{
    for (unsigned long at = 0; at < nbits; at += BITS_PER_LONG) {
        unsigned long i = BIT_WORD(at);
        store_word(&dst[i], a[i] | b[i], MIN(nbits - at, BITS_PER_LONG));
    }
}

bool bitmap_and(unsigned long *dst, const unsigned long *a, const unsigned long *b,
                unsigned long nbits)
{
    for (unsigned long at = 0; at < nbits; at += BITS_PER_LONG) {
        unsigned long i = BIT_WORD(at);
        store_word(&dst[i], a[i] & b[i], MIN(nbits - at, BITS_PER_LONG));
    }
    return !bitmap_empty(dst, nbits);
}

bool bitmap_andnot(unsigned long *dst, const unsigned long *a, const unsigned long *b,
                   unsigned long nbits)
{
    for (unsigned long at = 0; at < nbits; at += BITS_PER_LONG) {
        unsigned long i = BIT_WORD(at);
        store_word(&dst[i], a[i] & ~b[i], MIN(nbits - at, BITS_PER_LONG));
    }
    return !bitmap_empty(dst, nbits);
}

bool bitmap_empty(const unsigned long *map, unsigned long nbits)
{
    return find_next_bit(map, nbits, 0) == nbits;
}

bool bitmap_full(const unsigned long *map, unsigned long nbits)
{
    return find_next_zero_bit(map, nbits, 0) == nbits;
}

bool bitmap_equal(const unsigned long *a, const unsigned long *b, unsigned long nbits)
{
    unsigned long last = BIT_WORD(nbits);

    return !memcmp(a, b, last * sizeof(*a)) &&
           (!(nbits % BITS_PER_LONG) || !((a[last] ^ b[last]) & tail_mask(nbits)));
}

unsigned long bitmap_count_one_with_offset(const unsigned long *map, unsigned long start,
                                           unsigned long nr)
{
    unsigned long count = 0;

    for (unsigned long n; nr; start += n, nr -= n) {
        unsigned long mask = range_mask(start, nr, &n);
        count += __builtin_popcountl(map[BIT_WORD(start)] & mask);
    }
    return count;
}

unsigned long bitmap_count_one(const unsigned long *map, unsigned long nbits)
{
    return bitmap_count_one_with_offset(map, 0, nbits);
}

/* The search of both kinds: @flip is all ones to look for a clear bit. */
static inline unsigned long find_next(const unsigned long *map, unsigned long size,
                                      unsigned long from, unsigned long flip)
{
    if (from >= size) {
        return size;
    }

    unsigned long i = BIT_WORD(from);
    unsigned long last = BIT_WORD(size - 1);
    unsigned long word = (map[i] ^ flip) & (~0UL << (from % BITS_PER_LONG));

    while (!word && i < last) {
        word = map[++i] ^ flip;
    }
    return word ? MIN(i * BITS_PER_LONG + __builtin_ctzl(word), size) : size;
}

unsigned long find_next_bit(const unsigned long *map, unsigned long size, unsigned long from)
{
    return find_next(map, size, from, 0);
}

unsigned long find_next_zero_bit(const unsigned long *map, unsigned long size, unsigned long from)
{
    return find_next(map, size, from, ~0UL);
}

unsigned long find_first_bit(const unsigned long *map, unsigned long size)
{
    return find_next_bit(map, size, 0);
}

unsigned long find_last_bit(const unsigned long *map, unsigned long size)
{
    for (unsigned long i = BITS_TO_LONGS(size); i-- > 0;) {
        unsigned long word = map[i];

        if (i == BIT_WORD(size)) {
            word &= tail_mask(size);
        }
        if (word) {
            return i * BITS_PER_LONG + BITS_PER_LONG - 1 - __builtin_clzl(word);
        }
    }
    return size;
}

unsigned long bitmap_next_run(const unsigned long *map, unsigned long size, unsigned long from,
                              unsigned long *start)
{
    unsigned long first = find_next_bit(map, size, from);

    if (first == size) {
        return 0;
    }
    *start = first;
    return find_next_zero_bit(map, size, first) - first;
}

void bitmap_to_le(void *dst, const unsigned long *src, unsigned long nbits)
{
    for (unsigned long i = 0; i < BITS_TO_LONGS(nbits); i++) {
        unsigned long word = src[i];

        if (i == BIT_WORD(nbits)) {
            word &= tail_mask(nbits);
        }
        stq_le_p((uint8_t *)dst + i * 8, word);
    }
}

void bitmap_from_le(unsigned long *dst, const void *src, unsigned long nbits)
{
    for (unsigned long i = 0; i < BITS_TO_LONGS(nbits); i++) {
        unsigned long word = ldq_le_p((const uint8_t *)src + i * 8);

        dst[i] = i == BIT_WORD(nbits) ? word & tail_mask(nbits) : word;
    }
}

uint64_t bitmap_le_size_bytes(unsigned long nbits)
{
    return (uint64_t)BITS_TO_LONGS(nbits) * 8;
}
