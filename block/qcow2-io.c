/*
 * qcow2: requests. A request is cut where the file has its parts in different places; parts go on
 * beside each other, each with one request to the file (or the backing file), no lock held.
 *
 * Who has looked clusters up and called qcow2_io_begin() waits for nothing but transfers until it
 * has called qcow2_io_end(): freeing waits for it, and others for freeing.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"

#define MAX_PARTS_AT_ONCE 16
/*
 * Up to so many bytes around the guest's data are written as zeroes rather than asking the file for
 * it.
 */
#define ZERO_AROUND_BYTES (64 * 1024)

/* ---- parts beside each other ---- */

typedef struct Task {
    Qcow2Tasks *tasks;
    Qcow2TaskFn *fn;
    void *opaque;
} Task;

static void coroutine_fn task_entry(void *opaque)
{
    Task task = *(Task *)opaque;
    int ret;

    g_free(opaque);
    ret = task.fn(task.opaque);
    if (ret < 0 && task.tasks->ret == 0) {
        task.tasks->ret = ret;
    }
    task.tasks->running--;
    if (task.tasks->waiter) {
        aio_co_wake(task.tasks->waiter);
    }
}

void coroutine_fn qcow2_tasks_make_room(Qcow2Tasks *tasks, unsigned max)
{
    while (tasks->running >= max) {
        tasks->waiter = coroutine_self();
        coroutine_yield();
        tasks->waiter = NULL;
    }
}

void coroutine_fn qcow2_tasks_start(Qcow2Tasks *tasks, Qcow2TaskFn *fn, void *opaque)
{
    Task *task = g_new(Task, 1);

    *task = (Task) { .tasks = tasks, .fn = fn, .opaque = opaque };
    tasks->running++;
    coroutine_enter(coroutine_create(task_entry, task));
}

int coroutine_fn qcow2_tasks_wait(Qcow2Tasks *tasks)
{
    qcow2_tasks_make_room(tasks, 1);
    return tasks->ret;
}

/* ---- reading ---- */

int coroutine_fn qcow2_read_file(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                 IOVector *qiov, size_t qiov_offset)
{
    uint64_t len = qcow2_state(bs)->file_len;
    uint64_t there = offset >= len ? 0 : MIN(bytes, len - offset);

    if (there < bytes) {
        iovector_memset(qiov, qiov_offset + there, 0, bytes - there);
    }
    return there ? bdrv_co_preadv_part(bs->file, offset, there, qiov, qiov_offset, 0) : 0;
}

/* Tables are always there as a whole: one that is not is no table. */
int coroutine_fn qcow2_read_table(BlockDriverState *bs, uint64_t offset, uint64_t bytes, void *buf)
{
    uint64_t len = qcow2_state(bs)->file_len, end;

    if (!bytes) {
        return 0;
    }
    if (__builtin_add_overflow(offset, bytes, &end) ||
        end > round_up_u64(len, qcow2_state(bs)->cluster_size)) {
        return -EIO;
    }
    if (end > len) {
        memset((char *)buf + (offset < len ? len - offset : 0), 0, end - MAX(len, offset));
        bytes = offset < len ? len - offset : 0;
    }
    return bytes ? bdrv_co_pread(bs->file, offset, bytes, buf, 0) : 0;
}

static int coroutine_fn read_backing(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     IOVector *qiov, size_t qiov_offset)
{
    uint64_t len = qcow2_backing_len(bs);
    uint64_t there = offset >= len ? 0 : MIN(bytes, len - offset);

    if (there < bytes) {
        iovector_memset(qiov, qiov_offset + there, 0, bytes - there);
    }
    return there ? bdrv_co_preadv_part(bs->backing, offset, there, qiov, qiov_offset, 0) : 0;
}

typedef struct ReadPart {
    BlockDriverState *bs;
    Qcow2Mapping map;
    uint64_t offset;
    IOVector *qiov;
    size_t qiov_offset;
    unsigned epoch;
} ReadPart;

