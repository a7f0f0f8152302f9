/*
 * Who owns the disks: what a migration does about them at the moment when the machine changes
 * hands.
 *
 * All under the big lock, with the machine stopped. block/graph.h has the rules of nodes that are
 * inactive.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_BLOCK_SWITCHOVER_H
#define MIGRATION_BLOCK_SWITCHOVER_H

#include <stdbool.h>
#include "util/error.h"

/* The source: write everything out and give the disks up. On failure they are still ours. */
int block_give_up(Error **errp);
/*
 * Take the disks: the destination, when the source has let go of the machine, or a source whose
 * migration failed after all. On failure somebody else has them.
 */
int block_take(Error **errp);

#endif
