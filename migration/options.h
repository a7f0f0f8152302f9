/*
 * Capabilities and parameters: what they are, what they may be, and what is in force.
 *
 * There is one set that migrate-set-capabilities and migrate-set-parameters change, and, while a
 * migration runs, an effective one: a copy with the command's config applied. Aliases (mapped-ram,
 * direct-io) are resolved here and nowhere else: everybody behind looks at the canonical
 * MIGRATION_CAPABILITY_DIRECT_MAPPED and MIGRATION_CAPABILITY_BYPASS_CACHE.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_OPTIONS_H
#define MIGRATION_OPTIONS_H

#include <stdbool.h>
#include "qapi/qapi-types-migration.h"
#include "util/error.h"

typedef struct MigrationOptions {
    bool caps[MIGRATION_CAPABILITY__MAX];   /* canonical ones only */
    MigrationParameters params;             /* every has_ is true; scalars only */
    bool max_bandwidth_set;                 /* by a person; else the transport's default holds */
} MigrationOptions;

/* Whether the capability @cap is on. */
static inline bool migration_cap(const MigrationOptions *opts, MigrationCapability cap)
{
    return opts->caps[cap];
}

/* The persistent set. Under the big lock. */
const MigrationOptions *migration_options_global(void);

/*
 * The set for one migration: the persistent one with @config (may be NULL) applied, checked.
 * Returns 0, or -1 with @errp set. @incoming: some combinations differ between the two sides.
 */
int migration_options_resolve(MigrationConfig *config, bool incoming, MigrationOptions *opts,
                              Error **errp);

/*
 * Bytes a second to send at most, 0 for no limit, of the migration that runs: read anew in each
 * turn, since migrate-set-parameters may change it. Any thread; the same for the others below.
 */
uint64_t migration_live_max_bandwidth(void);
/* Whether a person set max-bandwidth; else a file has no limit. */
bool migration_live_max_bandwidth_set(void);
uint64_t migration_live_downtime_limit_ms(void);
uint64_t migration_live_switchover_bandwidth(void);
unsigned migration_live_throttle_trigger(void);
unsigned migration_live_throttle_initial(void);
unsigned migration_live_throttle_increment(void);
unsigned migration_live_throttle_max(void);
bool migration_live_throttle_tailslow(void);

/* A migration begins with @opts (copied) or ends (NULL): what may be set changes. */
void migration_options_begin(const MigrationOptions *opts);
void migration_options_end(void);

#endif
