/*
 * Nodes by their commands: each of them, when it works and when it does not, on a machine whose disks are
 * read and written by HMP's qemu-io.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/qtest/libqtest.h"

#define MIB (1024 * 1024)

/* ---- helpers ---- */

/* A new file of that length in the test's directory; its path, the caller's. */
static char *new_file(const char *name, int64_t bytes)
{
    char *path = g_build_filename(qtest_tmpdir(), name, NULL);
    FILE *f = g_fopen(path, "w");

    g_assert_nonnull(f);
    g_assert_cmpint(ftruncate(fileno(f), bytes), ==, 0);
    fclose(f);
    return path;
}

static char *path_of(const char *name)
{
    char *path = g_build_filename(qtest_tmpdir(), name, NULL);

    g_unlink(path);
    return path;
}

static int64_t file_length(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_size;
}

/* Run a qemu-io command; it must print @expect and nothing more ("": nothing). */
static void io_expect(QTestState *s, const char *disk, const char *command, const char *expect)
{
    g_autofree char *out = qtest_hmp(s, "qemu-io %s \"%s\"", disk, command);

    if (strcmp(out, expect)) {
        qtest_fail(s, "qemu-io %s \"%s\" should print '%s', not '%s'", disk, command, expect, out);
    }
}

/* It must work, quietly. */
static void G_GNUC_PRINTF(3, 4) io(QTestState *s, const char *disk, const char *fmt, ...)
{
    g_autofree char *command = NULL;
    va_list ap;

    va_start(ap, fmt);
    command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    io_expect(s, disk, command, "");
}

static void add_raw(QTestState *s, const char *node, const char *path)
{
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw', 'node-name': %s,"
                             " 'file': {'driver': 'file', 'filename': %s}}}", node, path);
}

static void add_qcow2(QTestState *s, const char *node, const char *path)
{
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': %s,"
                             " 'file': {'driver': 'file', 'filename': %s}}}", node, path);
}

static void del(QTestState *s, const char *node)
{
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-del', 'arguments': {'node-name': %s}}", node);
}

/* What query-named-block-nodes says of a node; the caller's. NULL: there is none. */
static struct json_object *find_node(QTestState *s, const char *node)
{
    struct json_object *list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-named-block-nodes'}");
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

static int64_t node_length(QTestState *s, const char *node)
{
    struct json_object *info = find_node(s, node);
    int64_t length = qtest_get_int(info, "image.virtual-size");

    json_object_put(info);
    return length;
}

/* Wait until a job has that status; all that come before must be those of @path, with blanks between. */
static void expect_job(QTestState *s, const char *job, const char *path)
{
    g_auto(GStrv) states = g_strsplit(path, " ", -1);

    for (char **state = states; *state; state++) {
        struct json_object *event = qtest_qmp_eventwait_ref(s, "JOB_STATUS_CHANGE");

        g_assert_cmpstr(qtest_get_str(event, "data.id"), ==, job);
        g_assert_cmpstr(qtest_get_str(event, "data.status"), ==, *state);
        json_object_put(event);
    }
}

static void create_image(QTestState *s, const char *driver, const char *path, int64_t bytes)
{
    if (!strcmp(driver, "qcow2")) {
        g_autofree char *file = new_file("tmp", 0);

        g_assert_cmpint(g_rename(file, path), ==, 0);
        qtest_qmp_assert_success(s, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'make', 'options': {"
                                 " 'driver': 'qcow2', 'size': %ld, 'file': {'driver': 'file', 'filename': %s}}}}",
                                 bytes, path);
    } else {
        qtest_qmp_assert_success(s, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'make', 'options': {"
                                 " 'driver': 'file', 'size': %ld, 'filename': %s}}}", bytes, path);
    }
    expect_job(s, "make", "created running waiting pending concluded");
    qtest_qmp_assert_success(s, "{'execute': 'job-dismiss', 'arguments': {'id': 'make'}}");
    expect_job(s, "make", "null");
}

/* ---- blockdev-add, blockdev-del ---- */

static void test_add_del(void)
{
    g_autofree char *path = new_file("a.img", 4 * MIB);
    QTestState *s = qtest_init("");
    struct json_object *info;

    add_raw(s, "a", path);
    info = find_node(s, "a");
    g_assert_cmpstr(qtest_get_str(info, "drv"), ==, "raw");
    g_assert_cmpstr(qtest_get_str(info, "file"), ==, path);
    g_assert_cmpint(qtest_get_int(info, "image.virtual-size"), ==, 4 * MIB);
    g_assert_cmpstr(qtest_get_str(info, "image.format"), ==, "raw");
    g_assert_cmpstr(qtest_get_str(info, "children.0.child"), ==, "file");
    g_assert_true(qtest_get_bool(info, "active") && !qtest_get_bool(info, "ro"));
    g_assert_true(qtest_get_bool(info, "cache.writeback") && !qtest_get_bool(info, "cache.direct"));
    g_assert_cmpstr(qtest_get_str(info, "detect_zeroes"), ==, "off");
    g_assert_false(qtest_has(info, "backing_file") || qtest_has(info, "dirty-bitmaps"));
    json_object_put(info);
    del(s, "a");
    g_assert_null(find_node(s, "a"));

    qtest_qmp_assert_success(s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'node-name': 'f',"
                             " 'filename': %s, 'read-only': true, 'detect-zeroes': 'unmap', 'discard': 'unmap',"
                             " 'cache': {'no-flush': true}}}", path);
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw', 'node-name': 'r',"
                             " 'read-only': true, 'file': 'f', 'offset': 4096, 'size': 8192}}");
    info = find_node(s, "f");
    g_assert_true(qtest_get_bool(info, "ro") && qtest_get_bool(info, "cache.no-flush"));
    g_assert_cmpstr(qtest_get_str(info, "detect_zeroes"), ==, "unmap");
    json_object_put(info);
    g_assert_cmpint(node_length(s, "r"), ==, 8192);
    qtest_qmp_assert_error(s, "Node 'f' is in use: by node 'r' as 'file'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': 'f'}}");
    del(s, "r");
    del(s, "f");
    qtest_quit(s);
}

static void test_add_errors(void)
{
    static const struct {
        const char *arguments, *message;
    } cases[] = {
        { "{'driver': 'null-co'}", "'node-name' must be specified for the root node" },
        { "{'driver': 'null-co', 'node-name': 'n'}", "Duplicate nodes with node-name='n'" },
        { "{'driver': 'null-co', 'node-name': 'd'}", "node-name=d is conflicting with a device id" },
        { "{'driver': 'null-co', 'node-name': '#x'}", "Invalid node-name: '#x'" },
        { "{'driver': 'null-co', 'node-name': 'x2345678901234567890123456789012'}",
          "Node name 'x2345678901234567890123456789012' is too long: at most 31 characters" },
        { "{'driver': 'vmdk', 'node-name': 'x'}", "Parameter 'driver' does not accept value 'vmdk'" },
        { "{'driver': 'raw', 'node-name': 'x', 'file': 'y'}", "Cannot find device='' nor node-name='y'" },
        { "{'driver': 'raw', 'node-name': 'x'}", "Parameter 'file' is missing" },
        { "{'driver': 'raw', 'node-name': 'x', 'file': 'n', 'offset': 8192, 'size': 1}",
          "Offset (8192) cannot be greater than the length of the containing file (4096)" },
        { "{'driver': 'file', 'node-name': 'x', 'filename': '/does/not/exist'}",
          "Could not open '/does/not/exist': No such file or directory" },
        { "{'driver': 'null-co', 'node-name': 'x', 'detect-zeroes': 'unmap'}",
          "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap" },
        { "{'driver': 'null-co', 'node-name': 'x', 'force-share': true}",
          "force-share=on can only be used with read-only=on" },
        { "{'driver': 'raw', 'node-name': 'x', 'file': {'driver': 'null-co', 'node-name': 'x'}}",
          "Duplicate nodes with node-name='x'" },
    };
    QTestState *s = qtest_init("-blockdev null-co,node-name=n,size=4k "
                               "-drive id=d,if=none,file=null-co://,format=raw");
    struct json_object *list;

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        qtest_qmp_assert_error(s, cases[i].message, "{'execute': 'blockdev-add', 'arguments': %p}",
                               qtest_json(cases[i].arguments));
    }
    qtest_qmp_assert_error(s, "Failed to find node with node-name='x'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': 'x'}}");
    qtest_qmp_assert_error(s, "Node '#block000' is in use: by block device 'd' as 'root'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': '#block000'}}");
    /* Nothing was left behind. */
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-named-block-nodes', 'arguments': "
                                        "{'flat': true}}");
    g_assert_cmpuint(json_object_array_length(list), ==, 3);
    json_object_put(list);
    qtest_quit(s);
}

