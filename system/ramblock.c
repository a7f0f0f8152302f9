/*
 * The list of RAMBlocks and the marks of what the process itself wrote.
 *
 * The list only changes while no other thread looks (see ramblock.h), so it has no lock. The dirty
 * marks outlive the tracker that asked for them: a thread that is in the middle of marking when
 * the tracker stops must find memory there, so the bitmap is kept until the block goes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/ramblock.h"

#include <inttypes.h>
#include <string.h>

#include "system/ram-internal.h"
#include "util/barrier.h"
#include "util/bitmap.h"

static GPtrArray *blocks;
static unsigned holders;        /* atomic */

void ram_blocks_hold(void)
{
    __atomic_add_fetch(&holders, 1, __ATOMIC_SEQ_CST);
}

void ram_blocks_release(void)
{
    g_assert(__atomic_fetch_sub(&holders, 1, __ATOMIC_SEQ_CST) > 0);
}

bool ram_blocks_held(void)
{
    return __atomic_load_n(&holders, __ATOMIC_SEQ_CST) > 0;
}

static bool check_request(const char *id, uint64_t size, const RAMBacking *backing, Error **errp)
{
    size_t len = strlen(id);

    if (len < 1 || len > RAM_BLOCK_ID_MAX) {
        error_setg(errp, "The name of a RAM block must have 1 to %d bytes, not %zu",
                   RAM_BLOCK_ID_MAX, len);
        return false;
    }
    if (ram_blocks_held()) {
        error_setg(errp, "RAM block '%s' cannot be made while a migration is under way", id);
        return false;
    }
    if (ram_block_by_name(id)) {
        error_setg(errp, "There is a RAM block '%s' already", id);
        return false;
    }
    if (size == 0) {
        error_setg(errp, "The size of RAM block '%s' must not be 0", id);
        return false;
    }
    /* The upper half of the address space is the kernel's; leave room for every rounding. */
    if (size > UINT64_C(1) << 46) {
        error_setg(errp, "The size of RAM block '%s', %" PRIu64 " bytes, is more than the host "
                   "can map", id, size);
        return false;
    }
    if (backing->kind == RAM_BACKING_FILE && (!backing->path || !*backing->path)) {
        error_setg(errp, "RAM block '%s' needs the path of its file", id);
        return false;
    }
    return true;
}

RAMBlock *ram_block_new(const char *id, uint64_t size, const RAMBacking *backing, Error **errp)
{
    static const RAMBacking anonymous = { .kind = RAM_BACKING_ANON, .merge = true, .dump = true };
    RAMBlockFull *full;
    RAMBlock *block;

    backing = backing ?: &anonymous;
    if (!check_request(id, size, backing, errp)) {
        return NULL;
    }
    full = g_new0(RAMBlockFull, 1);
    block = &full->block;
    g_strlcpy(block->idstr, id, sizeof(block->idstr));
    block->used_length = (size + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK;
    block->pages = block->used_length >> TARGET_PAGE_BITS;
    block->guest_addr = UINT64_MAX;
    block->fd = -1;
    if (!ram_backing_map(full, backing, errp)) {
        g_free(full);
        return NULL;
    }
    if (!blocks) {
        blocks = g_ptr_array_new();
    }
    g_ptr_array_add(blocks, block);
    return block;
}

void ram_block_free(RAMBlock *block)
{
    RAMBlockFull *full;

    if (!block) {
        return;
    }
    full = ram_block_full(block);
    g_ptr_array_remove(blocks, block);
    ram_backing_unmap(full);
    g_free(full->dirty_store);
    g_free(full);
}

RAMBlock *ram_block_next(const RAMBlock *after)
{
    guint index = 0;

    if (!blocks) {
        return NULL;
    }
    if (after && g_ptr_array_find(blocks, after, &index)) {
        index++;
    }
    return index < blocks->len ? g_ptr_array_index(blocks, index) : NULL;
}

RAMBlock *ram_block_by_name(const char *id)
{
    RAMBLOCK_FOREACH(block) {
        if (!strcmp(block->idstr, id)) {
            return block;
        }
    }
    return NULL;
}

uint64_t ram_blocks_total(void)
{
    uint64_t total = 0;

    RAMBLOCK_FOREACH(block) {
        total += block->used_length;
    }
    return total;
}

RAMBlock *ram_block_from_host(const void *ptr, uint64_t *offset)
{
    RAMBLOCK_FOREACH(block) {
        uint64_t distance = (uintptr_t)ptr - (uintptr_t)block->host;

        if (distance < block->used_length) {
            *offset = distance;
            return block;
        }
    }
    return NULL;
}

bool ram_dirty_marks_on(Error **errp)
{
    RAMBLOCK_FOREACH(block) {
        RAMBlockFull *full = ram_block_full(block);

        if (full->dirty_store) {
            /* Who has seen it before it was switched off may still be marking. */
            bitmap_test_and_clear_atomic(full->dirty_store, 0, block->pages);
        } else {
            full->dirty_store = bitmap_try_new(block->pages);
        }
        if (!full->dirty_store) {
            error_setg(errp, "No memory for the dirty bitmap of RAM block '%s'", block->idstr);
            ram_dirty_marks_off();
            return false;
        }
        __atomic_store_n(&block->process_dirty, full->dirty_store, __ATOMIC_SEQ_CST);
    }
    return true;
}

void ram_dirty_marks_off(void)
{
    RAMBLOCK_FOREACH(block) {
        __atomic_store_n(&block->process_dirty, NULL, __ATOMIC_SEQ_CST);
    }
}

void ram_block_mark_dirty(RAMBlock *block, uint64_t offset, uint64_t len)
{
    unsigned long *map;
    uint64_t first, last;

    if (!len) {
        return;
    }
    g_assert(offset < block->used_length && len <= block->used_length - offset);
    /*
     * The bytes must be visible before the mark is looked at: the one who takes the mark reads them
     * right after, and bitmap_set_atomic() does not write a word that is all set already.
     */
    memory_barrier();
    map = __atomic_load_n(&block->process_dirty, __ATOMIC_ACQUIRE);
    if (!map) {
        return;
    }
    first = offset >> TARGET_PAGE_BITS;
    last = (offset + len - 1) >> TARGET_PAGE_BITS;
    bitmap_set_atomic(map, first, last - first + 1);
}
