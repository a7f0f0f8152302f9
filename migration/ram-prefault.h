/*
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Faulting file-backed guest memory in, many pages a call, before it is read page by page.
 */
#ifndef MIGRATION_RAM_PREFAULT_H
#define MIGRATION_RAM_PREFAULT_H

#include <stdbool.h>
#include "system/ramblock.h"

/*
 * Map every page of @block that its file holds in the page cache. Does nothing for memory without a
 * file, and leaves what is not in the page cache alone, so that nothing waits for a disk. Stops when
 * @cancelled(@opaque) says so. Only a matter of speed: it cannot fail.
 */
void ram_prefault(const RAMBlock *block, bool (*cancelled)(void *opaque), void *opaque);

#endif
