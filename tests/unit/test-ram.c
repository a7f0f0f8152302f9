/*
 * RAM through the main stream: what was saved is what is loaded, also while it is written; memory
 * that nobody touched stays so; and every way in which a stream can be wrong has its message.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "migration/autoconverge.h"
#include "migration/ram-format.h"
#include "ram-harness.h"
#include "util/bswap.h"

#define MIB (1024 * 1024)

static RAMBlock *two_blocks(void)
{
    RAMBlock *ram = ram_block_new("pc.ram", 24 * MIB, NULL, &error_abort);
    ram_fill(ram, 1);
    ram_fill(ram_block_new("vga.vram", 3 * MIB + 5 * TARGET_PAGE_SIZE, NULL, &error_abort), 2);
    return ram;
}

static void test_round_trip(gconstpointer opaque)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    g_autoptr(RamSnapshot) snapshot = NULL;
    uint64_t populated;

    h->ctx.opts.params.zero_page_detection = GPOINTER_TO_INT(opaque);
    two_blocks();
    populated = ram_populated_pages();
    snapshot = ram_snapshot_take();
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    g_assert_cmpuint(h->ctx.counters.normal_pages + h->ctx.counters.zero_pages, ==, populated);
    if (h->ctx.opts.params.zero_page_detection == ZERO_PAGE_DETECTION_NONE) {
        g_assert_cmpuint(h->ctx.counters.zero_pages, ==, 0);
    } else {
        g_assert_cmpuint(h->ctx.counters.zero_pages, >, 0);
    }
    g_assert_cmpuint(h->ctx.counters.remaining_bytes, ==, 0);
    g_assert_cmpuint(h->ctx.counters.total_bytes, ==, ram_blocks_total());
    g_assert_cmpuint(ram_populated_pages(), ==, populated);

    h->ctx.counters = (MigrationCounters) { 0 };
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    g_assert_cmpuint(ram_populated_pages(), <=, populated);
    ram_snapshot_compare(snapshot);
    ram_free_all();
}

/* Whatever memory held before a load, it holds what the source held. */
static void test_load_over_data(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    g_autoptr(RamSnapshot) snapshot = NULL;

    two_blocks();
    snapshot = ram_snapshot_take();
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    ram_wipe();
    RAMBLOCK_FOREACH(block) {
        memset(block->host, 0x55, block->used_length / 2);
        block->host[block->used_length - 1] = 1;
    }
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);
    ram_free_all();
}

static void stop_writers(RamHarness *h)
{
    ram_writers_stop(h->opaque);
}

static void test_writers(void)
{
    for (unsigned round = 0; round < 3; round++) {
        g_autoptr(RamHarness) h = ram_harness_new();
        g_autoptr(RamSnapshot) snapshot = NULL;

        two_blocks();
        h->opaque = ram_writers_start(2);
        h->stop_guest = stop_writers;
        h->min_passes = 4;
        h->budget = round == 1 ? 100000 : 3 * MIB;
        g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
        g_assert_cmpuint(h->ctx.counters.dirty_sync_count, >=, 5);
        snapshot = ram_snapshot_take();
        ram_wipe();
        g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
        ram_snapshot_compare(snapshot);
        ram_free_all();
    }
}

static void write_between_turns(RamHarness *h, unsigned turn)
{
    RAMBlock *ram = ram_block_by_name("pc.ram");

    memset(ram->host + turn * 37 % ram->pages * TARGET_PAGE_SIZE, turn % 3 ? turn : 0,
           TARGET_PAGE_SIZE);
}

static void write_between_file_turns(RamHarness *h, unsigned turn)
{
    RAMBlock *block = ram_block_by_name("file");

    memset(block->host + turn * 41 % block->pages * TARGET_PAGE_SIZE, turn, TARGET_PAGE_SIZE);
}

/* Pages written, and written with zeroes, behind and before the cursor. */
static void test_between_turns(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    g_autoptr(RamSnapshot) snapshot = NULL;

    two_blocks();
    h->before_turn = write_between_turns;
    h->budget = 50000;
    h->min_passes = 6;
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    g_assert_cmpuint(h->turns, >, 100);
    snapshot = ram_snapshot_take();
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);
    ram_free_all();
}

static void test_sparse(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    RAMBlock *ram = ram_block_new("huge", (uint64_t)256 << 30, NULL, &error_abort);
    g_autoptr(GByteArray) stream = NULL;

    for (unsigned i = 0; i < 64; i++) {
        ram->host[(uint64_t)i << 32] = i + 1;
    }
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    stream = ram_harness_stream(h);
    g_assert_cmpuint(stream->len, <, 64 * 1024 * 1024);
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram = ram_block_by_name("huge");
    for (unsigned i = 0; i < 64; i++) {
        g_assert_cmpuint(ram->host[(uint64_t)i << 32], ==, i + 1);
    }
    ram_free_all();
}

