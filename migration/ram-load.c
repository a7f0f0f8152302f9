/*
 * Loading the RAM section.
 *
 * Most of a stream is page records of the same block, one after the other, and there are two fast
 * ways for them. What is in the read-ahead buffer is looked at in place: as long as whole records
 * of known shape follow, their pages are copied from there, and the RamTarget is told of whole
 * runs. When the buffer has no whole record, ram-scatter.c reads on straight into guest memory. Any
 * other record is taken one field at a time, with a message for all that can be wrong with it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram-load.h"

#include <inttypes.h>
#include <string.h>
#include "migration/ram-format.h"
#include "migration/ram-scatter.h"
#include "migration/ram.h"
#include "util/bswap.h"

#define PAGE_RECORD_BYTES (8 + TARGET_PAGE_SIZE)
#define ZERO_RECORD_BYTES (8 + 1)

typedef enum RunKind {
    RUN_NONE,
    RUN_DATA,
    RUN_ZERO,
} RunKind;

typedef struct RamLoad {
    MigrationContext *ctx;
    GPtrArray *targets;         /* RamTarget, owned */
    RamSource *source;          /* or NULL */
    RamScatter *scatter;
    bool have_blocks;           /* the MEM_SIZE record was read */
    RamTarget *current;         /* what CONTINUE means */
    /* Pages of current, taken from the buffer but not yet told to the target. */
    RunKind run_kind;
    uint64_t run_first, run_pages;
    /* The page after the last record's, when that held data; UINT64_MAX otherwise. */
    uint64_t next_page;
} RamLoad;

/* One load at a time. */
static RamLoad *the_load;

static void target_free(gpointer target)
{
    ram_target_free(target);
}

int ram_load_prepare(void *opaque, MigrationContext *ctx, Error **errp)
{
    RamLoad *load = g_new0(RamLoad, 1);
    Error *err = NULL;

    g_assert(!the_load);
    the_load = load;
    load->ctx = ctx;
    load->scatter = ram_scatter_new();
    load->next_page = UINT64_MAX;
    load->targets = g_ptr_array_new_with_free_func(target_free);
    load->source = ram_source_new(ctx, load->targets, &err);
    if (err) {
        error_propagate(errp, err);
        return -1;
    }
    return 0;
}

void ram_load_cleanup(void *opaque)
{
    RamLoad *load = the_load;

    if (load) {
        if (load->source) {
            load->source->klass->free(load->source);
        }
        ram_scatter_free(load->scatter);
        g_ptr_array_unref(load->targets);
        g_free(load);
        the_load = NULL;
    }
}

static RamTarget *find_target(const GPtrArray *targets, const char *id)
{
    for (guint i = 0; i < targets->len; i++) {
        RamTarget *target = g_ptr_array_index(targets, i);

        if (!strcmp(target->block->idstr, id)) {
            return target;
        }
    }
    return NULL;
}

RamTarget *ram_source_target(RamSource *source, const char *id)
{
    return find_target(source->targets, id);
}

/* The MEM_SIZE record ------------------------------------------------------------------------ */

/* Check a block's entry against this machine; @rest is what the total has left for it. */
static RAMBlock *check_block_entry(const char *id, uint64_t length, uint64_t rest, GHashTable *seen,
                                   Error **errp)
{
    RAMBlock *block = ram_block_by_name(id);

    if (!block) {
        g_autofree char *shown = g_strescape(id, NULL);

        error_setg(errp, "RAM block '%s' of the source does not exist in this machine", shown);
    } else if (!g_hash_table_add(seen, block)) {
        error_setg(errp, "RAM block '%s' is listed twice in the stream", id);
    } else if (length != block->used_length) {
        error_setg(errp, "RAM block '%s' has %" PRIu64 " bytes at the source, but %" PRIu64
                   " bytes in this machine", id, length, block->used_length);
    } else if (length > rest) {
        error_setg(errp, "RAM block '%s' goes beyond the total RAM size in the stream", id);
    } else {
        return block;
    }
    return NULL;
}

