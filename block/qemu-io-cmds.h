/*
 * Commands that read, write and inspect a disk by hand: those of `ferry-io` and of HMP's qemu-io,
 * in qemu-io's spelling.
 *
 * Main thread, outside of coroutines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_QEMU_IO_CMDS_H
#define BLOCK_QEMU_IO_CMDS_H

#include "block/block-backend.h"

/* Where commands print: @text is whole lines. */
typedef void QemuIOPrint(void *opaque, const char *text);

typedef struct QemuIO QemuIO;

/* Commands for @blk (a reference is taken). NULL: only help. */
QemuIO *qemu_io_new(BlockBackend *blk, QemuIOPrint *print, void *opaque);
/*
 * The end of it. Requests that aio_read and aio_write started go on and hold the disk; they print
 * nothing more. NULL is allowed.
 */
void qemu_io_free(QemuIO *io);

/*
 * qemu_io_command:
 * @line: a command with its arguments, divided by blanks
 *
 * Permissions that the command needs and that the disk's holder lacks are taken, and kept.
 * Returns: 0; -1 when the command is wrong or failed, which has been printed.
 */
int qemu_io_command(QemuIO *io, const char *line);

/* Wait until all asynchronous requests of all objects are done. */
void qemu_io_wait(void);

#endif
