/*
 * Parallel copying.
 *
 * Workers take chunks in the order of their offsets. What a chunk is comes from the sources' block
 * status: data to be copied, zeroes, or what the target's backing file has already. Data is read,
 * searched for zeroes (which the target then stores as such, if it has anything to do at all) and
 * written. Reads run at the same time; writes begin in the order of the offsets unless that does
 * not matter, so that a target which allocates as it is written has its clusters in a row.
 *
 * Where the target allocates in clusters, chunks consist of whole ones: no cluster is written
 * twice.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-convert.h"
#include "util/round.h"
#include "util/zero.h"

/*
 * Large enough for the device, small enough for the CPU's cache to hold what was read until it is
 * written.
 */
#define CHUNK_BYTES (INT64_C(1) << 20)
#define ZERO_CHUNK_BYTES (INT64_C(1) << 30)
#define ZERO_UNIT_BYTES 4096
#define SALVAGE_BYTES BDRV_SECTOR_BYTES

typedef enum ChunkKind { CHUNK_DATA, CHUNK_ZERO, CHUNK_BACKING } ChunkKind;

typedef struct Chunk {
    ChunkKind kind;
    int64_t offset, bytes;
    uint64_t ticket;            /* its number in the order of writes */
} Chunk;

typedef struct Source {
    BlockBackend *blk;
    BlockDriverState *base;     /* layers from here on are the target's backing; NULL: none are */
    int64_t start, length, padded;
} Source;

typedef struct Run {
    ImgCopy *copy;
    Source *sources;
    int64_t total;
    int64_t unit;               /* chunks are multiples of it, but for the last */
    int64_t chunk_bytes;
    int64_t zero_unit;          /* zeroes are looked for in units of this */
    size_t mem_align;

    CoMutex lock;               /* of what follows */
    int64_t pos;
    int64_t known_end;          /* up to where @known is the kind of what lies at @pos */
    ChunkKind known;
    uint64_t next_ticket;

    CoMutex order_lock;         /* of what follows */
    uint64_t write_ticket;      /* whose write is to begin next */
    CoQueue *turns;             /* of ticket t: turns[t % n_turns] */
    unsigned n_turns;           /* as many as there are workers, each of which has one ticket */

    Mutex error_lock;           /* of what follows */
    Error *err;                 /* the first one */
    bool failed;                /* atomic to read */
} Run;

static void fail(Run *r, Error *err)
{
    mutex_lock(&r->error_lock);
    if (r->err) {
        error_free(err);
    } else {
        r->err = err;
    }
    __atomic_store_n(&r->failed, true, __ATOMIC_SEQ_CST);
    mutex_unlock(&r->error_lock);
}

static bool stopped(Run *r)
{
    return __atomic_load_n(&r->failed, __ATOMIC_RELAXED) || img_interrupted();
}

/* ---- sources ---- */

static Source *source_at(Run *r, int64_t offset)
{
    unsigned i = 0;

    while (i + 1 < r->copy->n_src && offset >= r->sources[i].start + r->sources[i].padded) {
        i++;
    }
    return &r->sources[i];
}

static int coroutine_fn read_part(Run *r, Source *s, int64_t offset, int64_t bytes, uint8_t *buf)
{
    int64_t there = CLAMP(s->length - offset, 0, bytes);
    int ret = there > 0 ? blk_co_pread(s->blk, offset, there, buf, 0) : 0;

    if (ret >= 0 && there < bytes) {
        memset(buf + there, 0, bytes - there);
    }
    return ret;
}

/* The same in the smallest pieces, those that cannot be read as zeroes. */
static int coroutine_fn read_salvaged(Run *r, Source *s, int64_t offset, int64_t bytes,
                                      uint8_t *buf)
{
    for (int64_t done = 0; done < bytes; done += SALVAGE_BYTES) {
        int64_t n = MIN(SALVAGE_BYTES, bytes - done);
        int ret = read_part(r, s, offset + done, n, buf + done);

        if (ret < 0) {
            if (!r->copy->quiet) {
                warn_report("error while reading offset %" PRId64 ": %s", s->start + offset + done,
                            g_strerror(-ret));
            }
            memset(buf + done, 0, n);
        }
        if (stopped(r)) {
            return -EINTR;
        }
    }
    return 0;
}

