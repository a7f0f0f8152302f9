/*
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Faulting file-backed guest memory in, many pages a call, before it is read page by page.
 */
#ifndef MIGRATION_RAM_PREFAULT_H
#define MIGRATION_RAM_PREFAULT_H

#include "system/ramblock.h"

typedef struct RamPrefault RamPrefault;

/*
 * Begin to map every page of @blocks (RAMBlock, the array is referenced) that its file holds in the
 * page cache, in a thread of its own, from the first block's beginning on. Memory without a file is
 * left alone, and so is what is not in the page cache: nothing waits for a disk. Only a matter of
 * speed: it cannot fail, and nobody need wait for it. NULL when there is nothing to do.
 */
RamPrefault *ram_prefault_start(GPtrArray *blocks);
/* Stop, if it is not done yet, and free. NULL is allowed. */
void ram_prefault_stop(RamPrefault *prefault);

#endif
