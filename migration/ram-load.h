/*
 * RamSource: how pages come in; the counterpart of RamSink (migration/ram.h).
 *
 * ram-load.c reads the RAM section of the main stream and fills memory from the page records in
 * it. Where pages travel outside of the stream, a source takes part: it reads what follows each
 * block's entry, is told when all blocks are known, and makes everything be there at flush and
 * finish. All of it happens on the loading thread; threads of the source's own are its business.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RAM_LOAD_H
#define MIGRATION_RAM_LOAD_H

#include "migration/context.h"
#include "migration/ram-target.h"

typedef struct RamSource RamSource;

/* Functions may be NULL, except free. They return 0, or -1 with @errp set. */
typedef struct RamSourceClass {
    const char *name;           /* for messages: "direct-mapped", "multifd" */
    bool no_page_records;       /* page records in the main stream are an error */
    /* After a block's entry in the MEM_SIZE record; @target is NULL for a block left out. */
    int (*block_header)(RamSource *source, RAMBlock *block, RamTarget *target, MigrationFile *f,
                        Error **errp);
    /* The MEM_SIZE record is read and agrees with this machine. */
    int (*start)(RamSource *source, MigrationFile *f, Error **errp);
    /* A MULTIFD_FLUSH record; NULL: it is an error. */
    int (*flush)(RamSource *source, Error **errp);
    /* After the end of the stream: all pages must be in place on return. */
    int (*finish)(RamSource *source, Error **errp);
    /* Ends and joins threads, in success and failure. */
    void (*free)(RamSource *source);
} RamSourceClass;

struct RamSource {
    const RamSourceClass *klass;
    MigrationContext *ctx;
    const GPtrArray *targets;   /* of RamTarget; complete from start() on */
};

/* The source that the options ask for; NULL without error when the stream has everything. */
RamSource *ram_source_new(MigrationContext *ctx, const GPtrArray *targets, Error **errp);

/* The target named @id, or NULL. Any thread, after start(). */
RamTarget *ram_source_target(RamSource *source, const char *id);

/* The loading half of the section's SaveVMHandlers (migration/savevm.h has their contracts). */
int ram_load_prepare(void *opaque, MigrationContext *ctx, Error **errp);
int ram_load_state(void *opaque, MigrationFile *f, uint32_t version, Error **errp);
int ram_load_complete(void *opaque, Error **errp);
void ram_load_cleanup(void *opaque);

#endif