/* ---- who may write ---- */

static void expect_start_fails(const char *args, const char *message)
{
    g_autofree char *err = NULL;
    int status = qtest_run(args, NULL, &err);

    g_assert_cmpint(status, ==, 1);
    if (!strstr(err, message)) {
        g_error("%s: \"%s\" is not in \"%s\"", args, message, err);
    }
}

static void test_permissions(void)
{
    g_autofree char *path = new_file("p.img", MIB);
    g_autofree char *nodes = g_strdup_printf("-blockdev file,node-name=f,filename=%s "
                                             "-blockdev raw,node-name=a,file=f "
                                             "-blockdev raw,node-name=b,file=f "
                                             "-device virtio-blk-device,drive=a,id=v0", path);
    g_autofree char *same = g_strconcat("-accel qtest -display none -nodefaults ", nodes,
                                        " -device virtio-blk-device,drive=a,id=v1", NULL);
    g_autofree char *below = g_strconcat("-accel qtest -display none -nodefaults ", nodes,
                                         " -device virtio-blk-device,drive=b,id=v1", NULL);
    QTestState *s = qtest_init(nodes);

    io_expect(s, "a", "write 0 4k", "write: Node 'a' is used by device 'v0' as 'root', which does not allow "
              "write (wanted by a block device as 'root')\n");
    io_expect(s, "b", "write 0 4k", "write: Node 'f' is used by node 'a' as 'file', which does not allow "
              "write (wanted by node 'b' as 'file')\n");
    io(s, "b", "read -q 0 4k");
    io(s, "-d v0", "write -q -P 7 0 4k");
    io(s, "b", "read -q -P 7 0 4k");
    /* The file is locked against another node on it as well. */
    add_raw(s, "c", path);
    io(s, "c", "read -q -P 7 0 4k");
    {
        g_autofree char *message = g_strdup_printf("write: Failed to get \"write\" lock on '%s': another node "
                                                   "of this process does not share it\n", path);

        io_expect(s, "c", "write 0 4k", message);
    }
    qtest_qmp_assert_error(s, "Node 'a' is in use: by device 'v0' as 'root'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': 'a'}}");

    /* And against another process. */
    {
        g_autofree char *drive = g_strdup_printf("-accel qtest -display none -nodefaults -drive file=%s,format=raw",
                                                 path);
        g_autofree char *message = g_strdup_printf("Failed to get \"write\" lock on '%s'", path);

        expect_start_fails(drive, message);
    }
    qtest_quit(s);

    expect_start_fails(same, "Node 'a' is used by device 'v0' as 'root', which does not allow write (wanted by "
                       "device 'v1' as 'root')");
    expect_start_fails(below, "Node 'f' is used by node 'a' as 'file', which does not allow write (wanted by "
                       "node 'b' as 'file')");
}

/* ---- block_resize ---- */

