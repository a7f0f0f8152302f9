/*
 * qcow2: opening and closing, and the driver's table. The format is drawn in qcow2.h.
 *
 * Opening reads the header, the L1 table and the refcount table; the rest is read when it is
 * needed. An image that is open for writing is not changed before the first change
 * (qcow2_begin_change()), but for bitmaps, which are marked as in use at once, and one that was not
 * closed the last time, whose counts are made anew.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/drivers.h"

#define MAX_SLICE_BYTES 4096

/* ---- loading and unloading ---- */

static void unload(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);

    s->loaded = s->changing = false;
    qcow2_cache_destroy(&s->l2_cache);
    qcow2_cache_destroy(&s->ref_cache);
    qcow2_table_clear(&s->l1);
    qcow2_table_clear(&s->reftable);
    qcow2_overlap_destroy(s);
    qcow2_decompressed_destroy(s);
    g_clear_pointer(&s->snapshots, g_ptr_array_unref);
    g_clear_pointer(&s->bitmaps, g_ptr_array_unref);
    g_clear_pointer(&s->freed, g_array_unref);
    g_clear_pointer(&s->settled, g_array_unref);
    qcow2_header_clear(&s->hdr);
}

static int coroutine_fn read_header(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint8_t start[QCOW2_HEADER_V3_BYTES] = { 0 };
    g_autofree uint8_t *buf = NULL;
    size_t needs;
    int ret =
        s->file_len ? bdrv_co_pread(bs->file, 0, MIN(sizeof(start), s->file_len), start, 0) : 0;

    needs = ret < 0 ? 0 : qcow2_header_needs(start, sizeof(start));
    if (ret >= 0 && !needs) {
        error_setg(errp, "'%s' is not a qcow2 image", bdrv_get_filename(bs->file->bs));
        return -EINVAL;
    }
    buf = g_try_malloc0(needs);
    if (ret >= 0) {
        ret = buf ? bdrv_co_pread(bs->file, 0, MIN(needs, s->file_len), buf, 0) : -ENOMEM;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the header of '%s'",
                         bdrv_get_filename(bs->file->bs));
        return ret;
    }
    if (!qcow2_header_parse(buf, needs, &s->hdr, errp)) {
        error_prepend(errp, "Could not open '%s': ", bdrv_get_filename(bs->file->bs));
        return -EINVAL;
    }
    return 0;
}

static void derive_geometry(Qcow2State *s)
{
    s->cluster_bits = s->hdr.cluster_bits;
    s->cluster_size = UINT32_C(1) << s->cluster_bits;
    s->extended = s->hdr.incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
    s->entry_bytes = s->extended ? 16 : 8;
    s->sub_bits = s->cluster_bits - (s->extended ? QCOW2_SUBCLUSTER_BITS : 0);
    s->l2_bits = s->cluster_bits - (s->extended ? 4 : 3);
    s->slice_entries = MIN(s->cluster_size, MAX_SLICE_BYTES) / s->entry_bytes;
    s->refblock_bits = s->cluster_bits + 3 - s->hdr.refcount_order;
    s->refcount_max = s->hdr.refcount_order == 6
                          ? UINT64_MAX
                          : (UINT64_C(1) << (1u << s->hdr.refcount_order)) - 1;
}

static int coroutine_fn read_tables(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint32_t reftable_n = ((uint64_t)s->hdr.reftable_clusters << s->cluster_bits) / 8;
    int ret;

    if (!qcow2_table_init(&s->l1, s->hdr.l1_size, s->hdr.l1_offset) ||
        !qcow2_table_init(&s->reftable, reftable_n, s->hdr.reftable_offset)) {
        error_setg(errp, "Not enough memory for the tables of '%s'",
                   bdrv_get_filename(bs->file->bs));
        return -ENOMEM;
    }
    ret = qcow2_table_read(bs, &s->l1);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the L1 table of '%s' at offset 0x%" PRIx64,
                         bdrv_get_filename(bs->file->bs), s->hdr.l1_offset);
        return ret;
    }
    ret = qcow2_table_read(bs, &s->reftable);
    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "Could not read the refcount table of '%s' at offset 0x%" PRIx64,
                         bdrv_get_filename(bs->file->bs), s->hdr.reftable_offset);
        return ret;
    }
    return 0;
}

