/*
 * Listening, connections, and the threads that serve them.
 *
 * At the limit of connections the server stops accepting: who comes then waits in the backlog of
 * the listening socket until somebody leaves.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/server.h"

#include <string.h>
#include <unistd.h>

#include "io/net-listener.h"
#include "nbd/client.h"

#define BACKLOG 128
/*
 * Threads when nobody says how many: enough for a fast disk, and no more than there are processors.
 */
#define THREADS_DEFAULT_MAX 4
/* How long a thread looks for the next request before it sleeps; it adapts below that. */
#define POLL_MAX_NS 200000

typedef struct Thread {
    IOThread *iothread;
    unsigned n_clients;
} Thread;

typedef struct NbdServer {
    NbdServerConfig config;             /* without the addresses */
    QIONetListener *listener;
    bool accepting;
    GQueue clients;                     /* of NbdClient, by in_server */
    Thread *threads;
    unsigned n_threads;
} NbdServer;

static NbdServer *server;

bool nbd_server_is_running(void)
{
    return server;
}

bool nbd_server_is_single(void)
{
    return server->config.max_connections == 1;
}

bool nbd_server_logs(void)
{
    return server->config.log;
}

void nbd_server_log(const char *message)
{
    server->config.log(message, server->config.opaque);
}

SocketAddress *nbd_server_address(unsigned i)
{
    return i < qio_net_listener_n_sockets(server->listener)
               ? qio_net_listener_get_address(server->listener, i, NULL) : NULL;
}

/*
 * Connections
 * -----------------------------------------------------------------------------------------
 */

static void update_accepting(void);

static void accept_client(QIONetListener *listener, QIOChannelSocket *ioc, gpointer opaque)
{
    Error *err = NULL;
    NbdClient *c;

    if (qio_channel_set_blocking(QIO_CHANNEL(ioc), false, &err) < 0) {
        error_report_err(err);
        return;
    }
    c = nbd_client_new(ioc, server->config.handshake_max_seconds);
    g_queue_push_tail_link(&server->clients, &c->in_server);
    update_accepting();
    nbd_client_start(c);
}

static void update_accepting(void)
{
    unsigned max = server->config.max_connections;
    bool accepting = server->listener && (max == 0 || server->clients.length < max);

    if (accepting != server->accepting) {
        server->accepting = accepting;
        if (server->listener) {
            qio_net_listener_set_client_func(server->listener, accepting ? accept_client : NULL,
                                             NULL, NULL);
        }
    }
}

AioContext *nbd_server_place_client(NbdClient *c)
{
    NbdExport *exp = c->exp;
    unsigned best = 0;

    if (exp->common.n_iothreads > 0) {
        return iothread_context(
            exp->common.iothreads[exp->next_thread++ % exp->common.n_iothreads]);
    }
    for (unsigned i = 1; i < server->n_threads; i++) {
        if (server->threads[i].n_clients < server->threads[best].n_clients) {
            best = i;
        }
    }
    server->threads[best].n_clients++;
    c->thread = best + 1;
    return iothread_context(server->threads[best].iothread);
}

void nbd_server_client_gone(NbdClient *c)
{
    NbdExport *exp = c->exp;

    g_queue_unlink(&server->clients, &c->in_server);
    if (c->thread > 0) {
        server->threads[c->thread - 1].n_clients--;
    }
    nbd_client_free(c);
    if (exp) {
        block_export_unref(&exp->common);
    }
    update_accepting();
    if (server->config.client_left) {
        server->config.client_left(exp, server->clients.length, server->config.opaque);
    }
    aio_wait_kick();
}

void nbd_server_disconnect_clients(const NbdExport *exp)
{
    for (GList *l = server->clients.head; l; l = l->next) {
        NbdClient *c = l->data;

        if (!exp || c->exp == exp) {
            nbd_client_disconnect(c);
        }
    }
}

/*
 * Start and stop
 * --------------------------------------------------------------------------------------
 */

static int listen_all(const NbdServerConfig *config, Error **errp)
{
    server->listener = qio_net_listener_new();
    qio_net_listener_set_name(server->listener, "nbd-listener");
    for (unsigned i = 0; i < config->n_listen_fds; i++) {
        QIOChannelSocket *s = qio_channel_socket_new_fd(config->listen_fds[i], errp);

        if (!s) {
            return -1;
        }
        qio_net_listener_add(server->listener, s);
        qio_channel_unref(QIO_CHANNEL(s));
    }
    return config->addr ? qio_net_listener_open_sync(server->listener, config->addr, BACKLOG, errp)
                        : 0;
}

static int start_threads(unsigned wanted, Error **errp)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = wanted > 0 ? wanted : (unsigned)CLAMP(processors, 1, THREADS_DEFAULT_MAX);

    server->threads = g_new0(Thread, n);
    while (server->n_threads < n) {
        /* A name that no object can have. */
        g_autofree char *id = g_strdup_printf("#nbd%u", server->n_threads);
        IOThread *iothread = iothread_new(id, POLL_MAX_NS, errp);

        if (!iothread) {
            return -1;
        }
        aio_context_set_may_block(iothread_context(iothread), true);
        iothread_get(iothread);
        server->threads[server->n_threads++].iothread = iothread;
    }
    return 0;
}

static void free_server(void)
{
    for (unsigned i = 0; i < server->n_threads; i++) {
        iothread_put(server->threads[i].iothread);
        iothread_free(server->threads[i].iothread);
    }
    g_free(server->threads);
    qio_net_listener_free(server->listener);
    g_free(server);
    server = NULL;
}

int nbd_server_start(const NbdServerConfig *config, Error **errp)
{
    if (server) {
        error_setg(errp, "NBD server already running");
        return -1;
    }
    server = g_new0(NbdServer, 1);
    server->config = *config;
    server->config.addr = NULL;
    server->config.listen_fds = NULL;
    g_queue_init(&server->clients);
    if (listen_all(config, errp) < 0 || start_threads(config->threads, errp) < 0) {
        free_server();
        return -1;
    }
    update_accepting();
    return 0;
}

void nbd_server_stop(void)
{
    if (!server) {
        return;
    }
    qio_net_listener_free(server->listener);
    server->listener = NULL;
    server->accepting = false;
    nbd_server_disconnect_clients(NULL);
    block_export_close_all_of(BLOCK_EXPORT_TYPE_NBD);
    AIO_WAIT_WHILE(server->clients.length > 0);
    free_server();
}
