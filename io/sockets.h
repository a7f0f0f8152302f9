/*
 * Making sockets: from an address of the schema to a connected or listening descriptor.
 *
 * All descriptors are stream sockets, close-on-exec, in blocking mode, and the caller's. Host names
 * are looked up synchronously. Any thread may call.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_SOCKETS_H
#define IO_SOCKETS_H

#include "io/socket-address.h"

/*
 * socket_connect:
 * @addr: where to; of a name with several addresses each is tried in turn
 * @cancel_fd: a descriptor that ends the attempt when it becomes readable (an eventfd), or -1
 *
 * With an `fd` address the result is that descriptor, which must be a socket.
 *
 * Returns: a connected socket, or -1 with @errp set to "Failed to connect to 'ADDRESS': REASON".
 */
int socket_connect(const SocketAddress *addr, int cancel_fd, Error **errp);

/*
 * socket_listen:
 * @addr: where; for inet, port 0 lets the kernel choose and `to` gives more ports to try; an empty
 *     host listens on all IPv4 and IPv6 addresses at once
 * @backlog: connections that may wait to be accepted, at least 1
 *
 * A path at which a socket lies that nobody listens on is replaced; anything else there is an
 * error.
 *
 * Returns: a listening socket, or -1 with @errp set.
 */
int socket_listen(const SocketAddress *addr, int backlog, Error **errp);

/*
 * socket_resolve:
 *
 * The addresses to listen on for all that @addr stands for: one for each number that a host name
 * has, else just a copy. Port 0 stays 0 in each.
 *
 * Returns: at least one SocketAddress; freeing the array frees them. NULL with @errp set.
 */
GPtrArray *socket_resolve(const SocketAddress *addr, Error **errp);

#endif
