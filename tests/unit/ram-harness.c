/*
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Sections are framed by one byte: 1 another follows, 0 the end.
 */
#include "ram-harness.h"

#include <fcntl.h>
#include <string.h>

#include "io/channel-buffer.h"
#include "io/channel-file.h"
#include "migration/ram-format.h"
#include "system/cpus.h"
#include "util/zero.h"

/* Stand-ins ------------------------------------------------------------------------------------ */

int ram_harness_throttle;

void cpus_throttle_set(int percentage)
{
    ram_harness_throttle = percentage;
}

int cpus_throttle_get(void)
{
    return ram_harness_throttle;
}

unsigned migration_live_throttle_trigger(void)
{
    return 50;
}

unsigned migration_live_throttle_initial(void)
{
    return 20;
}

unsigned migration_live_throttle_increment(void)
{
    return 10;
}

unsigned migration_live_throttle_max(void)
{
    return 75;
}

bool migration_live_throttle_tailslow(void)
{
    return false;
}

uint64_t migration_context_transferred(MigrationContext *ctx)
{
    return mfile_transferred(ctx->main_file) + counter_get(ctx->counters.multifd_bytes) +
           counter_get(ctx->counters.mapped_bytes);
}

void savevm_register_live(const char *idstr, uint32_t instance_id, uint32_t version,
                          const SaveVMHandlers *handlers, void *opaque)
{
}

static QIOChannel *open_extra(MigrationChannels *mc, int flags, bool direct_io, Error **errp)
{
    if (mc->fail_extra && ++mc->next_extra >= mc->fail_extra) {
        error_setg(errp, "no more channels");
        return NULL;
    }
    if (mc->path) {
        return QIO_CHANNEL(qio_channel_file_new_path(
            mc->path, flags | (direct_io ? O_DIRECT : 0), 0600, errp));
    }
    if (mc->next_extra >= mc->extra->len) {
        error_setg(errp, "no more channels");
        return NULL;
    }
    return qio_channel_ref(g_ptr_array_index(mc->extra, mc->next_extra++));
}

QIOChannel *migration_channels_open_extra(MigrationChannels *mc, bool direct_io, Error **errp)
{
    return open_extra(mc, O_RDWR, direct_io, errp);
}

QIOChannel *migration_channels_accept_extra(MigrationChannels *mc, bool direct_io, Error **errp)
{
    return open_extra(mc, O_RDONLY, direct_io, errp);
}

bool migration_channels_extra_left(MigrationChannels *mc)
{
    return !mc->path && mc->next_extra < mc->extra->len;
}

const char *migration_channels_describe(const MigrationChannels *mc)
{
    return mc->path ? mc->path : "memory";
}

bool migration_channels_seekable(const MigrationChannels *mc)
{
    return mc->path != NULL;
}

void migration_channels_shutdown(MigrationChannels *mc)
{
}

/* The migration core --------------------------------------------------------------------------- */

RamHarness *ram_harness_new(void)
{
    RamHarness *h = g_new0(RamHarness, 1);
    MigrationParameters *params = &h->ctx.opts.params;

    h->main = QIO_CHANNEL(qio_channel_buffer_new(0));
    h->channels.extra = g_ptr_array_new_with_free_func((GDestroyNotify)qio_channel_unref);
    h->ctx.channels = &h->channels;
    params->multifd_channels = 2;
    params->multifd_zlib_level = 1;
    params->multifd_zstd_level = 1;
    params->zero_page_detection = ZERO_PAGE_DETECTION_MULTIFD;
    return h;
}

RamHarness *ram_harness_new_file(const char *path, uint64_t offset)
{
    RamHarness *h = ram_harness_new();

    qio_channel_unref(h->main);
    h->channels.path = g_strdup(path);
    h->channels.offset = offset;
    h->main = QIO_CHANNEL(qio_channel_file_new_path(path, O_RDWR | O_CREAT, 0600, &error_abort));
    ram_harness_rewind(h);
    return h;
}

void ram_harness_free(RamHarness *h)
{
    qio_channel_unref(h->main);
    g_ptr_array_unref(h->channels.extra);
    g_free(h->channels.path);
    g_free(h);
}

void ram_harness_add_extra(RamHarness *h, unsigned n)
{
    while (n--) {
        g_ptr_array_add(h->channels.extra, qio_channel_buffer_new(0));
    }
}

void ram_harness_rewind(RamHarness *h)
{
    qio_channel_io_seek(h->main, h->channels.offset, SEEK_SET, &error_abort);
    for (guint i = 0; i < h->channels.extra->len; i++) {
        qio_channel_io_seek(g_ptr_array_index(h->channels.extra, i), 0, SEEK_SET, &error_abort);
    }
    h->channels.next_extra = 0;
}

