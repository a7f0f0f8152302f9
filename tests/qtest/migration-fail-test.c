/*
 * Migrations that fail or are cancelled: the source goes on as it was and says why, the destination
 * ends with the reason, and the next attempt succeeds.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "migration-util.h"

/* ---- cancel ---- */

static void cancel(MigMachine *m)
{
    qtest_qmp_assert_success(m->qts, "{'execute': 'migrate_cancel'}");
}

/* At many moments of one migration after the other, from at once to late. */
static void test_cancel(const char *accel)
{
    static const unsigned delays_us[] = { 0, 100, 1000, 5000, 20000, 50000, 120000, 300000 };
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 16 << 20);
    mig_set_param_int(&p->src, "downtime-limit", 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(delays_us); i++) {
        mig_start_dst(p, uri);
        mig_migrate(&p->src, uri);
        g_usleep(delays_us[i]);
        cancel(&p->src);
        mig_wait_status(&p->src, "cancelled");
        struct json_object *info = mig_query(&p->src);
        g_assert_false(qtest_has(info, "error-desc"));
        json_object_put(info);
        mig_kill(&p->dst);
    }
    mig_set_param_int(&p->src, "downtime-limit", 300);
    mig_finish_after_failure(p);
}

static void test_cancel_pre_switchover(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    mig_start_src(p);
    mig_start_dst(p, uri);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_set_cap(&p->src, "pause-before-switchover", true);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "pre-switchover");
    cancel(&p->src);
    mig_wait_status(&p->src, "cancelled");
    mig_set_cap(&p->src, "pause-before-switchover", false);
    mig_finish_after_failure(p);
}

/* The peer accepted and never reads: a cancel must not wait for it. */
static void test_cancel_stalled(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    qtest_qmp_fds_assert_success(p->src.qts, &pair[0], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    close(pair[0]);
    mig_migrate(&p->src, "fd:mig");
    mig_wait_status_any(&p->src, (const char *const[]) { "active", "setup", NULL });
    g_usleep(50000);
    cancel(&p->src);
    mig_wait_status(&p->src, "cancelled");
    close(pair[1]);
    mig_finish_after_failure(p);
}

/* At the destination: it ends, the source goes on. */
static void test_cancel_destination(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    mig_start_src(p);
    mig_start_dst(p, uri);
    mig_set_param_int(&p->src, "max-bandwidth", 8 << 20);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->dst, "active");
    cancel(&p->dst);
    mig_assert_dst_refused(p, "the migration was cancelled");
    mig_wait_status(&p->src, "failed");
    mig_finish_after_failure(p);
}

/* ---- the peer ---- */

static void test_nobody_listens(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    mig_start_src(p);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, "Failed to connect to");
    mig_assert_error(&p->src, "No such file or directory");
    mig_finish_after_failure(p);
}

static void test_destination_killed(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    mig_start_src(p);
    mig_start_dst(p, uri);
    mig_set_param_int(&p->src, "max-bandwidth", 8 << 20);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->dst, "active");
    mig_kill(&p->dst);
    mig_wait_status(&p->src, "failed");
    g_autofree char *error = mig_error(&p->src);
    g_assert_nonnull(error);
    mig_finish_after_failure(p);
}

/* A peer that takes so many bytes and dies. */
static void test_peer_dies(const char *accel)
{
    static const size_t lengths[] = { 0, 1, 4, 9, 100, 5000, 300000, 9000000 };
    MigPair *p = mig_pair_new(accel);

    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        int pair[2];
        size_t taken = 0;
        char buf[65536];

        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
        qtest_qmp_fds_assert_success(p->src.qts, &pair[0], 1,
                                     "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
        close(pair[0]);
        mig_migrate(&p->src, "fd:mig");
        while (taken < lengths[i]) {
            ssize_t n = read(pair[1], buf, MIN(sizeof(buf), lengths[i] - taken));
            g_assert_cmpint(n, >, 0);
            taken += n;
        }
        close(pair[1]);
        mig_wait_status(&p->src, "failed");
    }
    mig_finish_after_failure(p);
}

