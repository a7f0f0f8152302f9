/*
 * Loading RAM from a direct-mapped file.
 *
 * While the MEM_SIZE record is parsed each block's header and bitmap are read and checked against
 * the machine, the file and what came before. Only when all of them are known to be right, pages
 * are read, straight into guest memory: those whose bit is set, in runs. The rest is zero.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram-mapped.h"

#include <inttypes.h>
#include <unistd.h>

#include "migration/file-io.h"
#include "util/bitmap.h"
#include "util/bswap.h"

typedef struct MappedSource {
    RamSource parent;
    MultifdPool *pool;
    GPtrArray *blocks;          /* of MappedBlock, owned */
} MappedSource;

/* Workers -------------------------------------------------------------------------------------- */

static int load_start(MultifdWorker *worker, Error **errp)
{
    worker->state = file_io_new(worker->ioc, false, true, errp);
    return worker->state ? 0 : -1;
}

static void load_end(MultifdWorker *worker)
{
    file_io_free(worker->state);
    worker->state = NULL;
}

/* All pages of a job are in the file. */
static int load_job(MultifdWorker *worker, const MultifdJob *job, Error **errp)
{
    MappedBlock *mb = job->block;
    uint64_t offset = job->first * TARGET_PAGE_SIZE;

    ram_target_written(mb->target, job->first, job->pages);
    counter_add(worker->ctx->counters.normal_pages, job->pages);
    counter_add(*worker->bytes, job->pages * TARGET_PAGE_SIZE);
    return file_io_queue(worker->state, mb->block->host + offset, job->pages * TARGET_PAGE_SIZE,
                         mb->pages_offset + offset, errp);
}

static int load_sync(MultifdWorker *worker, Error **errp)
{
    return file_io_drain(worker->state, errp);
}

static const MultifdOps load_ops = {
    .name = "mig/load",
    .start = load_start,
    .job = load_job,
    .sync = load_sync,
    .end = load_end,
};

/* Headers and bitmaps -------------------------------------------------------------------------- */

static int read_header(MappedHeader *header, MigrationFile *f, Error **errp)
{
    header->version = mfile_get_be32(f);
    header->page_size = mfile_get_be64(f);
    header->bitmap_offset = mfile_get_be64(f);
    header->pages_offset = mfile_get_be64(f);
    return mfile_check(f, errp);
}

static int file_size(QIOChannel *ioc, uint64_t *size, Error **errp)
{
    /* SEEK_END serves block devices too, but the position is the stream's: put it back. */
    off_t now = qio_channel_io_seek(ioc, 0, SEEK_CUR, errp);
    off_t end = now < 0 ? -1 : qio_channel_io_seek(ioc, 0, SEEK_END, errp);

    if (end < 0 || qio_channel_io_seek(ioc, now, SEEK_SET, errp) < 0) {
        return -1;
    }
    *size = end;
    return 0;
}

/* Everything that a header can be wrong in. @at: where the header ends; @size: of the file. */
static int validate_header(const MappedHeader *header, const RAMBlock *block, uint64_t at,
                           uint64_t size, Error **errp)
{
    uint64_t bitmap_end, pages_end;

    if (header->version != MAPPED_HEADER_VERSION) {
        error_setg(errp, "version %u of the direct-mapped layout is not supported, only %d",
                   header->version, MAPPED_HEADER_VERSION);
    } else if (header->page_size != TARGET_PAGE_SIZE) {
        error_setg(errp, "the page size is %" PRIu64 ", only %u is supported", header->page_size,
                   TARGET_PAGE_SIZE);
    } else if (header->bitmap_offset < at) {
        error_setg(errp, "the bitmap at offset %" PRIu64 " overlaps what comes before offset %"
                   PRIu64, header->bitmap_offset, at);
    } else if (__builtin_add_overflow(header->bitmap_offset, bitmap_le_size_bytes(block->pages),
                                      &bitmap_end) || bitmap_end > header->pages_offset) {
        error_setg(errp, "the bitmap of %" PRIu64 " bytes at offset %" PRIu64 " overlaps the pages "
                   "at offset %" PRIu64, bitmap_le_size_bytes(block->pages),
                   header->bitmap_offset, header->pages_offset);
    } else if (header->pages_offset % MAPPED_PAGES_ALIGN) {
        error_setg(errp, "the pages at offset %" PRIu64 " do not begin at a multiple of %u",
                   header->pages_offset, MAPPED_PAGES_ALIGN);
    } else if (__builtin_add_overflow(header->pages_offset, block->used_length, &pages_end) ||
               pages_end > size) {
        error_setg(errp,
                   "%" PRIu64 " bytes of pages at offset %" PRIu64 " go beyond the end of the "
                   "file, which has %" PRIu64 " bytes: it is truncated or not complete",
                   block->used_length, header->pages_offset, size);
    } else {
        return 0;
    }
    return -1;
}