static int init_caches(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint32_t slice = MIN(s->cluster_size, MAX_SLICE_BYTES);

    if (!qcow2_parse_options(bs, &bs->options->u.qcow2, bs->discard_unmap, &s->options, errp)) {
        return -EINVAL;
    }
    if (!qcow2_cache_init(&s->l2_cache, s, slice, s->options.l2_cache_bytes) ||
        !qcow2_cache_init(&s->ref_cache, s, slice, s->options.ref_cache_bytes)) {
        error_setg(errp, "Not enough memory for the caches of '%s'",
                   bdrv_get_filename(bs->file->bs));
        return -ENOMEM;
    }
    return 0;
}

static void init_state(Qcow2State *s)
{
    s->free_hint = s->packed_at = s->used_end = 0;
    s->zero_from = round_up_u64(s->file_len, s->cluster_size);
    s->freed = g_array_new(FALSE, FALSE, sizeof(Qcow2Freed));
    s->settled = g_array_new(FALSE, FALSE, sizeof(Qcow2Freed));
    s->freed_bytes = 0;
    s->data_before_l2 = false;
    s->sparse = -1;
    s->corrupt = s->hdr.incompatible & QCOW2_INCOMPAT_CORRUPT;
    s->told = false;
}

static int coroutine_fn load(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    int64_t len = bdrv_co_getlength(bs->file->bs);
    int ret;

    if (len < 0) {
        error_setg_errno(errp, -len, "Could not get the length of '%s'",
                         bdrv_get_filename(bs->file->bs));
        return len;
    }
    s->file_len = s->file_len_opened = len;
    ret = read_header(bs, errp);
    if (ret < 0) {
        return ret;
    }
    derive_geometry(s);
    init_state(s);
    ret = read_tables(bs, errp);
    if (ret == 0) {
        ret = init_caches(bs, errp);
    }
    if (ret == 0) {
        ret = qcow2_load_snapshots(bs, errp);
    }
    if (ret == 0) {
        ret = qcow2_load_bitmap_dir(bs, errp);
    }
    s->loaded = ret == 0;
    if (ret == 0) {
        bdrv_co_set_length(bs, s->hdr.size);
    }
    return ret;
}

/* ---- beginning and ending to write ---- */

static bool writable(const BlockDriverState *bs)
{
    return !bs->read_only && !bs->inactive;
}

/* An image that somebody did not close: make its counts anew. */
static int coroutine_fn repair_dirty(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    BdrvCheckResult result = { 0 };
    int ret;

    co_mutex_lock(&s->lock);
    ret = qcow2_check_locked(bs, &result, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
    co_mutex_unlock(&s->lock);
    if (ret < 0 || result.check_errors || result.corruptions) {
        ret = ret < 0 ? ret : -EIO;
        error_setg_errno(errp, -ret, "Could not repair '%s', which was not closed properly",
                         bdrv_get_filename(bs->file->bs));
    }
    return MIN(ret, 0);
}

/* What is due as soon as the image is open for writing. */
static int coroutine_fn become_writable(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    if (bs->for_check) {
        return 0;
    }
    if (s->corrupt) {
        error_setg(
            errp, "The qcow2 image '%s' is corrupt; it can only be opened for reading, or repaired",
            bdrv_get_filename(bs->file->bs));
        return -EACCES;
    }
    if (s->hdr.incompatible & QCOW2_INCOMPAT_DIRTY) {
        ret = repair_dirty(bs, errp);
    }
    if (ret == 0) {
        ret = qcow2_mark_bitmaps_in_use(bs);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not mark the bitmaps of '%s' as in use",
                             bdrv_get_filename(bs->file->bs));
        }
    }
    return ret;
}

static int coroutine_fn begin_change_locked(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t incompatible = s->hdr.incompatible, autoclear = s->hdr.autoclear;
    int ret;

    /* From now on corruption is noted in the image. */
    s->changing = true;
    ret = qcow2_overlap_init(bs);
    if (ret == 0) {
        ret = qcow2_mark_bitmaps_in_use(bs);
    }
    if (ret == 0) {
        s->hdr.autoclear &= s->hdr.has_bitmaps ? QCOW2_AUTOCLEAR_BITMAPS : 0;
        s->hdr.incompatible |= s->options.lazy_refcounts ? QCOW2_INCOMPAT_DIRTY : 0;
        if (s->hdr.autoclear != autoclear || s->hdr.incompatible != incompatible) {
            ret = qcow2_header_write_features(bs);
        }
    }
    if (ret < 0) {
        s->changing = false;
        s->hdr.autoclear = autoclear;
        s->hdr.incompatible &= ~(QCOW2_INCOMPAT_DIRTY & ~incompatible);
    }
    return ret;
}