static int load_block_entry(RamLoad *load, MigrationFile *f, uint64_t *rest, GHashTable *seen,
                            Error **errp)
{
    const MigrationOptions *opts = &load->ctx->opts;
    RamTarget *target = NULL;
    RAMBlock *block;
    char id[256];
    bool id_ok = mfile_get_counted_string(f, id);
    uint64_t length = mfile_get_be64(f);

    if (mfile_check(f, errp) < 0) {
        error_prepend(errp, "reading the list of RAM blocks: ");
        return -1;
    }
    if (!id_ok || !id[0]) {
        error_setg(errp, "the list of RAM blocks in the stream holds an invalid name");
        return -1;
    }
    block = check_block_entry(id, length, *rest, seen, errp);
    if (!block) {
        return -1;
    }
    *rest -= length;
    if (migration_cap(opts, MIGRATION_CAPABILITY_X_IGNORE_SHARED)) {
        uint64_t addr = mfile_get_be64(f);

        if (mfile_check(f, errp) < 0) {
            return -1;
        }
        if (ram_block_is_ignored(opts, block) && addr != block->guest_addr) {
            error_setg(errp, "RAM block '%s' is at guest address 0x%" PRIx64
                       " at the source, but at 0x%" PRIx64 " in this machine",
                       id, addr, block->guest_addr);
            return -1;
        }
    }
    if (!ram_block_is_ignored(opts, block)) {
        if (block->readonly) {
            error_setg(errp, "RAM block '%s' is read-only in this machine and cannot be loaded",
                       id);
            return -1;
        }
        target = ram_target_new(block, errp);
        if (!target) {
            return -1;
        }
        g_ptr_array_add(load->targets, target);
    }
    if (load->source && load->source->klass->block_header) {
        return load->source->klass->block_header(load->source, block, target, f, errp);
    }
    return 0;
}

static int load_mem_size(RamLoad *load, MigrationFile *f, uint64_t total, Error **errp)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    uint64_t rest = total;

    if (load->have_blocks) {
        error_setg(errp, "the stream lists its RAM blocks twice");
        return -1;
    }
    while (rest) {
        if (load_block_entry(load, f, &rest, seen, errp) < 0) {
            return -1;
        }
    }
    RAMBLOCK_FOREACH(block) {
        if (!g_hash_table_contains(seen, block)) {
            error_setg(errp, "RAM block '%s' of this machine is missing in the stream",
                       block->idstr);
            return -1;
        }
    }
    if (!load->source && migration_channels_extra_left(load->ctx->channels)) {
        /* Nobody would read them, and the source would wait for that. */
        error_setg(errp,
                   "the source opened multifd channels, but the capability multifd is not set");
        return -1;
    }
    load->have_blocks = true;
    counter_set(load->ctx->counters.total_bytes, total);
    if (load->source && load->source->klass->start) {
        return load->source->klass->start(load->source, f, errp);
    }
    return 0;
}

/* Pages -------------------------------------------------------------------------------------- */

/* Tell the target what the fast path gathered. */
static int commit_run(RamLoad *load, Error **errp)
{
    RunKind kind = load->run_kind;
    int ret = 0;

    load->run_kind = RUN_NONE;
    if (kind == RUN_DATA) {
        counter_add(load->ctx->counters.normal_pages, load->run_pages);
        ram_target_written(load->current, load->run_first, load->run_pages);
    } else if (kind == RUN_ZERO) {
        counter_add(load->ctx->counters.zero_pages, load->run_pages);
        ret = ram_target_zero(load->current, load->run_first, load->run_pages, errp);
    }
    return ret;
}

static inline int add_to_run(RamLoad *load, RunKind kind, uint64_t page, Error **errp)
{
    if (load->run_kind == kind && load->run_first + load->run_pages == page) {
        load->run_pages++;
        return 0;
    }
    if (commit_run(load, errp) < 0) {
        return -1;
    }
    load->run_kind = kind;
    load->run_first = page;
    load->run_pages = 1;
    return 0;
}

/*
 * Take whole page records of the current block from @p. Stops at the first that is another, not
 * whole, or wrong. Returns the bytes taken, or -1.
 */
