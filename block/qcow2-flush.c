/*
 * qcow2: writing metadata back, and freeing.
 *
 * What is dirty at one instant is copied and written in this order, each step complete before the
 * next:
 *
 *     refcount blocks  |  refcount table  |  L2 tables  |  L1 table
 *
 * with a flush of the file at a bar when something on its left was written and not flushed since,
 * so that the order holds on the disk as well as for a process that is killed. In between two
 * write-backs nothing that is referred to in the file lacks its count, and nothing points to a
 * table that is not there.
 *
 * Freeing is the reverse: a cluster may be given to somebody else, and its count go down, only when
 * the file has no reference to it any more. Freed ranges therefore wait in Qcow2State.freed until
 * the change of the mapping was written, then in .settled until that was flushed; then, when the
 * transfers have ended that may still use them, they are counted down. A crash before that leaves
 * them lost, never twice in use; and what the guest had flushed is still where the file says it is.
 *
 * With lazy refcounts blocks are not written here at all, only when the image is closed or memory
 * is short: the dirty bit in the header says that counts must be made anew.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/qcow2.h"

/* So many bytes, or ranges, may wait to be freed before somebody is made to wait for it. */
#define MAX_FREED_BYTES (UINT64_C(512) << 20)
#define MAX_FREED_RANGES 65536

/* ---- what waits to be freed ---- */

static void add_freed(GArray *list, uint64_t offset, uint64_t bytes, Qcow2DiscardKind kind)
{
    Qcow2Freed *last = list->len ? &g_array_index(list, Qcow2Freed, list->len - 1) : NULL;
    Qcow2Freed freed = { .offset = offset, .bytes = bytes, .kind = kind };

    if (last && last->kind == kind && last->offset + last->bytes == offset) {
        last->bytes += bytes;
    } else {
        g_array_append_val(list, freed);
    }
}

void qcow2_free_later(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2DiscardKind kind)
{
    uint64_t start = qcow2_start_of_cluster(s, offset);
    uint64_t end = start + (qcow2_clusters_up(s, offset + bytes - start) << s->cluster_bits);

    if (bytes) {
        add_freed(s->freed, start, end - start, kind);
        s->freed_bytes += end - start;
    }
}

bool qcow2_wants_settling(const Qcow2State *s)
{
    return s->freed_bytes > MAX_FREED_BYTES || s->freed->len > MAX_FREED_RANGES;
}

static GArray *freed_new(void)
{
    return g_array_new(FALSE, FALSE, sizeof(Qcow2Freed));
}

static void append_all(GArray *to, const GArray *from)
{
    g_array_append_vals(to, from->data, from->len);
}

/* Wait for the transfers that began before now. */
static void coroutine_fn wait_for_transfers(Qcow2State *s)
{
    unsigned old = s->io_epoch;

    s->io_epoch ^= 1;
    g_assert(!s->io_count[s->io_epoch]);
    while (s->io_count[old]) {
        co_queue_wait(&s->io_drained, NULL);
    }
}

/* @list is on the disk: count it down. What cannot be counted down is lost space. */
static void coroutine_fn release(BlockDriverState *bs, const GArray *list)
{
    Qcow2State *s = qcow2_state(bs);

    if (!list->len) {
        return;
    }
    wait_for_transfers(s);
    s->flusher = coroutine_self();
    for (guint i = 0; i < list->len; i++) {
        const Qcow2Freed *freed = &g_array_index(list, Qcow2Freed, i);

        s->freed_bytes -= freed->bytes;
        qcow2_refcount_drop(bs, freed->offset, freed->bytes, s->options.pass_discard[freed->kind]);
    }
    s->flusher = NULL;
}

/* ---- writing back ---- */

typedef struct WriteBack {
    Qcow2Batch blocks, reftable, l2, l1;
    GArray *freed;                      /* with what is written now */
    GArray *settled;                    /* with what was written before */
    bool data_before_l2;
} WriteBack;

static int collect(Qcow2State *s, WriteBack *wb, bool with_counts)
{
    int ret = 0;

    if (with_counts) {
        ret = qcow2_cache_collect(&s->ref_cache, &wb->blocks);
    }
    if (ret == 0) {
        ret = qcow2_table_collect(&s->reftable, &wb->reftable);
    }
    if (ret == 0) {
        ret = qcow2_cache_collect(&s->l2_cache, &wb->l2);
    }
    if (ret == 0) {
        ret = qcow2_table_collect(&s->l1, &wb->l1);
    }
    wb->freed = s->freed;
    wb->settled = s->settled;
    s->freed = freed_new();
    s->settled = freed_new();
    wb->data_before_l2 = s->data_before_l2;
    s->data_before_l2 = false;
    return ret;
}

