/*
 * Dirty bitmaps: one bit for each piece of a node, in a flat map.
 *
 * A node's bitmaps, the list of them and their content, are protected by the node's dirty_lock: a
 * write marks all of them in one critical section. Nothing waits while it holds the lock. The
 * number of set bits is kept beside the map, so that asking for it costs nothing.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/dirty-bitmap.h"

#include <inttypes.h>
#include <string.h>

#include "block/driver.h"
#include "qapi/util.h"
#include "util/bitmap.h"

/* Granularity when none was asked for: that of the image's clusters within these bounds. */
#define DEFAULT_GRANULARITY_MIN (UINT32_C(4) << 10)
#define DEFAULT_GRANULARITY_MAX (UINT32_C(64) << 10)

struct BdrvDirtyBitmap {
    BlockDriverState *bs;
    char *name;                 /* NULL: a job's */
    unsigned shift;             /* log2 of the granularity */
    int64_t size;               /* bytes covered */
    unsigned long *map;
    unsigned long nbits;
    unsigned long count;        /* bits set */
    bool disabled, persistent, inconsistent, busy;
    BdrvDirtyBitmap *prev, *next;
};

/* A node's bitmaps, oldest first. An image can have many: none is looked for one by one. */
struct BdrvDirtyBitmapList {
    BdrvDirtyBitmap *first, *last;
    GHashTable *names;          /* of those that have one */
};

/* For readers' sake: locking a const bitmap changes nothing that they can see. */
static void lock(const BdrvDirtyBitmap *bitmap)
{
    mutex_lock(&bitmap->bs->dirty_lock);
}

static void unlock(const BdrvDirtyBitmap *bitmap)
{
    mutex_unlock(&bitmap->bs->dirty_lock);
}

static unsigned long bits_for(int64_t bytes, unsigned shift)
{
    uint64_t bits = (uint64_t)bytes >> shift;

    return bits + ((bits << shift) != (uint64_t)bytes);
}

/* ---- life ---- */

typedef struct ClusterSize {
    BlockDriverState *bs;
    uint32_t bytes;
} ClusterSize;

static void coroutine_fn ask_cluster_size(void *opaque)
{
    ClusterSize *size = opaque;
    BlockDriverInfo info = {};

    if (size->bs->drv->co_get_info && size->bs->drv->co_get_info(size->bs, &info) == 0) {
        size->bytes = info.cluster_size;
    }
}

static uint32_t default_granularity(BlockDriverState *bs)
{
    ClusterSize size = { .bs = bs };

    if (bs->drv->co_get_info) {
        aio_co_run(bdrv_get_aio_context(bs), ask_cluster_size, &size);
    }
    return size.bytes ? CLAMP(size.bytes, DEFAULT_GRANULARITY_MIN, DEFAULT_GRANULARITY_MAX)
                      : DEFAULT_GRANULARITY_MAX;
}

static bool check_new(BlockDriverState *bs, uint32_t granularity, const char *name, Error **errp)
{
    if (name && strlen(name) > BDRV_BITMAP_NAME_MAX) {
        error_setg(errp, "Bitmap name too long: %.32s... has more than %d bytes", name,
                   BDRV_BITMAP_NAME_MAX);
        return false;
    }
    if (name && bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return false;
    }
    if (granularity & (granularity - 1)) {
        error_setg(errp, "Granularity must be power of 2, not %" PRIu32, granularity);
        return false;
    }
    if (granularity && granularity < BDRV_BITMAP_MIN_GRANULARITY) {
        error_setg(errp, "Granularity must be at least %d bytes", BDRV_BITMAP_MIN_GRANULARITY);
        return false;
    }
    return true;
}

/* The oldest; NULL: there are none. Under the lock, like the two after it. */
static BdrvDirtyBitmap *first_of(const BlockDriverState *bs)
{
    return bs->dirty_bitmaps ? bs->dirty_bitmaps->first : NULL;
}