static int coroutine_fn read_part(const ReadPart *p)
{
    Qcow2State *s = qcow2_state(p->bs);
    int ret = 0;

    switch (p->map.type) {
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_ALLOC:
        ret = read_backing(p->bs, p->offset, p->map.bytes, p->qiov, p->qiov_offset);
        break;
    case QCOW2_ZERO_PLAIN:
    case QCOW2_ZERO_ALLOC:
        iovector_memset(p->qiov, p->qiov_offset, 0, p->map.bytes);
        break;
    case QCOW2_NORMAL:
        ret = qcow2_read_file(p->bs, p->map.host, p->map.bytes, p->qiov, p->qiov_offset);
        break;
    case QCOW2_COMPRESSED_DATA:
        ret = qcow2_read_compressed(p->bs, p->map.desc, qcow2_in_cluster(s, p->offset),
                                    p->map.bytes, p->qiov, p->qiov_offset);
        break;
    }
    qcow2_io_end(s, p->epoch);
    return ret;
}

static int coroutine_fn read_task(void *opaque)
{
    g_autofree ReadPart *part = opaque;

    return read_part(part);
}

int coroutine_fn qcow2_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Tasks tasks = { 0 };
    int ret = 0;

    while (bytes && ret == 0 && tasks.ret == 0) {
        ReadPart part = { .bs = bs, .offset = offset, .qiov = qiov, .qiov_offset = qiov_offset };

        qcow2_tasks_make_room(&tasks, MAX_PARTS_AT_ONCE);
        ret = qcow2_map(bs, offset, bytes, &part.map);
        if (ret < 0) {
            break;
        }
        part.epoch = qcow2_io_begin(s);
        if ((int64_t)part.map.bytes == bytes && !tasks.running) {
            ret = read_part(&part);
        } else {
            qcow2_tasks_start(&tasks, read_task, g_memdup2(&part, sizeof(part)));
        }
        offset += part.map.bytes;
        qiov_offset += part.map.bytes;
        bytes -= part.map.bytes;
    }
    return qcow2_tasks_wait(&tasks) < 0 ? tasks.ret : ret;
}

/* ---- writing ---- */

typedef struct WritePart {
    BlockDriverState *bs;
    Qcow2WriteMapping map;
    uint64_t offset;
    IOVector *qiov;
    size_t qiov_offset;
} WritePart;

/* A copy of what the disk has in a range around a write; zeroes behind its end. */
static int coroutine_fn read_around(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                    uint8_t *buf)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t there = offset >= s->hdr.size ? 0 : MIN(bytes, s->hdr.size - offset);
    IOVector qiov;

    memset(buf + there, 0, bytes - there);
    if (!there) {
        return 0;
    }
    iovector_init_buf(&qiov, buf, there);
    return qcow2_co_preadv(bs, offset, there, &qiov, 0, 0);
}

/* Does the backing file have nothing but holes there? */
static bool coroutine_fn backing_is_zero(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint64_t len = qcow2_backing_len(bs);

    return offset >= len || !bytes ||
           bdrv_co_is_zero_fast(bs->backing->bs, offset, MIN(bytes, len - offset)) > 0;
}

/* Whether a part of a cluster is known to be zero without reading it. */
static bool coroutine_fn range_is_zero(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    Qcow2Mapping map;

    for (; bytes; offset += map.bytes, bytes -= map.bytes) {
        if (qcow2_map(bs, offset, bytes, &map) < 0 ||
            !(qcow2_is_zero(map.type) ||
              (qcow2_is_backing(map.type) && backing_is_zero(bs, offset, map.bytes)))) {
            return false;
        }
    }
    return true;
}

/* The same of everything around a write. */
static bool coroutine_fn around_is_zero(BlockDriverState *bs, const Qcow2Alloc *alloc,
                                        uint64_t offset, uint64_t head, uint64_t end, uint64_t tail)
{
    return alloc->reads_zero ||
           (range_is_zero(bs, offset - head, head) && range_is_zero(bs, end, tail));
}

/* The guest's data between @head and @tail bytes around it, in one write. */
static int coroutine_fn write_with_around(const WritePart *p, uint64_t head, uint64_t tail,
                                          bool zero)
{
    BlockDriverState *bs = p->bs;
    uint64_t end = p->offset + p->map.bytes;
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, head + tail);
    IOVector qiov;
    int ret = 0;

    if (!buf) {
        return -ENOMEM;
    }
    if (zero) {
        memset(buf, 0, head + tail);
    } else {
        ret = head ? read_around(bs, p->offset - head, head, buf) : 0;
        if (ret >= 0 && tail) {
            ret = read_around(bs, end, tail, buf + head);
        }
    }
    if (ret >= 0) {
        iovector_init(&qiov, p->qiov->niov + 2);
        if (head) {
            iovector_add(&qiov, buf, head);
        }
        iovector_concat(&qiov, p->qiov, p->qiov_offset, p->map.bytes);
        if (tail) {
            iovector_add(&qiov, buf + head, tail);
        }
        ret = bdrv_co_pwritev_part(bs->file, p->map.host - head, qiov.size, &qiov, 0, 0);
        iovector_destroy(&qiov);
    }
    free(buf);
    return ret;
}

