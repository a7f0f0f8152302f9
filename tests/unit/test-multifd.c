/*
 * RAM over several connections: packets that are right and wrong, compression, round trips with
 * every number of channels, and channels that are lost, foreign, too few or too many.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>

#include "io/channel-buffer.h"
#include "io/channel-file.h"
#include "migration/multifd-format.h"
#include "migration/multifd-method.h"
#include "ram-harness.h"
#include "system/identity.h"
#include "util/bswap.h"

#define MIB (1024 * 1024)

/*
 * Format ----------------------------------------------------------------------------------------
 */

static void test_init(void)
{
    uint8_t bytes[MULTIFD_INIT_BYTES], uuid[16], other[16];
    Error *err = NULL;

    for (unsigned i = 0; i < 16; i++) {
        uuid[i] = i * 17;
        other[i] = 0;
    }
    multifd_init_encode(bytes, uuid, 200);
    g_assert_cmpmem(bytes, 8, "\x11\x22\x33\x44\0\0\0\1", 8);
    g_assert_cmpmem(bytes + 8, 16, uuid, 16);
    g_assert_cmpuint(bytes[24], ==, 200);
    for (unsigned i = 25; i < sizeof(bytes); i++) {
        g_assert_cmpuint(bytes[i], ==, 0);
    }
    g_assert_cmpint(multifd_init_decode(bytes, uuid, &error_abort), ==, 200);
    g_assert_cmpint(multifd_init_decode(bytes, other, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "it comes from the machine with UUID '00112233-4455-6677-8899-aabbccddeeff', "
                    "this one has '00000000-0000-0000-0000-000000000000'");
    error_free(err);
    err = NULL;
    bytes[7] = 9;
    g_assert_cmpint(multifd_init_decode(bytes, uuid, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "version 9 is not supported, only 1");
    error_free(err);
    err = NULL;
    bytes[0] = 0;
    g_assert_cmpint(multifd_init_decode(bytes, uuid, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "magic number is 0x00223344, expected 0x11223344");
    error_free(err);
}

static void test_packet(void)
{
    uint8_t bytes[MULTIFD_PACKET_BYTES];
    MultifdPacket packet = {
        .flags = MULTIFD_FLAG_ZSTD, .normal_pages = 2, .zero_pages = 1, .data_bytes = 77,
        .number = 0x123456789a, .block = "pc.ram", .offsets = { 0x1000, 0x5000, 0x3000 },
    };
    MultifdPacket back;

    g_assert_cmpuint(sizeof(bytes), ==, 1344);
    multifd_packet_encode(bytes, &packet);
    g_assert_cmpuint(ldl_be_p(bytes + 8), ==, 4);
    g_assert_cmpuint(ldl_be_p(bytes + 12), ==, 128);
    g_assert_cmpuint(ldl_be_p(bytes + 16), ==, 2);
    g_assert_cmpuint(ldl_be_p(bytes + 20), ==, 77);
    g_assert_cmpuint(ldq_be_p(bytes + 24), ==, 0x123456789a);
    g_assert_cmpuint(ldl_be_p(bytes + 32), ==, 1);
    g_assert_cmpstr((char *)bytes + 64, ==, "pc.ram");
    g_assert_cmpuint(ldq_be_p(bytes + 320 + 16), ==, 0x3000);

    g_assert_cmpint(multifd_packet_decode(&back, bytes, &error_abort), ==, 0);
    g_assert_cmpuint(back.flags, ==, packet.flags);
    g_assert_cmpuint(back.number, ==, packet.number);
    g_assert_cmpuint(back.data_bytes, ==, 77);
    g_assert_cmpstr(back.block, ==, "pc.ram");
    g_assert_cmpuint(back.offsets[2], ==, 0x3000);
}

static void check_packet_refused(unsigned at, uint64_t value, unsigned size, const char *message)
{
    uint8_t bytes[MULTIFD_PACKET_BYTES], number[8];
    MultifdPacket packet = {
        .normal_pages = 2, .data_bytes = 8192, .block = "a", .offsets = { 0x1000, 0x5000 },
    };
    Error *err = NULL;

    multifd_packet_encode(bytes, &packet);
    stq_be_p(number, value);
    memcpy(bytes + at, number + 8 - size, size);
    g_assert_cmpint(multifd_packet_decode(&packet, bytes, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void test_packet_refused(void)
{
    uint8_t bytes[MULTIFD_PACKET_BYTES];
    MultifdPacket packet = { 0 };
    Error *err = NULL;

    check_packet_refused(0, 0, 4, "magic number is 0x00000000, expected 0x11223344");
    check_packet_refused(4, 2, 4, "version 2 is not supported, only 1");
    check_packet_refused(8, 0x100, 4, "unknown flags 0x100");
    check_packet_refused(8, 1, 4, "a sync packet with 2 pages");
    check_packet_refused(12, 129, 4, "room for 129 pages, at most 128 are supported");
    check_packet_refused(12, 1, 4, "2 pages and 0 zero pages are more than the 1 that it has room "
                         "for");
    check_packet_refused(16, 0, 4, "8192 bytes of data for no pages");
    check_packet_refused(16, 0xffffffff, 4, "4294967295 pages and 0 zero pages are more than the "
                         "128 that it has room for");
    check_packet_refused(32, 127, 4, "2 pages and 127 zero pages are more than the 128 that it has "
                         "room for");
    check_packet_refused(320 + 8, 0x5001, 8, "RAM block 'a': offset 0x5001 is not that of a page");
    multifd_packet_encode(bytes, &packet);
    memset(bytes + 64, 'x', 256);
    g_assert_cmpint(multifd_packet_decode(&packet, bytes, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "the name of the RAM block has no end");
    error_free(err);
}

/*
 * Compression -----------------------------------------------------------------------------------
 */

#define PAGES 128

static void fill_pages(uint8_t *memory, unsigned seed)
{
    g_autoptr(GRand) rnd = g_rand_new_with_seed(seed);

    for (unsigned page = 0; page < PAGES; page++) {
        for (unsigned i = 0; i < TARGET_PAGE_SIZE; i += 4) {
            stl_le_p(memory + page * TARGET_PAGE_SIZE + i,
                     page % 3 == 0 ? g_rand_int(rnd) : page % 3 == 1 ? page : i / 64);
        }
    }
}

static void test_method(gconstpointer opaque)
{
    const MultifdMethod *method = opaque;
    MigrationOptions opts = { .params = { .multifd_zlib_level = 1, .multifd_zstd_level = 1 } };
    void *in = method->compress_new(&opts, &error_abort),
         *out = method->decompress_new(&error_abort);
    g_autofree uint8_t *memory = g_malloc(PAGES * TARGET_PAGE_SIZE);
    g_autofree uint8_t *back = g_malloc(PAGES * TARGET_PAGE_SIZE);
    g_autofree uint8_t *data = g_malloc(MULTIFD_COMPRESSED_MAX);
    uint8_t *from[PAGES], *to[PAGES];
    Error *err = NULL;
    int64_t len;

    for (unsigned i = 0; i < PAGES; i++) {
        /* Anywhere in memory. */
        from[i] = memory + i * 37 % PAGES * TARGET_PAGE_SIZE;
        to[i] = back + i * 37 % PAGES * TARGET_PAGE_SIZE;
    }
    for (unsigned round = 0; round < 20; round++) {
        unsigned n = round % 2 ? PAGES : 1 + round;

        fill_pages(memory, round);
        len = method->compress(in, from, n, data, &error_abort);
        g_assert_cmpint(len, >, 0);
        g_assert_cmpint(method->decompress(out, data, len, to, n, &error_abort), ==, 0);
        for (unsigned i = 0; i < n; i++) {
            g_assert_cmpint(memcmp(from[i], to[i], TARGET_PAGE_SIZE), ==, 0);
        }
    }
    /* More than the pages, less than the pages, and no data of this kind at all. */
    len = method->compress(in, from, 4, data, &error_abort);
    g_assert_cmpint(method->decompress(out, data, len, to, 3, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "hold more than them"));
    error_free(err);
    err = NULL;
    method->decompress_free(out);
    method->compress_free(in);
    in = method->compress_new(&opts, &error_abort);
    out = method->decompress_new(&error_abort);
    len = method->compress(in, from, 4, data, &error_abort);
    g_assert_cmpint(method->decompress(out, data, len / 2, to, 4, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "of 4 failed: the data end too early"));
    error_free(err);
    err = NULL;
    method->decompress_free(out);
    out = method->decompress_new(&error_abort);
    memset(data, 0xa5, 1000);
    g_assert_cmpint(method->decompress(out, data, 1000, to, 4, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "failed"));
    error_free(err);
    method->decompress_free(out);
    method->compress_free(in);
}

/*
 * Round trips -----------------------------------------------------------------------------------
 */

typedef struct Case {
    unsigned channels;
    MultiFDCompression compression;
    ZeroPageDetection detect;
    bool live;
} Case;

static RamHarness *harness_for(const Case *c)
{
    RamHarness *h = ram_harness_new();

    h->ctx.opts.caps[MIGRATION_CAPABILITY_MULTIFD] = true;
    h->ctx.opts.params.multifd_channels = c->channels;
    h->ctx.opts.params.multifd_compression = c->compression;
    h->ctx.opts.params.zero_page_detection = c->detect;
    ram_harness_add_extra(h, c->channels);
    return h;
}

static void make_blocks(void)
{
    ram_fill(ram_block_new("pc.ram", 7 * MIB + 3 * TARGET_PAGE_SIZE, NULL, &error_abort), 1);
    ram_fill(ram_block_new("vga.vram", 2 * MIB, NULL, &error_abort), 3);
}

static void stop_writers(RamHarness *h)
{
    ram_writers_stop(h->opaque);
}

/* Channels arrive in any order. */
static void shuffle_channels(RamHarness *h)
{
    GPtrArray *extra = h->channels.extra;

    for (guint i = extra->len; i > 1; i--) {
        guint j = g_test_rand_int_range(0, i);
        gpointer p = extra->pdata[i - 1];

        extra->pdata[i - 1] = extra->pdata[j];
        extra->pdata[j] = p;
    }
}

static void test_round_trip(gconstpointer opaque)
{
    const Case *c = opaque;
    g_autoptr(RamHarness) h = harness_for(c);
    g_autoptr(RamSnapshot) snapshot = NULL;
    uint64_t populated;

    make_blocks();
    populated = ram_populated_pages();
    if (c->live) {
        h->opaque = ram_writers_start(2);
        h->stop_guest = stop_writers;
        h->min_passes = 4;
        h->budget = 2 * MIB;
    }
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    g_assert_cmpuint(h->ctx.counters.channels, ==, c->channels);
    if (!c->live) {
        g_assert_cmpuint(h->ctx.counters.normal_pages + h->ctx.counters.zero_pages, ==, populated);
    }
    if (c->detect == ZERO_PAGE_DETECTION_NONE) {
        g_assert_cmpuint(h->ctx.counters.zero_pages, ==, 0);
    } else {
        g_assert_cmpuint(h->ctx.counters.zero_pages, >, 0);
    }
    snapshot = ram_snapshot_take();
    ram_wipe();
    shuffle_channels(h);
    h->ctx.counters = (MigrationCounters) { 0 };
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);
    ram_free_all();
}

/*
 * What is wrong ---------------------------------------------------------------------------------
 */

static const Case plain3 = { 3, MULTI_FD_COMPRESSION_NONE, ZERO_PAGE_DETECTION_MULTIFD, false };

static void check_load_fails(RamHarness *h, const char *message)
{
    Error *err = NULL;

    g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
    ram_harness_free(h);
    ram_free_all();
}

static RamHarness *saved(const Case *c)
{
    RamHarness *h = harness_for(c);

    make_blocks();
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    return h;
}

static void test_other_machine(void)
{
    RamHarness *h = saved(&plain3);

    identity_set_uuid("550e8400-e29b-41d4-a716-446655440000", &error_abort);
    check_load_fails(h, "multifd connection 1 of 3: it comes from the machine with UUID "
                     "'00000000-0000-0000-0000-000000000000', this one has "
                     "'550e8400-e29b-41d4-a716-446655440000'");
    identity_set_uuid("00000000-0000-0000-0000-000000000000", &error_abort);
}

static void test_count_differs(void)
{
    RamHarness *h = saved(&plain3);

    h->ctx.opts.params.multifd_channels = 2;
    check_load_fails(h, "the source opened more multifd channels than the 2 of parameter "
                     "'multifd-channels' here");
    h = saved(&plain3);
    h->ctx.opts.params.multifd_channels = 2;
    g_ptr_array_remove_index(h->channels.extra, 0);
    check_load_fails(h, "multifd connection 2 of 2: it has number 2, but parameter "
                     "'multifd-channels' is 2 here");
    h = saved(&plain3);
    h->ctx.opts.params.multifd_channels = 4;
    check_load_fails(h, "multifd channel 3 of 4: no more channels");
}

static void test_twice(void)
{
    RamHarness *h = saved(&plain3);
    size_t size;
    const uint8_t *data = qio_channel_buffer_data(h->channels.extra->pdata[1], &size);
    QIOChannel *copy = QIO_CHANNEL(qio_channel_buffer_new(size));

    qio_channel_write_all(copy, data, size, &error_abort);
    qio_channel_unref(h->channels.extra->pdata[2]);
    h->channels.extra->pdata[2] = copy;
    check_load_fails(h, "multifd connection 3 of 3: it has number 1, as another has");
}

static void test_compression_differs(void)
{
    RamHarness *h = saved(&(Case) { 1, MULTI_FD_COMPRESSION_ZLIB, ZERO_PAGE_DETECTION_MULTIFD,
                                    false });

    h->ctx.opts.params.multifd_compression = MULTI_FD_COMPRESSION_ZSTD;
    check_load_fails(h, "multifd channel 0: packet with compression 0x2, but parameter "
                     "'multifd-compression' is 'zstd' here");
}

/* Cut channel @i of what was saved to @len bytes. */
static void cut_channel(RamHarness *h, unsigned i, size_t len)
{
    size_t size;
    const uint8_t *data = qio_channel_buffer_data(h->channels.extra->pdata[i], &size);
    QIOChannel *copy = QIO_CHANNEL(qio_channel_buffer_new(size));

    qio_channel_write_all(copy, data, MIN(len, size), &error_abort);
    qio_channel_unref(h->channels.extra->pdata[i]);
    h->channels.extra->pdata[i] = copy;
}

static void test_lost_channel(gconstpointer opaque)
{
    MultiFDCompression compression = GPOINTER_TO_INT(opaque);
    const size_t lengths[] = { 0, 30, 64, 64 + 1000, 64 + 1344, 64 + 1344 + 5000, 300000 };

    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        RamHarness *h = saved(&(Case) { 3, compression, ZERO_PAGE_DETECTION_NONE, false });
        Error *err = NULL;

        cut_channel(h, 1, lengths[i]);
        g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
        g_assert_nonnull(strstr(error_get_pretty(err),
                                lengths[i] < 64 ? "multifd connection 2 of 3: "
                                                : "multifd channel 1"));
        error_free(err);
        ram_harness_free(h);
        ram_free_all();
    }
}

/* A channel that holds a good beginning and then @packet and @len bytes of data. */
static RamHarness *saved_with_packet(const MultifdPacket *packet, size_t len)
{
    const Case c = { 1, MULTI_FD_COMPRESSION_NONE, ZERO_PAGE_DETECTION_MULTIFD, false };
    RamHarness *h = harness_for(&c);
    uint8_t bytes[MULTIFD_PACKET_BYTES];
    g_autofree uint8_t *data = g_malloc0(len + 1);

    ram_fill(ram_block_new("a", 64 * TARGET_PAGE_SIZE, NULL, &error_abort), 1);
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    cut_channel(h, 0, MULTIFD_INIT_BYTES);
    multifd_packet_encode(bytes, packet);
    qio_channel_write_all(h->channels.extra->pdata[0], bytes, sizeof(bytes), &error_abort);
    qio_channel_write_all(h->channels.extra->pdata[0], data, len, &error_abort);
    return h;
}

static void check_packet_fails(const MultifdPacket *packet, size_t len, const char *message)
{
    check_load_fails(saved_with_packet(packet, len), message);
}

static void test_bad_packets(void)
{
    check_packet_fails(&(MultifdPacket) { .zero_pages = 1, .block = "b" }, 0,
                       "multifd channel 0: pages of an unknown RAM block 'b'");
    check_packet_fails(&(MultifdPacket){ .zero_pages = 1, .block = "a", .offsets = { 0x40000 } }, 0,
                       "multifd channel 0: RAM block 'a': offset 0x40000 is beyond its end "
                       "(0x40000 bytes)");
    check_packet_fails(&(MultifdPacket){ .normal_pages = 1, .block = "a", .data_bytes = 4095 },
                       4095, "multifd channel 0: 4095 bytes of data for 1 pages");
    check_packet_fails(&(MultifdPacket) { .normal_pages = 1, .block = "a", .data_bytes = 4096,
                                          .offsets = { 0x2000 } }, 100,
                       "multifd channel 0: RAM block 'a', 1 pages from offset 0x2000 on: "
                       "Unexpected end-of-file before all data were read");
}

/* The numbers of the packets say that one before the first is missing. */
static void test_lost_packet(void)
{
    MultifdPacket packet = { .flags = MULTIFD_FLAG_SYNC, .number = 1 };
    uint8_t bytes[MULTIFD_PACKET_BYTES];
    RamHarness *h = saved_with_packet(&packet, 0);

    /* One sync at the end of the first pass, one at the end of all. */
    packet.number = 2;
    multifd_packet_encode(bytes, &packet);
    qio_channel_write_all(h->channels.extra->pdata[0], bytes, sizeof(bytes), &error_abort);
    check_load_fails(h, "3 multifd packets were sent, but 2 came");
}

/* Bytes changed in a channel: loaded or refused, never stuck. */
static void test_spoiled_anywhere(gconstpointer opaque)
{
    const Case c = { 2, GPOINTER_TO_INT(opaque), ZERO_PAGE_DETECTION_MULTIFD, false };
    RamHarness *h = harness_for(&c);
    g_autoptr(GRand) rnd = g_rand_new_with_seed(98);
    g_autofree uint8_t *good = NULL;
    const uint8_t *data;
    unsigned refused = 0;
    size_t size;

    ram_fill(ram_block_new("a", 150 * TARGET_PAGE_SIZE, NULL, &error_abort), 3);
    ram_fill(ram_block_new("b", 9 * TARGET_PAGE_SIZE, NULL, &error_abort), 4);
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    data = qio_channel_buffer_data(h->channels.extra->pdata[0], &size);
    good = g_memdup2(data, size);
    for (unsigned i = 0; i < 300; i++) {
        g_autoptr(RamHarness) again = harness_for(&c);
        g_autoptr(GByteArray) stream = ram_harness_stream(h);
        size_t other_size;
        const uint8_t *other = qio_channel_buffer_data(h->channels.extra->pdata[1], &other_size);
        g_autofree uint8_t *copy = g_memdup2(good, size);
        Error *err = NULL;

        for (unsigned n = 1 + i % 3; n; n--) {
            copy[g_rand_int(rnd) % MIN(size, i % 2 ? 500 : size)] = g_rand_int(rnd);
        }
        ram_harness_set_stream(again, stream->data, stream->len);
        qio_channel_write_all(again->channels.extra->pdata[0], copy, size, &error_abort);
        qio_channel_write_all(again->channels.extra->pdata[1], other, other_size, &error_abort);
        if (ram_harness_load(again, &err) < 0) {
            g_assert_nonnull(err);
            error_free(err);
            refused++;
        }
    }
    g_assert_cmpuint(refused, >, 50);
    ram_harness_free(h);
    ram_free_all();
}

/* One connection breaks at the source: all stop, and the error names it. */
static void test_broken_channel(void)
{
    RamHarness *h = harness_for(&plain3);
    int fds[2];
    Error *err = NULL;

    /* Room for the channel's introduction, and nobody who reads on. */
    g_assert_cmpint(pipe(fds), ==, 0);
    fcntl(fds[0], F_SETPIPE_SZ, 4096);
    close(fds[0]);
    qio_channel_unref(h->channels.extra->pdata[1]);
    h->channels.extra->pdata[1] = qio_channel_file_new_fd(fds[1], &error_abort);
    make_blocks();
    g_assert_cmpint(ram_harness_save(h, &err), ==, -1);
    g_assert_true(g_str_has_prefix(error_get_pretty(err), "multifd channel 1: "));
    g_assert_nonnull(strstr(error_get_pretty(err), "Broken pipe"));
    error_free(err);
    ram_harness_free(h);
    ram_free_all();
}

static void test_cannot_open(void)
{
    RamHarness *h = harness_for(&plain3);
    Error *err = NULL;

    h->channels.fail_extra = 2;
    make_blocks();
    g_assert_cmpint(ram_harness_save(h, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "multifd channel 1 of 3: no more channels");
    error_free(err);
    ram_harness_free(h);
    ram_free_all();
}

int main(int argc, char **argv)
{
    static Case cases[64];
    static const unsigned counts[] = { 1, 2, 5, 255 };
    unsigned n = 0;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/multifd/format/init", test_init);
    g_test_add_func("/multifd/format/packet", test_packet);
    g_test_add_func("/multifd/format/packet-refused", test_packet_refused);
    g_test_add_data_func("/multifd/method/zlib", &multifd_method_zlib, test_method);
    g_test_add_data_func("/multifd/method/zstd", &multifd_method_zstd, test_method);
    for (unsigned i = 0; i < G_N_ELEMENTS(counts); i++) {
        for (unsigned compression = 0; compression < MULTI_FD_COMPRESSION__MAX; compression++) {
            for (unsigned detect = 0; detect < ZERO_PAGE_DETECTION__MAX; detect++) {
                Case *c = &cases[n++];

                if (counts[i] > 100 && compression != MULTI_FD_COMPRESSION_NONE) {
                    continue;
                }
                g_autofree char *name = g_strdup_printf(
                    "/multifd/round-trip/%u-channels/%s/zero-%s", counts[i],
                    MultiFDCompression_str(compression), ZeroPageDetection_str(detect));

                /* Half of the cases while threads write. */
                *c = (Case) { counts[i], compression, detect,
                              counts[i] < 100 && (i + compression + detect) % 2 };
                g_test_add_data_func(name, c, test_round_trip);
            }
        }
    }
    g_test_add_func("/multifd/other-machine", test_other_machine);
    g_test_add_func("/multifd/count-differs", test_count_differs);
    g_test_add_func("/multifd/twice", test_twice);
    g_test_add_func("/multifd/compression-differs", test_compression_differs);
    g_test_add_data_func("/multifd/lost-channel/none",
                         GINT_TO_POINTER(MULTI_FD_COMPRESSION_NONE), test_lost_channel);
    g_test_add_data_func("/multifd/lost-channel/zstd",
                         GINT_TO_POINTER(MULTI_FD_COMPRESSION_ZSTD), test_lost_channel);
    g_test_add_func("/multifd/bad-packets", test_bad_packets);
    g_test_add_func("/multifd/lost-packet", test_lost_packet);
    g_test_add_data_func("/multifd/spoiled-anywhere/none",
                         GINT_TO_POINTER(MULTI_FD_COMPRESSION_NONE), test_spoiled_anywhere);
    g_test_add_data_func("/multifd/spoiled-anywhere/zlib",
                         GINT_TO_POINTER(MULTI_FD_COMPRESSION_ZLIB), test_spoiled_anywhere);
    g_test_add_data_func("/multifd/spoiled-anywhere/zstd",
                         GINT_TO_POINTER(MULTI_FD_COMPRESSION_ZSTD), test_spoiled_anywhere);
    g_test_add_func("/multifd/broken-channel", test_broken_channel);
    g_test_add_func("/multifd/cannot-open", test_cannot_open);
    return g_test_run();
}
