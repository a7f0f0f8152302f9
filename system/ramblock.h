/*
 * RAMBlocks: guest memory as the host sees it.
 *
 * A RAMBlock is one host mapping with a name that is the same on both sides of a migration. Where
 * it appears in the guest's physical address space is the business of system/memory.h. Blocks are
 * created and destroyed under the big lock while no migration runs; between these moments the
 * list and every field but the contents are constant, so any thread may read them.
 *
 * Unit of everything that follows pages: the target page, TARGET_PAGE_SIZE bytes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_RAMBLOCK_H
#define SYSTEM_RAMBLOCK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

#define TARGET_PAGE_BITS 12
#define TARGET_PAGE_SIZE (1u << TARGET_PAGE_BITS)
#define TARGET_PAGE_MASK (~(uint64_t)(TARGET_PAGE_SIZE - 1))

#define RAM_BLOCK_ID_MAX 255

typedef struct RAMBlock {
    char idstr[RAM_BLOCK_ID_MAX + 1];
    uint8_t *host;              /* page aligned (2 MiB aligned where the host can) */
    uint64_t used_length;       /* bytes, a multiple of TARGET_PAGE_SIZE */
    uint64_t pages;             /* used_length / TARGET_PAGE_SIZE */
    size_t page_size;           /* of the host mapping: 4096, or the huge page size */
    int fd;                     /* of the file behind it, or -1 */
    uint64_t fd_offset;         /* where in that file the block begins */
    bool shared;                /* MAP_SHARED */
    bool readonly;
    uint64_t guest_addr;        /* lowest guest physical address it is mapped at, or UINT64_MAX */
    /*
     * Pages that this process wrote by itself (device DMA, monitor, loader) since the last sync,
     * one bit a page, set atomically by ram_block_mark_dirty() while logging is on; NULL otherwise.
     */
    unsigned long *process_dirty;
} RAMBlock;

typedef enum RAMBackingKind {
    RAM_BACKING_ANON,           /* memory-backend-ram */
    RAM_BACKING_FILE,           /* memory-backend-file: a regular file, or one on hugetlbfs */
    RAM_BACKING_MEMFD,          /* memory-backend-memfd */
} RAMBackingKind;

typedef struct RAMBacking {
    RAMBackingKind kind;
    const char *path;           /* FILE: a file, or a directory in which to make an unlinked one */
    uint64_t offset;            /* FILE: where in it the block begins, page aligned */
    uint64_t align;             /* 0: as the host wants it */
    bool share;
    bool prealloc;              /* touch every page at creation */
    unsigned prealloc_threads;  /* 0: one a processor, at most 16 */
    bool readonly;
    bool hugetlb;               /* MEMFD */
    uint64_t hugetlbsize;       /* MEMFD with hugetlb; 0: the host's default */
    bool seal;                  /* MEMFD: nobody can change the file's size later */
    bool merge, dump;           /* MADV_MERGEABLE; MADV_DONTDUMP when dump is false */
} RAMBacking;

/*
 * ram_block_new:
 * @id: name, 1 to RAM_BLOCK_ID_MAX bytes, not used by another block
 * @size: bytes; used_length is this rounded up to TARGET_PAGE_SIZE, and the mapping rounded up to
 * the
 *     host page of the backing
 * @backing: what is behind it; NULL for private anonymous memory
 *
 * Memory is reserved, not touched (MAP_NORESERVE), unless prealloc: 64 GiB on a small host is fine.
 * Huge pages (hugetlb) are set aside at once, because running out of them later would kill the
 * process. Behind the block lies a page without access.
 *
 * A FILE that does not exist is made, an empty one grows to hold the block; a smaller one is
 * refused.
 *
 * Returns: the block, in the list, owned by the list until ram_block_free(); NULL with @errp set.
 */
RAMBlock *ram_block_new(const char *id, uint64_t size, const RAMBacking *backing, Error **errp);
void ram_block_free(RAMBlock *block);

/*
 * While anybody holds the blocks none can be made, and memory backends cannot be deleted:
 * migrations hold them from begin to end. Hold under the big lock; release from any thread.
 */
void ram_blocks_hold(void);
void ram_blocks_release(void);
bool ram_blocks_held(void);

/* The block of that name, or NULL. */
RAMBlock *ram_block_by_name(const char *id);
/* All blocks in order of creation: NULL starts, NULL ends. */
RAMBlock *ram_block_next(const RAMBlock *after);
#define RAMBLOCK_FOREACH(block) \
    for (RAMBlock *block = ram_block_next(NULL); block; block = ram_block_next(block))
/* Sum of used_length, bytes. */
uint64_t ram_blocks_total(void);
/* The block that holds host address @ptr and the offset in it, or NULL. */
RAMBlock *ram_block_from_host(const void *ptr, uint64_t *offset);

/*
 * ram_block_populated_run:
 * @first: page to start looking at
 * @end: page to stop before, at most block->pages
 * @run_pages: set to the length of the run found
 *
 * Find the next run of pages that may hold anything but zeroes, by asking the kernel (PAGEMAP_SCAN;
 * SEEK_DATA for what only the file behind the block holds), without touching them. A page that is
 * not reported was never written and reads as zero. Without kernel support everything is reported.
 * Any thread; for a whole block scan forward from the end of the last run.
 *
 * Returns: first page of the run, or @end when there is none.
 */
uint64_t ram_block_populated_run(const RAMBlock *block, uint64_t first, uint64_t end,
                                 uint64_t *run_pages);
/*
 * The same for all of [first, end) at once: set the bit (one a page of @block) of every page that
 * may hold anything; bits set already stay. Asks the kernel in large batches, so this is the one
 * for whole blocks. Returns the number of pages found.
 */
uint64_t ram_block_populated_bitmap(const RAMBlock *block, uint64_t first, uint64_t end,
                                    unsigned long *bitmap);

/*
 * Make pages zero and give their memory back to the host where that can be done (MADV_DONTNEED,
 * hole punching in a shared file). Used by loading for pages that must be zero but were touched.
 * The pages count as written. Fails when the block is read-only.
 */
int ram_block_discard_pages(RAMBlock *block, uint64_t first, uint64_t n, Error **errp);

/*
 * Say that this process writes [offset, offset + len) of @block, by other means than a vCPU.
 * Call it after the bytes have been written. Cheap when no tracker runs. Any thread.
 */
void ram_block_mark_dirty(RAMBlock *block, uint64_t offset, uint64_t len);

#endif