static void test_resize(void)
{
    g_autofree char *path = new_file("r.img", MIB), *locked = new_file("r2.img", MIB);
    QTestState *s = qtest_initf("-drive id=d,if=none,file=%s,format=raw -device virtio-blk-device,drive=d "
                                "-blockdev raw,node-name=ro,read-only=on,file.driver=file,file.filename=%s",
                                path, locked);
    struct json_object *error;

    qtest_qmp_assert_success(s, "{'execute': 'block_resize', 'arguments': {'device': 'd', 'size': 8388608}}");
    g_assert_cmpint(file_length(path), ==, 8 * MIB);
    io_expect(s, "d", "length", "8 MiB\n");
    io(s, "d", "write -q -P 1 7M 1M");
    qtest_qmp_assert_success(s, "{'execute': 'block_resize', 'arguments': {'node-name': '#block002', "
                             "'size': 512000}}");
    g_assert_cmpint(file_length(path), ==, 512000);
    qtest_qmp_assert_success(s, "{'execute': 'block_resize', 'arguments': {'device': 'd', 'size': 8388608}}");
    io(s, "d", "read -q -P 0 7M 1M");
    qtest_qmp_assert_error(s, "Parameter 'size' expects a >0 size",
                           "{'execute': 'block_resize', 'arguments': {'device': 'd', 'size': -1}}");
    qtest_qmp_assert_error(s, "Exactly one of 'device' and 'node-name' must be given",
                           "{'execute': 'block_resize', 'arguments': {'size': 1}}");
    qtest_qmp_assert_error(s, "Exactly one of 'device' and 'node-name' must be given",
                           "{'execute': 'block_resize', 'arguments': {'device': 'd', 'node-name': 'ro', "
                           "'size': 1}}");
    qtest_qmp_assert_error(s, "Failed to find node with node-name='d'",
                           "{'execute': 'block_resize', 'arguments': {'node-name': 'd', 'size': 1}}");
    qtest_qmp_assert_error(s, "Block node 'ro' is read-only",
                           "{'execute': 'block_resize', 'arguments': {'node-name': 'ro', 'size': 1024}}");
    error = qtest_qmp_assert_failure_ref(s, "{'execute': 'block_resize', 'arguments': {'device': 'ro', "
                                         "'size': 1}}");
    g_assert_cmpstr(qtest_get_str(error, "class"), ==, "DeviceNotFound");
    g_assert_cmpstr(qtest_get_str(error, "desc"), ==, "Device 'ro' not found");
    json_object_put(error);
    g_assert_cmpint(file_length(locked), ==, MIB);
    qtest_quit(s);
}

/* ---- blockdev-reopen ---- */

static void reopen(QTestState *s, const char *options)
{
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-reopen', 'arguments': {'options': %p}}",
                             qtest_json(options));
}

static void reopen_fails(QTestState *s, const char *options, const char *message)
{
    qtest_qmp_assert_error(s, message, "{'execute': 'blockdev-reopen', 'arguments': {'options': %p}}",
                           qtest_json(options));
}

static void test_reopen(void)
{
    g_autofree char *path = new_file("o.img", MIB), *other = new_file("o2.img", 2 * MIB);
    g_autofree char *file = g_strdup_printf("'driver': 'file', 'node-name': 'f', 'filename': '%s'", path);
    g_autofree char *read_only = g_strdup_printf("[{%s, 'read-only': true}]", file);
    g_autofree char *writable = g_strdup_printf("[{%s}]", file);
    g_autofree char *aio = g_strdup_printf("[{%s, 'aio': 'threads'}]", file);
    g_autofree char *both = g_strdup_printf("[{'driver': 'raw', 'node-name': 'a', 'file': 'f', 'read-only': true},"
                                            " {%s, 'read-only': true}]", file);
    QTestState *s = qtest_initf("-blockdev file,node-name=f,filename=%s -blockdev raw,node-name=a,file=f "
                                "-blockdev raw,node-name=b,file=f "
                                "-blockdev raw,node-name=own,file.driver=file,file.filename=%s", path, other);
    struct json_object *info;

    /* Read-only and back: requests tell. */
    io(s, "a", "write -q -P 1 0 4k");
    reopen(s, "[{'driver': 'raw', 'node-name': 'a', 'file': 'f', 'read-only': true}]");
    io_expect(s, "a", "write 0 4k", "write: Block node 'a' is read-only\n");
    io(s, "a", "read -q -P 1 0 4k");
    reopen(s, "[{'driver': 'raw', 'node-name': 'a', 'file': 'f'}]");
    io(s, "a", "write -q -P 2 0 4k");
    reopen(s, both);
    io_expect(s, "b", "write 0 4k", "write: Block node 'f' is read-only\n");
    reopen(s, writable);
    io(s, "b", "write -q -P 3 0 4k");
    reopen(s, read_only);
    reopen(s, writable);
    reopen(s, aio);
    io(s, "b", "read -q -P 3 0 4k");

    /* A driver's own options: the window of raw. */
    reopen(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'f', 'offset': 4096, 'size': 8192}]");
    g_assert_cmpint(node_length(s, "b"), ==, 8192);
    io(s, "b", "write -q -P 4 0 4k");
    reopen(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'f'}]");
    g_assert_cmpint(node_length(s, "b"), ==, MIB);
    io(s, "b", "read -q -P 4 4k 4k");

    /* What a child inherited follows its parent. */
    info = find_node(s, "own");
    {
        g_autofree char *child = g_strdup(qtest_get_str(info, "children.0.node-name"));
        g_autofree char *options = g_strdup_printf("[{'driver': 'raw', 'node-name': 'own', 'file': '%s', "
                                                   "'cache': {'no-flush': true}}]", child);
        struct json_object *child_info;

        json_object_put(info);
        reopen(s, options);
        child_info = find_node(s, child);
        g_assert_true(qtest_get_bool(child_info, "cache.no-flush"));
        json_object_put(child_info);
    }
    /* Another child. */
    io(s, "own", "write -q -P 9 0 4k");
    reopen(s, "[{'driver': 'raw', 'node-name': 'own', 'file': 'f'}]");
    g_assert_cmpint(node_length(s, "own"), ==, MIB);
    io(s, "own", "read -q -P 4 4k 4k");
    qtest_quit(s);
}

