/*
 * The NBD server of a machine by its commands: started, filled, asked about, emptied and stopped,
 * by QMP and HMP, with libnbd's programs as clients.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/qtest/blockdev-util.h"

#define NODES "-blockdev null-co,node-name=n,size=1M,read-zeroes=on -object iothread,id=io0 "

/* A path for the server's socket, in the directory of the test's files. */
static char *socket_path(void)
{
    static unsigned number;
    g_autofree char *name = g_strdup_printf("nbd%u.sock", number++);

    return path_of(name);
}

static void start_server(QTestState *s, const char *sock)
{
    qtest_qmp_assert_success(
        s,
        "{'execute': 'nbd-server-start', 'arguments': {'addr': {'type': 'unix', "
        "'data': {'path': %s}}}}",
        sock);
}

/* What nbdinfo says of an export; NULL when there is none. */
static char *nbdinfo(const char *sock, const char *export_name, const char *option)
{
    g_autofree char *uri = g_strdup_printf("nbd+unix:///%s?socket=%s", export_name, sock);
    char *argv[] = {
        (char *)"timeout", (char *)"30", (char *)"nbdinfo", (char *)option, uri, NULL
    };
    char *out = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL,
                               NULL, NULL, &out, NULL, &status, NULL));
    if (status != 0) {
        g_clear_pointer(&out, g_free);
    }
    return out;
}

static void assert_has(const char *text, const char *part)
{
    if (!text || !strstr(text, part)) {
        g_error("\"%s\" is not in \"%s\"", part, text ? text : "(nothing)");
    }
}

