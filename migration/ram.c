/*
 * Saving RAM: which pages go out, in what order, until when.
 *
 * A cursor walks over the dirty bitmaps of all blocks, round and round; each run of dirty pages is
 * cleared there and handed to the sink, and whenever the cursor comes round the sink is flushed, so
 * that it never holds two versions of a page. The tracker's news are added to the bitmaps by a
 * sync, which the migration core asks for (state_pending, exact) when little is left.
 *
 * The rule that no page is lost: a page is read after the sync that reported it, never before. The
 * tracker therefore starts first; only then, as the cursor comes to it, is each piece of memory
 * looked up for pages that exist at all. Those are the first dirty pages; a page that did not exist
 * then and is written later is reported by the tracker like any other.
 *
 * Pages that the cursor has not looked up count as dirty in every estimate.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram.h"

#include <sys/stat.h>
#include "migration/autoconverge.h"
#include "migration/ram-format.h"
#include "migration/ram-load.h"
#include "migration/ram-prefault.h"
#include "qapi/qapi-events-migration.h"
#include "system/dirty-tracker.h"
#include "util/bitmap.h"

/* Pages whose population is asked for at a time: 1 GiB. */
#define SCAN_PAGES (1ul << 18)
/* Most pages in one run: large enough for every sink's largest request. */
#define RUN_PAGES_MAX 1024
/* A turn ends after this, so that the migration core looks at its clock. */
#define TURN_US 50000
/* Dirty rates are taken over at least this. */
#define RATE_PERIOD_US 1000000

typedef struct SaveBlock {
    RAMBlock *block;
    unsigned long *dirty;
    uint64_t scanned;           /* pages before are known: dirty if their bit is set */
    uint64_t dirty_pages;       /* bits set before scanned */
} SaveBlock;

typedef struct RamSave {
    MigrationContext *ctx;
    RamSink *sink;
    DirtyTracker *tracker;
    RamPrefault *prefault;
    SaveBlock *blocks;
    unsigned nblocks;
    /* Cursor */
    unsigned at_block;
    uint64_t at_page;
    bool handed;                /* runs were handed to the sink since it was flushed */
    /* Dirty rate */
    int64_t period_start_us;
    uint64_t period_dirty_pages;
    uint64_t period_transferred;
    AutoConverge converge;
} RamSave;

/* One save at a time. */
static RamSave *the_save;

bool ram_block_is_ignored(const MigrationOptions *opts, const RAMBlock *block)
{
    struct stat st;

    /* A memfd or unlinked file has no name by which the destination could open it. */
    return migration_cap(opts, MIGRATION_CAPABILITY_X_IGNORE_SHARED) && block->shared &&
           block->fd >= 0 && fstat(block->fd, &st) == 0 && st.st_nlink > 0;
}

/* Figures ------------------------------------------------------------------------------------ */

static uint64_t pending_pages(const RamSave *save)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < save->nblocks; i++) {
        const SaveBlock *sb = &save->blocks[i];
        pages += sb->dirty_pages + (sb->block->pages - sb->scanned);
    }
    return pages;
}

static void publish_remaining(RamSave *save)
{
    counter_set(save->ctx->counters.remaining_bytes, pending_pages(save) * TARGET_PAGE_SIZE);
}

/* The rate since the last period, once it is long enough. */
static void account_period(RamSave *save, uint64_t new_dirty_pages)
{
    int64_t now = g_get_monotonic_time();
    int64_t elapsed = now - save->period_start_us;
    uint64_t transferred;

    save->period_dirty_pages += new_dirty_pages;
    if (elapsed < RATE_PERIOD_US) {
        return;
    }
    transferred = migration_context_transferred(save->ctx);
    if (migration_cap(&save->ctx->opts, MIGRATION_CAPABILITY_AUTO_CONVERGE)) {
        autoconverge_period(&save->converge, transferred - save->period_transferred,
                            save->period_dirty_pages * TARGET_PAGE_SIZE);
    }
    counter_set(save->ctx->counters.dirty_pages_rate,
                save->period_dirty_pages * 1000000 / elapsed);
    save->period_start_us = now;
    save->period_dirty_pages = 0;
    save->period_transferred = transferred;
}

/* Take the tracker's news: a new pass begins. */
static int sync_dirty(RamSave *save, Error **errp)
{
    uint64_t passes = counter_get(save->ctx->counters.dirty_sync_count) + 1;
    uint64_t new_pages = 0;

    for (unsigned i = 0; i < save->nblocks; i++) {
        SaveBlock *sb = &save->blocks[i];
        int64_t n = dirty_tracker_sync(save->tracker, sb->block, sb->dirty, errp);

        if (n < 0) {
            return -1;
        }
        new_pages += n;
        if (n) {
            sb->dirty_pages = bitmap_count_one(sb->dirty, sb->scanned);
        }
    }
    counter_set(save->ctx->counters.dirty_sync_count, passes);
    account_period(save, new_pages);
    publish_remaining(save);
    if (migration_cap(&save->ctx->opts, MIGRATION_CAPABILITY_EVENTS)) {
        qapi_event_send_migration_pass(passes);
    }
    return 0;
}