static void test_reopen_errors(void)
{
    g_autofree char *path = new_file("e.img", MIB), *other = new_file("e2.img", MIB);
    g_autofree char *renamed = g_strdup_printf("[{'driver': 'raw', 'node-name': 'b', 'file': 'f', 'offset': 512},"
                                               " {'driver': 'file', 'node-name': 'f', 'filename': '%s'}]", other);
    g_autofree char *message = g_strdup_printf("Cannot change the option 'filename' of '%s'", path);
    QTestState *s = qtest_initf("-blockdev file,node-name=f,filename=%s -blockdev raw,node-name=a,file=f "
                                "-blockdev raw,node-name=b,file=f -blockdev null-co,node-name=n,size=1M "
                                "-device virtio-blk-device,drive=a,id=v", path);

    reopen_fails(s, "[{'driver': 'raw', 'file': 'f'}]", "node-name not specified");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'x', 'file': 'f'}]",
                 "Failed to find node with node-name='x'");
    reopen_fails(s, "[{'driver': 'null-co', 'node-name': 'a'}]", "Cannot change the option 'driver' of node 'a'");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'f'}, {'driver': 'raw', 'node-name': 'b', "
                 "'file': 'f'}]", "Node 'b' is named twice");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': {'driver': 'null-co'}}]",
                 "Option 'file' of node 'b' has to be the name of a node, not a definition");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'x'}]",
                 "Cannot find device='' nor node-name='x'");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'b'}]",
                 "Putting 'b' below 'b' would create a cycle");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'f', 'size': 2097152}]",
                 "The sum of offset (0) and size (2097152) has to be smaller or equal to the length of the "
                 "containing file (1048576)");
    reopen_fails(s, "[{'driver': 'null-co', 'node-name': 'n', 'size': 2097152}]",
                 "Cannot change the option 'size' of node 'n'");
    reopen_fails(s, "[{'driver': 'null-co', 'node-name': 'n'}]", "Cannot change the option 'size' of node 'n'");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'f', 'force-share': true}]",
                 "force-share=on can only be used with read-only=on");
    /* The device writes. */
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'a', 'file': 'f', 'read-only': true}]",
                 "Block node 'a' is read-only");
    io(s, "-d v", "write -q -P 1 0 4k");
    /* All or nothing. */
    reopen_fails(s, renamed, message);
    g_assert_cmpint(node_length(s, "b"), ==, MIB);
    io(s, "b", "read -q -P 1 0 4k");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'n'}, {'driver': 'raw', 'node-name': 'a', "
                 "'file': 'f', 'read-only': true}]", "Block node 'a' is read-only");
    io(s, "b", "read -q -P 1 0 4k");
    qtest_quit(s);
}

/* ---- snapshots ---- */

static void snapshot_sync(QTestState *s, const char *node, const char *path, const char *name)
{
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-snapshot-sync', 'arguments': {'node-name': %s, "
                             "'snapshot-file': %s, 'snapshot-node-name': %s}}", node, path, name);
}

static void test_snapshot(void)
{
    g_autofree char *base = new_file("base.img", MIB), *one = path_of("one.qcow2"), *two = path_of("two.qcow2");
    QTestState *s = qtest_initf("-blockdev raw,node-name=base,file.driver=file,file.filename=%s "
                                "-device virtio-blk-device,drive=base,id=v", base);
    struct json_object *list, *info;

    io(s, "-d v", "write -q -P 1 0 1M");
    snapshot_sync(s, "base", one, "one");
    io(s, "-d v", "write -q -P 2 0 64k");
    snapshot_sync(s, "one", two, "two");
    io(s, "-d v", "write -q -P 3 32k 64k");
    io(s, "-d v", "flush");

    /* The device sees all; each node below keeps what it had. */
    io(s, "-d v", "read -q -P 2 0 32k");
    io(s, "-d v", "read -q -P 3 32k 64k");
    io(s, "-d v", "read -q -P 1 96k 928k");
    io(s, "one", "read -q -P 2 0 64k");
    io(s, "one", "read -q -P 1 64k 960k");
    io(s, "base", "read -q -P 1 0 1M");
    io_expect(s, "base", "write 0 4k", "write: Node 'base' is used by node 'one' as 'backing', which does not "
              "allow write (wanted by a block device as 'root')\n");
    info = find_node(s, "base");
    g_assert_true(qtest_get_bool(info, "ro"));
    json_object_put(info);

    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 1);
    info = qtest_get(list, "0.inserted");
    g_assert_cmpstr(qtest_get_str(info, "node-name"), ==, "two");
    g_assert_cmpint(qtest_get_int(info, "backing_file_depth"), ==, 2);
    g_assert_cmpstr(qtest_get_str(info, "backing_file"), ==, one);
    g_assert_cmpstr(qtest_get_str(info, "image.backing-image.filename"), ==, one);
    g_assert_cmpstr(qtest_get_str(info, "image.backing-image.backing-image.filename"), ==, base);
    g_assert_cmpstr(qtest_get_str(info, "image.backing-filename"), ==, one);
    g_assert_cmpstr(qtest_get_str(info, "image.backing-filename-format"), ==, "qcow2");
    json_object_put(list);
    qtest_quit(s);

    /* The images find each other again. */
    s = qtest_initf("-drive id=d,if=none,file=%s,format=qcow2", two);
    io(s, "d", "read -q -P 2 0 32k");
    io(s, "d", "read -q -P 3 32k 64k");
    io(s, "d", "read -q -P 1 96k 928k");
    qtest_quit(s);
}

static void test_snapshot_overlay(void)
{
    g_autofree char *base = new_file("sbase.img", MIB), *over = path_of("over.qcow2");
    QTestState *s = qtest_initf("-drive id=d,if=none,file=%s,format=raw,node-name=base", base);

    create_image(s, "qcow2", over, MIB);
    io(s, "d", "write -q -P 1 0 1M");
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': 'over',"
                             " 'backing': null, 'file': {'driver': 'file', 'filename': %s}}}", over);
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'base', "
                             "'overlay': 'over'}}");
    io(s, "d", "write -q -P 2 0 4k");
    io(s, "d", "read -q -P 1 4k 60k");
    io(s, "base", "read -q -P 1 0 4k");
    qtest_qmp_assert_error(s, "Node 'over' is in use: by block device 'd' as 'root'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': 'over'}}");
    qtest_quit(s);
}

