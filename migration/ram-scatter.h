/*
 * Reading page records of the main stream straight into guest memory, by guessing.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RAM_SCATTER_H
#define MIGRATION_RAM_SCATTER_H

#include "migration/migration-file.h"
#include "migration/ram-target.h"

typedef struct RamScatter RamScatter;

/* Without a guess yet. */
RamScatter *ram_scatter_new(void);
void ram_scatter_free(RamScatter *scatter);

/*
 * ram_scatter_read:
 * @target: the block that the records so far were about
 * @next: the page after the one that the last record held
 * @f: the stream, at the beginning of a record; less than a whole one is in its buffer
 *
 * Read records of pages that follow one another, for as long as they do. Whatever else comes is
 * left in
 * @f to be looked at by the ordinary way. The target is told of what was read.
 *
 * Returns: the number of pages, 0 when there was nothing to guess, -1 with @errp set.
 */
int64_t ram_scatter_read(RamScatter *scatter, RamTarget *target, uint64_t next, MigrationFile *f,
                         Error **errp);

#endif
