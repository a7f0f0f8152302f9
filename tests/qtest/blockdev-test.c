/*
 * Nodes by their commands: opened, closed, asked about, resized, reopened, made; when it works and
 * when it does not, on a machine whose disks are read and written by HMP's qemu-io.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "tests/qtest/blockdev-util.h"
#include "util/bswap.h"

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

    qtest_qmp_assert_success(
        s,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'node-name': 'f',"
        " 'filename': %s, 'read-only': true, 'detect-zeroes': 'unmap', 'discard': 'unmap',"
        " 'cache': {'no-flush': true}}}",
        path);
    qtest_qmp_assert_success(
        s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw', 'node-name': 'r',"
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
        { "{'driver': 'null-co', 'node-name': 'd'}",
          "node-name=d is conflicting with a device id" },
        { "{'driver': 'null-co', 'node-name': '#x'}", "Invalid node-name: '#x'" },
        { "{'driver': 'null-co', 'node-name': 'x2345678901234567890123456789012'}",
          "Node name 'x2345678901234567890123456789012' is too long: at most 31 characters" },
        { "{'driver': 'vmdk', 'node-name': 'x'}",
          "Parameter 'driver' does not accept value 'vmdk'" },
        { "{'driver': 'raw', 'node-name': 'x', 'file': 'y'}",
          "Cannot find device='' nor node-name='y'" },
        { "{'driver': 'raw', 'node-name': 'x'}", "Parameter 'file' is missing" },
        { "{'driver': 'raw', 'node-name': 'x', 'file': 'n', 'offset': 8192, 'size': 1}",
          "Offset (8192) cannot be greater than the length of the containing file (4096)" },
        { "{'driver': 'file', 'node-name': 'x', 'filename': '/does/not/exist'}",
          "Could not open '/does/not/exist': No such file or directory" },
        { "{'driver': 'null-co', 'node-name': 'x', 'detect-zeroes': 'unmap'}",
          "setting detect-zeroes to unmap is not allowed without setting discard operation to "
          "unmap" },
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

    io_expect(s, "a", "write 0 4k",
              "write: Node 'a' is used by device 'v0' as 'root', which does not allow "
              "write (wanted by a block device as 'root')\n");
    io_expect(s, "b", "write 0 4k",
              "write: Node 'f' is used by node 'a' as 'file', which does not allow "
              "write (wanted by node 'b' as 'file')\n");
    io(s, "b", "read -q 0 4k");
    io(s, "-d v0", "write -q -P 7 0 4k");
    io(s, "b", "read -q -P 7 0 4k");
    /* The file is locked against another node on it as well. */
    add_raw(s, "c", path);
    io(s, "c", "read -q -P 7 0 4k");
    {
        g_autofree char *message =
            g_strdup_printf("write: Failed to get \"write\" lock on '%s': another node "
                            "of this process does not share it\n",
                            path);

        io_expect(s, "c", "write 0 4k", message);
    }
    qtest_qmp_assert_error(s, "Node 'a' is in use: by device 'v0' as 'root'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': 'a'}}");

    /* And against another process. */
    {
        g_autofree char *drive = g_strdup_printf(
            "-accel qtest -display none -nodefaults -drive file=%s,format=raw", path);
        g_autofree char *message = g_strdup_printf("Failed to get \"write\" lock on '%s'", path);

        expect_start_fails(drive, message);
    }
    qtest_quit(s);

    expect_start_fails(
        same, "Node 'a' is used by device 'v0' as 'root', which does not allow write (wanted by "
              "device 'v1' as 'root')");
    expect_start_fails(
        below, "Node 'f' is used by node 'a' as 'file', which does not allow write (wanted by "
               "node 'b' as 'file')");
}

/* ---- block_resize ---- */