static void cancel_in_turn(RamHarness *h, unsigned turn)
{
    if (turn == 3) {
        h->ctx.cancelled = 1;
    }
}

static void test_cancel(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    Error *err = NULL;

    two_blocks();
    h->before_turn = cancel_in_turn;
    h->budget = 50000;
    g_assert_cmpint(ram_harness_save(h, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "the migration was cancelled");
    g_assert_cmpuint(h->turns, ==, 4);
    error_free(err);
    ram_free_all();
}

/* A shared file that the destination opens itself is left out, if it lies at the same address. */
static void test_ignore_shared(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "ferry-ram-XXXXXX", NULL);
    RAMBacking backing = { .kind = RAM_BACKING_FILE, .path = path, .share = true };
    g_autoptr(RamSnapshot) snapshot = NULL;
    g_autoptr(GByteArray) stream = NULL;
    RAMBlock *shared;
    Error *err = NULL;
    int fd = g_mkstemp(path);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    h->ctx.opts.caps[MIGRATION_CAPABILITY_X_IGNORE_SHARED] = true;
    ram_fill(ram_block_new("own", 2 * MIB, NULL, &error_abort), 5);
    shared = ram_block_new("shared", 8 * MIB, &backing, &error_abort);
    memset(shared->host, 0x5a, shared->used_length);
    shared->guest_addr = 0x100000;
    snapshot = ram_snapshot_take();
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    stream = ram_harness_stream(h);
    g_assert_cmpuint(stream->len, <, 3 * MIB);

    ram_free_all();
    ram_block_new("own", 2 * MIB, NULL, &error_abort);
    shared = ram_block_new("shared", 8 * MIB, &backing, &error_abort);
    shared->guest_addr = 0x100000;
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);

    shared->guest_addr = 0x200000;
    g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "RAM block 'shared' is at guest address 0x100000 at "
                    "the source, but at 0x200000 in this machine");
    error_free(err);
    ram_free_all();
    g_unlink(path);
}

/*
 * Memory over a file, private and shared, of which part was read here, part was written, part
 * neither.
 */
static void test_file_backed(gconstpointer opaque)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "ferry-ram-XXXXXX", NULL);
    RAMBacking backing = { .kind = RAM_BACKING_FILE, .path = path,
                           .share = GPOINTER_TO_INT(opaque) };
    g_autoptr(RamSnapshot) snapshot = NULL;
    g_autofree uint8_t *data = g_malloc(4 * MIB);
    int fd = g_mkstemp(path);
    RAMBlock *block;

    for (unsigned i = 0; i < 4 * MIB; i++) {
        data[i] = i >> 9;
    }
    g_assert_cmpint(pwrite(fd, data, 4 * MIB, 8 * MIB), ==, 4 * MIB);
    g_assert_cmpint(pwrite(fd, data, 5000, 31 * MIB), ==, 5000);
    g_assert_cmpint(ftruncate(fd, 32 * MIB), ==, 0);
    close(fd);
    block = ram_block_new("file", 32 * MIB, &backing, &error_abort);
    memset(block->host + 2 * MIB, 0x11, MIB);
    memset(block->host + 9 * MIB, 0, MIB);
    g_assert_cmpuint(block->host[10 * MIB], ==, (uint8_t)((2 * MIB) >> 9));
    h->before_turn = write_between_file_turns;
    h->budget = 200000;
    h->min_passes = 3;
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    snapshot = ram_snapshot_take();
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);
    ram_free_all();
    g_unlink(path);
}

/*
 * Streams that are wrong ------------------------------------------------------------------------
 */

static void add(GByteArray *b, uint64_t value, unsigned size)
{
    for (unsigned i = size; i-- > 0;) {
        uint8_t byte = value >> (i * 8);
        g_byte_array_append(b, &byte, 1);
    }
}

static void add_id(GByteArray *b, const char *id)
{
    add(b, strlen(id), 1);
    g_byte_array_append(b, (const uint8_t *)id, strlen(id));
}

static GByteArray *begin_stream(uint64_t total)
{
    GByteArray *b = g_byte_array_new();

    add(b, 1, 1);
    add(b, total | RAM_RECORD_MEM_SIZE, 8);
    return b;
}

/* The right beginning for a machine with one block "a" of 16 pages. */
static GByteArray *good_beginning(void)
{
    GByteArray *b = begin_stream(65536);

    add_id(b, "a");
    add(b, 65536, 8);
    return b;
}

static void check_refused(GByteArray *b, const char *message)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    Error *err = NULL;

    ram_harness_set_stream(h, b->data, b->len);
    g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
    g_byte_array_unref(b);
}

