/*
 * Which pages of a RAMBlock hold anything, and giving pages back.
 *
 * Two sources know. The page table knows what this process touched (present or swapped out, and not
 * the shared page of zeroes): all there is to know of private anonymous memory. The file knows what
 * is in a shared mapping, whoever wrote it: its holes read as zero. A private mapping of a file is
 * both together: what the file holds, and what was written over it here. Each source is an iterator
 * over ascending extents; a run is what the merge of both gives.
 *
 * The page table answers ten times faster than a file, which looks at every page it has. So what is
 * mapped counts as populated, and a file is only asked about what is not.
 *
 * A swap entry in the page table may be a userfaultfd marker with no page behind it. mincore()
 * tells it from a page that is just being migrated; where there is swap space, entries count as
 * data.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/ramblock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "system/pagemap-scan.h"
#include "system/ram-internal.h"
#include "util/bitmap.h"

#define REGIONS_MAX 1024
#define RESIDENT_BATCH_PAGES 4096

typedef struct PteIter {
    uintptr_t host;
    uint64_t at, end;           /* addresses not asked for yet */
    uint64_t none_of;
    unsigned batch;
    unsigned n, next;           /* regions that were answered, the next to look at */
    bool swap_space;
    PagemapRegion regions[REGIONS_MAX];
} PteIter;

typedef struct PopulatedIter {
    bool use_file;
    uint64_t at, end;           /* everything before is in a run, or is not populated */
    Extent ptes, file;          /* the next extent of each, as far as it was asked for */
    PteIter pte_iter;
    FileIter file_iter;
} PopulatedIter;

/* The first stretch of resident pages in [start, end); an empty one when there is none. */
static Extent resident_extent(uint64_t start, uint64_t end)
{
    unsigned char resident[RESIDENT_BATCH_PAGES];
    size_t page = sysconf(_SC_PAGESIZE);
    Extent found = { end, end };
    bool inside = false;

    while (start < end) {
        uint64_t bytes = MIN(end - start, RESIDENT_BATCH_PAGES * page);

        if (mincore((void *)(uintptr_t)start, bytes, resident)) {
            return (Extent){ inside ? found.start : start, end };
        }
        for (uint64_t i = 0; i < bytes / page; i++) {
            bool yes = resident[i] & 1;

            if (yes && !inside) {
                found.start = start + i * page;
                inside = true;
            } else if (!yes && inside) {
                found.end = start + i * page;
                return found;
            }
        }
        start += bytes;
    }
    return found;
}

static bool host_has_swap(void)
{
    struct sysinfo info;

    return sysinfo(&info) || info.totalswap > 0;
}

/* Ask for the next batch; false at the end. Without an answer everything left is one region. */
static bool pte_iter_fill(PteIter *iter)
{
    const PagemapQuery query = {
        .none_of = iter->none_of,
        .any_of = PM_PRESENT | PM_SWAPPED,
        .return_mask = PM_SWAPPED,
    };

    iter->next = 0;
    iter->n = 0;
    while (iter->n == 0 && iter->at < iter->end) {
        int n = pagemap_scan(&query, &iter->at, iter->end, iter->regions, iter->batch);

        if (n < 0) {
            iter->regions[0] = (PagemapRegion){ .start = iter->at, .end = iter->end };
            iter->at = iter->end;
            n = 1;
        }
        iter->n = n;
    }
    return iter->n > 0;
}

static Extent pte_iter_next(PteIter *iter)
{
    for (;;) {
        PagemapRegion *region;
        Extent extent;

        if (iter->next == iter->n && !pte_iter_fill(iter)) {
            return (Extent){ 0, 0 };
        }
        region = &iter->regions[iter->next];
        extent = (Extent){ region->start, region->end };
        if ((region->categories & PM_SWAPPED) && !iter->swap_space) {
            extent = resident_extent(region->start, region->end);
        }
        region->start = extent.end;
        if (region->start >= region->end) {
            iter->next++;
        }
        if (extent.start < extent.end) {
            return (Extent){ extent.start - iter->host, extent.end - iter->host };
        }
    }
}

