/*
 * Requests that go on while further commands are read: each is a coroutine of the main context that
 * prints when it is done.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/qemu-io-internal.h"

#define UNREAD_BYTE 0xab
#define WRITE_BYTE 0xcd

typedef struct Async {
    QemuIO *io;
    QemuIORequest req;
    bool is_write, dump;
    int pattern;                /* -1: do not compare */
    BdrvRequestFlags flags;
    uint8_t *buf;               /* NULL: zeroes are written */
} Async;

/* Of all objects; aio_flush waits for 0. Main thread. */
static unsigned under_way;

/* Outside of the coroutine: it may be the last to hold the disk. */
static void finish(void *opaque)
{
    Async *a = opaque;

    qemu_io_unref(a->io);
    free(a->buf);
    g_free(a);
    under_way--;
    aio_wait_kick();
}

static void tell(Async *a, int ret)
{
    QemuIO *io = a->io;
    int64_t done_ns = aio_clock_ns();

    if (ret < 0) {
        qemu_io_printf(io, "aio_%s failed: %s\n", a->is_write ? "write" : "read", g_strerror(-ret));
        return;
    }
    if (a->pattern >= 0 && !a->is_write) {
        qemu_io_verify(io, a->buf, a->req.offset, a->req.bytes, a->pattern);
    }
    if (a->dump && !a->req.quiet) {
        qemu_io_dump(io, a->buf, a->req.offset, a->req.bytes);
    }
    qemu_io_report(io, &a->req, done_ns);
}

static void coroutine_fn run(void *opaque)
{
    Async *a = opaque;
    BlockBackend *blk = a->io->blk;
    int ret;

    if (!a->is_write) {
        ret = blk_co_pread(blk, a->req.offset, a->req.bytes, a->buf, 0);
    } else if (a->buf) {
        ret = blk_co_pwrite(blk, a->req.offset, a->req.bytes, a->buf, a->flags);
    } else {
        ret = blk_co_pwrite_zeroes(blk, a->req.offset, a->req.bytes, a->flags);
    }
    tell(a, ret);
    aio_bh_schedule_oneshot(aio_context_main(), finish, a);
}

static int start(QemuIO *io, const QemuIOArgs *args, Async *a, int otherwise)
{
    bool zero = qemu_io_has(args, 'z');

    if (!qemu_io_request(io, args, a->is_write ? "wrote" : "read", &a->req) ||
        !qemu_io_pattern(io, args, otherwise, &a->pattern) ||
        !qemu_io_write_flags(io, args, &a->flags)) {
        return -1;
    }
    if (!zero && a->req.bytes > BDRV_REQUEST_MAX_BYTES) {
        qemu_io_printf(io, "length cannot exceed %d, given %" PRId64 "\n",
                       (int)BDRV_REQUEST_MAX_BYTES, a->req.bytes);
        return -1;
    }
    a->buf = zero ? NULL : blk_try_blockalign(io->blk, MAX(a->req.bytes, 1));
    if (!zero && !a->buf) {
        qemu_io_printf(io, "no memory for %" PRId64 " bytes\n", a->req.bytes);
        return -1;
    }
    if (a->buf) {
        memset(a->buf, a->is_write ? a->pattern : UNREAD_BYTE, a->req.bytes);
    }
    a->io = io;
    qemu_io_ref(io);
    under_way++;
    aio_co_enter(aio_context_main(), coroutine_create(run, a));
    return 0;
}

int qemu_io_aio_read(QemuIO *io, const QemuIOArgs *args)
{
    Async *a = g_new0(Async, 1);

    a->dump = qemu_io_has(args, 'v');
    if (start(io, args, a, -1) < 0) {
        g_free(a);
        return -1;
    }
    return 0;
}

int qemu_io_aio_write(QemuIO *io, const QemuIOArgs *args)
{
    Async *a = g_new0(Async, 1);

    a->is_write = true;
    if (start(io, args, a, WRITE_BYTE) < 0) {
        g_free(a);
        return -1;
    }
    return 0;
}

void qemu_io_wait(void)
{
    AIO_WAIT_WHILE(under_way > 0);
}

int qemu_io_aio_flush(QemuIO *io, const QemuIOArgs *args)
{
    qemu_io_wait();
    return 0;
}