static void test_snapshot_errors(void)
{
    g_autofree char *base = new_file("xbase.img", MIB), *over = path_of("xover.qcow2");
    QTestState *s = qtest_initf("-drive id=d,if=none,file=%s,format=raw,node-name=base "
                                "-blockdev null-co,node-name=n", base);
    struct json_object *error;

    create_image(s, "qcow2", over, MIB);
    add_qcow2(s, "over", over);
    add_raw(s, "user", base);
    qtest_qmp_assert_error(s, "Cannot find device='' nor node-name='x'",
                           "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'x', 'overlay': 'over'}}");
    qtest_qmp_assert_error(s, "Cannot find device='' nor node-name='x'",
                           "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'base', 'overlay': 'x'}}");
    qtest_qmp_assert_error(s, "The overlay does not support backing images",
                           "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'base', 'overlay': 'n'}}");
    qtest_qmp_assert_error(s, "The overlay is already in use: by block device 'd'",
                           "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'over', 'overlay': 'base'}}");
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'n', "
                             "'overlay': 'over'}}");
    qtest_qmp_assert_error(s, "The overlay already has a backing image",
                           "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'base', 'overlay': 'over'}}");

    error = qtest_qmp_assert_failure_ref(s, "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'x', "
                                         "'snapshot-file': '/tmp/x'}}");
    g_assert_cmpstr(qtest_get_str(error, "class"), ==, "DeviceNotFound");
    json_object_put(error);
    qtest_qmp_assert_error(s, "New overlay node-name already in use",
                           "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
                           "'/tmp/x', 'snapshot-node-name': 'n'}}");
    qtest_qmp_assert_error(s, "Unknown driver 'vmdk'",
                           "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
                           "'/tmp/x', 'format': 'vmdk'}}");
    qtest_qmp_assert_error(s, "Format 'raw' cannot make an image with a backing file",
                           "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
                           "'/tmp/x', 'format': 'raw'}}");
    qtest_qmp_assert_error(s, "The overlay does not support backing images",
                           "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
                           "%s, 'format': 'raw', 'mode': 'existing'}}", base);
    io(s, "d", "write -q 0 4k");
    qtest_quit(s);
}

/* ---- dirty bitmaps ---- */

static void bitmap(QTestState *s, const char *command, const char *node, const char *name)
{
    g_autofree char *execute = g_strconcat("block-dirty-bitmap-", command, NULL);

    qtest_qmp_assert_success(s, "{'execute': %s, 'arguments': {'node': %s, 'name': %s}}", execute, node, name);
}

/* Dirty bytes of a bitmap of node "a"; -1: it has none of that name. */
static int64_t dirty_bytes(QTestState *s, const char *name)
{
    struct json_object *info = find_node(s, "a");
    int64_t count = -1;

    if (qtest_has(info, "dirty-bitmaps")) {
        struct json_object *list = qtest_get(info, "dirty-bitmaps");

        for (size_t i = 0; i < json_object_array_length(list); i++) {
            struct json_object *b = json_object_array_get_idx(list, i);

            count = strcmp(qtest_get_str(b, "name"), name) ? count : qtest_get_int(b, "count");
        }
    }
    json_object_put(info);
    return count;
}

static void test_bitmaps(void)
{
    g_autofree char *path = new_file("b.img", MIB);
    QTestState *s = qtest_initf("-blockdev raw,node-name=a,discard=unmap,file.driver=file,file.filename=%s "
                                "-blockdev null-co,node-name=n,size=1M -blockdev null-co,node-name=small,size=64k",
                                path);
    struct json_object *info;

    bitmap(s, "add", "a", "x");
    qtest_qmp_assert_success(s, "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': 'a', 'name': 'y', "
                             "'granularity': 4096, 'disabled': true}}");
    info = find_node(s, "a");
    g_assert_cmpint(qtest_get_int(info, "dirty-bitmaps.0.granularity"), ==, 65536);
    g_assert_true(qtest_get_bool(info, "dirty-bitmaps.0.recording"));
    g_assert_false(qtest_get_bool(info, "dirty-bitmaps.1.recording"));
    g_assert_false(qtest_get_bool(info, "dirty-bitmaps.1.busy"));
    g_assert_false(qtest_get_bool(info, "dirty-bitmaps.1.persistent"));
    json_object_put(info);

    io(s, "a", "write -q 0 512");
    io(s, "a", "write -q 64k 64k");
    io(s, "a", "discard -q 512k 64k");
    io(s, "a", "write -q -z 960k 64k");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 4 * 65536);
    g_assert_cmpint(dirty_bytes(s, "y"), ==, 0);
    bitmap(s, "enable", "a", "y");
    bitmap(s, "disable", "a", "x");
    io(s, "a", "write -q 256k 4k");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 4 * 65536);
    g_assert_cmpint(dirty_bytes(s, "y"), ==, 4096);
    qtest_qmp_assert_success(s, "{'execute': 'block-dirty-bitmap-merge', 'arguments': {'node': 'a', 'target': "
                             "'x', 'bitmaps': ['y']}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 5 * 65536);
    bitmap(s, "clear", "a", "x");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 0);

    bitmap(s, "add", "n", "far");
    io(s, "n", "write -q 0 64k");
    qtest_qmp_assert_success(s, "{'execute': 'block-dirty-bitmap-merge', 'arguments': {'node': 'a', 'target': "
                             "'x', 'bitmaps': ['y', {'node': 'n', 'name': 'far'}]}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 2 * 65536);
    /* A source that does not fit leaves the target as it was. */
    bitmap(s, "add", "small", "far");
    bitmap(s, "clear", "a", "x");
    qtest_qmp_assert_error(s, "Bitmaps are of different sizes (destination size is 1048576, source size is 65536) "
                           "and can't be merged",
                           "{'execute': 'block-dirty-bitmap-merge', 'arguments': {'node': 'a', 'target': 'x', "
                           "'bitmaps': ['y', {'node': 'small', 'name': 'far'}]}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 0);
    bitmap(s, "remove", "a", "x");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, -1);
    qtest_quit(s);
}

