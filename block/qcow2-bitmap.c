/*
 * qcow2: dirty bitmaps that live with the image (version 3).
 *
 * A header extension leads to the directory, an entry a bitmap, each padded to a multiple of 8:
 *      0   8  where the bitmap's table is
 *      8   4  its entries
 *     12   4  flags: bit 0 in use (not up to date), 1 auto (records writes), 2 extra data may be ignored
 *     16   1  type: 1, dirty tracking
 *     17   1  log2 of the bytes that a bit stands for
 *     18   2  length of the name
 *     20   4  length of the extra data
 *     24      extra data, name
 * The table has 8 bytes for each cluster of the bitmap: bits 9 to 55 the offset of the cluster; 0:
 * all bits there are 0; 1: all are 1. The bitmap itself is little-endian.
 *
 * While an image is open for writing the bitmaps in the file are marked as in use and the node's
 * bitmaps are the true ones; closing writes those, all anew: clusters, tables, directory, then the
 * header, then the old ones are freed. A process that dies leaves bitmaps in use, which can only be
 * removed afterwards.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/dirty-bitmap.h"
#include "block/qcow2.h"
#include "qapi/util.h"
#include "util/bswap.h"
#include "util/zero.h"

#define ENTRY_BYTES 24
#define TYPE_DIRTY 1
#define MIN_GRANULARITY_BITS 9
#define MAX_GRANULARITY_BITS 31
#define TABLE_ALL_ONES UINT64_C(1)
#define FLAGS_KNOWN (QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO | QCOW2_BITMAP_EXTRA_COMPATIBLE)

/* ---- the directory ---- */

static bool check_entry(const Qcow2BitmapEntry *e, uint8_t type, uint16_t name_len,
                        uint32_t extra_len, Error **errp)
{
    if (type != TYPE_DIRTY) {
        error_setg(errp, "a bitmap is of an unknown type (%u)", type);
    } else if (e->flags & ~FLAGS_KNOWN) {
        error_setg(errp, "a bitmap has unknown flags (0x%x)", e->flags);
    } else if (e->granularity_bits < MIN_GRANULARITY_BITS ||
               e->granularity_bits > MAX_GRANULARITY_BITS) {
        error_setg(errp, "a bitmap has an invalid granularity (2^%u)", e->granularity_bits);
    } else if (!name_len || name_len > BDRV_BITMAP_NAME_MAX) {
        error_setg(errp, "a bitmap has a name of invalid length (%u)", name_len);
    } else if (extra_len && !(e->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE)) {
        error_setg(errp, "a bitmap has extra data that is not known");
    } else if (e->table_size > QCOW2_MAX_BITMAP_TABLE_ENTRIES) {
        error_setg(errp, "the table of a bitmap is too large (%u entries)", e->table_size);
    } else {
        return true;
    }
    return false;
}

size_t qcow2_bitmap_parse(const uint8_t *buf, size_t len, Qcow2BitmapEntry *entry, Error **errp)
{
    uint32_t extra_len;
    uint16_t name_len;
    uint64_t end;

    *entry = (Qcow2BitmapEntry) { 0 };
    if (len < ENTRY_BYTES) {
        error_setg(errp, "the bitmap directory is incomplete");
        return 0;
    }
    entry->table_offset = ldq_be_p(buf);
    entry->table_size = ldl_be_p(buf + 8);
    entry->flags = ldl_be_p(buf + 12);
    entry->granularity_bits = buf[17];
    name_len = lduw_be_p(buf + 18);
    extra_len = ldl_be_p(buf + 20);
    end = (uint64_t)ENTRY_BYTES + extra_len + name_len;
    if (end > len) {
        error_setg(errp, "the bitmap directory is incomplete");
        return 0;
    }
    if (!check_entry(entry, buf[16], name_len, extra_len, errp)) {
        return 0;
    }
    if (extra_len) {
        entry->extra = g_byte_array_append(g_byte_array_new(), buf + ENTRY_BYTES, extra_len);
    }
    entry->name = g_strndup((const char *)buf + ENTRY_BYTES + extra_len, name_len);
    return MIN(round_up_u64(end, 8), len);
}