/* A client that has only connected. */
static int connect_to(const char *sock)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(un.sun_path, sock, sizeof(un.sun_path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    return fd;
}

/* A client that has chosen export @name, by EXPORT_NAME. */
static int use_export(const char *sock, const char *name)
{
    int fd = connect_to(sock);
    g_autoptr(GByteArray) out = g_byte_array_new();
    uint8_t in[18 + 8 + 2], len[4] = { 0, 0, 0, strlen(name) };

    g_byte_array_append(out, (const uint8_t *)"\0\0\0\3IHAVEOPT\0\0\0\1", 16);
    g_byte_array_append(out, len, 4);
    g_byte_array_append(out, (const uint8_t *)name, strlen(name));
    g_assert_cmpint(send(fd, out->data, out->len, MSG_NOSIGNAL), ==, (int)out->len);
    g_assert_cmpint(recv(fd, in, sizeof(in), MSG_WAITALL), ==, (int)sizeof(in));
    return fd;
}

static void wait_deleted(QTestState *s, const char *id)
{
    struct json_object *event = qtest_qmp_eventwait_ref(s, "BLOCK_EXPORT_DELETED");

    g_assert_cmpstr(qtest_get_str(event, "data.id"), ==, id);
    json_object_put(event);
}

static void test_exports(void)
{
    g_autofree char *path = new_file("disk.img", MIB), *sock = socket_path(), *info = NULL,
                    *gone = NULL;
    QTestState *s = qtest_init(NODES);
    struct json_object *list;

    add_raw(s, "disk", path);
    start_server(s, sock);
    qtest_qmp_assert_success(s,
                             "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': 'disk', "
                             "'name': 'b0', 'granularity': 65536}}");
    io(s, "disk", "write -q -P 7 128k 64k");
    qtest_qmp_assert_success(
        s, "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', 'id': 'e0', "
           "'node-name': 'disk', 'name': 'x', 'description': 'a disk', 'iothread': 'io0', "
           "'bitmaps': ['b0'], 'allocation-depth': true, 'writable': true}}");
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block-exports'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 1);
    g_assert_cmpstr(qtest_get_str(json_object_array_get_idx(list, 0), "id"), ==, "e0");
    g_assert_cmpstr(qtest_get_str(json_object_array_get_idx(list, 0), "type"), ==, "nbd");
    g_assert_cmpstr(qtest_get_str(json_object_array_get_idx(list, 0), "node-name"), ==, "disk");
    g_assert_false(qtest_get_bool(json_object_array_get_idx(list, 0), "shutting-down"));
    json_object_put(list);
    info = nbdinfo(sock, "x", "--map=qemu:dirty-bitmap:b0");
    assert_has(info, "131072       65536    1  dirty");
    g_free(info);
    info = nbdinfo(sock, "x", "--json");
    assert_has(info, "\"description\": \"a disk\"");
    assert_has(info, "\"export-size\": 1048576");
    assert_has(info, "\"is_read_only\": false");
    assert_has(info, "qemu:allocation-depth");
    qtest_qmp_assert_success(s, "{'execute': 'block-export-del', 'arguments': {'id': 'e0'}}");
    wait_deleted(s, "e0");
    gone = nbdinfo(sock, "x", "--size");
    g_assert_null(gone);
    qtest_qmp_assert_success(s, "{'execute': 'nbd-server-stop'}");
    g_assert_cmpint(access(sock, F_OK), ==, -1);
    qtest_quit(s);
}

/* Without a name the export has that by which its node was named, be it a block device's. */
static void test_default_name(void)
{
    g_autofree char *path = new_file("dd.img", 2 * MIB), *sock = socket_path(), *by_node = NULL,
                    *by_device = NULL;
    QTestState *s = qtest_initf(NODES "-drive if=none,id=dd,file=%s,format=raw", path);

    start_server(s, sock);
    qtest_qmp_assert_success(s, "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', "
                                "'id': 'e0', 'node-name': 'n'}}");
    qtest_qmp_assert_success(s, "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', "
                                "'id': 'e1', 'node-name': 'dd'}}");
    by_node = nbdinfo(sock, "n", "--size");
    g_assert_cmpstr(by_node, ==, "1048576\n");
    by_device = nbdinfo(sock, "dd", "--size");
    g_assert_cmpstr(by_device, ==, "2097152\n");
    qtest_quit(s);
}

/* Removing what somebody uses: refused, or the client goes. */
static void test_removal(void)
{
    g_autofree char *sock = socket_path();
    QTestState *s = qtest_init(NODES);
    uint8_t byte;
    int fd;

    start_server(s, sock);
    qtest_qmp_assert_success(s, "{'execute': 'nbd-server-add', 'arguments': {'device': 'n'}}");
    fd = use_export(sock, "n");
    json_object_put(qtest_qmp_assert_failure_ref(s, "{'execute': 'nbd-server-remove', 'arguments': "
                                                 "{'name': 'n', 'mode': 'safe'}}"));
    qtest_qmp_assert_error(s, "Node 'n' is in use: by export 'n' as 'root'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': 'n'}}");
    qtest_qmp_assert_success(
        s, "{'execute': 'nbd-server-remove', 'arguments': {'name': 'n', 'mode': 'hard'}}");
    wait_deleted(s, "n");
    g_assert_cmpint(recv(fd, &byte, 1, 0), <=, 0);
    close(fd);
    qtest_qmp_assert_success(s, "{'execute': 'blockdev-del', 'arguments': {'node-name': 'n'}}");
    /* A client that never says anything keeps nobody from stopping the server. */
    fd = connect_to(sock);
    qtest_qmp_assert_success(s, "{'execute': 'nbd-server-stop'}");
    close(fd);
    qtest_quit(s);
}

/* Messages about a node name the export that uses it. */
static void test_who(void)
{
    g_autofree char *path = new_file("who.img", MIB), *sock = socket_path();
    QTestState *s = qtest_initf("-blockdev file,node-name=f,filename=%s "
                                "-blockdev raw,node-name=disk,file=f", path);

    start_server(s, sock);
    qtest_qmp_assert_success(s, "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', "
                                "'id': 'e1', 'node-name': 'disk', 'writable': true}}");
    qtest_qmp_assert_error(s, "Node 'disk' is in use: by export 'e1' as 'root'",
                           "{'execute': 'blockdev-del', 'arguments': {'node-name': 'disk'}}");
    qtest_qmp_assert_error(
        s, "Block node 'disk' is read-only (write wanted by export 'e1' as 'root')",
        "{'execute': 'blockdev-reopen', 'arguments': {'options': [{'driver': 'raw', 'node-name': "
        "'disk', 'read-only': true, 'file': 'f'}]}}");
    qtest_quit(s);
}

static void test_errors(void)
{
    g_autofree char *sock = socket_path();
    QTestState *s = qtest_init(NODES);
    static const char *const wrong[] = {
        "{'type': 'nbd', 'id': 'e', 'node-name': 'nobody'}",
        "{'type': 'nbd', 'id': '1e', 'node-name': 'n'}",
        "{'type': 'nbd', 'id': 'e', 'node-name': 'n', 'iothread': 'nobody'}",
        "{'type': 'nbd', 'id': 'e', 'node-name': 'n', 'bitmaps': ['nobody']}",
        "{'type': 'vhost-user-blk', 'id': 'e', 'node-name': 'n'}",
        "{'type': 'nbd', 'id': 'taken', 'node-name': 'n', 'name': 'y'}",
        "{'type': 'nbd', 'id': 'e', 'node-name': 'n', 'name': 'x'}",
    };
    struct json_object *list;

    json_object_put(qtest_qmp_assert_failure_ref(s, "{'execute': 'nbd-server-stop'}"));
    json_object_put(qtest_qmp_assert_failure_ref(s, "{'execute': 'block-export-add', 'arguments': "
                                                 "{'type': 'nbd', 'id': 'e', 'node-name': 'n'}}"));
    start_server(s, sock);
    json_object_put(
        qtest_qmp_assert_failure_ref(s,
                                     "{'execute': 'nbd-server-start', 'arguments': {'addr': "
                                     "{'type': 'unix', 'data': {'path': %s}}}}",
                                     sock));
    qtest_qmp_assert_success(
        s, "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', 'id': 'taken', "
           "'node-name': 'n', 'name': 'x'}}");
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        json_object_put(qtest_qmp_assert_failure_ref(
            s, "{'execute': 'block-export-add', 'arguments': %p}", qtest_json(wrong[i])));
    }
    list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-block-exports'}");
    g_assert_cmpuint(json_object_array_length(list), ==, 1);
    json_object_put(list);
    qtest_quit(s);
}

