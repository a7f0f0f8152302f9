/*
 * Several listening sockets for one address.
 *
 * The sockets do not block, because a client may be gone again between poll and accept.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/net-listener.h"

#include <errno.h>
#include <poll.h>

#include "io/sockets.h"

/* How long not to try when accepting has failed, which for lack of descriptors it goes on doing. */
#define RETRY_MS 250

struct QIONetListener {
    gint refs;
    char *name;
    GPtrArray *sockets;     /* QIOChannelSocket */
    GPtrArray *sources;     /* GSource: one for each socket while a function is set, or a timer */
    QIONetListenerClientFunc func;
    gpointer opaque;
    GMainContext *context;
    bool complained;        /* accept() failed and that was reported; until one succeeds */
};

static void destroy_source(gpointer opaque)
{
    g_source_destroy(opaque);
    g_source_unref(opaque);
}

static void close_socket(gpointer opaque)
{
    qio_channel_close(opaque, NULL);
    qio_channel_unref(opaque);
}

QIONetListener *qio_net_listener_new(void)
{
    QIONetListener *l = g_new0(QIONetListener, 1);

    l->refs = 1;
    l->sockets = g_ptr_array_new_with_free_func(close_socket);
    l->sources = g_ptr_array_new_with_free_func(destroy_source);
    return l;
}

static void listener_unref(QIONetListener *l)
{
    if (--l->refs) {
        return;
    }
    g_ptr_array_unref(l->sources);
    g_ptr_array_unref(l->sockets);
    g_free(l->name);
    g_free(l);
}

void qio_net_listener_free(QIONetListener *l)
{
    if (l) {
        qio_net_listener_disconnect(l);
        l->func = NULL;
        listener_unref(l);
    }
}

void qio_net_listener_set_name(QIONetListener *l, const char *name)
{
    g_free(l->name);
    l->name = g_strdup(name);
}

static void watch_all(QIONetListener *l);

static gboolean on_retry(gpointer opaque)
{
    watch_all(opaque);
    return G_SOURCE_REMOVE;
}

/* Accepting has failed and clients wait: say so, once, and try again later. */
static void pause_listening(QIONetListener *l, const char *why)
{
    GSource *timer = g_timeout_source_new(RETRY_MS);

    if (!l->complained) {
        warn_report("%s", why);
        l->complained = true;
    }
    g_ptr_array_set_size(l->sources, 0);
    g_source_set_callback(timer, on_retry, l, NULL);
    g_source_attach(timer, l->context);
    g_ptr_array_add(l->sources, timer);
}

static gboolean on_connection(QIOChannel *ioc, GIOCondition condition, gpointer opaque)
{
    QIONetListener *l = opaque;
    g_autoptr(QIOChannel) client = NULL;
    g_autoptr(Error) err = NULL;

    client = QIO_CHANNEL(qio_channel_socket_accept(qio_channel_socket_cast(ioc), &err));
    if (!client) {
        if (err) {
            pause_listening(l, error_get_pretty(err));
        }
        return G_SOURCE_CONTINUE;
    }
    l->complained = false;
    if (l->name) {
        qio_channel_set_name(client, l->name);
    }
    l->refs++;
    if (l->func) {
        l->func(l, qio_channel_socket_cast(client), l->opaque);
    }
    listener_unref(l);
    return G_SOURCE_CONTINUE;
}

static void watch(QIONetListener *l, QIOChannel *ioc)
{
    GSource *source = qio_channel_create_watch(ioc, G_IO_IN);

    g_source_set_callback(source, (GSourceFunc)(void (*)(void))on_connection, l, NULL);
    g_source_attach(source, l->context);
    g_ptr_array_add(l->sources, source);
}

/* Watch the sockets, in place of whatever was waited for before, if there is anyone to tell. */
static void watch_all(QIONetListener *l)
{
    g_ptr_array_set_size(l->sources, 0);
    for (guint i = 0; l->func && i < l->sockets->len; i++) {
        watch(l, g_ptr_array_index(l->sockets, i));
    }
}

