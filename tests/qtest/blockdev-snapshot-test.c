/*
 * Snapshots, dirty bitmaps and transactions of them, alone and while a thread of its own serves the
 * device.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "tests/qtest/blockdev-util.h"

static void bitmap(QTestState *s, const char *command, const char *node, const char *name)
{
    g_autofree char *execute = g_strconcat("block-dirty-bitmap-", command, NULL);

    qtest_qmp_assert_success(s, "{'execute': %s, 'arguments': {'node': %s, 'name': %s}}", execute,
                             node, name);
}

static void snapshot_sync(QTestState *s, const char *node, const char *path, const char *name)
{
    qtest_qmp_assert_success(s,
                             "{'execute': 'blockdev-snapshot-sync', 'arguments': {'node-name': %s, "
                             "'snapshot-file': %s, 'snapshot-node-name': %s}}",
                             node, path, name);
}

/* ---- snapshots ---- */

static void test_snapshot(void)
{
    g_autofree char *base = new_file("base.img", MIB), *one = path_of("one.qcow2"),
                    *two = path_of("two.qcow2");
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
    io_expect(s, "base", "write 0 4k",
              "write: Node 'base' is used by node 'one' as 'backing', which does not "
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
    qtest_qmp_assert_success(
        s,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': 'over',"
        " 'backing': null, 'file': {'driver': 'file', 'filename': %s}}}",
        over);
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
    qtest_qmp_assert_error(
        s, "Cannot find device='' nor node-name='x'",
        "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'x', 'overlay': 'over'}}");
    qtest_qmp_assert_error(
        s, "Cannot find device='' nor node-name='x'",
        "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'base', 'overlay': 'x'}}");
    qtest_qmp_assert_error(
        s, "The overlay does not support backing images",
        "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'base', 'overlay': 'n'}}");
    qtest_qmp_assert_error(
        s, "The overlay is already in use: by block device 'd'",
        "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'over', 'overlay': 'base'}}");
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'n', "
                             "'overlay': 'over'}}");
    qtest_qmp_assert_error(
        s, "The overlay already has a backing image",
        "{'execute': 'blockdev-snapshot', 'arguments': {'node': 'base', 'overlay': 'over'}}");

    error = qtest_qmp_assert_failure_ref(
        s, "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'x', "
           "'snapshot-file': '/tmp/x'}}");
    g_assert_cmpstr(qtest_get_str(error, "class"), ==, "DeviceNotFound");
    json_object_put(error);
    qtest_qmp_assert_error(
        s, "New overlay node-name already in use",
        "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
        "'/tmp/x', 'snapshot-node-name': 'n'}}");
    qtest_qmp_assert_error(
        s, "Unknown driver 'vmdk'",
        "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
        "'/tmp/x', 'format': 'vmdk'}}");
    qtest_qmp_assert_error(
        s, "Format 'raw' cannot make an image with a backing file",
        "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
        "'/tmp/x', 'format': 'raw'}}");
    qtest_qmp_assert_error(
        s, "The overlay does not support backing images",
        "{'execute': 'blockdev-snapshot-sync', 'arguments': {'device': 'd', 'snapshot-file': "
        "%s, 'format': 'raw', 'mode': 'existing'}}",
        base);
    io(s, "d", "write -q 0 4k");
    qtest_quit(s);
}