static void test_refused_blocks(void)
{
    GByteArray *b;

    ram_block_new("a", 65536, NULL, &error_abort);

    b = begin_stream(65536);
    add_id(b, "b");
    add(b, 65536, 8);
    check_refused(b, "RAM block 'b' of the source does not exist in this machine");

    b = begin_stream(65536);
    add_id(b, "a");
    add(b, 32768, 8);
    check_refused(b,
                  "RAM block 'a' has 32768 bytes at the source, but 65536 bytes in this machine");

    b = begin_stream(32768);
    add_id(b, "a");
    add(b, 65536, 8);
    check_refused(b, "RAM block 'a' goes beyond the total RAM size in the stream");

    b = begin_stream(2 * 65536);
    add_id(b, "a");
    add(b, 65536, 8);
    add_id(b, "a");
    add(b, 65536, 8);
    check_refused(b, "RAM block 'a' is listed twice in the stream");

    check_refused(begin_stream(0), "RAM block 'a' of this machine is missing in the stream");

    b = begin_stream(65536);
    add(b, 2, 1);
    add(b, 0x6100, 2);
    add(b, 65536, 8);
    check_refused(b, "the list of RAM blocks in the stream holds an invalid name");

    b = begin_stream(65536);
    add_id(b, "a");
    check_refused(b, "reading the list of RAM blocks: the migration stream ends unexpectedly after "
                  "11 bytes");

    b = good_beginning();
    add(b, 65536 | RAM_RECORD_MEM_SIZE, 8);
    check_refused(b, "the stream lists its RAM blocks twice");

    b = g_byte_array_new();
    add(b, 0, 1);
    check_refused(b, "the stream holds no RAM");
    ram_free_all();
}

static void test_refused_pages(void)
{
    RAMBlock *block = ram_block_new("a", 65536, NULL, &error_abort);
    g_autofree uint8_t *page = g_malloc0(TARGET_PAGE_SIZE);
    GByteArray *b;

    b = g_byte_array_new();
    add(b, 1, 1);
    add(b, RAM_RECORD_PAGE, 8);
    add_id(b, "a");
    check_refused(b, "the stream holds a RAM page before its list of RAM blocks");

    b = good_beginning();
    add(b, 0x3000 | RAM_RECORD_PAGE, 8);
    add_id(b, "x");
    check_refused(b, "RAM page at offset 0x3000 of an unknown block 'x'");

    b = good_beginning();
    add(b, 0x10000 | RAM_RECORD_ZERO, 8);
    add_id(b, "a");
    add(b, 0, 1);
    check_refused(b, "RAM page at offset 0x10000 is beyond the end of block 'a' (0x10000 bytes)");

    b = good_beginning();
    add(b, 0x1000 | RAM_RECORD_PAGE | RAM_RECORD_CONTINUE, 8);
    check_refused(b, "RAM page at offset 0x1000 belongs to no block");

    /* The same through the fast path: a good page before. */
    b = good_beginning();
    add(b, 0x1000 | RAM_RECORD_PAGE, 8);
    add_id(b, "a");
    g_byte_array_append(b, page, TARGET_PAGE_SIZE);
    add(b, 0xfffffffffffff000ull | RAM_RECORD_PAGE | RAM_RECORD_CONTINUE, 8);
    g_byte_array_append(b, page, TARGET_PAGE_SIZE);
    check_refused(b, "RAM page at offset 0xfffffffffffff000 is beyond the end of block 'a' "
                  "(0x10000 bytes)");

    b = good_beginning();
    add(b, 0x1000 | RAM_RECORD_ZERO, 8);
    add_id(b, "a");
    add(b, 0, 1);
    add(b, 0x2000 | RAM_RECORD_ZERO | RAM_RECORD_CONTINUE, 8);
    add(b, 7, 1);
    check_refused(b, "RAM block 'a', offset 0x2000: page filled with 0x07, only zero is allowed");

    b = good_beginning();
    add(b, 0x2000 | RAM_RECORD_ZERO, 8);
    add_id(b, "a");
    add(b, 7, 1);
    check_refused(b, "RAM block 'a', offset 0x2000: page filled with 0x07, only zero is allowed");

    b = good_beginning();
    add(b, 0x2000 | RAM_RECORD_PAGE, 8);
    add_id(b, "a");
    g_byte_array_append(b, page, 100);
    check_refused(b, "RAM block 'a', offset 0x2000: the migration stream ends unexpectedly after "
                  "129 bytes");

    b = good_beginning();
    add(b, 0x2000 | RAM_RECORD_XBZRLE, 8);
    check_refused(b, "the stream holds RAM pages compressed with XBZRLE, which is not supported");

    b = good_beginning();
    add(b, 0x2000 | 0x880, 8);
    check_refused(b, "the stream holds an unknown RAM record (flags 0x880)");

    b = good_beginning();
    add(b, RAM_RECORD_MULTIFD_FLUSH, 8);
    check_refused(b,
                  "the stream waits for multifd channels, but the capability multifd is not set");

    for (unsigned i = 0; i < block->used_length; i++) {
        g_assert_cmpuint(block->host[i], ==, 0);
    }
    ram_free_all();
}