/* The cursor --------------------------------------------------------------------------------- */

/* Look up which of the next pages exist; they are the dirty ones, the rest goes to skip_run. */
static int scan_population(RamSave *save, SaveBlock *sb, MigrationFile *f, Error **errp)
{
    uint64_t begin = sb->scanned, at = begin;
    uint64_t end = MIN(begin + SCAN_PAGES, sb->block->pages);

    while (at < end) {
        uint64_t n = 0;
        uint64_t first = ram_block_populated_run(sb->block, at, end, &n);

        if (first > at && save->sink->klass->skip_run &&
            save->sink->klass->skip_run(save->sink, sb->block, at, first - at, f, errp) < 0) {
            return -1;
        }
        if (first < end) {
            bitmap_set(sb->dirty, first, n);
        }
        at = first + n;
    }
    sb->scanned = end;
    sb->dirty_pages += bitmap_count_one_with_offset(sb->dirty, begin, end - begin);
    return 0;
}

/*
 * Move the cursor to the next dirty page. Returns the length of the run there, or 0 when nothing is
 * dirty anywhere; -1 on error.
 */
static int64_t next_run(RamSave *save, MigrationFile *f, Error **errp)
{
    for (;;) {
        SaveBlock *sb = &save->blocks[save->at_block];
        unsigned long n, first;

        n = sb->dirty_pages ? bitmap_next_run(sb->dirty, sb->scanned, save->at_page, &first) : 0;
        if (n) {
            save->at_page = first;
            return n;
        }
        if (sb->scanned < sb->block->pages) {
            save->at_page = sb->scanned;
            if (scan_population(save, sb, f, errp) < 0) {
                return -1;
            }
            continue;
        }
        save->at_page = 0;
        save->at_block++;
        if (save->at_block < save->nblocks) {
            continue;
        }
        save->at_block = 0;
        if (save->handed && save->sink->klass->flush &&
            save->sink->klass->flush(save->sink, f, errp) < 0) {
            return -1;
        }
        save->handed = false;
        if (!pending_pages(save)) {
            return 0;
        }
    }
}

/* Hand one run to the sink. Returns 1 when nothing is left, 0 when it handed one, -1 on error. */
static int save_one_run(RamSave *save, MigrationFile *f, uint64_t most, Error **errp)
{
    int64_t n = next_run(save, f, errp);
    SaveBlock *sb = &save->blocks[save->at_block];
    int64_t bytes;

    if (n <= 0) {
        return n < 0 ? -1 : 1;
    }
    n = MIN((uint64_t)n, most);
    bitmap_clear(sb->dirty, save->at_page, n);
    sb->dirty_pages -= n;
    save->handed = true;
    bytes = save->sink->klass->write_run(save->sink, sb->block, save->at_page, n, f, errp);
    if (bytes < 0) {
        return -1;
    }
    save->at_page += n;
    save->ctx->turn_budget -= bytes;
    return 0;
}

/*
 * Save until nothing is left (returns 1), or, unless @all, the turn's budget or time is used up
 * (returns 0).
 */
static int save_turn(RamSave *save, MigrationFile *f, bool all, Error **errp)
{
    int64_t end_us = g_get_monotonic_time() + TURN_US;
    int ret = 0;

    while (ret == 0) {
        uint64_t most = RUN_PAGES_MAX;

        if (migration_context_cancelled(save->ctx)) {
            error_setg(errp, "the migration was cancelled");
            return -1;
        }
        if (mfile_has_error(f)) {
            return mfile_check(f, errp);
        }
        if (!all) {
            if (save->ctx->turn_budget <= 0 || g_get_monotonic_time() >= end_us) {
                break;
            }
            most = CLAMP((uint64_t)save->ctx->turn_budget / TARGET_PAGE_SIZE, 1, RUN_PAGES_MAX);
        }
        ret = save_one_run(save, f, most, errp);
        publish_remaining(save);
    }
    return ret;
}

/* Handlers ----------------------------------------------------------------------------------- */

static int allocate_blocks(RamSave *save, Error **errp)
{
    unsigned n = 0;

    RAMBLOCK_FOREACH(block) {
        n++;
    }
    save->blocks = g_new0(SaveBlock, n);
    RAMBLOCK_FOREACH(block) {
        SaveBlock *sb = &save->blocks[save->nblocks];

        if (ram_block_is_ignored(&save->ctx->opts, block)) {
            continue;
        }
        sb->block = block;
        sb->dirty = bitmap_try_new(block->pages);
        if (!sb->dirty) {
            error_setg(errp, "not enough memory for the dirty bitmap of RAM block '%s'",
                       block->idstr);
            return -1;
        }
        save->nblocks++;
    }
    return 0;
}

static void start_prefault(RamSave *save)
{
    g_autoptr(GPtrArray) blocks = g_ptr_array_new();

    for (unsigned i = 0; i < save->nblocks; i++) {
        g_ptr_array_add(blocks, save->blocks[i].block);
    }
    save->prefault = ram_prefault_start(blocks);
}

