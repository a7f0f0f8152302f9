/*
 * Everything but data: flushing, lengths, what an image holds.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/driver.h"
#include "block/image-info.h"
#include "block/qemu-io-internal.h"

int qemu_io_flush(QemuIO *io, const QemuIOArgs *args)
{
    int ret = blk_flush(io->blk);

    return ret < 0 ? qemu_io_failed(io, "flush", ret) : 0;
}

int qemu_io_truncate(QemuIO *io, const QemuIOArgs *args)
{
    Error *err = NULL;
    int mode = PREALLOC_MODE_OFF;
    int64_t length;

    if (qemu_io_has(args, 'm')) {
        mode = qapi_enum_parse(&PreallocMode_lookup, args->opt['m'], PREALLOC_MODE_OFF, &err);
    }
    if (!err && !qemu_io_number(io, args->pos[0], &length)) {
        return -1;
    }
    if (err || blk_truncate(io->blk, length, false, mode, 0, &err) < 0) {
        qemu_io_printf(io, "truncate: %s\n", err ? error_get_pretty(err) : "failed");
        error_free(err);
        return -1;
    }
    return 0;
}

int qemu_io_length(QemuIO *io, const QemuIOArgs *args)
{
    int64_t length = blk_getlength(io->blk);
    g_autofree char *text = NULL;

    if (length < 0) {
        return qemu_io_failed(io, "getlength", length);
    }
    text = qemu_io_size(length);
    qemu_io_printf(io, "%s\n", text);
    return 0;
}

/* ---- what the image itself holds ---- */

typedef struct Question {
    BlockDriverState *bs;
    int64_t offset, bytes, pnum;
    int ret;
} Question;

static void coroutine_fn ask(void *opaque)
{
    Question *q = opaque;

    q->ret = bdrv_co_is_allocated(q->bs, q->offset, q->bytes, &q->pnum);
}

/* From offset on, as far as the answer is the same: 1, 0, or a negative errno. */
static int is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes, int64_t *pnum)
{
    int first = -1;

    *pnum = 0;
    while (bytes > 0) {
        Question q = { .bs = bs, .offset = offset, .bytes = bytes };

        aio_co_run(bdrv_get_aio_context(bs), ask, &q);
        if (q.ret < 0) {
            return q.ret;
        }
        if (q.pnum == 0 || (first >= 0 && q.ret != first)) {
            break;
        }
        first = q.ret;
        *pnum += q.pnum;
        offset += q.pnum;
        bytes -= q.pnum;
    }
    return MAX(first, 0);
}

int qemu_io_map(QemuIO *io, const QemuIOArgs *args)
{
    BlockDriverState *bs = blk_bs(io->blk);
    int64_t length = blk_getlength(io->blk), n;

    if (length < 0) {
        return qemu_io_failed(io, "getlength", length);
    }
    for (int64_t at = 0; at < length; at += n) {
        int ret = is_allocated(bs, at, length - at, &n);
        g_autofree char *size = NULL, *offset = NULL;

        if (ret < 0) {
            return qemu_io_failed(io, "map", ret);
        }
        if (n == 0) {
            qemu_io_printf(io, "Unexpected end of image\n");
            return -1;
        }
        size = qemu_io_size(n);
        offset = qemu_io_size(at);
        qemu_io_printf(io, "%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n",
                       size, n, ret ? "   " : "not", offset, at);
    }
    return 0;
}

int qemu_io_alloc(QemuIO *io, const QemuIOArgs *args)
{
    BlockDriverState *bs = blk_bs(io->blk);
    int64_t offset, bytes = BDRV_SECTOR_BYTES, sum = 0, n;
    g_autofree char *where = NULL;

    if (!qemu_io_number(io, args->pos[0], &offset) ||
        (args->n > 1 && !qemu_io_number(io, args->pos[1], &bytes))) {
        return -1;
    }
    for (int64_t at = 0; at < bytes; at += n) {
        int ret = is_allocated(bs, offset + at, bytes - at, &n);

        if (ret < 0) {
            return qemu_io_failed(io, "is_allocated", ret);
        }
        if (n == 0) {
            break;
        }
        sum += ret ? n : 0;
    }
    where = qemu_io_size(offset);
    qemu_io_printf(io, "%" PRId64 "/%" PRId64 " bytes allocated at offset %s\n", sum, bytes, where);
    return 0;
}

int qemu_io_info(QemuIO *io, const QemuIOArgs *args)
{
    BlockDriverState *bs = blk_bs(io->blk);
    Error *err = NULL;
    ImageInfo *info = bdrv_query_image_info(bs, true, &err);
    g_autoptr(GString) specific = g_string_new(NULL);

    if (!info) {
        qemu_io_printf(io, "info: %s\n", error_get_pretty(err));
        error_free(err);
        return -1;
    }
    qemu_io_printf(io, "format name: %s\n", info->format);
    if (info->has_cluster_size) {
        g_autofree char *size = qemu_io_size(info->cluster_size);

        qemu_io_printf(io, "cluster size: %s\n", size);
    }
    if (info->format_specific) {
        bdrv_image_specific_print(specific, info->format_specific, 4);
        if (specific->len) {
            qemu_io_printf(io, "Format specific information:\n%s", specific->str);
        }
    }
    qapi_free_ImageInfo(info);
    return 0;
}
