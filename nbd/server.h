/*
 * The NBD server: listens, takes connections, and knows the exports by their names.
 *
 * There is at most one in a process. Everything here: main thread, under the big lock where there
 * is one. Connections are made and shake hands there too; once a client has chosen its export, the
 * connection is served in one of the export's iothreads, or, when it has none, in a thread of the
 * server.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include <stdbool.h>

#include "qapi/qapi-types-sockets.h"
#include "util/error.h"

#define NBD_DEFAULT_HANDSHAKE_SECONDS 10
#define NBD_DEFAULT_MAX_CONNECTIONS 100
#define NBD_THREADS_MAX 64

typedef struct NbdServerConfig {
    const SocketAddress *addr;          /* NULL: listen_fds */
    const int *listen_fds;              /* listening sockets, the server's from now on */
    unsigned n_listen_fds;
    unsigned handshake_max_seconds;     /* 0: no limit */
    unsigned max_connections;           /* 0: no limit; those beyond it wait to be accepted */
    unsigned threads;                   /* that serve connections; 0: as many as seems good */
    /* A connection ended; @served: it had got as far as an export. May be NULL. */
    void (*client_left)(bool served, unsigned remaining, void *opaque);
    /* A line about a connection, for people who watch; may be NULL. */
    void (*log)(const char *message, void *opaque);
    void *opaque;
} NbdServerConfig;

/* At start-up: makes the export type known. */
void nbd_export_register(void);

/* 0, or -1 with @errp set. @config is not kept. */
int nbd_server_start(const NbdServerConfig *config, Error **errp);
/*
 * Close the listening sockets and all connections, remove all exports. Waits for requests under
 * way.
 */
void nbd_server_stop(void);
bool nbd_server_is_running(void);
/*
 * Where it listens, the @i-th address, with the real port; the caller's. NULL: there are no more.
 */
SocketAddress *nbd_server_address(unsigned i);

#endif
