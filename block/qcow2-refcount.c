/*
 * qcow2: refcounts and the search for free clusters.
 *
 * Clusters are taken where the first free ones are, from a hint onwards, so that what is allocated
 * in a row lies in a row. Where no refcount block exists all clusters are free; the block for them
 * is then put right behind the run that was found, and may well describe itself. Counting down is
 * what qcow2-flush.c does, later.
 *
 * A run that begins where the file was never used is known to be zero (Qcow2State.zero_from), which
 * saves writing zeroes around the guest's data.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

/* ---- counts of every width ---- */

uint64_t qcow2_refcount_load(const void *block, unsigned order, uint64_t index)
{
    const uint8_t *b = block;

    switch (order) {
    case 0:
        return b[index / 8] >> index % 8 & 1;
    case 1:
        return b[index / 4] >> index % 4 * 2 & 3;
    case 2:
        return b[index / 2] >> index % 2 * 4 & 15;
    case 3:
        return b[index];
    case 4:
        return lduw_be_p(b + index * 2);
    case 5:
        return ldl_be_p(b + index * 4);
    default:
        return ldq_be_p(b + index * 8);
    }
}

void qcow2_refcount_store(void *block, unsigned order, uint64_t index, uint64_t value)
{
    uint8_t *b = block;
    unsigned bits = 1u << order, per_byte, shift;

    switch (order) {
    case 0:
    case 1:
    case 2:
        per_byte = 8 / bits;
        shift = index % per_byte * bits;
        b[index / per_byte] &= ~(((1u << bits) - 1) << shift);
        b[index / per_byte] |= value << shift;
        break;
    case 3:
        b[index] = value;
        break;
    case 4:
        stw_be_p(b + index * 2, value);
        break;
    case 5:
        stl_be_p(b + index * 4, value);
        break;
    default:
        stq_be_p(b + index * 8, value);
        break;
    }
}

/* ---- blocks ---- */

static uint64_t covered_clusters(const Qcow2State *s)
{
    return (uint64_t)s->reftable.n << s->refblock_bits;
}

/* How many counts a slice has. */
static uint64_t slice_counts(const Qcow2State *s)
{
    return (uint64_t)s->ref_cache.slice_bytes * 8 >> s->hdr.refcount_order;
}

/*
 * The slice with the count of @cluster, pinned, and its place there. NULL with 0: there is no
 * block, all counts are 0.
 */
static int coroutine_fn get_slice(BlockDriverState *bs, uint64_t cluster, Qcow2Slice **slice,
                                  uint64_t *index)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t in_block = cluster & ((UINT64_C(1) << s->refblock_bits) - 1);
    uint64_t offset;

    *slice = NULL;
    if (cluster >= covered_clusters(s)) {
        return 0;
    }
    offset = s->reftable.entry[cluster >> s->refblock_bits] & QCOW2_REFTABLE_MASK;
    if (!offset) {
        return 0;
    }
    if (qcow2_in_cluster(s, offset) || offset >= QCOW2_MAX_HOST_OFFSET) {
        return qcow2_signal_corruption(bs,
                                       "the refcount block at offset 0x%" PRIx64
                                       " is not where a cluster "
                                       "begins",
                                       offset);
    }
    *index = in_block & (slice_counts(s) - 1);
    return qcow2_cache_get(&s->ref_cache,
                           offset + in_block / slice_counts(s) * s->ref_cache.slice_bytes, slice);
}

int coroutine_fn qcow2_refcount_get(BlockDriverState *bs, uint64_t cluster, uint64_t *refcount)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Slice *slice;
    uint64_t index;
    int ret = get_slice(bs, cluster, &slice, &index);

    if (ret < 0) {
        return ret;
    }
    *refcount = 0;
    if (slice) {
        *refcount = qcow2_refcount_load(slice->data, s->hdr.refcount_order, index);
        qcow2_cache_put(&s->ref_cache, slice);
    }
    return 0;
}

int coroutine_fn qcow2_refcount_set(BlockDriverState *bs, uint64_t cluster, uint64_t refcount)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Slice *slice;
    uint64_t index;
    int ret = get_slice(bs, cluster, &slice, &index);

    if (ret < 0) {
        return ret;
    }
    if (!slice) {
        return -ENOENT;
    }
    qcow2_refcount_store(slice->data, s->hdr.refcount_order, index, refcount);
    qcow2_cache_mark_dirty(&s->ref_cache, slice);
    qcow2_cache_put(&s->ref_cache, slice);
    if (!refcount) {
        s->free_hint = MIN(s->free_hint, cluster);
    }
    return 0;
}