static int coroutine_fn zero_host(BlockDriverState *bs, uint64_t host, uint64_t bytes)
{
    return bytes ? bdrv_co_pwrite_zeroes(bs->file, host, bytes, BDRV_REQ_NO_FALLBACK) : 0;
}

/* Fill clusters that nobody sees yet. */
static int coroutine_fn fill_clusters(const WritePart *p)
{
    Qcow2State *s = qcow2_state(p->bs);
    const Qcow2Alloc *alloc = p->map.alloc;
    uint64_t end = p->offset + p->map.bytes;
    uint64_t head = p->offset - alloc->fill_from, tail = alloc->fill_to - end;
    bool zero, done = !head && !tail;
    int ret = qcow2_overlap_check(p->bs, alloc->host, alloc->clusters << s->cluster_bits);

    if (ret < 0) {
        return ret;
    }
    if (!done) {
        zero = around_is_zero(p->bs, alloc, p->offset, head, end, tail);
        done = zero &&
               (alloc->host_zeroed || (head + tail > ZERO_AROUND_BYTES &&
                                       zero_host(p->bs, p->map.host - head, head) == 0 &&
                                       zero_host(p->bs, p->map.host + p->map.bytes, tail) == 0));
        if (!done) {
            return write_with_around(p, head, tail, zero);
        }
    }
    return bdrv_co_pwritev_part(p->bs->file, p->map.host, p->map.bytes, p->qiov, p->qiov_offset, 0);
}

/* An image that was cut short may have clusters behind the end of its file. */
static int coroutine_fn reach_file_end(BlockDriverState *bs, uint64_t host, uint64_t bytes)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t covered = (uint64_t)s->reftable.n << s->refblock_bits;
    int ret;

    if (host + bytes <= s->file_len) {
        return 0;
    }
    if ((host + bytes - 1) >> s->cluster_bits >= covered) {
        return qcow2_signal_corruption(
            bs, "guest data at offset 0x%" PRIx64 ", where nothing was ever allocated", host);
    }
    co_mutex_lock(&s->lock);
    ret = qcow2_extend_file(bs, host + bytes);
    if (ret == 0) {
        s->zero_from = MAX(s->zero_from, round_up_u64(host + bytes, s->cluster_size));
        s->used_end = MAX(s->used_end, s->zero_from);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

static int coroutine_fn write_in_place(const WritePart *p)
{
    int ret = qcow2_overlap_check(p->bs, p->map.host, p->map.bytes);

    if (ret == 0) {
        ret = bdrv_co_pwritev_part(p->bs->file, p->map.host, p->map.bytes, p->qiov, p->qiov_offset,
                                   0);
    }
    qcow2_io_end(qcow2_state(p->bs), p->map.epoch);
    return ret;
}

static int coroutine_fn write_part(const WritePart *p)
{
    int ret;

    if (!p->map.alloc) {
        return write_in_place(p);
    }
    ret = fill_clusters(p);
    if (ret < 0) {
        qcow2_alloc_abort(p->bs, p->map.alloc);
        return ret;
    }
    return qcow2_alloc_link(p->bs, p->map.alloc);
}

static int coroutine_fn write_task(void *opaque)
{
    g_autofree WritePart *part = opaque;

    return write_part(part);
}

/* The next part; extends the file where the mapping leads behind its end. */
static int coroutine_fn map_part(WritePart *p, uint64_t bytes)
{
    Qcow2State *s = qcow2_state(p->bs);
    int ret;

    for (;;) {
        ret = qcow2_map_for_write(p->bs, p->offset, bytes, &p->map);
        if (ret < 0 || p->map.host + p->map.bytes <= s->file_len) {
            return ret;
        }
        if (p->map.alloc) {
            qcow2_alloc_abort(p->bs, p->map.alloc);
        } else {
            qcow2_io_end(s, p->map.epoch);
        }
        ret = reach_file_end(p->bs, p->map.host, p->map.bytes);
        if (ret < 0) {
            return ret;
        }
    }
}

static int coroutine_fn write_parts(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                    IOVector *qiov, size_t qiov_offset)
{
    Qcow2Tasks tasks = { 0 };
    int ret = 0;

    while (bytes && ret == 0 && tasks.ret == 0) {
        WritePart part = { .bs = bs, .offset = offset, .qiov = qiov, .qiov_offset = qiov_offset };

        qcow2_tasks_make_room(&tasks, MAX_PARTS_AT_ONCE);
        ret = map_part(&part, bytes);
        if (ret < 0) {
            break;
        }
        if (part.map.bytes == bytes && !tasks.running) {
            ret = write_part(&part);
        } else {
            qcow2_tasks_start(&tasks, write_task, g_memdup2(&part, sizeof(part)));
        }
        offset += part.map.bytes;
        qiov_offset += part.map.bytes;
        bytes -= part.map.bytes;
    }
    return qcow2_tasks_wait(&tasks) < 0 ? tasks.ret : ret;
}

int coroutine_fn qcow2_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                  IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int ret = qcow2_begin_change(bs);

    if (ret == 0) {
        ret = write_parts(bs, offset, bytes, qiov, qiov_offset);
    }
    if (ret == 0 && qcow2_wants_settling(qcow2_state(bs))) {
        ret = qcow2_settle(bs);
    }
    return ret;
}

