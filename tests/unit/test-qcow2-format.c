/*
 * qcow2 without a file: the header from hostile bytes, counts of every width, entries of snapshot
 * table and bitmap directory, both compressions.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block/qcow2.h"
#include "tests/unit/block-harness.h"
#include "util/bswap.h"
#include "util/zero.h"

#define CLUSTER 65536

/* ---- the header ---- */

static void fill_header(uint8_t *buf)
{
    Qcow2Header hdr = {
        .version = 3, .cluster_bits = 16, .size = 1 << 30, .l1_size = 2, .l1_offset = 3 * CLUSTER,
        .reftable_offset = CLUSTER, .reftable_clusters = 1, .refcount_order = 4,
        .backing_file = (char *)"base.qcow2", .backing_format = (char *)"qcow2",
    };

    memset(buf, 0, CLUSTER);
    g_assert_true(qcow2_header_serialize(&hdr, buf, &error_abort));
}

static void test_header_round_trip(void)
{
    g_autofree uint8_t *a = g_malloc(CLUSTER), *b = g_malloc0(CLUSTER);
    Qcow2Header hdr;

    fill_header(a);
    g_assert_true(qcow2_header_parse(a, CLUSTER, &hdr, &error_abort));
    g_assert_cmpstr(hdr.backing_file, ==, "base.qcow2");
    g_assert_cmpstr(hdr.backing_format, ==, "qcow2");
    g_assert_cmpuint(hdr.size, ==, 1 << 30);
    g_assert_cmpuint(hdr.header_length, ==, QCOW2_HEADER_V3_BYTES);
    g_assert_true(qcow2_header_serialize(&hdr, b, &error_abort));
    g_assert_cmpmem(a, CLUSTER, b, CLUSTER);
    qcow2_header_clear(&hdr);
}

/* What a later version of the format puts there stays. */
static void test_header_keeps_unknown(void)
{
    g_autofree uint8_t *a = g_malloc0(CLUSTER), *b = g_malloc0(CLUSTER);
    static const char content[] = "someone else's";
    Qcow2Header hdr;

    fill_header(a);
    memset(a + QCOW2_HEADER_V3_BYTES, 0, CLUSTER - QCOW2_HEADER_V3_BYTES);
    stl_be_p(a + QCOW2_AT_HEADER_LENGTH, 120);
    stq_be_p(a + QCOW2_AT_BACKING_OFFSET, 0);
    memcpy(a + 112, "newfield", 8);
    stl_be_p(a + 120, 0x12345678);
    stl_be_p(a + 124, sizeof(content));
    memcpy(a + 128, content, sizeof(content));
    g_assert_true(qcow2_header_parse(a, CLUSTER, &hdr, &error_abort));
    g_assert_true(qcow2_header_serialize(&hdr, b, &error_abort));
    qcow2_header_clear(&hdr);
    g_assert_cmpmem(b + 112, 8, "newfield", 8);
    g_assert_true(qcow2_header_parse(b, CLUSTER, &hdr, &error_abort));
    g_assert_cmpuint(hdr.extensions->len, ==, 1);
    g_assert_cmpmem(((Qcow2Extension *)hdr.extensions->pdata[0])->data, sizeof(content), content,
                    sizeof(content));
    qcow2_header_clear(&hdr);
}

typedef struct BadField {
    unsigned at, bytes;
    uint64_t value;
    const char *message;
} BadField;

