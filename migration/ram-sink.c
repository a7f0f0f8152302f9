/*
 * Which sink and which source: the one place that looks at the capabilities for that.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram.h"
#include "migration/ram-load.h"

RamSink *ram_sink_new(MigrationContext *ctx, Error **errp)
{
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
    return NULL;
}
