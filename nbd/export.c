/*
 * The export type `nbd`.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/export.h"

#include <string.h>

#include "nbd/client.h"
#include "nbd/option-data.h"
#include "nbd/server.h"

/* Below that, requests are copied more than once on the way. */
#define PREFERRED_MIN_BYTES 4096

static NbdExport *to_nbd(BlockExport *exp)
{
    return (NbdExport *)exp;
}

NbdExport *nbd_export_next(NbdExport *after)
{
    BlockExport *exp = after ? &after->common : NULL;

    do {
        exp = block_export_next(exp);
    } while (exp && (exp->drv->type != BLOCK_EXPORT_TYPE_NBD || exp->shutting_down));
    return to_nbd(exp);
}

NbdExport *nbd_export_find(const char *name, size_t len)
{
    NbdExport *exp = NULL;

    while ((exp = nbd_export_next(exp)) &&
           (strlen(exp->name) != len || memcmp(exp->name, name, len) != 0)) {
    }
    return exp;
}

uint16_t nbd_export_flags(const NbdExport *exp)
{
    uint16_t flags =
        NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;

    if (exp->common.writable) {
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    } else {
        flags |= NBD_FLAG_READ_ONLY;
    }
    return flags;
}

uint64_t nbd_export_size(const NbdExport *exp)
{
    int64_t size = blk_getlength(exp->common.blk);

    return MAX(size, 0);
}

/* The server takes any alignment: what a node needs aligned, the block layer makes so. */
void nbd_export_block_sizes(const NbdExport *exp, uint32_t *minimum, uint32_t *preferred,
                            uint32_t *maximum)
{
    *minimum = 1;
    *preferred = CLAMP(blk_get_request_alignment(exp->common.blk), PREFERRED_MIN_BYTES,
                       NBD_MAX_DATA_BYTES);
    *maximum = NBD_MAX_DATA_BYTES;
}

/*
 * Bitmaps
 * ---------------------------------------------------------------------------------------------
 */

/* In the node or, through filters and backing files, below it. */
static BdrvDirtyBitmap *find_bitmap(const NbdExport *exp, const BlockDirtyBitmapOrStr *which,
                                    Error **errp)
{
    BdrvDirtyBitmap *bitmap = NULL;
    const char *name;

    if (which->type == QTYPE_QSTRING) {
        name = which->u.local;
        for (BlockDriverState *bs = blk_bs(exp->common.blk); bs && !bitmap;
             bs = bdrv_filter_or_cow_bs(bs)) {
            bitmap = bdrv_find_dirty_bitmap(bs, name);
        }
    } else {
        BlockDriverState *bs = bdrv_lookup(which->u.external.node, errp);

        if (!bs) {
            return NULL;
        }
        name = which->u.external.name;
        bitmap = bdrv_find_dirty_bitmap(bs, name);
    }
    if (!bitmap) {
        error_setg(errp, "Bitmap '%s' is not found", name);
    }
    return bitmap;
}

static int check_bitmap(const NbdExport *exp, const BdrvDirtyBitmap *bitmap, Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);

    if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT, errp) < 0) {
        return -1;
    }
    if (!exp->common.writable && bdrv_is_read_only(bdrv_dirty_bitmap_bs(bitmap)) &&
        bdrv_dirty_bitmap_enabled(bitmap)) {
        error_setg(errp, "Enabled bitmap '%s' incompatible with readonly export", name);
        return -1;
    }
    for (unsigned i = 0; i < exp->n_bitmaps; i++) {
        if (strcmp(bdrv_dirty_bitmap_name(exp->bitmaps[i]), name) == 0) {
            error_setg(errp, "Bitmap '%s' is named twice", name);
            return -1;
        }
    }
    return 0;
}

static int add_bitmap(NbdExport *exp, const BlockDirtyBitmapOrStr *which, Error **errp)
{
    BdrvDirtyBitmap *bitmap = find_bitmap(exp, which, errp);

    if (!bitmap || check_bitmap(exp, bitmap, errp) < 0) {
        return -1;
    }
    bdrv_dirty_bitmap_set_busy(bitmap, true);
    bdrv_ref(bdrv_dirty_bitmap_bs(bitmap));
    exp->bitmaps = g_renew(BdrvDirtyBitmap *, exp->bitmaps, exp->n_bitmaps + 1);
    exp->bitmaps[exp->n_bitmaps++] = bitmap;
    return 0;
}

/*
 * Life
 * ------------------------------------------------------------------------------------------------
 */

static void export_destroy(BlockExport *common)
{
    NbdExport *exp = to_nbd(common);

    for (unsigned i = 0; i < exp->n_bitmaps; i++) {
        BlockDriverState *bs = bdrv_dirty_bitmap_bs(exp->bitmaps[i]);

        bdrv_dirty_bitmap_set_busy(exp->bitmaps[i], false);
        bdrv_unref(bs);
    }
    g_free(exp->bitmaps);
    g_free(exp->name);
    g_free(exp->description);
}

static int check_text(const char *what, const char *text, Error **errp)
{
    NbdString s = { .text = text, .len = strlen(text) };

    if (s.len > NBD_STRING_MAX_BYTES) {
        error_setg(errp, "export %s too long: it has more than %d bytes", what,
                   NBD_STRING_MAX_BYTES);
        return -1;
    }
    if (!nbd_string_is_valid(s)) {
        error_setg(errp, "export %s is not UTF-8", what);
        return -1;
    }
    return 0;
}

static int set_texts(NbdExport *exp, const BlockExportOptions *opts, Error **errp)
{
    const BlockExportOptionsNbd *nbd = &opts->u.nbd;
    /* As it was given: it may be the name of a block device, whose node has one that nobody knows. */
    const char *name = nbd->name ? nbd->name : opts->node_name;

    if (check_text("name", name, errp) < 0 ||
        (nbd->description && check_text("description", nbd->description, errp) < 0)) {
        return -1;
    }
    if (nbd_export_find(name, strlen(name))) {
        error_setg(errp, "NBD server already has export named '%s'", name);
        return -1;
    }
    exp->name = g_strdup(name);
    exp->description = g_strdup(nbd->description);
    return 0;
}

static int export_create(BlockExport *common, const BlockExportOptions *opts, Error **errp)
{
    static uint64_t last_serial;
    const BlockExportOptionsNbd *nbd = &opts->u.nbd;
    NbdExport *exp = to_nbd(common);

    if (!nbd_server_is_running()) {
        error_setg(errp, "NBD server not running");
        return -1;
    }
    if (set_texts(exp, opts, errp) < 0) {
        return -1;
    }
    for (BlockDirtyBitmapOrStrList *l = nbd->has_bitmaps ? nbd->bitmaps : NULL; l; l = l->next) {
        if (add_bitmap(exp, l->value, errp) < 0) {
            export_destroy(common);
            return -1;
        }
    }
    exp->serial = ++last_serial;
    exp->allocation_depth = nbd->has_allocation_depth && nbd->allocation_depth;
    return 0;
}

static void export_request_shutdown(BlockExport *common)
{
    nbd_server_disconnect_clients(to_nbd(common));
}

static const BlockExportDriver nbd_export_driver = {
    .type = BLOCK_EXPORT_TYPE_NBD,
    .instance_size = sizeof(NbdExport),
    .create = export_create,
    .request_shutdown = export_request_shutdown,
    .destroy = export_destroy,
};

void nbd_export_register(void)
{
    block_export_register(&nbd_export_driver);
}