int coroutine_fn qcow2_begin_change(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    if (s->corrupt) {
        return -EIO;
    }
    if (!s->changing) {
        co_mutex_lock(&s->lock);
        if (!s->changing) {
            ret = begin_change_locked(bs);
        }
        co_mutex_unlock(&s->lock);
    }
    return ret;
}

/* Everything to the file, which is as if it had never been open then. */
static int coroutine_fn end_change(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    int ret;

    if (!s->loaded || !writable(bs) || s->corrupt || bs->for_check) {
        return 0;
    }
    ret = qcow2_store_bitmaps(bs, errp);
    if (ret < 0) {
        return ret;
    }
    if (!s->changing) {
        return 0;
    }
    ret = qcow2_settle(bs);
    if (ret == 0) {
        ret = qcow2_write_back_all(bs);
    }
    if (ret == 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret == 0 && (s->hdr.incompatible & QCOW2_INCOMPAT_DIRTY)) {
        s->hdr.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
        ret = qcow2_header_write_features(bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the metadata of '%s'", bdrv_get_filename(bs));
        return ret;
    }
    qcow2_trim_file(bs);
    s->changing = false;
    return 0;
}

/* ---- open and close ---- */

typedef struct Call {
    BlockDriverState *bs;
    Error **errp;
    int ret;
} Call;

static void coroutine_fn open_entry(void *opaque)
{
    Call *call = opaque;
    BlockDriverState *bs = call->bs;
    Qcow2State *s = qcow2_state(bs);

    call->ret = load(bs, call->errp);
    if (call->ret == 0 && !bs->inactive) {
        call->ret = qcow2_load_bitmaps(bs, call->errp);
    }
    if (call->ret == 0 && writable(bs)) {
        call->ret = become_writable(bs, call->errp);
        if (call->ret < 0) {
            qcow2_release_bitmaps(bs);
        }
    }
    if (call->ret < 0) {
        unload(bs);
        return;
    }
    bs->backing_file = g_strdup(s->hdr.backing_file);
    bs->backing_format = g_strdup(s->hdr.backing_format);
}

static int qcow2_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    Call call = { .bs = bs, .errp = errp };

    s->bs = bs;
    if (bdrv_open_file_child(bs, opts->u.qcow2.file, BDRV_CHILD_IMAGE, errp) < 0) {
        return -1;
    }
    co_mutex_init(&s->lock);
    co_mutex_init(&s->flush_lock);
    co_queue_init(&s->io_drained);
    bs->supported_write_flags = 0;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
    aio_co_run(bs->aio_context, open_entry, &call);
    return call.ret < 0 ? -1 : 0;
}

static void coroutine_fn close_entry(void *opaque)
{
    Call *call = opaque;

    call->ret = end_change(call->bs, call->errp);
    qcow2_release_bitmaps(call->bs);
}

static void qcow2_close(BlockDriverState *bs)
{
    Error *err = NULL;
    Call call = { .bs = bs, .errp = &err };

    aio_co_run(bs->aio_context, close_entry, &call);
    if (call.ret < 0) {
        error_report_err(err);
    }
    unload(bs);
}

static int coroutine_fn qcow2_co_inactivate(BlockDriverState *bs)
{
    Error *err = NULL;
    int ret = end_change(bs, &err);

    if (ret < 0) {
        error_report_err(err);
        return ret;
    }
    qcow2_release_bitmaps(bs);
    return 0;
}

static int coroutine_fn qcow2_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    int ret;

    qcow2_release_bitmaps(bs);
    unload(bs);
    ret = load(bs, errp);
    if (ret == 0) {
        ret = qcow2_load_bitmaps(bs, errp);
    }
    if (ret == 0 && writable(bs)) {
        ret = become_writable(bs, errp);
    }
    if (ret < 0) {
        qcow2_release_bitmaps(bs);
        unload(bs);
    }
    return ret;
}

/* ---- reopening ---- */