static int coroutine_fn read_chunk(Run *r, const Chunk *c, uint8_t *buf)
{
    int64_t done = 0;

    while (done < c->bytes) {
        Source *s = source_at(r, c->offset + done);
        int64_t at = c->offset + done - s->start, n = MIN(c->bytes - done, s->padded - at);
        int ret = read_part(r, s, at, n, buf + done);

        if (ret < 0 && r->copy->salvage) {
            ret = read_salvaged(r, s, at, n, buf + done);
        }
        if (ret < 0) {
            Error *err = NULL;

            error_setg_errno(&err, -ret, "error while reading at byte %" PRId64, c->offset + done);
            fail(r, err);
            return -1;
        }
        done += n;
    }
    return 0;
}

/* ---- taking chunks ---- */

/* What lies at r->pos, and up to where. */
static int coroutine_fn look_ahead(Run *r)
{
    Source *s = source_at(r, r->pos);
    int64_t at = r->pos - s->start, n = 0;
    int ret, depth = 1;

    if (at >= s->length) {
        r->known = CHUNK_ZERO;
        r->known_end = s->start + s->padded;
        return 0;
    }
    ret = blk_co_block_status_above(s->blk, s->base, at, s->length - at, &n, NULL, NULL, &depth);
    if (ret < 0 && r->copy->salvage) {
        ret = BDRV_BLOCK_DATA;
        n = MIN(r->chunk_bytes, s->length - at);
    }
    if (ret < 0 || n <= 0) {
        Error *err = NULL;

        error_setg_errno(&err, ret < 0 ? -ret : EIO,
                         "error while reading block status at offset %" PRId64, r->pos);
        fail(r, err);
        return -1;
    }
    r->known = ret & BDRV_BLOCK_ZERO ? CHUNK_ZERO
             : s->base && !(ret & BDRV_BLOCK_ALLOCATED) ? CHUNK_BACKING : CHUNK_DATA;
    r->known_end = r->pos + n;
    return 0;
}

/* The chunk at r->pos. What is zero for less than a unit is data. */
static void cut_chunk(Run *r, Chunk *c)
{
    int64_t end = r->known_end;

    c->kind = r->known;
    c->offset = r->pos;
    if (c->kind != CHUNK_DATA) {
        end = end >= r->total ? r->total : end / r->unit * r->unit;
        if (end <= r->pos) {
            c->kind = CHUNK_DATA;
            end = MIN(r->pos + r->unit, r->total);
        }
    } else {
        end = MIN(round_up_i64(end, r->unit), r->total);
    }
    c->bytes = end - r->pos;
    if (c->kind == CHUNK_DATA || (c->kind == CHUNK_ZERO && r->copy->min_sparse == 0)) {
        /* Chunks end at multiples of their length, whatever the first extent was. */
        c->bytes = MIN(c->bytes, r->chunk_bytes - r->pos % r->chunk_bytes);
    } else if (c->kind == CHUNK_ZERO) {
        c->bytes = MIN(c->bytes, ZERO_CHUNK_BYTES);
    }
}

static bool nothing_to_do(const Run *r, const Chunk *c)
{
    return c->kind == CHUNK_BACKING ||
           (c->kind == CHUNK_ZERO && r->copy->target_is_zero && r->copy->min_sparse > 0);
}

/* False: no more. */
static bool coroutine_fn take_chunk(Run *r, Chunk *c)
{
    bool taken = false;

    co_mutex_lock(&r->lock);
    while (!taken && r->pos < r->total && !stopped(r)) {
        if (r->pos >= r->known_end && look_ahead(r) < 0) {
            break;
        }
        cut_chunk(r, c);
        r->pos += c->bytes;
        if (nothing_to_do(r, c)) {
            img_progress_add(c->bytes);
        } else {
            c->ticket = r->next_ticket++;
            taken = true;
        }
    }
    co_mutex_unlock(&r->lock);
    return taken;
}

/* ---- writing ---- */

static void coroutine_fn wait_for_turn(Run *r, const Chunk *c)
{
    if (r->copy->out_of_order) {
        return;
    }
    co_mutex_lock(&r->order_lock);
    while (r->write_ticket != c->ticket) {
        co_queue_wait(&r->turns[c->ticket % r->n_turns], &r->order_lock);
    }
    co_mutex_unlock(&r->order_lock);
}

static void coroutine_fn pass_turn(Run *r)
{
    if (r->copy->out_of_order) {
        return;
    }
    co_mutex_lock(&r->order_lock);
    r->write_ticket++;
    co_queue_restart_all(&r->turns[r->write_ticket % r->n_turns]);
    co_mutex_unlock(&r->order_lock);
}

