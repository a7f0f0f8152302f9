/*
 * MigrationContext: what the parts of one running migration share. Made by migration.c (source) or
 * incoming.c (destination), one at a time, and handed to every SaveVMHandlers.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_CONTEXT_H
#define MIGRATION_CONTEXT_H

#include <glib.h>
#include "migration/channels.h"
#include "migration/migration-file.h"
#include "migration/options.h"
#include "migration/savevm.h"

/* Counters; written by one thread each or atomically, read by query-migrate. */
typedef struct MigrationCounters {
    uint64_t zero_pages;
    uint64_t normal_pages;
    uint64_t multifd_bytes;         /* on multifd channels, headers included */
    uint64_t outstanding_bytes; /* of guest memory, handed to threads that have yet to send it */
    uint64_t mapped_bytes;          /* written at offsets of a file by the migration thread */
    uint64_t dirty_sync_count;
    uint64_t dirty_pages_rate;      /* pages per second, last iteration */
    uint64_t remaining_bytes;
    uint64_t total_bytes;
    uint64_t precopy_bytes, downtime_bytes;
    uint64_t channels;              /* multifd channels in use */
} MigrationCounters;

#define counter_add(counter, n) __atomic_fetch_add(&(counter), (n), __ATOMIC_RELAXED)
#define counter_sub(counter, n) __atomic_fetch_sub(&(counter), (n), __ATOMIC_RELAXED)
#define counter_set(counter, n) __atomic_store_n(&(counter), (n), __ATOMIC_RELAXED)
#define counter_get(counter) __atomic_load_n(&(counter), __ATOMIC_RELAXED)

struct MigrationContext {
    bool incoming;
    MigrationOptions opts;
    MigrationChannels *channels;
    MigrationFile *main_file;
    uint64_t stream_offset;         /* in a file: where the stream begins */
    MigrationCounters counters;
    bool stopped;                   /* the source stands: save_complete or nearly; atomic */
    int cancelled;                  /* atomic; looked at between pieces of work */
    /*
     * Bytes that may still be sent in this turn; the RAM code stops a turn when it is used up.
     * Migration thread only.
     */
    int64_t turn_budget;
    /*
     * Source: the destination will say that it has read all, and until then memory may be lent to
     * the channels (io/channel.h).
     */
    bool lend;
};

/* Whether the migration is to end soon as failed or cancelled. Any thread. */
static inline bool migration_context_cancelled(MigrationContext *ctx)
{
    return __atomic_load_n(&ctx->cancelled, __ATOMIC_RELAXED);
}
/* Everything sent so far, on all channels, bytes. */
uint64_t migration_context_transferred(MigrationContext *ctx);
/* The counters as query-migrate shows them; rates are left zero. The caller frees it. */
MigrationStats *migration_context_stats(MigrationContext *ctx);

#endif
