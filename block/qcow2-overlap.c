/*
 * qcow2: nothing is written over metadata. An image whose tables are broken can refer to its own
 * header or to a refcount block as guest data; one write there would ruin it for good. So before
 * guest data or a new table goes to a place in the file, that place is compared with where the
 * structure of the image is known to be, and an overlap marks the image as corrupt instead.
 *
 * Tables that lie in a row are compared as ranges; L2 tables and refcount blocks, which are many
 * and scattered, stand in a hash table by the number of their cluster.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdarg.h>

#include "block/block-backend.h"
#include "block/graph-internal.h"
#include "block/qcow2.h"
#include "qapi/qapi-events-block-core.h"

#define MIN_SLOTS 64

/* The name of the drive that the node is the root of; "" when there is none. */
static const char *drive_of(BlockDriverState *bs)
{
    BdrvChild *c;

    BDRV_FOREACH_PARENT(bs, c) {
        if (!c->parent && *blk_name(blk_of_edge(c))) {
            return blk_name(blk_of_edge(c));
        }
    }
    return "";
}

int coroutine_fn qcow2_signal_corruption(BlockDriverState *bs, const char *fmt, ...)
{
    Qcow2State *s = qcow2_state(bs);
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (!s->told) {
        s->told = true;
        error_report("qcow2: image '%s' is corrupt: %s; %s", bdrv_get_filename(bs), text,
                     s->changing ? "nothing is written to it any more"
                                 : "only what is intact can be read");
        qapi_event_send_block_image_corrupted(drive_of(bs), bdrv_get_node_name(bs), text, false, 0,
                                              false, 0, s->changing && !bs->for_check);
    }
    if (s->changing && !s->corrupt && !bs->for_check) {
        s->corrupt = true;
        if (s->hdr.version >= 3) {
            s->hdr.incompatible |= QCOW2_INCOMPAT_CORRUPT;
            qcow2_header_write_features(bs);
        }
    }
    return -EIO;
}

/* ---- the hash table: linear probing, at most half full ---- */

static uint64_t slot_of(const Qcow2MetaSet *set, uint64_t cluster)
{
    return (cluster * UINT64_C(0x9e3779b97f4a7c15) >> 20) & set->mask;
}

static uint64_t find_slot(const Qcow2MetaSet *set, uint64_t cluster)
{
    uint64_t i = slot_of(set, cluster);

    while (set->slot[i] && set->slot[i] >> 2 != cluster) {
        i = (i + 1) & set->mask;
    }
    return i;
}

static bool resize(Qcow2MetaSet *set, uint64_t slots)
{
    Qcow2MetaSet bigger = { .mask = slots - 1, .used = set->used };

    bigger.slot = g_try_new0(uint64_t, slots);
    if (!bigger.slot) {
        return false;
    }
    for (uint64_t i = 0; set->slot && i <= set->mask; i++) {
        if (set->slot[i]) {
            bigger.slot[find_slot(&bigger, set->slot[i] >> 2)] = set->slot[i];
        }
    }
    g_free(set->slot);
    *set = bigger;
    return true;
}

static Qcow2MetaKind lookup(const Qcow2MetaSet *set, uint64_t cluster)
{
    return set->slot[find_slot(set, cluster)] & 3;
}

int qcow2_overlap_add(Qcow2State *s, uint64_t offset, Qcow2MetaKind kind)
{
    Qcow2MetaSet *set = &s->meta;
    uint64_t cluster = offset >> s->cluster_bits, i;

    if (!s->meta_known) {
        return 0;
    }
    if (set->used * 2 >= set->mask && !resize(set, (set->mask + 1) * 2)) {
        return -ENOMEM;
    }
    i = find_slot(set, cluster);
    set->used += !set->slot[i];
    set->slot[i] = cluster << 2 | kind;
    return 0;
}

void qcow2_overlap_remove(Qcow2State *s, uint64_t offset)
{
    Qcow2MetaSet *set = &s->meta;
    uint64_t hole, i;

    if (!s->meta_known) {
        return;
    }
    hole = find_slot(set, offset >> s->cluster_bits);
    if (!set->slot[hole]) {
        return;
    }
    set->slot[hole] = 0;
    set->used--;
    /* Who stands behind the hole because it was occupied moves up. */
    for (i = (hole + 1) & set->mask; set->slot[i]; i = (i + 1) & set->mask) {
        uint64_t home = slot_of(set, set->slot[i] >> 2);

        if (((i - home) & set->mask) >= ((i - hole) & set->mask)) {
            set->slot[hole] = set->slot[i];
            set->slot[i] = 0;
            hole = i;
        }
    }
}