void qcow2_bitmap_free(Qcow2BitmapEntry *entry)
{
    if (entry) {
        if (entry->extra) {
            g_byte_array_unref(entry->extra);
        }
        g_free(entry->name);
        g_free(entry);
    }
}

static GPtrArray *bitmaps_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)qcow2_bitmap_free);
}

static bool check_table(const Qcow2State *s, const Qcow2BitmapEntry *e, Error **errp)
{
    if (qcow2_in_cluster(s, e->table_offset) || !e->table_offset != !e->table_size ||
        e->table_offset > QCOW2_MAX_HOST_OFFSET ||
        (uint64_t)e->table_size << s->cluster_bits >
            round_up_u64(QCOW2_MAX_BITMAP_BYTES, s->cluster_size)) {
        error_setg(errp, "the table of bitmap '%s' (%u entries at offset 0x%" PRIx64 ") is invalid",
                   e->name, e->table_size, e->table_offset);
        return false;
    }
    return true;
}

static const Qcow2BitmapEntry *find_entry(const Qcow2State *s, const char *name)
{
    for (guint i = 0; i < s->bitmaps->len; i++) {
        const Qcow2BitmapEntry *e = s->bitmaps->pdata[i];

        if (!strcmp(e->name, name)) {
            return e;
        }
    }
    return NULL;
}

static int parse_dir(BlockDriverState *bs, const uint8_t *buf, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    size_t at = 0, len = s->hdr.bitmap_dir_bytes;

    for (uint32_t i = 0; i < s->hdr.nb_bitmaps; i++) {
        Qcow2BitmapEntry *e = g_new0(Qcow2BitmapEntry, 1);
        size_t n = qcow2_bitmap_parse(buf + at, len - at, e, errp);

        if (!n || !check_table(s, e, errp)) {
            qcow2_bitmap_free(e);
            return -EINVAL;
        }
        if (!g_hash_table_add(names, e->name)) {
            error_setg(errp, "there are two bitmaps of the name '%s'", e->name);
            qcow2_bitmap_free(e);
            return -EINVAL;
        }
        g_ptr_array_add(s->bitmaps, e);
        at += n;
    }
    if (at != len) {
        error_setg(errp, "the bitmap directory is longer than its %u entries", s->hdr.nb_bitmaps);
        return -EINVAL;
    }
    return 0;
}

int coroutine_fn qcow2_load_bitmap_dir(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    g_autofree uint8_t *buf = NULL;
    int ret;

    g_clear_pointer(&s->bitmaps, g_ptr_array_unref);
    s->bitmaps = bitmaps_new();
    if (!s->hdr.has_bitmaps) {
        return 0;
    }
    buf = g_try_malloc(s->hdr.bitmap_dir_bytes);
    ret = buf ? qcow2_read_table(bs, s->hdr.bitmap_dir_offset, s->hdr.bitmap_dir_bytes, buf)
              : -ENOMEM;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the bitmap directory of the qcow2 image");
        return ret;
    }
    ret = parse_dir(bs, buf, errp);
    if (ret < 0) {
        error_prepend(errp, "Could not read the bitmaps of the qcow2 image: ");
    }
    return ret;
}

static GByteArray *serialize_dir(GPtrArray *entries)
{
    static const uint8_t zeroes[8];
    GByteArray *dir = g_byte_array_new();

    for (guint i = 0; i < entries->len; i++) {
        const Qcow2BitmapEntry *e = entries->pdata[i];
        uint32_t extra_len = e->extra ? e->extra->len : 0;
        uint8_t fixed[ENTRY_BYTES] = { 0 };

        stq_be_p(fixed, e->table_offset);
        stl_be_p(fixed + 8, e->table_size);
        stl_be_p(fixed + 12, e->flags);
        fixed[16] = TYPE_DIRTY;
        fixed[17] = e->granularity_bits;
        stw_be_p(fixed + 18, strlen(e->name));
        stl_be_p(fixed + 20, extra_len);
        g_byte_array_append(dir, fixed, sizeof(fixed));
        if (extra_len) {
            g_byte_array_append(dir, e->extra->data, extra_len);
        }
        g_byte_array_append(dir, (const uint8_t *)e->name, strlen(e->name));
        g_byte_array_append(dir, zeroes, round_up_u64(dir->len, 8) - dir->len);
    }
    return dir;
}

