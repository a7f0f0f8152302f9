/*
 * RAM in a direct-mapped file: the layout to the byte, round trips in every combination of threads
 * and O_DIRECT, live, and every way in which a file can be wrong.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "migration/file-io.h"
#include "migration/ram-format.h"
#include "migration/ram-mapped.h"
#include "ram-harness.h"
#include "util/bswap.h"

#define MIB (1024 * 1024)
#define KIB 1024

static char *temp_path(void)
{
    char *path = g_build_filename(g_get_tmp_dir(), "ferry-mapped-XXXXXX", NULL);
    int fd = g_mkstemp(path);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    return path;
}

static bool have_direct(const char *path)
{
    int fd = open(path, O_RDWR | O_DIRECT);
    g_autoptr(QIOChannel) ioc = NULL;

    if (fd >= 0) {
        ioc = QIO_CHANNEL(qio_channel_file_new_fd(fd, &error_abort));
    }
    if (!ioc || file_io_check_direct(ioc, path, NULL) < 0) {
        g_test_skip("no O_DIRECT here");
        return false;
    }
    return true;
}

typedef struct Case {
    unsigned channels;          /* 0: no multifd */
    bool direct;
    uint64_t offset;
    ZeroPageDetection detect;
} Case;

static RamHarness *harness_for(const char *path, const Case *c)
{
    RamHarness *h = ram_harness_new_file(path, c->offset);

    h->ctx.opts.caps[MIGRATION_CAPABILITY_DIRECT_MAPPED] = true;
    h->ctx.opts.caps[MIGRATION_CAPABILITY_MULTIFD] = c->channels > 0;
    h->ctx.opts.caps[MIGRATION_CAPABILITY_BYPASS_CACHE] = c->direct;
    h->ctx.opts.params.multifd_channels = c->channels;
    h->ctx.opts.params.zero_page_detection = c->detect;
    return h;
}

static void make_blocks(void)
{
    ram_fill(ram_block_new("pc.ram", 9 * MIB + 3 * TARGET_PAGE_SIZE, NULL, &error_abort), 1);
    ram_fill(ram_block_new("one.page", TARGET_PAGE_SIZE, NULL, &error_abort), 2);
    ram_fill(ram_block_new("vga.vram", 5 * MIB, NULL, &error_abort), 3);
}

static void test_round_trip(gconstpointer opaque)
{
    const Case *c = opaque;
    g_autofree char *path = temp_path();
    g_autoptr(RamHarness) h = NULL;
    g_autoptr(RamSnapshot) snapshot = NULL;
    uint64_t populated;

    if (c->direct && !have_direct(path)) {
        g_unlink(path);
        return;
    }
    h = harness_for(path, c);
    make_blocks();
    populated = ram_populated_pages();
    snapshot = ram_snapshot_take();
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    g_assert_cmpuint(h->ctx.counters.normal_pages + h->ctx.counters.zero_pages, ==, populated);
    g_assert_cmpuint(h->ctx.counters.channels, ==, c->channels);
    g_assert_cmpuint(h->ctx.counters.multifd_bytes, ==,
                     c->channels ? h->ctx.counters.normal_pages * TARGET_PAGE_SIZE : 0);
    g_assert_cmpuint(ram_populated_pages(), ==, populated);
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    g_assert_cmpuint(ram_populated_pages(), <=, populated);
    ram_snapshot_compare(snapshot);
    ram_free_all();
    g_unlink(path);
}

/* Whatever memory held before. */
static void test_load_over_data(void)
{
    const Case c = { .channels = 3, .detect = ZERO_PAGE_DETECTION_MULTIFD };
    g_autofree char *path = temp_path();
    g_autoptr(RamHarness) h = harness_for(path, &c);
    g_autoptr(RamSnapshot) snapshot = NULL;

    make_blocks();
    snapshot = ram_snapshot_take();
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    RAMBLOCK_FOREACH(block) {
        memset(block->host, 0x77, block->used_length);
    }
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);
    ram_free_all();
    g_unlink(path);
}

static void stop_writers(RamHarness *h)
{
    ram_writers_stop(h->opaque);
}

static void test_writers(gconstpointer opaque)
{
    const Case *c = opaque;
    g_autofree char *path = temp_path();
    g_autoptr(RamHarness) h = NULL;
    g_autoptr(RamSnapshot) snapshot = NULL;
    struct stat st;

    if (c->direct && !have_direct(path)) {
        g_unlink(path);
        return;
    }
    h = harness_for(path, c);
    make_blocks();
    h->opaque = ram_writers_start(2);
    h->stop_guest = stop_writers;
    h->min_passes = 5;
    h->budget = 2 * MIB;
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    /* However often a page was written, it has one place. */
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_size, <, c->offset + ram_blocks_total() + 4 * MIB);
    snapshot = ram_snapshot_take();
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);
    ram_free_all();
    g_unlink(path);
}