/* Take a whole stream and close without a word: not confirmed, so the source goes on. */
static void test_not_confirmed(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    int pair[2];
    char buf[65536];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    qtest_qmp_fds_assert_success(p->src.qts, &pair[0], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    close(pair[0]);
    mig_migrate(&p->src, "fd:mig");
    /* The source waits for the confirmation when it is in state device and sends no more. */
    struct pollfd pfd = { .fd = pair[1], .events = POLLIN };
    bool waiting = false;
    while (!waiting) {
        if (poll(&pfd, 1, 300) == 1) {
            g_assert_cmpint(read(pair[1], buf, sizeof(buf)), >, 0);
            continue;
        }
        struct json_object *info = mig_query(&p->src);
        waiting = strcmp(qtest_get_str(info, "status"), "device") == 0;
        g_assert_true(waiting || strcmp(qtest_get_str(info, "status"), "active") == 0 ||
                      strcmp(qtest_get_str(info, "status"), "setup") == 0);
        json_object_put(info);
    }
    close(pair[1]);
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, "the destination went away before it confirmed");
    mig_finish_after_failure(p);
}

/* ---- machines that differ: refused with the reason on both sides ---- */

static void differ(const char *accel, const char *dst_args, const char *src_args, const char *text)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");
    unsigned memory = p->memory_mib;

    p->extra_args = src_args;
    mig_start_src(p);
    p->extra_args = dst_args;
    mig_start_dst(p, uri);
    p->extra_args = src_args;
    p->memory_mib = memory;
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, text);
    mig_assert_dst_refused(p, text);
    mig_finish_after_failure(p);
}

static void test_ram_size(const char *accel)
{
    differ(accel, "-m 200", NULL, "bytes in this machine");
}

static void test_unknown_section(const char *accel)
{
    differ(accel, NULL, "-device memstress,id=more,start=1M,size=1M,seed=5",
           "that this machine has not");
}

static void test_unknown_block(const char *accel)
{
    differ(accel, NULL,
           "-object memory-backend-ram,id=extra,size=2M "
           "-device memstress,id=more,memdev=extra,start=0x80000000",
           "does not exist in this machine");
}

static void test_missing_section(const char *accel)
{
    differ(accel, "-device memstress,id=more,start=1M,size=1M,seed=5", NULL, "is missing");
}

/* Another machine type, and a device's section that is newer than what is known here. */
static void test_other_versions(const char *accel)
{
    static const struct {
        const char *find;       /* in the file */
        unsigned at;            /* from its end on */
        const char *put, *reason;
    } changes[] = {
        { "\7microv", 0, "x", "Machine type received is 'microvx' and local is 'microvm'" },
        { "\13globalstate", 7, "\143",
          "section 'globalstate' (instance 0) has version 99, at most 1 can be loaded" },
    };
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *data = NULL;
    gsize size;

    mig_start_src(p);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        char *found = memmem(data, size, changes[i].find, strlen(changes[i].find));
        g_assert_nonnull(found);
        char *at = found + strlen(changes[i].find) + changes[i].at, was = *at;
        *at = changes[i].put[0];
        g_assert_true(g_file_set_contents(path, data, size, NULL));
        *at = was;
        mig_start_loading(p, uri);
        mig_assert_dst_refused(p, changes[i].reason);
        mig_quit(&p->dst);
    }
    mig_pair_free(p);
}

static void test_capability(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    mig_start_src(p);
    mig_start_dst(p, uri);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_set_cap(&p->src, "x-ignore-shared", true);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, "capability 'x-ignore-shared' is on in the stream but off here");
    mig_assert_dst_refused(p, "capability 'x-ignore-shared' is on in the stream but off here");
    mig_set_cap(&p->src, "x-ignore-shared", false);
    mig_finish_after_failure(p);
}

static void test_uuid(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    p->extra_args = "-uuid 11111111-2222-3333-4444-555555555555";
    mig_start_src(p);
    mig_set_cap(&p->src, "validate-uuid", true);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    p->extra_args = "-uuid 99999999-2222-3333-4444-555555555555";
    mig_start_dst(p, "defer");
    mig_set_cap(&p->dst, "validate-uuid", true);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "failed");
    mig_assert_dst_refused(p, "the stream is of the machine with UUID "
                       "11111111-2222-3333-4444-555555555555, this one has UUID "
                       "99999999-2222-3333-4444-555555555555");
    mig_set_cap(&p->src, "validate-uuid", false);
    p->extra_args = "-uuid 11111111-2222-3333-4444-555555555555";
    mig_finish_after_failure(p);
}

/* ---- files ---- */