static const BadField bad_fields[] = {
    { QCOW2_AT_MAGIC, 4, 1, "*not a qcow2 image" },
    { QCOW2_AT_VERSION, 4, 1, "*version 1 are not supported" },
    { QCOW2_AT_VERSION, 4, UINT32_MAX, "*version 4294967295 are not supported" },
    { QCOW2_AT_CLUSTER_BITS, 4, 8, "*clusters of 2^8 bytes*" },
    { QCOW2_AT_CLUSTER_BITS, 4, 22, "*clusters of 2^22 bytes*" },
    { QCOW2_AT_CLUSTER_BITS, 4, 21, "*incomplete" },
    { QCOW2_AT_SIZE, 8, UINT64_MAX, "*too large" },
    { QCOW2_AT_SIZE, 8, UINT64_C(1) << 40, "*L1 table has 2 entries*" },
    { QCOW2_AT_CRYPT, 4, 1, "*encrypted (AES), which is not supported" },
    { QCOW2_AT_CRYPT, 4, 2, "*encrypted (LUKS), which is not supported" },
    { QCOW2_AT_CRYPT, 4, 77, "*unknown method (77)" },
    { QCOW2_AT_L1_SIZE, 4, UINT32_MAX, "*L1 table is too large*" },
    { QCOW2_AT_L1_OFFSET, 8, 512, "*active L1 table is not a multiple*" },
    { QCOW2_AT_L1_OFFSET, 8, UINT64_MAX & ~(uint64_t)(CLUSTER - 1),
      "*active L1 table*cannot be there" },
    { QCOW2_AT_L1_OFFSET, 8, 0, "*active L1 table*cannot be there" },
    { QCOW2_AT_REFTABLE_OFFSET, 8, 0, "*refcount table*cannot be there" },
    { QCOW2_AT_REFTABLE_CLUSTERS, 4, 0, "*refcount table has 0 clusters" },
    { QCOW2_AT_REFTABLE_CLUSTERS, 4, UINT32_MAX, "*refcount table has*" },
    { QCOW2_AT_SNAPSHOTS, 4, 65537, "*too many snapshots*" },
    { QCOW2_AT_SNAPSHOTS, 4, 1, "*snapshot table*cannot be there" },
    { QCOW2_AT_SNAPSHOTS_OFFSET, 8, 3, "*snapshot table is not a multiple*" },
    { QCOW2_AT_REFCOUNT_ORDER, 4, 7, "*refcounts of 2^7 bits*" },
    { QCOW2_AT_HEADER_LENGTH, 4, 103, "*its length is given as 103" },
    { QCOW2_AT_HEADER_LENGTH, 4, CLUSTER + 8, "*its length is given as*" },
    { QCOW2_AT_COMPRESSION, 1, 1, "*without its incompatible feature bit" },
    { QCOW2_AT_COMPRESSION, 1, 2, "*unknown method (2)" },
    { QCOW2_AT_INCOMPATIBLE, 8, 8, "*compression type 0 with*" },
    { QCOW2_AT_INCOMPATIBLE, 8, 4, "*'external data file'" },
    { QCOW2_AT_INCOMPATIBLE, 8, 16, "*L1 table has 2 entries, and the disk needs 4" },
    { QCOW2_AT_INCOMPATIBLE, 8, UINT64_C(1) << 63 | 4,
      "*'external data file', incompatible feature bit 63" },
    { QCOW2_AT_BACKING_OFFSET, 8, CLUSTER - 4, "*name of the backing file*" },
    { QCOW2_AT_BACKING_OFFSET, 8, 80, "*name of the backing file*" },
    { QCOW2_AT_BACKING_OFFSET, 8, UINT64_MAX, "*name of the backing file*" },
    { QCOW2_AT_BACKING_LEN, 4, 1024, "*name of the backing file*" },
    { QCOW2_AT_BACKING_LEN, 4, UINT32_MAX, "*name of the backing file*" },
    { QCOW2_HEADER_V3_BYTES + 4, 4, UINT32_MAX,
      "*extension 0xe2792aca of 4294967295 bytes is longer*" },
};

static void test_header_bad_fields(void)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER);

    for (size_t i = 0; i < G_N_ELEMENTS(bad_fields); i++) {
        const BadField *f = &bad_fields[i];
        Error *err = NULL;
        Qcow2Header hdr;

        fill_header(buf);
        if (f->bytes == 1) {
            buf[f->at] = f->value;
        } else if (f->bytes == 4) {
            stl_be_p(buf + f->at, f->value);
        } else {
            stq_be_p(buf + f->at, f->value);
        }
        g_test_message("field at %u", f->at);
        g_assert_false(qcow2_header_parse(buf, CLUSTER, &hdr, &err));
        expect_error(err, f->message);
    }
}