/* ---- zeroes, discards ---- */

/* Whether the disk has zeroes in that part of a cluster, and says so in its metadata. */
static int coroutine_fn part_is_zero(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    Qcow2Mapping map;

    for (; bytes; offset += map.bytes, bytes -= map.bytes) {
        int ret = qcow2_map(bs, offset, bytes, &map);

        if (ret < 0) {
            return ret;
        }
        if (!qcow2_is_zero(map.type) &&
            !(qcow2_is_backing(map.type) && offset >= qcow2_backing_len(bs))) {
            return 0;
        }
    }
    return 1;
}

int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags)
{
    Qcow2State *s = qcow2_state(bs);
    bool to_end = (uint64_t)(offset + bytes) == s->hdr.size;
    int ret = qcow2_begin_change(bs);

    if (ret < 0) {
        return ret;
    }
    if (!qcow2_in_cluster(s, offset) && (to_end || !qcow2_in_cluster(s, bytes))) {
        return qcow2_zero_clusters(bs, offset, bytes, flags);
    }
    /* The layer asks for parts of clusters apart from whole ones. */
    if (qcow2_start_of_cluster(s, offset) != qcow2_start_of_cluster(s, offset + bytes - 1)) {
        return -ENOTSUP;
    }
    ret = part_is_zero(bs, offset, bytes);
    return ret < 0 ? ret : ret > 0 ? 0 : -ENOTSUP;
}

int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t start = round_up_u64(offset, s->cluster_size), end = offset + bytes;
    int ret = qcow2_begin_change(bs);

    if (ret < 0) {
        return ret;
    }
    if (end != s->hdr.size) {
        end = qcow2_start_of_cluster(s, end);
    }
    return start < end
               ? qcow2_discard_clusters(bs, start, end - start, false, QCOW2_DISCARD_REQUEST)
               : 0;
}

/* ---- status ---- */

/*
 * Clusters may be holes in a file that occupies less than its length: then it is worth asking the
 * file.
 */
static bool coroutine_fn file_is_sparse(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);

    if (s->sparse < 0) {
        int64_t allocated = bdrv_co_get_allocated_file_size(bs->file->bs);

        s->sparse = allocated >= 0 && (uint64_t)allocated < s->file_len;
    }
    return s->sparse;
}

int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                       int64_t bytes, int64_t *pnum, int64_t *map,
                                       BlockDriverState **file)
{
    Qcow2Mapping m;
    int ret = qcow2_map(bs, offset, bytes, &m);

    if (ret < 0) {
        return ret;
    }
    *pnum = m.bytes;
    switch (m.type) {
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_ALLOC:
        return 0;
    case QCOW2_ZERO_PLAIN:
        return BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
    case QCOW2_COMPRESSED_DATA:
        return BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_COMPRESSED;
    default:
        break;
    }
    *map = m.host;
    *file = bs->file->bs;
    ret = BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ALLOCATED;
    if (m.type == QCOW2_ZERO_ALLOC) {
        return ret | BDRV_BLOCK_ZERO;
    }
    return ret | BDRV_BLOCK_DATA | (want_zero && file_is_sparse(bs) ? BDRV_BLOCK_RECURSE : 0);
}
