/*
 * Most pages are decided by their first word. To read that word costs next to nothing where the
 * page is mapped for the hardware, and a fault of a microsecond or more where that has yet to be
 * done: under a hypervisor that shadows page tables, the first access to each page of a mapping.
 * Nobody else needs that mapping when pages go out by reference or by O_DIRECT. So there are two
 * ways:
 *
 * - touching: read the pages where they are mapped;
 * - asking: let the kernel copy the first words of many pages, and all of those that may be zero,
 *   through its own mapping, with process_vm_readv() of our own process.
 *
 * Which of them is cheaper depends on the host and on whether the pages are mapped, and is
 * measured: the way that was cheaper a page is taken, and every now and then the other one, to see.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/zero-scan.h"

#include <glib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "system/ramblock.h"
#include "util/zero.h"

/* So many pages ahead memory is asked for the first word. */
#define PREFETCH_PAGES 8
/* Shorter runs are touched: a system call would not pay, and says nothing about longer ones. */
#define MEASURED_PAGES_MIN 32
/* One scan in so many takes the dearer way. */
#define PROBE_INTERVAL 64
/* Pages that are copied at once to be looked at; small enough to stay in the CPU's cache. */
#define COPY_PAGES 32

typedef enum Way { TOUCHING, ASKING, WAYS } Way;

struct ZeroScan {
    bool may_ask;
    unsigned scans;
    double ns_per_page[WAYS];           /* a moving average; 0: not known */
    uint64_t words[ZERO_SCAN_PAGES];
    struct iovec iov[ZERO_SCAN_PAGES];
    uint8_t copies[COPY_PAGES][TARGET_PAGE_SIZE];
};

ZeroScan *zero_scan_new(bool untouched)
{
    ZeroScan *scan = g_new0(ZeroScan, 1);

    scan->may_ask = untouched;
    return scan;
}

void zero_scan_free(ZeroScan *scan)
{
    g_free(scan);
}

bool zero_scan_touching(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero)
{
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *page = host + (size_t)i * TARGET_PAGE_SIZE;

        __builtin_prefetch(page + PREFETCH_PAGES * TARGET_PAGE_SIZE);
        zero[i] = buffer_is_zero(page, TARGET_PAGE_SIZE);
    }
    return true;
}

/* Copy @len bytes from the beginning of each of @n pages, which iov[] names, to @to. */
static bool copy_pages(ZeroScan *scan, void *to, unsigned n, size_t len)
{
    struct iovec local = { to, n * len };

    return process_vm_readv(getpid(), &local, 1, scan->iov, n, 0) == (ssize_t)(n * len);
}

/* Decide the pages @which[0..n), whose first words are zero. */
static bool look_at_copies(ZeroScan *scan, const uint8_t *host, const uint16_t *which, unsigned n,
                           bool *zero)
{
    for (unsigned i = 0; i < n; i++) {
        scan->iov[i] = (struct iovec) { (void *)(host + (size_t)which[i] * TARGET_PAGE_SIZE),
                                        TARGET_PAGE_SIZE };
    }
    if (n && !copy_pages(scan, scan->copies, n, TARGET_PAGE_SIZE)) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        zero[which[i]] = buffer_is_zero(scan->copies[i], TARGET_PAGE_SIZE);
    }
    return true;
}

bool zero_scan_asking(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero)
{
    uint16_t maybe[COPY_PAGES];
    unsigned n_maybe = 0;

    for (unsigned i = 0; i < n; i++) {
        scan->iov[i] = (struct iovec) { (void *)(host + (size_t)i * TARGET_PAGE_SIZE),
                                        sizeof(scan->words[0]) };
    }
    if (!copy_pages(scan, scan->words, n, sizeof(scan->words[0]))) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        zero[i] = false;
        if (!scan->words[i]) {
            maybe[n_maybe++] = i;
        }
        if (n_maybe == COPY_PAGES || (i == n - 1 && n_maybe)) {
            if (!look_at_copies(scan, host, maybe, n_maybe, zero)) {
                return false;
            }
            n_maybe = 0;
        }
    }
    return true;
}

static Way choose(ZeroScan *scan)
{
    for (Way way = 0; way < WAYS; way++) {
        if (!scan->ns_per_page[way]) {
            return way;
        }
    }
    Way cheaper = scan->ns_per_page[ASKING] < scan->ns_per_page[TOUCHING] ? ASKING : TOUCHING;
    return scan->scans++ % PROBE_INTERVAL ? cheaper : WAYS - 1 - cheaper;
}

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

void zero_scan(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero)
{
    g_assert(n <= ZERO_SCAN_PAGES);
    if (!scan->may_ask || n < MEASURED_PAGES_MIN) {
        zero_scan_touching(scan, host, n, zero);
        return;
    }
    Way way = choose(scan);
    uint64_t then = clock_ns();

    if (way == TOUCHING) {
        zero_scan_touching(scan, host, n, zero);
    } else if (!zero_scan_asking(scan, host, n, zero)) {
        /* Forbidden here. */
        scan->may_ask = false;
        zero_scan_touching(scan, host, n, zero);
        return;
    }
    double ns = (double)(clock_ns() - then + 1) / n, *average = &scan->ns_per_page[way];
    *average = *average ? *average + (ns - *average) / 4 : ns;
}
