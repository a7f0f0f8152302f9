/*
 * The RAM section: which pages go out, in what order, until when (ram.c), and how they come in
 * (ram-load.c). How they travel is a RamSink's or RamSource's business.
 *
 * The seam: ram.c hands runs of pages to a sink, in any order and as often as they become dirty;
 * ram-stream.c puts them into the main stream, ram-mapped.c at fixed offsets of a file, multifd.c
 * on several channels (packets) or from several threads (offsets).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RAM_H
#define MIGRATION_RAM_H

#include "migration/context.h"
#include "system/ramblock.h"

/* Register the section "ram". Under the big lock, once. */
void ram_migration_register(void);

typedef struct RamSink RamSink;

typedef struct RamSinkClass {
    const char *name;           /* for messages: "stream", "direct-mapped", "multifd", ... */
    /* Before the START section: open channels, start threads. */
    int (*prepare)(RamSink *sink, Error **errp);
    /*
     * After each block's entry in the MEM_SIZE record: what follows its length. May be NULL, like
     * every function but write_run and free.
     */
    int (*block_header)(RamSink *sink, RAMBlock *block, MigrationFile *f, Error **errp);
    /* Begin and end of every section's data, before the EOS record. */
    int (*section_begin)(RamSink *sink, MigrationFile *f, Error **errp);
    int (*section_end)(RamSink *sink, MigrationFile *f, Error **errp);
    /*
     * Take pages [first, first + n) of @block: dirty, contents unknown. The pages may be read until
     * the next flush() returns. Returns bytes that count against the turn's budget, or -1.
     */
    int64_t (*write_run)(RamSink *sink, RAMBlock *block, uint64_t first, uint64_t n,
                         MigrationFile *f, Error **errp);
    /*
     * Take pages that were never touched since the machine began and so are zero; only in the
     * first pass. NULL: nothing to do, they need not be sent.
     */
    int (*skip_run)(RamSink *sink, RAMBlock *block, uint64_t first, uint64_t n, MigrationFile *f,
                    Error **errp);
    /*
     * Every run taken before is read (and, on channels, ordered before what follows): after this
     * a page may be handed again. Called at the end of every pass over the dirty bitmap.
     */
    int (*flush)(RamSink *sink, MigrationFile *f, Error **errp);
    /* The machine is stopped and all runs were handed: bitmaps, final sync. */
    int (*finish)(RamSink *sink, MigrationFile *f, Error **errp);
    /* Ends and joins threads, in success and failure. */
    void (*free)(RamSink *sink);
} RamSinkClass;

struct RamSink {
    const RamSinkClass *klass;
    MigrationContext *ctx;
};

/* The sink that the options and the transport ask for. */
RamSink *ram_sink_new(MigrationContext *ctx, Error **errp);
/* klass->free(); NULL is allowed. */
void ram_sink_free(RamSink *sink);

/* Whether migration leaves @block out: x-ignore-shared, and it is a file that others can open. */
bool ram_block_is_ignored(const MigrationOptions *opts, const RAMBlock *block);

/* The kinds; each fills what its capabilities ask for. */
RamSink *ram_stream_sink_new(MigrationContext *ctx, Error **errp);

/* What ram.c and ram-load.c register; for tests that drive them without a stream around. */
extern const SaveVMHandlers ram_handlers;

#endif