typedef struct Reopen {
    Qcow2Options options;
    Qcow2Cache l2_cache, ref_cache;
} Reopen;

static void coroutine_fn prepare_entry(void *opaque)
{
    Call *call = opaque;

    call->ret = end_change(call->bs, call->errp);
}

/* Everything is written, so that caches of another size can be put in place. */
static int qcow2_reopen_prepare(BdrvReopenState *state, Error **errp)
{
    BlockDriverState *bs = state->bs;
    Qcow2State *s = qcow2_state(bs);
    Call call = { .bs = bs, .errp = errp };
    Reopen *r = g_new0(Reopen, 1);

    state->opaque = r;
    if (!state->read_only && bs->read_only &&
        (s->corrupt || (s->hdr.incompatible & QCOW2_INCOMPAT_DIRTY))) {
        error_setg(errp, "The qcow2 image '%s' must be repaired before it can be written",
                   bdrv_get_filename(bs));
        goto fail;
    }
    if (!qcow2_parse_options(bs, &state->options->u.qcow2, state->discard_unmap, &r->options,
                             errp)) {
        goto fail;
    }
    aio_co_run(bs->aio_context, prepare_entry, &call);
    if (call.ret < 0) {
        goto fail;
    }
    if (qcow2_cache_init(&r->l2_cache, s, s->l2_cache.slice_bytes, r->options.l2_cache_bytes) &&
        qcow2_cache_init(&r->ref_cache, s, s->ref_cache.slice_bytes, r->options.ref_cache_bytes)) {
        return 0;
    }
    error_setg(errp, "Not enough memory for the caches of '%s'", bdrv_get_filename(bs));
    qcow2_cache_destroy(&r->l2_cache);
    qcow2_cache_destroy(&r->ref_cache);

fail:
    g_free(r);
    state->opaque = NULL;
    return -1;
}

static void qcow2_reopen_commit(BdrvReopenState *state)
{
    Qcow2State *s = qcow2_state(state->bs);
    Reopen *r = state->opaque;

    qcow2_cache_destroy(&s->l2_cache);
    qcow2_cache_destroy(&s->ref_cache);
    s->l2_cache = r->l2_cache;
    s->ref_cache = r->ref_cache;
    s->options = r->options;
    g_free(r);
    state->opaque = NULL;
}

static void qcow2_reopen_abort(BdrvReopenState *state)
{
    Reopen *r = state->opaque;

    if (r) {
        qcow2_cache_destroy(&r->l2_cache);
        qcow2_cache_destroy(&r->ref_cache);
        g_free(r);
    }
    state->opaque = NULL;
}

/* ---- the rest of the table ---- */

static int qcow2_probe(const uint8_t *buf, size_t len)
{
    return qcow2_header_needs(buf, len) && buf[4] == 0 && buf[5] == 0 && buf[6] == 0 &&
           (buf[7] == 2 || buf[7] == 3) ? 100 : 0;
}

static BlockdevRefOrNull *qcow2_backing_option(const BlockdevOptions *opts)
{
    return opts->u.qcow2.backing;
}

/*
 * What a request to the file must keep to is the layer's business; whole clusters are good to know.
 */
static void qcow2_refresh_limits(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);

    bs->bl.request_alignment = 1;
    bs->bl.max_transfer = 0;
    bs->bl.max_iov = 0;
    bs->bl.pwrite_zeroes_alignment = s->cluster_size;
    bs->bl.pdiscard_alignment = s->cluster_size;
}

static int64_t coroutine_fn qcow2_co_getlength(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);

    return s->loaded ? (int64_t)s->hdr.size : -EIO;
}

static int coroutine_fn qcow2_co_flush_to_os(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);

    return s->changing && !s->corrupt ? qcow2_write_back(bs) : 0;
}

static int coroutine_fn qcow2_co_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    Qcow2State *s = qcow2_state(bs);

    *info = (BlockDriverInfo) {
        .cluster_size = s->cluster_size, .subcluster_size = UINT32_C(1) << s->sub_bits,
        .is_dirty = s->hdr.incompatible & QCOW2_INCOMPAT_DIRTY,
    };
    return 0;
}

