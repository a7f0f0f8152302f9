/*
 * qcow2: is the image sound? Everything that refers to a cluster is followed and counted; then the
 * counts are compared with those that the image has. A count that is too high is a leak, lost
 * space; one that is too low is a corruption, as the cluster could be given away. At last each
 * "copied" flag is compared with the count.
 *
 * Repairing sets the counts to what was counted; where the refcount blocks themselves are broken or
 * missing, all of them are made anew elsewhere (qcow2-repair.c). Entries that cannot be right
 * become zeroes.
 *
 * The lock is held, and nothing waits to be written or freed: file and caches agree.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

typedef struct Check {
    BlockDriverState *bs;
    Qcow2State *s;
    BdrvCheckResult *res;
    BdrvCheckMode fix;
    Qcow2Counts counts;
    bool rebuild;                       /* the refcount structure is broken */
    unsigned told;
} Check;

#define MAX_TOLD 50

/* ---- counting ---- */

static void G_GNUC_PRINTF(2, 3) tell(Check *c, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    if (c->told++ > MAX_TOLD) {
        return;
    }
    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_report("%s", c->told > MAX_TOLD ? "there is more of that kind" : text);
}

static void start_counting(Check *c)
{
    qcow2_counts_clear(&c->counts);
    qcow2_counts_init(&c->counts, qcow2_clusters_up(c->s, c->s->file_len));
}

/* Something refers to that range. */
static void count_range(Check *c, uint64_t offset, uint64_t bytes)
{
    const Qcow2State *s = c->s;

    if (!bytes) {
        return;
    }
    for (uint64_t i = offset >> s->cluster_bits; i <= (offset + bytes - 1) >> s->cluster_bits;
         i++) {
        qcow2_counts_add(&c->counts, i);
        c->res->image_end_offset =
            MAX(c->res->image_end_offset, (int64_t)((i + 1) << s->cluster_bits));
    }
}

/* Tables can be of any size in a hostile image: they must lie in the file. */
static bool table_is_there(const Check *c, uint64_t offset, uint64_t bytes)
{
    uint64_t end;

    return !__builtin_add_overflow(offset, bytes, &end) &&
           end <= round_up_u64(c->s->file_len, c->s->cluster_size);
}

/* ---- mapping tables ---- */

/* What is wrong with an L2 entry; NULL: nothing. */
static const char *l2_entry_fault(const Check *c, Qcow2Entry entry)
{
    const Qcow2State *s = c->s;
    Qcow2ClusterType type = qcow2_entry_type(s, entry);
    uint64_t host = entry.desc & QCOW2_OFFSET_MASK,
             covered = (uint64_t)s->reftable.n << s->refblock_bits;
    uint32_t bytes;

    if (type == QCOW2_COMPRESSED_DATA) {
        qcow2_compressed_range(s, entry.desc, &host, &bytes);
        if (entry.desc & QCOW2_COPIED) {
            return "is compressed and marked as copied";
        }
        if (entry.bitmap) {
            return "is compressed and has subclusters";
        }
        return host >= s->file_len ? "is compressed and lies behind the end of the file" : NULL;
    }
    if ((entry.desc & QCOW2_L2_RESERVED) || (s->extended && (entry.desc & QCOW2_ZERO))) {
        return "has reserved bits set";
    }
    if (entry.bitmap >> 32 & entry.bitmap & QCOW2_BITMAP_ALLOC_ALL) {
        return "has a subcluster that is there and reads as zeroes";
    }
    if (type == QCOW2_UNALLOCATED && (entry.bitmap & QCOW2_BITMAP_ALLOC_ALL)) {
        return "has subclusters that are nowhere";
    }
    if (type != QCOW2_NORMAL && type != QCOW2_ZERO_ALLOC) {
        return NULL;
    }
    if (qcow2_in_cluster(s, host)) {
        return "refers to an offset where no cluster begins";
    }
    return host >= round_up_u64(s->file_len, s->cluster_size) &&
                   host >> s->cluster_bits >= covered
               ? "lies behind the end of the file"
               : NULL;
}

static void count_entry(Check *c, Qcow2Entry entry, uint64_t *next)
{
    const Qcow2State *s = c->s;
    uint64_t host = entry.desc & QCOW2_OFFSET_MASK;
    uint32_t bytes;

    switch (qcow2_entry_type(s, entry)) {
    case QCOW2_COMPRESSED_DATA:
        qcow2_compressed_range(s, entry.desc, &host, &bytes);
        count_range(c, host, MIN(bytes, s->file_len - MIN(host, s->file_len)));
        c->res->compressed_clusters++;
        c->res->allocated_clusters++;
        c->res->fragmented_clusters++;
        break;
    case QCOW2_NORMAL:
        c->res->allocated_clusters++;
        c->res->fragmented_clusters += *next && *next != host;
        *next = host + s->cluster_size;
        count_range(c, host, s->cluster_size);
        break;
    case QCOW2_ZERO_ALLOC:
        count_range(c, host, s->cluster_size);
        break;
    default:
        break;
    }
}