void qio_net_listener_add(QIONetListener *l, QIOChannelSocket *s)
{
    QIOChannel *ioc = qio_channel_ref(QIO_CHANNEL(s));

    qio_channel_set_name(ioc, l->name);
    qio_channel_set_blocking(ioc, false, NULL);
    g_ptr_array_add(l->sockets, ioc);
    if (l->func) {
        watch(l, ioc);
    }
}

/* The port that the kernel chose for one socket, for the addresses that come after it. */
static void use_port(SocketAddress *next, QIOChannelSocket *s)
{
    g_autoptr(SocketAddress) got = qio_channel_socket_get_local_address(s, NULL);

    if (got && got->type == SOCKET_ADDRESS_TYPE_INET &&
        next->type == SOCKET_ADDRESS_TYPE_INET) {
        g_free(next->u.inet.port);
        next->u.inet.port = g_strdup(got->u.inet.port);
        next->u.inet.has_to = false;
    }
}

int qio_net_listener_open_sync(QIONetListener *l, const SocketAddress *addr, int backlog,
                               Error **errp)
{
    g_autoptr(GPtrArray) list = socket_resolve(addr, errp);
    g_autoptr(Error) first_error = NULL;
    g_autoptr(QIOChannel) first = NULL;

    if (!list) {
        return -1;
    }
    for (guint i = 0; i < list->len; i++) {
        SocketAddress *one = g_ptr_array_index(list, i);

        if (first) {
            use_port(one, qio_channel_socket_cast(first));
        }
        g_autoptr(QIOChannel) ioc = QIO_CHANNEL(
            qio_channel_socket_listen_sync(one, backlog, first_error ? NULL : &first_error));
        if (!ioc) {
            continue;
        }
        qio_net_listener_add(l, qio_channel_socket_cast(ioc));
        if (!first) {
            first = qio_channel_ref(ioc);
        }
    }
    if (!first) {
        error_propagate(errp, g_steal_pointer(&first_error));
        return -1;
    }
    return 0;
}

void qio_net_listener_set_client_func(QIONetListener *l, QIONetListenerClientFunc func,
                                      gpointer opaque, GMainContext *context)
{
    l->func = func;
    l->opaque = opaque;
    l->context = context;
    watch_all(l);
}

QIOChannelSocket *qio_net_listener_wait_client(QIONetListener *l, Error **errp)
{
    g_autofree struct pollfd *fds = g_new0(struct pollfd, l->sockets->len);

    if (!l->sockets->len) {
        error_setg(errp, "Could not wait for a client: not listening");
        return NULL;
    }
    for (;;) {
        for (guint i = 0; i < l->sockets->len; i++) {
            fds[i].fd = qio_channel_get_fd(g_ptr_array_index(l->sockets, i));
            fds[i].events = POLLIN;
        }
        if (poll(fds, l->sockets->len, -1) < 0 && errno != EINTR) {
            error_setg_errno(errp, errno, "Could not wait for a client");
            return NULL;
        }
        for (guint i = 0; i < l->sockets->len; i++) {
            Error *err = NULL;
            QIOChannelSocket *client;

            client = qio_channel_socket_accept(g_ptr_array_index(l->sockets, i), &err);
            if (client || err) {
                error_propagate(errp, err);
                return client;
            }
        }
    }
}

size_t qio_net_listener_n_sockets(QIONetListener *l)
{
    return l->sockets->len;
}

SocketAddress *qio_net_listener_get_address(QIONetListener *l, size_t i, Error **errp)
{
    return qio_channel_socket_get_local_address(g_ptr_array_index(l->sockets, i), errp);
}

void qio_net_listener_disconnect(QIONetListener *l)
{
    g_ptr_array_set_size(l->sources, 0);
    g_ptr_array_set_size(l->sockets, 0);
}
