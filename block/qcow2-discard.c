/*
 * qcow2: clusters that read as zeroes from now on, or are given up.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "block/qcow2.h"

/* What is to become of clusters. */
typedef struct Change Change;
struct Change {
    /* Of an entry. */
    Qcow2Entry (*entry)(BlockDriverState *bs, const Change *change, Qcow2Entry old);
    /* Whether what is of that type stays as it is. */
    bool (*stays)(const Change *change, Qcow2ClusterType type);
    BdrvRequestFlags flags;             /* of a request to write zeroes */
    bool forget;                        /* of a discard: leave nothing */
    Qcow2DiscardKind kind;              /* for what the old entries referred to */
};

/* ---- changing ---- */

/* What its clusters keep of a range that is of one kind; 0: less than one, unless it is all. */
static uint64_t whole_clusters(const Qcow2State *s, uint64_t found, uint64_t bytes)
{
    return found == bytes ? bytes : qcow2_start_of_cluster(s, found);
}

static bool same_entry(Qcow2Entry a, Qcow2Entry b)
{
    return a.desc == b.desc && a.bitmap == b.bitmap;
}

/* The clusters of the range that have their entries in one slice. With the lock. */
static int coroutine_fn change_slice(BlockDriverState *bs, const Change *change, uint64_t offset,
                                     uint64_t bytes, uint64_t *done)
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
    if (*done && change->stays(change, map.type)) {
        return 0;
    }
    ret = qcow2_slice_for_change(bs, offset, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    for (i = 0; i < n && index + i < s->slice_entries; i++) {
        Qcow2Entry old = qcow2_entry_load(s, slice->data, index + i);
        Qcow2Entry entry = change->entry(bs, change, old);

        if (!same_entry(entry, old)) {
            qcow2_replace_entry(s, slice, index + i, entry, change->kind);
        }
    }
    qcow2_cache_put(&s->l2_cache, slice);
    *done = MIN(i << s->cluster_bits, bytes);
    return 0;
}

static int coroutine_fn change_clusters(BlockDriverState *bs, const Change *change, uint64_t offset,
                                        uint64_t bytes)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    while (bytes && ret == 0) {
        uint64_t done = 0;

        co_mutex_lock(&s->lock);
        ret = change_slice(bs, change, offset, bytes, &done);
        co_mutex_unlock(&s->lock);
        if (ret == 0 && qcow2_wants_settling(s)) {
            ret = qcow2_settle(bs);
        }
        offset += done;
        bytes -= done;
    }
    return ret;
}

/* ---- zeroes ---- */

/* Whether the metadata says of all of the cluster that it reads as zeroes. */
static bool says_zero(const Qcow2State *s, Qcow2Entry entry)
{
    return qcow2_is_zero(qcow2_entry_type(s, entry)) ||
           (s->extended && entry.bitmap == QCOW2_BITMAP_ZERO_ALL);
}

/* What becomes of an entry whose cluster is to read as zeroes. */
static Qcow2Entry zero_entry(BlockDriverState *bs, const Change *change, Qcow2Entry entry)
{
    Qcow2State *s = qcow2_state(bs);
    bool compressed = entry.desc & QCOW2_COMPRESSED, unmap = change->flags & BDRV_REQ_MAY_UNMAP;
    bool host = !compressed && (entry.desc & QCOW2_OFFSET_MASK);

    if (says_zero(s, entry) && !(host && unmap)) {
        return entry;
    }
    if (host && (entry.desc & QCOW2_COPIED) && !unmap) {
        return qcow2_zero_entry(s, entry.desc);
    }
    return qcow2_zero_entry(s, 0);
}

static bool zero_stays(const Change *change, Qcow2ClusterType type)
{
    return type == QCOW2_ZERO_PLAIN;
}

int coroutine_fn qcow2_zero_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     BdrvRequestFlags flags)
{
    const Change change = { .entry = zero_entry, .stays = zero_stays, .flags = flags,
                            .kind = QCOW2_DISCARD_REQUEST };

    return qcow2_state(bs)->hdr.version < 3 ? -ENOTSUP
                                            : change_clusters(bs, &change, offset, bytes);
}

/* ---- discards ---- */

/*
 * What becomes of an entry that is discarded. Version 2 cannot say that a cluster hides a backing
 * file's.
 */
static Qcow2Entry discarded_entry(BlockDriverState *bs, const Change *change, Qcow2Entry entry)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2ClusterType type = qcow2_entry_type(s, entry);

    if (change->forget) {
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

static bool discarded_stays(const Change *change, Qcow2ClusterType type)
{
    return type == QCOW2_UNALLOCATED || (type == QCOW2_ZERO_PLAIN && !change->forget);
}

int coroutine_fn qcow2_discard_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                        bool forget, Qcow2DiscardKind kind)
{
    const Change change = { .entry = discarded_entry, .stays = discarded_stays, .forget = forget,
                            .kind = kind };

    return change_clusters(bs, &change, offset, bytes);
}