static void test_resize(void)
{
    g_autofree char *path = new_file("r.img", MIB), *locked = new_file("r2.img", MIB);
    QTestState *s =
        qtest_initf("-drive id=d,if=none,file=%s,format=raw -device virtio-blk-device,drive=d "
                    "-blockdev raw,node-name=ro,read-only=on,file.driver=file,file.filename=%s",
                    path, locked);
    struct json_object *error;

    qtest_qmp_assert_success(
        s, "{'execute': 'block_resize', 'arguments': {'device': 'd', 'size': 8388608}}");
    g_assert_cmpint(file_length(path), ==, 8 * MIB);
    io_expect(s, "d", "length", "8 MiB\n");
    io(s, "d", "write -q -P 1 7M 1M");
    qtest_qmp_assert_success(s,
                             "{'execute': 'block_resize', 'arguments': {'node-name': '#block002', "
                             "'size': 512000}}");
    g_assert_cmpint(file_length(path), ==, 512000);
    qtest_qmp_assert_success(
        s, "{'execute': 'block_resize', 'arguments': {'device': 'd', 'size': 8388608}}");
    io(s, "d", "read -q -P 0 7M 1M");
    qtest_qmp_assert_error(s, "Parameter 'size' expects a >0 size",
                           "{'execute': 'block_resize', 'arguments': {'device': 'd', 'size': -1}}");
    qtest_qmp_assert_error(s, "Exactly one of 'device' and 'node-name' must be given",
                           "{'execute': 'block_resize', 'arguments': {'size': 1}}");
    qtest_qmp_assert_error(
        s, "Exactly one of 'device' and 'node-name' must be given",
        "{'execute': 'block_resize', 'arguments': {'device': 'd', 'node-name': 'ro', "
        "'size': 1}}");
    qtest_qmp_assert_error(
        s, "Failed to find node with node-name='d'",
        "{'execute': 'block_resize', 'arguments': {'node-name': 'd', 'size': 1}}");
    qtest_qmp_assert_error(
        s, "Block node 'ro' is read-only (resize wanted by a block device as 'root')",
        "{'execute': 'block_resize', 'arguments': {'node-name': 'ro', 'size': 1024}}");
    error =
        qtest_qmp_assert_failure_ref(s, "{'execute': 'block_resize', 'arguments': {'device': 'ro', "
                                        "'size': 1}}");
    g_assert_cmpstr(qtest_get_str(error, "class"), ==, "DeviceNotFound");
    g_assert_cmpstr(qtest_get_str(error, "desc"), ==, "Device 'ro' not found");
    json_object_put(error);
    g_assert_cmpint(file_length(locked), ==, MIB);
    qtest_quit(s);
}

/* ---- blockdev-reopen ---- */

