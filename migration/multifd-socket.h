/*
 * RAM over several connections, in QEMU's multifd packets: the sink and the source.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MULTIFD_SOCKET_H
#define MIGRATION_MULTIFD_SOCKET_H

#include "migration/ram-load.h"
#include "migration/ram.h"

/* Memory over the multifd channels of @ctx, a socket. Connects nothing yet. */
RamSink *multifd_send_sink_new(MigrationContext *ctx, Error **errp);
RamSource *multifd_recv_source_new(MigrationContext *ctx, Error **errp);

#endif