/* Flags changed, nothing else: in its place. */
static int coroutine_fn rewrite_dir(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    GByteArray *dir = serialize_dir(s->bitmaps);
    int ret = -EINVAL;

    if (dir->len == s->hdr.bitmap_dir_bytes) {
        ret = bdrv_co_pwrite(bs->file, s->hdr.bitmap_dir_offset, dir->len, dir->data, 0);
    }
    g_byte_array_unref(dir);
    return ret < 0 ? ret : bdrv_co_flush(bs->file->bs);
}

int coroutine_fn qcow2_mark_bitmaps_in_use(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    bool changed = false;

    for (guint i = 0; i < s->bitmaps->len; i++) {
        Qcow2BitmapEntry *e = s->bitmaps->pdata[i];

        changed |= !(e->flags & QCOW2_BITMAP_IN_USE);
        e->flags |= QCOW2_BITMAP_IN_USE;
    }
    return changed ? rewrite_dir(bs) : 0;
}

/* ---- loading ---- */

uint64_t *coroutine_fn qcow2_read_bitmap_table(BlockDriverState *bs, const Qcow2BitmapEntry *entry,
                                               int *ret)
{
    uint64_t *table = g_try_new(uint64_t, MAX(entry->table_size, 1));

    *ret = !table ? -ENOMEM
         : qcow2_read_table(bs, entry->table_offset, (uint64_t)entry->table_size * 8, table);
    if (*ret < 0) {
        g_free(table);
        return NULL;
    }
    for (uint32_t i = 0; i < entry->table_size; i++) {
        table[i] = be64_to_cpu(table[i]);
    }
    return table;
}

static int coroutine_fn load_cluster(BlockDriverState *bs, uint64_t entry, uint8_t *buf,
                                     uint32_t bytes)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (!offset) {
        memset(buf, entry & TABLE_ALL_ONES ? 0xff : 0, bytes);
        return 0;
    }
    if (qcow2_in_cluster(qcow2_state(bs), offset)) {
        return -EINVAL;
    }
    return qcow2_read_table(bs, offset, bytes, buf);
}

static int coroutine_fn load_content(BlockDriverState *bs, const Qcow2BitmapEntry *e,
                                     BdrvDirtyBitmap *bitmap)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t size = bdrv_dirty_bitmap_serialization_size(bitmap), at = 0;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    g_autofree uint64_t *table = NULL;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    if (qcow2_clusters_up(s, size) > e->table_size) {
        return -EINVAL;
    }
    table = qcow2_read_bitmap_table(bs, e, &ret);
    for (uint32_t i = 0; table && at < size && ret >= 0; i++) {
        uint32_t n = MIN(s->cluster_size, size - at);

        ret = load_cluster(bs, table[i], buf, n);
        if (ret >= 0) {
            bdrv_dirty_bitmap_deserialize(bitmap, buf, at, n);
        }
        at += n;
    }
    return ret;
}

/* What a bitmap of that granularity occupies; the length of the disk is below 2^63. */
static uint64_t bitmap_bytes(uint64_t size, unsigned granularity_bits)
{
    return (size >> granularity_bits) / 8 + 8;
}

static int coroutine_fn load_bitmap(BlockDriverState *bs, Qcow2BitmapEntry *e, Error **errp)
{
    BdrvDirtyBitmap *bitmap =
        bdrv_create_dirty_bitmap(bs, UINT32_C(1) << e->granularity_bits, e->name, errp);
    int ret;

    if (!bitmap) {
        error_prepend(errp, "Could not load bitmap '%s': ", e->name);
        return -EINVAL;
    }
    if (e->flags & QCOW2_BITMAP_IN_USE) {
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
    } else {
        ret = load_content(bs, e, bitmap);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not load bitmap '%s'", e->name);
            bdrv_release_dirty_bitmap(bitmap);
            return ret;
        }
    }
    if (!(e->flags & QCOW2_BITMAP_AUTO)) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, true);
    return 0;
}