static void test_file_cannot_be_opened(const char *accel)
{
    MigPair *p = mig_pair_new(accel);

    mig_start_src(p);
    qtest_qmp_assert_error(p->src.qts, "Could not open '/nonexistent/save': No such file or "
                           "directory", "{'execute': 'migrate', 'arguments': "
                           "{'uri': 'file:/nonexistent/save'}}");
    mig_finish_after_failure(p);
}

static void limit_file_size(MigMachine *m, rlim_t bytes)
{
    struct rlimit limit = { bytes, RLIM_INFINITY };

    g_assert_cmpint(prlimit(qtest_pid(m->qts), RLIMIT_FSIZE, &limit, NULL), ==, 0);
}

static void test_file_full(const char *accel)
{
    static const rlim_t limits[] = { 0, 2, 1000, 300000, 8000000 };
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
        limit_file_size(&p->src, limits[i]);
        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "failed");
        mig_assert_error(&p->src, "File too large");
    }
    limit_file_size(&p->src, RLIM_INFINITY);
    /* What is left is refused. */
    mig_start_loading(p, uri);
    mig_assert_dst_refused(p, "incomplete");
    mig_finish_after_failure(p);
}

static void test_exec_fails(const char *accel)
{
    MigPair *p = mig_pair_new(accel);

    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_migrate(&p->src, "exec:cat > /dev/null; exit 3");
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, "failed with exit status 3");
    mig_migrate(&p->src, "exec:head -c 100000 > /dev/null");
    mig_wait_status(&p->src, "failed");
    mig_finish_after_failure(p);
}

/* SIGKILL in the middle of a save, and files cut off anywhere. */
static void test_source_killed(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 8 << 20);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "active");
    mig_kill(&p->src);
    mig_start_loading(p, uri);
    mig_assert_dst_refused(p, "is incomplete: the migration that wrote it did not finish");
    mig_pair_free(p);
}

static void test_truncated(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END);
    const off_t cuts[] = { size - 1, size - 1000, size / 2, 5000, 100, 9, 8, 3, 0 };
    for (unsigned i = 0; i < G_N_ELEMENTS(cuts); i++) {
        g_assert_cmpint(ftruncate(fd, cuts[i]), ==, 0);
        mig_start_loading(p, uri);
        mig_assert_dst_refused(p, "ends unexpectedly");
        mig_quit(&p->dst);
    }
    close(fd);
    mig_pair_free(p);
}

/* ---- the destination stays when told so ---- */

static void test_exit_on_error(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "garbage");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    g_assert_true(g_file_set_contents(path, "this is not a machine", -1, NULL));
    mig_start_dst(p, "defer");
    qtest_qmp_assert_success(p->dst.qts, "{'execute': 'migrate-incoming', 'arguments': "
                             "{'uri': %s, 'exit-on-error': false}}", uri);
    mig_wait_status(&p->dst, "failed");
    mig_assert_error(&p->dst, "not a migration stream");
    g_assert_true(qtest_probe_child(p->dst.qts));
    struct json_object *status = qtest_qmp_assert_success_ref(p->dst.qts,
                                                              "{'execute': 'query-status'}");
    g_assert_false(qtest_get_bool(status, "running"));
    json_object_put(status);
    mig_pair_free(p);
}

/* ---- commands that are refused ---- */

