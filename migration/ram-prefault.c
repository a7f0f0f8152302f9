/*
 * A block over a file (or memfd) may hold much that this process has not mapped: nobody read it
 * here yet. Reading it would fault once a page, and where a dirty tracker write-protects the
 * mapping the kernel does not even fault neighbours in at once. One madvise() for a stretch does
 * the same for a half to a quarter of the CPU time, and does it in a thread that goes ahead of the
 * one that reads. What is mapped already is left alone: madvise() would look at each of its pages,
 * one scan of the page table finds none to do.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram-prefault.h"

#include <sys/mman.h>

#include "system/pagemap-scan.h"
#include "util/thread.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Parts of a stretch that are not mapped, as many as are asked for at once. */
#define PARTS_MAX 64
#define STRETCH_PAGES ((8 * 1024 * 1024) / TARGET_PAGE_SIZE)

struct RamPrefault {
    GPtrArray *blocks;
    GThread *thread;
    int stop;                   /* atomic */
};

/* Populate what of @n pages at @host is in the page cache; n <= STRETCH_PAGES. */
static bool prefault_cached(uint8_t *host, uint64_t n)
{
    unsigned char resident[STRETCH_PAGES];

    if (mincore(host, n * TARGET_PAGE_SIZE, resident)) {
        return false;
    }
    for (uint64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && (resident[end] & 1) == (resident[i] & 1); end++) {
        }
        if ((resident[i] & 1) && madvise(host + i * TARGET_PAGE_SIZE,
                                         (end - i) * TARGET_PAGE_SIZE, MADV_POPULATE_READ)) {
            return false;
        }
    }
    return true;
}

/* Populate what of [first, first + n) is in the page cache and not mapped. */
static bool prefault_stretch(const RAMBlock *block, uint64_t first, uint64_t n)
{
    const PagemapQuery unmapped = { .none_of = PM_PRESENT };
    uint64_t at = (uintptr_t)block->host + first * TARGET_PAGE_SIZE;
    uint64_t end = at + n * TARGET_PAGE_SIZE;
    PagemapRegion parts[PARTS_MAX];

    while (at < end) {
        uint64_t from = at;
        int found = pagemap_scan(&unmapped, &at, end, parts, PARTS_MAX);

        if (found < 0) {
            parts[0] = (PagemapRegion){ .start = from, .end = end };
            at = end;
            found = 1;
        }
        for (int i = 0; i < found; i++) {
            if (!prefault_cached((uint8_t *)(uintptr_t)parts[i].start,
                                 (parts[i].end - parts[i].start) / TARGET_PAGE_SIZE)) {
                return false;
            }
        }
    }
    return true;
}

static void prefault_block(RamPrefault *prefault, const RAMBlock *block)
{
    uint64_t at = 0, n;

    if (block->fd < 0) {
        return;
    }
    while ((at = ram_block_populated_run(block, at, block->pages, &n)) < block->pages) {
        uint64_t end = at + n;

        for (; at < end; at += n) {
            n = MIN(end - at, STRETCH_PAGES);
            if (g_atomic_int_get(&prefault->stop) || !prefault_stretch(block, at, n)) {
                return;
            }
        }
    }
}

static gpointer prefault_thread(gpointer opaque)
{
    RamPrefault *prefault = opaque;

    for (guint i = 0; i < prefault->blocks->len; i++) {
        prefault_block(prefault, g_ptr_array_index(prefault->blocks, i));
    }
    return NULL;
}

RamPrefault *ram_prefault_start(GPtrArray *blocks)
{
    RamPrefault *prefault;
    bool any = false;

    for (guint i = 0; i < blocks->len; i++) {
        any |= ((RAMBlock *)g_ptr_array_index(blocks, i))->fd >= 0;
    }
    if (!any) {
        return NULL;
    }
    prefault = g_new0(RamPrefault, 1);
    prefault->blocks = g_ptr_array_ref(blocks);
    /* Help that can be done without. */
    prefault->thread = thread_try_new("mig/prefault", prefault_thread, prefault, NULL);
    return prefault;
}

void ram_prefault_stop(RamPrefault *prefault)
{
    if (prefault) {
        g_atomic_int_set(&prefault->stop, 1);
        if (prefault->thread) {
            g_thread_join(prefault->thread);
        }
        g_ptr_array_unref(prefault->blocks);
        g_free(prefault);
    }
}
