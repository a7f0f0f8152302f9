/*
 * What the files of the RAM layer share: a RAMBlock with what only they need to know of it.
 *
 * ramblock.c keeps the list and the dirty marks, ram-backing.c makes and removes mappings,
 * ram-populated.c asks the kernel what was touched and gives memory back.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_RAM_INTERNAL_H
#define SYSTEM_RAM_INTERNAL_H

#include "system/ramblock.h"

typedef struct RAMBlockFull {
    RAMBlock block;             /* first: a RAMBlock pointer is a RAMBlockFull pointer */
    RAMBackingKind kind;
    void *reserved;             /* address space held for it, alignment and guard page included */
    size_t reserved_bytes;
    size_t map_bytes;           /* mapped at block.host: used_length, rounded to the host page */
    bool fd_private;            /* nobody else can reach the file: memfd, or unlinked at once */
    unsigned long *dirty_store; /* what process_dirty points to while logging is on */
} RAMBlockFull;

/* @n rounded up to a multiple of @to, a power of two. */
#define ROUND_UP_TO(n, to) (((n) + (uint64_t)(to) - 1) & ~((uint64_t)(to) - 1))

/* What the RAM layer knows beside the public part. */
static inline RAMBlockFull *ram_block_full(const RAMBlock *block)
{
    return (RAMBlockFull *)block;
}

/*
 * Open the file of @backing, map @size bytes of it, advise and preallocate. Fills in host, fd,
 * fd_offset, shared, readonly, page_size and everything private; idstr and used_length are set
 * already. On failure nothing is left behind (a file that was created for it is removed).
 */
bool ram_backing_map(RAMBlockFull *full, const RAMBacking *backing, Error **errp);
void ram_backing_unmap(RAMBlockFull *full);

/* A range of bytes of a block; start == end: none. */
typedef struct Extent {
    uint64_t start, end;
} Extent;

/*
 * Where the file behind a block holds data, in ascending order, widened to whole pages. When the
 * kernel cannot say, all that is left is one extent. Begin with file_iter_init() (@from, @to:
 * offsets in the block, page aligned); file_iter_next() gives an empty extent at the end.
 */
typedef struct FileIter {
    int fd;
    uint64_t fd_offset;
    uint64_t at, end;           /* offsets in the block not asked for yet */
} FileIter;

/*
 * The parts of [@from, @to), bytes of @block, that its file holds data in, one after the other;
 * an empty one ends it.
 */
FileIter file_iter_init(const RAMBlock *block, uint64_t from, uint64_t to);
Extent file_iter_next(FileIter *iter);

/*
 * Dirty marks on (a zeroed process_dirty for every block; fails when memory is short) and off.
 * Called by dirty-tracker.c, not beside itself.
 */
bool ram_dirty_marks_on(Error **errp);
void ram_dirty_marks_off(void);

#endif