static void test_commands(const char *accel)
{
    MigPair *p = mig_pair_new(accel);

    mig_start_src(p);
#define REFUSED(desc, ...) qtest_qmp_assert_error(p->src.qts, desc, __VA_ARGS__)
    REFUSED("unknown migration protocol: ftp:x",
            "{'execute': 'migrate', 'arguments': {'uri': 'ftp:x'}}");
    REFUSED("neither 'uri' nor 'channels' is given: exactly one of the two is needed",
            "{'execute': 'migrate'}");
    REFUSED("'uri' and 'channels' are mutually exclusive: exactly one of the two must be given",
            "{'execute': 'migrate', 'arguments': {'uri': 'unix:/x', 'channels': [{'channel-type': "
            "'main', 'addr': {'transport': 'socket', 'type': 'unix', 'path': '/x'}}]}}");
    REFUSED("Parameter 'channels[0].addr.port' is missing",
            "{'execute': 'migrate', 'arguments': {'channels': [{'channel-type': 'main', 'addr': "
            "{'transport': 'socket', 'type': 'inet', 'host': 'x'}}]}}");
    REFUSED("Parameter 'channels[0].addr.bogus' is unexpected",
            "{'execute': 'migrate', 'arguments': {'channels': [{'channel-type': 'main', 'addr': "
            "{'transport': 'file', 'filename': '/x', 'offset': 0, 'bogus': 1}}]}}");
    REFUSED("RDMA support is not compiled in",
            "{'execute': 'migrate', 'arguments': {'uri': 'rdma:host:1234'}}");
    REFUSED("Parameter 'detach' must be true: the command always returns at once",
            "{'execute': 'migrate', 'arguments': {'uri': 'unix:/x', 'detach': false}}");
    REFUSED("config: Parameter 'multifd-channels' expects a value between 1 and 255",
            "{'execute': 'migrate', 'arguments': {'uri': 'unix:/x', 'config': "
            "{'multifd-channels': 0}}}");
    REFUSED("Capability 'direct-mapped' needs a regular file or block device, transport 'socket' "
            "(unix socket '/x') is a stream",
            "{'execute': 'migrate', 'arguments': {'uri': 'unix:/x', 'config': "
            "{'direct-mapped': true}}}");
    REFUSED("Capability 'multifd' needs several channels, transport 'exec' (command '/bin/sh -c "
            "cat') has only one",
            "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat', 'config': "
            "{'multifd': true}}}");
    REFUSED("Capability 'bypass-cache' requires capability 'direct-mapped'",
            "{'execute': 'migrate', 'arguments': {'uri': 'file:/x', 'config': "
            "{'bypass-cache': true}}}");
    REFUSED("'-incoming' was not specified on the command line",
            "{'execute': 'migrate-incoming', 'arguments': {'uri': 'unix:/x'}}");
    REFUSED("migrate-pause is currently only supported during postcopy-active state",
            "{'execute': 'migrate-pause'}");

    /* While one runs. */
    g_autofree char *uri = mig_unix_uri(p, "sock");
    mig_start_dst(p, uri);
    mig_set_param_int(&p->src, "max-bandwidth", 1 << 20);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "active");
    REFUSED("There's a migration process in progress",
            "{'execute': 'migrate', 'arguments': {'uri': 'unix:/x'}}");
    REFUSED("Capabilities cannot be changed while a migration is running",
            "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': "
            "[{'capability': 'multifd', 'state': true}]}}");
    qtest_qmp_assert_error(p->dst.qts, "Guest is waiting for an incoming migration",
                           "{'execute': 'migrate', 'arguments': {'uri': 'unix:/x'}}");
    qtest_qmp_assert_error(p->dst.qts, "The incoming migration has already been started",
                           "{'execute': 'migrate-incoming', 'arguments': {'uri': 'unix:/x'}}");
#undef REFUSED
    cancel(&p->src);
    mig_wait_status(&p->src, "cancelled");
    mig_finish_after_failure(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    mig_add_accel_tests("/migration/cancel/moments", test_cancel);
    mig_add_accel_tests("/migration/cancel/pre-switchover", test_cancel_pre_switchover);
    mig_add_accel_tests("/migration/cancel/stalled", test_cancel_stalled);
    mig_add_accel_tests("/migration/cancel/destination", test_cancel_destination);
    mig_add_accel_tests("/migration/peer/nobody", test_nobody_listens);
    mig_add_accel_tests("/migration/peer/killed", test_destination_killed);
    mig_add_accel_tests("/migration/peer/dies", test_peer_dies);
    mig_add_accel_tests("/migration/peer/not-confirmed", test_not_confirmed);
    mig_add_accel_tests("/migration/differ/ram-size", test_ram_size);
    mig_add_accel_tests("/migration/differ/unknown-section", test_unknown_section);
    mig_add_accel_tests("/migration/differ/unknown-block", test_unknown_block);
    mig_add_accel_tests("/migration/differ/other-versions", test_other_versions);
    mig_add_accel_tests("/migration/differ/missing-section", test_missing_section);
    mig_add_accel_tests("/migration/differ/capability", test_capability);
    mig_add_accel_tests("/migration/differ/uuid", test_uuid);
    mig_add_accel_tests("/migration/file/cannot-open", test_file_cannot_be_opened);
    mig_add_accel_tests("/migration/file/full", test_file_full);
    mig_add_accel_tests("/migration/file/exec-fails", test_exec_fails);
    mig_add_accel_tests("/migration/file/source-killed", test_source_killed);
    mig_add_accel_tests("/migration/file/truncated", test_truncated);
    mig_add_accel_tests("/migration/exit-on-error", test_exit_on_error);
    mig_add_accel_tests("/migration/commands", test_commands);
    return g_test_run();
}
