/*
 * Steps of the tests of nodes: images in the test's directory, qemu-io over HMP, commands about
 * nodes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_BLOCKDEV_UTIL_H
#define TESTS_QTEST_BLOCKDEV_UTIL_H

#include "tests/qtest/libqtest.h"

#define MIB (1024 * 1024)

/* A new file of that length in the test's directory; its path, the caller's. */
char *new_file(const char *name, int64_t bytes);
/* The path alone; a file of that name is removed. */
char *path_of(const char *name);
int64_t file_length(const char *path);

/* Run a qemu-io command; it must print @expect and nothing more ("": nothing). */
void io_expect(QTestState *s, const char *disk, const char *command, const char *expect);
/* It must work, quietly. */
void io(QTestState *s, const char *disk, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

void add_raw(QTestState *s, const char *node, const char *path);
void add_qcow2(QTestState *s, const char *node, const char *path);
void del(QTestState *s, const char *node);
/* blockdev-reopen with a list of options, as a JSON template; and when it must fail. */
void reopen(QTestState *s, const char *options);
void reopen_fails(QTestState *s, const char *options, const char *message);

/* What query-named-block-nodes says of a node; the caller's. NULL: there is none. */
struct json_object *find_node(QTestState *s, const char *node);
int64_t node_length(QTestState *s, const char *node);

/*
 * The next JOB_STATUS_CHANGE events are of that job and say what @path does, with blanks between.
 */
void expect_job(QTestState *s, const char *job, const char *path);
/* Make an image of driver "file" or "qcow2" by blockdev-create. */
void create_image(QTestState *s, const char *driver, const char *path, int64_t bytes);

#endif