/* A table can say of much in a few bytes, and bitmaps can share it: what they need is bounded. */
static int check_memory(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t total = 0;

    for (guint i = 0; i < s->bitmaps->len; i++) {
        const Qcow2BitmapEntry *e = s->bitmaps->pdata[i];

        total += bitmap_bytes(s->hdr.size, e->granularity_bits);
        if (total > QCOW2_MAX_BITMAPS_BYTES) {
            error_setg(errp, "The bitmaps of '%s' need too much memory: with bitmap '%s' %" PRIu64
                       " bytes, at most %u", bdrv_get_filename(bs->file->bs), e->name, total,
                       QCOW2_MAX_BITMAPS_BYTES);
            return -EFBIG;
        }
    }
    return 0;
}

int coroutine_fn qcow2_load_bitmaps(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = check_memory(bs, errp);

    for (guint i = 0; i < s->bitmaps->len && ret == 0; i++) {
        ret = load_bitmap(bs, s->bitmaps->pdata[i], errp);
    }
    if (ret < 0) {
        qcow2_release_bitmaps(bs);
    }
    return ret;
}

void coroutine_fn qcow2_release_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_next(bs, NULL), *next;

    for (; bitmap; bitmap = next) {
        next = bdrv_dirty_bitmap_next(bs, bitmap);
        if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
            bdrv_release_dirty_bitmap(bitmap);
        }
    }
}

/* ---- storing ---- */

static bool all_ones(const uint8_t *buf, size_t len)
{
    return len == 0 || (buf[0] == 0xff && !memcmp(buf, buf + 1, len - 1));
}

/* One cluster of the bitmap: what the table says of it. */
static int coroutine_fn store_cluster(BlockDriverState *bs, const uint8_t *buf, uint32_t used,
                                      uint64_t *entry)
{
    Qcow2State *s = qcow2_state(bs);
    int64_t offset;
    bool zeroed;
    int ret;

    if (buffer_is_zero(buf, used)) {
        *entry = 0;
        return 0;
    }
    if (all_ones(buf, used)) {
        *entry = TABLE_ALL_ONES;
        return 0;
    }
    offset = qcow2_alloc_clusters(bs, 1, &zeroed);
    if (offset < 0) {
        return offset;
    }
    *entry = offset;
    ret = bdrv_co_pwrite(bs->file, offset, s->cluster_size, buf, 0);
    return MIN(ret, 0);
}

static int coroutine_fn store_content(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                                      uint64_t *table)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t size = bdrv_dirty_bitmap_serialization_size(bitmap);
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t at = 0, i = 0; at < size && ret == 0; at += s->cluster_size, i++) {
        uint32_t n = MIN(s->cluster_size, size - at);

        memset(buf + n, 0, s->cluster_size - n);
        bdrv_dirty_bitmap_serialize(bitmap, buf, at, n);
        ret = store_cluster(bs, buf, n, &table[i]);
        table[i] = cpu_to_be64(table[i]);
    }
    return ret;
}

/* A run of clusters with that content; its offset. */
static int64_t coroutine_fn store_run(BlockDriverState *bs, const void *data, uint64_t bytes)
{
    Qcow2State *s = qcow2_state(bs);
    bool zeroed;
    int64_t offset = qcow2_alloc_clusters(bs, qcow2_clusters_up(s, bytes), &zeroed);
    int ret;

    if (offset < 0) {
        return offset;
    }
    ret = bdrv_co_pwrite(bs->file, offset, bytes, data, 0);
    return ret < 0 ? ret : offset;
}

