/*
 * qcow2: from a place on the disk to a place in the file, and changes of that.
 *
 * Looking up needs no lock: an L2 slice that is in the cache is read between two yields, and when
 * it had to be loaded the L1 entry is compared again. Whoever changes entries holds
 * Qcow2State.lock.
 *
 * A write to clusters that are not there yet takes one of two ways. Where the disk had zeroes and
 * the new clusters are known to be zero (fresh from the end of the file), the mapping is changed at
 * once: whatever happens next, readers see zeroes or the new data, and many writes to one cluster
 * need not wait for each other. Otherwise the clusters are filled first, with the data and with
 * what was around it, and linked afterwards (Qcow2Alloc); others who want to change them wait
 * meanwhile, readers see the old content.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

Qcow2ClusterType qcow2_entry_type(const Qcow2State *s, uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED) {
        return QCOW2_COMPRESSED_DATA;
    }
    if ((entry & QCOW2_ZERO) && s->hdr.version >= 3) {
        return entry & QCOW2_OFFSET_MASK ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    return entry & QCOW2_OFFSET_MASK ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
}

static uint64_t entry_at(const Qcow2Slice *slice, unsigned index)
{
    return ldq_be_p(slice->data + (size_t)index * 8);
}

static bool has_host(Qcow2ClusterType type)
{
    return type == QCOW2_NORMAL || type == QCOW2_ZERO_ALLOC;
}

/* ---- compressed entries ---- */

static unsigned sectors_shift(const Qcow2State *s)
{
    return 62 - (s->cluster_bits - 8);
}

void qcow2_compressed_range(const Qcow2State *s, uint64_t entry, uint64_t *host, uint32_t *bytes)
{
    unsigned shift = sectors_shift(s);
    uint64_t sectors = (entry >> shift) & ((1u << (s->cluster_bits - 8)) - 1);

    *host = entry & ((UINT64_C(1) << shift) - 1);
    *bytes = (sectors + 1) * 512 - *host % 512;
}

uint64_t qcow2_compressed_entry(const Qcow2State *s, uint64_t host, uint32_t bytes)
{
    uint64_t sectors = (host + bytes - 1) / 512 - host / 512;

    return QCOW2_COMPRESSED | sectors << sectors_shift(s) | host;
}

/* ---- looking up ---- */

static uint32_t l1_index(const Qcow2State *s, uint64_t offset)
{
    return offset >> s->cluster_bits >> s->l2_bits;
}

/* Bytes of the disk that one L2 table stands for, one slice of it. */
static uint64_t table_span(const Qcow2State *s)
{
    return UINT64_C(1) << (s->cluster_bits + s->l2_bits);
}

static uint64_t slice_span(const Qcow2State *s)
{
    return (uint64_t)s->slice_entries << s->cluster_bits;
}

static unsigned entry_index(const Qcow2State *s, uint64_t offset)
{
    return (offset >> s->cluster_bits) & (s->slice_entries - 1);
}

static uint64_t slice_offset(const Qcow2State *s, uint64_t l2_table, uint64_t offset)
{
    return l2_table + (offset & (table_span(s) - 1)) / slice_span(s) * s->l2_cache.slice_bytes;
}

/* No table there: how far that goes. */
static void map_without_table(const Qcow2State *s, uint64_t offset, uint64_t bytes,
                              Qcow2Mapping *map)
{
    uint32_t i = l1_index(s, offset);
    uint64_t end = offset + bytes, at;

    do {
        at = (uint64_t)++i * table_span(s);
    } while (at < end && i < s->l1.n && !(s->l1.entry[i] & QCOW2_OFFSET_MASK));
    *map = (Qcow2Mapping) { .type = QCOW2_UNALLOCATED, .bytes = MIN(at, end) - offset };
}

/* Does @entry, @i clusters further on, go on where @first began? */
static bool continues(const Qcow2State *s, uint64_t first, uint64_t entry, unsigned i,
                      Qcow2ClusterType type)
{
    if (qcow2_entry_type(s, entry) != type) {
        return false;
    }
    if (!has_host(type)) {
        return true;
    }
    return (entry & (QCOW2_OFFSET_MASK | QCOW2_COPIED)) ==
           (first & (QCOW2_OFFSET_MASK | QCOW2_COPIED)) + ((uint64_t)i << s->cluster_bits);
}

