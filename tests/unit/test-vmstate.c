/*
 * vmstate tables: every kind of field there and back, versions, subsections, what is refused, and
 * that the description says exactly what the bytes are.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <json-c/json.h>
#include <string.h>
#include "io/channel-buffer.h"
#include "migration/migration-file.h"
#include "migration/vmstate.h"

typedef struct Inner {
    uint16_t a;
    uint8_t b;
} Inner;

typedef struct State {
    bool flag;
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    uint32_t words[4];
    uint8_t bytes[7];
    Inner one;
    Inner several[3];
    uint32_t n;
    Inner counted[5];
    uint32_t blob_len;
    uint8_t blob[16];
    uint32_t fixed;
    uint64_t newer;
    uint32_t optional;
    int post_loads;
} State;

static bool optional_needed(void *opaque)
{
    return ((State *)opaque)->optional != 0;
}

static int post_load(void *opaque, int version_id, Error **errp)
{
    ((State *)opaque)->post_loads++;
    return 0;
}

static const VMStateDescription vmstate_inner = {
    .name = "inner", .version_id = 1, .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(a, Inner),
        VMSTATE_UINT8(b, Inner),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_optional = {
    .name = "state/optional", .version_id = 1, .minimum_version_id = 1, .needed = optional_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(optional, State),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_state = {
    .name = "state", .version_id = 3, .minimum_version_id = 2, .post_load = post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(flag, State),
        VMSTATE_INT8(i8, State),
        VMSTATE_INT16(i16, State),
        VMSTATE_INT32(i32, State),
        VMSTATE_INT64(i64, State),
        VMSTATE_UINT8(u8, State),
        VMSTATE_UINT16(u16, State),
        VMSTATE_UINT32(u32, State),
        VMSTATE_UINT64(u64, State),
        VMSTATE_UINT32_ARRAY(words, State, 4),
        VMSTATE_BUFFER(bytes, State),
        VMSTATE_UNUSED(3),
        VMSTATE_STRUCT(one, State, 0, vmstate_inner, Inner),
        VMSTATE_STRUCT_ARRAY(several, State, 3, 0, vmstate_inner, Inner),
        VMSTATE_UINT32(n, State),
        VMSTATE_STRUCT_VARRAY_UINT32(counted, State, n, 0, vmstate_inner, Inner),
        VMSTATE_UINT32(blob_len, State),
        VMSTATE_VBUFFER_UINT32(blob, State, blob_len),
        VMSTATE_UINT32_EQUAL(fixed, State),
        VMSTATE_UINT64_V(newer, State, 3),
        VMSTATE_END_OF_LIST() },
    .subsections = (const VMStateDescription *const[]) { &vmstate_optional, NULL },
};

static const State sample = {
    .flag = true, .i8 = -8, .i16 = -1600, .i32 = -320000, .i64 = -64000000000ll,
    .u8 = 0x88, .u16 = 0x1616, .u32 = 0x32323232, .u64 = 0x6464646464646464ull,
    .words = { 1, 2, 3, 0xffffffff }, .bytes = "abcdefg",
    .one = { 0x1234, 5 }, .several = { { 1, 2 }, { 3, 4 }, { 5, 6 } },
    .n = 2, .counted = { { 7, 8 }, { 9, 10 } },
    .blob_len = 3, .blob = "xyz", .fixed = 42, .newer = 99, .optional = 7,
};

/* The state saved, then a marker as a footer would be. */
static QIOChannel *save(const State *state, struct json_object *desc)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_buffer_new(0));
    g_autoptr(MigrationFile) f = mfile_new_output(ioc);

    vmstate_save_state(f, &vmstate_state, (void *)state, desc, &error_abort);
    mfile_put_u8(f, 0x7e);
    mfile_flush(f, &error_abort);
    return ioc;
}

static int load(QIOChannel *ioc, State *state, int version, Error **errp)
{
    qio_channel_io_seek(ioc, 0, SEEK_SET, &error_abort);
    g_autoptr(MigrationFile) f = mfile_new_input(ioc);

    if (vmstate_load_state(f, &vmstate_state, state, version, errp) < 0) {
        return -1;
    }
    g_assert_cmphex(mfile_get_u8(f), ==, 0x7e);
    return 0;
}