/*
 * The layout ------------------------------------------------------------------------------------
 */

typedef struct File {
    uint8_t *data;
    size_t len;
} File;

static File read_back(const char *path)
{
    File file;

    g_assert_true(g_file_get_contents(path, (char **)&file.data, &file.len, NULL));
    return file;
}

/* Walk a saved file by the format's description alone, and compare it with memory. */
static void test_layout(void)
{
    const Case c = { .offset = 4321, .detect = ZERO_PAGE_DETECTION_MULTIFD };
    g_autofree char *path = temp_path();
    g_autoptr(RamHarness) h = harness_for(path, &c);
    File file;
    const uint8_t *p;

    make_blocks();
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    file = read_back(path);
    p = file.data + c.offset + 1;
    g_assert_cmphex(ldq_be_p(p), ==, ram_blocks_total() | RAM_RECORD_MEM_SIZE);
    p += 8;
    RAMBLOCK_FOREACH(block) {
        uint64_t bitmap_bytes = (block->pages + 63) / 64 * 8;
        uint64_t here, bitmap, pages;

        g_assert_cmpuint(p[0], ==, strlen(block->idstr));
        g_assert_cmpmem(p + 1, p[0], block->idstr, strlen(block->idstr));
        p += 1 + p[0];
        g_assert_cmpuint(ldq_be_p(p), ==, block->used_length);
        p += 8;
        here = p - file.data;
        g_assert_cmpuint(ldl_be_p(p), ==, 1);
        g_assert_cmpuint(ldq_be_p(p + 4), ==, 4096);
        bitmap = ldq_be_p(p + 12);
        pages = ldq_be_p(p + 20);
        g_assert_cmpuint(bitmap, ==, here + 28);
        g_assert_cmpuint(pages, ==, (bitmap + bitmap_bytes + MIB - 1) / MIB * MIB);
        for (uint64_t page = 0; page < block->pages; page++) {
            const uint8_t *word = file.data + bitmap + page / 64 * 8;
            bool set = ldq_le_p(word) >> (page % 64) & 1;
            const uint8_t *host = block->host + page * 4096;
            static const uint8_t zero[4096];

            g_assert_cmpint(set, ==, memcmp(host, zero, 4096) != 0);
            if (set) {
                g_assert_cmpint(memcmp(host, file.data + pages + page * 4096, 4096), ==, 0);
            }
        }
        p = file.data + pages + block->used_length;
    }
    g_assert_cmphex(ldq_be_p(p), ==, RAM_RECORD_EOS);
    g_free(file.data);
    ram_free_all();
    g_unlink(path);
}

static void zero_one_page(RamHarness *h, unsigned turn)
{
    if (turn == 1) {
        memset(ram_block_by_name("a")->host + 5 * TARGET_PAGE_SIZE, 0, TARGET_PAGE_SIZE);
    }
}

/* A page that was written and then became zero is not in the file any more. */
static void test_page_becomes_zero(void)
{
    const Case c = { .detect = ZERO_PAGE_DETECTION_LEGACY };
    g_autofree char *path = temp_path();
    g_autoptr(RamHarness) h = harness_for(path, &c);
    RAMBlock *block = ram_block_new("a", 64 * TARGET_PAGE_SIZE, NULL, &error_abort);
    g_autoptr(RamSnapshot) snapshot = NULL;
    File file;

    memset(block->host, 0x33, block->used_length);
    h->before_turn = zero_one_page;
    h->min_passes = 2;
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    file = read_back(path);
    g_assert_cmphex(ldq_le_p(file.data + 1 + 8 + 2 + 8 + 28), ==, ~(1ull << 5));
    g_assert_cmphex(file.data[MIB + 5 * TARGET_PAGE_SIZE], ==, 0x33);
    g_free(file.data);
    snapshot = ram_snapshot_take();
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram_snapshot_compare(snapshot);
    ram_free_all();
    g_unlink(path);
}