/* Bytes by chance: whatever is accepted keeps its promises and can be written again. */
static void test_header_random(void)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER), *out = g_malloc(CLUSTER);
    unsigned accepted = 0;

    for (unsigned n = 0; n < 30000; n++) {
        unsigned changes = g_test_rand_int_range(1, 5);
        Error *err = NULL;
        Qcow2Header hdr;

        fill_header(buf);
        for (unsigned i = 0; i < changes; i++) {
            buf[g_test_rand_int_range(4, 700)] = g_test_rand_int_range(0, 256);
        }
        if (!qcow2_header_parse(buf, CLUSTER, &hdr, &err)) {
            g_assert_nonnull(err);
            error_free(err);
            continue;
        }
        accepted++;
        g_assert_cmpuint(hdr.l1_offset % (1u << hdr.cluster_bits), ==, 0);
        g_assert_cmpuint(hdr.l1_offset + hdr.l1_size * UINT64_C(8), <=, QCOW2_MAX_HOST_OFFSET);
        g_assert_cmpuint(hdr.size, <=, BDRV_MAX_LENGTH);
        g_assert_false(hdr.incompatible & ~QCOW2_INCOMPAT_KNOWN);
        memset(out, 0, CLUSTER);
        qcow2_header_serialize(&hdr, out, NULL);
        qcow2_header_clear(&hdr);
    }
    g_assert_cmpuint(accepted, >, 100);
}

static void test_header_too_full(void)
{
    g_autofree uint8_t *buf = g_malloc0(512);
    char name[QCOW2_BACKING_NAME_MAX + 1];
    Qcow2Header hdr = { .version = 3, .cluster_bits = 9, .backing_file = name };
    Error *err = NULL;

    memset(name, 'n', sizeof(name));
    name[300] = 0;
    g_assert_true(qcow2_header_serialize(&hdr, buf, &error_abort));
    name[300] = 'n';
    name[450] = 0;
    g_assert_false(qcow2_header_serialize(&hdr, buf, &err));
    expect_error(err, "*does not fit into the first cluster (512 bytes)");
}

/* ---- counts ---- */

static void test_refcount_widths(void)
{
    for (unsigned order = 0; order <= 6; order++) {
        uint8_t block[64] = { 0 };
        unsigned n = sizeof(block) * 8 >> order;
        uint64_t max = order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;

        for (unsigned i = 0; i < n; i++) {
            qcow2_refcount_store(block, order, i, (i * UINT64_C(0x9e3779b97f4a7c15)) & max);
        }
        for (unsigned i = 0; i < n; i++) {
            g_assert_cmpuint(qcow2_refcount_load(block, order, i), ==,
                             (i * UINT64_C(0x9e3779b97f4a7c15)) & max);
        }
        /* Neighbours stay. */
        for (unsigned i = 0; i < n; i++) {
            memset(block, 0, sizeof(block));
            qcow2_refcount_store(block, order, i, max);
            for (unsigned k = 0; k < n; k++) {
                g_assert_cmpuint(qcow2_refcount_load(block, order, k), ==, k == i ? max : 0);
            }
        }
    }
}

/* The bytes as others have them. */
static void test_refcount_bytes(void)
{
    uint8_t block[8] = { 0 };

    qcow2_refcount_store(block, 0, 9, 1);
    g_assert_cmphex(block[1], ==, 0x02);
    qcow2_refcount_store(block, 1, 3, 2);
    g_assert_cmphex(block[0], ==, 0x80);
    qcow2_refcount_store(block, 2, 1, 0xa);
    g_assert_cmphex(block[0], ==, 0xa0);
    qcow2_refcount_store(block, 4, 1, 0x1234);
    g_assert_cmphex(block[2], ==, 0x12);
    qcow2_refcount_store(block, 5, 1, 0x12345678);
    g_assert_cmphex(block[4], ==, 0x12);
}

/* ---- table entries ---- */

static void test_snapshot_entries(void)
{
    uint8_t buf[256] = { 0 };
    Qcow2Snapshot snap;
    Error *err = NULL;

    stq_be_p(buf, 0x50000);
    stl_be_p(buf + 8, 3);
    stw_be_p(buf + 12, 1);
    stw_be_p(buf + 14, 4);
    stl_be_p(buf + 32, 99);
    stl_be_p(buf + 36, 24);
    stq_be_p(buf + 40, 1234567);
    stq_be_p(buf + 48, 1 << 20);
    stq_be_p(buf + 56, UINT64_MAX);
    memcpy(buf + 64, "1name", 5);
    g_assert_cmpuint(qcow2_snapshot_parse(buf, sizeof(buf), &snap, &error_abort), ==, 72);
    g_assert_cmpstr(snap.id, ==, "1");
    g_assert_cmpstr(snap.name, ==, "name");
    g_assert_cmpuint(snap.vm_state_size, ==, 1234567);
    g_assert_true(snap.has_disk_size);
    g_assert_false(snap.has_icount);
    g_free(snap.id);
    g_free(snap.name);
    for (size_t len = 0; len < 69; len++) {
        g_assert_cmpuint(qcow2_snapshot_parse(buf, len, &snap, &err), ==, 0);
        expect_error(err, "*incomplete");
        err = NULL;
    }
    stl_be_p(buf + 36, UINT32_MAX);
    g_assert_cmpuint(qcow2_snapshot_parse(buf, sizeof(buf), &snap, &err), ==, 0);
    expect_error(err, "*too much extra data*");
}

