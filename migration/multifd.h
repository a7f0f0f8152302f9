/*
 * MultifdPool: threads that work on runs of pages, each with a channel of its own.
 *
 * The migration thread (or the loading thread) hands out jobs; what a job does is in a
 * MultifdOps: send pages in packets, write them at their offsets, read them from there. A pool may
 * also have no threads at all: then the caller does each job itself, with the one channel there is.
 *
 * The first error of any thread is the pool's: it stops all others, wakes those who wait in their
 * channels, and is what every later call returns.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MULTIFD_H
#define MIGRATION_MULTIFD_H

#include "migration/context.h"
#include "system/ramblock.h"

typedef struct MultifdPool MultifdPool;

typedef struct MultifdWorker {
    MultifdPool *pool;
    MigrationContext *ctx;
    unsigned id;                /* of the channel, from 0 */
    QIOChannel *ioc;
    void *opaque;               /* as given to multifd_pool_new() */
    void *state;                /* the ops' own */
    uint64_t *bytes;            /* counter to add what was transferred to, atomic */
} MultifdWorker;

typedef struct MultifdJob {
    void *block;                /* the ops know what it is */
    uint64_t first, pages;
} MultifdJob;

/* Called in the worker's own thread. Functions return 0, or -1 with @errp set. */
typedef struct MultifdOps {
    const char *name;           /* of the threads */
    int (*start)(MultifdWorker *worker, Error **errp);
    int (*job)(MultifdWorker *worker, const MultifdJob *job, Error **errp);
    /* All jobs handed out before must be done on return. */
    int (*sync)(MultifdWorker *worker, Error **errp);
    /* Free state; also after start() failed. */
    void (*end)(MultifdWorker *worker);
} MultifdOps;

/*
 * multifd_pool_new:
 * @channels: of QIOChannel, 1 to 255; a reference to each is taken
 * @threads: false: no threads, one channel
 *
 * Threads are started; start() may still fail, which later calls report.
 */
MultifdPool *multifd_pool_new(MigrationContext *ctx, const MultifdOps *ops, void *opaque,
                              const GPtrArray *channels, bool threads, Error **errp);
/* Ends and joins all threads; jobs that were not begun are dropped. NULL is allowed. */
void multifd_pool_free(MultifdPool *pool);

/* How many channels, and so threads, it has. */
unsigned multifd_pool_channels(const MultifdPool *pool);

#define MULTIFD_ANY_CHANNEL (-1)
/* Hand out a job to @channel, or to who has least to do. Waits while that one has enough to do. */
int multifd_pool_submit(MultifdPool *pool, int channel, const MultifdJob *job, Error **errp);
/* Wait until every job is done, and sync() of every worker. */
int multifd_pool_sync(MultifdPool *pool, Error **errp);

/*
 * Open the extra channels of a migration: @n of them, each a reference in the array. @direct_io as
 * in channels.h.
 */
GPtrArray *multifd_open_channels(MigrationContext *ctx, unsigned n, bool direct_io, Error **errp);

#endif