static int save_turns(RamHarness *h, MigrationFile *f, Error **errp)
{
    uint64_t pending;
    int left_nothing;

    for (;;) {
        if (h->before_turn) {
            h->before_turn(h, h->turns);
        }
        h->turns++;
        h->ctx.turn_budget = h->budget ? h->budget : INT64_MAX;
        mfile_put_u8(f, 1);
        left_nothing = ram_handlers.save_iterate(NULL, f, errp);
        if (left_nothing < 0 || mfile_flush(f, errp) < 0) {
            return -1;
        }
        if (!left_nothing) {
            continue;
        }
        if (counter_get(h->ctx.counters.dirty_sync_count) >= h->min_passes) {
            return 0;
        }
        if (ram_handlers.state_pending(NULL, true, &pending, errp) < 0) {
            return -1;
        }
    }
}

static int save_all(RamHarness *h, MigrationFile *f, Error **errp)
{
    if (ram_handlers.save_prepare(NULL, &h->ctx, errp) < 0) {
        return -1;
    }
    mfile_put_u8(f, 1);
    if (ram_handlers.save_setup(NULL, f, errp) < 0 || save_turns(h, f, errp) < 0) {
        return -1;
    }
    if (h->stop_guest) {
        h->stop_guest(h);
    }
    mfile_put_u8(f, 1);
    if (ram_handlers.save_complete(NULL, f, errp) < 0) {
        return -1;
    }
    mfile_put_u8(f, 0);
    return mfile_flush(f, errp);
}

int ram_harness_save(RamHarness *h, Error **errp)
{
    g_autoptr(MigrationFile) f = mfile_new_output(h->main);
    int ret;

    h->ctx.main_file = f;
    h->ctx.incoming = false;
    h->ctx.stream_offset = h->channels.offset;
    ret = save_all(h, f, errp);
    ram_handlers.save_cleanup(NULL);
    h->ctx.main_file = NULL;
    return ret;
}

static int load_all(RamHarness *h, MigrationFile *f, Error **errp)
{
    if (ram_handlers.load_prepare(NULL, &h->ctx, errp) < 0) {
        return -1;
    }
    while (mfile_get_u8(f) == 1) {
        if (ram_handlers.load_state(NULL, f, RAM_SECTION_VERSION, errp) < 0) {
            return -1;
        }
    }
    if (mfile_check(f, errp) < 0) {
        return -1;
    }
    return ram_handlers.load_complete(NULL, errp);
}

int ram_harness_load(RamHarness *h, Error **errp)
{
    g_autoptr(MigrationFile) f = NULL;
    int ret;

    ram_harness_rewind(h);
    f = mfile_new_input(h->main);
    h->ctx.main_file = f;
    h->ctx.incoming = true;
    ret = load_all(h, f, errp);
    ram_handlers.load_cleanup(NULL);
    h->ctx.main_file = NULL;
    return ret;
}

GByteArray *ram_harness_stream(RamHarness *h)
{
    GByteArray *array = g_byte_array_new();
    size_t size;
    const uint8_t *data = qio_channel_buffer_data((QIOChannelBuffer *)h->main, &size);

    return g_byte_array_append(array, data, size);
}

void ram_harness_set_stream(RamHarness *h, const uint8_t *data, size_t len)
{
    qio_channel_unref(h->main);
    h->main = QIO_CHANNEL(qio_channel_buffer_new(len));
    qio_channel_write_all(h->main, data, len, &error_abort);
}

/*
 * Memory ----------------------------------------------------------------------------------------
 */

struct RamSnapshot {
    GPtrArray *contents;
};

RamSnapshot *ram_snapshot_take(void)
{
    RamSnapshot *snapshot = g_new0(RamSnapshot, 1);

    snapshot->contents = g_ptr_array_new_with_free_func(g_free);
    RAMBLOCK_FOREACH(block) {
        uint8_t *copy = g_malloc0(block->used_length);
        uint64_t at = 0, n;

        while ((at = ram_block_populated_run(block, at, block->pages, &n)) < block->pages) {
            memcpy(copy + at * TARGET_PAGE_SIZE, block->host + at * TARGET_PAGE_SIZE,
                   n * TARGET_PAGE_SIZE);
            at += n;
        }
        g_ptr_array_add(snapshot->contents, copy);
    }
    return snapshot;
}

void ram_snapshot_compare(const RamSnapshot *snapshot)
{
    unsigned i = 0;

    RAMBLOCK_FOREACH(block) {
        const uint8_t *want = g_ptr_array_index(snapshot->contents, i++);

        for (uint64_t page = 0; page < block->pages; page++) {
            uint64_t at = page * TARGET_PAGE_SIZE;

            if (memcmp(want + at, block->host + at, TARGET_PAGE_SIZE)) {
                g_error("block %s differs at page %" G_GUINT64_FORMAT " (%s now, %s expected)",
                        block->idstr, page,
                        buffer_is_zero(block->host + at, TARGET_PAGE_SIZE) ? "zero" : "data",
                        buffer_is_zero(want + at, TARGET_PAGE_SIZE) ? "zero" : "data");
            }
        }
    }
}