static void test_bitmap_entries(void)
{
    static const struct {
        unsigned at, bytes;
        uint32_t value;
        const char *message;
    } bad[] = {
        { 8, 4, UINT32_MAX, "*too large*" },
        { 12, 4, 8, "*unknown flags (0x8)" },
        { 16, 1, 2, "*unknown type (2)" },
        { 17, 1, 8, "*invalid granularity (2^8)" },
        { 17, 1, 32, "*invalid granularity (2^32)" },
        { 18, 2, 0, "*name of invalid length (0)" },
        { 18, 2, 1024, "*incomplete" },
        { 20, 4, 8, "*not known" },
        { 20, 4, UINT32_MAX, "*incomplete" },
    };
    uint8_t good[64] = { 0 }, buf[64];
    Qcow2BitmapEntry entry;

    stq_be_p(good, 0x70000);
    stl_be_p(good + 8, 1);
    stl_be_p(good + 12, QCOW2_BITMAP_AUTO);
    good[16] = 1;
    good[17] = 16;
    stw_be_p(good + 18, 3);
    memcpy(good + 24, "mapextra data", 13);
    g_assert_cmpuint(qcow2_bitmap_parse(good, sizeof(good), &entry, &error_abort), ==, 32);
    g_assert_cmpstr(entry.name, ==, "map");
    g_free(entry.name);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        Error *err = NULL;

        memcpy(buf, good, sizeof(buf));
        if (bad[i].bytes == 1) {
            buf[bad[i].at] = bad[i].value;
        } else if (bad[i].bytes == 2) {
            stw_be_p(buf + bad[i].at, bad[i].value);
        } else {
            stl_be_p(buf + bad[i].at, bad[i].value);
        }
        g_assert_cmpuint(qcow2_bitmap_parse(buf, sizeof(buf), &entry, &err), ==, 0);
        expect_error(err, bad[i].message);
    }
}

/* ---- compression ---- */

static void test_compression(void)
{
    g_autofree uint8_t *plain = g_malloc(CLUSTER), *packed = g_malloc(CLUSTER),
                       *back = g_malloc(CLUSTER);

    for (int type = 0; type <= 1; type++) {
        ssize_t len;

        for (size_t i = 0; i < CLUSTER; i++) {
            plain[i] = i / 97;
        }
        len = qcow2_compress(type, packed, CLUSTER - 1, plain, CLUSTER);
        g_assert_cmpint(len, >, 0);
        g_assert_cmpint(len, <, CLUSTER / 2);
        /* Sectors behind it belong to the next one. */
        memset(packed + len, 0xaa, 600);
        g_assert_cmpint(qcow2_decompress(type, back, CLUSTER, packed, len + 600), ==, 0);
        g_assert_cmpmem(back, CLUSTER, plain, CLUSTER);
        g_assert_cmpint(qcow2_decompress(type, back, CLUSTER, packed, len / 2), ==, -EIO);
        memset(packed, 0xff, 64);
        g_assert_cmpint(qcow2_decompress(type, back, CLUSTER, packed, len), ==, -EIO);
        /* Noise does not get smaller. */
        for (size_t i = 0; i < CLUSTER; i += 4) {
            stl_le_p(plain + i, g_test_rand_int());
        }
        g_assert_cmpint(qcow2_compress(type, packed, CLUSTER - 1, plain, CLUSTER), ==, -ENOSPC);
    }
}

