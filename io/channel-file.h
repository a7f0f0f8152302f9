/*
 * A channel over a file descriptor that is not a socket: a regular file, a block device, a pipe, a
 * terminal.
 *
 * A regular file or block device has QIO_CHANNEL_FEATURE_SEEKABLE; it never makes a non-blocking
 * channel wait. Everything else is a stream; its open file description is put in non-blocking mode,
 * which whoever shares it will notice.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_CHANNEL_FILE_H
#define IO_CHANNEL_FILE_H

#include "io/channel.h"

typedef struct QIOChannelFile QIOChannelFile;

/* Open @path by io_open(), with its flags, mode and errors; NULL with @errp set. */
QIOChannelFile *qio_channel_file_new_path(const char *path, int flags, mode_t mode, Error **errp);
/*
 * Over @fd, which belongs to the channel from now on, and is closed also when this fails.
 * NULL with @errp set when it is no open descriptor, or a directory.
 */
QIOChannelFile *qio_channel_file_new_fd(int fd, Error **errp);
/* Over a duplicate of @fd, which stays the caller's. */
QIOChannelFile *qio_channel_file_new_dupfd(int fd, Error **errp);

/* @ioc as this kind; NULL when it is of another, or NULL. */
QIOChannelFile *qio_channel_file_cast(QIOChannel *ioc);

#endif
