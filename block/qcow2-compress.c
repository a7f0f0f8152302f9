/*
 * qcow2: compressed clusters. Each is a stream of its own: deflate without a header, made with a
 * window of 4 KiB, or a Zstandard frame; packed one behind the other without regard for cluster
 * borders. The L2 entry tells in sectors how long it is, so what is read may have a part of the
 * next one at its end.
 *
 * Both directions run in the thread pool, as many clusters at once as there are requests. The last
 * few clusters that were decompressed are kept: a guest that reads on in small steps meets each of
 * them many times.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "block/qcow2.h"
#include "util/thread-pool.h"

#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEM_LEVEL 9

/* ---- the two methods ---- */

static ssize_t compress_zlib(void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    z_stream z = { 0 };
    ssize_t len;
    int ret;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW_BITS, DEFLATE_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return -ENOMEM;
    }
    z.next_in = (void *)src;
    z.avail_in = src_bytes;
    z.next_out = dst;
    z.avail_out = dst_bytes;
    ret = deflate(&z, Z_FINISH);
    len = ret == Z_STREAM_END ? (ssize_t)(dst_bytes - z.avail_out)
                              : ret == Z_OK || ret == Z_BUF_ERROR ? -ENOSPC : -EIO;
    deflateEnd(&z);
    return len;
}

