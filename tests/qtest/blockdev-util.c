/*
 * Steps of the tests of nodes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/qtest/blockdev-util.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A new file of that length in the test's directory; its path, the caller's. */
char *new_file(const char *name, int64_t bytes)
{
    char *path = g_build_filename(qtest_tmpdir(), name, NULL);
    FILE *f = g_fopen(path, "w");

    g_assert_nonnull(f);
    g_assert_cmpint(ftruncate(fileno(f), bytes), ==, 0);
    fclose(f);
    return path;
}

char *path_of(const char *name)
{
    char *path = g_build_filename(qtest_tmpdir(), name, NULL);

    g_unlink(path);
    return path;
}

int64_t file_length(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_size;
}

/* Run a qemu-io command; it must print @expect and nothing more ("": nothing). */
void io_expect(QTestState *s, const char *disk, const char *command, const char *expect)
{
    g_autofree char *out = qtest_hmp(s, "qemu-io %s \"%s\"", disk, command);

    if (strcmp(out, expect)) {
        qtest_fail(s, "qemu-io %s \"%s\" should print '%s', not '%s'", disk, command, expect, out);
    }
}

/* It must work, quietly. */
void io(QTestState *s, const char *disk, const char *fmt, ...)
{
    g_autofree char *command = NULL;
    va_list ap;

    va_start(ap, fmt);
    command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    io_expect(s, disk, command, "");
}

void add_raw(QTestState *s, const char *node, const char *path)
{
    qtest_qmp_assert_success(
        s,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw', 'node-name': %s,"
        " 'file': {'driver': 'file', 'filename': %s}}}",
        node, path);
}

void add_qcow2(QTestState *s, const char *node, const char *path)
{
    qtest_qmp_assert_success(
        s,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': %s,"
        " 'file': {'driver': 'file', 'filename': %s}}}",
        node, path);
}

void del(QTestState *s, const char *node)
{
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-del', 'arguments': {'node-name': %s}}",
                             node);
}

/* What query-named-block-nodes says of a node; the caller's. NULL: there is none. */
struct json_object *find_node(QTestState *s, const char *node)
{
    struct json_object *list =
        qtest_qmp_assert_success_ref(s, "{'execute': 'query-named-block-nodes'}");
    struct json_object *found = NULL;

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *info = json_object_array_get_idx(list, i);

        if (!strcmp(qtest_get_str(info, "node-name"), node)) {
            found = json_object_get(info);
        }
    }
    json_object_put(list);
    return found;
}

int64_t node_length(QTestState *s, const char *node)
{
    struct json_object *info = find_node(s, node);
    int64_t length = qtest_get_int(info, "image.virtual-size");

    json_object_put(info);
    return length;
}

/*
 * Wait until a job has that status; all that come before must be those of @path, with blanks
 * between.
 */
void expect_job(QTestState *s, const char *job, const char *path)
{
    g_auto(GStrv) states = g_strsplit(path, " ", -1);

    for (char **state = states; *state; state++) {
        struct json_object *event = qtest_qmp_eventwait_ref(s, "JOB_STATUS_CHANGE");

        g_assert_cmpstr(qtest_get_str(event, "data.id"), ==, job);
        g_assert_cmpstr(qtest_get_str(event, "data.status"), ==, *state);
        json_object_put(event);
    }
}

void create_image(QTestState *s, const char *driver, const char *path, int64_t bytes)
{
    if (!strcmp(driver, "qcow2")) {
        g_autofree char *file = new_file("tmp", 0);

        g_assert_cmpint(g_rename(file, path), ==, 0);
        qtest_qmp_assert_success(
            s,
            "{'execute': 'blockdev-create', 'arguments': {'job-id': 'make', 'options': {"
            " 'driver': 'qcow2', 'size': %ld, 'file': {'driver': 'file', 'filename': %s}}}}",
            bytes, path);
    } else {
        qtest_qmp_assert_success(
            s,
            "{'execute': 'blockdev-create', 'arguments': {'job-id': 'make', 'options': {"
            " 'driver': 'file', 'size': %ld, 'filename': %s}}}",
            bytes, path);
    }
    expect_job(s, "make", "created running waiting pending concluded");
    qtest_qmp_assert_success(s, "{'execute': 'job-dismiss', 'arguments': {'id': 'make'}}");
    expect_job(s, "make", "null");
}

void reopen(QTestState *s, const char *options)
{
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-reopen', 'arguments': {'options': %p}}",
                             qtest_json(options));
}

void reopen_fails(QTestState *s, const char *options, const char *message)
{
    qtest_qmp_assert_error(s, message,
                           "{'execute': 'blockdev-reopen', 'arguments': {'options': %p}}",
                           qtest_json(options));
}
