/*
 * Transport fd for streams: a socket, pipe or terminal that somebody opened for us. One channel
 * only. A descriptor of a regular file goes the way of files (transport-file.c).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/transport.h"

#include <sys/stat.h>
#include "io/channel-file.h"
#include "io/channel-socket.h"

static int fd_check(MigrationChannels *mc, Error **errp)
{
    return 0;                           /* channels.c has looked at it */
}

static QIOChannel *fd_channel(MigrationChannels *mc, Error **errp)
{
    struct stat st;
    int fd = mc->fd;

    mc->fd = -1;
    if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
        return QIO_CHANNEL(qio_channel_socket_new_fd(fd, errp));
    }
    return QIO_CHANNEL(qio_channel_file_new_fd(fd, errp));
}

const MigrationTransport transport_stream_fd = {
    .name = "fd",
    .bidirectional = true,
    .outgoing = fd_check,
    .incoming = fd_check,
    .connect = fd_channel,
    .accept = fd_channel,
};
