/*
 * Moving machines over every transport, under every accelerator that is there.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <linux/vm_sockets.h>
#include <unistd.h>
#include "migration-util.h"

/* ---- live, from one process to another ---- */

static void unlimited(MigPair *p)
{
    mig_set_param_int(&p->src, "max-bandwidth", 0);
}

static void test_unix(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    mig_start_src(p);
    mig_start_dst(p, uri);
    unlimited(p);
    mig_migrate(&p->src, uri);
    mig_finish(p);
}

/* Port 0 on the destination, which tells where it listens. */
static void test_tcp(const char *accel)
{
    MigPair *p = mig_pair_new(accel);

    mig_start_src(p);
    mig_start_dst(p, "tcp:127.0.0.1:0");
    unlimited(p);
    struct json_object *info = mig_query(&p->dst);
    g_assert_cmpstr(qtest_get_str(info, "socket-address.0.type"), ==, "inet");
    g_autofree char *uri = g_strdup_printf("tcp:127.0.0.1:%s",
                                           qtest_get_str(info, "socket-address.0.port"));
    json_object_put(info);
    mig_migrate(&p->src, uri);
    mig_finish(p);
}

/* Whether a VM socket of this host can be reached from itself (vsock_loopback is loaded). */
static bool has_vsock_loopback(void)
{
    struct sockaddr_vm addr = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY,
                                .svm_port = VMADDR_PORT_ANY };
    struct timeval second = { 1, 0 };
    socklen_t len = sizeof(addr);
    int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int client = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool there = listener >= 0 && client >= 0 &&
                 bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
                 listen(listener, 1) == 0 &&
                 getsockname(listener, (struct sockaddr *)&addr, &len) == 0;

    if (there) {
        addr.svm_cid = VMADDR_CID_LOCAL;
        setsockopt(client, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &second, sizeof(second));
        there = connect(client, (struct sockaddr *)&addr, sizeof(addr)) == 0;
    }
    close(listener);
    close(client);
    return there;
}

static void test_vsock(const char *accel)
{
    if (!has_vsock_loopback()) {
        g_test_skip("there is no VM socket loopback here");
        return;
    }
    MigPair *p = mig_pair_new(accel);
    g_autofree char *port = g_strdup_printf("%d", 20000 + getpid() % 40000);
    g_autofree char *listen = g_strdup_printf("vsock:4294967295:%s", port);
    g_autofree char *uri = g_strdup_printf("vsock:%d:%s", VMADDR_CID_LOCAL, port);

    mig_start_src(p);
    mig_start_dst(p, listen);
    unlimited(p);
    mig_migrate(&p->src, uri);
    mig_finish(p);
}