/* Set the counts of @n free clusters to 1, where their blocks exist. */
static int coroutine_fn mark_used(BlockDriverState *bs, uint64_t first, uint64_t n)
{
    Qcow2State *s = qcow2_state(bs);

    while (n) {
        Qcow2Slice *slice;
        uint64_t index, i;
        int ret = get_slice(bs, first, &slice, &index);

        if (ret < 0) {
            return ret;
        }
        if (!slice) {
            i = MIN(n, (UINT64_C(1) << s->refblock_bits) -
                           (first & ((UINT64_C(1) << s->refblock_bits) - 1)));
        } else {
            for (i = 0; i < n && index + i < slice_counts(s); i++) {
                qcow2_refcount_store(slice->data, s->hdr.refcount_order, index + i, 1);
            }
            qcow2_cache_mark_dirty(&s->ref_cache, slice);
            qcow2_cache_put(&s->ref_cache, slice);
        }
        first += i;
        n -= i;
    }
    return 0;
}

/* ---- searching ---- */

/* The first free cluster at or after @from. */
static int64_t coroutine_fn find_free(BlockDriverState *bs, uint64_t from)
{
    Qcow2State *s = qcow2_state(bs);

    for (;;) {
        Qcow2Slice *slice;
        uint64_t index, i;
        int ret = get_slice(bs, from, &slice, &index);

        if (ret < 0) {
            return ret;
        }
        if (!slice) {
            return from;
        }
        for (i = index; i < slice_counts(s); i++) {
            if (!qcow2_refcount_load(slice->data, s->hdr.refcount_order, i)) {
                break;
            }
        }
        qcow2_cache_put(&s->ref_cache, slice);
        from += i - index;
        if (i < slice_counts(s)) {
            return from;
        }
    }
}

/* How many clusters from @first, which is free, on are free, at most @max. */
static int64_t coroutine_fn count_free(BlockDriverState *bs, uint64_t first, uint64_t max)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t n = 0;

    while (n < max) {
        Qcow2Slice *slice;
        uint64_t index;
        bool end = false;
        int ret = get_slice(bs, first + n, &slice, &index);

        if (ret < 0) {
            return ret;
        }
        if (!slice) {
            uint64_t block = UINT64_C(1) << s->refblock_bits;

            n += first + n >= covered_clusters(s) ? max - n : block - ((first + n) & (block - 1));
            continue;
        }
        for (; n < max && index < slice_counts(s) && !end; index++) {
            end = qcow2_refcount_load(slice->data, s->hdr.refcount_order, index);
            n += !end;
        }
        qcow2_cache_put(&s->ref_cache, slice);
        if (end) {
            break;
        }
    }
    return MIN(n, max);
}

/* How many blocks are missing for @n clusters from @first on; all are covered by the table. */
static uint64_t missing_blocks(const Qcow2State *s, uint64_t first, uint64_t n)
{
    uint64_t missing = 0;

    for (uint64_t i = first >> s->refblock_bits; i <= (first + n - 1) >> s->refblock_bits; i++) {
        missing += i >= s->reftable.n || !(s->reftable.entry[i] & QCOW2_REFTABLE_MASK);
    }
    return missing;
}

/* The blocks that are missing for @n clusters and for themselves, when they follow them. */
static uint64_t missing_blocks_with_own(const Qcow2State *s, uint64_t first, uint64_t n)
{
    uint64_t blocks = 0, needed;

    while ((needed = missing_blocks(s, first, n + blocks)) != blocks) {
        blocks = needed;
    }
    return blocks;
}

/* ---- taking ---- */

/*
 * A new block for table entry @index, at cluster @at, in which @used clusters from @first on have a
 * count of 1.
 */
static int coroutine_fn write_block(BlockDriverState *bs, uint64_t index, uint64_t at,
                                    uint64_t first, uint64_t used)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t start = index << s->refblock_bits, end = (index + 1) << s->refblock_bits;
    uint8_t *block = bdrv_try_blockalign(bs->file->bs, s->cluster_size);
    int ret;

    if (!block) {
        return -ENOMEM;
    }
    memset(block, 0, s->cluster_size);
    for (uint64_t c = MAX(start, first); c < MIN(end, first + used); c++) {
        qcow2_refcount_store(block, s->hdr.refcount_order, c - start, 1);
    }
    ret = bdrv_co_pwrite(bs->file, at << s->cluster_bits, s->cluster_size, block, 0);
    free(block);
    return MIN(ret, 0);
}

/*
 * The blocks that are missing for @n clusters from @first on and for themselves, right behind them.
 * They are complete in the file before the table leads to them, and then all at once.
 */
