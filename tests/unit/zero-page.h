/*
 * Whether this kernel maps the shared page of zeroes where private memory is read that nobody
 * wrote. Most do; one that gives out a page of its own instead makes a read look like a write.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_UNIT_ZERO_PAGE_H
#define TESTS_UNIT_ZERO_PAGE_H

#include <sys/mman.h>

#include "system/pagemap-scan.h"

/* True also where the kernel cannot be asked. */
static inline bool kernel_maps_zero_page(void)
{
    PagemapQuery query = { .any_of = PM_PRESENT, .return_mask = PM_PRESENT | PM_PFNZERO };
    PagemapRegion region;
    size_t page = 4096;
    uint8_t *mem = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t start = (uintptr_t)mem;
    bool owned;

    g_assert_true(mem != MAP_FAILED);
    g_assert_cmpint(*(volatile uint8_t *)mem, ==, 0);
    owned = pagemap_scan(&query, &start, start + page, &region, 1) == 1 &&
            !(region.categories & PM_PFNZERO);
    munmap(mem, page);
    return !owned;
}

#endif
