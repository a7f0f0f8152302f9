/*
 * Requests to files and block devices of the host.
 *
 * Reads and writes go to an engine (util/aio-engine.h). Small reads that the page cache can answer
 * need none: preadv2 with RWF_NOWAIT copies them at once, and fails where it would have to wait.
 * Where that happens often, trying costs more than it brings, so each miss in a row doubles the
 * number of reads that do not try. Nor does it bring anything where io_uring takes many reads in
 * one system call; to know that, some reads go there every now and then, and more do as long as
 * several are under way at a time. Writes into the page cache are copied at once where the thread
 * may block for them.
 *
 * Zeroing and discarding are requests to the file system or the device. What these do not support
 * is remembered, so that it is not tried for each request.
 *
 * Coroutines in any thread, many at once.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/file-int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "util/thread-pool.h"

/* Copying more at once would hold the loop for too long. */
#define NOWAIT_MAX_BYTES (64 * 1024)
/* Reads that go by the engine after misses in a row, at most. */
#define NOWAIT_PENALTY_MAX 1023
/*
 * After so many reads that tried, so many go by the engine; and so many more while it is that deep.
 */
#define NOWAIT_TRIES 512
#define NOWAIT_SAMPLE 8
#define NOWAIT_DEPTH 4
#define NOWAIT_STAY 1024
/*
 * Longest write that is copied into the page cache at once, what is too slow for that, and for how
 * many.
 */
#define COPY_MAX_BYTES (1024 * 1024)
#define COPY_SLOW_NS 2000000
#define COPY_PENALTY_MAX 1023
/* Buffers for requests whose memory is not aligned. */
#define BOUNCE_BYTES (1024 * 1024)

/*
 * Reading and writing
 * ---------------------------------------------------------------------------------
 */