static void test_reopen(void)
{
    g_autofree char *path = new_file("o.img", MIB), *other = new_file("o2.img", 2 * MIB);
    g_autofree char *file =
        g_strdup_printf("'driver': 'file', 'node-name': 'f', 'filename': '%s'", path);
    g_autofree char *read_only = g_strdup_printf("[{%s, 'read-only': true}]", file);
    g_autofree char *writable = g_strdup_printf("[{%s}]", file);
    g_autofree char *aio = g_strdup_printf("[{%s, 'aio': 'threads'}]", file);
    g_autofree char *both =
        g_strdup_printf("[{'driver': 'raw', 'node-name': 'a', 'file': 'f', 'read-only': true},"
                        " {%s, 'read-only': true}]",
                        file);
    QTestState *s =
        qtest_initf("-blockdev file,node-name=f,filename=%s -blockdev raw,node-name=a,file=f "
                    "-blockdev raw,node-name=b,file=f "
                    "-blockdev raw,node-name=own,file.driver=file,file.filename=%s",
                    path, other);
    struct json_object *info;

    /* Read-only and back: requests tell. */
    io(s, "a", "write -q -P 1 0 4k");
    reopen(s, "[{'driver': 'raw', 'node-name': 'a', 'file': 'f', 'read-only': true}]");
    io_expect(s, "a", "write 0 4k",
              "write: Block node 'a' is read-only (write wanted by a block device as 'root')\n");
    io(s, "a", "read -q -P 1 0 4k");
    reopen(s, "[{'driver': 'raw', 'node-name': 'a', 'file': 'f'}]");
    io(s, "a", "write -q -P 2 0 4k");
    reopen(s, both);
    io_expect(s, "b", "write 0 4k",
              "write: Block node 'f' is read-only (write wanted by node 'b' as 'file')\n");
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
        g_autofree char *options =
            g_strdup_printf("[{'driver': 'raw', 'node-name': 'own', 'file': '%s', "
                            "'cache': {'no-flush': true}}]",
                            child);
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
    g_autofree char *renamed =
        g_strdup_printf("[{'driver': 'raw', 'node-name': 'b', 'file': 'f', 'offset': 512},"
                        " {'driver': 'file', 'node-name': 'f', 'filename': '%s'}]",
                        other);
    g_autofree char *message = g_strdup_printf("Cannot change the option 'filename' of '%s'", path);
    QTestState *s =
        qtest_initf("-blockdev file,node-name=f,filename=%s -blockdev raw,node-name=a,file=f "
                    "-blockdev raw,node-name=b,file=f -blockdev null-co,node-name=n,size=1M "
                    "-device virtio-blk-device,drive=a,id=v",
                    path);

    reopen_fails(s, "[{'driver': 'raw', 'file': 'f'}]", "node-name not specified");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'x', 'file': 'f'}]",
                 "Failed to find node with node-name='x'");
    reopen_fails(s, "[{'driver': 'null-co', 'node-name': 'a'}]",
                 "Cannot change the option 'driver' of node 'a'");
    reopen_fails(
        s,
        "[{'driver': 'raw', 'node-name': 'b', 'file': 'f'}, {'driver': 'raw', 'node-name': 'b', "
        "'file': 'f'}]",
        "Node 'b' is named twice");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': {'driver': 'null-co'}}]",
                 "Option 'file' of node 'b' has to be the name of a node, not a definition");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'x'}]",
                 "Cannot find device='' nor node-name='x'");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'b'}]",
                 "Putting 'b' below 'b' would create a cycle");
    reopen_fails(
        s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'f', 'size': 2097152}]",
        "The sum of offset (0) and size (2097152) has to be smaller or equal to the length of the "
        "containing file (1048576)");
    reopen_fails(s, "[{'driver': 'null-co', 'node-name': 'n', 'size': 2097152}]",
                 "Cannot change the option 'size' of node 'n'");
    reopen_fails(s, "[{'driver': 'null-co', 'node-name': 'n'}]",
                 "Cannot change the option 'size' of node 'n'");
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'b', 'file': 'f', 'force-share': true}]",
                 "force-share=on can only be used with read-only=on");
    /* The device writes. */
    reopen_fails(s, "[{'driver': 'raw', 'node-name': 'a', 'file': 'f', 'read-only': true}]",
                 "Block node 'a' is read-only (write wanted by device 'v' as 'root')");
    io(s, "-d v", "write -q -P 1 0 4k");
    /* All or nothing. */
    reopen_fails(s, renamed, message);
    g_assert_cmpint(node_length(s, "b"), ==, MIB);
    io(s, "b", "read -q -P 1 0 4k");
    reopen_fails(
        s,
        "[{'driver': 'raw', 'node-name': 'b', 'file': 'n'}, {'driver': 'raw', 'node-name': 'a', "
        "'file': 'f', 'read-only': true}]",
        "Block node 'a' is read-only (write wanted by device 'v' as 'root')");
    io(s, "b", "read -q -P 1 0 4k");
    qtest_quit(s);
}

/* ---- backing files by blockdev-reopen ---- */

