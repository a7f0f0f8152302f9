/*
 * Making what lies below an image: the file that a format writes itself into.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include "block/driver.h"

struct json_object;

/*
 * bdrv_co_create_protocol:
 * @filename: a name as bdrv_options_for_file() takes it
 * @size: bytes that it shall have
 * @opts: options of its driver, strings; NULL: none
 *
 * Returns: 0, or a negative errno with @errp set: it could not be made, or is of a kind that cannot
 * be.
 */
int coroutine_fn bdrv_co_create_protocol(const char *filename, uint64_t size,
                                         struct json_object *opts, Error **errp);

/* What a file takes. */
extern const BdrvCreateOption file_create_options[];

#endif
