/*
 * Reading, writing and discarding, one request at a time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/qemu-io-internal.h"

/* A buffer is filled with it before a read, so that what was not read is seen. */
#define UNREAD_BYTE 0xab
#define WRITE_BYTE 0xcd

/* Memory for the request; NULL: it was said why. */
static uint8_t *get_buffer(QemuIO *io, int64_t bytes, int fill)
{
    uint8_t *buf;

    if (bytes > BDRV_REQUEST_MAX_BYTES) {
        qemu_io_printf(io, "length cannot exceed %d, given %" PRId64 "\n",
                       (int)BDRV_REQUEST_MAX_BYTES, bytes);
        return NULL;
    }
    buf = blk_try_blockalign(io->blk, MAX(bytes, 1));
    if (!buf) {
        qemu_io_printf(io, "no memory for %" PRId64 " bytes\n", bytes);
        return NULL;
    }
    memset(buf, fill, bytes);
    return buf;
}

/* ---- read ---- */

/* Where to compare: all, or the part that -s and -l choose. */
static bool verify_range(QemuIO *io, const QemuIOArgs *args, int64_t bytes, int64_t *start,
                         int64_t *count)
{
    *start = 0;
    if ((qemu_io_has(args, 's') || qemu_io_has(args, 'l')) && !qemu_io_has(args, 'P')) {
        qemu_io_printf(io, "-s and -l require -P to be specified\n");
        return false;
    }
    if (qemu_io_has(args, 's') && !qemu_io_number(io, args->opt['s'], start)) {
        return false;
    }
    *count = MAX(bytes - *start, 0);
    if (qemu_io_has(args, 'l') && !qemu_io_number(io, args->opt['l'], count)) {
        return false;
    }
    if (*start > bytes || *count > bytes - *start) {
        qemu_io_printf(io, "pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

int qemu_io_read(QemuIO *io, const QemuIOArgs *args)
{
    QemuIORequest req;
    int64_t start, count;
    uint8_t *buf;
    int pattern, ret;

    if (!qemu_io_request(io, args, "read", &req) || !qemu_io_pattern(io, args, -1, &pattern) ||
        !verify_range(io, args, req.bytes, &start, &count)) {
        return -1;
    }
    buf = get_buffer(io, req.bytes, UNREAD_BYTE);
    if (!buf) {
        return -1;
    }
    req.start_ns = aio_clock_ns();
    ret = blk_pread(io->blk, req.offset, req.bytes, buf, 0);
    if (ret < 0) {
        ret = qemu_io_failed(io, "read", ret);
    } else {
        int64_t done_ns = aio_clock_ns();

        ret = pattern < 0 || qemu_io_verify(io, buf + start, req.offset + start, count, pattern)
                  ? 0
                  : -1;
        if (qemu_io_has(args, 'v') && !req.quiet) {
            qemu_io_dump(io, buf, req.offset, req.bytes);
        }
        qemu_io_report(io, &req, done_ns);
    }
    free(buf);
    return ret;
}

/* ---- write ---- */

static bool fill_from_file(QemuIO *io, uint8_t *buf, int64_t bytes, const char *path)
{
    g_autoptr(GError) gerr = NULL;
    g_autofree char *content = NULL;
    gsize length;

    if (!g_file_get_contents(path, &content, &length, &gerr)) {
        qemu_io_printf(io, "%s\n", gerr->message);
        return false;
    }
    if (!length) {
        qemu_io_printf(io, "%s: file is empty\n", path);
        return false;
    }
    for (int64_t at = 0; at < bytes; at += length) {
        memcpy(buf + at, content, MIN((int64_t)length, bytes - at));
    }
    return true;
}

typedef struct CompressedWrite {
    BlockBackend *blk;
    int64_t offset, bytes;
    const void *buf;
    int ret;
} CompressedWrite;

static void coroutine_fn write_compressed(void *opaque)
{
    CompressedWrite *w = opaque;

    w->ret = blk_co_pwrite_compressed(w->blk, w->offset, w->bytes, w->buf);
}

static int write_buffer(QemuIO *io, const QemuIOArgs *args, const QemuIORequest *req,
                        const uint8_t *buf, BdrvRequestFlags flags)
{
    CompressedWrite w = { .blk = io->blk, .offset = req->offset, .bytes = req->bytes, .buf = buf };

    if (!qemu_io_has(args, 'c')) {
        return blk_pwrite(io->blk, req->offset, req->bytes, buf, flags);
    }
    aio_co_run(blk_get_aio_context(io->blk), write_compressed, &w);
    return w.ret;
}

int qemu_io_write(QemuIO *io, const QemuIOArgs *args)
{
    const char *source = args->opt['s'];
    BdrvRequestFlags flags;
    QemuIORequest req;
    uint8_t *buf = NULL;
    int pattern, ret;

    if (!qemu_io_request(io, args, "wrote", &req) ||
        !qemu_io_pattern(io, args, WRITE_BYTE, &pattern) ||
        !qemu_io_write_flags(io, args, &flags)) {
        return -1;
    }
    if (source && (qemu_io_has(args, 'P') || qemu_io_has(args, 'z'))) {
        qemu_io_printf(io, "Only one of -z, -P, and -s can be specified at the same time\n");
        return -1;
    }
    if (!qemu_io_has(args, 'z')) {
        buf = get_buffer(io, req.bytes, pattern);
        if (!buf || (source && !fill_from_file(io, buf, req.bytes, source))) {
            free(buf);
            return -1;
        }
    }
    req.start_ns = aio_clock_ns();
    ret = buf ? write_buffer(io, args, &req, buf, flags)
              : blk_pwrite_zeroes(io->blk, req.offset, req.bytes, flags);
    if (ret < 0) {
        ret = qemu_io_failed(io, "write", ret);
    } else {
        qemu_io_report(io, &req, aio_clock_ns());
    }
    free(buf);
    return MIN(ret, 0);
}

int qemu_io_discard(QemuIO *io, const QemuIOArgs *args)
{
    QemuIORequest req;
    int ret;

    if (!qemu_io_request(io, args, "discard", &req)) {
        return -1;
    }
    ret = blk_pdiscard(io->blk, req.offset, req.bytes);
    if (ret < 0) {
        return qemu_io_failed(io, "discard", ret);
    }
    qemu_io_report(io, &req, aio_clock_ns());
    return 0;
}
