/*
 * Saving into files, whatever happens to them meanwhile: a file that is not whole is never taken
 * for one, and a save that is refused leaves what was there.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/qtest/migration-util.h"

static const char *const stream_caps[] = { NULL };
static const char *const mapped_caps[] = { "direct-mapped", NULL };
static const char *const direct_caps[] = { "direct-mapped", "bypass-cache", "multifd", NULL };

static void set_caps(MigMachine *m, const char *const *caps)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(direct_caps) - 1; i++) {
        mig_set_cap(m, direct_caps[i], g_strv_contains(caps, direct_caps[i]));
    }
}

static void load(MigPair *p, const char *const *caps, const char *uri)
{
    mig_start_dst(p, "defer");
    set_caps(&p->dst, caps);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
}

static void go_on(MigMachine *m)
{
    qtest_qmp_assert_success(m->qts, "{'execute': 'migrate-continue', 'arguments': "
                             "{'state': 'pre-switchover'}}");
}

/* A save that stands before its last step. */
static void save_until_switchover(MigPair *p, const char *const *caps, const char *uri)
{
    mig_start_src(p);
    set_caps(&p->src, caps);
    mig_set_cap(&p->src, "pause-before-switchover", true);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "pre-switchover");
}

/* While one saves into a file nobody else does, and nobody loads it. Afterwards everybody may. */
static void test_in_use(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *saving =
        g_strdup_printf("file '%s' is in use: another save, a load or a disk has it open", path);
    g_autofree char *loading =
        g_strdup_printf("file '%s' is in use: a machine is being saved into it", path);
    QTestState *other = qtest_init("-accel qtest -S");

    save_until_switchover(p, mapped_caps, uri);
    qtest_qmp_assert_error(other, saving, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    mig_start_dst(p, "defer");
    set_caps(&p->dst, mapped_caps);
    qtest_qmp_assert_error(p->dst.qts, loading,
                           "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    go_on(&p->src);
    mig_wait_status(&p->src, "completed");
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_finish(p);
    qtest_quit(other);
}

/* Two that load one file do not disturb each other: the other one's lock is held by the test. */
static void test_shared_load(void)
{
    g_autofree char *path = g_strdup_printf("%s/shared", qtest_tmpdir());
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    QTestState *first = qtest_init("-accel qtest -m 16 -incoming defer -S");
    QTestState *saved = qtest_init("-accel qtest -m 16 -S");
    int fd;

    qtest_qmp_assert_success(saved, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    MigMachine m = { .qts = saved, .serial = -1 };
    mig_wait_status(&m, "completed");
    qtest_quit(saved);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    qtest_qmp_assert_success(first, "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}",
                             uri);
    close(fd);
    unlink(path);
    qtest_quit(first);
}

/* Cut off in the middle of a plain stream, which then grows on: there would be a hole in it. */
static void test_stream_truncated(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    save_until_switchover(p, stream_caps, uri);
    g_assert_cmpint(truncate(path, 1000), ==, 0);
    go_on(&p->src);
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, "was truncated to 1000 bytes while it was being written");
    mig_set_cap(&p->src, "pause-before-switchover", false);
    mig_finish_after_failure(p);
}

/* The header of a direct-mapped file is lost, all pages that are not zero are there. */
static void test_header_lost(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    save_until_switchover(p, mapped_caps, uri);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), ==, 0);
    close(fd);
    go_on(&p->src);
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, "the header of the stream is no longer in the file");
    mig_set_cap(&p->src, "pause-before-switchover", false);
    mig_finish_after_failure(p);
}

