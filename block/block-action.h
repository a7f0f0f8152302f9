/*
 * Actions: what commands that can be parts of a transaction are made of. A command alone is a
 * transaction of one action, so there is one implementation.
 *
 * Main thread, outside of coroutines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_BLOCK_ACTION_H
#define BLOCK_BLOCK_ACTION_H

#include "block/blockdev.h"
#include "qapi/qapi-types-transaction.h"

typedef struct BlockActionOps {
    size_t state_bytes;         /* of what the functions get as @state, zeroed */
    /*
     * What must happen while requests run: images are made and opened. 0, or -1 with @errp set and
     * nothing left behind. NULL: nothing.
     */
    int (*open)(void *state, const TransactionAction *action, Error **errp);
    /* Everything is drained. 0, or -1 with @errp set; then only clean follows. */
    int (*prepare)(void *state, const TransactionAction *action, Error **errp);
    /*
     * All have been prepared, or (abort) not all could be: in the opposite order. NULL: nothing to
     * do.
     */
    void (*commit)(void *state);
    void (*abort)(void *state);
    /* After either, for all whose open was called and succeeded; drained no more. */
    void (*clean)(void *state);
} BlockActionOps;

/* blockdev-bitmaps.c */
extern const BlockActionOps action_bitmap_add, action_bitmap_remove, action_bitmap_clear,
    action_bitmap_enable, action_bitmap_disable, action_bitmap_merge;
/* blockdev-snapshot.c */
extern const BlockActionOps action_snapshot, action_snapshot_sync;

/* Do all of them, or none. 0, or -1 with @errp set. */
int block_transaction(const TransactionActionList *list, Error **errp);
/* One. */
void block_action_run(const TransactionAction *action, Error **errp);

#endif