static int ram_save_prepare(void *opaque, MigrationContext *ctx, Error **errp)
{
    RamSave *save = g_new0(RamSave, 1);

    g_assert(!the_save);
    the_save = save;
    save->ctx = ctx;
    if (allocate_blocks(save, errp) < 0) {
        return -1;
    }
    start_prefault(save);
    save->sink = ram_sink_new(ctx, errp);
    if (!save->sink ||
        (save->sink->klass->prepare && save->sink->klass->prepare(save->sink, errp) < 0)) {
        return -1;
    }
    save->tracker = dirty_tracker_start(errp);
    if (!save->tracker) {
        return -1;
    }
    save->period_start_us = g_get_monotonic_time();
    counter_set(ctx->counters.total_bytes, ram_blocks_total());
    publish_remaining(save);
    return 0;
}

static int section_begin(RamSave *save, MigrationFile *f, Error **errp)
{
    RamSink *sink = save->sink;
    return sink->klass->section_begin ? sink->klass->section_begin(sink, f, errp) : 0;
}

static int section_end(RamSave *save, MigrationFile *f, Error **errp)
{
    RamSink *sink = save->sink;

    if (sink->klass->section_end && sink->klass->section_end(sink, f, errp) < 0) {
        return -1;
    }
    mfile_put_be64(f, RAM_RECORD_EOS);
    return mfile_check(f, errp);
}

static int save_block_entry(RamSave *save, RAMBlock *block, MigrationFile *f, Error **errp)
{
    mfile_put_counted_string(f, block->idstr);
    mfile_put_be64(f, block->used_length);
    if (migration_cap(&save->ctx->opts, MIGRATION_CAPABILITY_X_IGNORE_SHARED)) {
        mfile_put_be64(f, block->guest_addr);
    }
    if (save->sink->klass->block_header) {
        return save->sink->klass->block_header(save->sink, block, f, errp);
    }
    return 0;
}

static int ram_save_setup(void *opaque, MigrationFile *f, Error **errp)
{
    RamSave *save = the_save;

    mfile_put_be64(f, ram_blocks_total() | RAM_RECORD_MEM_SIZE);
    RAMBLOCK_FOREACH(block) {
        if (save_block_entry(save, block, f, errp) < 0) {
            return -1;
        }
    }
    if (section_begin(save, f, errp) < 0 || section_end(save, f, errp) < 0) {
        return -1;
    }
    /* The first pass: everything that exists. */
    return sync_dirty(save, errp);
}

static int ram_save_iterate(void *opaque, MigrationFile *f, Error **errp)
{
    RamSave *save = the_save;
    int ret;

    if (section_begin(save, f, errp) < 0) {
        return -1;
    }
    ret = save->nblocks ? save_turn(save, f, false, errp) : 1;
    if (ret < 0 || section_end(save, f, errp) < 0) {
        return -1;
    }
    return ret;
}

static int ram_save_complete(void *opaque, MigrationFile *f, Error **errp)
{
    RamSave *save = the_save;
    const RamSinkClass *klass = save->sink->klass;

    if (sync_dirty(save, errp) < 0 || section_begin(save, f, errp) < 0) {
        return -1;
    }
    if (save->nblocks && save_turn(save, f, true, errp) < 0) {
        return -1;
    }
    if ((klass->flush && klass->flush(save->sink, f, errp) < 0) ||
        (klass->finish && klass->finish(save->sink, f, errp) < 0)) {
        return -1;
    }
    return section_end(save, f, errp);
}

static int ram_state_pending(void *opaque, bool exact, uint64_t *bytes, Error **errp)
{
    RamSave *save = the_save;

    if (exact && sync_dirty(save, errp) < 0) {
        return -1;
    }
    *bytes = pending_pages(save) * TARGET_PAGE_SIZE;
    return 0;
}

static void ram_save_cleanup(void *opaque)
{
    RamSave *save = the_save;

    if (!save) {
        return;
    }
    the_save = NULL;
    ram_prefault_stop(save->prefault);
    ram_sink_free(save->sink);
    dirty_tracker_stop(save->tracker);
    if (migration_cap(&save->ctx->opts, MIGRATION_CAPABILITY_AUTO_CONVERGE)) {
        autoconverge_stop(&save->converge);
    }
    for (unsigned i = 0; i < save->nblocks; i++) {
        g_free(save->blocks[i].dirty);
    }
    g_free(save->blocks);
    g_free(save);
}

const SaveVMHandlers ram_handlers = {
    .save_prepare = ram_save_prepare,
    .save_setup = ram_save_setup,
    .save_iterate = ram_save_iterate,
    .save_complete = ram_save_complete,
    .state_pending = ram_state_pending,
    .save_cleanup = ram_save_cleanup,
    .load_prepare = ram_load_prepare,
    .load_state = ram_load_state,
    .load_complete = ram_load_complete,
    .load_cleanup = ram_load_cleanup,
};

void ram_migration_register(void)
{
    savevm_register_live(RAM_SECTION_ID, 0, RAM_SECTION_VERSION, &ram_handlers, NULL);
}
