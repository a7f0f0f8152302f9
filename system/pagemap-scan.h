/*
 * The kernel's PAGEMAP_SCAN request (Linux 6.7, linux/fs.h) on this process's own page table.
 *
 * The request's structures are declared here, because the headers that Debian 12 installs do not
 * have them yet. All functions may be called from any thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_PAGEMAP_SCAN_H
#define SYSTEM_PAGEMAP_SCAN_H

#include <glib.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Categories of a page. */
#define PM_WPALLOWED (1u << 0)      /* userfaultfd write protection can be used on it */
#define PM_WRITTEN   (1u << 1)      /* not write-protected by userfaultfd */
#define PM_FILE      (1u << 2)      /* a file's page, not an anonymous one */
#define PM_PRESENT   (1u << 3)
#define PM_SWAPPED   (1u << 4)      /* in swap, or migrating, or a marker with no page behind it */
#define PM_PFNZERO   (1u << 5)      /* the shared page of zeroes */

/* Flags of a scan. */
#define PM_SCAN_PROTECT_MATCHING (1u << 0)  /* write-protect what matches, in the same step */
#define PM_SCAN_CHECK_ASYNC      (1u << 1)  /* fail unless protection is asynchronous */

typedef struct PagemapRegion {
    uint64_t start, end;        /* addresses */
    uint64_t categories;
} PagemapRegion;

typedef struct PagemapScanArg {
    uint64_t size;
    uint64_t flags;
    uint64_t start, end;
    uint64_t walk_end;
    uint64_t vec, vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
} PagemapScanArg;

#define PAGEMAP_SCAN_REQUEST _IOWR('f', 16, PagemapScanArg)

/* Which pages a scan reports. */
typedef struct PagemapQuery {
    uint64_t flags;
    uint64_t all_of;            /* a page must have all of these */
    uint64_t none_of;           /* and none of these */
    uint64_t any_of;            /* and one of these, unless 0 */
    uint64_t return_mask;       /* what to say of them */
} PagemapQuery;

/*
 * pagemap_scan:
 * @start: address to begin at, page aligned; set to where the scan ended
 * @end: address to stop before
 * @regions: @n_regions of them, filled in ascending order; neighbours may touch
 *
 * One request to the kernel. The scan ends early when @regions is full: go on from *@start.
 *
 * Returns: the number of regions filled in, or a negative errno; -ENOTTY when the kernel has no
 * such request.
 */
int pagemap_scan(const PagemapQuery *query, uint64_t *start, uint64_t end, PagemapRegion *regions,
                 unsigned n_regions);

#endif