static void test_compressed_entries(void)
{
    for (unsigned bits = QCOW2_MIN_CLUSTER_BITS; bits <= QCOW2_MAX_CLUSTER_BITS; bits++) {
        Qcow2State s = { .cluster_bits = bits, .cluster_size = 1u << bits };

        for (uint64_t host = 1; host < UINT64_C(1) << (62 - (bits - 8)); host = host * 3 + 7) {
            uint32_t want = 1 + host % (s.cluster_size - 1), got;
            uint64_t at;

            qcow2_compressed_range(&s, qcow2_compressed_desc(&s, host, want), &at, &got);
            g_assert_cmpuint(at, ==, host);
            /* Up to the end of a sector. */
            g_assert_cmpuint(got, >=, want);
            g_assert_cmpuint(got, <, want + 512);
            g_assert_cmpuint((at + got) % 512, ==, 0);
        }
    }
}

/* One entry of each form, and what it says of its subclusters. */
static void test_subclusters(void)
{
    Qcow2State s = { .hdr.version = 3, .cluster_bits = 16, .cluster_size = 1 << 16,
                     .extended = true, .entry_bytes = 16, .sub_bits = 11 };
    const struct {
        uint64_t desc, bitmap;
        Qcow2ClusterType first, last;
    } rows[] = {
        { 0, 0, QCOW2_UNALLOCATED, QCOW2_UNALLOCATED },
        { 0x50000, 0, QCOW2_UNALLOCATED_ALLOC, QCOW2_UNALLOCATED_ALLOC },
        { 0x50000, 1, QCOW2_NORMAL, QCOW2_UNALLOCATED_ALLOC },
        { 0x50000, UINT64_C(1) << 63 | 1, QCOW2_NORMAL, QCOW2_ZERO_ALLOC },
        { 0, UINT64_C(1) << 63, QCOW2_UNALLOCATED, QCOW2_ZERO_PLAIN },
        { 0, QCOW2_BITMAP_ZERO_ALL, QCOW2_ZERO_PLAIN, QCOW2_ZERO_PLAIN },
        { QCOW2_COMPRESSED | 0x50000, 0, QCOW2_COMPRESSED_DATA, QCOW2_COMPRESSED_DATA },
    };
    uint8_t table[64] = { 0 };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        Qcow2Entry entry = { .desc = rows[i].desc, .bitmap = rows[i].bitmap };

        g_assert_cmpint(qcow2_subcluster_type(&s, entry, 0), ==, rows[i].first);
        g_assert_cmpint(qcow2_subcluster_type(&s, entry, 31), ==, rows[i].last);
    }
    qcow2_entry_store(&s, table, 1, qcow2_data_entry(&s, 0x70000));
    g_assert_cmpuint(ldq_be_p(table + 16), ==, QCOW2_COPIED | 0x70000);
    g_assert_cmpuint(ldq_be_p(table + 24), ==, 0xffffffff);
    g_assert_cmpuint(qcow2_entry_load(&s, table, 1).bitmap, ==, 0xffffffff);
    g_assert_true(buffer_is_zero(table, 16) && buffer_is_zero(table + 32, 32));
    s.extended = false;
    s.entry_bytes = 8;
    qcow2_entry_store(&s, table, 4, qcow2_zero_entry(&s, 0));
    g_assert_cmpuint(ldq_be_p(table + 32), ==, QCOW2_ZERO);
    g_assert_cmpint(qcow2_subcluster_type(&s, qcow2_entry_load(&s, table, 4), 0), ==,
                    QCOW2_ZERO_PLAIN);
    g_assert_true(buffer_is_zero(table + 40, 24));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/header/round-trip", test_header_round_trip);
    g_test_add_func("/qcow2/header/keeps-unknown", test_header_keeps_unknown);
    g_test_add_func("/qcow2/header/bad-fields", test_header_bad_fields);
    g_test_add_func("/qcow2/header/random", test_header_random);
    g_test_add_func("/qcow2/header/too-full", test_header_too_full);
    g_test_add_func("/qcow2/refcount/widths", test_refcount_widths);
    g_test_add_func("/qcow2/refcount/bytes", test_refcount_bytes);
    g_test_add_func("/qcow2/snapshot-entries", test_snapshot_entries);
    g_test_add_func("/qcow2/bitmap-entries", test_bitmap_entries);
    g_test_add_func("/qcow2/compression", test_compression);
    g_test_add_func("/qcow2/compressed-entries", test_compressed_entries);
    g_test_add_func("/qcow2/subclusters", test_subclusters);
    return g_test_run();
}