/* Everything is written, and the disk does not take the last of it: the machine runs on here. */
static void test_last_flush_fails(const char *accel)
{
    for (unsigned n = 1; n <= 3; n++) {
        MigPair *p = mig_pair_new(accel);
        g_autofree char *path = mig_path(p, "save");
        g_autofree char *uri = g_strdup_printf("file:%s", path);
        g_autofree char *number = g_strdup_printf("%u", n);

        if (!mig_begin_fault(path, "FERRY_TEST_FSYNC_ERROR", number)) {
            mig_pair_free(p);
            return;
        }
        mig_start_src(p);
        mig_end_fault("FERRY_TEST_FSYNC_ERROR");
        set_caps(&p->src, mapped_caps);
        mig_set_param_int(&p->src, "downtime-limit", 5000);
        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "failed");
        mig_assert_error(&p->src, "Input/output error");
        load(p, mapped_caps, uri);
        mig_assert_dst_refused(p, "incomplete");
        mig_finish_after_failure(p);
    }
}

/* Descriptors whose writes all go to the end. */
static void test_append(void)
{
    g_autofree char *path = g_strdup_printf("%s/append", qtest_tmpdir());
    QTestState *s = qtest_init("-accel qtest -S");
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    g_assert_cmpint(write(fd, "precious", 8), ==, 8);
    qtest_qmp_fds_assert_success(s, &fd, 1,
                                 "{'execute': 'add-fd', 'arguments': {'fdset-id': 1}}");
    qtest_qmp_fds_assert_success(s, &fd, 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    qtest_qmp_assert_error(s, "file '/dev/fdset/1' is open with O_APPEND: nothing can be written "
                           "to an offset in it",
                           "{'execute': 'migrate', 'arguments': {'uri': 'file:/dev/fdset/1'}}");
    qtest_qmp_assert_error(s, "file descriptor 'mig' is open with O_APPEND: nothing can be "
                           "written to an offset in it",
                           "{'execute': 'migrate', 'arguments': {'uri': 'fd:mig'}}");
    g_assert_cmpint(lseek(fd, 0, SEEK_END), ==, 8);
    close(fd);
    unlink(path);
    qtest_quit(s);
}

/* A file in memory has no O_DIRECT. The earlier save that it holds stays. */
static void test_no_direct(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    int memfd = memfd_create("no-direct", MFD_CLOEXEC);
    g_autofree char *uri = g_strdup_printf("file:/proc/%d/fd/%d", getpid(), memfd);
    struct json_object *error;
    off_t size;

    mig_start_src(p);
    set_caps(&p->src, mapped_caps);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    size = lseek(memfd, 0, SEEK_END);
    mig_quit(&p->src);

    mig_start_src(p);
    set_caps(&p->src, direct_caps);
    error = qtest_qmp_assert_failure_ref(p->src.qts,
                                         "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    g_assert_nonnull(strstr(qtest_get_str(error, "desc"), "capability 'bypass-cache'"));
    g_assert_nonnull(strstr(qtest_get_str(error, "desc"), "O_DIRECT"));
    json_object_put(error);
    g_assert_cmpint(lseek(memfd, 0, SEEK_END), ==, size);
    load(p, mapped_caps, uri);
    mig_wait_status(&p->dst, "completed");
    close(memfd);
    mig_pair_free(p);
}

static bool run(const char *command)
{
    const char *argv[] = { "sh", "-c", command, NULL };
    int status;

    return g_spawn_sync(NULL, (char **)argv, NULL,
                        G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL,
                        &status, NULL) && status == 0;
}

/* An overlay over memory takes the flag and has no O_DIRECT; over a disk it has. */
static void test_overlay(void)
{
    g_autofree char *here = g_get_current_dir();
    g_autofree char *dir = g_build_filename(here, "overlay-XXXXXX", NULL);
    g_autofree char *unmount = NULL, *remove = NULL, *uri = NULL;
    MigMachine m = { .qts = qtest_init("-accel qtest -m 16 -S"), .serial = -1 };

    g_assert_nonnull(g_mkdtemp(dir));
    g_autofree char *mount =
        g_strdup_printf("cd %s && mkdir m o && mount -t tmpfs none m && mkdir m/l m/u m/w && "
                        "mount -t overlay none -o lowerdir=m/l,upperdir=m/u,workdir=m/w o", dir);
    unmount = g_strdup_printf("cd %s; umount o; umount m", dir);
    remove = g_strdup_printf("rm -rf %s", dir);
    uri = g_strdup_printf("file:%s/o/save", dir);
    if (!run(mount)) {
        g_test_skip("an overlay cannot be mounted here");
    } else {
        set_caps(&m, direct_caps);
        struct json_object *error = qtest_qmp_assert_failure_ref(
            m.qts, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
        g_assert_nonnull(strstr(qtest_get_str(error, "desc"), "O_DIRECT"));
        json_object_put(error);
        set_caps(&m, mapped_caps);
        mig_migrate(&m, uri);
        mig_wait_status(&m, "completed");
    }
    qtest_quit(m.qts);
    run(unmount);
    g_assert_true(run(remove));
}

/* A loop device over a file of the pair's directory, or NULL where there is none to be had. */
static char *loop_device(const char *path, uint64_t size)
{
    g_autofree char *command =
        g_strdup_printf("truncate -s %" PRIu64 " %s && losetup --show -f %s 2>/dev/null", size,
                        path, path);
    g_autofree char *out = NULL;
    const char *argv[] = { "sh", "-c", command, NULL };
    int status;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL,
                      NULL, NULL, &out, NULL, &status, NULL) || status || !out[0]) {
        return NULL;
    }
    return g_strdup(g_strchomp(out));
}

static void free_loop_device(const char *device)
{
    const char *argv[] = { "losetup", "-d", device, NULL };

    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL,
                 NULL);
}