static ssize_t take_whole_records(RamLoad *load, const uint8_t *p, size_t have, Error **errp)
{
    RAMBlock *block = load->current->block;
    size_t used = 0;

    while (have - used >= ZERO_RECORD_BYTES) {
        uint64_t word = ldq_be_p(p + used);
        uint64_t offset = word & TARGET_PAGE_MASK;

        if (offset >= block->used_length) {
            break;
        }
        if ((word & RAM_RECORD_FLAGS) == (RAM_RECORD_PAGE | RAM_RECORD_CONTINUE)) {
            if (have - used < PAGE_RECORD_BYTES) {
                break;
            }
            if (add_to_run(load, RUN_DATA, offset >> TARGET_PAGE_BITS, errp) < 0) {
                return -1;
            }
            memcpy(block->host + offset, p + used + 8, TARGET_PAGE_SIZE);
            used += PAGE_RECORD_BYTES;
            load->next_page = (offset >> TARGET_PAGE_BITS) + 1;
        } else if ((word & RAM_RECORD_FLAGS) == (RAM_RECORD_ZERO | RAM_RECORD_CONTINUE) &&
                   p[used + 8] == 0) {
            if (add_to_run(load, RUN_ZERO, offset >> TARGET_PAGE_BITS, errp) < 0) {
                return -1;
            }
            used += ZERO_RECORD_BYTES;
            load->next_page = UINT64_MAX;
        } else {
            break;
        }
    }
    return commit_run(load, errp) < 0 ? -1 : (ssize_t)used;
}

/* The block of a page record. */
static RamTarget *record_target(RamLoad *load, MigrationFile *f, uint64_t flags, uint64_t offset,
                                Error **errp)
{
    char id[256];
    bool ok;

    if (!load->have_blocks) {
        error_setg(errp, "the stream holds a RAM page before its list of RAM blocks");
        return NULL;
    }
    if (load->source && load->source->klass->no_page_records) {
        error_setg(errp, "the stream holds RAM pages, which have no place in a %s one",
                   load->source->klass->name);
        return NULL;
    }
    if (flags & RAM_RECORD_CONTINUE) {
        if (!load->current) {
            error_setg(errp, "RAM page at offset 0x%" PRIx64 " belongs to no block", offset);
        }
        return load->current;
    }
    ok = mfile_get_counted_string(f, id);
    if (mfile_check(f, errp) < 0) {
        return NULL;
    }
    load->current = ok ? find_target(load->targets, id) : NULL;
    if (!load->current) {
        g_autofree char *shown = g_strescape(id, NULL);

        error_setg(errp, "RAM page at offset 0x%" PRIx64 " of an unknown block '%s'", offset,
                   shown);
    }
    return load->current;
}

static int load_page_record(RamLoad *load, MigrationFile *f, uint64_t flags, uint64_t offset,
                            Error **errp)
{
    RamTarget *target = record_target(load, f, flags, offset, errp);
    uint64_t page = offset >> TARGET_PAGE_BITS;
    RAMBlock *block;
    uint8_t fill;

    if (!target) {
        return -1;
    }
    block = target->block;
    if (offset >= block->used_length) {
        error_setg(errp, "RAM page at offset 0x%" PRIx64 " is beyond the end of block '%s' (0x%"
                   PRIx64 " bytes)", offset, block->idstr, block->used_length);
        return -1;
    }
    load->next_page = flags & RAM_RECORD_PAGE ? page + 1 : UINT64_MAX;
    if (flags & RAM_RECORD_PAGE) {
        mfile_get_buffer(f, block->host + offset, TARGET_PAGE_SIZE);
        ram_target_written(target, page, 1);
        counter_add(load->ctx->counters.normal_pages, 1);
    } else {
        fill = mfile_get_u8(f);
        if (fill && !mfile_has_error(f)) {
            error_setg(errp, "RAM block '%s', offset 0x%" PRIx64 ": page filled with 0x%02x, only "
                       "zero is allowed", block->idstr, offset, fill);
            return -1;
        }
        if (ram_target_zero(target, page, 1, errp) < 0) {
            return -1;
        }
        counter_add(load->ctx->counters.zero_pages, 1);
    }
    if (mfile_check(f, errp) < 0) {
        error_prepend(errp, "RAM block '%s', offset 0x%" PRIx64 ": ", block->idstr, offset);
        return -1;
    }
    return 0;
}

