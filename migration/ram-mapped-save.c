/*
 * Saving RAM into a direct-mapped file.
 *
 * A run of dirty pages is looked through for zero pages; what lies between them is written to its
 * place straight from guest memory. The bitmap of pages that are in the file follows, page by page:
 * a page that became zero is cleared in it, and what the file holds in its place means nothing any
 * more. The bitmaps go to the file at the end, when the machine stands.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram-mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/file-io.h"
#include "migration/zero-scan.h"
#include "util/bitmap.h"
#include "util/bswap.h"
#include "util/zero.h"

/* Parts of a bitmap that are all clear are left as holes, at this grain. */
#define BITMAP_PIECE_BYTES 65536
/* Clean pages between dirty ones that are written with them, at most. */
#define GAP_PAGES_MAX 8
/* A run that is so long is handed out: the channels must not wait for it. */
#define HELD_PAGES_MAX (FILE_IO_REQUEST_BYTES / TARGET_PAGE_SIZE)

typedef struct MappedSink {
    RamSink parent;
    MultifdPool *pool;
    GPtrArray *blocks;          /* of MappedBlock, owned */
    bool detect_zero;
    bool starts_as_hole;        /* the file reads as zero where nothing was written */
    bool bypass_cache;
    /* The run that may still grow, when there are pages. */
    MappedBlock *held;
    uint64_t held_first, held_pages;
} MappedSink;

/* Workers -------------------------------------------------------------------------------------- */

typedef struct SaveState {
    FileIO *io;
    ZeroScan *scan;             /* NULL: every page is data */
} SaveState;

static int save_start(MultifdWorker *worker, Error **errp)
{
    const MappedSink *sink = worker->opaque;
    SaveState *s = g_new0(SaveState, 1);

    worker->state = s;
    if (sink->detect_zero) {
        /*
         * A write through the cache reads the pages where they are mapped, a direct one does not.
         */
        s->scan = zero_scan_new(sink->bypass_cache);
    }
    s->io = file_io_new(worker->ioc, true, true, errp);
    return s->io ? 0 : -1;
}

static void save_end(MultifdWorker *worker)
{
    SaveState *s = worker->state;

    if (s) {
        file_io_free(s->io);
        zero_scan_free(s->scan);
        g_free(s);
        worker->state = NULL;
    }
}

/* Save pages [first, first + n), all zero or all data. */
static int save_alike(SaveState *s, MappedBlock *mb, uint64_t first, uint64_t n, bool zero,
                      Error **errp)
{
    if (zero) {
        bitmap_test_and_clear_atomic(mb->bitmap, first, n);
        return 0;
    }
    bitmap_set_atomic(mb->bitmap, first, n);
    return file_io_queue(s->io, mb->block->host + first * TARGET_PAGE_SIZE, n * TARGET_PAGE_SIZE,
                         mb->pages_offset + first * TARGET_PAGE_SIZE, errp);
}

static int save_job(MultifdWorker *worker, const MultifdJob *job, Error **errp)
{
    SaveState *s = worker->state;
    MappedBlock *mb = job->block;
    uint64_t zero = 0;

    for (uint64_t at = 0; at < job->pages; at += ZERO_SCAN_PAGES) {
        uint64_t first = job->first + at;
        unsigned n = MIN(job->pages - at, ZERO_SCAN_PAGES);
        bool is_zero[ZERO_SCAN_PAGES] = { false };

        if (s->scan) {
            zero_scan(s->scan, mb->block->host + first * TARGET_PAGE_SIZE, n, is_zero);
        }
        for (unsigned i = 0, from; i < n;) {
            for (from = i++; i < n && is_zero[i] == is_zero[from]; i++) {
            }
            if (save_alike(s, mb, first + from, i - from, is_zero[from], errp) < 0) {
                return -1;
            }
            zero += is_zero[from] ? i - from : 0;
        }
    }
    counter_add(worker->ctx->counters.zero_pages, zero);
    counter_add(worker->ctx->counters.normal_pages, job->pages - zero);
    counter_add(*worker->bytes, (job->pages - zero) * TARGET_PAGE_SIZE);
    return 0;
}