static void test_round_trip(void)
{
    g_autoptr(QIOChannel) ioc = save(&sample, NULL);
    State got = { .fixed = 42 };

    g_assert_cmpint(load(ioc, &got, 3, &error_abort), ==, 0);
    g_assert_cmpint(got.post_loads, ==, 1);
    got.post_loads = 0;
    g_assert_cmpmem(&got, sizeof(got), &sample, sizeof(sample));
}

static void test_no_subsection(void)
{
    State without = sample, got = { .fixed = 42, .optional = 5 };

    without.optional = 0;
    g_autoptr(QIOChannel) ioc = save(&without, NULL);
    g_assert_cmpint(load(ioc, &got, 3, &error_abort), ==, 0);
    g_assert_cmpuint(got.optional, ==, 5);
}

static void test_wire(void)
{
    g_autoptr(QIOChannel) ioc = save(&sample, NULL);
    size_t len;
    const uint8_t *bytes = qio_channel_buffer_data((QIOChannelBuffer *)ioc, &len);
    static const uint8_t head[] = { 1, 0xf8, 0xf9, 0xc0, 0xff, 0xfb, 0x1e, 0x00 };

    g_assert_cmpuint(len, >, sizeof(head));
    g_assert_cmpmem(bytes, sizeof(head), head, sizeof(head));
    /* The subsection: marker, name, version, value; then our footer. */
    static const uint8_t tail[] = { 5, 14, 's', 't', 'a', 't', 'e', '/', 'o', 'p', 't', 'i', 'o',
                                    'n', 'a', 'l', 0, 0, 0, 1, 0, 0, 0, 7, 0x7e };
    g_assert_cmpmem(bytes + len - sizeof(tail), sizeof(tail), tail, sizeof(tail));
}

static int64_t described_size(struct json_object *desc)
{
    struct json_object *fields = json_object_object_get(desc, "fields");
    int64_t total = 0;

    for (size_t i = 0; i < json_object_array_length(fields); i++) {
        struct json_object *field = json_object_array_get_idx(fields, i);
        struct json_object *n = json_object_object_get(field, "array_len");
        int64_t size = json_object_get_int64(json_object_object_get(field, "size"));
        struct json_object *inner = json_object_object_get(field, "struct");

        total += size * (n ? json_object_get_int64(n) : 1);
        if (inner) {
            g_assert_cmpint(described_size(inner), ==, size);
        }
    }
    struct json_object *subs = json_object_object_get(desc, "subsections");
    for (size_t i = 0; subs && i < json_object_array_length(subs); i++) {
        struct json_object *sub = json_object_array_get_idx(subs, i);
        total += 1 + 1 + strlen(json_object_get_string(json_object_object_get(sub, "vmsd_name"))) +
                 4 + described_size(sub);
    }
    return total;
}

static void test_description(void)
{
    struct json_object *desc = json_object_new_object();
    g_autoptr(QIOChannel) ioc = save(&sample, desc);
    size_t len;

    qio_channel_buffer_data((QIOChannelBuffer *)ioc, &len);
    g_assert_cmpint(described_size(desc), ==, len - 1);
    g_assert_cmpstr(json_object_get_string(json_object_object_get(desc, "vmsd_name")), ==, "state");
    struct json_object *fields = json_object_object_get(desc, "fields");
    struct json_object *words = json_object_array_get_idx(fields, 9);
    g_assert_cmpstr(json_object_to_json_string_ext(words, JSON_C_TO_STRING_PLAIN), ==,
                    "{\"name\":\"words\",\"type\":\"uint32\",\"array_len\":4,\"size\":4}");
    json_object_put(desc);
}