static int coroutine_fn store_bitmap(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                                     Qcow2BitmapEntry *e)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t n = qcow2_clusters_up(s, bdrv_dirty_bitmap_serialization_size(bitmap));
    g_autofree uint64_t *table = g_try_new0(uint64_t, MAX(n, 1));
    int64_t offset = 0;
    int ret;

    if (!table) {
        return -ENOMEM;
    }
    if (n > QCOW2_MAX_BITMAP_TABLE_ENTRIES || n << s->cluster_bits > QCOW2_MAX_BITMAP_BYTES) {
        return -EFBIG;
    }
    ret = store_content(bs, bitmap, table);
    if (ret < 0) {
        return ret;
    }
    if (n) {
        offset = store_run(bs, table, n * 8);
        if (offset < 0) {
            return offset;
        }
    }
    e->table_offset = offset;
    e->table_size = n;
    return 0;
}

static Qcow2BitmapEntry *entry_copy(const Qcow2BitmapEntry *e)
{
    Qcow2BitmapEntry *copy = g_memdup2(e, sizeof(*e));

    copy->name = g_strdup(e->name);
    if (e->extra) {
        copy->extra = g_byte_array_append(g_byte_array_new(), e->extra->data, e->extra->len);
    }
    return copy;
}

/* The entry for @bitmap; what cannot be trusted stays in the file as it is. NULL with @errp set. */
static Qcow2BitmapEntry *coroutine_fn new_entry(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                                                Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    const Qcow2BitmapEntry *old = NULL;
    Qcow2BitmapEntry *e;
    int ret;

    if (bdrv_dirty_bitmap_inconsistent(bitmap)) {
        old = find_entry(s, bdrv_dirty_bitmap_name(bitmap));
    }
    if (old) {
        return entry_copy(old);
    }
    e = g_new0(Qcow2BitmapEntry, 1);
    e->name = g_strdup(bdrv_dirty_bitmap_name(bitmap));
    e->granularity_bits = __builtin_ctz(bdrv_dirty_bitmap_granularity(bitmap));
    e->flags = bdrv_dirty_bitmap_enabled(bitmap) ? QCOW2_BITMAP_AUTO : 0;
    ret = store_bitmap(bs, bitmap, e);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not store bitmap '%s' in the qcow2 image", e->name);
        qcow2_bitmap_free(e);
        return NULL;
    }
    return e;
}

/* Free the clusters of a bitmap that the directory does not name any more. */
static void coroutine_fn free_content(BlockDriverState *bs, const Qcow2BitmapEntry *e)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;
    g_autofree uint64_t *table = qcow2_read_bitmap_table(bs, e, &ret);

    /* A table that cannot be read leaves lost clusters. */
    for (uint32_t i = 0; table && i < e->table_size; i++) {
        if ((table[i] & QCOW2_OFFSET_MASK) && !qcow2_in_cluster(s, table[i] & QCOW2_OFFSET_MASK)) {
            qcow2_free_later(s, table[i] & QCOW2_OFFSET_MASK, s->cluster_size, QCOW2_DISCARD_OTHER);
        }
    }
    qcow2_free_later(s, e->table_offset, (uint64_t)e->table_size * 8, QCOW2_DISCARD_OTHER);
}

/* How many bitmaps have the table at an offset. */
static GHashTable *count_tables(GPtrArray *entries)
{
    GHashTable *tables = g_hash_table_new(g_int64_hash, g_int64_equal);

    for (guint i = 0; i < entries->len; i++) {
        Qcow2BitmapEntry *e = entries->pdata[i];
        uintptr_t n = (uintptr_t)g_hash_table_lookup(tables, &e->table_offset);

        g_hash_table_insert(tables, &e->table_offset, (void *)(n + 1));
    }
    return tables;
}

/* Free what the bitmaps have that are not among @entries; each refers to its table once. */
static void coroutine_fn free_old(BlockDriverState *bs, GPtrArray *entries)
{
    Qcow2State *s = qcow2_state(bs);
    g_autoptr(GHashTable) kept = count_tables(entries);

    for (guint i = 0; i < s->bitmaps->len; i++) {
        Qcow2BitmapEntry *old = s->bitmaps->pdata[i];
        uintptr_t n = (uintptr_t)g_hash_table_lookup(kept, &old->table_offset);

        if (n) {
            g_hash_table_insert(kept, &old->table_offset, (void *)(n - 1));
        } else if (old->table_offset) {
            free_content(bs, old);
        }
    }
}