void qcow2_overlap_destroy(Qcow2State *s)
{
    g_free(s->meta.slot);
    s->meta = (Qcow2MetaSet) { 0 };
    s->meta_known = false;
}

/* ---- ranges ---- */

static bool overlaps(const Qcow2State *s, uint64_t offset, uint64_t bytes, uint64_t table,
                     uint64_t table_bytes)
{
    return table_bytes && offset < table + qcow2_clusters_up(s, table_bytes) * s->cluster_size &&
           table < offset + bytes;
}

/* What lies in a row there; NULL: nothing. */
static const char *overlapped_table(const Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    if (offset < s->cluster_size) {
        return "the header";
    }
    if (overlaps(s, offset, bytes, s->l1.offset, (uint64_t)s->l1.n * 8)) {
        return "the active L1 table";
    }
    if (overlaps(s, offset, bytes, s->reftable.offset, (uint64_t)s->reftable.n * 8)) {
        return "the refcount table";
    }
    if (overlaps(s, offset, bytes, s->hdr.snapshots_offset, s->snapshots_bytes)) {
        return "the snapshot table";
    }
    if (s->hdr.has_bitmaps &&
        overlaps(s, offset, bytes, s->hdr.bitmap_dir_offset, s->hdr.bitmap_dir_bytes)) {
        return "the bitmap directory";
    }
    for (guint i = 0; s->snapshots && i < s->snapshots->len; i++) {
        const Qcow2Snapshot *snap = s->snapshots->pdata[i];

        if (overlaps(s, offset, bytes, snap->l1_offset, (uint64_t)snap->l1_size * 8)) {
            return "the L1 table of a snapshot";
        }
    }
    return NULL;
}

static const char *overlapped(const Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    const char *what = overlapped_table(s, offset, bytes);
    uint64_t last = (offset + bytes - 1) >> s->cluster_bits;

    for (uint64_t c = offset >> s->cluster_bits; !what && c <= last; c++) {
        Qcow2MetaKind kind = lookup(&s->meta, c);

        if (kind != QCOW2_META_NONE) {
            what = kind == QCOW2_META_L2 ? "an L2 table" : "a refcount block";
        }
    }
    return what;
}

int coroutine_fn qcow2_overlap_check(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    Qcow2State *s = qcow2_state(bs);
    const char *what;

    g_assert(s->meta_known);
    what = overlapped(s, offset, bytes);
    return what ? qcow2_signal_corruption(bs,
                                          "a write of %" PRIu64 " bytes at offset 0x%" PRIx64
                                          " of the file would overwrite %s",
                                          bytes, offset, what)
                : 0;
}

/* ---- filling the hash table ---- */

static int coroutine_fn add_tables(BlockDriverState *bs, const Qcow2Table *table, uint64_t mask,
                                   Qcow2MetaKind kind, const char *name)
{
    Qcow2State *s = qcow2_state(bs);

    for (uint32_t i = 0; i < table->n; i++) {
        uint64_t offset = table->entry[i] & mask;
        const char *what;
        int ret;

        if (!offset) {
            continue;
        }
        if (qcow2_in_cluster(s, offset) || offset >= QCOW2_MAX_HOST_OFFSET) {
            return qcow2_signal_corruption(bs, "entry %u of the %s refers to offset 0x%" PRIx64
                                           ", where no cluster begins", i, name, offset);
        }
        what = overlapped(s, offset, s->cluster_size);
        if (what) {
            return qcow2_signal_corruption(bs, "entry %u of the %s refers to offset 0x%" PRIx64
                                           ", the place of %s", i, name, offset, what);
        }
        ret = qcow2_overlap_add(s, offset, kind);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int coroutine_fn qcow2_overlap_init(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;

    qcow2_overlap_destroy(s);
    if (!resize(&s->meta, MIN_SLOTS)) {
        return -ENOMEM;
    }
    s->meta_known = true;
    ret = add_tables(bs, &s->reftable, QCOW2_REFTABLE_MASK, QCOW2_META_REFBLOCK, "refcount table");
    if (ret == 0) {
        ret = add_tables(bs, &s->l1, QCOW2_OFFSET_MASK, QCOW2_META_L2, "active L1 table");
    }
    if (ret < 0) {
        qcow2_overlap_destroy(s);
    }
    return ret;
}