static void test_sparse(void)
{
    const Case c = { .channels = 2, .detect = ZERO_PAGE_DETECTION_MULTIFD };
    g_autofree char *path = temp_path();
    g_autoptr(RamHarness) h = harness_for(path, &c);
    RAMBlock *ram = ram_block_new("huge", (uint64_t)256 << 30, NULL, &error_abort);
    struct stat st;

    for (unsigned i = 0; i < 64; i++) {
        ram->host[(uint64_t)i << 32] = i + 1;
    }
    g_assert_cmpint(ram_harness_save(h, &error_abort), ==, 0);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_size, >, (uint64_t)256 << 30);
    g_assert_cmpuint(st.st_blocks * 512, <, 64 * MIB);
    ram_wipe();
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    ram = ram_block_by_name("huge");
    for (unsigned i = 0; i < 64; i++) {
        g_assert_cmpuint(ram->host[(uint64_t)i << 32], ==, i + 1);
    }
    ram_free_all();
    g_unlink(path);
}

/*
 * Files that are wrong --------------------------------------------------------------------------
 */

/* A good file of one block "a" of 100 pages; the header is at byte 19. */
#define HEADER_AT 19

static char *good_file(RamHarness **h)
{
    static const Case c = { .detect = ZERO_PAGE_DETECTION_MULTIFD };
    char *path = temp_path();

    *h = harness_for(path, &c);
    ram_fill(ram_block_new("a", 100 * TARGET_PAGE_SIZE, NULL, &error_abort), 4);
    memset(ram_block_by_name("a")->host + 99 * TARGET_PAGE_SIZE, 1, TARGET_PAGE_SIZE);
    g_assert_cmpint(ram_harness_save(*h, &error_abort), ==, 0);
    ram_wipe();
    return path;
}

static void spoil(const char *path, uint64_t at, uint64_t value, unsigned size)
{
    int fd = open(path, O_WRONLY);
    uint8_t bytes[8];

    stq_be_p(bytes, value);
    g_assert_cmpint(pwrite(fd, bytes + 8 - size, size, at), ==, size);
    close(fd);
}

static void check_refused(uint64_t at, uint64_t value, unsigned size, const char *message)
{
    RamHarness *h;
    g_autofree char *path = good_file(&h);
    Error *err = NULL;

    spoil(path, HEADER_AT + at, value, size);
    g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    g_assert_cmpuint(ram_populated_pages(), ==, 0);
    error_free(err);
    ram_harness_free(h);
    ram_free_all();
    g_unlink(path);
}

static void test_refused_header(void)
{
    check_refused(0, 2, 4,
                  "RAM block 'a': version 2 of the direct-mapped layout is not supported, only 1");
    check_refused(4, 16384, 8, "RAM block 'a': the page size is 16384, only 4096 is supported");
    check_refused(12, 46, 8, "RAM block 'a': the bitmap at offset 46 overlaps what comes before "
                  "offset 47");
    check_refused(12, MIB - 8, 8,
                  "RAM block 'a': the bitmap of 16 bytes at offset 1048568 overlaps "
                  "the pages at offset 1048576");
    check_refused(12, UINT64_MAX - 3, 8, "RAM block 'a': the bitmap of 16 bytes at offset "
                  "18446744073709551612 overlaps the pages at offset 1048576");
    check_refused(20, MIB + 4096, 8, "RAM block 'a': the pages at offset 1052672 do not begin at a "
                  "multiple of 1048576");
    check_refused(20, 2 * MIB, 8,
                  "RAM block 'a': 409600 bytes of pages at offset 2097152 go beyond "
                  "the end of the file, which has 1458203 bytes: it is truncated or not complete");
    check_refused(20, UINT64_MAX - MIB + 1, 8, "RAM block 'a': 409600 bytes of pages at offset "
                  "18446744073708503040 go beyond the end of the file, which has 1458203 bytes: it "
                  "is truncated or not complete");
    /* Page 100 of 100: byte 12 of the bitmap holds bits 96 to 103. */
    check_refused(28 + 12, 0x1f, 1,
                  "RAM block 'a': the bitmap at offset 47 has bits set beyond the "
                  "last page");
}

static void test_refused_page_records(void)
{
    RamHarness *h;
    g_autofree char *path = good_file(&h);
    Error *err = NULL;

    spoil(path, MIB + 100 * TARGET_PAGE_SIZE, RAM_RECORD_ZERO, 8);
    g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "the stream holds RAM pages, which have no place in a direct-mapped one");
    error_free(err);
    ram_harness_free(h);
    ram_free_all();
    g_unlink(path);
}

