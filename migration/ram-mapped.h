/*
 * direct-mapped: RAM in a file, every page at an offset of its own. QEMU's mapped-ram layout.
 *
 * In the MEM_SIZE record of the RAM section each block's entry is followed by (integers big-endian,
 * packed; offsets are absolute in the file):
 *
 *     at                  bytes   what
 *     A                   4       version, 1
 *     A + 4               8       page size, 4096
 *     A + 12              8       bitmap offset
 *     A + 20              8       pages offset
 *     bitmap offset       ...     one bit a page, 64-bit little-endian words: set if the page is in
 *                                 the file, clear if it is zero. Right after the header: A + 28
 *     pages offset        ...     the used length of the block; page n at n * 4096. The first
 *                                 multiple of 1 MiB at or after the bitmap's end
 *
 * The next block's entry stands at pages offset + used length, and so does what follows the last.
 * docs/interop/direct-mapped.md draws it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RAM_MAPPED_H
#define MIGRATION_RAM_MAPPED_H

#include "migration/multifd.h"
#include "migration/ram-load.h"
#include "migration/ram.h"

#define MAPPED_HEADER_VERSION 1
#define MAPPED_HEADER_BYTES 28
#define MAPPED_PAGES_ALIGN (1024 * 1024)

typedef struct MappedHeader {
    uint32_t version;
    uint64_t page_size;
    uint64_t bitmap_offset;
    uint64_t pages_offset;
} MappedHeader;

/* One block in the file. */
typedef struct MappedBlock {
    RAMBlock *block;
    RamTarget *target;          /* loading; NULL for a block that is left out */
    uint64_t bitmap_offset, pages_offset;
    unsigned long *bitmap;      /* pages that are in the file */
} MappedBlock;

/* With its bitmap. */
void mapped_block_free(MappedBlock *mb);

/*
 * The threads (or, without multifd, the thread) that transfer pages: opens channels, with O_DIRECT
 * if bypass-cache says so. @opaque goes to the ops.
 */
MultifdPool *mapped_pool_new(MigrationContext *ctx, const MultifdOps *ops, void *opaque,
                             Error **errp);
/*
 * Hand out a run. Each channel has its own regions of every block, so that a page always goes
 * through the same one.
 */
int mapped_pool_submit(MultifdPool *pool, MappedBlock *mb, uint64_t first, uint64_t n,
                       Error **errp);

/* NULL with @errp set when the main channel of @ctx has no offsets. Opens nothing yet. */
RamSink *ram_mapped_sink_new(MigrationContext *ctx, Error **errp);
RamSource *ram_mapped_source_new(MigrationContext *ctx, Error **errp);

#endif
