/*
 * Migration addresses: the one place where a URI string becomes a MigrationAddress.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_ADDRESS_H
#define MIGRATION_ADDRESS_H

#include "qapi/qapi-types-migration.h"
#include "util/error.h"

/*
 * Parse tcp:HOST:PORT, unix:PATH, vsock:CID:PORT, fd:NAME, exec:COMMAND, rdma:HOST:PORT or
 * file:PATH[,offset=SIZE]. An exec command is given to /bin/sh -c, as people expect of the string
 * form. Returns a new address, or NULL with @errp set.
 */
MigrationAddress *migration_address_parse(const char *uri, Error **errp);

/*
 * The address that a command was given, by @uri or by @channels, of which exactly one must be
 * there, with exactly one channel, the main one. Returns a new address, or NULL with @errp set.
 */
MigrationAddress *migration_address_from_args(const char *uri, bool has_channels,
                                              MigrationChannelList *channels, Error **errp);

/* "file '/x/y'", "unix socket '/run/x'", "command 'cat'", for messages. Caller frees. */
char *migration_address_describe(const MigrationAddress *addr);

#endif
