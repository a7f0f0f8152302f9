/*
 * A channel over a stream socket: TCP, UNIX, VSOCK, or one that was handed over.
 *
 * UNIX sockets have QIO_CHANNEL_FEATURE_FD_PASS and QIO_CHANNEL_FEATURE_LEND; a listening one has
 * QIO_CHANNEL_FEATURE_LISTEN and only accepts. A listening socket at a path removes it when it is
 * closed, unless another lies there by then.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_CHANNEL_SOCKET_H
#define IO_CHANNEL_SOCKET_H

#include "io/channel.h"
#include "io/socket-address.h"

typedef struct QIOChannelSocket QIOChannelSocket;

/*
 * Over @fd, a connected or listening socket, which belongs to the channel from now on and is closed
 * also when this fails. NULL with @errp set.
 */
QIOChannelSocket *qio_channel_socket_new_fd(int fd, Error **errp);

/* Connected to @addr as socket_connect() does, with its cancelling; NULL with @errp set. */
QIOChannelSocket *qio_channel_socket_connect_sync(const SocketAddress *addr, int cancel_fd,
                                                  Error **errp);
/* Listening on @addr as socket_listen() does; NULL with @errp set. */
QIOChannelSocket *qio_channel_socket_listen_sync(const SocketAddress *addr, int backlog,
                                                 Error **errp);
/*
 * The next connection that waits at a listening channel. When there is none this waits on a
 * blocking channel; a non-blocking one returns NULL without an error. Also NULL with @errp set, and
 * without an error when the channel was shut down.
 */
QIOChannelSocket *qio_channel_socket_accept(QIOChannelSocket *s, Error **errp);

/* The addresses of both ends; for qapi_free_SocketAddress(). NULL with @errp set. */
SocketAddress *qio_channel_socket_get_local_address(QIOChannelSocket *s, Error **errp);
SocketAddress *qio_channel_socket_get_remote_address(QIOChannelSocket *s, Error **errp);

/*
 * Ask for kernel buffers of @bytes in both directions; the kernel may give less. TCP sizes its own
 * better and is left alone; UNIX sockets gain from it.
 */
void qio_channel_socket_set_buffer_size(QIOChannelSocket *s, unsigned bytes);

/* @ioc as this kind; NULL when it is of another, or NULL. */
QIOChannelSocket *qio_channel_socket_cast(QIOChannel *ioc);

#endif