static int coroutine_fn map_slice(BlockDriverState *bs, const Qcow2Slice *slice, uint64_t offset,
                                  uint64_t bytes, Qcow2Mapping *map)
{
    Qcow2State *s = qcow2_state(bs);
    unsigned index = entry_index(s, offset), i = 1;
    uint64_t entry = entry_at(slice, index), in_cluster = qcow2_in_cluster(s, offset);
    uint64_t wanted = qcow2_clusters_up(s, in_cluster + bytes);

    *map = (Qcow2Mapping) { .type = qcow2_entry_type(s, entry), .entry = entry };
    map->copied = entry & QCOW2_COPIED;
    if (has_host(map->type)) {
        map->host = (entry & QCOW2_OFFSET_MASK) + in_cluster;
        if (qcow2_in_cluster(s, entry & QCOW2_OFFSET_MASK)) {
            return qcow2_signal_corruption(bs,
                                           "the entry for offset 0x%" PRIx64
                                           " of the disk refers to offset 0x%" PRIx64
                                           ", where no cluster begins",
                                           offset, (uint64_t)(entry & QCOW2_OFFSET_MASK));
        }
    }
    if (map->type != QCOW2_COMPRESSED_DATA) {
        while (i < wanted && index + i < s->slice_entries &&
               continues(s, entry, entry_at(slice, index + i), i, map->type)) {
            i++;
        }
    }
    map->bytes = MIN(((uint64_t)i << s->cluster_bits) - in_cluster, bytes);
    return 0;
}

int coroutine_fn qcow2_map(BlockDriverState *bs, uint64_t offset, uint64_t bytes, Qcow2Mapping *map)
{
    Qcow2State *s = qcow2_state(bs);
    uint32_t i = l1_index(s, offset);

    if (i >= s->l1.n) {
        *map = (Qcow2Mapping) { .type = QCOW2_UNALLOCATED, .bytes = bytes };
        return 0;
    }
    for (;;) {
        uint64_t table = s->l1.entry[i] & QCOW2_OFFSET_MASK;
        Qcow2Slice *slice;
        int ret;

        if (!table) {
            map_without_table(s, offset, bytes, map);
            return 0;
        }
        if (qcow2_in_cluster(s, table)) {
            return qcow2_signal_corruption(
                bs,
                "entry %u of the active L1 table refers to offset 0x%" PRIx64
                ", where no cluster begins",
                i, table);
        }
        slice = qcow2_cache_peek(&s->l2_cache, slice_offset(s, table, offset));
        if (slice) {
            return map_slice(bs, slice, offset, bytes, map);
        }
        ret = qcow2_cache_get(&s->l2_cache, slice_offset(s, table, offset), &slice);
        if (ret < 0) {
            return ret;
        }
        if ((s->l1.entry[i] & QCOW2_OFFSET_MASK) == table) {
            ret = map_slice(bs, slice, offset, bytes, map);
            qcow2_cache_put(&s->l2_cache, slice);
            return ret;
        }
        qcow2_cache_put(&s->l2_cache, slice);
    }
}

/* ---- tables that may be changed ---- */

/*
 * The content of a new table: zeroes, or that of the table @old, which somebody else refers to as
 * well.
 */
static int coroutine_fn fill_table(BlockDriverState *bs, uint64_t offset, uint64_t old, bool zeroed)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    if (!old) {
        ret = zeroed ? 0 : bdrv_co_pwrite_zeroes(bs->file, offset, s->cluster_size, 0);
    }
    for (uint32_t at = 0; old && at < s->cluster_size && ret >= 0; at += s->l2_cache.slice_bytes) {
        Qcow2Slice *slice;

        ret = qcow2_cache_get(&s->l2_cache, old + at, &slice);
        if (ret == 0) {
            ret = bdrv_co_pwrite(bs->file, offset + at, s->l2_cache.slice_bytes, slice->data, 0);
            qcow2_cache_put(&s->l2_cache, slice);
        }
    }
    s->l2_unflushed = true;
    return ret;
}