static void test_bitmap_errors(void)
{
    static const struct {
        const char *command, *arguments, *message;
    } cases[] = {
        { "add", "{'node': 'x', 'name': 'b'}", "Cannot find device='' nor node-name='x'" },
        { "add", "{'node': 'a', 'name': ''}", "Bitmap name cannot be empty" },
        { "add", "{'node': 'a', 'name': 'b'}", "Bitmap already exists: b" },
        { "add", "{'node': 'a', 'name': 'c', 'granularity': 256}",
          "Granularity must be power of 2 and at least 512" },
        { "add", "{'node': 'a', 'name': 'c', 'granularity': 0}",
          "Granularity must be power of 2 and at least 512" },
        { "add", "{'node': 'a', 'name': 'c', 'granularity': 5000}", "Granularity must be power of 2, not 5000" },
        { "add", "{'node': 'a', 'name': 'c', 'persistent': true}",
          "Cannot store dirty bitmaps in file 'null-co://': driver 'null-co' has no place for them" },
        { "remove", "{'node': 'a', 'name': 'c'}", "Dirty bitmap 'c' not found" },
        { "clear", "{'node': 'a', 'name': 'c'}", "Dirty bitmap 'c' not found" },
        { "enable", "{'node': 'a', 'name': 'c'}", "Dirty bitmap 'c' not found" },
        { "disable", "{'node': 'x', 'name': 'b'}", "Cannot find device='' nor node-name='x'" },
        { "merge", "{'node': 'a', 'target': 'c', 'bitmaps': ['b']}", "Dirty bitmap 'c' not found" },
        { "merge", "{'node': 'a', 'target': 'b', 'bitmaps': ['c']}", "Dirty bitmap 'c' not found" },
        { "merge", "{'node': 'a', 'target': 'b', 'bitmaps': [{'node': 'x', 'name': 'b'}]}",
          "Cannot find device='' nor node-name='x'" },
    };
    QTestState *s = qtest_init("-blockdev null-co,node-name=a");

    bitmap(s, "add", "a", "b");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *execute = g_strconcat("block-dirty-bitmap-", cases[i].command, NULL);

        qtest_qmp_assert_error(s, cases[i].message, "{'execute': %s, 'arguments': %p}", execute,
                               qtest_json(cases[i].arguments));
    }
    g_assert_cmpint(dirty_bytes(s, "b"), ==, 0);
    qtest_quit(s);
}

/* ---- transaction ---- */

