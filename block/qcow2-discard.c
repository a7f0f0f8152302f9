/*
 * qcow2: clusters that read as zeroes from now on, or are given up.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/qcow2.h"

/* ---- zeroes ---- */

/* What its clusters keep of a range that is of one kind; 0: less than one, unless it is all. */
static uint64_t whole_clusters(const Qcow2State *s, uint64_t found, uint64_t bytes)
{
    return found == bytes ? bytes : qcow2_start_of_cluster(s, found);
}

/* Whether the metadata says of all of the cluster that it reads as zeroes. */
static bool says_zero(const Qcow2State *s, Qcow2Entry entry)
{
    return qcow2_is_zero(qcow2_entry_type(s, entry)) ||
           (s->extended && entry.bitmap == QCOW2_BITMAP_ZERO_ALL);
}

/* What becomes of an entry whose cluster is to read as zeroes. */
static Qcow2Entry zero_entry(const Qcow2State *s, Qcow2Entry entry, BdrvRequestFlags flags)
{
    bool compressed = entry.desc & QCOW2_COMPRESSED, unmap = flags & BDRV_REQ_MAY_UNMAP;
    bool host = !compressed && (entry.desc & QCOW2_OFFSET_MASK);

    if (says_zero(s, entry) && !(host && unmap)) {
        return entry;
    }
    if (host && (entry.desc & QCOW2_COPIED) && !unmap) {
        return qcow2_zero_entry(s, entry.desc);
    }
    return qcow2_zero_entry(s, 0);
}

static bool same_entry(Qcow2Entry a, Qcow2Entry b)
{
    return a.desc == b.desc && a.bitmap == b.bitmap;
}

static int coroutine_fn zero_slice(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                   uint64_t *done, BdrvRequestFlags flags)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t n = qcow2_clusters_up(s, bytes), i;
    Qcow2Mapping map;
    Qcow2Slice *slice;
    unsigned index;
    int ret;

    qcow2_wait_for_allocs(s, offset, MIN(bytes, qcow2_slice_span(s)));
    ret = qcow2_map(bs, offset, bytes, &map);
    if (ret < 0) {
        return ret;
    }
    *done = whole_clusters(s, map.bytes, bytes);
    if (map.type == QCOW2_ZERO_PLAIN && *done) {
        return 0;
    }
    ret = qcow2_slice_for_change(bs, offset, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    for (i = 0; i < n && index + i < s->slice_entries; i++) {
        Qcow2Entry old = qcow2_entry_load(s, slice->data, index + i);
        Qcow2Entry entry = zero_entry(s, old, flags);

        if (!same_entry(entry, old)) {
            qcow2_replace_entry(s, slice, index + i, entry, QCOW2_DISCARD_REQUEST);
        }
    }
    qcow2_cache_put(&s->l2_cache, slice);
    *done = MIN(i << s->cluster_bits, bytes);
    return 0;
}

static int coroutine_fn settle_if_needed(BlockDriverState *bs)
{
    return qcow2_wants_settling(qcow2_state(bs)) ? qcow2_settle(bs) : 0;
}

int coroutine_fn qcow2_zero_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     BdrvRequestFlags flags)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    if (s->hdr.version < 3) {
        return -ENOTSUP;
    }
    while (bytes && ret == 0) {
        uint64_t done = 0;

        co_mutex_lock(&s->lock);
        ret = zero_slice(bs, offset, bytes, &done, flags);
        co_mutex_unlock(&s->lock);
        if (ret == 0) {
            ret = settle_if_needed(bs);
        }
        offset += done;
        bytes -= done;
    }
    return ret;
}

/* ---- discards ---- */

/*
 * What becomes of an entry that is discarded. Version 2 cannot say that a cluster hides a backing
 * file's.
 */
static Qcow2Entry discarded_entry(BlockDriverState *bs, Qcow2Entry entry, bool forget)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2ClusterType type = qcow2_entry_type(s, entry);

    if (forget) {
        return (Qcow2Entry) { 0 };
    }
    if (type == QCOW2_UNALLOCATED || type == QCOW2_ZERO_PLAIN) {
        return entry;
    }
    if (s->hdr.version >= 3) {
        return qcow2_zero_entry(s, 0);
    }
    return bs->backing || s->hdr.backing_file ? entry : (Qcow2Entry) { 0 };
}

static int coroutine_fn discard_slice(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                      uint64_t *done, bool forget, Qcow2DiscardKind kind)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t n = qcow2_clusters_up(s, bytes), i;
    Qcow2Mapping map;
    Qcow2Slice *slice;
    unsigned index;
    int ret;

    qcow2_wait_for_allocs(s, offset, MIN(bytes, qcow2_slice_span(s)));
    ret = qcow2_map(bs, offset, bytes, &map);
    if (ret < 0) {
        return ret;
    }
    *done = whole_clusters(s, map.bytes, bytes);
    if (*done &&
        (map.type == QCOW2_UNALLOCATED || (map.type == QCOW2_ZERO_PLAIN && !forget))) {
        return 0;
    }
    ret = qcow2_slice_for_change(bs, offset, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    for (i = 0; i < n && index + i < s->slice_entries; i++) {
        Qcow2Entry old = qcow2_entry_load(s, slice->data, index + i);
        Qcow2Entry entry = discarded_entry(bs, old, forget);

        if (!same_entry(entry, old)) {
            qcow2_replace_entry(s, slice, index + i, entry, kind);
        }
    }
    qcow2_cache_put(&s->l2_cache, slice);
    *done = MIN(i << s->cluster_bits, bytes);
    return 0;
}

int coroutine_fn qcow2_discard_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                        bool forget, Qcow2DiscardKind kind)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    while (bytes && ret == 0) {
        uint64_t done = 0;

        co_mutex_lock(&s->lock);
        ret = discard_slice(bs, offset, bytes, &done, forget, kind);
        co_mutex_unlock(&s->lock);
        if (ret == 0) {
            ret = settle_if_needed(bs);
        }
        offset += done;
        bytes -= done;
    }
    return ret;
}
