/*
 * MigrationChannels: the connections of one migration, and the transports that make them.
 *
 * A transport turns a MigrationAddress into channels: one main channel, and for RAM as many more to
 * the same place as multifd wants. Transports are socket (with fd: for streams), exec, file (with
 * fd: for regular files and block devices) and rdma, each a file transport-*.c and a line in
 * channels.c. Everything behind takes channels and never looks at the address.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_CHANNELS_H
#define MIGRATION_CHANNELS_H

#include "io/channel.h"
#include "migration/options.h"

typedef struct MigrationChannels MigrationChannels;

/*
 * Connect to or open @addr as a source. @check is done before anything is touched: capabilities
 * that the transport cannot serve are refused by name. Files and descriptors are opened here;
 * sockets are connected by migration_channels_connect(), which may take long. Under the big lock.
 * Takes a copy of @addr.
 */
MigrationChannels *migration_channels_new_outgoing(const MigrationAddress *addr,
                                                   const MigrationOptions *opts, Error **errp);
/* Migration thread: make the main channel. Returns a borrowed reference, or NULL with @errp. */
QIOChannel *migration_channels_connect(MigrationChannels *mc, Error **errp);
/*
 * Migration thread: one more channel to the same place. @direct_io: opened with O_DIRECT (files).
 * The caller owns the reference.
 */
QIOChannel *migration_channels_open_extra(MigrationChannels *mc, bool direct_io, Error **errp);

/* Listen at or open @addr as a destination. Under the big lock. */
MigrationChannels *migration_channels_new_incoming(const MigrationAddress *addr,
                                                   const MigrationOptions *opts, Error **errp);
/* Loading thread: wait for the main channel. Borrowed. */
QIOChannel *migration_channels_accept(MigrationChannels *mc, Error **errp);
/*
 * Loading thread: one more channel from the same source; on sockets the next one that connected,
 * with nothing read from it yet; files are opened again. A source opens all its channels before it
 * says so on the main one, so this does not wait long for another. The caller owns the reference.
 */
QIOChannel *migration_channels_accept_extra(MigrationChannels *mc, bool direct_io, Error **errp);
/* Loading thread: whether the source opened one more, which nobody has taken. */
bool migration_channels_extra_left(MigrationChannels *mc);
/* Where a destination listens; NULL when it does not. Caller frees with qapi_free_. */
SocketAddressList *migration_channels_addresses(MigrationChannels *mc);

/* Whether pages can be placed at offsets (a regular file or block device). */
bool migration_channels_seekable(const MigrationChannels *mc);
/* Whether the destination can answer on the main channel. */
bool migration_channels_bidirectional(const MigrationChannels *mc);
/* For messages: "file '/x/y'", "unix socket '/run/x'". */
const char *migration_channels_describe(const MigrationChannels *mc);

/*
 * Source: bytes that were written and that the kernel still holds, as far as it says: sockets. They
 * have yet to be sent before anything that is written now. Any thread.
 */
uint64_t migration_channels_queued(MigrationChannels *mc);

/*
 * Source: make durable what a file holds so far, so that little of that is left for the end.
 * Nothing for the rest. Migration thread.
 */
int migration_channels_flush(MigrationChannels *mc, Error **errp);
/*
 * Source, at the end: make a file's data, size and directory entry durable (nothing for the rest);
 * for exec wait for the command and take its status. Migration thread.
 */
int migration_channels_finish(MigrationChannels *mc, Error **errp);
/* Any thread: fail and wake everything that waits on these channels, now and later. */
void migration_channels_shutdown(MigrationChannels *mc);
/*
 * Close all channels that were made, on the migration's own thread: a command that was not shut
 * down before is waited for, one that was has a second to end.
 */
void migration_channels_close(MigrationChannels *mc);
/* Close and free; NULL is allowed. */
void migration_channels_free(MigrationChannels *mc);

#endif
