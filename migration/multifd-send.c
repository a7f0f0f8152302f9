/*
 * Sending RAM over several connections.
 *
 * The migration thread hands runs of pages to whichever worker has least to do; a worker gathers
 * pages of one block until a packet is full, and sends header and pages with one write straight
 * from guest memory (or compressed). Zero pages travel as their offsets, or, when the migration
 * thread looks for them (zero-page-detection legacy), as records in the main stream.
 *
 * A flush makes every worker send a sync packet, and puts MULTIFD_FLUSH into the main stream: the
 * other side waits there until all channels have come to it, so what is sent after is newer than
 * what was sent before, on whichever channel.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/multifd-socket.h"

#include <string.h>

#include "migration/multifd-format.h"
#include "migration/multifd-method.h"
#include "migration/multifd.h"
#include "migration/ram-format.h"
#include "migration/zero-scan.h"
#include "system/identity.h"
#include "util/fresh-pages.h"
#include "util/zero.h"

/*
 * Headers are lent with the pages, so each has its own bytes, and new ones are got for many at
 * once.
 */
#define HEADERS_BYTES (64 * MULTIFD_PACKET_BYTES)

typedef struct SendSink {
    RamSink parent;
    MultifdPool *pool;
    const MultifdMethod *method;
    uint64_t packets;           /* sent, on all channels; atomic */
    ZeroPageDetection detect;
    RamSink *records;           /* writes the main stream's zero records; legacy detection only */
} SendSink;

typedef struct SendState {
    RAMBlock *block;            /* of the packet being gathered */
    MultifdPacket packet;
    uint64_t zero_offsets[MULTIFD_PACKET_PAGES];
    uint8_t *bytes;             /* fresh pages for the headers of packets; next_header is free */
    size_t next_header;
    struct iovec iov[1 + MULTIFD_PACKET_PAGES];
    ZeroScan *scan;             /* NULL: this thread looks for none */
    void *compress;
    uint8_t *compressed;
} SendState;

/* Workers -------------------------------------------------------------------------------------- */

static int send_start(MultifdWorker *worker, Error **errp)
{
    SendSink *sink = worker->opaque;
    SendState *s = g_new0(SendState, 1);

    worker->state = s;
    s->bytes = fresh_pages_new(HEADERS_BYTES);
    if (sink->detect == ZERO_PAGE_DETECTION_MULTIFD) {
        s->scan = zero_scan_new(worker->ctx->lend && !sink->method->compress);
    }
    if (sink->method->compress) {
        s->compressed = g_malloc(MULTIFD_COMPRESSED_MAX);
        s->compress = sink->method->compress_new(&worker->ctx->opts, errp);
        return s->compress ? 0 : -1;
    }
    return 0;
}

static void send_end(MultifdWorker *worker)
{
    SendSink *sink = worker->opaque;
    SendState *s = worker->state;

    if (s) {
        if (s->compress) {
            sink->method->compress_free(s->compress);
        }
        g_free(s->compressed);
        fresh_pages_free(s->bytes, HEADERS_BYTES);
        zero_scan_free(s->scan);
        g_free(s);
        worker->state = NULL;
    }
}

/* Describe the packet's pages in iov[1..]; neighbours in memory share an element. */
static unsigned gather_raw(SendState *s)
{
    unsigned n = 1;

    for (uint32_t i = 0; i < s->packet.normal_pages; i++) {
        uint8_t *page = s->block->host + s->packet.offsets[i];
        struct iovec *last = &s->iov[n - 1];

        if (n > 1 && (uint8_t *)last->iov_base + last->iov_len == page) {
            last->iov_len += TARGET_PAGE_SIZE;
        } else {
            s->iov[n++] = (struct iovec) { page, TARGET_PAGE_SIZE };
        }
    }
    s->packet.data_bytes = s->packet.normal_pages * TARGET_PAGE_SIZE;
    return n;
}

static int gather_compressed(const MultifdMethod *method, SendState *s, Error **errp)
{
    uint8_t *pages[MULTIFD_PACKET_PAGES];
    int64_t len;

    s->packet.data_bytes = 0;
    if (!s->packet.normal_pages) {
        return 1;
    }
    for (uint32_t i = 0; i < s->packet.normal_pages; i++) {
        pages[i] = s->block->host + s->packet.offsets[i];
    }
    len = method->compress(s->compress, pages, s->packet.normal_pages, s->compressed, errp);
    if (len < 0) {
        return -1;
    }
    s->packet.data_bytes = len;
    s->iov[1] = (struct iovec) { s->compressed, len };
    return 2;
}