static void list_append(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    BdrvDirtyBitmapList *list = bs->dirty_bitmaps;

    if (!list) {
        list = g_new0(BdrvDirtyBitmapList, 1);
        list->names = g_hash_table_new(g_str_hash, g_str_equal);
    }
    bitmap->prev = list->last;
    *(list->last ? &list->last->next : &list->first) = bitmap;
    list->last = bitmap;
    if (bitmap->name) {
        g_hash_table_insert(list->names, bitmap->name, bitmap);
    }
    __atomic_store_n(&bs->dirty_bitmaps, list, __ATOMIC_RELEASE);
}

static void list_remove(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    BdrvDirtyBitmapList *list = bs->dirty_bitmaps;

    *(bitmap->prev ? &bitmap->prev->next : &list->first) = bitmap->next;
    *(bitmap->next ? &bitmap->next->prev : &list->last) = bitmap->prev;
    if (bitmap->name) {
        g_hash_table_remove(list->names, bitmap->name);
    }
    if (!list->first) {
        __atomic_store_n(&bs->dirty_bitmaps, NULL, __ATOMIC_RELEASE);
        g_hash_table_unref(list->names);
        g_free(list);
    }
}

BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs, uint32_t granularity,
                                          const char *name, Error **errp)
{
    BdrvDirtyBitmap *bitmap;
    int64_t size;

    if (!check_new(bs, granularity, name, errp)) {
        return NULL;
    }
    size = bdrv_getlength(bs);
    if (size < 0) {
        error_setg_errno(errp, -size, "Could not get the length of node '%s'",
                         bdrv_get_node_name(bs));
        return NULL;
    }
    bitmap = g_new0(BdrvDirtyBitmap, 1);
    bitmap->bs = bs;
    bitmap->shift = __builtin_ctz(granularity ? granularity : default_granularity(bs));
    bitmap->size = size;
    bitmap->nbits = bits_for(size, bitmap->shift);
    bitmap->map = bitmap_try_new(MAX(bitmap->nbits, 1));
    if (!bitmap->map) {
        error_setg(errp, "No memory for a bitmap of %lu bits for node '%s'", bitmap->nbits,
                   bdrv_get_node_name(bs));
        g_free(bitmap);
        return NULL;
    }
    bitmap->name = g_strdup(name);
    mutex_lock(&bs->dirty_lock);
    list_append(bs, bitmap);
    mutex_unlock(&bs->dirty_lock);
    return bitmap;
}

void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    BlockDriverState *bs = bitmap->bs;

    mutex_lock(&bs->dirty_lock);
    list_remove(bs, bitmap);
    mutex_unlock(&bs->dirty_lock);
    g_free(bitmap->map);
    g_free(bitmap->name);
    g_free(bitmap);
}

BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs, const char *name)
{
    BdrvDirtyBitmap *found;

    mutex_lock(&bs->dirty_lock);
    found = bs->dirty_bitmaps ? g_hash_table_lookup(bs->dirty_bitmaps->names, name) : NULL;
    mutex_unlock(&bs->dirty_lock);
    return found;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *after)
{
    BdrvDirtyBitmap *next;

    mutex_lock(&bs->dirty_lock);
    next = after ? after->next : first_of(bs);
    mutex_unlock(&bs->dirty_lock);
    return next;
}

void bdrv_release_named_dirty_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_next(bs, NULL);

    while (bitmap) {
        BdrvDirtyBitmap *next = bdrv_dirty_bitmap_next(bs, bitmap);

        if (bitmap->name) {
            bdrv_release_dirty_bitmap(bitmap);
        }
        bitmap = next;
    }
}

/* ---- properties ---- */

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->name;
}

BlockDriverState *bdrv_dirty_bitmap_bs(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->bs;
}

uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap)
{
    return UINT32_C(1) << bitmap->shift;
}

int64_t bdrv_dirty_bitmap_size(const BdrvDirtyBitmap *bitmap)
{
    int64_t size;

    lock(bitmap);
    size = bitmap->size;
    unlock(bitmap);
    return size;
}

static bool get_flag(const BdrvDirtyBitmap *bitmap, const bool *flag)
{
    bool value;

    lock(bitmap);
    value = *flag;
    unlock(bitmap);
    return value;
}

static void set_flag(BdrvDirtyBitmap *bitmap, bool *flag, bool value)
{
    lock(bitmap);
    *flag = value;
    unlock(bitmap);
}

