/*
 * Between the table of commands (qemu-io-cmds.c) and those who carry them out.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_QEMU_IO_INTERNAL_H
#define BLOCK_QEMU_IO_INTERNAL_H

#include "block/qemu-io-cmds.h"

struct QemuIO {
    int refcnt;                 /* the user's, and one for each request under way; atomic */
    BlockBackend *blk;
    QemuIOPrint *print;         /* NULL: nobody listens any more */
    void *opaque;
};

#define QEMU_IO_ARGS_MAX 64

/* A command's arguments: options by their letter ("" when one has no value), then the others. */
typedef struct QemuIOArgs {
    const char *opt[128];
    const char *pos[QEMU_IO_ARGS_MAX];
    unsigned n;
} QemuIOArgs;

static inline bool qemu_io_has(const QemuIOArgs *args, char letter)
{
    return args->opt[(unsigned char)letter] != NULL;
}

typedef int QemuIOCommandFn(QemuIO *io, const QemuIOArgs *args);

/* qemu-io-rw.c */
QemuIOCommandFn qemu_io_read, qemu_io_write, qemu_io_discard;
/* qemu-io-aio.c */
QemuIOCommandFn qemu_io_aio_read, qemu_io_aio_write, qemu_io_aio_flush;
/* qemu-io-info.c */
QemuIOCommandFn qemu_io_flush, qemu_io_truncate, qemu_io_length, qemu_io_map, qemu_io_alloc,
    qemu_io_info;

/* ---- helpers of qemu-io-cmds.c ---- */

void qemu_io_printf(QemuIO *io, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* A number of bytes, with a suffix perhaps; what is wrong with it is printed. */
bool qemu_io_number(QemuIO *io, const char *text, int64_t *value);
/* "64 KiB", "1.500 MiB", "17 bytes"; g_free() it. */
char *qemu_io_size(double bytes);
/* A byte from -P, or @otherwise. */
bool qemu_io_pattern(QemuIO *io, const QemuIOArgs *args, int otherwise, int *pattern);

/* One request to be made, or that was made. */
typedef struct QemuIORequest {
    const char *verb;           /* "read", "wrote" */
    int64_t offset, bytes;
    bool quiet, brief;          /* -q, -C */
    int64_t start_ns;
} QemuIORequest;

/* Offset and length from the first two positional arguments, -q and -C, and now as its start. */
bool qemu_io_request(QemuIO *io, const QemuIOArgs *args, const char *verb, QemuIORequest *req);
/* How it went; @done_ns of aio_clock_ns(). */
void qemu_io_report(QemuIO *io, const QemuIORequest *req, int64_t done_ns);
/* "read failed: ..."; @ret is a negative errno. Returns -1. */
int qemu_io_failed(QemuIO *io, const char *what, int ret);

/* Check @bytes bytes of @buf against @pattern; print what differs. */
bool qemu_io_verify(QemuIO *io, const uint8_t *buf, int64_t offset, int64_t bytes, int pattern);
void qemu_io_dump(QemuIO *io, const uint8_t *buf, int64_t offset, int64_t bytes);
/* The flags of a write that its options ask for; what does not go together is printed. */
bool qemu_io_write_flags(QemuIO *io, const QemuIOArgs *args, BdrvRequestFlags *flags);

void qemu_io_ref(QemuIO *io);
void qemu_io_unref(QemuIO *io);

#endif
