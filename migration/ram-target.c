/*
 * Two bitmaps a block. maybe_nonzero begins as the kernel's idea of populated pages and gains every
 * page that is loaded: a zero page outside it costs one bit test and no memory access. stale begins
 * the same way and loses every page that the source names; what remains at the end is memory that
 * the source never touched, and is cleared. Most destinations start with nothing populated and have
 * no second bitmap.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram-target.h"

#include <string.h>
#include "util/bitmap.h"
#include "util/zero.h"

/* From here on memory is given back rather than filled with zeroes. */
#define DISCARD_MIN_PAGES ((2 * 1024 * 1024) / TARGET_PAGE_SIZE)

RamTarget *ram_target_new(RAMBlock *block, Error **errp)
{
    RamTarget *target = g_new0(RamTarget, 1);
    uint64_t at = 0, n;
    bool any = false;

    target->block = block;
    target->maybe_nonzero = bitmap_try_new(block->pages);
    if (!target->maybe_nonzero) {
        goto no_memory;
    }
    while ((at = ram_block_populated_run(block, at, block->pages, &n)) < block->pages) {
        bitmap_set(target->maybe_nonzero, at, n);
        any = true;
        at += n;
    }
    if (any) {
        target->stale = bitmap_try_new(block->pages);
        if (!target->stale) {
            goto no_memory;
        }
        bitmap_copy(target->stale, target->maybe_nonzero, block->pages);
    }
    return target;

no_memory:
    error_setg(errp, "not enough memory for the page bitmaps of RAM block '%s'", block->idstr);
    ram_target_free(target);
    return NULL;
}

void ram_target_free(RamTarget *target)
{
    if (target) {
        g_free(target->maybe_nonzero);
        g_free(target->stale);
        g_free(target);
    }
}

void ram_target_written(RamTarget *target, uint64_t first, uint64_t n)
{
    bitmap_set_atomic(target->maybe_nonzero, first, n);
    if (target->stale) {
        bitmap_test_and_clear_atomic(target->stale, first, n);
    }
}

/* Make a run of pages zero that may hold anything. */
static int clear_pages(RAMBlock *block, uint64_t first, uint64_t n, Error **errp)
{
    if (n >= DISCARD_MIN_PAGES) {
        return ram_block_discard_pages(block, first, n, errp);
    }
    for (uint64_t i = first; i < first + n; i++) {
        uint8_t *page = block->host + i * TARGET_PAGE_SIZE;

        /* Looking costs less than writing, and a file behind the page stays clean. */
        if (!buffer_is_zero(page, TARGET_PAGE_SIZE)) {
            memset(page, 0, TARGET_PAGE_SIZE);
        }
    }
    return 0;
}

/* Clear what is set in @map between @first and @end, memory and bits. */
static int clear_marked(RamTarget *target, unsigned long *map, uint64_t first, uint64_t end,
                        Error **errp)
{
    unsigned long at = first, n;

    while ((n = bitmap_next_run(map, end, at, &at))) {
        bitmap_test_and_clear_atomic(map, at, n);
        if (clear_pages(target->block, at, n, errp) < 0) {
            return -1;
        }
        at += n;
    }
    return 0;
}

int ram_target_zero(RamTarget *target, uint64_t first, uint64_t n, Error **errp)
{
    if (target->stale) {
        bitmap_test_and_clear_atomic(target->stale, first, n);
    }
    return clear_marked(target, target->maybe_nonzero, first, first + n, errp);
}

int ram_target_finish(RamTarget *target, Error **errp)
{
    if (!target->stale) {
        return 0;
    }
    return clear_marked(target, target->stale, 0, target->block->pages, errp);
}
