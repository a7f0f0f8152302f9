/*
 * FileIO: positioned reads or writes of one file, large and several at a time.
 *
 * Requests that follow one another in memory and in the file become one; what is handed to the
 * kernel is cut at multiples of FILE_IO_REQUEST_BYTES in the file. The engine is io_uring; where
 * the system refuses that, requests are done one by one.
 *
 * One thread uses a FileIO, the one that made it. Buffers belong to the requests until
 * file_io_drain() returns.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_FILE_IO_H
#define MIGRATION_FILE_IO_H

#include "io/channel.h"

#define FILE_IO_REQUEST_BYTES (1024 * 1024)
#define FILE_IO_DEPTH 16

typedef struct FileIO FileIO;

/*
 * file_io_new:
 * @ioc: a seekable channel; a reference is taken
 * @write: write, or read
 * @use_uring: false: never io_uring (for tests)
 */
FileIO *file_io_new(QIOChannel *ioc, bool write, bool use_uring, Error **errp);
/* Waits for what is under way; what was not begun is dropped. NULL is allowed. */
void file_io_free(FileIO *io);

/*
 * Write or read @len bytes at @offset, from or to @buf; all page aligned for a channel with
 * O_DIRECT. May wait for an earlier request. Returns 0, or -1 with @errp set: this or an earlier
 * request failed (a read beyond the end of the file is a failure), and none is begun any more.
 */
int file_io_queue(FileIO *io, void *buf, size_t len, uint64_t offset, Error **errp);
/* Everything queued is done on return. */
int file_io_drain(FileIO *io, Error **errp);
/* Whether io_uring is what does it. */
bool file_io_uses_uring(const FileIO *io);

/*
 * Check that the file behind @ioc, opened with O_DIRECT, can transfer whole pages without the page
 * cache. @what names the file in the message.
 */
int file_io_check_direct(QIOChannel *ioc, const char *what, Error **errp);

#endif