static unsigned get(const unsigned *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* Threads that count at the same time may lose a step; nothing depends on it. */
static void set(unsigned *counter, unsigned value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

/* Whether this read shall try to do without the engine. */
static bool nowait_due(FileState *s)
{
    FileNowait *n = &s->nowait;
    unsigned left = get(&n->engine_left);

    if (left > 1) {
        set(&n->engine_left, left - 1);
        return false;
    }
    if (left == 1) {
        bool deep = s->engine == AIO_ENGINE_IO_URING && get(&n->deepest) >= NOWAIT_DEPTH;

        set(&n->engine_left, deep ? NOWAIT_STAY : 0);
        set(&n->tries_left, NOWAIT_TRIES);
        set(&n->deepest, 0);
        return false;
    }
    left = get(&n->tries_left);
    set(&n->tries_left, left - 1);
    if (left <= 1) {
        set(&n->engine_left, NOWAIT_SAMPLE);
    }
    return left > 1;
}

/* Whether the page cache had it all. */
static bool read_nowait(FileState *s, int64_t offset, int64_t bytes, const IOVector *v)
{
    FileNowait *n = &s->nowait;
    unsigned penalty = get(&n->penalty);
    ssize_t ret = preadv2(s->fd, v->iov, v->niov, offset, RWF_NOWAIT);

    if (ret == bytes) {
        if (penalty > 0) {
            set(&n->penalty, 0);
        }
        return true;
    }
    penalty = MIN(2 * penalty + 1, NOWAIT_PENALTY_MAX);
    set(&n->penalty, penalty);
    set(&n->engine_left, penalty);
    return false;
}

static int64_t coroutine_fn read_by_engine(FileState *s, int64_t offset, int64_t bytes,
                                           const IOVector *v)
{
    AioRequest req = {
        .op = AIO_OP_READ,
        .fd = s->fd,
        .offset = offset,
        .bytes = bytes,
        .iov = v->iov,
        .niov = v->niov,
    };
    unsigned depth = __atomic_add_fetch(&s->nowait.depth, 1, __ATOMIC_RELAXED);
    int64_t ret;

    if (depth > get(&s->nowait.deepest)) {
        set(&s->nowait.deepest, depth);
    }
    ret = aio_engine_co_submit(s->engine, &req);
    __atomic_fetch_sub(&s->nowait.depth, 1, __ATOMIC_RELAXED);
    return ret;
}

static int coroutine_fn read_vector(FileState *s, int64_t offset, int64_t bytes, IOVector *v)
{
    int64_t ret;

    if (!s->direct && bytes <= NOWAIT_MAX_BYTES && v->niov <= IOV_MAX) {
        if (s->in_memory ? preadv(s->fd, v->iov, v->niov, offset) == bytes
                         : nowait_due(s) && read_nowait(s, offset, bytes, v)) {
            return 0;
        }
    }
    ret = read_by_engine(s, offset, bytes, v);
    if (ret < 0) {
        return ret;
    }
    if (ret < bytes) {
        /*
         * The end of the file: its length is no multiple of the alignment, or somebody cut it off.
         */
        iovector_memset(v, ret, 0, bytes - ret);
    }
    return 0;
}

/*
 * Copy into the page cache here and now, where this thread may block or the file is in memory. It
 * takes long when the kernel has too much to write back; then it is better done elsewhere for a
 * while. False: it was not done, or not to the end; doing it again does no harm.
 */
static bool write_copy(FileState *s, int64_t offset, int64_t bytes, const IOVector *v)
{
    unsigned skip = get(&s->copy_skip), penalty;
    int64_t start;

    if (s->direct || bytes > COPY_MAX_BYTES || v->niov > IOV_MAX ||
        !(s->in_memory || aio_may_block())) {
        return false;
    }
    if (skip > 0) {
        set(&s->copy_skip, skip - 1);
        return false;
    }
    start = aio_clock_ns();
    if (pwritev(s->fd, v->iov, v->niov, offset) != bytes) {
        return false;
    }
    penalty = get(&s->copy_penalty);
    if (aio_clock_ns() - start > COPY_SLOW_NS) {
        penalty = MIN(2 * penalty + 1, COPY_PENALTY_MAX);
        set(&s->copy_penalty, penalty);
        set(&s->copy_skip, penalty);
    } else if (penalty > 0) {
        set(&s->copy_penalty, 0);
    }
    return true;
}

static int coroutine_fn write_vector(FileState *s, int64_t offset, int64_t bytes, IOVector *v,
                                     bool fua)
{
    AioRequest req = {
        .op = AIO_OP_WRITE, .fd = s->fd, .fua = fua, .offset = offset, .bytes = bytes,
        .iov = v->iov, .niov = v->niov,
    };
    int64_t ret;

    if (!fua && write_copy(s, offset, bytes, v)) {
        return 0;
    }
    ret = aio_engine_co_submit(s->engine, &req);
    return ret < 0 ? ret : 0;
}

static bool memory_is_aligned(const FileState *s, const IOVector *v)
{
    for (unsigned i = 0; s->direct && i < v->niov; i++) {
        if ((uintptr_t)v->iov[i].iov_base % s->align.memory ||
            v->iov[i].iov_len % s->align.request) {
            return false;
        }
    }
    return true;
}

/* Through an aligned buffer, piece by piece. */
static int coroutine_fn transfer_bounced(FileState *s, int64_t offset, int64_t bytes, IOVector *v,
                                         bool write, bool fua)
{
    int64_t done = 0;
    int ret = 0;
    void *buf;

    if (posix_memalign(&buf, MAX(s->align.memory, 4096), MIN(bytes, BOUNCE_BYTES)) != 0) {
        return -ENOMEM;
    }
    while (ret == 0 && done < bytes) {
        int64_t n = MIN(bytes - done, BOUNCE_BYTES);
        IOVector piece;

        iovector_init_buf(&piece, buf, n);
        if (write) {
            iovector_to_buf(v, done, buf, n);
            ret = write_vector(s, offset + done, n, &piece, fua);
        } else {
            ret = read_vector(s, offset + done, n, &piece);
            if (ret == 0) {
                iovector_from_buf(v, done, buf, n);
            }
        }
        done += n;
    }
    free(buf);
    return ret;
}

static int coroutine_fn transfer(FileState *s, int64_t offset, int64_t bytes, IOVector *qiov,
                                 size_t qiov_offset, bool write, bool fua)
{
    IOVector slice, *v = qiov;
    int ret;

    if (qiov_offset != 0 || qiov->size != bytes) {
        iovector_init_slice(&slice, qiov, qiov_offset, bytes);
        v = &slice;
    }
    if (!memory_is_aligned(s, v)) {
        ret = transfer_bounced(s, offset, bytes, v, write, fua);
    } else if (write) {
        ret = write_vector(s, offset, bytes, v, fua);
    } else {
        ret = read_vector(s, offset, bytes, v);
    }
    if (v == &slice) {
        iovector_destroy(&slice);
    }
    return ret;
}

int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes, IOVector *qiov,
                                size_t qiov_offset, BdrvRequestFlags flags)
{
    return transfer(bs->opaque, offset, bytes, qiov, qiov_offset, false, false);
}

int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    return transfer(bs->opaque, offset, bytes, qiov, qiov_offset, true, flags & BDRV_REQ_FUA);
}

