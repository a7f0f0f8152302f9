/*
 * The pagemap dirty tracker: the kernel's page table remembers who wrote.
 *
 * Every block is registered with userfaultfd for asynchronous write protection: the first write to
 * a protected page takes the protection off inside the kernel, and nobody waits. PAGEMAP_SCAN then
 * reports the pages whose protection is off and puts it back on, page by page in one step, so that
 * every write is either before the step and reported, or after it and reported next time. It does
 * not matter who writes: this process, a vCPU of any accelerator, the kernel for a read().
 *
 * What must be protected is what exists. A page of private memory that does not exist has no
 * protection to lose; when a write creates it, it appears unprotected and is reported. A page that
 * only reads, of the shared zero page or of the file below a private mapping, is not written yet.
 * A shared mapping differs: the kernel may drop a file's page from the page table after a write,
 * for want of memory, and leave nothing. There protection stands also where no page is mapped (as a
 * marker), and a place without page and marker counts as written; holes of the file, which read as
 * zero, are left out, so sparse memory stays cheap.
 *
 * Writes to the file of a shared block through another mapping or by write() are not seen: Ferry's
 * own writers all use the block's mapping, and processes that share memory must report their
 * writes another way.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/dirty-tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "system/pagemap-scan.h"
#include "system/ram-internal.h"
#include "util/bitmap.h"

/* Newer than Debian 12's linux/userfaultfd.h. */
#define FEATURE_WP_HUGETLBFS_SHMEM (UINT64_C(1) << 12)
#define FEATURE_WP_UNPOPULATED     (UINT64_C(1) << 13)
#define FEATURE_WP_ASYNC           (UINT64_C(1) << 15)

#define REGIONS_PER_SCAN 4096

typedef struct PagemapTracker {
    DirtyTracker parent;
    int uffd;
    PagemapRegion regions[REGIONS_PER_SCAN];
} PagemapTracker;