/* Write one entry of an L2 table, in the file and in the cache. */
static int coroutine_fn fix_entry(Check *c, uint64_t table, uint32_t index, Qcow2Entry entry)
{
    Qcow2State *s = c->s;
    Qcow2Cache *cache = &s->l2_cache;
    uint64_t at = table + (uint64_t)index * s->entry_bytes;
    Qcow2Slice *slice;
    int ret = qcow2_cache_get(cache, at - at % cache->slice_bytes, &slice);

    if (ret < 0) {
        return ret;
    }
    qcow2_entry_store(s, slice->data, at % cache->slice_bytes / s->entry_bytes, entry);
    qcow2_cache_mark_dirty(cache, slice);
    qcow2_cache_put(cache, slice);
    return 0;
}

/* An entry that cannot be right: version 3 can say that the disk has zeroes there. */
static int coroutine_fn bad_entry(Check *c, uint64_t table, uint32_t index, Qcow2Entry entry,
                                  const char *fault)
{
    tell(c, "%s: entry %u of the L2 table at offset 0x%" PRIx64 " (0x%" PRIx64 ") %s",
         c->fix & BDRV_FIX_ERRORS ? "Repairing" : "ERROR", index, table, entry.desc, fault);
    if (!(c->fix & BDRV_FIX_ERRORS)) {
        c->res->corruptions++;
        return 0;
    }
    c->res->corruptions_fixed++;
    return fix_entry(c, table, index,
                     c->s->hdr.version >= 3 ? qcow2_zero_entry(c->s, 0) : (Qcow2Entry) { 0 });
}

static int coroutine_fn count_l2(Check *c, uint64_t table, uint8_t *buf, bool active,
                                 uint64_t *next)
{
    Qcow2State *s = c->s;
    int ret = qcow2_read_table(c->bs, table, s->cluster_size, buf);

    if (ret < 0) {
        tell(c, "ERROR: the L2 table at offset 0x%" PRIx64 " cannot be read: %s", table,
             g_strerror(-ret));
        c->res->check_errors++;
        return 0;
    }
    for (uint32_t i = 0; i < s->cluster_size / s->entry_bytes && ret >= 0; i++) {
        Qcow2Entry entry = qcow2_entry_load(s, buf, i);
        const char *fault = l2_entry_fault(c, entry);

        if (fault) {
            ret = bad_entry(c, table, i, entry, fault);
        } else if (active) {
            count_entry(c, entry, next);
        } else {
            BdrvCheckResult kept = *c->res;

            count_entry(c, entry, next);
            c->res->allocated_clusters = kept.allocated_clusters;
            c->res->compressed_clusters = kept.compressed_clusters;
            c->res->fragmented_clusters = kept.fragmented_clusters;
        }
    }
    return ret;
}

static int coroutine_fn count_l1(Check *c, const uint64_t *l1, uint32_t n, bool active)
{
    Qcow2State *s = c->s;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    uint64_t next = 0;
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < n && ret >= 0; i++) {
        uint64_t table = l1[i] & QCOW2_OFFSET_MASK;

        if (l1[i] & QCOW2_L1_RESERVED) {
            tell(c, "ERROR: entry %u of an L1 table (0x%" PRIx64 ") has reserved bits set", i,
                 l1[i]);
            c->res->corruptions++;
        }
        if (!table) {
            continue;
        }
        if (qcow2_in_cluster(s, table) || !table_is_there(c, table, s->cluster_size)) {
            tell(c,
                 "ERROR: entry %u of an L1 table (0x%" PRIx64
                 ") does not refer to a cluster of the file",
                 i, l1[i]);
            c->res->corruptions++;
            continue;
        }
        count_range(c, table, s->cluster_size);
        ret = count_l2(c, table, buf, active, &next);
    }
    return ret;
}

