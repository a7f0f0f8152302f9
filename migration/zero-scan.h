/*
 * ZeroScan: which pages of a run are zero, for those who send the others without reading them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_ZERO_SCAN_H
#define MIGRATION_ZERO_SCAN_H

#include <stdbool.h>
#include <stdint.h>

/* Most pages that are looked at in one call. */
#define ZERO_SCAN_PAGES 256

typedef struct ZeroScan ZeroScan;

/*
 * zero_scan_new:
 * @untouched: nothing else that this process does will read the pages through its own mapping: the
 * kernel
 *     takes them by reference. Then the scan avoids that as well where it is dear.
 *
 * One thread uses it.
 */
ZeroScan *zero_scan_new(bool untouched);
void zero_scan_free(ZeroScan *scan);

/*
 * Look at @n pages of TARGET_PAGE_SIZE bytes from @host on, at most ZERO_SCAN_PAGES: zero[i]
 * becomes whether page i is all zero bytes. As with buffer_is_zero() they may be written meanwhile.
 */
void zero_scan(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero);

/* One way of two, for tests: false when this process may not do it like that. */
bool zero_scan_touching(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero);
bool zero_scan_asking(ZeroScan *scan, const uint8_t *host, unsigned n, bool *zero);

#endif
