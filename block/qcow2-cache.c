/*
 * qcow2: tables in memory. L2 tables and refcount blocks are cached in slices of at most 4 KiB,
 * with a bound on memory; the L1 and the refcount table are there as a whole.
 *
 * A hash table finds a slice by its place in the file. Clean slices stand in a list by their last
 * use, from whose end room is made; dirty ones stand in a list of their own, so that looking for
 * room never walks over them. When nothing clean is left, everything is written back at once: that
 * costs one flush of the file for the order on disk, however many slices there are.
 *
 * Writing back copies what is dirty, all in the same instant, and writes the copies (Qcow2Batch):
 * so what reaches the file belongs together although requests go on changing the tables. Neighbours
 * in the file become one write.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bitmap.h"
#include "util/bswap.h"

#define MIN_SLICES 16
#define TABLE_PIECE_BYTES 512
#define TABLE_PIECE_ENTRIES (TABLE_PIECE_BYTES / 8)
#define MAX_WRITES_AT_ONCE 16

/* ---- lists and hash ---- */

static void list_add(Qcow2SliceList *list, Qcow2Slice *slice)
{
    slice->prev = NULL;
    slice->next = list->first;
    if (list->first) {
        list->first->prev = slice;
    } else {
        list->last = slice;
    }
    list->first = slice;
}

static void list_remove(Qcow2SliceList *list, Qcow2Slice *slice)
{
    if (slice->prev) {
        slice->prev->next = slice->next;
    } else {
        list->first = slice->next;
    }
    if (slice->next) {
        slice->next->prev = slice->prev;
    } else {
        list->last = slice->prev;
    }
    slice->prev = slice->next = NULL;
}

static Qcow2SliceList *list_of(Qcow2Cache *cache, const Qcow2Slice *slice)
{
    return slice->dirty ? &cache->dirty_list : &cache->clean_list;
}

static Qcow2Slice **bucket(Qcow2Cache *cache, uint64_t offset)
{
    uint64_t key = offset / cache->slice_bytes * UINT64_C(0x9e3779b97f4a7c15);

    return &cache->hash[key >> 32 & cache->hash_mask];
}

static Qcow2Slice *find(Qcow2Cache *cache, uint64_t offset)
{
    Qcow2Slice *slice = *bucket(cache, offset);

    while (slice && slice->offset != offset) {
        slice = slice->hash_next;
    }
    return slice;
}

static void hash_remove(Qcow2Cache *cache, Qcow2Slice *slice)
{
    Qcow2Slice **at = bucket(cache, slice->offset);

    while (*at != slice) {
        at = &(*at)->hash_next;
    }
    *at = slice->hash_next;
}

/* ---- life ---- */

bool qcow2_cache_init(Qcow2Cache *cache, Qcow2State *s, uint32_t slice_bytes, uint64_t bytes)
{
    unsigned buckets = 64;

    *cache = (Qcow2Cache) { .s = s, .slice_bytes = slice_bytes };
    cache->max = MAX(bytes / slice_bytes, MIN_SLICES);
    while (buckets < cache->max) {
        buckets *= 2;
    }
    cache->hash_mask = buckets - 1;
    cache->hash = g_try_new0(Qcow2Slice *, buckets);
    return cache->hash != NULL;
}

static void slice_free(Qcow2Cache *cache, Qcow2Slice *slice)
{
    cache->count--;
    free(slice->data);
    g_free(slice);
}

static void slice_drop(Qcow2Cache *cache, Qcow2Slice *slice)
{
    list_remove(list_of(cache, slice), slice);
    hash_remove(cache, slice);
    if (slice->dirty) {
        slice->dirty = false;
        cache->dirty--;
    }
    slice_free(cache, slice);
}

void qcow2_cache_drop(Qcow2Cache *cache)
{
    while (cache->dirty_list.first) {
        g_assert(!cache->dirty_list.first->pins);
        slice_drop(cache, cache->dirty_list.first);
    }
    while (cache->clean_list.first) {
        g_assert(!cache->clean_list.first->pins);
        slice_drop(cache, cache->clean_list.first);
    }
}

