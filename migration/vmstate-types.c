/*
 * The kinds of value that a vmstate table can hold, and how each lies in the stream: integers
 * big-endian, buffers as they are.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/vmstate.h"

#include <inttypes.h>
#include <string.h>
#include "migration/migration-file.h"

#define PUT(name_) \
    static int put_##name_(MigrationFile *f, const void *value, size_t size, \
                           const VMStateField *field, Error **errp)
#define GET(name_) \
    static int get_##name_(MigrationFile *f, void *value, size_t size, \
                           const VMStateField *field, Error **errp)

/* A plain integer of C type @type_, carried by mfile_put_@wire_ and mfile_get_@wire_. */
#define INTEGER(name_, type_, wire_) \
    PUT(name_) \
    { \
        mfile_put_##wire_(f, *(const type_ *)value); \
        return 0; \
    } \
    GET(name_) \
    { \
        *(type_ *)value = (type_)mfile_get_##wire_(f); \
        return 0; \
    } \
    const VMStateInfo vmstate_info_##name_ = { \
        .name = #name_, .get = get_##name_, .put = put_##name_, \
    };

INTEGER(int8, int8_t, u8)
INTEGER(int16, int16_t, be16)
INTEGER(int32, int32_t, be32)
INTEGER(int64, int64_t, be64)
INTEGER(uint8, uint8_t, u8)
INTEGER(uint16, uint16_t, be16)
INTEGER(uint32, uint32_t, be32)
INTEGER(uint64, uint64_t, be64)

PUT(bool)
{
    mfile_put_u8(f, *(const bool *)value);
    return 0;
}

GET(bool)
{
    uint8_t byte = mfile_get_u8(f);

    if (byte > 1) {
        error_setg(errp, "the stream holds %u where a bool is 0 or 1", byte);
        return -1;
    }
    *(bool *)value = byte;
    return 0;
}

const VMStateInfo vmstate_info_bool = { .name = "bool", .get = get_bool, .put = put_bool };

PUT(buffer)
{
    mfile_put_buffer(f, value, size);
    return 0;
}

GET(buffer)
{
    mfile_get_buffer(f, value, size);
    return 0;
}

const VMStateInfo vmstate_info_buffer = { .name = "buffer", .get = get_buffer, .put = put_buffer };

PUT(unused_buffer)
{
    static const uint8_t zeroes[256];

    while (size) {
        size_t n = MIN(size, sizeof(zeroes));
        mfile_put_buffer(f, zeroes, n);
        size -= n;
    }
    return 0;
}

GET(unused_buffer)
{
    uint8_t dropped[256];

    while (size && !mfile_has_error(f)) {
        size_t n = MIN(size, sizeof(dropped));
        mfile_get_buffer(f, dropped, n);
        size -= n;
    }
    return 0;
}

const VMStateInfo vmstate_info_unused_buffer = {
    .name = "unused_buffer", .get = get_unused_buffer, .put = put_unused_buffer,
};

/* An integer that is only compared with what the machine has. */
#define EQUAL(name_, type_, wire_) \
    GET(name_##_equal) \
    { \
        type_ got = mfile_get_##wire_(f); \
        type_ have = *(type_ *)value; \
        \
        if (got != have && !mfile_has_error(f)) { \
            error_setg(errp, "the stream says %" PRIu64 ", this machine has %" PRIu64, \
                       (uint64_t)got, (uint64_t)have); \
            return -1; \
        } \
        return 0; \
    } \
    const VMStateInfo vmstate_info_##name_##_equal = { \
        .name = #name_ " equal", .get = get_##name_##_equal, .put = put_##name_, \
    };

EQUAL(uint32, uint32_t, be32)
EQUAL(uint64, uint64_t, be64)
