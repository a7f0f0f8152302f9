/*
 * Which sink and which source: the one place that looks at the capabilities for that.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/multifd-socket.h"
#include "migration/ram-load.h"
#include "migration/ram-mapped.h"
#include "migration/ram.h"

RamSink *ram_sink_new(MigrationContext *ctx, Error **errp)
{
    if (migration_cap(&ctx->opts, MIGRATION_CAPABILITY_DIRECT_MAPPED)) {
        return ram_mapped_sink_new(ctx, errp);
    }
    if (migration_cap(&ctx->opts, MIGRATION_CAPABILITY_MULTIFD)) {
        return multifd_send_sink_new(ctx, errp);
    }
    return ram_stream_sink_new(ctx, errp);
}

void ram_sink_free(RamSink *sink)
{
    if (sink) {
        sink->klass->free(sink);
    }
}

RamSource *ram_source_new(MigrationContext *ctx, const GPtrArray *targets, Error **errp)
{
    RamSource *source = NULL;

    if (migration_cap(&ctx->opts, MIGRATION_CAPABILITY_DIRECT_MAPPED)) {
        source = ram_mapped_source_new(ctx, errp);
    } else if (migration_cap(&ctx->opts, MIGRATION_CAPABILITY_MULTIFD)) {
        source = multifd_recv_source_new(ctx, errp);
    }
    if (source) {
        source->targets = targets;
    }
    return source;
}