static int coroutine_fn write_zeroes(Run *r, int64_t offset, int64_t bytes)
{
    if (r->copy->target_is_zero) {
        return 0;
    }
    return blk_co_pwrite_zeroes(r->copy->target, offset, bytes, BDRV_REQ_MAY_UNMAP);
}

/*
 * The first run of @buf that is all zero, long enough to be a hole, or all to be written; *@zero
 * says which.
 */
static int64_t next_run(const Run *r, int64_t offset, int64_t bytes, const uint8_t *buf, bool *zero)
{
    int64_t zeroes_from = -1, n;

    for (int64_t at = 0; at < bytes; at += n) {
        n = MIN(r->zero_unit - (offset + at) % r->zero_unit, bytes - at);
        if (!buffer_is_zero(buf + at, n)) {
            if (zeroes_from == 0 && at >= r->copy->min_sparse) {
                *zero = true;
                return at;
            }
            zeroes_from = -1;
            continue;
        }
        zeroes_from = zeroes_from < 0 ? at : zeroes_from;
        if (zeroes_from > 0 && at + n - zeroes_from >= r->copy->min_sparse) {
            *zero = false;
            return zeroes_from;
        }
    }
    *zero = zeroes_from == 0;
    return bytes;
}

static int coroutine_fn write_sparse(Run *r, const Chunk *c, const uint8_t *buf)
{
    int64_t done = 0;

    while (done < c->bytes) {
        bool zero;
        int64_t n = next_run(r, c->offset + done, c->bytes - done, buf + done, &zero);
        int ret = zero ? write_zeroes(r, c->offset + done, n)
                       : blk_co_pwrite(r->copy->target, c->offset + done, n, buf + done, 0);

        if (ret < 0) {
            return ret;
        }
        done += n;
    }
    return 0;
}

static int coroutine_fn write_chunk(Run *r, const Chunk *c, const uint8_t *buf)
{
    ImgCopy *copy = r->copy;

    if (c->kind == CHUNK_ZERO && copy->min_sparse > 0) {
        return write_zeroes(r, c->offset, c->bytes);
    }
    if (copy->compress) {
        if (copy->min_sparse > 0 && buffer_is_zero(buf, c->bytes)) {
            return write_zeroes(r, c->offset, c->bytes);
        }
        return blk_co_pwrite_compressed(copy->target, c->offset, c->bytes, buf);
    }
    if (copy->min_sparse == 0) {
        return blk_co_pwrite(copy->target, c->offset, c->bytes, buf, 0);
    }
    return write_sparse(r, c, buf);
}

static void coroutine_fn copy_chunk(Run *r, const Chunk *c, uint8_t *buf)
{
    bool is_read = c->kind == CHUNK_DATA;
    int ret = 0;

    if (is_read) {
        ret = read_chunk(r, c, buf);
    } else if (r->copy->min_sparse == 0) {
        memset(buf, 0, c->bytes);
    }
    /* Those behind wait for this one, failed or not. */
    wait_for_turn(r, c);
    if (ret < 0 || stopped(r)) {
        pass_turn(r);
        return;
    }
    img_rate_wait(&r->copy->rate, c->bytes);
    pass_turn(r);
    ret = write_chunk(r, c, buf);
    if (ret < 0) {
        Error *err = NULL;

        error_setg_errno(&err, -ret, "error while writing at byte %" PRId64, c->offset);
        fail(r, err);
        return;
    }
    img_progress_add(c->bytes);
}

static void coroutine_fn worker(void *opaque)
{
    Run *r = opaque;
    Chunk c;
    void *buf;

    if (posix_memalign(&buf, r->mem_align, r->chunk_bytes) != 0) {
        Error *err = NULL;

        error_setg_errno(&err, ENOMEM, "no buffer of %" PRId64 " bytes", r->chunk_bytes);
        fail(r, err);
        return;
    }
    while (take_chunk(r, &c)) {
        copy_chunk(r, &c, buf);
    }
    free(buf);
}

/* ---- the whole ---- */

static int64_t source_length(const ImgCopy *copy, unsigned i, Error **errp)
{
    int64_t length = blk_getlength(copy->src[i]);

    if (length < 0) {
        error_setg_errno(errp, -length, "unable to get length of '%s'", copy->src_names[i]);
    }
    return length;
}