static int coroutine_fn count_snapshots(Check *c)
{
    Qcow2State *s = c->s;
    int ret = 0;

    for (guint i = 0; i < s->snapshots->len && ret >= 0; i++) {
        const Qcow2Snapshot *snap = s->snapshots->pdata[i];
        Qcow2Table l1;

        if (!table_is_there(c, snap->l1_offset, (uint64_t)snap->l1_size * 8)) {
            tell(c, "ERROR: the L1 table of snapshot '%s' is not in the file", snap->name);
            c->res->corruptions++;
            continue;
        }
        count_range(c, snap->l1_offset, (uint64_t)snap->l1_size * 8);
        if (!qcow2_table_init(&l1, snap->l1_size, snap->l1_offset)) {
            return -ENOMEM;
        }
        ret = qcow2_table_read(c->bs, &l1);
        if (ret >= 0) {
            ret = count_l1(c, l1.entry, l1.n, false);
        }
        qcow2_table_clear(&l1);
    }
    return ret;
}

static int coroutine_fn count_bitmaps(Check *c)
{
    Qcow2State *s = c->s;

    if (s->hdr.has_bitmaps) {
        count_range(c, s->hdr.bitmap_dir_offset, s->hdr.bitmap_dir_bytes);
    }
    for (guint i = 0; i < s->bitmaps->len; i++) {
        const Qcow2BitmapEntry *e = s->bitmaps->pdata[i];
        g_autofree uint64_t *table = NULL;
        int ret = -EIO;

        if (table_is_there(c, e->table_offset, (uint64_t)e->table_size * 8)) {
            count_range(c, e->table_offset, (uint64_t)e->table_size * 8);
            table = qcow2_read_bitmap_table(c->bs, e, &ret);
        }
        if (!table) {
            tell(c, "ERROR: the table of bitmap '%s' cannot be read: %s", e->name,
                 g_strerror(-ret));
            c->res->corruptions++;
            continue;
        }
        for (uint32_t n = 0; n < e->table_size; n++) {
            uint64_t offset = table[n] & QCOW2_OFFSET_MASK;

            if (!offset) {
                continue;
            }
            if (qcow2_in_cluster(s, offset) || !table_is_there(c, offset, s->cluster_size)) {
                tell(c,
                     "ERROR: entry %u of the table of bitmap '%s' does not refer to a cluster of "
                     "the file",
                     n, e->name);
                c->res->corruptions++;
                continue;
            }
            count_range(c, offset, s->cluster_size);
        }
    }
    return 0;
}

/* All but the refcount structure. */
static int coroutine_fn count_mapping(Check *c)
{
    Qcow2State *s = c->s;
    int ret;

    count_range(c, 0, s->cluster_size);
    count_range(c, s->l1.offset, (uint64_t)s->l1.n * 8);
    ret = count_l1(c, s->l1.entry, s->l1.n, true);
    if (ret >= 0) {
        count_range(c, s->hdr.snapshots_offset, s->snapshots_bytes);
        ret = count_snapshots(c);
    }
    return ret < 0 ? ret : count_bitmaps(c);
}

/* ---- the refcount structure ---- */

static bool block_is_there(const Check *c, uint32_t index)
{
    uint64_t offset = c->s->reftable.entry[index] & QCOW2_REFTABLE_MASK;

    return offset && !qcow2_in_cluster(c->s, offset) && offset < QCOW2_MAX_HOST_OFFSET &&
           table_is_there(c, offset, c->s->cluster_size);
}

static void count_refcounts(Check *c)
{
    Qcow2State *s = c->s;

    count_range(c, s->reftable.offset, (uint64_t)s->reftable.n * 8);
    for (uint32_t i = 0; i < s->reftable.n; i++) {
        uint64_t entry = s->reftable.entry[i];

        if (!entry) {
            continue;
        }
        if (!block_is_there(c, i) || (entry & ~QCOW2_REFTABLE_MASK)) {
            tell(c,
                 "ERROR: entry %u of the refcount table (0x%" PRIx64
                 ") does not refer to a cluster of the file",
                 i, entry);
            c->res->corruptions++;
            c->rebuild = true;
            continue;
        }
        count_range(c, entry, s->cluster_size);
        if (qcow2_counts_get(&c->counts, entry >> s->cluster_bits) != 1) {
            tell(c,
                 "ERROR: the refcount block at offset 0x%" PRIx64
                 " is used for something else as well",
                 entry);
            c->res->corruptions++;
            c->rebuild = true;
        }
    }
}

/* ---- comparing ---- */

