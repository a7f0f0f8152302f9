/*
 * The character device on a socket: a server for one client at a time, or a client.
 *
 * A server stops listening (that is, lets others wait in the backlog) while it has a client. A
 * client with `reconnect` makes each attempt in a thread of its own, because a name server or a
 * silent host can take minutes; the thread hands its socket to the main loop, and is told to give
 * up by an eventfd when the device goes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "chardev/char-class.h"
#include "io/net-listener.h"
#include "io/sockets.h"

typedef struct SocketChardev {
    Chardev parent;
    SocketAddress *addr;
    bool server;
    bool nodelay;
    guint reconnect_ms;     /* 0: never */
    QIONetListener *listener;
    QIOChannelSocket *client;
    /* An attempt to connect. */
    guint retry_timer;
    GThread *connecting;
    int cancel_fd;
    int connected_fd;       /* what came of it, -1 for a failure; the thread's until it is done */
    GSource *done;          /* made ready by the thread at its end */
} SocketChardev;

static void reconnect_later(SocketChardev *s);

/* Addresses ---------------------------------------------------------------------------------- */

static char *socket_filename(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;
    g_autoptr(SocketAddress) bound = NULL;
    g_autofree char *peer = NULL;

    /* The port that was really taken, where there is one. */
    if (s->listener && qio_net_listener_n_sockets(s->listener)) {
        bound = qio_net_listener_get_address(s->listener, 0, NULL);
    }
    g_autofree char *uri = socket_uri(bound && bound->type == SOCKET_ADDRESS_TYPE_INET ? bound
                                                                                      : s->addr);
    if (s->client && s->addr->type == SOCKET_ADDRESS_TYPE_INET && s->server) {
        g_autoptr(SocketAddress) remote = qio_channel_socket_get_remote_address(s->client, NULL);
        peer = remote ? socket_describe(remote) : NULL;
    }
    return g_strdup_printf("%s%s%s%s%s", s->client ? "" : "disconnected:", uri,
                           s->server ? ",server=on" : "", peer ? " <-> " : "", peer ?: "");
}

/* Coming and going --------------------------------------------------------------------------- */

static void on_client(QIONetListener *listener, QIOChannelSocket *client, gpointer opaque);

static void start_session(SocketChardev *s, QIOChannelSocket *client)
{
    QIOChannel *ioc = qio_channel_ref(QIO_CHANNEL(client));
    g_autofree char *name = g_strdup_printf("chardev-%s", s->parent.id);

    s->client = client;
    if (s->listener) {
        qio_net_listener_set_client_func(s->listener, NULL, NULL, NULL);
    }
    qio_channel_set_name(ioc, name);
    qio_channel_set_delay(ioc, !s->nodelay);
    char_io_attach(&s->parent, ioc, ioc);
}

static void on_client(QIONetListener *listener, QIOChannelSocket *client, gpointer opaque)
{
    SocketChardev *s = opaque;

    start_session(s, client);
    chr_be_event(&s->parent, CHR_EVENT_OPENED);
}