static int save_sync(MultifdWorker *worker, Error **errp)
{
    return file_io_drain(((SaveState *)worker->state)->io, errp);
}

static const MultifdOps save_ops = {
    .name = "mig/save",
    .start = save_start,
    .job = save_job,
    .sync = save_sync,
    .end = save_end,
};

/* The sink ------------------------------------------------------------------------------------- */

static int mapped_prepare(RamSink *parent, Error **errp)
{
    MappedSink *sink = (MappedSink *)parent;
    MigrationContext *ctx = parent->ctx;
    int fd = qio_channel_get_fd(mfile_channel(ctx->main_file));
    struct stat st;

    sink->starts_as_hole = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    sink->pool = mapped_pool_new(ctx, &save_ops, sink, errp);
    return sink->pool ? 0 : -1;
}

/*
 * Give the file its length. Direct writes beyond the end of a file wait for each other; within it,
 * they go on side by side. Where this fails the writes say why, or do without.
 */
static void extend_file(MigrationFile *f, uint64_t size)
{
    int fd = qio_channel_get_fd(mfile_channel(f));
    struct stat st;

    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size < size && ftruncate(fd, size) < 0) {
        return;
    }
}

/* A block device does not grow. */
static int check_room(const RAMBlock *block, QIOChannel *ioc, uint64_t end, Error **errp)
{
    off_t now = qio_channel_io_seek(ioc, 0, SEEK_CUR, errp);
    off_t size = now < 0 ? -1 : qio_channel_io_seek(ioc, 0, SEEK_END, errp);

    if (size < 0 || qio_channel_io_seek(ioc, now, SEEK_SET, errp) < 0) {
        return -1;
    }
    if ((uint64_t)size < end) {
        g_autofree char *what = qio_channel_describe(ioc);

        error_setg(errp, "RAM block '%s' would end at byte %" PRIu64 " of %s, which has room for "
                   "%jd", block->idstr, end, what, (intmax_t)size);
        return -1;
    }
    return 0;
}

static int mapped_block_header(RamSink *parent, RAMBlock *block, MigrationFile *f, Error **errp)
{
    MappedSink *sink = (MappedSink *)parent;
    MappedBlock *mb = g_new0(MappedBlock, 1);
    uint64_t bitmap_end, pages_end;

    g_ptr_array_add(sink->blocks, mb);
    mb->block = block;
    mb->bitmap = bitmap_try_new(block->pages);
    if (!mb->bitmap) {
        error_setg(errp, "not enough memory for the file bitmap of RAM block '%s'", block->idstr);
        return -1;
    }
    mb->bitmap_offset = mfile_offset(f) + MAPPED_HEADER_BYTES;
    bitmap_end = mb->bitmap_offset + bitmap_le_size_bytes(block->pages);
    mb->pages_offset = (bitmap_end + MAPPED_PAGES_ALIGN - 1) / MAPPED_PAGES_ALIGN *
                       MAPPED_PAGES_ALIGN;
    mfile_put_be32(f, MAPPED_HEADER_VERSION);
    mfile_put_be64(f, TARGET_PAGE_SIZE);
    mfile_put_be64(f, mb->bitmap_offset);
    mfile_put_be64(f, mb->pages_offset);
    pages_end = mb->pages_offset + block->used_length;
    if (sink->starts_as_hole) {
        extend_file(f, pages_end);
    } else if (check_room(block, mfile_channel(f), pages_end, errp) < 0) {
        return -1;
    }
    return mfile_seek(f, pages_end, errp);
}

