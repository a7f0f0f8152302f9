/*
 * -drive: a node and the drive that holds it, in one line of key=value text.
 *
 * The text becomes a BlockdevOptions, once and here; behind it there is no difference to -blockdev.
 *
 * Main thread, outside of coroutines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_DRIVE_H
#define BLOCK_DRIVE_H

#include "block/block-backend.h"

typedef enum DriveInterface {
    DRIVE_IF_VIRTIO,            /* the default: a virtio-blk device comes with it */
    DRIVE_IF_NONE,              /* a device names it */
    DRIVE_IF__MAX,
} DriveInterface;

typedef struct DriveOptions {
    char *id;                   /* NULL: made from interface and index */
    DriveInterface interface;
    bool has_index;
    uint64_t index;
    bool writethrough;          /* the guest sees no write cache */
    BlockdevOnError on_read_error, on_write_error;
    BlockdevOptions *opts;
} DriveOptions;

/*
 * drive_options_parse:
 * @text: what follows -drive
 *
 * Nothing is opened. Returns: what it says; NULL with @errp set, which names the key that is wrong.
 */
DriveOptions *drive_options_parse(const char *text, Error **errp);
void drive_options_free(DriveOptions *drive);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DriveOptions, drive_options_free)

/*
 * Open it: a named BlockBackend that the monitor owns, without permissions until a device takes it.
 * Its id and index are filled in where they were not given. NULL with @errp set.
 */
BlockBackend *drive_new(DriveOptions *drive, Error **errp);

/* Let @base of cache=MODE set @direct, @no_flush, @writethrough; false: there is no such mode. */
bool drive_parse_cache_mode(const char *mode, bool *direct, bool *no_flush, bool *writethrough);

#endif
