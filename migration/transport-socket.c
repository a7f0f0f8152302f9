/*
 * Transport socket: TCP, UNIX and VSOCK.
 *
 * A source connects once for the main channel and once more for each RAM channel. A destination
 * accepts on the loading thread, all clients side by side: which one is the main channel is told
 * by the first four bytes, which are only looked at, so that order does not matter and a client
 * that says nothing, or not all that a RAM channel begins with, holds up nobody.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/transport.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include "io/channel-socket.h"
#include "io/sockets.h"
#include "migration/multifd-format.h"
#include "util/bswap.h"
#include "util/cutils.h"

/* Clients that have connected and not yet said what they are, and RAM channels not yet taken. */
#define CLIENTS_MAX 512
#define LISTEN_BACKLOG 256
/* For a RAM channel that the source has opened, as it says, to be seen here. */
#define EXTRA_DEADLINE_US (10 * G_USEC_PER_SEC)
#define BUFFER_BYTES (4 * MiB)

typedef enum ClientKind { CLIENT_UNKNOWN, CLIENT_MAIN, CLIENT_EXTRA } ClientKind;

typedef struct SocketState {
    GPtrArray *listeners;               /* QIOChannelSocket, non-blocking */
    GPtrArray *unknown;                 /* QIOChannel: nothing received yet */
    GQueue extras;                      /* QIOChannel: RAM channels in order of arrival */
} SocketState;

static void channel_close(gpointer p)
{
    qio_channel_close(p, NULL);
    qio_channel_unref(p);
}

static void socket_free(MigrationChannels *mc)
{
    SocketState *s = mc->state;

    g_ptr_array_free(s->listeners, TRUE);
    g_ptr_array_free(s->unknown, TRUE);
    g_queue_clear_full(&s->extras, channel_close);
    g_free(s);
}

static int socket_outgoing(MigrationChannels *mc, Error **errp)
{
    return 0;                           /* connecting may take long: see socket_dial() */
}

static QIOChannel *socket_dial(MigrationChannels *mc, Error **errp)
{
    QIOChannelSocket *sock = qio_channel_socket_connect_sync(&mc->addr->u.socket, mc->cancel_fd,
                                                             errp);
    if (sock) {
        qio_channel_socket_set_buffer_size(sock, BUFFER_BYTES);
        qio_channel_set_delay(QIO_CHANNEL(sock), true);
    }
    return QIO_CHANNEL(sock);
}

static QIOChannel *socket_dial_extra(MigrationChannels *mc, bool direct_io, Error **errp)
{
    return socket_dial(mc, errp);
}

static int socket_incoming(MigrationChannels *mc, Error **errp)
{
    SocketState *s = g_new0(SocketState, 1);

    mc->state = s;
    s->listeners = g_ptr_array_new_with_free_func(channel_close);
    s->unknown = g_ptr_array_new_with_free_func(channel_close);
    g_queue_init(&s->extras);

    g_autoptr(GPtrArray) addrs = socket_resolve(&mc->addr->u.socket, errp);
    for (unsigned i = 0; addrs && i < addrs->len; i++) {
        QIOChannelSocket *sock = qio_channel_socket_listen_sync(g_ptr_array_index(addrs, i),
                                                                LISTEN_BACKLOG, errp);
        if (!sock) {
            return -1;
        }
        g_ptr_array_add(s->listeners, sock);
        if (qio_channel_set_blocking(QIO_CHANNEL(sock), false, errp) < 0) {
            return -1;
        }
    }
    return addrs ? 0 : -1;
}

static SocketAddressList *socket_addresses(MigrationChannels *mc)
{
    SocketState *s = mc->state;
    SocketAddressList *head = NULL, **tail = &head;

    for (unsigned i = 0; i < s->listeners->len; i++) {
        SocketAddress *addr =
            qio_channel_socket_get_local_address(g_ptr_array_index(s->listeners, i), NULL);
        if (addr) {
            *tail = g_new0(SocketAddressList, 1);
            (*tail)->value = addr;
            tail = &(*tail)->next;
        }
    }
    return head;
}

/* Take every connection that waits at listener @i. */
static int accept_all(SocketState *s, unsigned i, Error **errp)
{
    Error *err = NULL;

    for (;;) {
        QIOChannelSocket *sock = qio_channel_socket_accept(g_ptr_array_index(s->listeners, i),
                                                           &err);
        if (!sock) {
            error_propagate(errp, err);
            return err ? -1 : 0;
        }
        if (s->unknown->len + s->extras.length >= CLIENTS_MAX) {
            channel_close(sock);
            continue;
        }
        qio_channel_socket_set_buffer_size(sock, BUFFER_BYTES);
        g_ptr_array_add(s->unknown, sock);
    }
}

/*
 * What a client is, by its first bytes, which stay where they are. One that ended before it said
 * anything is taken for the main channel: then loading fails with the reason.
 */
static ClientKind classify(QIOChannel *ioc)
{
    uint8_t head[MULTIFD_INIT_BYTES];
    ssize_t n = recv(qio_channel_get_fd(ioc), head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
    ClientKind kind = CLIENT_MAIN;

    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? CLIENT_UNKNOWN : CLIENT_MAIN;
    }
    if (n >= 4) {
        kind = ldl_be_p(head) == MULTIFD_MAGIC ? CLIENT_EXTRA : CLIENT_MAIN;
        if (kind == CLIENT_MAIN || n == sizeof(head)) {
            return kind;
        }
    }
    /* Not all that it introduces itself with: more will come, unless the client has ended. */
    struct pollfd pfd = { .fd = qio_channel_get_fd(ioc), .events = POLLRDHUP };
    return n == 0 || poll(&pfd, 1, 0) == 1 ? kind : CLIENT_UNKNOWN;
}

