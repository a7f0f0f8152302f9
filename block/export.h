/*
 * Block exports: nodes that are usable outside of the process.
 *
 * An export holds a node by a BlockBackend until it is removed. What it speaks is the business of
 * its BlockExportDriver (nbd/export.c). It lives as long as it has references: one from
 * block_export_add() until it is removed, others from whoever is still at work with it, such as a
 * client. When the last one goes, so does the export, and BLOCK_EXPORT_DELETED tells it.
 *
 * Everything here: main thread, under the big lock where there is one, outside of coroutines except
 * for block_export_ref() and block_export_unref().
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_EXPORT_H
#define BLOCK_EXPORT_H

#include "block/block-backend.h"
#include "qapi/qapi-types-block-export.h"
#include "util/iothread.h"

typedef struct BlockExport BlockExport;

typedef struct BlockExportDriver {
    BlockExportType type;
    size_t instance_size;               /* of a struct that begins with a BlockExport, zeroed */
    /* The node is held already. 0, or -1 with @errp set and everything undone. */
    int (*create)(BlockExport *exp, const BlockExportOptions *opts, Error **errp);
    /* Make whoever holds references let go of them soon, and take on nobody new. Once. */
    void (*request_shutdown)(BlockExport *exp);
    /* The last reference is gone. */
    void (*destroy)(BlockExport *exp);
} BlockExportDriver;

/* Read-only outside of block/export.c. */
struct BlockExport {
    const BlockExportDriver *drv;
    char *id;
    unsigned refcount;
    bool shutting_down;
    bool writable;
    BlockBackend *blk;
    IOThread **iothreads;               /* those that were asked for, in use by the export */
    unsigned n_iothreads;               /* 0: the driver chooses */
    GList in_exports;
};

/* At start-up, one for each type. @drv must stay. */
void block_export_register(const BlockExportDriver *drv);

/*
 * @shared_perm: what others may do with the node meanwhile (BlockPermission).
 * Returns NULL with @errp set. The reference of the caller's wish stays until
 * block_export_remove().
 */
BlockExport *block_export_add(const BlockExportOptions *opts, uint64_t shared_perm, Error **errp);
BlockExport *block_export_find(const char *id);
/* NULL starts, NULL ends; in the order in which they were made. */
BlockExport *block_export_next(BlockExport *after);

void block_export_ref(BlockExport *exp);
/* Any coroutine or callback of the main context. */
void block_export_unref(BlockExport *exp);

/*
 * Begin to remove it: when nobody else holds it, it is gone on return. With clients it is an error
 * in safe mode, else they are disconnected. Returns 0, or -1 with @errp set and nothing changed. An
 * export that is being removed already is left to that.
 */
int block_export_remove(BlockExport *exp, BlockExportRemoveMode mode, Error **errp);
/* Remove all exports of a type and wait until they are gone. */
void block_export_close_all_of(BlockExportType type);
/* All of them: at the end of the process, before bdrv_close_all(). */
void block_export_close_all(void);

#endif
