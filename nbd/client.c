/*
 * The life of a connection: handshake in the main context, transmission in the context that serves
 * its export, and the end back in the main thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/client.h"

#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>

/* UNIX sockets: room for a long reply, so that it needs one system call and one wake-up. */
#define SOCKET_BUFFER_BYTES (1024 * 1024)

void nbd_client_log(NbdClient *c, const char *fmt, ...)
{
    g_autofree char *text = NULL, *line = NULL;
    va_list ap;

    if (!nbd_server_logs()) {
        return;
    }
    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    line = g_strdup_printf("client %s: %s", c->peer, text);
    nbd_server_log(line);
}

void nbd_client_progress(NbdClient *c)
{
    if (c->receiver_waits) {
        c->receiver_waits = false;
        /*
         * From the loop, not at once: it may end, and the client with it, while our caller still
         * uses it.
         */
        aio_co_schedule(c->ctx, c->receiver);
    }
}

static void handshake_ends(void *opaque)
{
    NbdClient *c = opaque;

    nbd_client_log(c, "the handshake took too long");
    shutdown(c->fd, SHUT_RDWR);
}

static void gone(void *opaque)
{
    nbd_server_client_gone(opaque);
}

static void coroutine_fn move_to(NbdClient *c, AioContext *ctx)
{
    if (ctx != c->ctx) {
        aio_forget_fd(c->ctx, c->fd);
        c->ctx = ctx;
        aio_co_reschedule_self(ctx);
    }
}

static void coroutine_fn run(void *opaque)
{
    NbdClient *c = opaque;
    bool chosen = nbd_handshake(c);

    aio_timer_free(c->deadline);
    c->deadline = NULL;
    if (chosen) {
        nbd_client_log(c, "uses export '%s'", c->exp->name);
        move_to(c, nbd_server_place_client(c));
        nbd_transmission(c);
    }
    nbd_client_log(c, "has left");
    aio_forget_fd(c->ctx, c->fd);
    aio_bh_schedule_oneshot(aio_context_main(), gone, c);
}

static char *describe_peer(QIOChannelSocket *ioc)
{
    static unsigned number;
    SocketAddress *addr = qio_channel_socket_get_remote_address(ioc, NULL);
    g_autofree char *text = addr ? socket_describe(addr) : NULL;

    number++;
    qapi_free_SocketAddress(addr);
    return text && *text ? g_strdup_printf("%u (%s)", number, text) : g_strdup_printf("%u", number);
}

NbdClient *nbd_client_new(QIOChannelSocket *ioc, unsigned handshake_max_seconds)
{
    NbdClient *c = g_new0(NbdClient, 1);
    int yes = 1;

    qio_channel_ref(QIO_CHANNEL(ioc));
    qio_channel_set_delay(QIO_CHANNEL(ioc), false);
    qio_channel_socket_set_buffer_size(ioc, SOCKET_BUFFER_BYTES);
    c->ioc = ioc;
    c->fd = qio_channel_get_fd(QIO_CHANNEL(ioc));
    /* A client whose host is gone frees its place some time. */
    setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
    c->peer = describe_peer(ioc);
    c->in_server.data = c;
    co_mutex_init(&c->long_work);
    c->ctx = aio_context_main();
    c->ahead = g_malloc(NBD_READ_AHEAD_BYTES);
    c->ahead_want = NBD_READ_AHEAD_BYTES;
    if (handshake_max_seconds > 0) {
        c->deadline = aio_timer_new(c->ctx, handshake_ends, c);
        aio_timer_mod(c->deadline, aio_clock_ns() + handshake_max_seconds * INT64_C(1000000000));
    }
    c->receiver = coroutine_create(run, c);
    nbd_client_log(c, "has connected");
    return c;
}

void nbd_client_start(NbdClient *c)
{
    aio_co_schedule(c->ctx, c->receiver);
}

void nbd_client_disconnect(NbdClient *c)
{
    shutdown(c->fd, SHUT_RDWR);
}

bool nbd_client_is_gone(const NbdClient *c)
{
    /* A socket of which both directions are shut says so, whoever has shut them. */
    struct pollfd p = { .fd = c->fd };

    return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR);
}

void nbd_client_free(NbdClient *c)
{
    g_assert(c->in_flight == 0 && !c->queue);
    nbd_work_free_spare(c);
    nbd_buffers_free(&c->buffers);
    nbd_meta_clear(&c->meta);
    qio_channel_unref(QIO_CHANNEL(c->ioc));
    g_free(c->ahead);
    g_free(c->peer);
    g_free(c);
}