static void end_session(SocketChardev *s)
{
    char_io_detach(&s->parent);
    if (s->client) {
        /* Whoever else still holds a reference, the peer sees the end now. */
        qio_channel_shutdown(QIO_CHANNEL(s->client), QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
        qio_channel_unref(QIO_CHANNEL(g_steal_pointer(&s->client)));
    }
}

static void socket_hangup(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    end_session(s);
    if (s->listener) {
        qio_net_listener_set_client_func(s->listener, on_client, s, NULL);
    } else if (s->reconnect_ms) {
        reconnect_later(s);
    }
    if (chr->be_open) {
        chr_be_event(chr, CHR_EVENT_CLOSED);
    }
}

/* Connecting --------------------------------------------------------------------------------- */

static gboolean done_dispatch(GSource *source, GSourceFunc callback, gpointer opaque)
{
    return callback(opaque);
}

/* A source that does nothing until somebody sets its ready time. */
static GSourceFuncs done_funcs = { .dispatch = done_dispatch };

static gpointer connect_thread(gpointer opaque)
{
    SocketChardev *s = opaque;

    s->connected_fd = socket_connect(s->addr, s->cancel_fd, NULL);
    g_source_set_ready_time(s->done, 0);
    return NULL;
}

/* Wait for the thread, which is at its end or was told to end; its socket or -1. */
static int finish_attempt(SocketChardev *s)
{
    g_thread_join(g_steal_pointer(&s->connecting));
    g_source_destroy(s->done);
    g_source_unref(s->done);
    close(s->cancel_fd);
    return s->connected_fd;
}

static gboolean on_attempt_done(gpointer opaque)
{
    SocketChardev *s = opaque;
    int fd = finish_attempt(s);
    g_autoptr(QIOChannel) client = NULL;

    if (fd >= 0) {
        client = QIO_CHANNEL(qio_channel_socket_new_fd(fd, NULL));
    }
    if (client) {
        start_session(s, qio_channel_socket_cast(client));
        chr_be_event(&s->parent, CHR_EVENT_OPENED);
    } else {
        reconnect_later(s);
    }
    return G_SOURCE_REMOVE;
}

static void start_attempt(SocketChardev *s)
{
    s->cancel_fd = eventfd(0, EFD_CLOEXEC);
    s->done = g_source_new(&done_funcs, sizeof(GSource));
    g_source_set_callback(s->done, on_attempt_done, s, NULL);
    g_source_attach(s->done, NULL);
    s->connecting = g_thread_new("chardev-connect", connect_thread, s);
}

static gboolean on_retry(gpointer opaque)
{
    SocketChardev *s = opaque;

    s->retry_timer = 0;
    start_attempt(s);
    return G_SOURCE_REMOVE;
}

static void reconnect_later(SocketChardev *s)
{
    s->retry_timer = g_timeout_add(s->reconnect_ms, on_retry, s);
}

/* Opening and closing ------------------------------------------------------------------------- */

static bool check_options(const ChardevSocket *o, bool server, Error **errp)
{
    if (!server && o->has_wait && o->wait) {
        error_setg(errp, "'wait' option is incompatible with socket in client connect mode");
    } else if (server && (o->has_reconnect || o->has_reconnect_ms)) {
        error_setg(errp, "'reconnect' option is incompatible with socket in server listen mode");
    } else if (o->has_reconnect && o->has_reconnect_ms) {
        error_setg(errp, "'reconnect' and 'reconnect-ms' are mutually exclusive");
    } else if (o->has_reconnect && o->reconnect > G_MAXINT / 1000) {
        error_setg(errp, "'reconnect' must be at most %d seconds", G_MAXINT / 1000);
    } else {
        return true;
    }
    return false;
}

static bool listen_open(SocketChardev *s, bool wait, Error **errp)
{
    g_autofree char *name = g_strdup_printf("chardev-%s-listen", s->parent.id);

    s->listener = qio_net_listener_new();
    qio_net_listener_set_name(s->listener, name);
    if (qio_net_listener_open_sync(s->listener, s->addr, 1, errp) < 0) {
        return false;
    }
    if (!wait) {
        qio_net_listener_set_client_func(s->listener, on_client, s, NULL);
        return true;
    }

    g_autofree char *filename = socket_filename(&s->parent);
    error_report("info: waiting for connection on: %s", filename);
    g_autoptr(QIOChannel) client = QIO_CHANNEL(qio_net_listener_wait_client(s->listener, errp));
    if (!client) {
        return false;
    }
    start_session(s, qio_channel_socket_cast(client));
    s->parent.be_open = true;
    return true;
}

static bool connect_open(SocketChardev *s, Error **errp)
{
    if (s->reconnect_ms) {
        start_attempt(s);
        return true;
    }

    g_autoptr(QIOChannel) client = QIO_CHANNEL(
        qio_channel_socket_connect_sync(s->addr, -1, errp));
    if (!client) {
        return false;
    }
    start_session(s, qio_channel_socket_cast(client));
    s->parent.be_open = true;
    return true;
}

static bool socket_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    SocketChardev *s = (SocketChardev *)chr;
    const ChardevSocket *o = backend->u.socket.data;

    s->server = !o->has_server || o->server;
    if (!check_options(o, s->server, errp)) {
        return false;
    }
    s->addr = socket_address_flatten(o->addr);
    s->nodelay = o->has_nodelay && o->nodelay;
    s->reconnect_ms = o->has_reconnect ? o->reconnect * 1000 : o->reconnect_ms;
    return s->server ? listen_open(s, o->has_wait && o->wait, errp) : connect_open(s, errp);
}

static void socket_close(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)chr;

    if (s->connecting) {
        eventfd_write(s->cancel_fd, 1);
        int fd = finish_attempt(s);
        if (fd >= 0) {
            close(fd);
        }
    }
    if (s->retry_timer) {
        g_source_remove(s->retry_timer);
    }
    end_session(s);
    qio_net_listener_free(s->listener);
    qapi_free_SocketAddress(s->addr);
}

const ChardevClass chardev_socket_class = {
    .kind = CHARDEV_BACKEND_KIND_SOCKET,
    .size = sizeof(SocketChardev),
    .open = socket_open,
    .close = socket_close,
    .hangup = socket_hangup,
    .filename = socket_filename,
};
