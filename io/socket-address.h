/*
 * Socket addresses as people write them, as the schema has them, and as the kernel has them.
 *
 * The text forms are
 *     HOST:PORT[,OPTIONS]  [IPV6]:PORT[,OPTIONS]  tcp:...   an empty host: every local address
 *     unix:PATH
 *     vsock:CID:PORT
 *     fd:NAME                                               a number, or a name known to io_fd_get()
 * and OPTIONS are the other members of InetSocketAddress, such as `to=4500,ipv6=off`; `ipv4` and
 * `ipv6` alone mean on.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_SOCKET_ADDRESS_H
#define IO_SOCKET_ADDRESS_H

#include <sys/socket.h>

#include "qapi/qapi-types-char.h"
#include "qapi/qapi-types-sockets.h"
#include "util/error.h"

/* The address that @str describes, for qapi_free_SocketAddress(); NULL with @errp set. */
SocketAddress *socket_parse(const char *str, Error **errp);
/* The part of it after `tcp:`. */
InetSocketAddress *inet_parse(const char *str, Error **errp);

/* Back to text, with `tcp:` for an inet address; socket_parse() reads it. g_free() it. */
char *socket_uri(const SocketAddress *addr);
/* For messages: `HOST:PORT`, the path, `CID:PORT`, the name. g_free() it. */
char *socket_describe(const SocketAddress *addr);

/* A deep copy. */
SocketAddress *socket_address_copy(const SocketAddress *addr);
/* The same from the form that older commands have. */
SocketAddress *socket_address_flatten(const SocketAddressLegacy *legacy);

/* The address of the kernel as one of the schema, numeric; NULL with @errp set: unknown family. */
SocketAddress *socket_address_from_sockaddr(const struct sockaddr_storage *sa, socklen_t len,
                                            Error **errp);
/* The address that the socket @fd has here, that its peer has. NULL with @errp set. */
SocketAddress *socket_local_address(int fd, Error **errp);
SocketAddress *socket_remote_address(int fd, Error **errp);

#endif