/* Cut anywhere it is refused, and the message says so. */
static void test_refused_cut(void)
{
    RamHarness *h;
    g_autofree char *path = good_file(&h);
    const uint64_t lengths[] = { 0, 1, 5, 18, 30, 46, 47, 50, 63, 4096, MIB, MIB + 4096,
                                 MIB + 99 * TARGET_PAGE_SIZE, MIB + 100 * TARGET_PAGE_SIZE,
                                 MIB + 100 * TARGET_PAGE_SIZE + 4 };

    for (unsigned i = G_N_ELEMENTS(lengths); i-- > 0;) {
        Error *err = NULL;

        g_assert_cmpint(truncate(path, lengths[i]), ==, 0);
        g_assert_cmpint(ram_harness_load(h, &err), ==, -1);
        g_assert_true(strstr(error_get_pretty(err), "ends unexpectedly") ||
                      strstr(error_get_pretty(err), "truncated or not complete"));
        error_free(err);
    }
    ram_harness_free(h);
    ram_free_all();
    g_unlink(path);
}

/*
 * Bytes of entry, header and bitmap changed: loaded or refused, nothing read beside guest memory.
 */
static void test_spoiled_anywhere(void)
{
    RamHarness *h;
    g_autofree char *path = good_file(&h);
    g_autoptr(GRand) rnd = g_rand_new_with_seed(97);
    File good = read_back(path);
    unsigned refused = 0;

    for (unsigned i = 0; i < 600; i++) {
        Error *err = NULL;

        for (unsigned n = 1 + i % 3; n; n--) {
            spoil(path, g_rand_int(rnd) % 63, g_rand_int(rnd), 1);
        }
        if (ram_harness_load(h, &err) < 0) {
            g_assert_nonnull(err);
            error_free(err);
            refused++;
        }
        for (unsigned at = 0; at < 63; at++) {
            spoil(path, at, good.data[at], 1);
        }
    }
    g_assert_cmpuint(refused, >, 100);
    g_assert_cmpint(ram_harness_load(h, &error_abort), ==, 0);
    g_free(good.data);
    ram_harness_free(h);
    ram_free_all();
    g_unlink(path);
}

static void test_refused_no_file(void)
{
    g_autoptr(RamHarness) h = ram_harness_new();
    Error *err = NULL;

    /* The harness's memory channel can seek, but has no descriptor to hand to the kernel. */
    h->ctx.opts.caps[MIGRATION_CAPABILITY_DIRECT_MAPPED] = true;
    make_blocks();
    g_assert_cmpint(ram_harness_save(h, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "has no offsets"));
    error_free(err);
    ram_free_all();
}

/* Writing fails: the error says where; with threads it is one error. */
static void test_file_too_large(gconstpointer opaque)
{
    const Case c = { .channels = GPOINTER_TO_INT(opaque), .detect = ZERO_PAGE_DETECTION_MULTIFD };
    g_autofree char *path = temp_path();
    g_autoptr(RamHarness) h = harness_for(path, &c);
    struct rlimit old, limit;
    Error *err = NULL;

    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 9 * MIB + 4096;
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    make_blocks();
    g_assert_cmpint(ram_harness_save(h, &err), ==, -1);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_nonnull(strstr(error_get_pretty(err), path));
    g_assert_nonnull(strstr(error_get_pretty(err), "File too large"));
    error_free(err);
    ram_free_all();
    g_unlink(path);
}

/*
 * The engine ------------------------------------------------------------------------------------
 */

static void test_file_io(gconstpointer opaque)
{
    bool uring = GPOINTER_TO_INT(opaque);
    g_autofree char *path = temp_path();
    g_autoptr(QIOChannel) ioc =
        QIO_CHANNEL(qio_channel_file_new_path(path, O_RDWR, 0, &error_abort));
    g_autoptr(GRand) rnd = g_rand_new_with_seed(11);
    const size_t total = 24 * MIB;
    g_autofree uint8_t *data = g_malloc(total), *back = g_malloc0(total);
    FileIO *io;
    Error *err = NULL;

    for (size_t i = 0; i < total; i += 4) {
        stl_le_p(data + i, g_rand_int(rnd));
    }
    io = file_io_new(ioc, true, uring, &error_abort);
    if (!uring) {
        g_assert_false(file_io_uses_uring(io));
    }
    for (size_t at = 0; at < total;) {
        size_t n = 1 + g_rand_int(rnd) % (3 * MIB);

        n = MIN(n, total - at);
        g_assert_cmpint(file_io_queue(io, data + at, n, 777 + at, &error_abort), ==, 0);
        at += n;
    }
    g_assert_cmpint(file_io_drain(io, &error_abort), ==, 0);
    file_io_free(io);

    io = file_io_new(ioc, false, uring, &error_abort);
    for (size_t end = total; end > 0;) {
        size_t n = 1 + g_rand_int(rnd) % 300000;

        n = MIN(n, end);
        end -= n;
        g_assert_cmpint(file_io_queue(io, back + end, n, 777 + end, &error_abort), ==, 0);
    }
    g_assert_cmpint(file_io_drain(io, &error_abort), ==, 0);
    g_assert_cmpint(memcmp(data, back, total), ==, 0);

    /* Over the end: an error that says where, and it stays. */
    file_io_queue(io, back, 1000, 777 + total - 300, NULL);
    g_assert_cmpint(file_io_drain(io, &err), ==, -1);
    g_assert_true(g_str_has_prefix(error_get_pretty(err), "file '"));
    g_assert_nonnull(strstr(error_get_pretty(err),
                            "ends at or before offset 25166601, where 700 bytes are expected"));
    error_free(err);
    g_assert_cmpint(file_io_queue(io, back, 1000, 0, NULL), ==, -1);
    file_io_free(io);
    g_unlink(path);
}