static void test_reopen_backing(void)
{
    g_autofree char *base = new_file("rb.img", MIB), *other = new_file("rb2.img", MIB),
                    *top = path_of("rb.qcow2");
    QTestState *s = qtest_initf("-blockdev raw,node-name=base,file.driver=file,file.filename=%s "
                                "-blockdev raw,node-name=other,file.driver=file,file.filename=%s",
                                base, other);
    struct json_object *info;

    io(s, "base", "write -q -P 1 0 1M");
    io(s, "other", "write -q -P 2 0 1M");
    create_image(s, "qcow2", top, MIB);
    qtest_qmp_assert_success(
        s,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'node-name': 'f', "
        "'filename': %s}}",
        top);
    qtest_qmp_assert_success(
        s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': 't', "
           "'file': 'f', 'backing': 'base'}}");
    io(s, "t", "write -q -P 3 0 64k");
    io(s, "t", "read -q -P 1 64k 64k");
    reopen(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': 'other'}]");
    io(s, "t", "read -q -P 3 0 64k");
    io(s, "t", "read -q -P 2 64k 64k");
    /* base is free again. */
    io(s, "base", "write -q -P 4 0 64k");
    reopen_fails(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'f'}]",
                 "backing is missing for 't'");
    reopen_fails(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': 'x'}]",
                 "Cannot find device='' nor node-name='x'");
    reopen_fails(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'base', 'backing': 'other'}]",
                 "Cannot change the option 'file' of node 't'");
    /* A later node of the list fails: the backing node goes back. */
    reopen_fails(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': 'base'}, "
                 "{'driver': 'raw', 'node-name': 'base', 'file': 'base'}]",
                 "Putting 'base' below 'base' would create a cycle");
    io(s, "t", "read -q -P 2 64k 64k");
    reopen(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': null}]");
    io(s, "t", "read -q -P 0 64k 64k");
    info = find_node(s, "t");
    g_assert_cmpint(qtest_get_int(info, "backing_file_depth"), ==, 0);
    json_object_put(info);
    del(s, "other");

    /* The format's own options, and read-only there and back. */
    reopen(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': null, "
              "'lazy-refcounts': true, "
              "'read-only': true}]");
    io_expect(s, "t", "write 0 4k",
              "write: Block node 't' is read-only (write wanted by a block device as 'root')\n");
    reopen(s, "[{'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': null}]");
    io(s, "t", "write -q -P 5 512k 64k");
    io(s, "t", "read -q -P 3 0 64k");
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
    qtest_qmp_assert_success(
        s, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
           "'driver': 'file', 'filename': '/does/not/exist', 'size': 0}}}");
    expect_create_error(s, "Could not open '/does/not/exist': No such file or directory");

    qtest_qmp_assert_error(
        s, "Driver 'null-co' does not support blockdev-create",
        "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
        "'driver': 'null-co'}}}");
    qtest_qmp_assert_error(
        s, "Invalid job ID '1'",
        "{'execute': 'blockdev-create', 'arguments': {'job-id': '1', 'options': {"
        "'driver': 'file', 'filename': %s, 'size': 0}}}",
        path);
    qtest_qmp_assert_success(
        s,
        "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
        "'driver': 'file', 'filename': %s, 'size': 0}}}",
        path);
    qtest_qmp_assert_error(
        s, "Job ID 'j' already in use",
        "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
        "'driver': 'file', 'filename': %s, 'size': 0}}}",
        path);
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
    qtest_qmp_assert_error(s, "Job 'x' not found",
                           "{'execute': 'job-dismiss', 'arguments': {'id': 'x'}}");
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
    qtest_qmp_assert_success(
        s,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'node-name': 'f', "
        "'filename': %s}}",
        file);
    qtest_qmp_assert_success(
        s, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j', 'options': {"
           "'driver': 'qcow2', 'file': 'f', 'size': 65536, 'cluster-size': 4096, 'version': 'v2'"
           "}}}");
    expect_job(s, "j", "created running waiting pending concluded");
    qtest_qmp_assert_success(
        s, "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': 'q', "
           "'file': 'f'}}");
    info = find_node(s, "q");
    g_assert_cmpint(qtest_get_int(info, "image.cluster-size"), ==, 4096);
    g_assert_cmpstr(qtest_get_str(info, "image.format-specific.data.compat"), ==, "0.10");
    json_object_put(info);
    del(s, "q");
    /* A job that has ended holds nothing. */
    del(s, "f");
    qtest_qmp_assert_error(
        s, "Cannot find device='' nor node-name='f'",
        "{'execute': 'blockdev-create', 'arguments': {'job-id': 'k', 'options': {"
        "'driver': 'qcow2', 'file': 'f', 'size': 65536}}}");
    qtest_quit(s);
}