/* A block device: it has O_DIRECT wherever its node lies, and does not grow. */
static void test_block_device(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "device");
    g_autofree char *small_path = mig_path(p, "small");
    g_autofree char *device = loop_device(path, 512 << 20);
    g_autofree char *small = device ? loop_device(small_path, 2 << 20) : NULL;

    if (!small) {
        g_test_skip("no loop devices here");
    } else {
        g_autofree char *uri = g_strdup_printf("file:%s,offset=1048576", device);
        g_autofree char *small_uri = g_strdup_printf("file:%s", small);

        mig_start_src(p);
        set_caps(&p->src, direct_caps);
        mig_migrate(&p->src, small_uri);
        mig_wait_status(&p->src, "failed");
        mig_assert_error(&p->src, "which has room for 2097152");
        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "completed");
        load(p, direct_caps, uri);
        mig_wait_status(&p->dst, "completed");
        mig_finish(p);
        p = NULL;
        free_loop_device(small);
    }
    if (device) {
        free_loop_device(device);
    }
    if (p) {
        mig_pair_free(p);
    }
}

/* The number of the descriptor that @s has open on @path. */
static int descriptor_of(QTestState *s, const char *path)
{
    for (int fd = 3; fd < 100; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/%d/fd/%d", qtest_pid(s), fd);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (target && !strcmp(target, path)) {
            return fd;
        }
    }
    g_assert_not_reached();
}