static int coroutine_fn new_table(BlockDriverState *bs, uint32_t index)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t old = s->l1.entry[index] & QCOW2_OFFSET_MASK;
    bool zeroed;
    int64_t offset = qcow2_alloc_clusters(bs, 1, &zeroed);
    int ret;

    if (offset < 0) {
        return offset;
    }
    qcow2_cache_forget(&s->l2_cache, offset, s->cluster_size);
    ret = fill_table(bs, offset, old, zeroed);
    if (ret == 0) {
        ret = qcow2_overlap_add(s, offset, QCOW2_META_L2);
    }
    if (ret < 0) {
        qcow2_unalloc(bs, offset, s->cluster_size);
        return ret;
    }
    qcow2_table_set(&s->l1, index, offset | QCOW2_COPIED);
    if (old) {
        qcow2_overlap_remove(s, old);
        qcow2_free_later(s, old, s->cluster_size, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

int coroutine_fn qcow2_slice_for_change(BlockDriverState *bs, uint64_t offset, Qcow2Slice **slice,
                                        unsigned *index)
{
    Qcow2State *s = qcow2_state(bs);
    uint32_t i = l1_index(s, offset);
    uint64_t table;

    g_assert(i < s->l1.n);
    if (!(s->l1.entry[i] & QCOW2_COPIED) || !(s->l1.entry[i] & QCOW2_OFFSET_MASK)) {
        int ret = new_table(bs, i);

        if (ret < 0) {
            return ret;
        }
    }
    table = s->l1.entry[i] & QCOW2_OFFSET_MASK;
    if (qcow2_in_cluster(s, table)) {
        return qcow2_signal_corruption(bs,
                                       "entry %u of the active L1 table refers to offset 0x%" PRIx64
                                       ", where no cluster begins",
                                       i, table);
    }
    *index = entry_index(s, offset);
    return qcow2_cache_get(&s->l2_cache, slice_offset(s, table, offset), slice);
}

void qcow2_replace_entry(Qcow2State *s, Qcow2Slice *slice, unsigned index, uint64_t entry,
                         Qcow2DiscardKind kind)
{
    uint64_t old = entry_at(slice, index), host;
    Qcow2ClusterType type = qcow2_entry_type(s, old);
    uint32_t bytes;

    stq_be_p(slice->data + (size_t)index * 8, entry);
    qcow2_cache_mark_dirty(&s->l2_cache, slice);
    if (type == QCOW2_COMPRESSED_DATA) {
        qcow2_compressed_range(s, old, &host, &bytes);
        qcow2_free_later(s, host, bytes, kind);
    } else if (has_host(type) && ((entry & QCOW2_COMPRESSED) ||
                                  (old & QCOW2_OFFSET_MASK) != (entry & QCOW2_OFFSET_MASK))) {
        qcow2_free_later(s, old & QCOW2_OFFSET_MASK, s->cluster_size, kind);
    }
}

/* ---- clusters under way ---- */

void qcow2_allocs_add(Qcow2State *s, Qcow2Alloc *alloc)
{
    alloc->prev = NULL;
    alloc->next = s->allocs;
    if (s->allocs) {
        s->allocs->prev = alloc;
    }
    s->allocs = alloc;
}

void qcow2_allocs_remove(Qcow2State *s, Qcow2Alloc *alloc)
{
    if (alloc->prev) {
        alloc->prev->next = alloc->next;
    } else {
        s->allocs = alloc->next;
    }
    if (alloc->next) {
        alloc->next->prev = alloc->prev;
    }
    co_queue_restart_all(&alloc->waiters);
    g_free(alloc);
}

/* The one that overlaps the clusters of the range and begins first. */
static Qcow2Alloc *first_overlap(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t start = qcow2_start_of_cluster(s, offset);
    Qcow2Alloc *first = NULL;

    for (Qcow2Alloc *a = s->allocs; a; a = a->next) {
        if (a->guest < offset + bytes && start < a->guest + (a->clusters << s->cluster_bits) &&
            (!first || a->guest < first->guest)) {
            first = a;
        }
    }
    return first;
}

void coroutine_fn qcow2_wait_for_allocs(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    Qcow2Alloc *a;

    while ((a = first_overlap(s, offset, bytes))) {
        co_queue_wait(&a->waiters, &s->lock);
    }
}

uint64_t qcow2_clear_of_allocs(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    Qcow2Alloc *a = first_overlap(s, offset, bytes);

    return !a ? bytes : a->guest > offset ? a->guest - offset : 0;
}

void coroutine_fn qcow2_alloc_abort(BlockDriverState *bs, Qcow2Alloc *alloc)
{
    Qcow2State *s = qcow2_state(bs);

    co_mutex_lock(&s->lock);
    if (!alloc->reused) {
        qcow2_unalloc(bs, alloc->host, alloc->clusters << s->cluster_bits);
    }
    qcow2_allocs_remove(s, alloc);
    co_mutex_unlock(&s->lock);
}

/* They were taken for entries of one slice, so all of them become visible or none. */
static int coroutine_fn link_clusters(BlockDriverState *bs, uint64_t guest, uint64_t host,
                                      uint64_t clusters)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Slice *slice;
    unsigned index;
    int ret = qcow2_slice_for_change(bs, guest, &slice, &index);

    if (ret < 0) {
        return ret;
    }
    g_assert(index + clusters <= s->slice_entries);
    for (; clusters; index++, clusters--) {
        qcow2_replace_entry(s, slice, index, host | QCOW2_COPIED, QCOW2_DISCARD_OTHER);
        host += s->cluster_size;
    }
    qcow2_cache_put(&s->l2_cache, slice);
    return 0;
}

int coroutine_fn qcow2_alloc_link(BlockDriverState *bs, Qcow2Alloc *alloc)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;

    co_mutex_lock(&s->lock);
    ret = link_clusters(bs, alloc->guest, alloc->host, alloc->clusters);
    if (ret == 0) {
        s->data_before_l2 = true;
        qcow2_allocs_remove(s, alloc);
    }
    co_mutex_unlock(&s->lock);
    if (ret < 0) {
        qcow2_alloc_abort(bs, alloc);
    }
    return ret;
}

