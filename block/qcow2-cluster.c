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

static Qcow2Entry entry_at(const Qcow2State *s, const Qcow2Slice *slice, unsigned index)
{
    return qcow2_entry_load(s, slice->data, index);
}

static bool has_host(Qcow2ClusterType type)
{
    return type == QCOW2_NORMAL || type == QCOW2_ZERO_ALLOC;
}

/* ---- looking up ---- */

static uint32_t l1_index(const Qcow2State *s, uint64_t offset)
{
    return offset >> s->cluster_bits >> s->l2_bits;
}

/* Bytes of the disk that one L2 table stands for. */
static uint64_t table_span(const Qcow2State *s)
{
    return UINT64_C(1) << (s->cluster_bits + s->l2_bits);
}

uint64_t qcow2_slice_span(const Qcow2State *s)
{
    return (uint64_t)s->slice_entries << s->cluster_bits;
}

static unsigned entry_index(const Qcow2State *s, uint64_t offset)
{
    return (offset >> s->cluster_bits) & (s->slice_entries - 1);
}

static uint64_t slice_offset(const Qcow2State *s, uint64_t l2_table, uint64_t offset)
{
    return l2_table + (offset & (table_span(s) - 1)) / qcow2_slice_span(s) * s->l2_cache.slice_bytes;
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

/* Where in its cluster: the subcluster. */
static unsigned sub_index(const Qcow2State *s, uint64_t offset)
{
    return qcow2_in_cluster(s, offset) >> s->sub_bits;
}

/* Is what @entry refers to, @i clusters further on, behind that of @first? */
static bool host_continues(const Qcow2State *s, Qcow2Entry first, Qcow2Entry entry, unsigned i)
{
    return (entry.desc & (QCOW2_OFFSET_MASK | QCOW2_COPIED)) ==
           (first.desc & (QCOW2_OFFSET_MASK | QCOW2_COPIED)) + ((uint64_t)i << s->cluster_bits);
}

/* How many subclusters from @sub of entry @index on are of a type and in a row, @max at most. */
static uint64_t count_alike(const Qcow2State *s, const Qcow2Slice *slice, unsigned index,
                            unsigned sub, uint64_t max, Qcow2ClusterType type)
{
    unsigned shift = s->cluster_bits - s->sub_bits, mask = (1u << shift) - 1;
    Qcow2Entry first = entry_at(s, slice, index), entry = first;
    uint64_t n = 1;

    for (; n < max; n++) {
        unsigned at = sub + n, i = at >> shift;

        if (!(at & mask)) {
            if (index + i >= s->slice_entries) {
                break;
            }
            entry = entry_at(s, slice, index + i);
            if (has_host(type) && !host_continues(s, first, entry, i)) {
                break;
            }
        }
        if (qcow2_subcluster_type(s, entry, at & mask) != type) {
            break;
        }
    }
    return n;
}

static int coroutine_fn map_slice(BlockDriverState *bs, const Qcow2Slice *slice, uint64_t offset,
                                  uint64_t bytes, Qcow2Mapping *map)
{
    Qcow2State *s = qcow2_state(bs);
    unsigned index = entry_index(s, offset), sub = sub_index(s, offset);
    Qcow2Entry entry = entry_at(s, slice, index);
    uint64_t in_cluster = qcow2_in_cluster(s, offset), host = entry.desc & QCOW2_OFFSET_MASK;
    uint64_t start = (uint64_t)sub << s->sub_bits, n;

    *map = (Qcow2Mapping) { .type = qcow2_subcluster_type(s, entry, sub), .desc = entry.desc };
    map->copied = entry.desc & QCOW2_COPIED;
    if (has_host(map->type)) {
        map->host = host + in_cluster;
        if (qcow2_in_cluster(s, host)) {
            return qcow2_signal_corruption(bs,
                                           "the entry for offset 0x%" PRIx64
                                           " of the disk refers to offset 0x%" PRIx64
                                           ", where no cluster begins",
                                           offset, host);
        }
    }
    if (map->type == QCOW2_COMPRESSED_DATA) {
        map->bytes = MIN(s->cluster_size - in_cluster, bytes);
        return 0;
    }
    n = (in_cluster - start + bytes + (UINT64_C(1) << s->sub_bits) - 1) >> s->sub_bits;
    n = count_alike(s, slice, index, sub, n, map->type);
    map->bytes = MIN((n << s->sub_bits) + start - in_cluster, bytes);
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

void qcow2_replace_entry(Qcow2State *s, Qcow2Slice *slice, unsigned index, Qcow2Entry entry,
                         Qcow2DiscardKind kind)
{
    uint64_t old = entry_at(s, slice, index).desc, host;
    Qcow2ClusterType type = qcow2_entry_type(s, (Qcow2Entry) { .desc = old });
    uint32_t bytes;

    qcow2_entry_store(s, slice->data, index, entry);
    qcow2_cache_mark_dirty(&s->l2_cache, slice);
    if (type == QCOW2_COMPRESSED_DATA) {
        qcow2_compressed_range(s, old, &host, &bytes);
        qcow2_free_later(s, host, bytes, kind);
    } else if (has_host(type) && ((entry.desc & QCOW2_COMPRESSED) ||
                                  (old & QCOW2_OFFSET_MASK) != (entry.desc & QCOW2_OFFSET_MASK))) {
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

/* The entry of cluster @i of those that were filled. */
static Qcow2Entry filled_entry(const Qcow2State *s, const Qcow2Alloc *alloc, uint64_t i,
                               Qcow2Entry old)
{
    Qcow2Entry entry = qcow2_data_entry(s, alloc->host + (i << s->cluster_bits));
    uint64_t guest = alloc->guest + (i << s->cluster_bits), from, to, filled;

    if (alloc->partly) {
        from = (MAX(alloc->fill_from, guest) - guest) >> s->sub_bits;
        to = (MIN(alloc->fill_to, guest + s->cluster_size) - guest) >> s->sub_bits;
        filled = (UINT64_C(1) << to) - (UINT64_C(1) << from);
        entry.bitmap = (old.bitmap | filled) & ~(filled << 32);
    }
    return entry;
}

/* They were taken for entries of one slice, so all of them become visible or none. */
static int coroutine_fn link_clusters(BlockDriverState *bs, const Qcow2Alloc *alloc)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Slice *slice;
    unsigned index;
    int ret = qcow2_slice_for_change(bs, alloc->guest, &slice, &index);

    if (ret < 0) {
        return ret;
    }
    g_assert(index + alloc->clusters <= s->slice_entries);
    for (uint64_t i = 0; i < alloc->clusters; i++) {
        Qcow2Entry old = entry_at(s, slice, index + i);

        qcow2_replace_entry(s, slice, index + i, filled_entry(s, alloc, i, old),
                            QCOW2_DISCARD_OTHER);
    }
    qcow2_cache_put(&s->l2_cache, slice);
    return 0;
}

int coroutine_fn qcow2_alloc_link(BlockDriverState *bs, Qcow2Alloc *alloc)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;

    co_mutex_lock(&s->lock);
    ret = link_clusters(bs, alloc);
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
    IN_PLACE,           /* it is there and nobody else's */
    REUSE,              /* the cluster is, but the disk has something else there */
    NEW_FROM_ZERO,      /* the disk reads as zeroes in all of the cluster */
    NEW_PARTLY,         /* subclusters that the write does not touch stay as they are */
    NEW_FROM_DATA,      /* what the write does not touch must be copied */
} WriteClass;

/* The cluster that begins at @guest. */
static bool cluster_reads_zero(BlockDriverState *bs, uint64_t guest, Qcow2Entry entry)
{
    Qcow2State *s = qcow2_state(bs);

    for (unsigned sub = 0; sub < 1u << (s->cluster_bits - s->sub_bits); sub++) {
        Qcow2ClusterType type = qcow2_subcluster_type(s, entry, sub);

        if (!qcow2_is_zero(type) &&
            (!qcow2_is_backing(type) ||
             guest + ((uint64_t)sub << s->sub_bits) < qcow2_backing_len(bs))) {
            return false;
        }
    }
    return true;
}

/* Of a write that begins at @offset. */
static WriteClass classify(BlockDriverState *bs, uint64_t offset, Qcow2Entry entry)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2ClusterType type = qcow2_subcluster_type(s, entry, sub_index(s, offset));
    bool host = entry.desc & QCOW2_OFFSET_MASK;

    if (type == QCOW2_COMPRESSED_DATA) {
        return NEW_FROM_DATA;
    }
    if (host && (entry.desc & QCOW2_COPIED)) {
        return type == QCOW2_NORMAL ? IN_PLACE : REUSE;
    }
    if (cluster_reads_zero(bs, qcow2_start_of_cluster(s, offset), entry)) {
        return NEW_FROM_ZERO;
    }
    return s->extended && !host ? NEW_PARTLY : NEW_FROM_DATA;
}

/* How many clusters from @index on can be treated alike, @max at most. */
static uint64_t count_class(BlockDriverState *bs, const Qcow2Slice *slice, unsigned index,
                            uint64_t guest, uint64_t max, WriteClass class)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Entry first = entry_at(s, slice, index);
    uint64_t n = 1;

    while (n < max && index + n < s->slice_entries) {
        Qcow2Entry entry = entry_at(s, slice, index + n);

        if (classify(bs, guest + (n << s->cluster_bits), entry) != class ||
            (class == REUSE && !host_continues(s, first, entry, n))) {
            break;
        }
        n++;
    }
    return n;
}