bool bdrv_dirty_bitmap_enabled(const BdrvDirtyBitmap *bitmap)
{
    return !get_flag(bitmap, &bitmap->disabled);
}

void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    set_flag(bitmap, &bitmap->disabled, false);
}

void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    set_flag(bitmap, &bitmap->disabled, true);
}

bool bdrv_dirty_bitmap_get_persistence(const BdrvDirtyBitmap *bitmap)
{
    return get_flag(bitmap, &bitmap->persistent);
}

void bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap, bool persistent)
{
    set_flag(bitmap, &bitmap->persistent, persistent);
}

bool bdrv_dirty_bitmap_inconsistent(const BdrvDirtyBitmap *bitmap)
{
    return get_flag(bitmap, &bitmap->inconsistent);
}

void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap)
{
    lock(bitmap);
    bitmap->inconsistent = true;
    bitmap->disabled = true;
    unlock(bitmap);
}

bool bdrv_dirty_bitmap_busy(const BdrvDirtyBitmap *bitmap)
{
    return get_flag(bitmap, &bitmap->busy);
}

void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy)
{
    set_flag(bitmap, &bitmap->busy, busy);
}

int bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, unsigned flags, Error **errp)
{
    const char *name = bitmap->name ? bitmap->name : "";

    if ((flags & BDRV_BITMAP_BUSY) && bdrv_dirty_bitmap_busy(bitmap)) {
        error_setg(errp, "Bitmap '%s' is currently in use by another operation and cannot be used",
                   name);
        return -1;
    }
    if ((flags & BDRV_BITMAP_RO) && bdrv_dirty_bitmap_get_persistence(bitmap) &&
        bdrv_is_read_only(bitmap->bs)) {
        error_setg(errp, "Bitmap '%s' is readonly and cannot be modified", name);
        return -1;
    }
    if ((flags & BDRV_BITMAP_INCONSISTENT) && bdrv_dirty_bitmap_inconsistent(bitmap)) {
        error_setg(errp, "Bitmap '%s' is inconsistent and cannot be used", name);
        error_append_hint(errp, "Try block-dirty-bitmap-remove to delete this bitmap from disk\n");
        return -1;
    }
    return 0;
}

/* ---- content; under the lock ---- */

/* The bits of [offset, offset + bytes), rounded outwards and cut at the end; false: none. */
static bool bits_of(const BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                    unsigned long *first, unsigned long *n)
{
    int64_t end;

    if (offset < 0 || bytes <= 0 || offset >= bitmap->size) {
        return false;
    }
    end = bytes > bitmap->size - offset ? bitmap->size : offset + bytes;
    *first = (uint64_t)offset >> bitmap->shift;
    *n = ((uint64_t)(end - 1) >> bitmap->shift) - *first + 1;
    return true;
}

static void set_range(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    unsigned long first, n;

    if (bits_of(bitmap, offset, bytes, &first, &n)) {
        bitmap->count += n - bitmap_count_one_with_offset(bitmap->map, first, n);
        bitmap_set(bitmap->map, first, n);
    }
}

/*
 * The first bit that is @value at or after the one of @offset, before the end of the range; or -1.
 */
static int64_t next_of(const BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes, bool value)
{
    unsigned long first, n, found;

    if (!bits_of(bitmap, offset, bytes, &first, &n)) {
        return -1;
    }
    found = value ? find_next_bit(bitmap->map, first + n, first)
                  : find_next_zero_bit(bitmap->map, first + n, first);
    return found == first + n ? -1 : MAX(offset, (int64_t)((uint64_t)found << bitmap->shift));
}

void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    lock(bitmap);
    set_range(bitmap, offset, bytes);
    unlock(bitmap);
}

void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    int64_t mask = ((int64_t)1 << bitmap->shift) - 1;
    unsigned long first, n;

    lock(bitmap);
    /* A bit whose piece is only partly clean must stay. */
    g_assert(!(offset & mask) && (!(bytes & mask) || bytes >= bitmap->size - offset));
    if (bits_of(bitmap, offset, bytes, &first, &n)) {
        bitmap->count -= bitmap_count_one_with_offset(bitmap->map, first, n);
        bitmap_clear(bitmap->map, first, n);
    }
    unlock(bitmap);
}

void bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    lock(bitmap);
    bitmap_zero(bitmap->map, bitmap->nbits);
    bitmap->count = 0;
    unlock(bitmap);
}

bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset)
{
    bool dirty;

    lock(bitmap);
    dirty = offset >= 0 && offset < bitmap->size &&
            test_bit((uint64_t)offset >> bitmap->shift, bitmap->map);
    unlock(bitmap);
    return dirty;
}

int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *bitmap)
{
    int64_t bytes;

    lock(bitmap);
    bytes = (uint64_t)bitmap->count << bitmap->shift;
    unlock(bitmap);
    return bytes;
}

int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    int64_t found;

    lock(bitmap);
    found = next_of(bitmap, offset, bytes, true);
    unlock(bitmap);
    return found;
}

int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    int64_t found;

    lock(bitmap);
    found = next_of(bitmap, offset, bytes, false);
    unlock(bitmap);
    return found;
}

static bool next_area(const BdrvDirtyBitmap *bitmap, int64_t start, int64_t end, int64_t max_bytes,
                      int64_t *dirty_start, int64_t *dirty_count)
{
    int64_t from, to, limit;

    end = MIN(end, bitmap->size);
    if (start >= end || max_bytes <= 0) {
        return false;
    }
    from = next_of(bitmap, start, end - start, true);
    if (from < 0) {
        return false;
    }
    limit = max_bytes < end - from ? from + max_bytes : end;
    to = next_of(bitmap, from, limit - from, false);
    *dirty_start = from;
    *dirty_count = (to < 0 ? limit : to) - from;
    return true;
}

bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t start, int64_t end,
                                       int64_t max_bytes, int64_t *dirty_start,
                                       int64_t *dirty_count)
{
    bool found;

    lock(bitmap);
    found = next_area(bitmap, start, end, max_bytes, dirty_start, dirty_count);
    unlock(bitmap);
    return found;
}

bool bdrv_dirty_bitmap_status(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                              int64_t *count)
{
    bool dirty = false;

    lock(bitmap);
    *count = bytes;
    /* Beyond the end nothing was ever written. */
    if (offset < bitmap->size) {
        int64_t change;

        *count = MIN(bytes, bitmap->size - offset);
        dirty = test_bit((uint64_t)offset >> bitmap->shift, bitmap->map);
        change = next_of(bitmap, offset, *count, !dirty);
        *count = change < 0 ? *count : change - offset;
    }
    unlock(bitmap);
    return dirty;
}

/* ---- several bitmaps ---- */

static void lock_two(BlockDriverState *a, BlockDriverState *b)
{
    /* Always the same order, whichever is merged into the other. */
    mutex_lock(&(a < b ? a : b)->dirty_lock);
    if (a != b) {
        mutex_lock(&(a < b ? b : a)->dirty_lock);
    }
}

static void unlock_two(BlockDriverState *a, BlockDriverState *b)
{
    mutex_unlock(&a->dirty_lock);
    if (a != b) {
        mutex_unlock(&b->dirty_lock);
    }
}

bool bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *src, Error **errp)
{
    bool same_size;

    lock_two(dest->bs, src->bs);
    same_size = dest->size == src->size;
    if (!same_size) {
        error_setg(errp,
                   "Bitmaps are of different sizes (destination size is %" PRId64
                   ", source size is "
                   "%" PRId64 ") and can't be merged",
                   dest->size, src->size);
    } else if (dest->shift == src->shift) {
        bitmap_or(dest->map, dest->map, src->map, dest->nbits);
        dest->count = bitmap_count_one(dest->map, dest->nbits);
    } else {
        int64_t at = 0, n;

        while (next_area(src, at, src->size, src->size, &at, &n)) {
            set_range(dest, at, n);
            at += n;
        }
    }
    unlock_two(dest->bs, src->bs);
    return same_size;
}

void bdrv_set_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    if (!__atomic_load_n(&bs->dirty_bitmaps, __ATOMIC_ACQUIRE)) {
        return;
    }
    mutex_lock(&bs->dirty_lock);
    for (BdrvDirtyBitmap *bitmap = first_of(bs); bitmap; bitmap = bitmap->next) {
        if (!bitmap->disabled) {
            set_range(bitmap, offset, bytes);
        }
    }
    mutex_unlock(&bs->dirty_lock);
}