void ram_snapshot_free(RamSnapshot *snapshot)
{
    g_ptr_array_unref(snapshot->contents);
    g_free(snapshot);
}

static void fill_page(uint8_t *page, GRand *rnd, int kind)
{
    static const char text[] = "It was a dark and stormy night; the rain fell in torrents. ";

    if (kind == 0) {
        memset(page, 0, TARGET_PAGE_SIZE);
    } else if (kind == 1) {
        for (unsigned i = 0; i < TARGET_PAGE_SIZE; i++) {
            page[i] = text[(i + kind) % (sizeof(text) - 1)];
        }
        page[0] = g_rand_int(rnd);
    } else {
        for (unsigned i = 0; i < TARGET_PAGE_SIZE; i += 4) {
            guint32 word = g_rand_int(rnd);
            memcpy(page + i, &word, 4);
        }
    }
}

void ram_fill(RAMBlock *block, uint32_t seed)
{
    g_autoptr(GRand) rnd = g_rand_new_with_seed(seed);
    uint64_t page = 0;

    while (page < block->pages) {
        uint64_t n = 1 + g_rand_int(rnd) % (1 << g_rand_int_range(rnd, 1, 10));
        int kind = g_rand_int_range(rnd, 0, 5);

        for (; n && page < block->pages; n--, page++) {
            /* 4: never touched */
            if (kind < 4) {
                fill_page(block->host + page * TARGET_PAGE_SIZE, rnd, kind);
            }
        }
    }
}

void ram_wipe(void)
{
    typedef struct {
        char id[256];
        uint64_t length;
    } Shape;
    g_autoptr(GArray) shapes = g_array_new(FALSE, TRUE, sizeof(Shape));

    RAMBLOCK_FOREACH(block) {
        Shape shape = { .length = block->used_length };
        strcpy(shape.id, block->idstr);
        g_array_append_val(shapes, shape);
    }
    ram_free_all();
    for (guint i = 0; i < shapes->len; i++) {
        Shape *shape = &g_array_index(shapes, Shape, i);
        ram_block_new(shape->id, shape->length, NULL, &error_abort);
    }
}

void ram_free_all(void)
{
    RAMBlock *block;

    while ((block = ram_block_next(NULL))) {
        ram_block_free(block);
    }
}

uint64_t ram_populated_pages(void)
{
    uint64_t pages = 0;

    RAMBLOCK_FOREACH(block) {
        uint64_t at = 0, n;

        while ((at = ram_block_populated_run(block, at, block->pages, &n)) < block->pages) {
            pages += n;
            at += n;
        }
    }
    return pages;
}

/*
 * Writers ---------------------------------------------------------------------------------------
 */

struct RamWriters {
    GPtrArray *threads;
    int stop;
};

/*
 * A guest: it writes while others read, and migration is made for that. Not for ThreadSanitizer.
 */
static __attribute__((no_sanitize("thread"))) gpointer writer_thread(gpointer opaque)
{
    RamWriters *writers = opaque;
    g_autoptr(GRand) rnd = g_rand_new();
    unsigned nblocks = 0;

    RAMBLOCK_FOREACH(block) {
        nblocks++;
    }
    while (!g_atomic_int_get(&writers->stop)) {
        RAMBlock *block = ram_block_next(NULL);
        uint64_t *word;

        for (unsigned n = g_rand_int(rnd) % nblocks; n; n--) {
            block = ram_block_next(block);
        }
        word = (uint64_t *)(block->host + g_rand_int(rnd) % block->pages * TARGET_PAGE_SIZE);
        if (g_rand_int(rnd) % 4) {
            __atomic_store_n(word + g_rand_int(rnd) % 512, g_rand_int(rnd), __ATOMIC_RELAXED);
        } else {
            for (unsigned i = 0; i < 512; i++) {
                __atomic_store_n(word + i, 0, __ATOMIC_RELAXED);
            }
        }
    }
    return NULL;
}

RamWriters *ram_writers_start(unsigned threads)
{
    RamWriters *writers = g_new0(RamWriters, 1);

    writers->threads = g_ptr_array_new();
    while (threads--) {
        g_ptr_array_add(writers->threads, g_thread_new("writer", writer_thread, writers));
    }
    return writers;
}

void ram_writers_stop(RamWriters *writers)
{
    g_atomic_int_set(&writers->stop, 1);
    for (guint i = 0; i < writers->threads->len; i++) {
        g_thread_join(g_ptr_array_index(writers->threads, i));
    }
    g_ptr_array_unref(writers->threads);
    g_free(writers);
}