/* Cut anywhere, a stream is refused, and nothing else happens. */
static void test_refused_cut(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    g_autoptr(GByteArray) stream = NULL;

    ram_fill(ram_block_new("a", 32 * TARGET_PAGE_SIZE, NULL, &error_abort), 3);
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    stream = ram_harness_stream(h);
    for (size_t len = 0; len < stream->len; len += len < 200 ? 1 : 997) {
        Error *err = NULL;

        ram_harness_set_stream(h, stream->data, len);
        g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
        g_assert_nonnull(strstr(error_get_pretty(err), "ends unexpectedly"));
        error_free(err);
    }
    ram_free_all();
}

/* Bytes changed anywhere: loaded or refused, and nothing is touched that is not guest memory. */
static void test_spoiled_anywhere(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    g_autoptr(GByteArray) stream = NULL;
    g_autoptr(GRand) rnd = g_rand_new_with_seed(99);
    unsigned refused = 0;

    ram_fill(ram_block_new("a", 16 * TARGET_PAGE_SIZE, NULL, &error_abort), 3);
    ram_fill(ram_block_new("b", 9 * TARGET_PAGE_SIZE, NULL, &error_abort), 4);
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    stream = ram_harness_stream(h);
    for (unsigned i = 0; i < 3000; i++) {
        g_autofree uint8_t *copy = g_memdup2(stream->data, stream->len);
        Error *err = NULL;

        for (unsigned n = 1 + i % 3; n; n--) {
            /* Mostly where the structure is: the beginning, and around page records. */
            size_t at = i % 2 ? g_rand_int(rnd) % MIN(stream->len, 80)
                              : g_rand_int(rnd) % (stream->len / 4096 + 1) * 4104 +
                                g_rand_int(rnd) % 60;
            copy[MIN(at, stream->len - 1)] = g_rand_int(rnd);
        }
        ram_harness_set_stream(h, copy, stream->len);
        if (ram_harness_load(h, &err) < 0) {
            g_assert_nonnull(err);
            error_free(err);
            refused++;
        }
    }
    g_assert_cmpuint(refused, >, 1000);
    ram_free_all();
}

static void test_autoconverge(void)
{
    AutoConverge ac = { 0 };

    ram_harness_throttle = 0;
    autoconverge_period(&ac, 1000, 500);
    autoconverge_period(&ac, 1000, 400);
    g_assert_cmpint(ram_harness_throttle, ==, 0);
    autoconverge_period(&ac, 1000, 501);        /* once is chance */
    g_assert_cmpint(ram_harness_throttle, ==, 0);
    autoconverge_period(&ac, 1000, 501);
    g_assert_cmpint(ram_harness_throttle, ==, 20);
    for (unsigned i = 0; i < 20; i++) {
        autoconverge_period(&ac, 1000, 5000);
    }
    g_assert_cmpint(ram_harness_throttle, ==, 75);
    autoconverge_stop(&ac);
    g_assert_cmpint(ram_harness_throttle, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/ram/round-trip/zero-none", GINT_TO_POINTER(ZERO_PAGE_DETECTION_NONE),
                         test_round_trip);
    g_test_add_data_func("/ram/round-trip/zero-legacy",
                         GINT_TO_POINTER(ZERO_PAGE_DETECTION_LEGACY), test_round_trip);
    g_test_add_data_func("/ram/round-trip/zero-multifd",
                         GINT_TO_POINTER(ZERO_PAGE_DETECTION_MULTIFD), test_round_trip);
    g_test_add_func("/ram/load-over-data", test_load_over_data);
    g_test_add_func("/ram/writers", test_writers);
    g_test_add_func("/ram/between-turns", test_between_turns);
    g_test_add_func("/ram/sparse", test_sparse);
    g_test_add_func("/ram/ignore-shared", test_ignore_shared);
    g_test_add_data_func("/ram/file-backed/private", GINT_TO_POINTER(0), test_file_backed);
    g_test_add_data_func("/ram/file-backed/shared", GINT_TO_POINTER(1), test_file_backed);
    g_test_add_func("/ram/cancel", test_cancel);
    g_test_add_func("/ram/refused/blocks", test_refused_blocks);
    g_test_add_func("/ram/refused/pages", test_refused_pages);
    g_test_add_func("/ram/refused/cut", test_refused_cut);
    g_test_add_func("/ram/refused/spoiled-anywhere", test_spoiled_anywhere);
    g_test_add_func("/ram/autoconverge", test_autoconverge);
    return g_test_run();
}
