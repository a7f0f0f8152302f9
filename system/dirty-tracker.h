/*
 * Dirty trackers: which pages were written since we last asked.
 *
 * Kinds: "kvm" (the accelerator's dirty log; accel/kvm/) and "pagemap" (asynchronous userfaultfd
 * write protection and the PAGEMAP_SCAN ioctl; every writer in the process; system/). The promise
 * of both: a write that happens after a sync began and before the next one begins is reported by
 * one of the two at the latest, and the page may be read any time after the sync that reports it:
 * if it is written again after that, a later sync reports it again.
 *
 * start, sync and stop are called by one thread at a time (the migration thread), without the big
 * lock unless a class says otherwise in its comment. One tracker runs at a time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_DIRTY_TRACKER_H
#define SYSTEM_DIRTY_TRACKER_H

#include "system/ramblock.h"

typedef struct DirtyTracker DirtyTracker;

typedef struct DirtyTrackerClass {
    const char *name;
    /* Start for all RAMBlocks. Pages written from now on are dirty; none is at first. */
    DirtyTracker *(*start)(Error **errp);
    /*
     * Set in @bitmap (one bit a page of @block, at least block->pages bits) the pages written
     * since the last sync, and watch them anew. Bits already set stay.
     * Returns the number of bits newly set, or -1.
     */
    int64_t (*sync)(DirtyTracker *tracker, RAMBlock *block, unsigned long *bitmap, Error **errp);
    void (*stop)(DirtyTracker *tracker);
} DirtyTrackerClass;

struct DirtyTracker {
    const DirtyTrackerClass *klass;
};

/*
 * Start the machine's tracker: the accelerator's own when it has one and was not told otherwise,
 * else pagemap. Sets up RAMBlock.process_dirty.
 */
DirtyTracker *dirty_tracker_start(Error **errp);
int64_t dirty_tracker_sync(DirtyTracker *tracker, RAMBlock *block, unsigned long *bitmap,
                           Error **errp);
/* Stops and frees; NULL is allowed. */
void dirty_tracker_stop(DirtyTracker *tracker);

/* Choose by name ("pagemap", "kvm") for the next start; NULL returns to the default. */
int dirty_tracker_select(const char *name, Error **errp);
/* The accelerator offers its class; at most one besides pagemap. */
void dirty_tracker_register(const DirtyTrackerClass *klass);
extern const DirtyTrackerClass dirty_tracker_pagemap;

#endif