static void test_check_direct_tmpfs(void)
{
    g_autofree char *path = g_strdup("/dev/shm/ferry-direct-XXXXXX");
    int fd = g_mkstemp(path);
    g_autoptr(QIOChannel) ioc = NULL;
    Error *err = NULL;

    if (fd < 0) {
        g_test_skip("no /dev/shm");
        return;
    }
    ioc = QIO_CHANNEL(qio_channel_file_new_fd(fd, &error_abort));
    g_assert_cmpint(file_io_check_direct(ioc, "file 'x'", &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "capability 'bypass-cache' cannot be used: file 'x' "
                    "is on a file system in memory, which has no O_DIRECT");
    error_free(err);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    static const Case cases[] = {
        { 0, false, 0, ZERO_PAGE_DETECTION_MULTIFD },
        { 0, false, 12345, ZERO_PAGE_DETECTION_LEGACY },
        { 0, false, 5 * MIB, ZERO_PAGE_DETECTION_NONE },
        { 0, true, 0, ZERO_PAGE_DETECTION_MULTIFD },
        { 0, true, 999, ZERO_PAGE_DETECTION_NONE },
        { 1, false, 0, ZERO_PAGE_DETECTION_MULTIFD },
        { 2, false, 0, ZERO_PAGE_DETECTION_NONE },
        { 2, true, 77, ZERO_PAGE_DETECTION_MULTIFD },
        { 5, true, 0, ZERO_PAGE_DETECTION_LEGACY },
        { 255, false, 0, ZERO_PAGE_DETECTION_MULTIFD },
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_strdup_printf(
            "/%u-channels%s/offset-%u/zero-%s", cases[i].channels, cases[i].direct ? "-direct" : "",
            (unsigned)cases[i].offset, ZeroPageDetection_str(cases[i].detect));
        g_autofree char *round_trip = g_strconcat("/ram-mapped/round-trip", name, NULL);
        g_autofree char *live = g_strconcat("/ram-mapped/writers", name, NULL);

        g_test_add_data_func(round_trip, &cases[i], test_round_trip);
        if (cases[i].channels < 100 && cases[i].detect != ZERO_PAGE_DETECTION_NONE) {
            g_test_add_data_func(live, &cases[i], test_writers);
        }
    }
    g_test_add_func("/ram-mapped/load-over-data", test_load_over_data);
    g_test_add_func("/ram-mapped/layout", test_layout);
    g_test_add_func("/ram-mapped/page-becomes-zero", test_page_becomes_zero);
    g_test_add_func("/ram-mapped/sparse", test_sparse);
    g_test_add_func("/ram-mapped/refused/header", test_refused_header);
    g_test_add_func("/ram-mapped/refused/page-records", test_refused_page_records);
    g_test_add_func("/ram-mapped/refused/cut", test_refused_cut);
    g_test_add_func("/ram-mapped/refused/spoiled-anywhere", test_spoiled_anywhere);
    g_test_add_func("/ram-mapped/refused/no-file", test_refused_no_file);
    g_test_add_data_func("/ram-mapped/file-too-large/1", GINT_TO_POINTER(0), test_file_too_large);
    g_test_add_data_func("/ram-mapped/file-too-large/4", GINT_TO_POINTER(4), test_file_too_large);
    g_test_add_data_func("/file-io/uring", GINT_TO_POINTER(true), test_file_io);
    g_test_add_data_func("/file-io/plain", GINT_TO_POINTER(false), test_file_io);
    g_test_add_func("/file-io/direct-in-memory", test_check_direct_tmpfs);
    return g_test_run();
}