/* Write header and pages; what was compressed is in a buffer that is used again, and copied. */
static int write_packet(MultifdWorker *worker, int niov, Error **errp)
{
    SendSink *sink = worker->opaque;
    SendState *s = worker->state;

    if (!worker->ctx->lend || sink->method->compress ||
        !qio_channel_has_feature(worker->ioc, QIO_CHANNEL_FEATURE_LEND)) {
        return qio_channel_writev_all(worker->ioc, s->iov, niov, errp);
    }
    if (qio_channel_writev_lent_all(worker->ioc, s->iov, niov, errp) < 0) {
        return -1;
    }
    s->next_header += MULTIFD_PACKET_BYTES;
    if (s->next_header == HEADERS_BYTES) {
        fresh_pages_renew(s->bytes, HEADERS_BYTES);
        s->next_header = 0;
    }
    return 0;
}

/* Send what was gathered, with @flags besides the method's; a sync packet has no pages. */
static int send_packet(MultifdWorker *worker, uint32_t flags, Error **errp)
{
    SendSink *sink = worker->opaque;
    SendState *s = worker->state;
    MultifdPacket *packet = &s->packet;
    uint32_t pages = packet->normal_pages + packet->zero_pages;
    int niov;

    packet->flags = flags | (pages ? sink->method->flag : 0);
    memcpy(packet->offsets + packet->normal_pages, s->zero_offsets,
           packet->zero_pages * sizeof(packet->offsets[0]));
    packet->number = __atomic_fetch_add(&sink->packets, 1, __ATOMIC_RELAXED);
    memset(packet->block, 0, sizeof(packet->block));
    if (pages) {
        strcpy(packet->block, s->block->idstr);
    }
    niov = sink->method->compress ? gather_compressed(sink->method, s, errp) : (int)gather_raw(s);
    if (niov < 0) {
        return -1;
    }
    multifd_packet_encode(s->bytes + s->next_header, packet);
    s->iov[0] = (struct iovec) { s->bytes + s->next_header, MULTIFD_PACKET_BYTES };
    if (write_packet(worker, niov, errp) < 0) {
        return -1;
    }
    counter_add(*worker->bytes, MULTIFD_PACKET_BYTES + packet->data_bytes);
    counter_add(worker->ctx->counters.normal_pages, packet->normal_pages);
    counter_add(worker->ctx->counters.zero_pages, packet->zero_pages);
    packet->normal_pages = packet->zero_pages = 0;
    return 0;
}

static int send_gathered(MultifdWorker *worker, Error **errp)
{
    SendState *s = worker->state;
    return s->packet.normal_pages + s->packet.zero_pages ? send_packet(worker, 0, errp) : 0;
}

/* One more page of the block. */
static int gather_page(MultifdWorker *worker, uint64_t offset, bool zero, Error **errp)
{
    SendState *s = worker->state;
    MultifdPacket *packet = &s->packet;

    if (zero) {
        s->zero_offsets[packet->zero_pages++] = offset;
    } else {
        packet->offsets[packet->normal_pages++] = offset;
    }
    return packet->normal_pages + packet->zero_pages == MULTIFD_PACKET_PAGES
               ? send_packet(worker, 0, errp) : 0;
}

