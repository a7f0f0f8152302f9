/*
 * A page is 512 little-endian words: its number, its generation, and an arithmetic sequence that
 * starts at a hash of seed, number and generation. One pass of additions writes or checks it, at
 * the speed of memory, and any word of another page or generation is out of sequence.
 *
 * The order of a round is a walk with a fixed step modulo the number of pages, near the golden
 * section: neighbours in time are far apart in memory, and the position in the walk says of every
 * page whether it has been visited in this round.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/misc/memstress-pattern.h"

#include "system/ramblock.h"
#include "util/barrier.h"
#include "util/bswap.h"

#define WORDS (TARGET_PAGE_SIZE / 8)
#define STEP_K UINT64_C(0x9e3779b97f4a7c15)

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t first_value(uint64_t seed, uint64_t index, uint64_t generation)
{
    return mix(seed + mix(index * STEP_K + mix(generation)));
}

/* Not by stq_le_p(), which ThreadSanitizer would look at wherever it is called from. */
GUEST_WRITER
void memstress_pattern_fill(void *page, uint64_t seed, uint64_t index, uint64_t generation)
{
    uint64_t value = first_value(seed, index, generation);
    uint64_t *word = page;

    word[0] = GUINT64_TO_LE(index);
    word[1] = GUINT64_TO_LE(generation);
    for (unsigned i = 2; i < WORDS; i++, value += STEP_K) {
        word[i] = GUINT64_TO_LE(value);
    }
}

bool memstress_pattern_check(const void *page, uint64_t seed, uint64_t index, uint64_t generation)
{
    uint64_t value = first_value(seed, index, generation);
    const uint8_t *at = page;
    uint64_t difference = (ldq_le_p(at) ^ index) | (ldq_le_p(at + 8) ^ generation);

    for (unsigned i = 2; i < WORDS; i++, value += STEP_K) {
        difference |= ldq_le_p(at + i * 8) ^ value;
    }
    return difference == 0;
}

void memstress_pattern_names(const void *page, uint64_t *index, uint64_t *generation)
{
    *index = ldq_le_p(page);
    *generation = ldq_le_p((const uint8_t *)page + 8);
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

uint64_t memstress_step(uint64_t pages)
{
    uint64_t step = pages / 1000 * 618 + pages % 1000 * 618 / 1000;

    step = step ?: 1;
    while (gcd(step, pages) != 1) {
        step++;
    }
    return step % pages;
}
