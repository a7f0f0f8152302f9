/*
 * The sink that puts pages into the main stream, one record a page, by reference: the kernel copies
 * them from guest memory when the stream's batch is written.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram.h"

#include <string.h>

#include "migration/ram-format.h"
#include "migration/zero-scan.h"

typedef struct StreamSink {
    RamSink parent;
    RAMBlock *last_block;       /* of the record before, in this section */
    ZeroScan *scan;             /* NULL: every page is data */
} StreamSink;

static int stream_section_begin(RamSink *sink, MigrationFile *f, Error **errp)
{
    ((StreamSink *)sink)->last_block = NULL;
    return 0;
}

/* Returns the bytes put. */
static unsigned put_header(StreamSink *ss, RAMBlock *block, uint64_t page, uint64_t flags,
                           MigrationFile *f)
{
    uint64_t word = page << TARGET_PAGE_BITS | flags;

    if (ss->last_block == block) {
        mfile_put_be64(f, word | RAM_RECORD_CONTINUE);
        return 8;
    }
    mfile_put_be64(f, word);
    mfile_put_counted_string(f, block->idstr);
    ss->last_block = block;
    return 8 + 1 + strlen(block->idstr);
}

static unsigned put_page(StreamSink *ss, RAMBlock *block, uint64_t page, bool zero,
                         MigrationFile *f)
{
    unsigned bytes;

    if (zero) {
        bytes = put_header(ss, block, page, RAM_RECORD_ZERO, f) + 1;
        mfile_put_u8(f, 0);
    } else {
        bytes = put_header(ss, block, page, RAM_RECORD_PAGE, f) + TARGET_PAGE_SIZE;
        mfile_put_ref(f, block->host + (page << TARGET_PAGE_BITS), TARGET_PAGE_SIZE);
    }
    return bytes;
}

static int64_t stream_write_run(RamSink *sink, RAMBlock *block, uint64_t first, uint64_t n,
                                MigrationFile *f, Error **errp)
{
    StreamSink *ss = (StreamSink *)sink;
    uint64_t zero = 0;
    int64_t bytes = 0;

    for (uint64_t at = 0; at < n; at += ZERO_SCAN_PAGES) {
        unsigned part = MIN(n - at, ZERO_SCAN_PAGES);
        bool is_zero[ZERO_SCAN_PAGES] = { false };

        if (ss->scan) {
            zero_scan(ss->scan, block->host + ((first + at) << TARGET_PAGE_BITS), part, is_zero);
        }
        for (unsigned i = 0; i < part; i++) {
            bytes += put_page(ss, block, first + at + i, is_zero[i], f);
            zero += is_zero[i];
        }
    }
    counter_add(sink->ctx->counters.zero_pages, zero);
    counter_add(sink->ctx->counters.normal_pages, n - zero);
    return mfile_check(f, errp) < 0 ? -1 : bytes;
}

static void stream_free(RamSink *sink)
{
    zero_scan_free(((StreamSink *)sink)->scan);
    g_free(sink);
}

static const RamSinkClass stream_class = {
    .name = "stream",
    .section_begin = stream_section_begin,
    .write_run = stream_write_run,
    .free = stream_free,
};

RamSink *ram_stream_sink_new(MigrationContext *ctx, Error **errp)
{
    StreamSink *ss = g_new0(StreamSink, 1);

    ss->parent.klass = &stream_class;
    ss->parent.ctx = ctx;
    if (ctx->opts.params.zero_page_detection != ZERO_PAGE_DETECTION_NONE) {
        ss->scan = zero_scan_new(ctx->lend);
    }
    return &ss->parent;
}
