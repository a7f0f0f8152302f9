/*
 * What memstress writes: pages that name themselves and their generation, in an order that visits
 * every page of a region once per round and jumps about in it. All of it follows from seed, page
 * and generation, so what a page must hold can be said without having kept a copy.
 *
 * Any thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_MEMSTRESS_PATTERN_H
#define HW_MISC_MEMSTRESS_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

/* Fill the 4096 bytes at @page with generation @generation (from 1) of page @index. */
void memstress_pattern_fill(void *page, uint64_t seed, uint64_t index, uint64_t generation);
/* Whether the 4096 bytes at @page are exactly that. */
bool memstress_pattern_check(const void *page, uint64_t seed, uint64_t index, uint64_t generation);
/* The page number and generation that @page itself names, for messages. */
void memstress_pattern_names(const void *page, uint64_t *index, uint64_t *generation);

/* The distance from one page to the next one written, of @pages; no divisor in common with it. */
uint64_t memstress_step(uint64_t pages);

#endif