static void test_hmp(void)
{
    g_autofree char *sock = socket_path(), *info = NULL, *text = NULL;
    QTestState *s = qtest_init(NODES);

    text = qtest_hmp(s, "nbd_server_start unix:%s", sock);
    g_assert_cmpstr(text, ==, "");
    g_free(text);
    text = qtest_hmp(s, "nbd_server_add -w n");
    g_assert_cmpstr(text, ==, "");
    info = nbdinfo(sock, "n", "--json");
    assert_has(info, "\"is_read_only\": false");
    g_free(text);
    text = qtest_hmp(s, "nbd_server_remove n");
    g_assert_cmpstr(text, ==, "");
    wait_deleted(s, "n");
    g_free(text);
    text = qtest_hmp(s, "nbd_server_remove n");
    assert_has(text, "n");
    g_free(text);
    text = qtest_hmp(s, "nbd_server_stop");
    g_assert_cmpstr(text, ==, "");
    qtest_quit(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/nbd/exports", test_exports);
    qtest_add_func("/nbd/default-name", test_default_name);
    qtest_add_func("/nbd/removal", test_removal);
    qtest_add_func("/nbd/who", test_who);
    qtest_add_func("/nbd/errors", test_errors);
    qtest_add_func("/nbd/hmp", test_hmp);
    return g_test_run();
}
