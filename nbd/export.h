/*
 * An export of the NBD server.
 *
 * It does not change after it was made, so connections read it in their own threads; each holds a
 * reference to it (block_export_ref(), main thread).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include "block/dirty-bitmap.h"
#include "block/export.h"

typedef struct NbdExport {
    BlockExport common;
    char *name, *description;           /* the description may be NULL */
    uint64_t serial;                    /* no other export ever has it */
    bool allocation_depth;
    BdrvDirtyBitmap **bitmaps;          /* marked as busy */
    unsigned n_bitmaps;
    unsigned next_thread;               /* of its iothreads, for the next connection */
} NbdExport;

/* By name; NULL. Exports that are being removed are not found. Main thread. */
NbdExport *nbd_export_find(const char *name, size_t len);
/* NULL starts, NULL ends. */
NbdExport *nbd_export_next(NbdExport *after);

/* Transmission flags, all but those that depend on the connection. */
uint16_t nbd_export_flags(const NbdExport *exp);
/* Length in bytes as it is now; 0 when it is not known. Any thread. */
uint64_t nbd_export_size(const NbdExport *exp);
/* For NBD_INFO_BLOCK_SIZE. Main thread. */
void nbd_export_block_sizes(const NbdExport *exp, uint32_t *minimum, uint32_t *preferred,
                            uint32_t *maximum);

#endif