/* ---- dirty bitmaps ---- */

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
    QTestState *s = qtest_initf(
        "-blockdev raw,node-name=a,discard=unmap,file.driver=file,file.filename=%s "
        "-blockdev null-co,node-name=n,size=1M -blockdev null-co,node-name=small,size=64k",
        path);
    struct json_object *info;

    bitmap(s, "add", "a", "x");
    qtest_qmp_assert_success(
        s, "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': 'a', 'name': 'y', "
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
    qtest_qmp_assert_success(
        s, "{'execute': 'block-dirty-bitmap-merge', 'arguments': {'node': 'a', 'target': "
           "'x', 'bitmaps': ['y']}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 5 * 65536);
    bitmap(s, "clear", "a", "x");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 0);

    bitmap(s, "add", "n", "far");
    io(s, "n", "write -q 0 64k");
    qtest_qmp_assert_success(
        s, "{'execute': 'block-dirty-bitmap-merge', 'arguments': {'node': 'a', 'target': "
           "'x', 'bitmaps': ['y', {'node': 'n', 'name': 'far'}]}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 2 * 65536);
    /* A source that does not fit leaves the target as it was. */
    bitmap(s, "add", "small", "far");
    bitmap(s, "clear", "a", "x");
    qtest_qmp_assert_error(
        s,
        "Bitmaps are of different sizes (destination size is 1048576, source size is 65536) "
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
        { "add", "{'node': 'a', 'name': 'c', 'granularity': 5000}",
          "Granularity must be power of 2, not 5000" },
        { "add", "{'node': 'a', 'name': 'c', 'persistent': true}",
          "Cannot store dirty bitmaps in file 'null-co://': driver 'null-co' has no place for "
          "them" },
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
    qtest_qmp_assert_success(
        s, "{'execute': 'transaction', 'arguments': {'actions': ["
           "{'type': 'block-dirty-bitmap-clear', 'data': {'node': 'a', 'name': 'x'}},"
           "{'type': 'block-dirty-bitmap-merge', 'data': {'node': 'a', 'target': 'x', 'bitmaps': "
           "['y']}},"
           "{'type': 'block-dirty-bitmap-disable', 'data': {'node': 'a', 'name': 'x'}},"
           "{'type': 'block-dirty-bitmap-add', 'data': {'node': 'a', 'name': 'z'}},"
           "{'type': 'block-dirty-bitmap-remove', 'data': {'node': 'a', 'name': 'y'}}]}}");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 65536);
    g_assert_cmpint(dirty_bytes(s, "y"), ==, -1);
    g_assert_cmpint(dirty_bytes(s, "z"), ==, 0);
    io(s, "a", "write -q 0 1M");
    g_assert_cmpint(dirty_bytes(s, "x"), ==, 65536);

    /* All is undone. */
    qtest_qmp_assert_error(
        s, "Transaction aborted using Abort action",
        "{'execute': 'transaction', 'arguments': {'actions': ["
        "{'type': 'block-dirty-bitmap-merge', 'data': {'node': 'a', 'target': 'x', 'bitmaps': "
        "['z']}},"
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

    qtest_qmp_assert_success(
        s,
        "{'execute': 'transaction', 'arguments': {'actions': ["
        "{'type': 'blockdev-snapshot-sync', 'data': {'device': 'a', 'snapshot-file': %s, "
        "'snapshot-node-name': 'oa'}},"
        "{'type': 'blockdev-snapshot-sync', 'data': {'device': 'b', 'snapshot-file': %s, "
        "'snapshot-node-name': 'ob'}},"
        "{'type': 'block-dirty-bitmap-add', 'data': {'node': 'oa', 'name': 'x'}}]}}",
        over_a, over_b);
    io(s, "a", "write -q -P 3 0 64k");
    io(s, "na", "read -q -P 2 0 64k");
    io(s, "oa", "read -q -P 3 0 64k");
    qtest_quit(s);
}

/* ---- a device that is served by a thread of its own ---- */

static void test_iothread(void)
{
    g_autofree char *image = path_of("io.qcow2"), *over = path_of("io2.qcow2");
    QTestState *s = qtest_init("");
    struct json_object *list;

    create_image(s, "qcow2", image, 4 * MIB);
    qtest_quit(s);
    s = qtest_initf(
        "-object iothread,id=io0 -blockdev qcow2,node-name=q,file.driver=file,file.filename=%s,"
        "file.node-name=f -device virtio-blk-device,drive=q,id=v,iothread=io0",
        image);
    io(s, "-d v", "write -q -P 1 0 1M");
    for (int i = 0; i < 20; i++) {
        io(s, "-d v", "aio_write -q -P 2 %dk 64k", 1024 + 64 * i);
    }
    bitmap(s, "add", "q", "b");
    reopen(s, "[{'driver': 'qcow2', 'node-name': 'q', 'file': 'f', 'cache': {'no-flush': true}}]");
    for (int i = 20; i < 40; i++) {
        io(s, "-d v", "aio_write -q -P 2 %dk 64k", 1024 + 64 * i);
    }
    qtest_qmp_assert_success(
        s, "{'execute': 'block_resize', 'arguments': {'node-name': 'q', 'size': 8388608}}");
    snapshot_sync(s, "q", over, "over");
    for (int i = 0; i < 40; i++) {
        io(s, "-d v", "aio_write -q -P 3 %dk 64k", 4096 + 64 * i);
    }
    io(s, "-d v", "aio_flush");
    io(s, "-d v", "read -q -P 1 0 1M");
    io(s, "-d v", "read -q -P 2 1M 2560k");
    io(s, "-d v", "read -q -P 3 4M 2560k");
    io(s, "q", "read -q -P 0 4M 4M");
    bitmap(s, "clear", "q", "b");
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block'}");
    g_assert_cmpstr(qtest_get_str(list, "0.inserted.node-name"), ==, "over");
    json_object_put(list);
    qtest_quit(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/blockdev-snapshot/bitmaps", test_bitmaps);
    qtest_add_func("/blockdev-snapshot/bitmap-errors", test_bitmap_errors);
    qtest_add_func("/blockdev-snapshot/transaction", test_transaction);
    qtest_add_func("/blockdev-snapshot/iothread", test_iothread);
    qtest_add_func("/blockdev-snapshot/snapshot", test_snapshot);
    qtest_add_func("/blockdev-snapshot/snapshot-overlay", test_snapshot_overlay);
    qtest_add_func("/blockdev-snapshot/snapshot-errors", test_snapshot_errors);
    qtest_add_func("/blockdev-snapshot/transaction-snapshot", test_transaction_snapshot);
    return g_test_run();
}