void qcow2_cache_destroy(Qcow2Cache *cache)
{
    if (cache->hash) {
        qcow2_cache_drop(cache);
        g_free(cache->hash);
        cache->hash = NULL;
    }
}

/* ---- getting slices ---- */

/* The clean slice that was used the longest ago and that nobody holds. */
static Qcow2Slice *find_victim(Qcow2Cache *cache)
{
    Qcow2Slice *slice = cache->clean_list.last;

    while (slice && slice->pins) {
        slice = slice->prev;
    }
    return slice;
}

/* Returns 1 when it had to wait: look again; 0: there is room now; or an errno. */
static int coroutine_fn make_room(Qcow2Cache *cache)
{
    Qcow2State *s = cache->s;
    Qcow2Slice *victim;
    int ret;

    if (cache->count < cache->max) {
        return 0;
    }
    victim = find_victim(cache);
    if (victim) {
        slice_drop(cache, victim);
        return 0;
    }
    /* All are pinned, or the caller is what writes back: over the bound for a moment. */
    if (!cache->dirty || s->flusher == coroutine_self()) {
        return 0;
    }
    ret = qcow2_write_back_all(s->bs);
    return ret < 0 ? ret : 1;
}

static Qcow2Slice *slice_new(Qcow2Cache *cache, uint64_t offset)
{
    Qcow2Slice *slice = g_new0(Qcow2Slice, 1);
    Qcow2Slice **at = bucket(cache, offset);

    slice->data = bdrv_try_blockalign(cache->s->bs->file->bs, cache->slice_bytes);
    if (!slice->data) {
        g_free(slice);
        return NULL;
    }
    co_queue_init(&slice->loaded);
    slice->offset = offset;
    slice->pins = 1;
    slice->hash_next = *at;
    *at = slice;
    list_add(&cache->clean_list, slice);
    cache->count++;
    return slice;
}

static void forget(Qcow2Cache *cache, Qcow2Slice *slice)
{
    list_remove(list_of(cache, slice), slice);
    hash_remove(cache, slice);
    if (slice->dirty) {
        slice->dirty = false;
        cache->dirty--;
    }
    slice->forgotten = true;
    if (!slice->pins) {
        slice_free(cache, slice);
    }
}

static int coroutine_fn load(Qcow2Cache *cache, Qcow2Slice *slice)
{
    int ret = qcow2_read_table(cache->s->bs, slice->offset, cache->slice_bytes, slice->data);

    slice->valid = ret >= 0;
    slice->error = ret;
    co_queue_restart_all(&slice->loaded);
    if (ret < 0) {
        if (!slice->forgotten) {
            forget(cache, slice);
        }
        qcow2_cache_put(cache, slice);
    }
    return ret;
}

static void touch(Qcow2Cache *cache, Qcow2Slice *slice)
{
    if (!slice->dirty && cache->clean_list.first != slice) {
        list_remove(&cache->clean_list, slice);
        list_add(&cache->clean_list, slice);
    }
}

int coroutine_fn qcow2_cache_get(Qcow2Cache *cache, uint64_t offset, Qcow2Slice **result)
{
    Qcow2Slice *slice;
    int ret;

    while (!(slice = find(cache, offset))) {
        ret = make_room(cache);
        if (ret < 0) {
            return ret;
        }
        if (ret == 0) {
            *result = slice = slice_new(cache, offset);
            return slice ? load(cache, slice) : -ENOMEM;
        }
    }
    slice->pins++;
    if (!slice->valid) {
        co_queue_wait(&slice->loaded, NULL);
    }
    if (!slice->valid) {
        ret = slice->error;
        qcow2_cache_put(cache, slice);
        return ret;
    }
    if (!slice->forgotten) {
        touch(cache, slice);
    }
    *result = slice;
    return 0;
}

Qcow2Slice *qcow2_cache_peek(Qcow2Cache *cache, uint64_t offset)
{
    Qcow2Slice *slice = find(cache, offset);

    if (!slice || !slice->valid) {
        return NULL;
    }
    touch(cache, slice);
    return slice;
}