FileIter file_iter_init(const RAMBlock *block, uint64_t from, uint64_t to)
{
    return (FileIter){ block->fd, block->fd_offset, from, to };
}

Extent file_iter_next(FileIter *iter)
{
    off_t data, hole;
    Extent extent;

    if (iter->at >= iter->end) {
        return (Extent){ 0, 0 };
    }
    data = lseek(iter->fd, iter->fd_offset + iter->at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
        iter->at = iter->end;
        return (Extent){ 0, 0 };
    }
    hole = data < 0 ? -1 : lseek(iter->fd, data, SEEK_HOLE);
    if (hole < 0) {
        extent = (Extent){ iter->at, iter->end };       /* it cannot say: all of it */
    } else {
        extent.start = (data - iter->fd_offset) & TARGET_PAGE_MASK;
        extent.end = ROUND_UP_TO(hole - iter->fd_offset, TARGET_PAGE_SIZE);
        extent.start = MAX(extent.start, iter->at);
        extent.end = MIN(extent.end, iter->end);
    }
    if (extent.start >= iter->end) {
        iter->at = iter->end;
        return (Extent){ 0, 0 };
    }
    iter->at = extent.end;
    return extent;
}

/* A private mapping of a file of our own: what is written stays out of it, so it reads as zero. */
static bool file_is_blank(const RAMBlock *block)
{
    return ram_block_full(block)->fd_private && !block->shared;
}

/*
 * Which sources to ask. Huge pages of a file that others can write cannot be told (hugetlbfs knows
 * no holes): the whole block is one extent then.
 */
static void populated_iter_init(PopulatedIter *iter, const RAMBlock *block, uint64_t first,
                                uint64_t end, unsigned batch)
{
    const RAMBlockFull *full = ram_block_full(block);
    bool huge = block->page_size > TARGET_PAGE_SIZE;
    PteIter *ptes = &iter->pte_iter;
    uint64_t from = first << TARGET_PAGE_BITS, to = end << TARGET_PAGE_BITS;

    iter->at = from;
    iter->end = to;
    iter->ptes = iter->file = (Extent){ 0, 0 };
    iter->use_file = block->fd >= 0 && !huge && !file_is_blank(block);
    if (huge && block->fd >= 0 && !full->fd_private) {
        iter->file = (Extent){ from, to };
        return;
    }
    ptes->host = (uintptr_t)block->host;
    ptes->at = ptes->host + from;
    ptes->end = ptes->host + to;
    ptes->none_of = PM_PFNZERO | (block->fd >= 0 && !block->shared ? PM_FILE : 0);
    ptes->batch = batch;
    ptes->n = ptes->next = 0;
    ptes->swap_space = host_has_swap();
    iter->ptes = pte_iter_next(ptes);
    if (iter->use_file) {
        iter->file_iter = file_iter_init(block, from, to);
    }
}

static bool extent_is(const Extent *extent)
{
    return extent->start < extent->end;
}

/* Have iter->file be what the file holds next, from @at on. */
static void look_at_file(PopulatedIter *iter, uint64_t at)
{
    if (iter->use_file && iter->file.end <= at) {
        iter->file_iter.at = MAX(iter->file_iter.at, at);
        iter->file = file_iter_next(&iter->file_iter);
    }
}

static bool touches(const Extent *extent, uint64_t at)
{
    return extent_is(extent) && extent->start <= at && extent->end > at;
}

/* Add what follows @run without a gap; false when nothing does. */
static bool run_grow(PopulatedIter *iter, Extent *run)
{
    if (run->end >= iter->end) {
        return false;
    }
    if (touches(&iter->ptes, run->end)) {
        run->end = iter->ptes.end;
    } else {
        look_at_file(iter, run->end);
        if (!touches(&iter->file, run->end)) {
            return false;
        }
        run->end = iter->file.end;
    }
    while (extent_is(&iter->ptes) && iter->ptes.end <= run->end) {
        iter->ptes = pte_iter_next(&iter->pte_iter);
    }
    return true;
}