static int decompress_zlib(void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    z_stream z = { .next_in = (void *)src, .avail_in = src_bytes };
    int ret;

    if (inflateInit2(&z, -DEFLATE_WINDOW_BITS) != Z_OK) {
        return -ENOMEM;
    }
    z.next_out = dst;
    z.avail_out = dst_bytes;
    ret = inflate(&z, Z_FINISH);
    /* The end of the stream may not have been looked at when the buffer is full. */
    ret = (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && z.avail_out == 0 ? 0 : -EIO;
    inflateEnd(&z);
    return ret;
}

static ssize_t compress_zstd(void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    size_t len = ZSTD_compress(dst, dst_bytes, src, src_bytes, ZSTD_CLEVEL_DEFAULT);

    if (ZSTD_isError(len)) {
        return ZSTD_getErrorCode(len) == ZSTD_error_dstSize_tooSmall ? -ENOSPC : -EIO;
    }
    return len;
}

static int decompress_zstd(void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    ZSTD_outBuffer out = { .dst = dst, .size = dst_bytes };
    ZSTD_inBuffer in = { .src = src, .size = src_bytes };
    int ret = 0;

    if (!stream) {
        return -ENOMEM;
    }
    while (ret == 0 && out.pos < out.size) {
        size_t before_in = in.pos, before_out = out.pos;
        size_t more = ZSTD_decompressStream(stream, &out, &in);

        if (ZSTD_isError(more) || (in.pos == before_in && out.pos == before_out)) {
            ret = -EIO;
        }
    }
    ZSTD_freeDStream(stream);
    return ret;
}

ssize_t qcow2_compress(int type, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    return type == QCOW2_COMPRESSION_TYPE_ZSTD ? compress_zstd(dst, dst_bytes, src, src_bytes)
                                               : compress_zlib(dst, dst_bytes, src, src_bytes);
}

int qcow2_decompress(int type, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    return type == QCOW2_COMPRESSION_TYPE_ZSTD ? decompress_zstd(dst, dst_bytes, src, src_bytes)
                                               : decompress_zlib(dst, dst_bytes, src, src_bytes);
}

/* ---- in the thread pool ---- */

typedef struct CompressJob {
    int type;
    void *dst;
    size_t dst_bytes;
    const void *src;
    size_t src_bytes;
    ssize_t result;
} CompressJob;

static int run_compress(void *opaque)
{
    CompressJob *job = opaque;

    job->result = qcow2_compress(job->type, job->dst, job->dst_bytes, job->src, job->src_bytes);
    return 0;
}

static int run_decompress(void *opaque)
{
    CompressJob *job = opaque;

    return qcow2_decompress(job->type, job->dst, job->dst_bytes, job->src, job->src_bytes);
}

/* ---- reading ---- */

static int coroutine_fn read_and_decompress(BlockDriverState *bs, uint64_t entry, uint8_t *cluster)
{
    Qcow2State *s = qcow2_state(bs);
    CompressJob job = { .type = s->hdr.compression, .dst = cluster, .dst_bytes = s->cluster_size };
    uint64_t host;
    uint32_t bytes;
    uint8_t *buf;
    int ret;

    qcow2_compressed_range(s, entry, &host, &bytes);
    /* The last sector may end behind the end of the file. */
    if (host >= s->file_len) {
        return -EIO;
    }
    bytes = MIN(bytes, s->file_len - host);
    buf = bdrv_try_blockalign(bs->file->bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    ret = bdrv_co_pread(bs->file, host, bytes, buf, 0);
    if (ret >= 0) {
        job.src = buf;
        job.src_bytes = bytes;
        ret = thread_pool_submit_co(run_decompress, &job);
    }
    free(buf);
    return ret < 0 ? ret : 0;
}

/*
 * The one that has @entry, or the least recently used that nobody reads; NULL: all are being read.
 */
static Qcow2Decompressed *find_slot(Qcow2State *s, uint64_t entry)
{
    Qcow2Decompressed *oldest = NULL;

    for (int i = 0; i < QCOW2_DECOMPRESSED_SLOTS; i++) {
        Qcow2Decompressed *d = &s->decompressed[i];

        if (d->entry == entry) {
            return d;
        }
        if (!d->pins && (!oldest || d->used < oldest->used)) {
            oldest = d;
        }
    }
    return oldest;
}

static int coroutine_fn fill_slot(BlockDriverState *bs, Qcow2Decompressed *d, uint64_t entry)
{
    Qcow2State *s = qcow2_state(bs);

    d->ready = false;
    d->entry = 0;
    if (!d->data) {
        d->data = bdrv_try_blockalign(bs->file->bs, s->cluster_size);
        if (!d->data) {
            return -ENOMEM;
        }
    }
    d->entry = entry;
    d->pins = 1;
    d->error = read_and_decompress(bs, entry, d->data);
    d->ready = true;
    if (d->error < 0) {
        d->entry = 0;
    }
    co_queue_restart_all(&d->done);
    d->pins--;
    return d->error;
}

static int coroutine_fn read_without_slot(BlockDriverState *bs, uint64_t entry, uint64_t in_cluster,
                                          uint64_t bytes, IOVector *qiov, size_t qiov_offset)
{
    Qcow2State *s = qcow2_state(bs);
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, s->cluster_size);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = read_and_decompress(bs, entry, buf);
    if (ret == 0) {
        iovector_from_buf(qiov, qiov_offset, buf + in_cluster, bytes);
    }
    free(buf);
    return ret;
}

int coroutine_fn qcow2_read_compressed(BlockDriverState *bs, uint64_t entry, uint64_t in_cluster,
                                       uint64_t bytes, IOVector *qiov, size_t qiov_offset)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Decompressed *d;
    int ret = 0;

    entry &= ~QCOW2_COPIED;
    d = find_slot(s, entry);
    /* A reader of the whole cluster has no use for a copy of it. */
    if (!d || (d->entry != entry && bytes == s->cluster_size)) {
        return read_without_slot(bs, entry, in_cluster, bytes, qiov, qiov_offset);
    }
    if (d->entry != entry) {
        ret = fill_slot(bs, d, entry);
    } else if (!d->ready) {
        d->pins++;
        co_queue_wait(&d->done, NULL);
        d->pins--;
        ret = d->error;
    }
    if (ret == 0) {
        d->used = ++s->decompressed_clock;
        iovector_from_buf(qiov, qiov_offset, d->data + in_cluster, bytes);
    }
    return ret;
}

/* Who reads one now began before the range was free, and the content is still what it was then. */
void qcow2_decompressed_forget(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    for (int i = 0; i < QCOW2_DECOMPRESSED_SLOTS; i++) {
        Qcow2Decompressed *d = &s->decompressed[i];
        uint64_t host;
        uint32_t len;

        if (d->entry) {
            qcow2_compressed_range(s, d->entry, &host, &len);
            if (host < offset + bytes && offset < host + len) {
                d->entry = 0;
            }
        }
    }
}

void qcow2_decompressed_destroy(Qcow2State *s)
{
    for (int i = 0; i < QCOW2_DECOMPRESSED_SLOTS; i++) {
        g_assert(!s->decompressed[i].pins);
        free(s->decompressed[i].data);
        s->decompressed[i] = (Qcow2Decompressed) { 0 };
    }
}

/* ---- writing ---- */

