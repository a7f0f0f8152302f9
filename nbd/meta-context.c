/*
 * Metadata contexts: names, selection, and the extents of a range.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/meta-context.h"

#include <glib.h>
#include <string.h>

#include "nbd/protocol.h"
#include "util/aio.h"

#define BASE "base:"
#define BASE_ALLOCATION "base:allocation"
#define QEMU "qemu:"
#define ALLOCATION_DEPTH "qemu:allocation-depth"
#define DIRTY_BITMAP "qemu:dirty-bitmap:"

/*
 * Questions to the block layer for one reply; each may be long, and the client asks again for the
 * rest.
 */
#define STEPS_MAX 8192
/* And how long they may take together, where each waits for a disk. */
#define STEPS_MAX_NS (INT64_C(1) * 1000 * 1000 * 1000)

/*
 * Names and selection
 * ---------------------------------------------------------------------------------
 */

void nbd_meta_clear(NbdMeta *meta)
{
    g_free(meta->ids);
    *meta = (NbdMeta) { 0 };
}

bool nbd_meta_exists(const NbdExport *exp, uint32_t id)
{
    switch (id) {
    case NBD_META_BASE_ALLOCATION:
        return true;
    case NBD_META_ALLOCATION_DEPTH:
        return exp->allocation_depth;
    default:
        return id - NBD_META_FIRST_BITMAP < exp->n_bitmaps;
    }
}

static uint32_t id_end(const NbdExport *exp)
{
    return NBD_META_FIRST_BITMAP + exp->n_bitmaps;
}

char *nbd_meta_name(const NbdExport *exp, uint32_t id)
{
    switch (id) {
    case NBD_META_BASE_ALLOCATION:
        return g_strdup(BASE_ALLOCATION);
    case NBD_META_ALLOCATION_DEPTH:
        return g_strdup(ALLOCATION_DEPTH);
    default:
        return g_strconcat(DIRTY_BITMAP,
                           bdrv_dirty_bitmap_name(exp->bitmaps[id - NBD_META_FIRST_BITMAP]), NULL);
    }
}

void nbd_meta_add(NbdMeta *meta, const NbdExport *exp, uint32_t id)
{
    if (!nbd_meta_exists(exp, id)) {
        return;
    }
    for (unsigned i = 0; i < meta->n; i++) {
        if (meta->ids[i] == id) {
            return;
        }
    }
    meta->ids = g_renew(uint32_t, meta->ids, meta->n + 1);
    meta->ids[meta->n++] = id;
}

void nbd_meta_add_all(NbdMeta *meta, const NbdExport *exp)
{
    for (uint32_t id = 0; id < id_end(exp); id++) {
        nbd_meta_add(meta, exp, id);
    }
}

static bool is_text(const char *query, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(query, text, len) == 0;
}

/* All contexts whose names begin with @prefix. */
static void add_prefix(NbdMeta *meta, const NbdExport *exp, const char *prefix)
{
    for (uint32_t id = 0; id < id_end(exp); id++) {
        g_autofree char *name = nbd_meta_name(exp, id);

        if (g_str_has_prefix(name, prefix)) {
            nbd_meta_add(meta, exp, id);
        }
    }
}

void nbd_meta_query(NbdMeta *meta, const NbdExport *exp, const char *query, size_t len, bool list)
{
    static const char *const wildcards[] = { BASE, QEMU, DIRTY_BITMAP };

    for (size_t i = 0; list && i < G_N_ELEMENTS(wildcards); i++) {
        if (is_text(query, len, wildcards[i])) {
            add_prefix(meta, exp, wildcards[i]);
            return;
        }
    }
    for (uint32_t id = 0; id < id_end(exp); id++) {
        g_autofree char *name = nbd_meta_exists(exp, id) ? nbd_meta_name(exp, id) : NULL;

        if (name && is_text(query, len, name)) {
            nbd_meta_add(meta, exp, id);
        }
    }
}

/*
 * Extents
 * ---------------------------------------------------------------------------------------------
 */

/* Only data surely has its place: a hole that was none costs nobody anything. */
static uint32_t allocation_flags(int status)
{
    return (status & BDRV_BLOCK_DATA ? 0 : NBD_STATE_HOLE) |
           (status & BDRV_BLOCK_ZERO ? NBD_STATE_ZERO : 0);
}

/* One extent of a context that the block layer knows. */
static int coroutine_fn block_extent(const NbdExport *exp, uint32_t id, uint64_t offset,
                                     uint64_t length, NbdExtent *extent)
{
    int64_t n = 0;
    int depth = 0;
    int status =
        blk_co_block_status_above(exp->common.blk, NULL, offset, length, &n, NULL, NULL, &depth);

    if (status < 0) {
        return status;
    }
    if (n <= 0) {
        return -EIO;
    }
    extent->length = MIN((uint64_t)n, length);
    extent->flags = id == NBD_META_BASE_ALLOCATION ? allocation_flags(status) : (uint32_t)depth;
    return 0;
}

static int bitmap_extent(const NbdExport *exp, uint32_t id, uint64_t offset, uint64_t length,
                         NbdExtent *extent)
{
    BdrvDirtyBitmap *bitmap = exp->bitmaps[id - NBD_META_FIRST_BITMAP];
    int64_t n = 0;
    bool dirty;

    if (offset >= (uint64_t)bdrv_dirty_bitmap_size(bitmap)) {
        /*
         * The node grew, or the bitmap is of a shorter node below: nothing is known, so all may
         * differ.
         */
        *extent = (NbdExtent) { .length = length, .flags = NBD_STATE_DIRTY };
        return 0;
    }
    dirty = bdrv_dirty_bitmap_status(bitmap, offset, length, &n);
    if (n <= 0) {
        return -EIO;
    }
    *extent = (NbdExtent) { .length = MIN((uint64_t)n, length),
                            .flags = dirty ? NBD_STATE_DIRTY : 0 };
    return 0;
}

int coroutine_fn nbd_meta_status(const NbdExport *exp, uint32_t id, uint64_t offset,
                                 uint64_t length, NbdExtent *extents, unsigned max)
{
    int64_t begun = aio_clock_ns();
    unsigned n = 0;

    for (unsigned steps = 0; length > 0 && steps < STEPS_MAX; steps++) {
        NbdExtent next;
        int ret = id >= NBD_META_FIRST_BITMAP ? bitmap_extent(exp, id, offset, length, &next)
                                              : block_extent(exp, id, offset, length, &next);

        if (ret < 0) {
            /*
             * What came before is known; the client hears of the error when it asks from there on.
             */
            return n > 0 ? (int)n : ret;
        }
        if (n > 0 && extents[n - 1].flags == next.flags) {
            extents[n - 1].length += next.length;
        } else if (n == max) {
            break;
        } else {
            extents[n++] = next;
        }
        offset += next.length;
        length -= next.length;
        if (aio_clock_ns() - begun > STEPS_MAX_NS) {
            break;
        }
    }
    return n;
}
