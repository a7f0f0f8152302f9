/*
 * The destination's side of a migration: waiting, loading on a thread of its own, and the answers
 * on the return path.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_INCOMING_H
#define MIGRATION_INCOMING_H

#include "migration/context.h"

/*
 * What -incoming says: a URI, a JSON channel (object or list of objects), or "defer", which
 * leaves it to migrate-incoming. The machine is in run state inmigrate already. Starts to listen or
 * to load; what fails later ends the process with the reason on stderr and a status other than 0.
 * Main thread, big lock held. Returns 0, or -1 with @errp set.
 */
int incoming_start_from_cmdline(const char *arg, Error **errp);

/* Whether a machine is expected or arriving; the monitors refuse some commands meanwhile. */
bool incoming_in_progress(void);

/* Fill what query-migrate tells of a destination; nothing when none was started. */
void incoming_fill_info(MigrationInfo *info);
/* Cancel: end the load; the process stays or ends as for any other failure. Main thread. */
void incoming_cancel(void);
/* At exit: end and join the loading thread. */
void incoming_shutdown(void);

/* For loadvm: the source opened the return path, or sent a ping. Loading thread. */
int incoming_open_return_path(MigrationContext *ctx, Error **errp);
int incoming_send_pong(uint32_t value, Error **errp);

#endif
