/*
 * RAM through a migration without a machine: blocks, guests (threads that write them), and the
 * calls that the migration core makes. It stands in for what RAM asks of the rest of a migration:
 * the channels beside the main one, the live parameters, the vCPU throttle.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_UNIT_RAM_HARNESS_H
#define TESTS_UNIT_RAM_HARNESS_H

#include "migration/context.h"
#include "migration/ram.h"

/* The channels of a migration under test. */
struct MigrationChannels {
    char *path;                 /* a file: opened again for each extra channel */
    uint64_t offset;            /* where the stream begins in it */
    GPtrArray *extra;           /* of QIOChannel: handed out in order when there is no path */
    unsigned next_extra;
    int fail_extra;             /* the n-th extra channel (from 1) cannot be opened; 0: none */
};

typedef struct RamHarness {
    MigrationContext ctx;
    struct MigrationChannels channels;
    QIOChannel *main;
    /* Before the machine is stopped for the end, and before each iteration; may be NULL. */
    void (*stop_guest)(struct RamHarness *h);
    void (*before_turn)(struct RamHarness *h, unsigned turn);
    void *opaque;
    unsigned turns;
    unsigned min_passes;        /* syncs before the end, 1 when 0 */
    int64_t budget;             /* bytes a turn; 0: no limit */
} RamHarness;

/* Default options; the main channel is a new memory channel. */
RamHarness *ram_harness_new(void);
/* The main channel is the file @path (created), and so are the extra ones; @path is copied. */
RamHarness *ram_harness_new_file(const char *path, uint64_t offset);
void ram_harness_free(RamHarness *h);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RamHarness, ram_harness_free)

/* Let @n memory channels be there for multifd; both sides use the same ones. */
void ram_harness_add_extra(RamHarness *h, unsigned n);

/* The whole of a save and of a load, with cleanup, also on error. */
int ram_harness_save(RamHarness *h, Error **errp);
int ram_harness_load(RamHarness *h, Error **errp);
/* All channels back to their beginnings. Part of load. */
void ram_harness_rewind(RamHarness *h);
/* What is in a memory main channel, to be looked at or spoiled; and a new content for it. */
GByteArray *ram_harness_stream(RamHarness *h);
void ram_harness_set_stream(RamHarness *h, const uint8_t *data, size_t len);

/* Memory -------------------------------------------------------------------------------------- */

typedef struct RamSnapshot RamSnapshot;

/* What all blocks hold. */
RamSnapshot *ram_snapshot_take(void);
/* Fails the test with block and offset of the first difference. */
void ram_snapshot_compare(const RamSnapshot *snapshot);
void ram_snapshot_free(RamSnapshot *snapshot);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RamSnapshot, ram_snapshot_free)

/* Pages of random bytes, text and zeroes, and memory never touched, by @seed. */
void ram_fill(RAMBlock *block, uint32_t seed);
/* Every block again, fresh: same names and sizes, private memory, never touched. */
void ram_wipe(void);
void ram_free_all(void);
/* Pages that exist, of all blocks. */
uint64_t ram_populated_pages(void);

/* Threads that write random pages (also with zeroes) until they are stopped. */
typedef struct RamWriters RamWriters;
RamWriters *ram_writers_start(unsigned threads);
void ram_writers_stop(RamWriters *writers);

/* What the throttle was last set to. */
extern int ram_harness_throttle;

#endif