/* ---- writes ---- */

typedef enum WriteClass {
    IN_PLACE,           /* the cluster is there and nobody else's */
    REUSE,              /* the same, and hidden by the zero flag */
    NEW_FROM_ZERO,      /* the disk reads as zeroes there */
    NEW_FROM_DATA,      /* what the write does not touch must be copied */
} WriteClass;

static WriteClass classify(BlockDriverState *bs, uint64_t guest, uint64_t entry)
{
    Qcow2State *s = qcow2_state(bs);

    switch (qcow2_entry_type(s, entry)) {
    case QCOW2_NORMAL:
        return entry & QCOW2_COPIED ? IN_PLACE : NEW_FROM_DATA;
    case QCOW2_ZERO_ALLOC:
        return entry & QCOW2_COPIED ? REUSE : NEW_FROM_ZERO;
    case QCOW2_ZERO_PLAIN:
        return NEW_FROM_ZERO;
    case QCOW2_UNALLOCATED:
        return guest < qcow2_backing_len(bs) ? NEW_FROM_DATA : NEW_FROM_ZERO;
    default:
        return NEW_FROM_DATA;
    }
}

/* How many clusters from @index on can be treated alike, @max at most. */
static uint64_t count_class(BlockDriverState *bs, const Qcow2Slice *slice, unsigned index,
                            uint64_t guest, uint64_t max, WriteClass class)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t first = entry_at(slice, index);
    uint64_t n = 1;

    while (n < max && index + n < s->slice_entries) {
        uint64_t entry = entry_at(slice, index + n);

        if (classify(bs, guest + (n << s->cluster_bits), entry) != class ||
            (class == REUSE && !continues(s, first, entry, n, QCOW2_ZERO_ALLOC))) {
            break;
        }
        n++;
    }
    return n;
}

static Qcow2Alloc *alloc_new(Qcow2State *s, uint64_t guest, uint64_t host, uint64_t clusters,
                             WriteClass class, bool zeroed)
{
    Qcow2Alloc *alloc = g_new0(Qcow2Alloc, 1);

    alloc->guest = guest;
    alloc->host = host;
    alloc->clusters = clusters;
    alloc->reused = class == REUSE;
    alloc->reads_zero = class != NEW_FROM_DATA;
    alloc->host_zeroed = zeroed;
    co_queue_init(&alloc->waiters);
    qcow2_allocs_add(s, alloc);
    return alloc;
}

/* With the lock and the slice: clusters for what begins at entry @index. */
static int coroutine_fn map_new(BlockDriverState *bs, Qcow2Slice *slice, unsigned index,
                                uint64_t offset, uint64_t bytes, Qcow2WriteMapping *map)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t guest = qcow2_start_of_cluster(s, offset), in_cluster = offset - guest;
    WriteClass class = classify(bs, guest, entry_at(slice, index));
    uint64_t n =
        count_class(bs, slice, index, guest, qcow2_clusters_up(s, in_cluster + bytes), class);
    bool zeroed = false;
    int64_t host;

    if (class == REUSE) {
        host = entry_at(slice, index) & QCOW2_OFFSET_MASK;
        if (qcow2_in_cluster(s, host)) {
            return qcow2_signal_corruption(bs, "a cluster of zeroes refers to offset 0x%" PRIx64
                                           ", where no cluster begins", (uint64_t)host);
        }
    } else {
        host = qcow2_alloc_run(bs, &n, &zeroed);
        if (host < 0) {
            return host;
        }
    }
    map->host = host + in_cluster;
    map->bytes = MIN(bytes, (n << s->cluster_bits) - in_cluster);
    if (class == NEW_FROM_ZERO && zeroed) {
        for (uint64_t i = 0; i < n; i++) {
            qcow2_replace_entry(s, slice, index + i, (host + (i << s->cluster_bits)) | QCOW2_COPIED,
                                QCOW2_DISCARD_OTHER);
        }
        map->epoch = qcow2_io_begin(s);
    } else {
        map->alloc = alloc_new(s, guest, host, n, class, zeroed);
    }
    return 0;
}

