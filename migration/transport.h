/*
 * The inside of MigrationChannels: what a transport implements. Its functions have the contracts of
 * their namesakes in channels.h, less what channels.c does for all: checking capabilities, keeping
 * track of what is open, and shutting it down.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_TRANSPORT_H
#define MIGRATION_TRANSPORT_H

#include "migration/channels.h"
#include "util/mutex.h"

typedef struct MigrationTransport {
    const char *name;                   /* for messages: "file", "exec" */
    bool seekable;                      /* pages can be placed at offsets */
    bool several;                       /* more than one channel can be had */
    bool bidirectional;

    /* Parse no strings; open what can be opened at once. Sets mc->state. */
    int (*outgoing)(MigrationChannels *mc, Error **errp);
    int (*incoming)(MigrationChannels *mc, Error **errp);
    QIOChannel *(*connect)(MigrationChannels *mc, Error **errp);
    QIOChannel *(*open_extra)(MigrationChannels *mc, bool direct_io, Error **errp);
    QIOChannel *(*accept)(MigrationChannels *mc, Error **errp);
    QIOChannel *(*accept_extra)(MigrationChannels *mc, bool direct_io, Error **errp);
    bool (*extra_left)(MigrationChannels *mc);
    SocketAddressList *(*addresses)(MigrationChannels *mc);
    int (*flush)(MigrationChannels *mc, Error **errp);
    int (*finish)(MigrationChannels *mc, Error **errp);
    void (*free)(MigrationChannels *mc);
} MigrationTransport;

struct MigrationChannels {
    const MigrationTransport *transport;
    MigrationAddress *addr;
    char *describe;
    bool incoming;
    bool want_extra;                    /* multifd: more than the main channel will come */
    bool want_direct;                   /* bypass-cache: RAM channels have O_DIRECT */
    int fd; /* of an fd: address, owned until a channel takes it; or -1 */
    int cancel_fd;                      /* an eventfd, readable once shut down */
    QIOChannel *main;                   /* owned */
    void *state;                        /* the transport's own */

    Mutex lock;
    bool shut;
    GPtrArray *open;                    /* every channel that was made and not yet freed */
};

extern const MigrationTransport transport_socket, transport_stream_fd, transport_exec,
    transport_file, transport_seekable_fd;

#endif