void qcow2_cache_put(Qcow2Cache *cache, Qcow2Slice *slice)
{
    g_assert(slice->pins);
    if (--slice->pins) {
        return;
    }
    if (slice->forgotten) {
        slice_free(cache, slice);
    } else if (cache->count > cache->max && !slice->dirty) {
        slice_drop(cache, slice);
    }
}

void qcow2_cache_mark_dirty(Qcow2Cache *cache, Qcow2Slice *slice)
{
    if (slice->dirty || slice->forgotten) {
        return;
    }
    list_remove(&cache->clean_list, slice);
    slice->dirty = true;
    cache->dirty++;
    list_add(&cache->dirty_list, slice);
}

void qcow2_cache_forget(Qcow2Cache *cache, uint64_t offset, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += cache->slice_bytes) {
        Qcow2Slice *slice = find(cache, offset + at);

        if (slice) {
            forget(cache, slice);
        }
    }
}

/* ---- writing back ---- */

static int compare_slices(const void *a, const void *b)
{
    const Qcow2Slice *x = *(Qcow2Slice *const *)a, *y = *(Qcow2Slice *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool batch_alloc(Qcow2Batch *batch, size_t piece, size_t n)
{
    *batch = (Qcow2Batch) { .piece = piece, .n = n };
    batch->offsets = g_try_new(uint64_t, n);
    batch->data = g_try_malloc_n(n, piece);
    if (!batch->offsets || !batch->data) {
        qcow2_batch_clear(batch);
        return false;
    }
    return true;
}

void qcow2_batch_clear(Qcow2Batch *batch)
{
    g_free(batch->offsets);
    g_free(batch->data);
    g_free(batch->slices);
    *batch = (Qcow2Batch) { 0 };
}

int qcow2_cache_collect(Qcow2Cache *cache, Qcow2Batch *batch)
{
    size_t n = 0;

    *batch = (Qcow2Batch) { 0 };
    if (!cache->dirty) {
        return 0;
    }
    if (!batch_alloc(batch, cache->slice_bytes, cache->dirty)) {
        return -ENOMEM;
    }
    batch->slices = g_new(Qcow2Slice *, cache->dirty);
    while (cache->dirty_list.last) {
        Qcow2Slice *slice = cache->dirty_list.last;

        list_remove(&cache->dirty_list, slice);
        slice->dirty = false;
        list_add(&cache->clean_list, slice);
        slice->pins++;
        batch->slices[n++] = slice;
    }
    g_assert(n == cache->dirty);
    cache->dirty = 0;
    qsort(batch->slices, n, sizeof(batch->slices[0]), compare_slices);
    for (size_t i = 0; i < n; i++) {
        batch->offsets[i] = batch->slices[i]->offset;
        memcpy(batch->data + i * batch->piece, batch->slices[i]->data, batch->piece);
    }
    return 0;
}

void qcow2_cache_collected(Qcow2Cache *cache, Qcow2Batch *batch, bool failed)
{
    for (size_t i = 0; i < batch->n; i++) {
        if (failed) {
            qcow2_cache_mark_dirty(cache, batch->slices[i]);
        }
        qcow2_cache_put(cache, batch->slices[i]);
    }
}

typedef struct WriteRun {
    BlockDriverState *bs;
    uint64_t offset, bytes;
    const uint8_t *data;
} WriteRun;

static int coroutine_fn write_run(void *opaque)
{
    g_autofree WriteRun *run = opaque;

    return bdrv_co_pwrite(run->bs->file, run->offset, run->bytes, run->data, 0);
}

int coroutine_fn qcow2_batch_write(BlockDriverState *bs, const Qcow2Batch *batch)
{
    Qcow2Tasks tasks = { 0 };

    for (size_t i = 0, n; i < batch->n; i += n) {
        WriteRun *run = g_new(WriteRun, 1);

        for (n = 1;
             i + n < batch->n && batch->offsets[i + n] == batch->offsets[i] + n * batch->piece &&
             (n + 1) * batch->piece <= BDRV_REQUEST_MAX_BYTES;
             n++) {
        }
        *run = (WriteRun) {
            .bs = bs, .offset = batch->offsets[i], .bytes = n * batch->piece,
            .data = batch->data + i * batch->piece,
        };
        qcow2_tasks_make_room(&tasks, MAX_WRITES_AT_ONCE);
        qcow2_tasks_start(&tasks, write_run, run);
    }
    return qcow2_tasks_wait(&tasks);
}

/* ---- whole tables ---- */

bool qcow2_table_init(Qcow2Table *table, uint32_t n, uint64_t offset)
{
    *table = (Qcow2Table) { .n = n, .offset = offset };
    table->entry = g_try_new0(uint64_t, MAX(n, 1));
    table->dirty = bitmap_try_new(n / TABLE_PIECE_ENTRIES + 1);
    if (!table->entry || !table->dirty) {
        qcow2_table_clear(table);
        return false;
    }
    return true;
}

void qcow2_table_clear(Qcow2Table *table)
{
    g_free(table->entry);
    g_free(table->dirty);
    *table = (Qcow2Table) { 0 };
}

int coroutine_fn qcow2_table_read(BlockDriverState *bs, Qcow2Table *table)
{
    int ret = qcow2_read_table(bs, table->offset, (uint64_t)table->n * 8, table->entry);

    for (uint32_t i = 0; i < table->n; i++) {
        table->entry[i] = be64_to_cpu(table->entry[i]);
    }
    return ret;
}

int coroutine_fn qcow2_table_write(BlockDriverState *bs, const Qcow2Table *table)
{
    size_t bytes = (size_t)table->n * 8;
    uint8_t *buf;
    int ret;

    if (!bytes) {
        return 0;
    }
    buf = bdrv_try_blockalign(bs->file->bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < table->n; i++) {
        stq_be_p(buf + (size_t)i * 8, table->entry[i]);
    }
    ret = bdrv_co_pwrite(bs->file, table->offset, bytes, buf, 0);
    free(buf);
    return ret;
}

void qcow2_table_set(Qcow2Table *table, uint32_t index, uint64_t value)
{
    table->entry[index] = value;
    set_bit(index / TABLE_PIECE_ENTRIES, table->dirty);
    table->any_dirty = true;
}

/* The last piece may reach over the table's end: its cluster does, and the rest there is unused. */
int qcow2_table_collect(Qcow2Table *table, Qcow2Batch *batch)
{
    unsigned long pieces = table->n / TABLE_PIECE_ENTRIES + 1, piece;
    size_t n = 0, i = 0;

    *batch = (Qcow2Batch) { 0 };
    if (!table->any_dirty) {
        return 0;
    }
    for (piece = 0; piece < pieces; piece++) {
        n += test_bit(piece, table->dirty);
    }
    if (!batch_alloc(batch, TABLE_PIECE_BYTES, n)) {
        return -ENOMEM;
    }
    memset(batch->data, 0, n * TABLE_PIECE_BYTES);
    for (piece = 0; piece < pieces; piece++) {
        if (!test_bit(piece, table->dirty)) {
            continue;
        }
        batch->offsets[i] = table->offset + piece * TABLE_PIECE_BYTES;
        for (uint32_t e = 0; e < TABLE_PIECE_ENTRIES && piece * TABLE_PIECE_ENTRIES + e < table->n;
             e++) {
            stq_be_p(batch->data + i * TABLE_PIECE_BYTES + e * 8,
                     table->entry[piece * TABLE_PIECE_ENTRIES + e]);
        }
        clear_bit(piece, table->dirty);
        i++;
    }
    table->any_dirty = false;
    return 0;
}

void qcow2_table_collected(Qcow2Table *table, const Qcow2Batch *batch, bool failed)
{
    for (size_t i = 0; failed && i < batch->n; i++) {
        set_bit((batch->offsets[i] - table->offset) / TABLE_PIECE_BYTES, table->dirty);
        table->any_dirty = true;
    }
}
