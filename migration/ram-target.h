/*
 * RamTarget: what loading knows about the memory that it fills, one per RAMBlock.
 *
 * A page that nobody touched is zero and must stay untouched; a page that was touched (by whoever
 * prepared the machine, or by an earlier pass of the stream) must become zero when the source says
 * so, or when the source never names it. The target remembers which is which, so that neither takes
 * a look at memory that need not be there.
 *
 * Two threads may work on one target at a time, on different pages.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RAM_TARGET_H
#define MIGRATION_RAM_TARGET_H

#include "system/ramblock.h"

typedef struct RamTarget {
    RAMBlock *block;
    bool was_populated;             /* some pages existed before anything was loaded */
    unsigned long *maybe_nonzero;   /* atomic: pages that may hold data now */
    unsigned long *named;           /* atomic: pages that the source has named */
} RamTarget;

/* Asks the kernel which pages are populated. NULL with @errp set when memory is short. */
RamTarget *ram_target_new(RAMBlock *block, Error **errp);
void ram_target_free(RamTarget *target);

/* Pages [first, first + n) are being given their contents. */
void ram_target_written(RamTarget *target, uint64_t first, uint64_t n);
/*
 * Pages [first, first + n), none of them named yet, were filled with something else; they count as
 * not named still.
 */
void ram_target_spoiled(RamTarget *target, uint64_t first, uint64_t n);
/* Pages [first, first + n) are zero at the source: make them so. */
int ram_target_zero(RamTarget *target, uint64_t first, uint64_t n, Error **errp);
/* Everything was loaded: what the source never named becomes zero. */
int ram_target_finish(RamTarget *target, Error **errp);

#endif