static void test_transaction(void)
{
    QTestState *s = qtest_init("-blockdev null-co,node-name=a,size=1M");

    bitmap(s, "add", "a", "x");
    bitmap(s, "add", "a", "y");
    io(s, "a", "write -q 0 64k");
    bitmap(s, "clear", "a", "y");
    io(s, "a", "write -q 64k 64k");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 2 * 65536);
    g_assert_cmpint(dirty_bytes(s, "y"), ==, 65536);

    /* One after the other: x is cleared before y is merged into it. */
    qtest_qmp_assert_success(s, "{'execute': 'transaction', 'arguments': {'actions': ["
        "{'type': 'block-dirty-bitmap-clear', 'data': {'node': 'a', 'name': 'x'}},"
        "{'type': 'block-dirty-bitmap-merge', 'data': {'node': 'a', 'target': 'x', 'bitmaps': ['y']}},"
        "{'type': 'block-dirty-bitmap-disable', 'data': {'node': 'a', 'name': 'x'}},"
        "{'type': 'block-dirty-bitmap-add', 'data': {'node': 'a', 'name': 'z'}},"
        "{'type': 'block-dirty-bitmap-remove', 'data': {'node': 'a', 'name': 'y'}}]}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 65536);
    g_assert_cmpint(dirty_bytes(s, "y"), ==, -1);
    g_assert_cmpint(dirty_bytes(s, "z"), ==, 0);
    io(s, "a", "write -q 0 1M");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 65536);

    /* All is undone. */
    qtest_qmp_assert_error(s, "Transaction aborted using Abort action",
        "{'execute': 'transaction', 'arguments': {'actions': ["
        "{'type': 'block-dirty-bitmap-merge', 'data': {'node': 'a', 'target': 'x', 'bitmaps': ['z']}},"
        "{'type': 'block-dirty-bitmap-clear', 'data': {'node': 'a', 'name': 'x'}},"
        "{'type': 'block-dirty-bitmap-enable', 'data': {'node': 'a', 'name': 'x'}},"
        "{'type': 'block-dirty-bitmap-remove', 'data': {'node': 'a', 'name': 'z'}},"
        "{'type': 'block-dirty-bitmap-add', 'data': {'node': 'a', 'name': 'w'}},"
        "{'type': 'abort', 'data': {}}]}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 65536);
    g_assert_cmpint(dirty_bytes(s, "z"), ==, MIB);
    g_assert_cmpint(dirty_bytes(s, "w"), ==, -1);
    bitmap(s, "remove", "a", "z");
    qtest_qmp_assert_error(s, "Dirty bitmap 'none' not found",
        "{'execute': 'transaction', 'arguments': {'actions': ["
        "{'type': 'block-dirty-bitmap-clear', 'data': {'node': 'a', 'name': 'x'}},"
        "{'type': 'block-dirty-bitmap-clear', 'data': {'node': 'a', 'name': 'none'}}]}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 65536);
    qtest_qmp_assert_success(s, "{'execute': 'transaction', 'arguments': {'actions': []}}");
    qtest_quit(s);
}

static void test_transaction_snapshot(void)
{
    g_autofree char *a = new_file("ta.img", MIB), *b = new_file("tb.img", MIB);
    g_autofree char *over_a = path_of("ta.qcow2"), *over_b = path_of("tb.qcow2");
    QTestState *s = qtest_initf("-drive id=a,if=none,file=%s,format=raw,node-name=na "
                                "-drive id=b,if=none,file=%s,format=raw,node-name=nb", a, b);
    const char *fmt = "{'execute': 'transaction', 'arguments': {'actions': ["
        "{'type': 'blockdev-snapshot-sync', 'data': {'device': 'a', 'snapshot-file': %s, "
        "'snapshot-node-name': 'oa'}},"
        "{'type': 'blockdev-snapshot-sync', 'data': {'device': 'b', 'snapshot-file': %s, "
        "'snapshot-node-name': 'ob'}},"
        "{'type': %s, 'data': {'node': 'x', 'name': 'x'}}]}}";
    struct json_object *list;

    io(s, "a", "write -q -P 1 0 64k");
    qtest_qmp_assert_error(s, "Cannot find device='' nor node-name='x'", fmt, over_a, over_b,
                           "block-dirty-bitmap-clear");
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block'}");
    g_assert_cmpstr(qtest_get_str(list, "0.inserted.node-name"), ==, "na");
    g_assert_cmpstr(qtest_get_str(list, "1.inserted.node-name"), ==, "nb");
    json_object_put(list);
    g_assert_null(find_node(s, "oa"));
    io(s, "a", "write -q -P 2 0 64k");

    qtest_qmp_assert_success(s, "{'execute': 'transaction', 'arguments': {'actions': ["
        "{'type': 'blockdev-snapshot-sync', 'data': {'device': 'a', 'snapshot-file': %s, "
        "'snapshot-node-name': 'oa'}},"
        "{'type': 'blockdev-snapshot-sync', 'data': {'device': 'b', 'snapshot-file': %s, "
        "'snapshot-node-name': 'ob'}},"
        "{'type': 'block-dirty-bitmap-add', 'data': {'node': 'oa', 'name': 'x'}}]}}", over_a, over_b);
    io(s, "a", "write -q -P 3 0 64k");
    io(s, "na", "read -q -P 2 0 64k");
    io(s, "oa", "read -q -P 3 0 64k");
    qtest_quit(s);
}

/* ---- blockdev-create ---- */

static void expect_create_error(QTestState *s, const char *message)
{
    struct json_object *list;

    expect_job(s, "j", "created running aborting concluded");
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-jobs'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 1);
    g_assert_cmpstr(qtest_get_str(list, "0.type"), ==, "create");
    g_assert_cmpstr(qtest_get_str(list, "0.status"), ==, "concluded");
    g_assert_cmpstr(qtest_get_str(list, "0.error"), ==, message);
    json_object_put(list);
    qtest_qmp_assert_success(s, "{'execute': 'job-dismiss', 'arguments': {'id': 'j'}}");
    expect_job(s, "j", "null");
}

static void test_create(void)
{
    g_autofree char *path = path_of("c.img");
    QTestState *s = qtest_init("-blockdev null-co,node-name=n");
    struct json_object *list;

    create_image(s, "file", path, 3 * MIB);
    g_assert_cmpint(file_length(path), ==, 3 * MIB);
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
                             "'driver': 'file', 'filename': '/does/not/exist', 'size': 0}}}");
    expect_create_error(s, "Could not open '/does/not/exist': No such file or directory");

    qtest_qmp_assert_error(s, "Driver 'null-co' does not support blockdev-create",
                           "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
                           "'driver': 'null-co'}}}");
    qtest_qmp_assert_error(s, "Invalid job ID '1'",
                           "{'execute': 'blockdev-create', 'arguments': {'job-id': '1', 'options': {"
                           "'driver': 'file', 'filename': %s, 'size': 0}}}", path);
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
                             "'driver': 'file', 'filename': %s, 'size': 0}}}", path);
    qtest_qmp_assert_error(s, "Job ID 'j' already in use",
                           "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
                           "'driver': 'file', 'filename': %s, 'size': 0}}}", path);
    expect_job(s, "j", "created running waiting pending concluded");
    qtest_qmp_assert_error(s, "Job 'j' in state 'concluded' cannot accept command verb 'pause'",
                           "{'execute': 'job-pause', 'arguments': {'id': 'j'}}");
    qtest_qmp_assert_error(s, "Can't resume a job that was not paused",
                           "{'execute': 'job-resume', 'arguments': {'id': 'j'}}");
    qtest_qmp_assert_error(s, "Job 'j' in state 'concluded' cannot accept command verb 'cancel'",
                           "{'execute': 'job-cancel', 'arguments': {'id': 'j'}}");
    qtest_qmp_assert_error(s, "Job 'j' in state 'concluded' cannot accept command verb 'complete'",
                           "{'execute': 'job-complete', 'arguments': {'id': 'j'}}");
    qtest_qmp_assert_error(s, "Job 'j' in state 'concluded' cannot accept command verb 'finalize'",
                           "{'execute': 'job-finalize', 'arguments': {'id': 'j'}}");
    qtest_qmp_assert_error(s, "Job 'x' not found", "{'execute': 'job-dismiss', 'arguments': {'id': 'x'}}");
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block-jobs'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 0);
    json_object_put(list);
    /* A job that nobody dismissed does not keep the program. */
    qtest_quit(s);
}

static void test_create_qcow2(void)
{
    g_autofree char *path = path_of("c.qcow2"), *file = new_file("c2.qcow2", 0);
    QTestState *s = qtest_init("");
    struct json_object *info;

    create_image(s, "qcow2", path, 5 * MIB);
    add_qcow2(s, "q", path);
    g_assert_cmpint(node_length(s, "q"), ==, 5 * MIB);
    io(s, "q", "write -q -P 1 1M 1M");
    io(s, "q", "read -q -P 1 1M 1M");
    del(s, "q");

    /* By reference, with options. */
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'node-name': 'f', "
                             "'filename': %s}}", file);
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
                             "'driver': 'qcow2', 'file': 'f', 'size': 65536, 'cluster-size': 4096, 'version': 'v2'"
                             "}}}");
    expect_job(s, "j", "created running waiting pending concluded");
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': 'q', "
                             "'file': 'f'}}");
    info = find_node(s, "q");
    g_assert_cmpint(qtest_get_int(info, "image.cluster-size"), ==, 4096);
    g_assert_cmpstr(qtest_get_str(info, "image.format-specific.data.compat"), ==, "0.10");
    json_object_put(info);
    del(s, "q");
    /* A job that has ended holds nothing. */
    del(s, "f");
    qtest_qmp_assert_error(s, "Cannot find device='' nor node-name='f'",
                           "{'execute': 'blockdev-create', 'arguments': {'job-id': 'k', 'options': {"
                           "'driver': 'qcow2', 'file': 'f', 'size': 65536}}}");
    qtest_quit(s);
}

/* ---- asking ---- */

