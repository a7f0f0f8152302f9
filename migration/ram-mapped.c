/*
 * What saving and loading a direct-mapped file have in common: the channels, and who does which
 * part.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram-mapped.h"

#include "migration/file-io.h"

/* Stretches of a block that belong to one channel: several requests long. */
#define REGION_PAGES ((4 * FILE_IO_REQUEST_BYTES) / TARGET_PAGE_SIZE)

void mapped_block_free(MappedBlock *mb)
{
    g_free(mb->bitmap);
    g_free(mb);
}

MultifdPool *mapped_pool_new(MigrationContext *ctx, const MultifdOps *ops, void *opaque,
                             Error **errp)
{
    bool threads = migration_cap(&ctx->opts, MIGRATION_CAPABILITY_MULTIFD);
    bool direct = migration_cap(&ctx->opts, MIGRATION_CAPABILITY_BYPASS_CACHE);
    g_autoptr(GPtrArray) channels = NULL;

    if (threads || direct) {
        channels = multifd_open_channels(ctx, threads ? ctx->opts.params.multifd_channels : 1,
                                         direct, errp);
        if (!channels) {
            return NULL;
        }
    } else {
        channels = g_ptr_array_new();
        g_ptr_array_add(channels, mfile_channel(ctx->main_file));
    }
    return multifd_pool_new(ctx, ops, opaque, channels, threads, errp);
}

int mapped_pool_submit(MultifdPool *pool, MappedBlock *mb, uint64_t first, uint64_t n,
                       Error **errp)
{
    while (n) {
        uint64_t region = first / REGION_PAGES;
        MultifdJob job = {
            .block = mb, .first = first,
            .pages = MIN(n, (region + 1) * REGION_PAGES - first),
        };

        if (multifd_pool_submit(pool, region % multifd_pool_channels(pool), &job, errp) < 0) {
            return -1;
        }
        first += job.pages;
        n -= job.pages;
    }
    return 0;
}