/* What the process opened itself, as a guest's disk, is not to be had by its number. */
static void test_own_descriptors(void)
{
    g_autofree char *path = g_strdup_printf("%s/disk", qtest_tmpdir());
    g_autofree char *content = g_strnfill(65536, 'd'), *after = NULL;
    g_autofree char *uri = NULL, *reason = NULL;
    QTestState *s;
    gsize size;

    g_assert_true(g_file_set_contents(path, content, 65536, NULL));
    s = qtest_initf("-accel qtest -S -drive file=%s,format=raw", path);
    uri = g_strdup_printf("fd:%d", descriptor_of(s, path));
    reason = g_strdup_printf("File descriptor %s was not inherited, or is in use already",
                             uri + strlen("fd:"));
    qtest_qmp_assert_error(s, reason, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    qtest_quit(s);
    g_assert_true(g_file_get_contents(path, &after, &size, NULL));
    g_assert_cmpmem(after, size, content, 65536);
    unlink(path);
}

/* A command that is refused leaves the descriptor, for one that is not. */
static void test_refused_keeps_fd(void)
{
    MigMachine m = { .qts = qtest_init("-accel qtest -S"), .serial = -1 };
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    qtest_qmp_fds_assert_success(m.qts, &fds[1], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    close(fds[1]);
    qtest_qmp_assert_error(m.qts, "Capability 'direct-mapped' needs a regular file or block device, "
                           "transport 'fd' (file descriptor 'mig') is a stream",
                           "{'execute': 'migrate', 'arguments': {'uri': 'fd:mig', 'config': "
                           "{'direct-mapped': true}}}");
    mig_migrate(&m, "fd:mig");
    char magic[4];
    g_assert_cmpint(read(fds[0], magic, 4), ==, 4);
    g_assert_cmpint(memcmp(magic, "QEVM", 4), ==, 0);
    char rest[4096];
    while (read(fds[0], rest, sizeof(rest)) > 0) {
    }
    mig_wait_status(&m, "completed");
    close(fds[0]);
    qtest_quit(m.qts);
}

static void assert_run_state(QTestState *s, const char *state)
{
    struct json_object *info = qtest_qmp_assert_success_ref(s, "{'execute': 'query-status'}");

    g_assert_cmpstr(qtest_get_str(info, "status"), ==, state);
    json_object_put(info);
}

/* A machine that was shut down is still that elsewhere, with -S and without. */
static void test_shut_down(void)
{
    static const char *const options[] = { "", "-S" };
    g_autofree char *path = g_strdup_printf("%s/shut-down", qtest_tmpdir());
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    MigMachine m = { .qts = qtest_init("-accel qtest -no-reboot -no-shutdown"), .serial = -1 };

    qtest_outb(m.qts, 0x92, 1);
    qtest_qmp_eventwait(m.qts, "SHUTDOWN");
    assert_run_state(m.qts, "shutdown");
    qtest_qmp_assert_success(m.qts, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    mig_wait_status(&m, "completed");
    qtest_quit(m.qts);
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        MigMachine dst = { .serial = -1 };

        dst.qts = qtest_initf("-accel qtest -incoming defer %s", options[i]);
        qtest_qmp_assert_success(dst.qts,
                                 "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
        mig_wait_status(&dst, "completed");
        assert_run_state(dst.qts, "shutdown");
        qtest_qmp_assert_error(dst.qts, "Resetting the Virtual Machine is required",
                               "{'execute': 'cont'}");
        qtest_quit(dst.qts);
    }
    unlink(path);
}

/* Somebody who says that he is a RAM channel, and then nothing more, holds nobody up. */
static void test_silent_channel(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(addr.sun_path, uri + strlen("unix:"), sizeof(addr.sun_path));
    mig_start_src(p);
    mig_set_cap(&p->src, "multifd", true);
    mig_start_dst(p, "defer");
    mig_set_cap(&p->dst, "multifd", true);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(write(fd, "\x11\x22\x33\x44", 4), ==, 4);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    close(fd);
    mig_finish(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    mig_add_accel_tests("/migration/file/in-use", test_in_use);
    qtest_add_func("/migration/file/shared-load", test_shared_load);
    mig_add_accel_tests("/migration/file/stream-truncated", test_stream_truncated);
    mig_add_accel_tests("/migration/file/header-lost", test_header_lost);
    mig_add_accel_tests("/migration/file/last-flush-fails", test_last_flush_fails);
    qtest_add_func("/migration/file/append", test_append);
    mig_add_accel_tests("/migration/file/no-direct", test_no_direct);
    qtest_add_func("/migration/file/overlay", test_overlay);
    mig_add_accel_tests("/migration/file/block-device", test_block_device);
    qtest_add_func("/migration/file/own-descriptors", test_own_descriptors);
    qtest_add_func("/migration/file/refused-keeps-fd", test_refused_keeps_fd);
    qtest_add_func("/migration/file/shut-down", test_shut_down);
    mig_add_accel_tests("/migration/file/silent-channel", test_silent_channel);
    return g_test_run();
}
