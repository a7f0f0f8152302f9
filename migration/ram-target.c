/*
 * Two bitmaps a block. maybe_nonzero begins as the kernel's idea of populated pages and gains every
 * page that is loaded: a zero page outside it costs one bit test and no memory access. named gains
 * every page that the source names; what may not be zero at the end and was not named is memory
 * that the source never touched, and is cleared.
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

    target->block = block;
    target->maybe_nonzero = bitmap_try_new(block->pages);
    target->named = bitmap_try_new(block->pages);
    if (!target->maybe_nonzero || !target->named) {
        error_setg(errp, "not enough memory for the page bitmaps of RAM block '%s'", block->idstr);
        ram_target_free(target);
        return NULL;
    }
    while ((at = ram_block_populated_run(block, at, block->pages, &n)) < block->pages) {
        bitmap_set(target->maybe_nonzero, at, n);
        target->was_populated = true;
        at += n;
    }
    return target;
}

void ram_target_free(RamTarget *target)
{
    if (target) {
        g_free(target->maybe_nonzero);
        g_free(target->named);
        g_free(target);
    }
}

void ram_target_written(RamTarget *target, uint64_t first, uint64_t n)
{
    bitmap_set_atomic(target->maybe_nonzero, first, n);
    bitmap_set_atomic(target->named, first, n);
}

void ram_target_spoiled(RamTarget *target, uint64_t first, uint64_t n)
{
    bitmap_set_atomic(target->maybe_nonzero, first, n);
}

/* Make a run of pages zero that may hold anything. */
static int clear_pages(RAMBlock *block, uint64_t first, uint64_t n, bool discard, Error **errp)
{
    if (discard || n >= DISCARD_MIN_PAGES) {
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

/*
 * Length of the run of pages at @page, before @end, whose bits are all as @set says; looked up
 * beside threads that change other bits.
 */
static uint64_t run_at(const unsigned long *map, uint64_t page, uint64_t end, bool set)
{
    uint64_t at = page;

    while (at < end) {
        unsigned long word = __atomic_load_n(&map[BIT_WORD(at)], __ATOMIC_ACQUIRE);
        unsigned long other = (set ? ~word : word) >> (at % BITS_PER_LONG);

        if (other) {
            at += __builtin_ctzl(other);
            break;
        }
        at += BITS_PER_LONG - at % BITS_PER_LONG;
    }
    return MIN(at, end) - page;
}

/* Clear the pages between @first and @end that may not be zero, memory and bits. */
static int clear_marked(RamTarget *target, uint64_t first, uint64_t end, bool discard,
                        Error **errp)
{
    unsigned long *map = target->maybe_nonzero;

    for (uint64_t at = first, n; at < end; at += n) {
        at += run_at(map, at, end, false);
        n = run_at(map, at, end, true);
        if (n) {
            bitmap_test_and_clear_atomic(map, at, n);
            if (clear_pages(target->block, at, n, discard, errp) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

int ram_target_zero(RamTarget *target, uint64_t first, uint64_t n, Error **errp)
{
    bitmap_set_atomic(target->named, first, n);
    return clear_marked(target, first, first + n, false, errp);
}

int ram_target_finish(RamTarget *target, Error **errp)
{
    uint64_t pages = target->block->pages;

    if (!bitmap_andnot(target->maybe_nonzero, target->maybe_nonzero, target->named, pages)) {
        return 0;
    }
    /* What did not exist before need not exist now; preallocated memory stays allocated. */
    return clear_marked(target, 0, pages, !target->was_populated, errp);
}