/* Records ------------------------------------------------------------------------------------ */

static int load_flush(RamLoad *load, Error **errp)
{
    if (!load->have_blocks || !load->source || !load->source->klass->flush) {
        error_setg(errp, "the stream waits for multifd channels, but the capability multifd is "
                   "not set");
        return -1;
    }
    return load->source->klass->flush(load->source, errp);
}

/* Returns 1 at the end of the section, 0 to go on, -1 on error. */
static int load_record(RamLoad *load, MigrationFile *f, Error **errp)
{
    uint64_t word = mfile_get_be64(f);
    uint64_t flags = word & RAM_RECORD_FLAGS;
    uint64_t offset = word & TARGET_PAGE_MASK;

    load->next_page = UINT64_MAX;
    if (mfile_check(f, errp) < 0) {
        return -1;
    }
    switch (flags & ~(uint64_t)RAM_RECORD_CONTINUE) {
    case RAM_RECORD_PAGE:
    case RAM_RECORD_ZERO:
        return load_page_record(load, f, flags, offset, errp);
    case RAM_RECORD_MEM_SIZE:
        return load_mem_size(load, f, offset, errp);
    case RAM_RECORD_MULTIFD_FLUSH:
        return load_flush(load, errp);
    case RAM_RECORD_EOS:
        return 1;
    case RAM_RECORD_XBZRLE:
        error_setg(errp, "the stream holds RAM pages compressed with XBZRLE, which is not "
                   "supported");
        return -1;
    default:
        error_setg(errp, "the stream holds an unknown RAM record (flags 0x%" PRIx64 ")", flags);
        return -1;
    }
}

/* As many page records of the current block as can be had the fast ways. */
static int load_page_records(RamLoad *load, MigrationFile *f, Error **errp)
{
    size_t have;
    const uint8_t *p = mfile_peek_buffered(f, &have);
    ssize_t used = take_whole_records(load, p, have, errp);
    int64_t pages;

    if (used < 0) {
        return -1;
    }
    mfile_skip(f, used);
    /* Where others write pages as well, guesses could spoil what they have just written. */
    if (load->source || load->next_page == UINT64_MAX || have - used >= PAGE_RECORD_BYTES) {
        return 0;
    }
    pages = ram_scatter_read(load->scatter, load->current, load->next_page, f, errp);
    if (pages < 0) {
        return -1;
    }
    counter_add(load->ctx->counters.normal_pages, pages);
    load->next_page = UINT64_MAX;
    return 0;
}

int ram_load_state(void *opaque, MigrationFile *f, uint32_t version, Error **errp)
{
    RamLoad *load = the_load;
    int ret;

    if (version != RAM_SECTION_VERSION) {
        error_setg(errp, "RAM section version %u is not supported, only %d", version,
                   RAM_SECTION_VERSION);
        return -1;
    }
    do {
        if (migration_context_cancelled(load->ctx)) {
            error_setg(errp, "the migration was cancelled");
            return -1;
        }
        if (load->current && load_page_records(load, f, errp) < 0) {
            return -1;
        }
        ret = load_record(load, f, errp);
    } while (ret == 0);
    return ret < 0 ? -1 : 0;
}

int ram_load_complete(void *opaque, Error **errp)
{
    RamLoad *load = the_load;

    if (!load->have_blocks) {
        error_setg(errp, "the stream holds no RAM");
        return -1;
    }
    if (load->source && load->source->klass->finish &&
        load->source->klass->finish(load->source, errp) < 0) {
        return -1;
    }
    for (guint i = 0; i < load->targets->len; i++) {
        if (ram_target_finish(g_ptr_array_index(load->targets, i), errp) < 0) {
            return -1;
        }
    }
    return 0;
}