static const struct {
    uint64_t bit;
    const char *name;
} needed_features[] = {
    { UFFD_FEATURE_PAGEFAULT_FLAG_WP, "PAGEFAULT_FLAG_WP" },
    { FEATURE_WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM" },
    { FEATURE_WP_UNPOPULATED, "WP_UNPOPULATED" },
    { FEATURE_WP_ASYNC, "WP_ASYNC" },
};

/* USER_MODE_ONLY needs no privilege; asynchronous protection covers the kernel's writes anyway. */
static int uffd_open(Error **errp)
{
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    if (fd < 0) {
        error_setg_errno(errp, errno, "Cannot track dirty pages: userfaultfd is not available");
    }
    return fd;
}

/*
 * Name what the kernel lacks. An API handshake can be made once, so this takes its own descriptor.
 */
static void report_missing_features(Error **errp)
{
    struct uffdio_api api = { .api = UFFD_API };
    g_autoptr(GString) missing = g_string_new(NULL);
    int fd = uffd_open(errp);

    if (fd < 0) {
        return;
    }
    if (ioctl(fd, UFFDIO_API, &api)) {
        api.features = 0;
    }
    close(fd);
    for (unsigned i = 0; i < G_N_ELEMENTS(needed_features); i++) {
        if (!(api.features & needed_features[i].bit)) {
            g_string_append_printf(missing, "%s%s", missing->len ? ", " : "",
                                   needed_features[i].name);
        }
    }
    error_setg(errp, "Cannot track dirty pages: the kernel's userfaultfd lacks %s (Linux 6.7 or "
               "newer has it)", missing->str);
}

static bool uffd_handshake(int fd, Error **errp)
{
    struct uffdio_api api = { .api = UFFD_API };

    for (unsigned i = 0; i < G_N_ELEMENTS(needed_features); i++) {
        api.features |= needed_features[i].bit;
    }
    if (ioctl(fd, UFFDIO_API, &api)) {
        report_missing_features(errp);
        return false;
    }
    return true;
}

/*
 * Protect and report [from, to), offsets in the block. @bitmap may be NULL. Returns the number of
 * bits newly set, or -1.
 */
static int64_t collect_range(PagemapTracker *tracker, const RAMBlock *block,
                             const PagemapQuery *query, uint64_t from, uint64_t to,
                             unsigned long *bitmap, Error **errp)
{
    uint64_t at = (uintptr_t)block->host + from, end = (uintptr_t)block->host + to;
    int64_t found = 0;

    while (at < end) {
        int n = pagemap_scan(query, &at, end, tracker->regions, REGIONS_PER_SCAN);

        if (n == -ENOTTY) {
            error_setg(errp,
                       "Cannot track dirty pages: the kernel lacks PAGEMAP_SCAN (Linux 6.7 or "
                       "newer has it)");
            return -1;
        }
        if (n < 0) {
            error_setg_errno(errp, -n, "Cannot read which pages of RAM block '%s' were written",
                             block->idstr);
            return -1;
        }
        for (int i = 0; bitmap && i < n; i++) {
            const PagemapRegion *region = &tracker->regions[i];
            uint64_t first = (region->start - (uintptr_t)block->host) >> TARGET_PAGE_BITS;
            uint64_t pages = (region->end - region->start) >> TARGET_PAGE_BITS;

            pages = MIN(pages, block->pages - first);
            found += pages - bitmap_count_one_with_offset(bitmap, first, pages);
            bitmap_set(bitmap, first, pages);
        }
    }
    return found;
}

static int64_t collect_block(PagemapTracker *tracker, const RAMBlock *block, unsigned long *bitmap,
                             Error **errp)
{
    PagemapQuery query = {
        .flags = PM_SCAN_PROTECT_MATCHING | PM_SCAN_CHECK_ASYNC,
        .all_of = PM_WRITTEN,
        .return_mask = PM_WRITTEN,
    };
    int64_t found = 0, n;

    if (block->shared && block->page_size == TARGET_PAGE_SIZE) {
        FileIter iter = file_iter_init(block, 0, block->used_length);
        Extent extent = file_iter_next(&iter);

        for (; extent.start < extent.end; extent = file_iter_next(&iter)) {
            n = collect_range(tracker, block, &query, extent.start, extent.end, bitmap, errp);
            if (n < 0) {
                return -1;
            }
            found += n;
        }
        return found;
    }
    query.any_of = PM_PRESENT | PM_SWAPPED;
    query.none_of = PM_PFNZERO | (block->fd >= 0 && !block->shared ? PM_FILE : 0);
    return collect_range(tracker, block, &query, 0, ram_block_full(block)->map_bytes, bitmap, errp);
}

static bool watch_block(PagemapTracker *tracker, const RAMBlock *block, Error **errp)
{
    struct uffdio_register request = {
        .range = { (uintptr_t)block->host, ram_block_full(block)->map_bytes },
        .mode = UFFDIO_REGISTER_MODE_WP,
    };

    if (ioctl(tracker->uffd, UFFDIO_REGISTER, &request)) {
        error_setg_errno(errp, errno, "Cannot watch RAM block '%s' with userfaultfd", block->idstr);
        return false;
    }
    return collect_block(tracker, block, NULL, errp) >= 0;
}

static void pagemap_stop(DirtyTracker *parent)
{
    PagemapTracker *tracker = (PagemapTracker *)parent;

    RAMBLOCK_FOREACH(block) {
        struct uffdio_range range = { (uintptr_t)block->host, ram_block_full(block)->map_bytes };

        /* A block that start did not come to is not registered: the request does nothing. */
        ioctl(tracker->uffd, UFFDIO_UNREGISTER, &range);
    }
    close(tracker->uffd);
    g_free(tracker);
}

static DirtyTracker *pagemap_start(Error **errp)
{
    PagemapTracker *tracker = g_new0(PagemapTracker, 1);

    tracker->uffd = uffd_open(errp);
    if (tracker->uffd < 0) {
        g_free(tracker);
        return NULL;
    }
    if (!uffd_handshake(tracker->uffd, errp)) {
        pagemap_stop(&tracker->parent);
        return NULL;
    }
    RAMBLOCK_FOREACH(block) {
        if (!block->readonly && !watch_block(tracker, block, errp)) {
            pagemap_stop(&tracker->parent);
            return NULL;
        }
    }
    return &tracker->parent;
}

static int64_t pagemap_sync(DirtyTracker *parent, RAMBlock *block, unsigned long *bitmap,
                            Error **errp)
{
    if (block->readonly) {
        return 0;
    }
    return collect_block((PagemapTracker *)parent, block, bitmap, errp);
}

const DirtyTrackerClass dirty_tracker_pagemap = {
    .name = "pagemap",
    .start = pagemap_start,
    .sync = pagemap_sync,
    .stop = pagemap_stop,
};