static int coroutine_fn create_blocks(BlockDriverState *bs, uint64_t first, uint64_t n,
                                      uint64_t blocks)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t from = first >> s->refblock_bits, to = (first + n + blocks - 1) >> s->refblock_bits;
    uint64_t at = first + n;
    int ret = 0;

    for (uint64_t i = from; i <= to && ret == 0; i++) {
        if (!(s->reftable.entry[i] & QCOW2_REFTABLE_MASK)) {
            ret = write_block(bs, i, at, first, n + blocks);
            if (ret == 0) {
                ret = qcow2_overlap_add(s, at << s->cluster_bits, QCOW2_META_REFBLOCK);
            }
            at++;
        }
    }
    at = first + n;
    for (uint64_t i = from; i <= to && ret == 0; i++) {
        if (!(s->reftable.entry[i] & QCOW2_REFTABLE_MASK)) {
            qcow2_cache_forget(&s->ref_cache, at << s->cluster_bits, s->cluster_size);
            qcow2_table_set(&s->reftable, i, at++ << s->cluster_bits);
        }
    }
    return ret;
}

/* Take @n clusters from @first on and create the blocks that are missing for them behind them. */
static int coroutine_fn take(BlockDriverState *bs, uint64_t first, uint64_t n, uint64_t blocks,
                             bool *zeroed)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t end = (first + n + blocks) << s->cluster_bits;
    int ret = qcow2_extend_file(bs, end);

    if (ret == 0) {
        ret = qcow2_overlap_check(bs, first << s->cluster_bits, (n + blocks) << s->cluster_bits);
    }
    if (ret < 0) {
        return ret;
    }
    *zeroed = first << s->cluster_bits >= s->zero_from;
    s->zero_from = MAX(s->zero_from, end);
    s->used_end = MAX(s->used_end, end);
    ret = mark_used(bs, first, n + blocks);
    if (ret == 0 && blocks) {
        ret = create_blocks(bs, first, n, blocks);
    }
    if (ret == 0 && s->free_hint >= first && s->free_hint < first + n + blocks) {
        s->free_hint = first + n + blocks;
    }
    return ret;
}

/*
 * Does a run of @n fit at @first, where @room clusters are free? *@blocks: with how many blocks
 * behind it.
 */
static bool fits(const Qcow2State *s, uint64_t first, uint64_t n, uint64_t room, uint64_t *blocks)
{
    *blocks = missing_blocks_with_own(s, first, n);
    return n + *blocks <= room;
}

/* @min to @max clusters in a row; their number in *@got. */
static int64_t coroutine_fn alloc(BlockDriverState *bs, uint64_t min, uint64_t max, uint64_t *got,
                                  bool *zeroed)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t from = s->free_hint, limit = QCOW2_MAX_HOST_OFFSET >> s->cluster_bits;
    bool first_look = true;

    for (;;) {
        int64_t first = find_free(bs, from), room;
        uint64_t n = max, blocks, want = max + 2 * (max >> s->refblock_bits) + 4;
        int ret;

        if (first < 0) {
            return first;
        }
        if (first_look) {
            s->free_hint = first;
            first_look = false;
        }
        room = count_free(bs, first, want);
        if (room < 0) {
            return room;
        }
        if ((uint64_t)first + want > limit) {
            return -EFBIG;
        }
        while (n > min && !fits(s, first, n, room, &blocks)) {
            n = MIN(n - 1, (uint64_t)room);
            n = MAX(n, min);
        }
        if (!fits(s, first, n, room, &blocks)) {
            from = first + room;
            continue;
        }
        if (first + n + blocks > covered_clusters(s)) {
            ret = qcow2_grow_reftable(bs, first + n + blocks);
            if (ret < 0) {
                return ret;
            }
            from = first;
            continue;
        }
        ret = take(bs, first, n, blocks, zeroed);
        if (ret < 0) {
            return ret;
        }
        *got = n;
        return first << s->cluster_bits;
    }
}

int64_t coroutine_fn qcow2_alloc_clusters(BlockDriverState *bs, uint64_t n, bool *zeroed)
{
    uint64_t got;

    return alloc(bs, n, n, &got, zeroed);
}

int64_t coroutine_fn qcow2_alloc_run(BlockDriverState *bs, uint64_t *n, bool *zeroed)
{
    return alloc(bs, 1, *n, n, zeroed);
}

/*
 * Count one more reference to the cluster of @offset, which is being packed. 0: that cannot be, as
 * it has as many as it may have, or none any more, or is being discarded.
 */
static int coroutine_fn share_cluster(BlockDriverState *bs, uint64_t offset)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t cluster = offset >> s->cluster_bits, index, refcount;
    Qcow2Slice *slice;
    int ret = get_slice(bs, cluster, &slice, &index);

    if (ret < 0 || !slice) {
        return ret;
    }
    refcount = qcow2_refcount_load(slice->data, s->hdr.refcount_order, index);
    if (refcount && refcount < s->refcount_max &&
        (cluster < s->drop_first || cluster >= s->drop_end)) {
        qcow2_refcount_store(slice->data, s->hdr.refcount_order, index, refcount + 1);
        qcow2_cache_mark_dirty(&s->ref_cache, slice);
        ret = 1;
    }
    qcow2_cache_put(&s->ref_cache, slice);
    return ret;
}