/* Hand everything back: written, or dirty as before. */
static void finish(Qcow2State *s, WriteBack *wb, bool failed)
{
    qcow2_cache_collected(&s->ref_cache, &wb->blocks, failed);
    qcow2_table_collected(&s->reftable, &wb->reftable, failed);
    qcow2_cache_collected(&s->l2_cache, &wb->l2, failed);
    qcow2_table_collected(&s->l1, &wb->l1, failed);
    qcow2_batch_clear(&wb->blocks);
    qcow2_batch_clear(&wb->reftable);
    qcow2_batch_clear(&wb->l2);
    qcow2_batch_clear(&wb->l1);
    append_all(failed ? s->freed : s->settled, wb->freed);
    append_all(s->settled, wb->settled);
    s->data_before_l2 |= failed && wb->data_before_l2;
    g_array_unref(wb->freed);
    g_array_unref(wb->settled);
}

/* What begins meanwhile sets the marks again. */
static int coroutine_fn flush_file(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    bool counts = s->counts_unflushed, l2 = s->l2_unflushed;
    int ret;

    s->counts_unflushed = s->l2_unflushed = false;
    ret = bdrv_co_flush(bs->file->bs);
    if (ret < 0) {
        s->counts_unflushed |= counts;
        s->l2_unflushed |= l2;
    }
    return ret;
}

/* Returns 0, or an errno. *@flushed: what earlier write-backs wrote is on the disk. */
static int coroutine_fn write_in_order(BlockDriverState *bs, WriteBack *wb, bool *flushed)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = qcow2_batch_write(bs, &wb->blocks);

    s->counts_unflushed |= wb->blocks.n;
    if (ret == 0 && wb->reftable.n) {
        ret = flush_file(bs);
        *flushed = ret == 0;
        if (ret == 0) {
            ret = qcow2_batch_write(bs, &wb->reftable);
        }
        s->counts_unflushed = true;
    }
    if (ret == 0 && (((wb->l2.n || wb->l1.n) && (s->counts_unflushed || wb->data_before_l2)) ||
                     wb->settled->len)) {
        ret = flush_file(bs);
        *flushed = ret == 0;
    }
    if (ret == 0) {
        ret = qcow2_batch_write(bs, &wb->l2);
        s->l2_unflushed |= wb->l2.n;
    }
    if (ret == 0 && wb->l1.n) {
        ret = s->l2_unflushed ? flush_file(bs) : 0;
        if (ret == 0) {
            ret = qcow2_batch_write(bs, &wb->l1);
        }
    }
    return ret;
}

static bool nothing_to_do(const Qcow2State *s)
{
    return !s->ref_cache.dirty && !s->l2_cache.dirty && !s->reftable.any_dirty &&
           !s->l1.any_dirty && !s->freed->len && !s->settled->len;
}

static int coroutine_fn write_back_locked(BlockDriverState *bs, bool with_counts)
{
    Qcow2State *s = qcow2_state(bs);
    WriteBack wb = { 0 };
    bool flushed = false;
    GArray *free_now = NULL;
    int ret = collect(s, &wb, with_counts);

    if (ret == 0) {
        ret = write_in_order(bs, &wb, &flushed);
    }
    if (flushed) {
        free_now = wb.settled;
        wb.settled = freed_new();
    }
    finish(s, &wb, ret < 0);
    if (free_now) {
        release(bs, free_now);
        g_array_unref(free_now);
    }
    return ret;
}

static int coroutine_fn write_back(BlockDriverState *bs, bool with_counts)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    if (!s->loaded || nothing_to_do(s)) {
        return 0;
    }
    co_mutex_lock(&s->flush_lock);
    if (!nothing_to_do(s)) {
        ret = write_back_locked(bs, with_counts);
    }
    co_mutex_unlock(&s->flush_lock);
    return ret;
}

int coroutine_fn qcow2_write_back(BlockDriverState *bs)
{
    return write_back(bs, !qcow2_refcounts_are_lazy(qcow2_state(bs)));
}

int coroutine_fn qcow2_write_back_all(BlockDriverState *bs)
{
    return write_back(bs, true);
}

/* Three times at most: the mapping, what it freed, and the counts of that. */
int coroutine_fn qcow2_settle(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    for (int i = 0; i < 3 && ret == 0; i++) {
        ret = qcow2_write_back(bs);
        if (ret == 0) {
            ret = flush_file(bs);
        }
        if (!s->freed->len && !s->settled->len &&
            (qcow2_refcounts_are_lazy(s) || !s->ref_cache.dirty)) {
            break;
        }
    }
    return ret;
}