static int coroutine_fn compare_one(Check *c, uint64_t cluster, uint64_t has)
{
    Qcow2State *s = c->s;
    uint64_t counted = qcow2_counts_get(&c->counts, cluster);
    bool leak = has > counted, fix = c->fix & (leak ? BDRV_FIX_LEAKS : BDRV_FIX_ERRORS);

    if (has == counted || (counted > s->refcount_max && has == s->refcount_max)) {
        return 0;
    }
    tell(c, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
         fix && !c->rebuild ? "Repairing" : leak ? "Leaked" : "ERROR", cluster, has, counted);
    if (!fix || c->rebuild) {
        *(leak ? &c->res->leaks : &c->res->corruptions) += 1;
        return 0;
    }
    *(leak ? &c->res->leaks_fixed : &c->res->corruptions_fixed) += 1;
    return qcow2_refcount_set(c->bs, cluster, MIN(counted, s->refcount_max));
}

/* The counts of one block; without it, all are 0 and anything counted is a corruption. */
static int coroutine_fn compare_block(Check *c, uint32_t index, uint8_t *buf)
{
    Qcow2State *s = c->s;
    uint64_t per_block = UINT64_C(1) << s->refblock_bits, first = index * per_block;
    int ret = qcow2_read_table(c->bs, s->reftable.entry[index] & QCOW2_REFTABLE_MASK,
                               s->cluster_size, buf);

    if (ret < 0) {
        tell(c, "ERROR: refcount block %u cannot be read: %s", index, g_strerror(-ret));
        c->res->check_errors++;
        return 0;
    }
    for (uint64_t i = 0; i < per_block && ret >= 0; i++) {
        ret = compare_one(c, first + i, qcow2_refcount_load(buf, s->hdr.refcount_order, i));
    }
    return ret;
}

static bool has_block(const Check *c, uint64_t cluster)
{
    uint64_t index = cluster >> c->s->refblock_bits;

    return index < c->s->reftable.n && block_is_there(c, index);
}

/* Clusters in use without a block for their counts. */
static int coroutine_fn compare_rest(Check *c)
{
    guint n;
    g_autofree uint64_t *pieces = qcow2_counts_pieces(&c->counts, &n);
    int ret = 0;

    for (guint i = 0; i < n; i++) {
        if (has_block(c, pieces[i])) {
            continue;
        }
        c->rebuild = true;
        for (unsigned k = 0; k < QCOW2_COUNTS_PIECE && ret >= 0; k++) {
            ret = compare_one(c, pieces[i] + k, 0);
        }
    }
    return ret;
}

static int coroutine_fn compare(Check *c)
{
    Qcow2State *s = c->s;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    int ret = buf && !c->counts.failed ? compare_rest(c) : -ENOMEM;

    for (uint32_t i = 0; i < s->reftable.n && ret >= 0; i++) {
        if (block_is_there(c, i)) {
            ret = compare_block(c, i, buf);
        }
    }
    return ret;
}

/* ---- copied flags ---- */

static int coroutine_fn check_copied(Check *c, uint64_t host, uint64_t entry, const char *what,
                                     bool *wrong)
{
    uint64_t refcount;
    int ret = qcow2_refcount_get(c->bs, host >> c->s->cluster_bits, &refcount);

    if (ret < 0) {
        return ret;
    }
    *wrong = (refcount == 1) != !!(entry & QCOW2_COPIED);
    if (*wrong) {
        tell(c, "%s the copied flag of %s 0x%" PRIx64 ", refcount=%" PRIu64,
             c->fix & BDRV_FIX_ERRORS ? "Repairing" : "ERROR: wrong is", what, entry, refcount);
        *(c->fix & BDRV_FIX_ERRORS ? &c->res->corruptions_fixed : &c->res->corruptions) += 1;
    }
    return 0;
}

static int coroutine_fn check_l2_copied(Check *c, uint64_t table, uint8_t *buf)
{
    Qcow2State *s = c->s;
    int ret = qcow2_read_table(c->bs, table, s->cluster_size, buf);

    for (uint32_t i = 0; i < s->cluster_size / s->entry_bytes && ret >= 0; i++) {
        Qcow2Entry entry = qcow2_entry_load(s, buf, i);
        Qcow2ClusterType type = qcow2_entry_type(s, entry);
        bool wrong = false;

        if ((type != QCOW2_NORMAL && type != QCOW2_ZERO_ALLOC) || l2_entry_fault(c, entry)) {
            continue;
        }
        ret = check_copied(c, entry.desc & QCOW2_OFFSET_MASK, entry.desc, "L2 entry", &wrong);
        if (ret >= 0 && wrong && (c->fix & BDRV_FIX_ERRORS)) {
            entry.desc ^= QCOW2_COPIED;
            ret = fix_entry(c, table, i, entry);
        }
    }
    return ret;
}

