/*
 * What tests of block drivers share: nodes from JSON, patterns, a directory for images.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_BLOCK_HARNESS_H
#define TESTS_BLOCK_HARNESS_H

#include "block/block-backend.h"
#include "block/driver.h"

/* A path in the test's own directory, which block_harness_clean_up() removes. The caller's. */
char *test_path(const char *name);
/* Remove the directory with all that is in it. Last of all. */
void block_harness_clean_up(void);

/* A description of a node: JSON with ' for ", printf-style. */
BlockdevOptions *node_options(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* Open it, hold it with what it can give; failure ends the test. */
BlockBackend *blk_from(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The node alone; failure ends the test. */
BlockDriverState *node_open(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* Opening it must fail, with a message that matches the pattern (of g_pattern_match). */
void expect_no_open(const char *pattern, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* @err is set, matches, and is freed. */
void expect_error(Error *err, const char *pattern);

/* What byte @offset has in tests, for @seed. */
uint8_t pattern_byte(uint64_t offset, unsigned seed);
void fill_pattern(void *buf, uint64_t offset, size_t bytes, unsigned seed);
void check_pattern(const void *buf, uint64_t offset, size_t bytes, unsigned seed);
/* The same by requests. */
void write_pattern(BlockBackend *blk, int64_t offset, int64_t bytes, unsigned seed);
void expect_pattern(BlockBackend *blk, int64_t offset, int64_t bytes, unsigned seed);
void expect_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes);

/* A file of @bytes bytes with the pattern, or (@seed 0) a hole. */
char *make_file(const char *name, int64_t bytes, unsigned seed);

/* Call @fn in a coroutine in the main context. */
void run_co(CoroutineEntry *fn, void *opaque);

/* BdrvBlockStatus flags of the one extent from @offset on, within @bytes; *@n: its length. */
int status_at(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t *n);

#endif
