/*
 * What the files of BlockBackend share: block-backend.c (life, root, names, devices) and blk-io.c
 * (requests).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_BLOCK_BACKEND_INTERNAL_H
#define BLOCK_BLOCK_BACKEND_INTERNAL_H

#include "block/block-backend.h"
#include "block/driver.h"

struct BlockBackend {
    int refcnt;
    char *name;                         /* NULL: none */
    BdrvChild *root;                    /* NULL: empty */
    uint64_t perm, shared_perm;
    bool disable_perm, allow_context_change, write_cache;

    const BlockDevOps *ops;
    void *ops_opaque;
    void *dev;                          /* the device that holds it; NULL: none does */
    char *dev_id, *dev_path;

    BlockdevOnError on_read_error, on_write_error;
    bool iostatus_enabled;
    int iostatus;                       /* BlockDeviceIoStatus; atomic */
    BlockAcctStats stats;

    unsigned in_flight;                 /* atomic */
    unsigned quiesce_counter;           /* atomic to read; main thread writes, with queue_lock */
    bool disable_queuing;               /* atomic */
    Mutex queue_lock;
    GSList *queued; /* of Coroutine: requests that wait for the end of a drain */

    GList in_all;
};

#endif