/* Of the active table only: the flags of snapshots mean nothing. */
static int coroutine_fn check_flags(Check *c)
{
    Qcow2State *s = c->s;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < s->l1.n && ret >= 0; i++) {
        uint64_t table = s->l1.entry[i] & QCOW2_OFFSET_MASK;
        bool wrong = false;

        if (!table || qcow2_in_cluster(s, table) || !table_is_there(c, table, s->cluster_size)) {
            continue;
        }
        ret = check_copied(c, table, s->l1.entry[i], "L1 entry", &wrong);
        if (ret >= 0 && wrong && (c->fix & BDRV_FIX_ERRORS)) {
            qcow2_table_set(&s->l1, i, s->l1.entry[i] ^ QCOW2_COPIED);
        }
        if (ret >= 0) {
            ret = check_l2_copied(c, table, buf);
        }
    }
    return ret;
}

/* ---- all of it ---- */

/* New counts for everything, and what was wrong with the old ones is repaired by that. */
static int coroutine_fn rebuild(Check *c)
{
    int ret;

    start_counting(c);
    /* Faults were told and repaired the first time. */
    *c->res = (BdrvCheckResult) { .corruptions_fixed = c->res->corruptions_fixed + c->res->corruptions,
                                  .leaks_fixed = c->res->leaks_fixed + c->res->leaks };
    ret = count_mapping(c);
    if (ret >= 0 && c->counts.failed) {
        ret = -ENOMEM;
    }
    if (ret >= 0) {
        ret = qcow2_rebuild_refcounts(c->bs, &c->counts);
    }
    if (ret < 0) {
        return ret;
    }
    start_counting(c);
    c->rebuild = false;
    *c->res = (BdrvCheckResult) { .corruptions_fixed = c->res->corruptions_fixed,
                                  .leaks_fixed = c->res->leaks_fixed };
    ret = count_mapping(c);
    if (ret >= 0) {
        count_refcounts(c);
        ret = compare(c);
    }
    return ret;
}

static int coroutine_fn run_check(Check *c)
{
    int ret = count_mapping(c);

    if (ret >= 0) {
        count_refcounts(c);
        ret = compare(c);
    }
    if (ret >= 0 && c->rebuild && (c->fix & BDRV_FIX_ERRORS)) {
        tell(c, "Repairing the refcounts by making all of them anew");
        ret = rebuild(c);
    }
    if (ret >= 0 && c->fix) {
        ret = qcow2_write_back_all(c->bs);
    }
    /* Counts that are not there say nothing about flags. */
    if (ret >= 0 && !c->rebuild) {
        ret = check_flags(c);
    }
    if (ret >= 0 && c->fix) {
        ret = qcow2_write_back_all(c->bs);
        ret = ret < 0 ? ret : bdrv_co_flush(c->bs->file->bs);
    }
    return ret;
}

/* A repaired image is neither dirty nor corrupt. */
static int coroutine_fn clear_marks(Check *c)
{
    Qcow2State *s = c->s;
    uint64_t was = s->hdr.incompatible;

    if (c->res->check_errors || c->res->corruptions) {
        return 0;
    }
    if ((c->fix & BDRV_FIX_ERRORS)) {
        s->hdr.incompatible &= ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
        s->corrupt = false;
    }
    return s->hdr.incompatible == was ? 0 : qcow2_header_write_features(c->bs);
}

int coroutine_fn qcow2_check_locked(BlockDriverState *bs, BdrvCheckResult *result,
                                    BdrvCheckMode fix)
{
    Qcow2State *s = qcow2_state(bs);
    Check c = { .bs = bs, .s = s, .res = result, .fix = fix };
    bool quiet = s->told;
    int ret;

    *result = (BdrvCheckResult) { 0 };
    start_counting(&c);
    /* Here problems are told one by one. */
    s->told = true;
    ret = run_check(&c);
    s->told = quiet;
    qcow2_counts_clear(&c.counts);
    result->total_clusters = qcow2_clusters_up(s, s->hdr.size);
    if (ret < 0) {
        result->check_errors++;
        return ret;
    }
    if (!fix) {
        return 0;
    }
    s->free_hint = 0;
    ret = clear_marks(&c);
    if (ret == 0 && bs->for_check) {
        qcow2_trim_file(bs);
    }
    return ret;
}

int coroutine_fn qcow2_co_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckMode fix)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;

    co_mutex_lock(&s->lock);
    while (s->allocs) {
        qcow2_wait_for_allocs(s, 0, BDRV_MAX_LENGTH);
    }
    ret = s->changing && !s->corrupt ? qcow2_settle(bs) : 0;
    if (ret == 0 && s->changing && !s->corrupt) {
        ret = qcow2_write_back_all(bs);
    }
    if (ret == 0) {
        ret = qcow2_check_locked(bs, result, fix);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}
