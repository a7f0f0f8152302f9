/*
 * The data of options, taken apart.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/option-data.h"

#include <glib.h>
#include <string.h>

#include "nbd/protocol.h"
#include "util/bswap.h"

/* What has not been looked at. */
typedef struct Rest {
    const uint8_t *at;
    size_t len;
} Rest;

static bool take(Rest *rest, size_t n, const uint8_t **at)
{
    if (n > rest->len) {
        return false;
    }
    *at = rest->at;
    rest->at += n;
    rest->len -= n;
    return true;
}

static bool take_u16(Rest *rest, uint16_t *value)
{
    const uint8_t *at;

    if (!take(rest, 2, &at)) {
        return false;
    }
    *value = lduw_be_p(at);
    return true;
}

static bool take_u32(Rest *rest, uint32_t *value)
{
    const uint8_t *at;

    if (!take(rest, 4, &at)) {
        return false;
    }
    *value = ldl_be_p(at);
    return true;
}

/* A length and that many bytes. */
static bool take_string(Rest *rest, NbdString *s)
{
    const uint8_t *at;
    uint32_t len;

    if (!take_u32(rest, &len) || !take(rest, len, &at)) {
        return false;
    }
    *s = (NbdString) { .text = (const char *)at, .len = len };
    return true;
}

bool nbd_string_is_valid(NbdString s)
{
    /* g_utf8_validate_len() refuses NUL. */
    return s.len <= NBD_STRING_MAX_BYTES && g_utf8_validate_len(s.text, s.len, NULL);
}

static const char *take_name(Rest *rest, NbdString *name)
{
    if (!take_string(rest, name)) {
        return "the name of the export is longer than the data";
    }
    return nbd_string_is_valid(*name) ? NULL : "the name of the export is too long or not UTF-8";
}

const char *nbd_parse_info(const uint8_t *data, size_t len, NbdInfoData *info)
{
    Rest rest = { .at = data, .len = len };
    const char *why;
    uint16_t n, type;

    *info = (NbdInfoData) { 0 };
    why = take_name(&rest, &info->name);
    if (why) {
        return why;
    }
    if (!take_u16(&rest, &n) || rest.len != 2 * (size_t)n) {
        return "the number of information requests does not fit the length of the data";
    }
    while (take_u16(&rest, &type)) {
        info->wants_name |= type == NBD_INFO_NAME;
        info->wants_description |= type == NBD_INFO_DESCRIPTION;
        info->wants_block_size |= type == NBD_INFO_BLOCK_SIZE;
    }
    return NULL;
}

const char *nbd_parse_meta(const uint8_t *data, size_t len, NbdMetaData *meta)
{
    Rest rest = { .at = data, .len = len };
    const char *why;
    NbdString query;

    *meta = (NbdMetaData) { 0 };
    why = take_name(&rest, &meta->name);
    if (why) {
        return why;
    }
    if (!take_u32(&rest, &meta->n_queries)) {
        return "the number of queries is missing";
    }
    meta->next = rest.at;
    meta->end = rest.at + rest.len;
    for (uint32_t i = 0; i < meta->n_queries; i++) {
        if (!take_string(&rest, &query)) {
            return "a query is longer than the data";
        }
        if (!nbd_string_is_valid(query)) {
            return "a query is too long or not UTF-8";
        }
        if (!memchr(query.text, ':', query.len)) {
            return "a query has no namespace";
        }
    }
    return rest.len == 0 ? NULL : "there is more data than queries";
}

bool nbd_next_query(NbdMetaData *meta, NbdString *query)
{
    Rest rest = { .at = meta->next, .len = meta->end - meta->next };

    if (!take_string(&rest, query)) {
        return false;
    }
    meta->next = rest.at;
    return true;
}