static void test_query(void)
{
    g_autofree char *path = new_file("q.img", MIB);
    QTestState *s = qtest_initf("-drive id=d,file=%s,format=raw,cache=directsync "
                                "-drive id=e,if=none,file=%s,format=raw,read-only=on,file.locking=off "
                                "-blockdev null-co,node-name=n -device virtio-blk-device,drive=n,id=v",
                                path, path);
    struct json_object *list;

    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 3);
    g_assert_cmpstr(qtest_get_str(list, "0.device"), ==, "d");
    g_assert_true(g_str_has_prefix(qtest_get_str(list, "0.qdev"), "/machine/unattached/"));
    g_assert_false(qtest_get_bool(list, "0.removable") || qtest_get_bool(list, "0.inserted.cache.writeback"));
    g_assert_true(qtest_get_bool(list, "0.inserted.cache.direct"));
    g_assert_cmpstr(qtest_get_str(list, "1.device"), ==, "e");
    g_assert_false(qtest_has(list, "1.qdev"));
    g_assert_true(qtest_get_bool(list, "1.removable") && qtest_get_bool(list, "1.inserted.ro"));
    g_assert_cmpstr(qtest_get_str(list, "2.device"), ==, "");
    g_assert_true(g_str_has_suffix(qtest_get_str(list, "2.qdev"), "v"));
    g_assert_cmpstr(qtest_get_str(list, "2.inserted.node-name"), ==, "n");
    json_object_put(list);

    io(s, "d", "write -q 512k 64k");
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-blockstats'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 3);
    g_assert_cmpstr(qtest_get_str(list, "0.device"), ==, "d");
    g_assert_cmpint(qtest_get_int(list, "0.stats.wr_highest_offset"), ==, 576 * 1024);
    g_assert_cmpint(qtest_get_int(list, "0.parent.stats.wr_highest_offset"), ==, 576 * 1024);
    g_assert_cmpint(qtest_get_int(list, "1.stats.wr_highest_offset"), ==, 0);
    json_object_put(list);
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-blockstats', 'arguments': "
                                        "{'query-nodes': true}}");
    g_assert_cmpuint(json_object_array_length(list), ==, 5);
    g_assert_cmpstr(qtest_get_str(list, "0.node-name"), ==, "n");
    g_assert_false(qtest_has(list, "0.device"));
    json_object_put(list);
    qtest_quit(s);
}

/* ---- the command line ---- */

static void test_command_line(void)
{
    static const struct {
        const char *args, *message;
    } cases[] = {
        { "-blockdev null-co", "-blockdev null-co: 'node-name' must be specified for the root node" },
        { "-blockdev driver=vmdk,node-name=x",
          "-blockdev driver=vmdk,node-name=x: Parameter 'driver' does not accept value 'vmdk'" },
        { "-blockdev null-co,node-name=x,colour=red",
          "-blockdev null-co,node-name=x,colour=red: Parameter 'colour' is unexpected" },
        { "-blockdev '{\"driver\":\"null-co\"'", "-blockdev {\"driver\":\"null-co\": " },
        { "-blockdev raw,node-name=x,file=y",
          "-blockdev raw,node-name=x,file=y: Cannot find device='' nor node-name='y'" },
        { "-blockdev null-co,node-name=x -blockdev null-co,node-name=x",
          "-blockdev null-co,node-name=x: Duplicate nodes with node-name='x'" },
        { "-drive file=x", "-drive file=x: Parameter 'format' is missing" },
        { "-drive file=/does/not/exist,format=raw",
          "-drive file=/does/not/exist,format=raw: Could not open '/does/not/exist': No such file or directory" },
        { "-drive file=null-co://,format=raw,id=a -drive file=null-co://,format=raw,id=a",
          "Device with id 'a' already exists" },
        { "-drive file=null-co://,format=raw,if=none -device virtio-blk-device,drive=x", "x" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *args = g_strconcat("-accel qtest -display none -nodefaults ", cases[i].args, NULL);

        expect_start_fails(args, cases[i].message);
    }
}

/* Content survives the end of the program, by command and by signal. */
static void test_quit(void)
{
    for (int by_command = 0; by_command < 2; by_command++) {
        g_autofree char *path = path_of("quit.qcow2");
        QTestState *s = qtest_init("");

        create_image(s, "qcow2", path, 8 * MIB);
        add_qcow2(s, "q", path);
        io(s, "q", "write -q -P 5 0 4M");
        io(s, "q", "aio_write -q -P 6 4M 1M");
        if (by_command) {
            qtest_qmp_assert_success(s, "{'execute': 'quit'}");
            g_assert_cmpint(qtest_wait_exit(s), ==, 0);
        }
        qtest_quit(s);
        s = qtest_init("");
        add_qcow2(s, "q", path);
        io(s, "q", "read -q -P 5 0 4M");
        io(s, "q", "read -q -P 6 4M 1M");
        io(s, "q", "read -q -P 0 5M 3M");
        qtest_quit(s);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/blockdev/add-del", test_add_del);
    qtest_add_func("/blockdev/add-errors", test_add_errors);
    qtest_add_func("/blockdev/permissions", test_permissions);
    qtest_add_func("/blockdev/resize", test_resize);
    qtest_add_func("/blockdev/reopen", test_reopen);
    qtest_add_func("/blockdev/reopen-errors", test_reopen_errors);
    qtest_add_func("/blockdev/bitmaps", test_bitmaps);
    qtest_add_func("/blockdev/bitmap-errors", test_bitmap_errors);
    qtest_add_func("/blockdev/transaction", test_transaction);
    qtest_add_func("/blockdev/create", test_create);
    qtest_add_func("/blockdev/query", test_query);
    qtest_add_func("/blockdev/command-line", test_command_line);
    qtest_add_func("/blockdev/qcow2/create", test_create_qcow2);
    qtest_add_func("/blockdev/qcow2/snapshot", test_snapshot);
    qtest_add_func("/blockdev/qcow2/snapshot-overlay", test_snapshot_overlay);
    qtest_add_func("/blockdev/qcow2/snapshot-errors", test_snapshot_errors);
    qtest_add_func("/blockdev/qcow2/transaction", test_transaction_snapshot);
    qtest_add_func("/blockdev/qcow2/quit", test_quit);
    return g_test_run();
}