static void set_header(Qcow2Header *hdr, uint32_t n, uint64_t dir_bytes, uint64_t dir_offset)
{
    hdr->has_bitmaps = n;
    hdr->nb_bitmaps = n;
    hdr->bitmap_dir_bytes = dir_bytes;
    hdr->bitmap_dir_offset = dir_offset;
    hdr->autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
    hdr->autoclear |= n ? QCOW2_AUTOCLEAR_BITMAPS : 0;
}

/*
 * Let the header lead to a directory of @entries, then free what only the old one needed. Takes
 * @entries.
 */
static int coroutine_fn replace_dir(BlockDriverState *bs, GPtrArray *entries)
{
    Qcow2State *s = qcow2_state(bs);
    GByteArray *dir = serialize_dir(entries);
    uint64_t old_offset = s->hdr.bitmap_dir_offset,
             old_bytes = s->hdr.has_bitmaps ? s->hdr.bitmap_dir_bytes : 0;
    int64_t offset = 0;
    int ret;

    if (dir->len > QCOW2_MAX_BITMAP_DIR_BYTES) {
        offset = -EFBIG;
    } else if (dir->len) {
        offset = store_run(bs, dir->data, dir->len);
    }
    ret = offset < 0 ? (int)offset : qcow2_write_back_all(bs);
    if (ret == 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret == 0) {
        set_header(&s->hdr, entries->len, dir->len, offset);
        ret = qcow2_header_write(bs);
        if (ret < 0) {
            set_header(&s->hdr, s->bitmaps->len, old_bytes, old_offset);
        }
    }
    g_byte_array_unref(dir);
    if (ret < 0) {
        g_ptr_array_unref(entries);
        return ret;
    }
    free_old(bs, entries);
    qcow2_free_later(s, old_offset, old_bytes, QCOW2_DISCARD_OTHER);
    g_ptr_array_unref(s->bitmaps);
    s->bitmaps = entries;
    return 0;
}

static bool any_persistent(BlockDriverState *bs)
{
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(bs, NULL); b;
         b = bdrv_dirty_bitmap_next(bs, b)) {
        if (bdrv_dirty_bitmap_get_persistence(b)) {
            return true;
        }
    }
    return false;
}

int coroutine_fn qcow2_store_bitmaps(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    g_autoptr(GPtrArray) entries = NULL;
    int ret;

    if (!any_persistent(bs) && !s->bitmaps->len) {
        return 0;
    }
    if (s->hdr.version < 3) {
        error_setg(errp, "Bitmaps cannot be stored in a qcow2 image of version 2");
        return -ENOTSUP;
    }
    ret = qcow2_begin_change(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not store the bitmaps of '%s'", bdrv_get_filename(bs));
        return ret;
    }
    entries = bitmaps_new();
    co_mutex_lock(&s->lock);
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(bs, NULL); b;
         b = bdrv_dirty_bitmap_next(bs, b)) {
        if (bdrv_dirty_bitmap_get_persistence(b)) {
            Qcow2BitmapEntry *e = new_entry(bs, b, errp);

            if (!e) {
                co_mutex_unlock(&s->lock);
                return -EIO;
            }
            g_ptr_array_add(entries, e);
        }
    }
    ret = replace_dir(bs, g_steal_pointer(&entries));
    co_mutex_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the bitmap directory of '%s'",
                         bdrv_get_filename(bs));
    }
    return ret;
}

/* ---- one bitmap ---- */