static bool populated_iter_next(PopulatedIter *iter, Extent *run)
{
    uint64_t begin = extent_is(&iter->ptes) ? iter->ptes.start : iter->end;

    if (iter->at < begin) {
        look_at_file(iter, iter->at);
        if (extent_is(&iter->file) && iter->file.end > iter->at) {
            begin = MIN(begin, iter->file.start);
        }
    }
    run->start = run->end = begin;
    while (run_grow(iter, run)) {
    }
    iter->at = run->end;
    return run->start < run->end;
}

uint64_t ram_block_populated_run(const RAMBlock *block, uint64_t first, uint64_t end,
                                 uint64_t *run_pages)
{
    PopulatedIter iter;
    Extent run;

    g_assert(end <= block->pages);
    *run_pages = 0;
    if (first >= end) {
        return end;
    }
    /* Two regions: the run, and the one behind it that shows where the run ends. */
    populated_iter_init(&iter, block, first, end, 2);
    if (!populated_iter_next(&iter, &run)) {
        return end;
    }
    *run_pages = (run.end - run.start) >> TARGET_PAGE_BITS;
    return run.start >> TARGET_PAGE_BITS;
}

uint64_t ram_block_populated_bitmap(const RAMBlock *block, uint64_t first, uint64_t end,
                                    unsigned long *bitmap)
{
    PopulatedIter iter;
    Extent run;
    uint64_t found = 0;

    g_assert(end <= block->pages);
    if (first >= end) {
        return 0;
    }
    populated_iter_init(&iter, block, first, end, REGIONS_MAX);
    while (populated_iter_next(&iter, &run)) {
        uint64_t pages = (run.end - run.start) >> TARGET_PAGE_BITS;

        bitmap_set(bitmap, run.start >> TARGET_PAGE_BITS, pages);
        found += pages;
    }
    return found;
}

/* Drop whole host pages [from, to); false when the host cannot. */
static bool drop_range(RAMBlock *block, uint64_t from, uint64_t to)
{
    if (block->fd >= 0 && block->shared) {
        return !fallocate(block->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                          block->fd_offset + from, to - from);
    }
    return !madvise(block->host + from, to - from, MADV_DONTNEED);
}

/* After dropping private pages of a file its own contents show: write zeroes over them. */
static void cover_file_data(RAMBlock *block, uint64_t from, uint64_t to)
{
    FileIter iter = file_iter_init(block, from, to);
    Extent extent;

    for (extent = file_iter_next(&iter); extent_is(&extent); extent = file_iter_next(&iter)) {
        memset(block->host + extent.start, 0, extent.end - extent.start);
    }
}

/* Write zeroes by hand, and only where there is something: the rest must not come to life. */
static void zero_range(RAMBlock *block, uint64_t from, uint64_t to)
{
    uint64_t first = from >> TARGET_PAGE_BITS, end = to >> TARGET_PAGE_BITS, run;

    while ((first = ram_block_populated_run(block, first, end, &run)) < end) {
        memset(block->host + (first << TARGET_PAGE_BITS), 0, run << TARGET_PAGE_BITS);
        first += run;
    }
}

int ram_block_discard_pages(RAMBlock *block, uint64_t first, uint64_t n, Error **errp)
{
    uint64_t from = first << TARGET_PAGE_BITS;
    uint64_t to = (first + n) << TARGET_PAGE_BITS;
    uint64_t whole_from = ROUND_UP_TO(from, block->page_size);
    uint64_t whole_to = to & ~((uint64_t)block->page_size - 1);

    g_assert(first <= block->pages && n <= block->pages - first);
    if (block->readonly) {
        error_setg(errp, "Cannot discard pages of RAM block '%s': it is read-only", block->idstr);
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    if (whole_from < whole_to && drop_range(block, whole_from, whole_to)) {
        if (block->fd >= 0 && !block->shared && !file_is_blank(block)) {
            cover_file_data(block, whole_from, whole_to);
        }
        zero_range(block, from, whole_from);
        zero_range(block, whole_to, to);
    } else {
        zero_range(block, from, to);
    }
    ram_block_mark_dirty(block, from, to - from);
    return 0;
}