int coroutine_fn file_co_flush(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    AioRequest req = { .op = AIO_OP_FSYNC, .fd = s->fd };
    int ret = __atomic_load_n(&s->flush_error, __ATOMIC_SEQ_CST);

    if (ret < 0) {
        return ret;
    }
    ret = aio_engine_co_submit(s->engine, &req);
    if (ret < 0 && !s->direct) {
        /*
         * The kernel forgets the pages that it could not write: the next fdatasync would succeed.
         */
        __atomic_store_n(&s->flush_error, ret, __ATOMIC_SEQ_CST);
    }
    return ret;
}

/*
 * Zeroing and discarding
 * --------------------------------------------------------------------------------
 */

static bool file_can(FileState *s, unsigned what)
{
    return !(__atomic_load_n(&s->cannot, __ATOMIC_RELAXED) & what);
}

/* -ENOTSUP for what others would call an error, remembered when it will be so next time. */
static int not_supported(FileState *s, int ret, unsigned what)
{
    switch (ret) {
    case -ENOSYS:
    case -EOPNOTSUPP:
    case -ENOTTY:
    case -ENODEV:
        __atomic_fetch_or(&s->cannot, what, __ATOMIC_RELAXED);
        return -ENOTSUP;
    case -EINVAL:
        /* A file system that does not like this range. */
        return -ENOTSUP;
    default:
        return ret;
    }
}

static int coroutine_fn allocate(FileState *s, int mode, int64_t offset, int64_t bytes,
                                 unsigned what)
{
    AioRequest req = {
        .op = AIO_OP_FALLOCATE, .fd = s->fd, .mode = mode, .offset = offset, .bytes = bytes,
    };

    if (!file_can(s, what)) {
        return -ENOTSUP;
    }
    return not_supported(s, aio_engine_co_submit(s->engine, &req), what);
}

static int coroutine_fn punch(FileState *s, int64_t offset, int64_t bytes)
{
    return allocate(s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes,
                    FILE_CANNOT_PUNCH);
}

typedef struct RangeIoctl {
    int fd;
    unsigned long request;
    uint64_t range[2];
} RangeIoctl;

static int run_ioctl(void *opaque)
{
    RangeIoctl *r = opaque;
    int ret;

    do {
        ret = ioctl(r->fd, r->request, r->range);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static int coroutine_fn range_ioctl(FileState *s, unsigned long request, int64_t offset,
                                    int64_t bytes, unsigned what)
{
    RangeIoctl r = { .fd = s->fd, .request = request, .range = { offset, bytes } };

    if (!file_can(s, what)) {
        return -ENOTSUP;
    }
    return not_supported(s, thread_pool_submit_co(run_ioctl, &r), what);
}

static int coroutine_fn zero_device(FileState *s, int64_t offset, int64_t bytes,
                                    BdrvRequestFlags flags)
{
    int ret = -ENOTSUP;

    /* Punching a hole into a device never falls back to writing, other than BLKZEROOUT. */
    if (flags & (BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK)) {
        ret = punch(s, offset, bytes);
    }
    if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
        ret = range_ioctl(s, BLKZEROOUT, offset, bytes, FILE_CANNOT_ZERO_OUT);
    }
    return ret;
}

/*
 * Make the file reach to @end by writing the last zeroes: unlike ftruncate() that never cuts off
 * what another request has put behind it meanwhile.
 */
static int coroutine_fn write_last_zeroes(FileState *s, int64_t end)
{
    size_t n = s->align.request;
    IOVector v;
    void *buf;
    int ret;

    if (posix_memalign(&buf, MAX(s->align.memory, 4096), n) != 0) {
        return -ENOMEM;
    }
    memset(buf, 0, n);
    iovector_init_buf(&v, buf, n);
    ret = write_vector(s, end - n, n, &v, false);
    free(buf);
    return ret;
}

/* The same as FALLOC_FL_ZERO_RANGE in steps, for file systems that have only these. */
static int coroutine_fn zero_in_steps(FileState *s, int64_t offset, int64_t bytes, bool extends)
{
    int ret = 0;

    if (!file_can(s, FILE_CANNOT_ALLOCATE)) {
        return -ENOTSUP;
    }
    if (extends) {
        ret = allocate(s, 0, offset, bytes, FILE_CANNOT_ALLOCATE);
    }
    if (ret == 0) {
        ret = punch(s, offset, bytes);
    }
    return ret == 0 ? allocate(s, 0, offset, bytes, FILE_CANNOT_ALLOCATE) : ret;
}

static int coroutine_fn zero_file(FileState *s, int64_t offset, int64_t bytes, bool extends,
                                  BdrvRequestFlags flags)
{
    int ret = -ENOTSUP;

    if (flags & BDRV_REQ_MAY_UNMAP) {
        ret = punch(s, offset, bytes);
        if (ret == 0 && extends) {
            ret = write_last_zeroes(s, offset + bytes);
        }
    }
    if (ret == -ENOTSUP) {
        ret = allocate(s, FALLOC_FL_ZERO_RANGE, offset, bytes, FILE_CANNOT_ZERO_RANGE);
    }
    return ret == -ENOTSUP ? zero_in_steps(s, offset, bytes, extends) : ret;
}

int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags)
{
    FileState *s = bs->opaque;
    bool extends = offset + bytes > __atomic_load_n(&bs->total_bytes, __ATOMIC_SEQ_CST);
    int ret = s->device ? zero_device(s, offset, bytes, flags)
                        : zero_file(s, offset, bytes, extends, flags);

    file_forget_status(s);
    return ret;
}