/* Sort out who has said something; a main channel is returned. */
static QIOChannel *classify_all(SocketState *s)
{
    for (unsigned i = 0; i < s->unknown->len;) {
        QIOChannel *ioc = g_ptr_array_index(s->unknown, i);
        ClientKind kind = classify(ioc);

        if (kind == CLIENT_UNKNOWN) {
            i++;
            continue;
        }
        g_ptr_array_steal_index(s->unknown, i);
        if (kind == CLIENT_MAIN) {
            return ioc;
        }
        g_queue_push_tail(&s->extras, ioc);
    }
    return NULL;
}

/*
 * One wait for anything to happen: a connection, first bytes, a cancel, or the end of the main
 * channel; at most @timeout_ms, -1 for ever. Returns 0, or -1 with @errp set.
 */
static int wait_for_clients(MigrationChannels *mc, int timeout_ms, Error **errp)
{
    SocketState *s = mc->state;
    unsigned nl = s->listeners->len, nu = s->unknown->len;
    g_autofree struct pollfd *fds = g_new0(struct pollfd, nl + nu + 2);

    for (unsigned i = 0; i < nl; i++) {
        fds[i].fd = qio_channel_get_fd(g_ptr_array_index(s->listeners, i));
        fds[i].events = POLLIN;
    }
    for (unsigned i = 0; i < nu; i++) {
        fds[nl + i].fd = qio_channel_get_fd(g_ptr_array_index(s->unknown, i));
        fds[nl + i].events = POLLIN;
    }
    fds[nl + nu] = (struct pollfd) { .fd = mc->cancel_fd, .events = POLLIN };
    fds[nl + nu + 1] = (struct pollfd) {
        .fd = mc->main ? qio_channel_get_fd(mc->main) : -1, .events = POLLRDHUP,
    };
    if (poll(fds, nl + nu + 2, timeout_ms) < 0 && errno != EINTR) {
        error_setg_errno(errp, errno, "waiting for the source at %s failed", mc->describe);
        return -1;
    }
    if (fds[nl + nu].revents) {
        error_setg(errp, "the migration was cancelled");
        return -1;
    }
    for (unsigned i = 0; i < nl; i++) {
        if (fds[i].revents && accept_all(s, i, errp) < 0) {
            return -1;
        }
    }
    /* Connections that came before the source went away have been taken by now. */
    if (fds[nl + nu + 1].revents && !s->unknown->len) {
        error_setg(errp, "the source at %s went away before it had opened all its channels",
                   mc->describe);
        return -1;
    }
    return 0;
}

/* A client that has sent part of its first bytes makes poll return at once: let it send on. */
static void breathe(SocketState *s)
{
    if (s->unknown->len) {
        g_usleep(1000);
    }
}

static bool socket_extra_left(MigrationChannels *mc)
{
    SocketState *s = mc->state;
    QIOChannel *stranger;

    for (unsigned i = 0; i < s->listeners->len; i++) {
        accept_all(s, i, NULL);
    }
    while ((stranger = classify_all(s))) {
        channel_close(stranger);
    }
    return !g_queue_is_empty(&s->extras);
}

static QIOChannel *socket_accept(MigrationChannels *mc, Error **errp)
{
    SocketState *s = mc->state;

    for (;;) {
        QIOChannel *main = classify_all(s);

        if (main) {
            if (!mc->want_extra) {
                /*
                 * Nobody else is expected: the address is free for others. RAM channels that came
                 * before are kept, for extra_left to tell of.
                 */
                socket_extra_left(mc);
                g_ptr_array_set_size(s->listeners, 0);
                g_ptr_array_set_size(s->unknown, 0);
            }
            return main;
        }
        if (wait_for_clients(mc, -1, errp) < 0) {
            return NULL;
        }
        breathe(s);
    }
}

static QIOChannel *socket_accept_extra(MigrationChannels *mc, bool direct_io, Error **errp)
{
    SocketState *s = mc->state;
    int64_t deadline = g_get_monotonic_time() + EXTRA_DEADLINE_US;

    for (;;) {
        QIOChannel *stranger = classify_all(s);
        int64_t left_us = deadline - g_get_monotonic_time();

        if (stranger) {
            channel_close(stranger);
            continue;
        }
        if (!g_queue_is_empty(&s->extras)) {
            return g_queue_pop_head(&s->extras);
        }
        if (left_us < 0) {
            error_setg(errp, "the source at %s has not opened as many channels as parameter "
                       "'multifd-channels' says here", mc->describe);
            return NULL;
        }
        if (wait_for_clients(mc, left_us / 1000 + 1, errp) < 0) {
            return NULL;
        }
        breathe(s);
    }
}

const MigrationTransport transport_socket = {
    .name = "socket",
    .several = true,
    .bidirectional = true,
    .outgoing = socket_outgoing,
    .incoming = socket_incoming,
    .connect = socket_dial,
    .open_extra = socket_dial_extra,
    .accept = socket_accept,
    .accept_extra = socket_accept_extra,
    .extra_left = socket_extra_left,
    .addresses = socket_addresses,
    .free = socket_free,
};