/* ---- asking ---- */

static void test_query(void)
{
    g_autofree char *path = new_file("q.img", MIB);
    QTestState *s =
        qtest_initf("-drive id=d,file=%s,format=raw,cache=directsync "
                    "-drive id=e,if=none,file=%s,format=raw,read-only=on,file.locking=off "
                    "-blockdev null-co,node-name=n -device virtio-blk-device,drive=n,id=v",
                    path, path);
    struct json_object *list;

    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 3);
    g_assert_cmpstr(qtest_get_str(list, "0.device"), ==, "d");
    g_assert_true(g_str_has_prefix(qtest_get_str(list, "0.qdev"), "/machine/unattached/"));
    g_assert_false(qtest_get_bool(list, "0.removable") ||
                   qtest_get_bool(list, "0.inserted.cache.writeback"));
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
        { "-blockdev null-co",
          "-blockdev null-co: 'node-name' must be specified for the root node" },
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
          "-drive file=/does/not/exist,format=raw: Could not open '/does/not/exist': No such file "
          "or directory" },
        { "-drive file=null-co://,format=raw,id=a -drive file=null-co://,format=raw,id=a",
          "Device with id 'a' already exists" },
        { "-drive file=null-co://,format=raw,if=none -device virtio-blk-device,drive=x", "x" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *args =
            g_strconcat("-accel qtest -display none -nodefaults ", cases[i].args, NULL);

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

/*
 * A table of the image leads nowhere: who reads through it gets an error, and whoever listens is
 * told.
 */
static void test_corrupt(void)
{
    g_autofree char *path = path_of("corrupt.qcow2");
    const uint8_t wrong_entry[8] = { 0x80, 0, 0, 0, 0, 0, 0x02, 0 };
    g_autofree char *data = NULL, *out = NULL;
    QTestState *s = qtest_init("");
    struct json_object *event;
    gsize length;

    create_image(s, "qcow2", path, 4 * MIB);
    g_assert_true(g_file_get_contents(path, &data, &length, NULL));
    memcpy(data + ldq_be_p(data + 40), wrong_entry, sizeof(wrong_entry));
    g_assert_true(g_file_set_contents(path, data, length, NULL));
    add_qcow2(s, "q", path);
    out = qtest_hmp(s, "qemu-io q \"read 0 512\"");
    g_assert_nonnull(strstr(out, "Input/output error"));
    event = qtest_qmp_eventwait_ref(s, "BLOCK_IMAGE_CORRUPTED");
    g_assert_cmpstr(qtest_get_str(event, "data.node-name"), ==, "q");
    g_assert_cmpstr(qtest_get_str(event, "data.device"), ==, "");
    /* Nobody has begun to write: the image is left as it is. */
    g_assert_false(qtest_get_bool(event, "data.fatal"));
    json_object_put(event);
    qtest_quit(s);
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
    qtest_add_func("/blockdev/create", test_create);
    qtest_add_func("/blockdev/query", test_query);
    qtest_add_func("/blockdev/command-line", test_command_line);
    qtest_add_func("/blockdev/qcow2/create", test_create_qcow2);
    qtest_add_func("/blockdev/qcow2/reopen-backing", test_reopen_backing);
    qtest_add_func("/blockdev/qcow2/quit", test_quit);
    qtest_add_func("/blockdev/qcow2/corrupt", test_corrupt);
    return g_test_run();
}
