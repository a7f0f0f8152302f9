/*
 * Receiving RAM over several connections.
 *
 * Each channel has a thread that reads packets and fills guest memory, straight from the socket or
 * through decompression. At a sync packet it waits until the loading thread has come to the
 * MULTIFD_FLUSH record of the main stream and all other channels to their sync packets: only
 * then anybody goes on, so that versions of a page never overtake each other.
 *
 * The first thing that goes wrong on a channel ends everything: the main stream gets the reason as
 * its error, and all channels are shut down. A channel that ends before it should is named.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/multifd-socket.h"

#include <inttypes.h>
#include <string.h>

#include "migration/multifd-format.h"
#include "migration/multifd-method.h"
#include "migration/multifd.h"
#include "system/identity.h"
#include "util/mutex.h"
#include "util/thread.h"

typedef struct RecvSource RecvSource;

typedef struct RecvChannel {
    RecvSource *source;
    unsigned id;
    QIOChannel *ioc;
    GThread *thread;
    bool ended;                 /* the peer closed it; under the source's lock */
    void *decompress;
    uint8_t *data;
    RamTarget *target;
    MultifdPacket packet;
    uint8_t bytes[MULTIFD_PACKET_BYTES];
    struct iovec iov[MULTIFD_PACKET_PAGES];
} RecvChannel;

struct RecvSource {
    RamSource parent;
    const MultifdMethod *method;
    RecvChannel **channels;     /* by id */
    unsigned n;
    Mutex lock;
    Cond progress;              /* for the loading thread */
    Cond go_on;                 /* for the channels */
    /* Under the lock: */
    unsigned at_sync;           /* channels that wait at their sync packet */
    uint64_t released;          /* syncs that are over */
    uint64_t packets; /* received, and the highest number plus 1: equal when none is lost */
    uint64_t packets_sent;
    bool quit;
    Error *err;
};

/* Failing -------------------------------------------------------------------------------------- */

