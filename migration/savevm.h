/*
 * The sections of a migration stream: who writes and reads which.
 *
 * A device whose state is one table registers the table (migration/vmstate.h). What is sent in
 * turns while the machine runs (RAM) registers handlers here. Registration happens under the big
 * lock at machine creation. docs/interop/migration-stream.md has the format.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_SAVEVM_H
#define MIGRATION_SAVEVM_H

#include "migration/migration-file.h"

typedef struct MigrationContext MigrationContext;       /* migration/context.h */

/*
 * Handlers of a section that is sent in turns. @f is the main stream, positioned within the
 * section's data. Calls come from the migration thread (save) or the loading thread (load) without
 * the big lock, except save_complete, which runs with the machine stopped. Functions return 0, or
 * -1 with @errp set; a function that is NULL does nothing.
 */
typedef struct SaveVMHandlers {
    /* First, before the START section: allocate, start tracking. */
    int (*save_prepare)(void *opaque, MigrationContext *ctx, Error **errp);
    /* The data of the START section. */
    int (*save_setup)(void *opaque, MigrationFile *f, Error **errp);
    /*
     * A turn (PART): sends as much as its time slice allows.
     * Returns 1 when nothing is left to send for now, 0 when there is more, -1 on error.
     */
    int (*save_iterate)(void *opaque, MigrationFile *f, Error **errp);
    /* The rest (END); the machine is stopped. */
    int (*save_complete)(void *opaque, MigrationFile *f, Error **errp);
    /*
     * Bytes still to be sent. @exact: find out (read the dirty bitmap), else estimate cheaply.
     */
    int (*state_pending)(void *opaque, bool exact, uint64_t *bytes, Error **errp);
    /* Last, whether it went well or not; threads joined and tracking off when it returns. */
    void (*save_cleanup)(void *opaque);

    int (*load_prepare)(void *opaque, MigrationContext *ctx, Error **errp);
    /* The data of one START, PART or END section. */
    int (*load_state)(void *opaque, MigrationFile *f, uint32_t version, Error **errp);
    /* After the stream's end, before the machine runs: everything must be in place now. */
    int (*load_complete)(void *opaque, Error **errp);
    void (*load_cleanup)(void *opaque);
} SaveVMHandlers;

/* Register a section that is sent in turns; @handlers are kept, for good. */
void savevm_register_live(const char *idstr, uint32_t instance_id, uint32_t version,
                          const SaveVMHandlers *handlers, void *opaque);

/* Saving, in this order; all but the first fill @ctx->main_file. */
int savevm_prepare(MigrationContext *ctx, Error **errp);
int savevm_header(MigrationContext *ctx, Error **errp);
int savevm_setup(MigrationContext *ctx, Error **errp);
int savevm_iterate(MigrationContext *ctx, Error **errp);
int savevm_pending(MigrationContext *ctx, bool exact, uint64_t *bytes, Error **errp);
/* END sections; the machine is stopped, big lock not held. */
int savevm_complete_live(MigrationContext *ctx, Error **errp);
/* FULL sections of all devices, EOF and the JSON description; takes the big lock itself. */
int savevm_complete_devices(MigrationContext *ctx, Error **errp);
/*
 * Flush, make a file durable, and only then mark it as whole; on other transports flush and wait
 * for the transport's own end.
 */
int savevm_finish(MigrationContext *ctx, Error **errp);
void savevm_cleanup(MigrationContext *ctx);

/* A COMMAND element; commands are in savevm-internal.h. @len at most 65535. */
void savevm_command(MigrationFile *f, uint16_t command, const void *data, uint16_t len);

/*
 * Load a whole stream; the loading thread, without the big lock. When it returns 0 everything up to
 * the end of the stream was read, checked and applied.
 */
int loadvm(MigrationContext *ctx, Error **errp);

/* The run state that the stream's globalstate section carried; RUN_STATE__MAX when it had none. */
int loadvm_global_state(void);
/* Source: remember the run state that the stream will carry; before vCPUs are stopped. */
void savevm_store_global_state(void);

#endif