/*
 * It begins in the cluster begun before when it fits there, or when the next one is free as well.
 */
int64_t coroutine_fn qcow2_alloc_bytes(BlockDriverState *bs, uint32_t bytes)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t at = s->packed_at;
    uint32_t room = at ? s->cluster_size - qcow2_in_cluster(s, at) : 0;
    int shared = room ? share_cluster(bs, at) : 0;
    int64_t start = at;
    bool zeroed;

    g_assert(bytes && bytes <= s->cluster_size);
    if (shared < 0) {
        return shared;
    }
    s->packed_at = 0;
    if (!shared || bytes > room) {
        start = qcow2_alloc_clusters(bs, 1, &zeroed);
        if (shared && start == (int64_t)(at + room)) {
            start = at;
        } else if (shared) {
            qcow2_unalloc(bs, at, 1);
        }
        if (start < 0) {
            return start;
        }
    }
    s->packed_at = qcow2_in_cluster(s, start + bytes) ? start + bytes : 0;
    return start;
}

/* ---- counting down ---- */

static void coroutine_fn became_free(BlockDriverState *bs, uint64_t cluster)
{
    Qcow2State *s = qcow2_state(bs);

    s->free_hint = MIN(s->free_hint, cluster);
    if (s->packed_at && s->packed_at >> s->cluster_bits == cluster) {
        s->packed_at = 0;
    }
    qcow2_decompressed_forget(s, cluster << s->cluster_bits, s->cluster_size);
}

static int coroutine_fn drop_one(BlockDriverState *bs, uint64_t cluster)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Slice *slice;
    uint64_t index, refcount = 0;
    int ret = get_slice(bs, cluster, &slice, &index);

    if (ret < 0) {
        return ret;
    }
    if (slice) {
        refcount = qcow2_refcount_load(slice->data, s->hdr.refcount_order, index);
    }
    if (refcount) {
        qcow2_refcount_store(slice->data, s->hdr.refcount_order, index, refcount - 1);
        qcow2_cache_mark_dirty(&s->ref_cache, slice);
        if (refcount == 1) {
            became_free(bs, cluster);
        }
    }
    if (slice) {
        qcow2_cache_put(&s->ref_cache, slice);
    }
    return refcount
               ? 0
               : qcow2_signal_corruption(bs,
                                         "cluster 0x%" PRIx64 " that is given up was already free",
                                         cluster << s->cluster_bits);
}

void coroutine_fn qcow2_unalloc(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t first = offset >> s->cluster_bits, end = (offset + bytes - 1) >> s->cluster_bits;

    for (uint64_t c = first; c <= end; c++) {
        if (drop_one(bs, c) < 0) {
            return;         /* lost space at worst */
        }
    }
}

/*
 * Of [@first, @end): how many clusters in a row from @first on have a count of 1 (*@last) or
 * another one.
 */
static int64_t coroutine_fn count_alike(BlockDriverState *bs, uint64_t first, uint64_t end,
                                        bool *last)
{
    uint64_t refcount, n;

    for (n = 0; first + n < end; n++) {
        int ret = qcow2_refcount_get(bs, first + n, &refcount);

        if (ret < 0) {
            return ret;
        }
        if (n == 0) {
            *last = refcount == 1;
        } else if ((refcount == 1) != *last) {
            break;
        }
    }
    return n;
}

/*
 * Clusters from @first to @end. The discard comes before the count: as soon as that is 0 somebody
 * may write there. Before that only packing might, which the range in Qcow2State prevents.
 */
static int coroutine_fn drop_range(BlockDriverState *bs, uint64_t first, uint64_t end, bool discard)
{
    Qcow2State *s = qcow2_state(bs);

    while (first < end) {
        bool last = false;
        int64_t n = discard ? count_alike(bs, first, end, &last) : (int64_t)(end - first);

        if (n < 0) {
            return n;
        }
        if (last) {
            uint64_t at = first << s->cluster_bits;
            uint64_t len = MIN((uint64_t)n << s->cluster_bits, s->file_len - MIN(at, s->file_len));

            if (len) {
                bdrv_co_pdiscard(bs->file, at, len);
            }
        }
        for (uint64_t c = first; c < first + n; c++) {
            int ret = drop_one(bs, c);

            if (ret < 0) {
                return ret;
            }
        }
        first += n;
    }
    return 0;
}

int coroutine_fn qcow2_refcount_drop(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     bool discard)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;

    s->drop_first = offset >> s->cluster_bits;
    s->drop_end = ((offset + bytes - 1) >> s->cluster_bits) + 1;
    ret = drop_range(bs, s->drop_first, s->drop_end, discard);
    s->drop_first = s->drop_end = 0;
    return ret;
}
