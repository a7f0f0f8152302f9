/*
 * Metadata contexts: what there is to know of ranges of an export besides their content.
 *
 *     base:allocation           whether there is a hole, whether it reads as zeroes
 *     qemu:allocation-depth     in which layer of the chain of backing files it lies
 *     qemu:dirty-bitmap:NAME    whether it was written since the bitmap was made or cleared
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_META_CONTEXT_H
#define NBD_META_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd/export.h"

/* Ids on the wire; bitmaps follow, in the order of the export. */
enum {
    NBD_META_BASE_ALLOCATION,
    NBD_META_ALLOCATION_DEPTH,
    NBD_META_FIRST_BITMAP,
};

/* What a client has selected; zeroed memory is nothing. */
typedef struct NbdMeta {
    uint64_t export_serial;
    uint32_t *ids;
    unsigned n;
} NbdMeta;

void nbd_meta_clear(NbdMeta *meta);
/* Does nothing when it is there already, or when the export has no such context. */
void nbd_meta_add(NbdMeta *meta, const NbdExport *exp, uint32_t id);
/* Whether the export has it. */
bool nbd_meta_exists(const NbdExport *exp, uint32_t id);
/* "base:allocation"; g_free() it. */
char *nbd_meta_name(const NbdExport *exp, uint32_t id);

/*
 * Add what @query names. @list: an empty leaf name stands for all of the namespace, as for
 * LIST_META_CONTEXT. Unknown names are ignored.
 */
void nbd_meta_query(NbdMeta *meta, const NbdExport *exp, const char *query, size_t len, bool list);
/* All that the export has. */
void nbd_meta_add_all(NbdMeta *meta, const NbdExport *exp);

typedef struct NbdExtent {
    uint64_t length;
    uint32_t flags;
} NbdExtent;

/*
 * nbd_meta_status:
 * @id: a context of the export
 * @offset, @length: the range, inside the export and not empty
 * @extents: room for @max of them
 *
 * Store what there is from @offset on: neighbours differ, and all together are no longer than
 * @length; they are shorter when there is no room, or when it takes too long. Returns: how many
 * extents, at least 1, or a negative errno. Any context.
 */
int coroutine_fn nbd_meta_status(const NbdExport *exp, uint32_t id, uint64_t offset,
                                 uint64_t length, NbdExtent *extents, unsigned max);

#endif
