/*
 * The data of options, taken apart: pure functions over bytes that came from a client.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_OPTION_DATA_H
#define NBD_OPTION_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A string inside the data; not terminated. */
typedef struct NbdString {
    const char *text;
    size_t len;
} NbdString;

/* UTF-8, without NUL, at most 4096 bytes. */
bool nbd_string_is_valid(NbdString s);

/* The data of INFO and GO. */
typedef struct NbdInfoData {
    NbdString name;
    bool wants_name, wants_description, wants_block_size;
} NbdInfoData;

/* Returns NULL, or what is wrong. */
const char *nbd_parse_info(const uint8_t *data, size_t len, NbdInfoData *info);

/* The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
typedef struct NbdMetaData {
    NbdString name;
    uint32_t n_queries;
    const uint8_t *next, *end;          /* queries that nbd_next_query() has not given yet */
} NbdMetaData;

/* Returns NULL, or what is wrong; then all queries are inside the data and are valid strings. */
const char *nbd_parse_meta(const uint8_t *data, size_t len, NbdMetaData *meta);
/* The next query; false: there are no more. */
bool nbd_next_query(NbdMetaData *meta, NbdString *query);

#endif