/* With the lock: room in the file for @len bytes of cluster @guest, under way. */
static int coroutine_fn alloc_compressed(BlockDriverState *bs, uint64_t guest, uint32_t len,
                                         Qcow2Alloc *alloc)
{
    Qcow2State *s = qcow2_state(bs);
    int64_t host;

    qcow2_wait_for_allocs(s, guest, s->cluster_size);
    host = qcow2_alloc_bytes(bs, len);
    if (host < 0) {
        return host;
    }
    alloc->guest = guest;
    alloc->clusters = 1;
    alloc->host = host;
    if ((uint64_t)host + len > UINT64_C(1) << (62 - (s->cluster_bits - 8))) {
        qcow2_unalloc(bs, host, len);
        return -EFBIG;
    }
    qcow2_allocs_add(s, alloc);
    return 0;
}

static int coroutine_fn link_compressed(BlockDriverState *bs, const Qcow2Alloc *alloc, uint32_t len)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Slice *slice;
    unsigned index;
    int ret = qcow2_slice_for_change(bs, alloc->guest, &slice, &index);

    if (ret < 0) {
        return ret;
    }
    qcow2_replace_entry(s, slice, index,
                        (Qcow2Entry) { .desc = qcow2_compressed_desc(s, alloc->host, len) },
                        QCOW2_DISCARD_OTHER);
    qcow2_cache_put(&s->l2_cache, slice);
    s->data_before_l2 = true;
    return 0;
}

static int coroutine_fn write_stream(BlockDriverState *bs, uint64_t guest, const uint8_t *data,
                                     uint32_t len)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Alloc *alloc = g_new0(Qcow2Alloc, 1);
    int ret;

    co_queue_init(&alloc->waiters);
    co_mutex_lock(&s->lock);
    ret = alloc_compressed(bs, guest, len, alloc);
    co_mutex_unlock(&s->lock);
    if (ret < 0) {
        g_free(alloc);
        return ret;
    }
    ret = qcow2_overlap_check(bs, alloc->host, len);
    if (ret == 0) {
        ret = bdrv_co_pwrite(bs->file, alloc->host, len, data, 0);
    }
    co_mutex_lock(&s->lock);
    if (ret >= 0) {
        ret = link_compressed(bs, alloc, len);
    }
    if (ret < 0) {
        qcow2_unalloc(bs, alloc->host, len);
    }
    qcow2_allocs_remove(s, alloc);
    co_mutex_unlock(&s->lock);
    return ret;
}

/* One cluster, or the end of the disk, which is filled up with zeroes. */
static int coroutine_fn write_cluster(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                      IOVector *qiov, size_t qiov_offset)
{
    Qcow2State *s = qcow2_state(bs);
    g_autofree uint8_t *plain = g_try_malloc0(s->cluster_size);
    g_autofree uint8_t *packed = g_try_malloc(s->cluster_size);
    CompressJob job = {
        .type = s->hdr.compression, .dst = packed, .dst_bytes = s->cluster_size - 1, .src = plain,
        .src_bytes = s->cluster_size,
    };

    if (!plain || !packed) {
        return -ENOMEM;
    }
    iovector_to_buf(qiov, qiov_offset, plain, bytes);
    thread_pool_submit_co(run_compress, &job);
    if (job.result == -ENOSPC) {
        return qcow2_co_pwritev(bs, offset, bytes, qiov, qiov_offset, 0);
    }
    return job.result < 0 ? (int)job.result : write_stream(bs, offset, packed, job.result);
}

typedef struct CompressPart {
    BlockDriverState *bs;
    uint64_t offset, bytes;
    IOVector *qiov;
    size_t qiov_offset;
} CompressPart;

static int coroutine_fn write_cluster_task(void *opaque)
{
    g_autofree CompressPart *p = opaque;

    return write_cluster(p->bs, p->offset, p->bytes, p->qiov, p->qiov_offset);
}

int coroutine_fn qcow2_co_pwritev_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             IOVector *qiov, size_t qiov_offset)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Tasks tasks = { 0 };
    int ret = qcow2_begin_change(bs);

    if (ret < 0) {
        return ret;
    }
    if (qcow2_in_cluster(s, offset) ||
        (qcow2_in_cluster(s, bytes) && (uint64_t)(offset + bytes) != s->hdr.size)) {
        return -EINVAL;
    }
    while (bytes && tasks.ret == 0) {
        CompressPart *part = g_new(CompressPart, 1);
        int64_t n = MIN(bytes, s->cluster_size);

        *part = (CompressPart) { .bs = bs, .offset = offset, .bytes = n, .qiov = qiov,
                                 .qiov_offset = qiov_offset };
        qcow2_tasks_make_room(&tasks, MAX(g_get_num_processors(), 2));
        qcow2_tasks_start(&tasks, write_cluster_task, part);
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return qcow2_tasks_wait(&tasks);
}