static MappedBlock *find_block(const MappedSink *sink, const RAMBlock *block)
{
    for (guint i = 0; i < sink->blocks->len; i++) {
        MappedBlock *mb = g_ptr_array_index(sink->blocks, i);

        if (mb->block == block) {
            return mb;
        }
    }
    g_assert_not_reached();
}

static int submit_held(MappedSink *sink, Error **errp)
{
    uint64_t pages = sink->held_pages;

    sink->held_pages = 0;
    return pages ? mapped_pool_submit(sink->pool, sink->held, sink->held_first, pages, errp) : 0;
}

/*
 * Without the cache between, each write is a request to the device, and for most a request costs
 * more than some pages more in it. So pages between two dirty runs are written once more where they
 * are few and in the file anyway. They are not in flight otherwise: the cursor has passed them
 * since the last flush and found them clean.
 */
static bool is_small_gap(const MappedBlock *mb, uint64_t from, uint64_t to)
{
    if (to < from || to - from > GAP_PAGES_MAX) {
        return false;
    }
    while (from < to && test_bit_atomic(from, mb->bitmap)) {
        from++;
    }
    return from == to;
}

static int64_t mapped_write_run(RamSink *parent, RAMBlock *block, uint64_t first, uint64_t n,
                                MigrationFile *f, Error **errp)
{
    MappedSink *sink = (MappedSink *)parent;
    MappedBlock *mb = find_block(sink, block);

    if (sink->held_pages && sink->bypass_cache && sink->held == mb &&
        is_small_gap(mb, sink->held_first + sink->held_pages, first)) {
        sink->held_pages = first + n - sink->held_first;
    } else {
        if (submit_held(sink, errp) < 0) {
            return -1;
        }
        sink->held = mb;
        sink->held_first = first;
        sink->held_pages = n;
    }
    if ((!sink->bypass_cache || sink->held_pages >= HELD_PAGES_MAX) &&
        submit_held(sink, errp) < 0) {
        return -1;
    }
    return n * TARGET_PAGE_SIZE;
}

static int mapped_flush(RamSink *parent, MigrationFile *f, Error **errp)
{
    MappedSink *sink = (MappedSink *)parent;

    return submit_held(sink, errp) < 0 ? -1 : multifd_pool_sync(sink->pool, errp);
}

static int write_bitmap(MappedSink *sink, MappedBlock *mb, QIOChannel *ioc, Error **errp)
{
    uint64_t size = bitmap_le_size_bytes(mb->block->pages);
    uint8_t *bytes = (uint8_t *)mb->bitmap;

    bitmap_to_le(bytes, mb->bitmap, mb->block->pages);
    for (uint64_t at = 0; at < size; at += BITMAP_PIECE_BYTES) {
        uint64_t len = MIN(size - at, BITMAP_PIECE_BYTES);

        if (sink->starts_as_hole && buffer_is_zero(bytes + at, len)) {
            continue;
        }
        if (qio_channel_pwrite_all(ioc, bytes + at, len, mb->bitmap_offset + at, errp) < 0) {
            error_prepend(errp, "writing the bitmap of RAM block '%s': ", mb->block->idstr);
            return -1;
        }
        counter_add(sink->parent.ctx->counters.mapped_bytes, len);
    }
    return 0;
}

/*
 * Every page that was written must still be in the file: one that somebody truncated under us and
 * that grew again by later writes has holes where pages were. A file system that stores zeroes as
 * holes is no reason to complain, so a hole counts only when the page is not zero. The machine is
 * stopped.
 */