static ImageInfoSpecific *qcow2_get_specific_info(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);
    ImageInfoSpecificQCow2 *q = g_new0(ImageInfoSpecificQCow2, 1);

    info->type = IMAGE_INFO_SPECIFIC_KIND_QCOW2;
    info->u.qcow2.data = q;
    q->compat = g_strdup(s->hdr.version >= 3 ? "1.1" : "0.10");
    q->refcount_bits = 1 << s->hdr.refcount_order;
    q->compression_type = s->hdr.compression;
    if (s->hdr.version >= 3) {
        q->has_lazy_refcounts = q->has_corrupt = true;
        q->lazy_refcounts = s->hdr.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
        q->corrupt = s->hdr.incompatible & QCOW2_INCOMPAT_CORRUPT;
        q->has_extended_l2 = true;
        q->extended_l2 = s->extended;
        q->has_bitmaps = s->bitmaps->len;
        q->bitmaps = qcow2_bitmap_infos(bs);
    }
    return info;
}

static int coroutine_fn qcow2_co_change_backing_file(BlockDriverState *bs, const char *backing_file,
                                                     const char *backing_fmt)
{
    Qcow2State *s = qcow2_state(bs);
    g_autofree char *old_file = NULL, *old_format = NULL;
    int ret;

    if (backing_file && strlen(backing_file) > QCOW2_BACKING_NAME_MAX) {
        return -EINVAL;
    }
    ret = qcow2_begin_change(bs);
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&s->lock);
    old_file = s->hdr.backing_file;
    old_format = s->hdr.backing_format;
    s->hdr.backing_file = g_strdup(backing_file);
    s->hdr.backing_format = backing_file ? g_strdup(backing_fmt) : NULL;
    ret = qcow2_header_write(bs);
    if (ret < 0) {
        g_free(s->hdr.backing_file);
        g_free(s->hdr.backing_format);
        s->hdr.backing_file = g_steal_pointer(&old_file);
        s->hdr.backing_format = g_steal_pointer(&old_format);
    } else {
        g_free(bs->backing_file);
        g_free(bs->backing_format);
        bs->backing_file = g_strdup(s->hdr.backing_file);
        bs->backing_format = g_strdup(s->hdr.backing_format);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

static int coroutine_fn qcow2_co_make_empty(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = qcow2_begin_change(bs);

    if (ret == 0) {
        ret = qcow2_discard_clusters(bs, 0, s->hdr.size, true, QCOW2_DISCARD_REQUEST);
    }
    return ret < 0 ? ret : qcow2_settle(bs);
}

const BlockDriver bdrv_qcow2 = {
    .format_name = "qcow2",
    .driver = BLOCKDEV_DRIVER_QCOW2,
    .instance_size = sizeof(Qcow2State),
    .is_format = true,
    .supports_backing = true,
    .probe = qcow2_probe,
    .backing_option = qcow2_backing_option,
    .open = qcow2_open,
    .close = qcow2_close,
    .refresh_limits = qcow2_refresh_limits,
    .reopen_prepare = qcow2_reopen_prepare,
    .reopen_commit = qcow2_reopen_commit,
    .reopen_abort = qcow2_reopen_abort,
    .co_preadv = qcow2_co_preadv,
    .co_pwritev = qcow2_co_pwritev,
    .co_pwrite_zeroes = qcow2_co_pwrite_zeroes,
    .co_pdiscard = qcow2_co_pdiscard,
    .co_pwritev_compressed = qcow2_co_pwritev_compressed,
    .co_flush_to_os = qcow2_co_flush_to_os,
    .co_block_status = qcow2_co_block_status,
    .co_getlength = qcow2_co_getlength,
    .co_truncate = qcow2_co_truncate,
    .co_create = qcow2_co_create,
    .co_create_opts = qcow2_co_create_opts,
    .create_options = qcow2_create_options,
    .co_check = qcow2_co_check,
    .co_change_backing_file = qcow2_co_change_backing_file,
    .co_make_empty = qcow2_co_make_empty,
    .co_get_info = qcow2_co_get_info,
    .get_specific_info = qcow2_get_specific_info,
    .co_list_snapshots = qcow2_co_list_snapshots,
    .co_load_snapshot = qcow2_co_load_snapshot,
    .co_invalidate_cache = qcow2_co_invalidate_cache,
    .co_inactivate = qcow2_co_inactivate,
    .co_can_store_bitmap = qcow2_co_can_store_bitmap,
    .co_remove_bitmap = qcow2_co_remove_bitmap,
};