/* The node's persistent ones, if the disk were so long. */
static uint64_t persistent_bytes(BlockDriverState *bs, uint64_t size, uint32_t *n,
                                 uint64_t *dir_bytes)
{
    uint64_t bytes = 0;

    *n = 0;
    *dir_bytes = 0;
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(bs, NULL); b;
         b = bdrv_dirty_bitmap_next(bs, b)) {
        if (bdrv_dirty_bitmap_get_persistence(b)) {
            *n += 1;
            *dir_bytes += ENTRY_BYTES + 8 + strlen(bdrv_dirty_bitmap_name(b));
            bytes += bitmap_bytes(size, __builtin_ctz(bdrv_dirty_bitmap_granularity(b)));
        }
    }
    return bytes;
}

bool qcow2_bitmaps_fit(BlockDriverState *bs, uint64_t size)
{
    uint64_t dir_bytes;
    uint32_t n;

    return persistent_bytes(bs, size, &n, &dir_bytes) <= QCOW2_MAX_BITMAPS_BYTES;
}

bool coroutine_fn qcow2_co_can_store_bitmap(BlockDriverState *bs, const char *name,
                                            uint32_t granularity, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t dir_bytes, bytes = bitmap_bytes(s->hdr.size, __builtin_ctz(granularity)), all;
    uint32_t n;

    if (s->hdr.version < 3) {
        error_setg(errp, "Bitmap '%s' cannot be stored: the qcow2 image is of version 2", name);
        return false;
    }
    all = persistent_bytes(bs, s->hdr.size, &n, &dir_bytes);
    if (n >= QCOW2_MAX_BITMAPS || all + bytes > QCOW2_MAX_BITMAPS_BYTES ||
        dir_bytes + ENTRY_BYTES + 8 + strlen(name) > QCOW2_MAX_BITMAP_DIR_BYTES) {
        error_setg(errp,
                   "Bitmap '%s' cannot be stored: the qcow2 image has %u bitmaps of %" PRIu64
                   " bytes already, and may not have more than %u of %u bytes",
                   name, n, all, QCOW2_MAX_BITMAPS, QCOW2_MAX_BITMAPS_BYTES);
        return false;
    }
    if (granularity < UINT32_C(1) << MIN_GRANULARITY_BITS || bytes > QCOW2_MAX_BITMAP_BYTES - 64) {
        error_setg(
            errp,
            "Bitmap '%s' cannot be stored: with a granularity of %u it does not fit into the qcow2 "
            "image",
            name, granularity);
        return false;
    }
    return true;
}

int coroutine_fn qcow2_co_remove_bitmap(BlockDriverState *bs, const char *name, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    GPtrArray *entries;
    int ret;

    if (!find_entry(s, name)) {
        return 0;
    }
    ret = qcow2_begin_change(bs);
    if (ret == 0) {
        co_mutex_lock(&s->lock);
        entries = bitmaps_new();
        for (guint i = 0; i < s->bitmaps->len; i++) {
            const Qcow2BitmapEntry *e = s->bitmaps->pdata[i];

            if (strcmp(e->name, name)) {
                g_ptr_array_add(entries, entry_copy(e));
            }
        }
        ret = replace_dir(bs, entries);
        co_mutex_unlock(&s->lock);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not remove bitmap '%s' from '%s'", name,
                         bdrv_get_filename(bs));
    }
    return ret;
}

Qcow2BitmapInfoList *qcow2_bitmap_infos(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2BitmapInfoList *list = NULL, **tail = &list;

    for (guint i = 0; i < s->bitmaps->len; i++) {
        const Qcow2BitmapEntry *e = s->bitmaps->pdata[i];
        Qcow2BitmapInfo *info = g_new0(Qcow2BitmapInfo, 1);
        Qcow2BitmapInfoFlagsList **flags = &info->flags;

        info->name = g_strdup(e->name);
        info->granularity = UINT32_C(1) << e->granularity_bits;
        if (e->flags & QCOW2_BITMAP_IN_USE) {
            QAPI_LIST_APPEND(flags, QCOW2_BITMAP_INFO_FLAGS_IN_USE);
        }
        if (e->flags & QCOW2_BITMAP_AUTO) {
            QAPI_LIST_APPEND(flags, QCOW2_BITMAP_INFO_FLAGS_AUTO);
        }
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}