int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    FileState *s = bs->opaque;
    int ret = s->device ? range_ioctl(s, BLKDISCARD, offset, bytes, FILE_CANNOT_DISCARD)
                        : punch(s, offset, bytes);

    file_forget_status(s);
    return ret;
}

/*
 * Block status
 * ------------------------------------------------------------------------------------------
 */

void file_forget_status(FileState *s)
{
    mutex_lock(&s->status_lock);
    s->data_start = s->data_end = 0;
    mutex_unlock(&s->status_lock);
}

/* Whether it is known that data lies from @offset to *@end. */
static bool known_data(FileState *s, int64_t offset, int64_t *end)
{
    bool known;

    mutex_lock(&s->status_lock);
    known = offset >= s->data_start && offset < s->data_end;
    *end = s->data_end;
    mutex_unlock(&s->status_lock);
    return known;
}

typedef struct FindExtent {
    int fd;
    int64_t offset;
    int64_t data_start, data_end;   /* the data at @offset or next after it; INT64_MAX: none */
} FindExtent;

static int find_extent(void *opaque)
{
    FindExtent *f = opaque;

    f->data_start = lseek(f->fd, f->offset, SEEK_DATA);
    if (f->data_start < 0) {
        f->data_start = f->data_end = INT64_MAX;
        /* ENXIO: no data from here to the end of the file. */
        return errno == ENXIO ? 0 : -errno;
    }
    if (f->data_start < f->offset) {
        return -EIO;
    }
    f->data_end = lseek(f->fd, f->data_start, SEEK_HOLE);
    if (f->data_end < 0) {
        /* ENXIO: the file was cut off meanwhile. */
        return -errno;
    }
    if (f->data_end == f->data_start) {
        /* Somebody made a hole meanwhile. Data is what can always be said. */
        f->data_end++;
    }
    return 0;
}

/*
 * Whether data lies at @offset; *@end: up to where that is so. Data is what is said when nobody
 * knows, so it may be remembered while others change the file.
 */
static bool coroutine_fn is_data(FileState *s, int64_t offset, int64_t *end)
{
    FindExtent f = { .fd = s->fd, .offset = offset };
    int ret;

    if (known_data(s, offset, end)) {
        return true;
    }
    *end = INT64_MAX;
    if (!file_can(s, FILE_CANNOT_SEEK_DATA)) {
        return true;
    }
    ret = thread_pool_submit_co(find_extent, &f);
    if (ret < 0) {
        if (ret != -ENXIO && ret != -EIO) {
            __atomic_fetch_or(&s->cannot, FILE_CANNOT_SEEK_DATA, __ATOMIC_RELAXED);
        }
        return true;
    }
    /* Behind a hole, too: whoever asks for one extent after the other has its answer then. */
    mutex_lock(&s->status_lock);
    s->data_start = f.data_start;
    s->data_end = f.data_end;
    mutex_unlock(&s->status_lock);
    *end = f.data_start == offset ? f.data_end : f.data_start;
    return f.data_start == offset;
}

int coroutine_fn file_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                      int64_t bytes, int64_t *pnum, int64_t *map,
                                      BlockDriverState **file)
{
    FileState *s = bs->opaque;
    int64_t align = s->align.request, end = INT64_MAX;
    bool data = s->device || !want_zero || is_data(s, offset, &end);

    *map = offset;
    *file = bs;
    if (end - offset >= bytes) {
        *pnum = bytes;
    } else if (data) {
        *pnum = MIN(bytes, (end - offset + align - 1) / align * align);
    } else {
        /* An extent may end where no request may: what is partly data is data. */
        *pnum = (end - offset) / align * align;
        if (*pnum == 0) {
            *pnum = MIN(bytes, align);
            data = true;
        }
    }
    return (data ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO) | BDRV_BLOCK_OFFSET_VALID;
}