static void source_fail(RecvSource *source, Error *err)
{
    bool first;

    mutex_lock(&source->lock);
    first = !source->err && !source->quit;
    if (first) {
        source->err = err;
        cond_broadcast(&source->go_on);
        cond_broadcast(&source->progress);
        mfile_abort(source->parent.ctx->main_file, error_copy(err));
    }
    mutex_unlock(&source->lock);
    if (!first) {
        error_free(err);
        return;
    }
    for (unsigned i = 0; i < source->n; i++) {
        qio_channel_shutdown(source->channels[i]->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    }
}

/* Channels ------------------------------------------------------------------------------------- */

/* Pages of this packet that follow one another as one run each: @fn gets first and number. */
static int for_runs(RecvChannel *ch, uint32_t from, uint32_t n, Error **errp,
                    int (*fn)(RecvChannel *ch, uint64_t first, uint64_t pages, Error **errp))
{
    const uint64_t *offsets = ch->packet.offsets + from;

    for (uint32_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && offsets[end] == offsets[end - 1] + TARGET_PAGE_SIZE; end++) {
        }
        if (fn(ch, offsets[i] >> TARGET_PAGE_BITS, end - i, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

static int mark_written(RecvChannel *ch, uint64_t first, uint64_t pages, Error **errp)
{
    ram_target_written(ch->target, first, pages);
    return 0;
}

static int mark_zero(RecvChannel *ch, uint64_t first, uint64_t pages, Error **errp)
{
    return ram_target_zero(ch->target, first, pages, errp);
}

/* What only this side can know about a packet. */
static int check_packet(RecvChannel *ch, Error **errp)
{
    const MultifdPacket *packet = &ch->packet;
    const MultifdMethod *method = ch->source->method;
    uint32_t compression = packet->flags & MULTIFD_FLAG_COMPRESSION;

    if (compression != method->flag) {
        error_setg(errp, "packet with compression 0x%x, but parameter 'multifd-compression' is "
                   "'%s' here", compression, method->name);
        return -1;
    }
    ch->target = ram_source_target(&ch->source->parent, packet->block);
    if (!ch->target) {
        g_autofree char *shown = g_strescape(packet->block, NULL);

        error_setg(errp, "pages of an unknown RAM block '%s'", shown);
        return -1;
    }
    for (uint32_t i = 0; i < packet->normal_pages + packet->zero_pages; i++) {
        if (packet->offsets[i] >= ch->target->block->used_length) {
            error_setg(errp, "RAM block '%s': offset 0x%" PRIx64 " is beyond its end (0x%" PRIx64
                       " bytes)", packet->block, packet->offsets[i],
                       ch->target->block->used_length);
            return -1;
        }
    }
    if (method->decompress ? packet->data_bytes > MULTIFD_COMPRESSED_MAX ||
                                 (packet->normal_pages && !packet->data_bytes)
                           : packet->data_bytes != packet->normal_pages * TARGET_PAGE_SIZE) {
        error_setg(errp, "%u bytes of data for %u pages", packet->data_bytes,
                   packet->normal_pages);
        return -1;
    }
    return 0;
}

static int read_raw(RecvChannel *ch, Error **errp)
{
    uint8_t *host = ch->target->block->host;
    unsigned n = 0;

    for (uint32_t i = 0; i < ch->packet.normal_pages; i++) {
        uint8_t *page = host + ch->packet.offsets[i];

        if (n && (uint8_t *)ch->iov[n - 1].iov_base + ch->iov[n - 1].iov_len == page) {
            ch->iov[n - 1].iov_len += TARGET_PAGE_SIZE;
        } else {
            ch->iov[n++] = (struct iovec) { page, TARGET_PAGE_SIZE };
        }
    }
    return qio_channel_readv_all(ch->ioc, ch->iov, n, errp);
}

static int read_compressed(RecvChannel *ch, Error **errp)
{
    uint8_t *pages[MULTIFD_PACKET_PAGES];

    if (qio_channel_read_all(ch->ioc, ch->data, ch->packet.data_bytes, errp) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < ch->packet.normal_pages; i++) {
        pages[i] = ch->target->block->host + ch->packet.offsets[i];
    }
    return ch->source->method->decompress(ch->decompress, ch->data, ch->packet.data_bytes, pages,
                                          ch->packet.normal_pages, errp);
}

static int take_pages(RecvChannel *ch, Error **errp)
{
    const MultifdPacket *packet = &ch->packet;
    MigrationCounters *counters = &ch->source->parent.ctx->counters;

    if (check_packet(ch, errp) < 0) {
        return -1;
    }
    if (packet->normal_pages) {
        for_runs(ch, 0, packet->normal_pages, NULL, mark_written);
        if ((ch->decompress ? read_compressed(ch, errp) : read_raw(ch, errp)) < 0) {
            error_prepend(errp, "RAM block '%s', %u pages from offset 0x%" PRIx64 " on: ",
                          packet->block, packet->normal_pages, packet->offsets[0]);
            return -1;
        }
    }
    counter_add(counters->normal_pages, packet->normal_pages);
    counter_add(counters->zero_pages, packet->zero_pages);
    counter_add(counters->multifd_bytes, packet->data_bytes + MULTIFD_PACKET_BYTES);
    return for_runs(ch, packet->normal_pages, packet->zero_pages, errp, mark_zero);
}

/* Wait until everybody is at this sync. */
static void wait_released(RecvChannel *ch)
{
    RecvSource *source = ch->source;
    uint64_t before;

    mutex_lock(&source->lock);
    before = source->released;
    source->at_sync++;
    cond_signal(&source->progress);
    while (source->released == before && !source->quit && !source->err) {
        cond_wait(&source->go_on, &source->lock);
    }
    mutex_unlock(&source->lock);
}

/* Returns 1 to go on, 0 at the end of the channel, -1 on error. */
static int take_packet(RecvChannel *ch, Error **errp)
{
    RecvSource *source = ch->source;
    int ret = qio_channel_read_all_eof(ch->ioc, ch->bytes, sizeof(ch->bytes), errp);

    if (ret <= 0) {
        return ret;
    }
    if (multifd_packet_decode(&ch->packet, ch->bytes, errp) < 0) {
        return -1;
    }
    if (ch->packet.normal_pages + ch->packet.zero_pages && take_pages(ch, errp) < 0) {
        return -1;
    }
    mutex_lock(&source->lock);
    source->packets++;
    source->packets_sent = MAX(source->packets_sent, ch->packet.number + 1);
    mutex_unlock(&source->lock);
    if (ch->packet.flags & MULTIFD_FLAG_SYNC) {
        wait_released(ch);
    }
    return 1;
}

static gpointer recv_thread(gpointer opaque)
{
    RecvChannel *ch = opaque;
    RecvSource *source = ch->source;
    Error *err = NULL;
    int ret;

    do {
        ret = take_packet(ch, &err);
    } while (ret > 0);
    if (ret < 0) {
        error_prepend(&err, "multifd channel %u: ", ch->id);
        source_fail(source, err);
    }
    mutex_lock(&source->lock);
    ch->ended = true;
    cond_signal(&source->progress);
    mutex_unlock(&source->lock);
    return NULL;
}

/* The source ----------------------------------------------------------------------------------- */

/* Read who @ioc is, and put it in its place. Takes the reference. */
static int introduce_channel(RecvSource *source, QIOChannel *ioc, Error **errp)
{
    uint8_t uuid[16], bytes[MULTIFD_INIT_BYTES];
    RecvChannel *ch;
    int id;

    identity_uuid(uuid);
    if (qio_channel_read_all(ioc, bytes, sizeof(bytes), errp) < 0) {
        return -1;
    }
    id = multifd_init_decode(bytes, uuid, errp);
    if (id < 0) {
        return -1;
    }
    if ((unsigned)id >= source->n) {
        error_setg(errp, "it has number %d, but parameter 'multifd-channels' is %u here", id,
                   source->n);
        return -1;
    }
    if (source->channels[id]) {
        error_setg(errp, "it has number %d, as another has", id);
        return -1;
    }
    ch = source->channels[id] = g_new0(RecvChannel, 1);
    ch->source = source;
    ch->id = id;
    ch->ioc = qio_channel_ref(ioc);
    if (source->method->decompress) {
        ch->data = g_malloc(MULTIFD_COMPRESSED_MAX);
        ch->decompress = source->method->decompress_new(errp);
        return ch->decompress ? 0 : -1;
    }
    return 0;
}

/* All blocks are known; the source opened its channels before it sent them. */
static int recv_start(RamSource *parent, MigrationFile *f, Error **errp)
{
    RecvSource *source = (RecvSource *)parent;
    MigrationContext *ctx = parent->ctx;
    unsigned n = ctx->opts.params.multifd_channels;
    g_autoptr(GPtrArray) channels = multifd_open_channels(ctx, n, false, errp);

    if (!channels) {
        return -1;
    }
    source->channels = g_new0(RecvChannel *, n);
    source->n = n;
    for (guint i = 0; i < channels->len; i++) {
        if (introduce_channel(source, g_ptr_array_index(channels, i), errp) < 0) {
            error_prepend(errp, "multifd connection %u of %u: ", i + 1, n);
            return -1;
        }
    }
    if (migration_channels_extra_left(ctx->channels)) {
        error_setg(errp, "the source opened more multifd channels than the %u of parameter "
                   "'multifd-channels' here", n);
        return -1;
    }
    counter_set(ctx->counters.channels, n);
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *name = g_strdup_printf("mig/recv_%u", i);
        source->channels[i]->thread =
            thread_try_new(name, recv_thread, source->channels[i], errp);
        if (!source->channels[i]->thread) {
            return -1;
        }
    }
    return 0;
}

/* A channel that ended and is not at its sync: it will never be. Under the lock. */
static RecvChannel *lost_channel(RecvSource *source)
{
    for (unsigned i = 0; i < source->n; i++) {
        if (source->channels[i]->ended) {
            return source->channels[i];
        }
    }
    return NULL;
}

static int recv_flush(RamSource *parent, Error **errp)
{
    RecvSource *source = (RecvSource *)parent;
    RecvChannel *lost = NULL;
    int ret = 0;

    mutex_lock(&source->lock);
    while (source->at_sync < source->n && !source->err && !(lost = lost_channel(source)) &&
           !migration_context_cancelled(parent->ctx)) {
        cond_wait(&source->progress, &source->lock);
    }
    if (source->err) {
        error_propagate(errp, error_copy(source->err));
        ret = -1;
    } else if (source->at_sync < source->n) {
        if (lost) {
            error_setg(errp, "multifd channel %u was closed before all of its pages had come",
                       lost->id);
        } else {
            error_setg(errp, "the migration was cancelled");
        }
        ret = -1;
    } else {
        source->at_sync = 0;
        source->released++;
        cond_broadcast(&source->go_on);
    }
    mutex_unlock(&source->lock);
    return ret;
}

/* End the threads: nothing is written to guest memory after this. */
static void stop_channels(RecvSource *source)
{
    mutex_lock(&source->lock);
    source->quit = true;
    cond_broadcast(&source->go_on);
    mutex_unlock(&source->lock);
    for (unsigned i = 0; i < source->n; i++) {
        RecvChannel *ch = source->channels[i];

        if (ch && ch->thread) {
            qio_channel_shutdown(ch->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
            g_thread_join(ch->thread);
            ch->thread = NULL;
        }
    }
}

static int recv_finish(RamSource *parent, Error **errp)
{
    RecvSource *source = (RecvSource *)parent;

    stop_channels(source);
    if (source->err) {
        error_propagate(errp, error_copy(source->err));
        return -1;
    }
    if (source->packets != source->packets_sent) {
        error_setg(errp, "%" PRIu64 " multifd packets were sent, but %" PRIu64 " came",
                   source->packets_sent, source->packets);
        return -1;
    }
    return 0;
}

static void recv_free(RamSource *parent)
{
    RecvSource *source = (RecvSource *)parent;

    stop_channels(source);
    for (unsigned i = 0; i < source->n; i++) {
        RecvChannel *ch = source->channels[i];

        if (ch) {
            if (ch->decompress) {
                source->method->decompress_free(ch->decompress);
            }
            qio_channel_unref(ch->ioc);
            g_free(ch->data);
            g_free(ch);
        }
    }
    g_free(source->channels);
    error_free(source->err);
    cond_destroy(&source->progress);
    cond_destroy(&source->go_on);
    mutex_destroy(&source->lock);
    g_free(source);
}

static const RamSourceClass recv_class = {
    .name = "multifd",
    .start = recv_start,
    .flush = recv_flush,
    .finish = recv_finish,
    .free = recv_free,
};

RamSource *multifd_recv_source_new(MigrationContext *ctx, Error **errp)
{
    RecvSource *source = g_new0(RecvSource, 1);

    source->parent.klass = &recv_class;
    source->parent.ctx = ctx;
    source->method = multifd_method(&ctx->opts);
    mutex_init(&source->lock);
    cond_init(&source->progress);
    cond_init(&source->go_on);
    return &source->parent;
}