static int send_job(MultifdWorker *worker, const MultifdJob *job, Error **errp)
{
    SendState *s = worker->state;
    RAMBlock *block = job->block;

    if (s->block != block && send_gathered(worker, errp) < 0) {
        return -1;
    }
    s->block = block;
    for (uint64_t at = 0; at < job->pages; at += ZERO_SCAN_PAGES) {
        unsigned n = MIN(job->pages - at, ZERO_SCAN_PAGES);
        uint64_t offset = (job->first + at) << TARGET_PAGE_BITS;
        bool zero[ZERO_SCAN_PAGES] = { false };

        if (s->scan) {
            zero_scan(s->scan, block->host + offset, n, zero);
        }
        for (unsigned i = 0; i < n; i++, offset += TARGET_PAGE_SIZE) {
            if (gather_page(worker, offset, zero[i], errp) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int send_sync(MultifdWorker *worker, Error **errp)
{
    return send_gathered(worker, errp) < 0 ? -1 : send_packet(worker, MULTIFD_FLAG_SYNC, errp);
}

static const MultifdOps send_ops = {
    .name = "mig/send",
    .start = send_start,
    .job = send_job,
    .sync = send_sync,
    .end = send_end,
};

/* The sink ------------------------------------------------------------------------------------- */

/* Before the main stream speaks of RAM, so that the other side finds all channels there. */
static int introduce_channels(const GPtrArray *channels, Error **errp)
{
    uint8_t uuid[16], bytes[MULTIFD_INIT_BYTES];

    identity_uuid(uuid);
    for (guint i = 0; i < channels->len; i++) {
        multifd_init_encode(bytes, uuid, i);
        if (qio_channel_write_all(g_ptr_array_index(channels, i), bytes, sizeof(bytes), errp) < 0) {
            error_prepend(errp, "multifd channel %u: ", i);
            return -1;
        }
    }
    return 0;
}

static int sink_prepare(RamSink *parent, Error **errp)
{
    SendSink *sink = (SendSink *)parent;
    MigrationContext *ctx = parent->ctx;
    g_autoptr(GPtrArray) channels =
        multifd_open_channels(ctx, ctx->opts.params.multifd_channels, false, errp);

    if (!channels || introduce_channels(channels, errp) < 0) {
        return -1;
    }
    counter_add(ctx->counters.multifd_bytes, (uint64_t)channels->len * MULTIFD_INIT_BYTES);
    sink->pool = multifd_pool_new(ctx, &send_ops, sink, channels, true, errp);
    return sink->pool ? 0 : -1;
}

static int sink_section_begin(RamSink *parent, MigrationFile *f, Error **errp)
{
    RamSink *records = ((SendSink *)parent)->records;
    return records ? records->klass->section_begin(records, f, errp) : 0;
}

static int submit(SendSink *sink, RAMBlock *block, uint64_t first, uint64_t n, Error **errp)
{
    MultifdJob job = { .block = block, .first = first, .pages = n };
    return multifd_pool_submit(sink->pool, MULTIFD_ANY_CHANNEL, &job, errp);
}

/* Zero pages go to the main stream, the runs between them to the workers. */
static int64_t split_legacy(SendSink *sink, RAMBlock *block, uint64_t first, uint64_t n,
                            MigrationFile *f, Error **errp)
{
    uint64_t end = first + n, from;
    int64_t bytes = 0, more;

    while (first < end) {
        bool zero = buffer_is_zero(block->host + first * TARGET_PAGE_SIZE, TARGET_PAGE_SIZE);

        for (from = first++; first < end; first++) {
            if (buffer_is_zero(block->host + first * TARGET_PAGE_SIZE, TARGET_PAGE_SIZE) != zero) {
                break;
            }
        }
        if (zero) {
            /* A page that is written just now is sent as it is then, in the main stream. */
            more = sink->records->klass->write_run(sink->records, block, from, first - from, f,
                                                   errp);
        } else {
            more = submit(sink, block, from, first - from, errp) < 0
                       ? -1 : (int64_t)(first - from) * TARGET_PAGE_SIZE;
        }
        if (more < 0) {
            return -1;
        }
        bytes += more;
    }
    return bytes;
}

static int64_t sink_write_run(RamSink *parent, RAMBlock *block, uint64_t first, uint64_t n,
                              MigrationFile *f, Error **errp)
{
    SendSink *sink = (SendSink *)parent;
    uint64_t step = MULTIFD_PACKET_PAGES * 2;

    if (sink->records) {
        return split_legacy(sink, block, first, n, f, errp);
    }
    for (uint64_t at = 0; at < n; at += step) {
        if (submit(sink, block, first + at, MIN(n - at, step), errp) < 0) {
            return -1;
        }
    }
    return n * TARGET_PAGE_SIZE;
}

static int sink_flush(RamSink *parent, MigrationFile *f, Error **errp)
{
    if (multifd_pool_sync(((SendSink *)parent)->pool, errp) < 0) {
        return -1;
    }
    mfile_put_be64(f, RAM_RECORD_MULTIFD_FLUSH);
    /*
     * Not left in the stream's batch: the other side's channels stand still until it has come, and
     * what is handed out next could fill queues and sockets and keep this thread from writing it.
     */
    return mfile_flush(f, errp);
}

static void sink_free(RamSink *parent)
{
    SendSink *sink = (SendSink *)parent;

    multifd_pool_free(sink->pool);
    ram_sink_free(sink->records);
    g_free(sink);
}

static const RamSinkClass send_class = {
    .name = "multifd",
    .prepare = sink_prepare,
    .section_begin = sink_section_begin,
    .write_run = sink_write_run,
    .flush = sink_flush,
    .free = sink_free,
};

static const MultifdMethod method_none = { .name = "none", .flag = MULTIFD_FLAG_NOCOMP };

const MultifdMethod *multifd_method(const MigrationOptions *opts)
{
    switch (opts->params.multifd_compression) {
    case MULTI_FD_COMPRESSION_ZLIB:
        return &multifd_method_zlib;
    case MULTI_FD_COMPRESSION_ZSTD:
        return &multifd_method_zstd;
    default:
        return &method_none;
    }
}

RamSink *multifd_send_sink_new(MigrationContext *ctx, Error **errp)
{
    SendSink *sink = g_new0(SendSink, 1);

    sink->parent.klass = &send_class;
    sink->parent.ctx = ctx;
    sink->method = multifd_method(&ctx->opts);
    sink->detect = ctx->opts.params.zero_page_detection;
    if (sink->detect == ZERO_PAGE_DETECTION_LEGACY) {
        sink->records = ram_stream_sink_new(ctx, errp);
    }
    return &sink->parent;
}