/* What is added is clean: nobody wrote there. */
static void resize_map(BdrvDirtyBitmap *bitmap, int64_t bytes)
{
    unsigned long nbits = bits_for(bytes, bitmap->shift), kept = MIN(nbits, bitmap->nbits);
    unsigned long *map = bitmap_try_new(MAX(nbits, 1));

    if (!map) {
        /* The node has its new length already: a bitmap that cannot follow is worth nothing. */
        bitmap->inconsistent = bitmap->disabled = true;
        return;
    }
    bitmap_copy(map, bitmap->map, kept);
    g_free(bitmap->map);
    bitmap->map = map;
    bitmap->nbits = nbits;
    bitmap->size = bytes;
    bitmap->count = bitmap_count_one(map, nbits);
}

void bdrv_dirty_bitmap_truncate(BlockDriverState *bs, int64_t bytes)
{
    mutex_lock(&bs->dirty_lock);
    for (BdrvDirtyBitmap *bitmap = first_of(bs); bitmap; bitmap = bitmap->next) {
        resize_map(bitmap, bytes);
    }
    mutex_unlock(&bs->dirty_lock);
}

/* ---- persistence ---- */

uint64_t bdrv_dirty_bitmap_serialization_size(const BdrvDirtyBitmap *bitmap)
{
    uint64_t bytes;

    lock(bitmap);
    bytes = bitmap_le_size_bytes(bitmap->nbits);
    unlock(bitmap);
    return bytes;
}

/* How many bits of the map lie in the piece; it begins at a word. */
static unsigned long bits_in_piece(const BdrvDirtyBitmap *bitmap, uint64_t byte_offset,
                                   uint64_t bytes)
{
    g_assert(byte_offset % 8 == 0 && bytes % 8 == 0);
    if (byte_offset >= bitmap_le_size_bytes(bitmap->nbits)) {
        return 0;
    }
    return MIN(bytes * 8, bitmap->nbits - byte_offset * 8);
}

void bdrv_dirty_bitmap_serialize(BdrvDirtyBitmap *bitmap, void *buf, uint64_t byte_offset,
                                 uint64_t bytes)
{
    unsigned long n;

    lock(bitmap);
    n = bits_in_piece(bitmap, byte_offset, bytes);
    memset(buf, 0, bytes);
    if (n) {
        bitmap_to_le(buf, bitmap->map + BIT_WORD(byte_offset * 8), n);
    }
    unlock(bitmap);
}

void bdrv_dirty_bitmap_deserialize(BdrvDirtyBitmap *bitmap, const void *buf, uint64_t byte_offset,
                                   uint64_t bytes)
{
    unsigned long n, first = byte_offset * 8;

    lock(bitmap);
    n = bits_in_piece(bitmap, byte_offset, bytes);
    if (n) {
        bitmap->count -= bitmap_count_one_with_offset(bitmap->map, first, n);
        /* Whatever an image has behind the last bit is left out. */
        bitmap_from_le(bitmap->map + BIT_WORD(first), buf, n);
        bitmap->count += bitmap_count_one_with_offset(bitmap->map, first, n);
    }
    unlock(bitmap);
}

/* ---- for people ---- */

BlockDirtyInfoList *bdrv_query_dirty_bitmaps(BlockDriverState *bs)
{
    BlockDirtyInfoList *list = NULL, **tail = &list;

    mutex_lock(&bs->dirty_lock);
    for (const BdrvDirtyBitmap *bitmap = first_of(bs); bitmap; bitmap = bitmap->next) {
        BlockDirtyInfo *info = g_new0(BlockDirtyInfo, 1);

        info->name = g_strdup(bitmap->name);
        info->count = (uint64_t)bitmap->count << bitmap->shift;
        info->granularity = UINT32_C(1) << bitmap->shift;
        info->recording = !bitmap->disabled;
        info->busy = bitmap->busy;
        info->persistent = bitmap->persistent;
        info->has_inconsistent = info->inconsistent = bitmap->inconsistent;
        QAPI_LIST_APPEND(tail, info);
    }
    mutex_unlock(&bs->dirty_lock);
    return list;
}