static int read_bitmap(MappedBlock *mb, QIOChannel *ioc, Error **errp)
{
    uint64_t pages = mb->block->pages, size = bitmap_le_size_bytes(pages);

    mb->bitmap = bitmap_try_new(pages);
    if (!mb->bitmap) {
        error_setg(errp, "not enough memory for the bitmap");
        return -1;
    }
    if (qio_channel_pread_all(ioc, mb->bitmap, size, mb->bitmap_offset, errp) < 0) {
        return -1;
    }
    bitmap_from_le(mb->bitmap, mb->bitmap, size * 8);
    if (find_next_bit(mb->bitmap, size * 8, pages) < size * 8) {
        error_setg(errp, "the bitmap at offset %" PRIu64 " has bits set beyond the last page",
                   mb->bitmap_offset);
        return -1;
    }
    return 0;
}

static int mapped_block_header(RamSource *parent, RAMBlock *block, RamTarget *target,
                               MigrationFile *f, Error **errp)
{
    MappedSource *source = (MappedSource *)parent;
    QIOChannel *ioc = mfile_channel(f);
    MappedHeader header;
    MappedBlock *mb;
    uint64_t size;

    if (read_header(&header, f, errp) < 0 || file_size(ioc, &size, errp) < 0 ||
        validate_header(&header, block, mfile_offset(f), size, errp) < 0) {
        error_prepend(errp, "RAM block '%s': ", block->idstr);
        return -1;
    }
    if (target) {
        mb = g_new0(MappedBlock, 1);
        *mb = (MappedBlock) {
            .block = block, .target = target,
            .bitmap_offset = header.bitmap_offset, .pages_offset = header.pages_offset,
        };
        g_ptr_array_add(source->blocks, mb);
        if (read_bitmap(mb, ioc, errp) < 0) {
            error_prepend(errp, "RAM block '%s': ", block->idstr);
            return -1;
        }
    }
    return mfile_seek(f, header.pages_offset + block->used_length, errp);
}

/* Pages ---------------------------------------------------------------------------------------- */

/* Hand out the set runs of a block, and have the pages between them zero. */
static int load_block(MappedSource *source, MappedBlock *mb, Error **errp)
{
    MigrationContext *ctx = source->parent.ctx;
    unsigned long pages = mb->block->pages;

    for (unsigned long at = 0, first, n; at < pages; at = first + n) {
        first = pages;
        n = bitmap_next_run(mb->bitmap, pages, at, &first);
        if (migration_context_cancelled(ctx)) {
            error_setg(errp, "the migration was cancelled");
            return -1;
        }
        if (first > at) {
            counter_add(ctx->counters.zero_pages, first - at);
            if (ram_target_zero(mb->target, at, first - at, errp) < 0) {
                return -1;
            }
        }
        if (n && mapped_pool_submit(source->pool, mb, first, n, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

static int mapped_start(RamSource *parent, MigrationFile *f, Error **errp)
{
    MappedSource *source = (MappedSource *)parent;

    source->pool = mapped_pool_new(parent->ctx, &load_ops, source, errp);
    if (!source->pool) {
        return -1;
    }
    for (guint i = 0; i < source->blocks->len; i++) {
        MappedBlock *mb = g_ptr_array_index(source->blocks, i);

        if (load_block(source, mb, errp) < 0) {
            error_prepend(errp, "RAM block '%s': ", mb->block->idstr);
            return -1;
        }
    }
    return multifd_pool_sync(source->pool, errp);
}

/* Everything was read at start: a record that asks to wait has nothing to wait for. */
static int mapped_flush(RamSource *parent, Error **errp)
{
    return 0;
}

static void mapped_free(RamSource *parent)
{
    MappedSource *source = (MappedSource *)parent;

    multifd_pool_free(source->pool);
    g_ptr_array_unref(source->blocks);
    g_free(source);
}

static const RamSourceClass mapped_class = {
    .name = "direct-mapped",
    .no_page_records = true,
    .block_header = mapped_block_header,
    .start = mapped_start,
    .flush = mapped_flush,
    .free = mapped_free,
};

RamSource *ram_mapped_source_new(MigrationContext *ctx, Error **errp)
{
    MappedSource *source;

    if (!mfile_seekable(ctx->main_file)) {
        error_setg(errp, "capability 'direct-mapped' needs a file, but %s has no offsets",
                   migration_channels_describe(ctx->channels));
        return NULL;
    }
    source = g_new0(MappedSource, 1);
    source->parent.klass = &mapped_class;
    source->parent.ctx = ctx;
    source->blocks = g_ptr_array_new_with_free_func((GDestroyNotify)mapped_block_free);
    return &source->parent;
}