/* With the lock: 1 when the mapping is to be looked up again. */
static int coroutine_fn map_for_write_locked(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                             Qcow2WriteMapping *map)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t clear = qcow2_clear_of_allocs(s, offset, bytes);
    Qcow2Slice *slice;
    unsigned index;
    int ret;

    if (!clear) {
        qcow2_wait_for_allocs(s, offset, 1);
        return 1;
    }
    ret = qcow2_slice_for_change(bs, offset, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    if (classify(bs, offset, entry_at(slice, index)) == IN_PLACE) {
        ret = 1;
    } else {
        ret = map_new(bs, slice, index, offset, clear, map);
    }
    qcow2_cache_put(&s->l2_cache, slice);
    return ret;
}

int coroutine_fn qcow2_map_for_write(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     Qcow2WriteMapping *map)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Mapping found;
    int ret;

    *map = (Qcow2WriteMapping) { 0 };
    do {
        ret = qcow2_map(bs, offset, bytes, &found);
        if (ret < 0) {
            return ret;
        }
        if (found.type == QCOW2_NORMAL && found.copied) {
            map->host = found.host;
            map->bytes = found.bytes;
            map->epoch = qcow2_io_begin(s);
            return 0;
        }
        co_mutex_lock(&s->lock);
        ret = map_for_write_locked(bs, offset, bytes, map);
        co_mutex_unlock(&s->lock);
    } while (ret > 0);
    return ret;
}

/* ---- zeroes and discards ---- */

/* What becomes of an entry whose cluster is to read as zeroes. */
static uint64_t zero_entry(const Qcow2State *s, uint64_t entry, BdrvRequestFlags flags)
{
    Qcow2ClusterType type = qcow2_entry_type(s, entry);

    if (type == QCOW2_ZERO_PLAIN || (type == QCOW2_ZERO_ALLOC && !(flags & BDRV_REQ_MAY_UNMAP))) {
        return entry;
    }
    if (has_host(type) && (entry & QCOW2_COPIED) && !(flags & BDRV_REQ_MAY_UNMAP)) {
        return entry | QCOW2_ZERO;
    }
    return QCOW2_ZERO;
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

    qcow2_wait_for_allocs(s, offset, MIN(bytes, slice_span(s)));
    ret = qcow2_map(bs, offset, bytes, &map);
    if (ret < 0) {
        return ret;
    }
    if (map.type == QCOW2_ZERO_PLAIN) {
        *done = map.bytes;
        return 0;
    }
    ret = qcow2_slice_for_change(bs, offset, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    for (i = 0; i < n && index + i < s->slice_entries; i++) {
        uint64_t old = entry_at(slice, index + i), entry = zero_entry(s, old, flags);

        if (entry != old) {
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

/*
 * What becomes of an entry that is discarded. Version 2 cannot say that a cluster hides a backing
 * file's.
 */
static uint64_t discarded_entry(BlockDriverState *bs, uint64_t entry, bool forget)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2ClusterType type = qcow2_entry_type(s, entry);

    if (forget) {
        return 0;
    }
    if (type == QCOW2_UNALLOCATED || type == QCOW2_ZERO_PLAIN) {
        return entry;
    }
    if (s->hdr.version >= 3) {
        return QCOW2_ZERO;
    }
    return bs->backing || s->hdr.backing_file ? entry : 0;
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

    qcow2_wait_for_allocs(s, offset, MIN(bytes, slice_span(s)));
    ret = qcow2_map(bs, offset, bytes, &map);
    if (ret < 0) {
        return ret;
    }
    if (map.type == QCOW2_UNALLOCATED || (map.type == QCOW2_ZERO_PLAIN && !forget)) {
        *done = map.bytes;
        return 0;
    }
    ret = qcow2_slice_for_change(bs, offset, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    for (i = 0; i < n && index + i < s->slice_entries; i++) {
        uint64_t old = entry_at(slice, index + i), entry = discarded_entry(bs, old, forget);

        if (entry != old) {
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