static int check_no_holes(const MappedBlock *mb, int fd, Error **errp)
{
    unsigned long first = 0, n;
    off_t hole = 0; /* there is none between the last run's beginning and here */

    while ((n = bitmap_next_run(mb->bitmap, mb->block->pages, first, &first))) {
        off_t start = mb->pages_offset + first * TARGET_PAGE_SIZE;
        off_t end = start + n * TARGET_PAGE_SIZE;

        if (hole < end) {
            hole = lseek(fd, start, SEEK_HOLE);
            if (hole < 0 && errno != ENXIO) {
                return 0;               /* no such question on this file system */
            }
            hole = hole < 0 ? start : hole;
        }
        if (hole < end) {
            uint64_t page = (hole - mb->pages_offset) / TARGET_PAGE_SIZE;
            if (!buffer_is_zero(mb->block->host + page * TARGET_PAGE_SIZE, TARGET_PAGE_SIZE)) {
                error_setg(errp, "page %" PRIu64 " of RAM block '%s' is no longer in the file: it "
                           "was truncated while it was being written", page, mb->block->idstr);
                return -1;
            }
            first = page + 1;
        } else {
            first += n;
        }
    }
    return 0;
}

/* Headers are never all zero: where there is a hole, there is none any more. */
static int check_header(int fd, uint64_t offset, const char *what, const char *name, Error **errp)
{
    if (lseek(fd, offset, SEEK_HOLE) == (off_t)offset) {
        error_setg(errp, "the header of %s%s is no longer in the file: it was truncated while it "
                   "was being written", what, name);
        return -1;
    }
    return 0;
}

static int check_block(const MappedBlock *mb, int fd, Error **errp)
{
    g_autofree char *name = g_strdup_printf("'%s'", mb->block->idstr);

    return check_header(fd, mb->bitmap_offset - MAPPED_HEADER_BYTES, "RAM block ", name, errp) < 0
               ? -1 : check_no_holes(mb, fd, errp);
}

static int check_file(MappedSink *sink, QIOChannel *ioc, Error **errp)
{
    /* A description of our own: lseek() moves the offset that all duplicates share. */
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", qio_channel_get_fd(ioc));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int ret;

    if (fd < 0) {
        return 0;                       /* we may only write it */
    }
    ret = check_header(fd, sink->parent.ctx->stream_offset, "the stream", "", errp);
    for (guint i = 0; i < sink->blocks->len && ret == 0; i++) {
        ret = check_block(g_ptr_array_index(sink->blocks, i), fd, errp);
    }
    close(fd);
    return ret;
}

static int mapped_finish(RamSink *parent, MigrationFile *f, Error **errp)
{
    MappedSink *sink = (MappedSink *)parent;
    QIOChannel *ioc = mfile_channel(f);

    if (sink->starts_as_hole && check_file(sink, ioc, errp) < 0) {
        return -1;
    }
    for (guint i = 0; i < sink->blocks->len; i++) {
        if (write_bitmap(sink, g_ptr_array_index(sink->blocks, i), ioc, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

static void mapped_free(RamSink *parent)
{
    MappedSink *sink = (MappedSink *)parent;

    multifd_pool_free(sink->pool);
    g_ptr_array_unref(sink->blocks);
    g_free(sink);
}

static const RamSinkClass mapped_class = {
    .name = "direct-mapped",
    .prepare = mapped_prepare,
    .block_header = mapped_block_header,
    .write_run = mapped_write_run,
    .flush = mapped_flush,
    .finish = mapped_finish,
    .free = mapped_free,
};

RamSink *ram_mapped_sink_new(MigrationContext *ctx, Error **errp)
{
    MappedSink *sink;

    if (!mfile_seekable(ctx->main_file)) {
        error_setg(errp, "capability 'direct-mapped' needs a file, but %s has no offsets",
                   migration_channels_describe(ctx->channels));
        return NULL;
    }
    sink = g_new0(MappedSink, 1);
    sink->parent.klass = &mapped_class;
    sink->parent.ctx = ctx;
    sink->blocks = g_ptr_array_new_with_free_func((GDestroyNotify)mapped_block_free);
    sink->bypass_cache = migration_cap(&ctx->opts, MIGRATION_CAPABILITY_BYPASS_CACHE);
    sink->detect_zero = ctx->opts.params.zero_page_detection != ZERO_PAGE_DETECTION_NONE;
    return &sink->parent;
}
