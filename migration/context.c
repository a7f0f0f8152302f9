/*
 * What the counters of a running migration say, for either side.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/context.h"

#include "system/ramblock.h"

uint64_t migration_context_transferred(MigrationContext *ctx)
{
    return (ctx->main_file ? mfile_transferred(ctx->main_file) : 0) +
           counter_get(ctx->counters.multifd_bytes) + counter_get(ctx->counters.mapped_bytes);
}

MigrationStats *migration_context_stats(MigrationContext *ctx)
{
    MigrationStats *ram = g_new0(MigrationStats, 1);
    const MigrationCounters *c = &ctx->counters;

    ram->transferred = migration_context_transferred(ctx);
    ram->total = counter_get(c->total_bytes);
    ram->remaining = counter_get(c->remaining_bytes);
    ram->duplicate = counter_get(c->zero_pages);
    ram->normal = counter_get(c->normal_pages);
    ram->normal_bytes = ram->normal * TARGET_PAGE_SIZE;
    ram->dirty_pages_rate = counter_get(c->dirty_pages_rate);
    ram->dirty_sync_count = counter_get(c->dirty_sync_count);
    ram->page_size = TARGET_PAGE_SIZE;
    ram->multifd_bytes = counter_get(c->multifd_bytes);
    ram->precopy_bytes = counter_get(c->precopy_bytes);
    ram->downtime_bytes = counter_get(c->downtime_bytes);
    return ram;
}
