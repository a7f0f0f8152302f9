/*
 * QIONetListener: everything that one address stands for, listened on at once.
 *
 * A host name may have several addresses; the listener has one socket for each, all on the same
 * port. Connections are handed to a callback in a GMainContext, or waited for. Not thread-safe: one
 * thread opens, accepts and closes it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_NET_LISTENER_H
#define IO_NET_LISTENER_H

#include "io/channel-socket.h"

typedef struct QIONetListener QIONetListener;

/* A connection has come. @client is the listener's; take a reference to keep it. */
typedef void (*QIONetListenerClientFunc)(QIONetListener *listener, QIOChannelSocket *client,
                                         gpointer opaque);

/* A listener that listens on nothing yet. */
QIONetListener *qio_net_listener_new(void);
/*
 * Close its sockets and free it. From a client function too; it then goes when the function
 * returns. NULL is allowed.
 */
void qio_net_listener_free(QIONetListener *listener);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QIONetListener, qio_net_listener_free)

/* For debugging: the name of the sockets. */
void qio_net_listener_set_name(QIONetListener *listener, const char *name);

/*
 * Listen on all that @addr stands for; @backlog as for socket_listen(). It is enough when one of
 * several addresses works. Returns 0, or -1 with @errp set.
 */
int qio_net_listener_open_sync(QIONetListener *listener, const SocketAddress *addr, int backlog,
                               Error **errp);
/* Add a listening socket that is there; a reference is taken. */
void qio_net_listener_add(QIONetListener *listener, QIOChannelSocket *s);

/*
 * Call @func for each connection, from @context (NULL: the default one). NULL as @func stops that:
 * clients then wait in the backlog.
 */
void qio_net_listener_set_client_func(QIONetListener *listener, QIONetListenerClientFunc func,
                                      gpointer opaque, GMainContext *context);

/* Wait for a connection and return it; no client function may be set. NULL with @errp set. */
QIOChannelSocket *qio_net_listener_wait_client(QIONetListener *listener, Error **errp);

/* How many sockets it has, and the address of one, as the kernel has it (with the real port). */
size_t qio_net_listener_n_sockets(QIONetListener *listener);
SocketAddress *qio_net_listener_get_address(QIONetListener *listener, size_t i, Error **errp);

/* Close the sockets; who waits in the backlog is refused. The listener can be opened again. */
void qio_net_listener_disconnect(QIONetListener *listener);

#endif