/* Both ends of a socket pair, handed over with getfd. */
static void test_fd_socket(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    mig_start_src(p);
    mig_start_dst(p, "defer");
    unlimited(p);
    qtest_qmp_fds_assert_success(p->src.qts, &pair[0], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    qtest_qmp_fds_assert_success(p->dst.qts, &pair[1], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    close(pair[0]);
    close(pair[1]);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': 'fd:mig'}}");
    mig_migrate(&p->src, "fd:mig");
    mig_finish(p);
}

/* A pipe carries one direction: no return path. */
static void test_fd_pipe(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    int pair[2];

    g_assert_cmpint(pipe2(pair, O_CLOEXEC), ==, 0);
    mig_start_src(p);
    mig_start_dst(p, "defer");
    unlimited(p);
    qtest_qmp_fds_assert_success(p->src.qts, &pair[1], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    qtest_qmp_fds_assert_success(p->dst.qts, &pair[0], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    close(pair[0]);
    close(pair[1]);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': 'fd:mig'}}");
    mig_migrate(&p->src, "fd:mig");
    mig_finish(p);
}

/* The channel as a structure, its parameters in the same command, and undone after it. */
static void test_channels(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "sock");
    g_autofree char *incoming = g_strdup_printf(
        "{\"channel-type\": \"main\", \"addr\": {\"transport\": \"socket\", \"type\": \"unix\", "
        "\"path\": \"%s\"}}", path);

    mig_start_src(p);
    mig_start_dst(p, incoming);
    qtest_qmp_assert_success(
        p->src.qts, "{'execute': 'migrate', 'arguments': {'channels': [{'channel-type': 'main', "
        "'addr': {'transport': 'socket', 'type': 'unix', 'path': %s}}], 'config': "
        "{'max-bandwidth': 0, 'downtime-limit': 1000, 'events': true}}}", path);
    qtest_qmp_eventwait(p->src.qts, "MIGRATION");
    mig_wait_status(&p->src, "completed");
    struct json_object *params = qtest_qmp_assert_success_ref(
        p->src.qts, "{'execute': 'query-migrate-parameters'}");
    g_assert_cmpint(qtest_get_int(params, "downtime-limit"), ==, 300);
    g_assert_cmpint(qtest_get_int(params, "max-bandwidth"), ==, 128 << 20);
    json_object_put(params);
    mig_finish(p);
}

static void test_smp(const char *accel)
{
    if (!strcmp(accel, "tcg")) {
        g_test_skip("tcg has one vCPU");
        return;
    }
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    p->cpus = 2;
    mig_start_src(p);
    mig_start_dst(p, uri);
    unlimited(p);
    mig_migrate(&p->src, uri);
    mig_finish(p);
}

/* ---- stored, and loaded later ---- */

static void stored(const char *accel, const char *save_uri, const char *load_uri)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *save = g_strdup_printf(save_uri, path);
    g_autofree char *load = g_strdup_printf(load_uri, path);

    mig_start_src(p);
    unlimited(p);
    mig_migrate(&p->src, save);
    mig_wait_status(&p->src, "completed");
    mig_start_dst(p, load);
    mig_finish(p);
}

static void test_file(const char *accel)
{
    stored(accel, "file:%s", "file:%s");
}

static void test_file_offset(const char *accel)
{
    stored(accel, "file:%s,offset=0x11000", "file:%s,offset=68k");
}

static void test_exec(const char *accel)
{
    stored(accel, "exec:gzip -1 > %s", "exec:gzip -dc %s");
}

/* A descriptor of a regular file, standing somewhere in it. */
static void test_fd_file(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    g_assert_cmpint(lseek(fd, 12345, SEEK_SET), ==, 12345);
    mig_start_src(p);
    unlimited(p);
    qtest_qmp_fds_assert_success(p->src.qts, &fd, 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    mig_migrate(&p->src, "fd:mig");
    mig_wait_status(&p->src, "completed");
    g_assert_cmpint(lseek(fd, 12345, SEEK_SET), ==, 12345);
    mig_start_dst(p, "defer");
    qtest_qmp_fds_assert_success(p->dst.qts, &fd, 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': 'fd:mig'}}");
    close(fd);
    mig_finish(p);
}

/* ---- on the way ---- */

static void test_pause_before_switchover(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    mig_start_src(p);
    mig_start_dst(p, uri);
    unlimited(p);
    mig_set_cap(&p->src, "pause-before-switchover", true);
    qtest_qmp_assert_error(p->src.qts, "Migration is in state 'none', only in state "
                           "'pre-switchover' it can be continued; the state given was "
                           "'pre-switchover'",
                           "{'execute': 'migrate-continue', 'arguments': {'state': "
                           "'pre-switchover'}}");
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "pre-switchover");
    struct json_object *status = qtest_qmp_assert_success_ref(p->src.qts,
                                                              "{'execute': 'query-status'}");
    g_assert_cmpstr(qtest_get_str(status, "status"), ==, "finish-migrate");
    json_object_put(status);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate-continue', 'arguments': "
                             "{'state': 'pre-switchover'}}");
    mig_finish(p);
}

/* A rate so low that it cannot end, figures that make sense, then no limit. */
static void test_statistics(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    mig_start_src(p);
    mig_start_dst(p, uri);
    mig_set_param_int(&p->src, "max-bandwidth", 4 << 20);
    mig_set_param_int(&p->src, "downtime-limit", 1);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "active");
    gint64 deadline = qtest_deadline();
    for (;;) {
        struct json_object *info = mig_query(&p->src);
        g_assert_cmpint(qtest_get_int(info, "ram.total"), ==, (int64_t)p->memory_mib << 20);
        g_assert_cmpint(qtest_get_int(info, "ram.page-size"), ==, 4096);
        g_assert_cmpint(qtest_get_int(info, "ram.remaining"), <=, (int64_t)p->memory_mib << 20);
        g_assert_true(qtest_has(info, "total-time"));
        g_assert_true(qtest_has(info, "expected-downtime"));
        g_assert_false(qtest_has(info, "downtime"));
        bool moving = qtest_get_int(info, "ram.transferred") > 2 << 20 &&
                      qtest_get_int(info, "ram.normal") > 256;
        json_object_put(info);
        if (moving) {
            break;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(10000);
    }
    mig_set_param_int(&p->src, "downtime-limit", 1000);
    unlimited(p);
    mig_wait_status(&p->src, "completed");
    struct json_object *info = mig_query(&p->src);
    g_assert_true(qtest_has(info, "downtime"));
    g_assert_cmpint(qtest_get_int(info, "ram.remaining"), ==, 0);
    g_assert_cmpint(qtest_get_int(info, "ram.dirty-sync-count"), >=, 2);
    g_assert_cmpint(qtest_get_int(info, "ram.normal-bytes"), ==,
                    qtest_get_int(info, "ram.normal") * 4096);
    json_object_put(info);
    mig_finish(p);
}

/* A machine that was stopped arrives stopped, also where it may run. */
static void test_stopped(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    mig_start_src(p);
    mig_start_dst(p, uri);
    unlimited(p);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'stop'}");
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    struct json_object *info = mig_query(&p->src);
    g_assert_cmpint(qtest_get_int(info, "ram.remaining"), ==, 0);
    json_object_put(info);
    mig_finish(p);
}

/* There, and back again. */
static void test_there_and_back(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *there = mig_path(p, "there");
    g_autofree char *there_uri = g_strdup_printf("unix:%s", there);
    g_autofree char *back = mig_path(p, "back");
    g_autofree char *back_uri = g_strdup_printf("unix:%s", back);

    mig_start_src(p);
    mig_start_dst(p, there_uri);
    unlimited(p);
    mig_migrate(&p->src, there_uri);
    mig_wait_status(&p->src, "completed");
    mig_wait_status(&p->dst, "completed");
    mig_quit(&p->src);
    p->src = p->dst;
    memset(&p->dst, 0, sizeof(p->dst));
    p->dst.serial = -1;
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'cont'}");
    mig_start_dst(p, back_uri);
    unlimited(p);
    mig_migrate(&p->src, back_uri);
    mig_finish(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    mig_add_accel_tests("/migration/unix", test_unix);
    mig_add_accel_tests("/migration/tcp", test_tcp);
    mig_add_accel_tests("/migration/vsock", test_vsock);
    mig_add_accel_tests("/migration/fd/socket", test_fd_socket);
    mig_add_accel_tests("/migration/fd/pipe", test_fd_pipe);
    mig_add_accel_tests("/migration/fd/file", test_fd_file);
    mig_add_accel_tests("/migration/channels", test_channels);
    mig_add_accel_tests("/migration/smp", test_smp);
    mig_add_accel_tests("/migration/file", test_file);
    mig_add_accel_tests("/migration/file-offset", test_file_offset);
    mig_add_accel_tests("/migration/exec", test_exec);
    mig_add_accel_tests("/migration/pause-before-switchover", test_pause_before_switchover);
    mig_add_accel_tests("/migration/statistics", test_statistics);
    mig_add_accel_tests("/migration/stopped", test_stopped);
    mig_add_accel_tests("/migration/there-and-back", test_there_and_back);
    return g_test_run();
}