static void assert_refused(QIOChannel *ioc, int version, const char *message)
{
    State got = { .fixed = 42 };
    Error *err = NULL;

    g_assert_cmpint(load(ioc, &got, version, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void test_versions(void)
{
    g_autoptr(QIOChannel) ioc = save(&sample, NULL);

    assert_refused(ioc, 4, "'state' has version 4 in the stream, versions 2 to 3 can be loaded");
    assert_refused(ioc, 1, "'state' has version 1 in the stream, versions 2 to 3 can be loaded");
}

/* Version 2 had no field `newer`. */
static void test_old_version(void)
{
    State without = sample, got = { .fixed = 42, .newer = 1234 };
    g_autoptr(QIOChannel) all = NULL, old = QIO_CHANNEL(qio_channel_buffer_new(0));
    size_t len;

    without.optional = 0;
    all = save(&without, NULL);
    const uint8_t *bytes = qio_channel_buffer_data((QIOChannelBuffer *)all, &len);
    qio_channel_write_all(old, bytes, len - 9, &error_abort);
    qio_channel_write_all(old, bytes + len - 1, 1, &error_abort);
    g_assert_cmpint(load(old, &got, 2, &error_abort), ==, 0);
    g_assert_cmpuint(got.newer, ==, 1234);
    g_assert_cmpuint(got.blob_len, ==, 3);
}

/* The stream with byte @at replaced. */
static QIOChannel *spoiled(size_t at, uint8_t value, size_t cut)
{
    g_autoptr(QIOChannel) good = save(&sample, NULL);
    QIOChannel *bad = QIO_CHANNEL(qio_channel_buffer_new(0));
    size_t len;
    const uint8_t *bytes = qio_channel_buffer_data((QIOChannelBuffer *)good, &len);
    g_autofree uint8_t *copy = g_memdup2(bytes, len);

    copy[at] = value;
    qio_channel_write_all(bad, copy, cut ?: len, &error_abort);
    return bad;
}

static void test_hostile(void)
{
    /* Offsets: 31 bytes of integers, 16 of words, 7, 3 unused, 3, 9: then the count. */
    const size_t count_at = 31 + 16 + 7 + 3 + 3 + 9;
    const size_t blob_at = count_at + 4 + 2 * 3;
    const size_t fixed_at = blob_at + 4 + 3;
    g_autoptr(QIOChannel) flag = spoiled(0, 2, 0);
    g_autoptr(QIOChannel) count = spoiled(count_at + 3, 6, 0);
    g_autoptr(QIOChannel) blob = spoiled(blob_at + 3, 17, 0);
    g_autoptr(QIOChannel) fixed = spoiled(fixed_at + 3, 43, 0);
    g_autoptr(QIOChannel) sub = spoiled(fixed_at + 4 + 8 + 2 + 6, 'X', 0);

    assert_refused(flag, 3, "field 'flag': the stream holds 2 where a bool is 0 or 1");
    assert_refused(count, 3, "field 'counted' has 6 elements, at most 5 are possible");
    assert_refused(blob, 3, "field 'blob' has 17 bytes, at most 16 are possible");
    assert_refused(fixed, 3, "field 'fixed': the stream says 43, this machine has 42");
    assert_refused(sub, 3, "subsection 'state/Xptional' is not known to this version");
}

/* Cut off anywhere: an error, never a hang or a crash. */
static void test_truncated(void)
{
    g_autoptr(QIOChannel) whole = save(&sample, NULL);
    size_t len;

    qio_channel_buffer_data((QIOChannelBuffer *)whole, &len);
    for (size_t cut = 1; cut < len - 1; cut++) {
        g_autoptr(QIOChannel) part = spoiled(0, 1, cut);
        qio_channel_io_seek(part, 0, SEEK_SET, &error_abort);
        g_autoptr(MigrationFile) f = mfile_new_input(part);
        State got = { .fixed = 42 };
        Error *err = NULL;
        int ret = vmstate_load_state(f, &vmstate_state, &got, 3, &err);

        if (ret == 0) {
            /* Only where the subsection that is cut off begins. */
            g_assert_true(mfile_has_error(f) || cut == len - 1 - 24);
        } else {
            g_assert_nonnull(err);
        }
        error_free(err);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vmstate/round-trip", test_round_trip);
    g_test_add_func("/vmstate/no-subsection", test_no_subsection);
    g_test_add_func("/vmstate/wire", test_wire);
    g_test_add_func("/vmstate/description", test_description);
    g_test_add_func("/vmstate/versions", test_versions);
    g_test_add_func("/vmstate/old-version", test_old_version);
    g_test_add_func("/vmstate/hostile", test_hostile);
    g_test_add_func("/vmstate/truncated", test_truncated);
    return g_test_run();
}
