/*
 * The source's side of a migration, as the rest of the program sees it. The commands themselves are
 * the QMP handlers (qapi/migration.json).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MIGRATION_H
#define MIGRATION_MIGRATION_H

#include <stdbool.h>

/* Register the sections that every machine has (RAM, globalstate). Once, before devices. */
void migration_init(void);
/* Whether an outgoing migration runs. Main thread. */
bool migration_is_running(void);
/*
 * At exit: cancel what runs, both ways, and join its threads. Main thread, big lock held; it is
 * dropped while waiting.
 */
void migration_shutdown(void);

#endif
