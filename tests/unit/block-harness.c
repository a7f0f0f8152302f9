/*
 * What tests of block drivers share.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/unit/block-harness.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/zero.h"

static char *test_dir;

char *test_path(const char *name)
{
    if (!test_dir) {
        test_dir = g_dir_make_tmp("ferry-block-XXXXXX", NULL);
        g_assert_nonnull(test_dir);
    }
    return g_build_filename(test_dir, name, NULL);
}

void block_harness_clean_up(void)
{
    g_autoptr(GDir) dir = test_dir ? g_dir_open(test_dir, 0, NULL) : NULL;
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(test_dir, name, NULL);

        g_remove(path);
    }
    if (test_dir) {
        g_rmdir(test_dir);
    }
    g_free(test_dir);
    test_dir = NULL;
}

/*
 * Nodes
 * -------------------------------------------------------------------------------------------------
 */

static BlockdevOptions *parse_options(const char *fmt, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(fmt, args);
    g_autofree char *json = g_strdelimit(g_strdup_printf("json:%s", text), "'", '"');

    return bdrv_options_for_file(json, NULL, &error_abort);
}

BlockdevOptions *node_options(const char *fmt, ...)
{
    BlockdevOptions *opts;
    va_list args;

    va_start(args, fmt);
    opts = parse_options(fmt, args);
    va_end(args);
    return opts;
}

BlockBackend *blk_from(const char *fmt, ...)
{
    g_autoptr(BlockdevOptions) opts = NULL;
    va_list args;

    va_start(args, fmt);
    opts = parse_options(fmt, args);
    va_end(args);
    return blk_new_open(opts, &error_abort);
}

BlockDriverState *node_open(const char *fmt, ...)
{
    g_autoptr(BlockdevOptions) opts = NULL;
    va_list args;

    va_start(args, fmt);
    opts = parse_options(fmt, args);
    va_end(args);
    return bdrv_open(opts, &error_abort);
}

void expect_error(Error *err, const char *pattern)
{
    g_assert_nonnull(err);
    if (!g_pattern_match_simple(pattern, error_get_pretty(err))) {
        g_error("the error is \"%s\", not \"%s\"", error_get_pretty(err), pattern);
    }
    error_free(err);
}

void expect_no_open(const char *pattern, const char *fmt, ...)
{
    g_autoptr(BlockdevOptions) opts = NULL;
    Error *err = NULL;
    va_list args;

    va_start(args, fmt);
    opts = parse_options(fmt, args);
    va_end(args);
    g_assert_null(blk_new_open(opts, &err));
    expect_error(err, pattern);
}

/*
 * Content
 * -------------------------------------------------------------------------------------------------
 */

uint8_t pattern_byte(uint64_t offset, unsigned seed)
{
    return (offset / 512 * 31 + offset * 7 + seed) % 251 + 1;
}

void fill_pattern(void *buf, uint64_t offset, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)buf)[i] = pattern_byte(offset + i, seed);
    }
}

void check_pattern(const void *buf, uint64_t offset, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++) {
        uint8_t is = ((const uint8_t *)buf)[i];

        if (is != pattern_byte(offset + i, seed)) {
            g_error("byte %" PRIu64 " is %u, not %u", offset + i, is,
                    pattern_byte(offset + i, seed));
        }
    }
}

void write_pattern(BlockBackend *blk, int64_t offset, int64_t bytes, unsigned seed)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    fill_pattern(buf, offset, bytes, seed);
    g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, 0), ==, 0);
}

void expect_pattern(BlockBackend *blk, int64_t offset, int64_t bytes, unsigned seed)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, 0xee, bytes);
    g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, 0);
    check_pattern(buf, offset, bytes, seed);
}

void expect_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, 0xee, bytes);
    g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, 0);
    g_assert_true(buffer_is_zero(buf, bytes));
}

char *make_file(const char *name, int64_t bytes, unsigned seed)
{
    char *path = test_path(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    g_assert_cmpint(fd, >=, 0);
    if (seed) {
        g_autofree uint8_t *buf = g_malloc(bytes);

        fill_pattern(buf, 0, bytes, seed);
        g_assert_cmpint(write(fd, buf, bytes), ==, bytes);
    } else {
        g_assert_cmpint(ftruncate(fd, bytes), ==, 0);
    }
    close(fd);
    return path;
}

void run_co(CoroutineEntry *fn, void *opaque)
{
    aio_co_run(aio_context_main(), fn, opaque);
}

int status_at(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t *n)
{
    int ret = blk_block_status_above(blk, NULL, offset, bytes, n, NULL, NULL, NULL);

    g_assert_cmpint(ret, >=, 0);
    return ret;
}