static int64_t pad(int64_t length, bool last)
{
    return last ? length : round_up_i64(length, BDRV_SECTOR_BYTES);
}

int64_t img_copy_length(const ImgCopy *copy, Error **errp)
{
    int64_t total = 0;

    for (unsigned i = 0; i < copy->n_src; i++) {
        int64_t length = source_length(copy, i, errp);

        if (length < 0) {
            return -1;
        }
        if (__builtin_add_overflow(total, pad(length, i + 1 == copy->n_src), &total) ||
            total > BDRV_MAX_LENGTH) {
            error_setg(errp, "the sources together are too long");
            return -1;
        }
    }
    return total;
}

typedef struct TargetFacts {
    BlockDriverState *bs;
    BlockDriverInfo info;
} TargetFacts;

static void coroutine_fn ask_target(void *opaque)
{
    TargetFacts *f = opaque;

    if (!f->bs->drv->co_get_info || f->bs->drv->co_get_info(f->bs, &f->info) < 0) {
        f->info = (BlockDriverInfo) { 0 };
    }
}

static void set_units(Run *r)
{
    ImgCopy *copy = r->copy;
    BlockDriverState *bs = blk_bs(copy->target);
    TargetFacts f = { .bs = bs };

    img_run(ask_target, &f);
    r->unit = MAX(f.info.cluster_size, bs->bl.request_alignment);
    r->chunk_bytes =
        copy->compress ? r->unit : round_up_i64(MAX(CHUNK_BYTES, bs->bl.opt_transfer), r->unit);
    if (bs->bl.max_transfer && !copy->compress) {
        r->chunk_bytes =
            CLAMP((int64_t)bs->bl.max_transfer / r->unit * r->unit, r->unit, r->chunk_bytes);
    }
    r->zero_unit = MAX(MIN(copy->min_sparse, ZERO_UNIT_BYTES), r->unit);
    r->mem_align = MAX(bs->bl.min_mem_alignment, 4096);
    for (unsigned i = 0; i < copy->n_src; i++) {
        r->mem_align = MAX(r->mem_align, bdrv_min_mem_align(blk_bs(copy->src[i])));
    }
}

static void set_sources(Run *r)
{
    ImgCopy *copy = r->copy;
    int64_t start = 0;

    r->sources = g_new0(Source, copy->n_src);
    for (unsigned i = 0; i < copy->n_src; i++) {
        Source *s = &r->sources[i];

        s->blk = copy->src[i];
        s->start = start;
        s->length = blk_getlength(s->blk);
        s->padded = pad(s->length, i + 1 == copy->n_src);
        s->base = copy->target_has_backing ? bdrv_backing_chain_next(blk_bs(s->blk)) : NULL;
        start += s->padded;
    }
}

/* Threads help where nodes can be used from any. */
static bool threads_help(const ImgCopy *copy)
{
    bool help = blk_bs(copy->target)->thread_safe;

    for (unsigned i = 0; i < copy->n_src; i++) {
        help = help || blk_bs(copy->src[i])->thread_safe;
    }
    return help;
}

static int finish(Run *r, Error **errp)
{
    ImgCopy *copy = r->copy;
    int ret;

    if (r->err) {
        error_propagate(errp, r->err);
        return -1;
    }
    if (img_interrupted()) {
        error_setg(errp, "interrupted");
        return -1;
    }
    /* Metadata that the format holds back, too: it may not find room. */
    ret = blk_flush(copy->target);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "error while flushing '%s'", copy->target_name);
        return -1;
    }
    return 0;
}

int img_copy_run(ImgCopy *copy, Error **errp)
{
    Run r = { .copy = copy };
    int ret;

    r.total = img_copy_length(copy, errp);
    if (r.total < 0) {
        return -1;
    }
    co_mutex_init(&r.lock);
    co_mutex_init(&r.order_lock);
    r.n_turns = copy->coroutines;
    r.turns = g_new(CoQueue, r.n_turns);
    for (unsigned i = 0; i < r.n_turns; i++) {
        co_queue_init(&r.turns[i]);
    }
    mutex_init(&r.error_lock);
    set_units(&r);
    set_sources(&r);
    img_run_workers(copy->coroutines, worker, &r, threads_help(copy));
    ret = finish(&r, errp);
    mutex_destroy(&r.error_lock);
    g_free(r.sources);
    g_free(r.turns);
    return ret;
}
