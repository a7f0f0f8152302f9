/*
 * Persistent bitmaps of images, for convert, measure and bitmap.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TOOLS_IMG_BITMAPS_H
#define TOOLS_IMG_BITMAPS_H

#include "block/dirty-bitmap.h"

/* Whether the node's format can store bitmaps. */
bool img_bitmaps_supported(BlockDriverState *bs);
/*
 * Make a persistent bitmap that @bs has room for; @granularity 0: the usual one. NULL with @errp
 * set.
 */
BdrvDirtyBitmap *img_add_bitmap(BlockDriverState *bs, const char *name, uint32_t granularity,
                                Error **errp);
/*
 * The persistent bitmaps of @src, with their content, into @dst. Inconsistent ones are an error, or
 * left out with a warning (@skip_broken). 0, or -1 with @errp set.
 */
int img_copy_bitmaps(BlockDriverState *src, BlockDriverState *dst, bool skip_broken, Error **errp);

#endif