/*
 * How much of a write into a cluster that is there in parts can go to one: up to the next that is
 * there, into which others may be writing.
 */
static uint64_t bytes_not_there(const Qcow2State *s, Qcow2Entry entry, uint64_t offset,
                                uint64_t bytes)
{
    unsigned sub = sub_index(s, offset), end = sub + 1;

    while (end < 1u << (s->cluster_bits - s->sub_bits) &&
           qcow2_subcluster_type(s, entry, end) != QCOW2_NORMAL) {
        end++;
    }
    return MIN(bytes, ((uint64_t)end << s->sub_bits) - qcow2_in_cluster(s, offset));
}

static Qcow2Alloc *alloc_new(Qcow2State *s, uint64_t offset, const Qcow2WriteMapping *map,
                             uint64_t clusters, WriteClass class, bool zeroed)
{
    Qcow2Alloc *alloc = g_new0(Qcow2Alloc, 1);
    uint64_t granule;

    alloc->guest = qcow2_start_of_cluster(s, offset);
    alloc->host = map->host - qcow2_in_cluster(s, offset);
    alloc->clusters = clusters;
    alloc->reused = class == REUSE;
    alloc->partly = class == NEW_PARTLY || (class == REUSE && s->extended);
    alloc->reads_zero = class == NEW_FROM_ZERO || (class == REUSE && !s->extended);
    alloc->host_zeroed = zeroed;
    granule = alloc->partly ? UINT64_C(1) << s->sub_bits : s->cluster_size;
    alloc->fill_from = offset & ~(granule - 1);
    alloc->fill_to = round_up_u64(offset + map->bytes, granule);
    co_queue_init(&alloc->waiters);
    qcow2_allocs_add(s, alloc);
    return alloc;
}

/* With the lock and the slice: clusters for what begins at entry @index. */
static int coroutine_fn map_new(BlockDriverState *bs, Qcow2Slice *slice, unsigned index,
                                uint64_t offset, uint64_t bytes, Qcow2WriteMapping *map)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t guest = qcow2_start_of_cluster(s, offset), in_cluster = offset - guest, n;
    Qcow2Entry entry = entry_at(s, slice, index);
    WriteClass class = classify(bs, offset, entry);
    bool zeroed = false;
    int64_t host;

    if (class == REUSE && s->extended) {
        bytes = bytes_not_there(s, entry, offset, bytes);
    }
    n = count_class(bs, slice, index, guest, qcow2_clusters_up(s, in_cluster + bytes), class);
    if (class == REUSE) {
        host = entry.desc & QCOW2_OFFSET_MASK;
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
            qcow2_replace_entry(s, slice, index + i,
                                qcow2_data_entry(s, host + (i << s->cluster_bits)),
                                QCOW2_DISCARD_OTHER);
        }
        map->epoch = qcow2_io_begin(s);
    } else {
        map->alloc = alloc_new(s, offset, map, n, class, zeroed);
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
    if (classify(bs, offset, entry_at(s, slice, index)) == IN_PLACE) {
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
