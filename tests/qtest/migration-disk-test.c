/*
 * Machines with disks move: what the guest wrote before, and what it had under way, is on the disk
 * and in its memory afterwards, and at no time have two machines the disk.
 *
 * Under kvm and tcg the guest disker writes and verifies; under qtest the test is the driver.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "migration-util.h"
#include "virtio-driver.h"

#define MIB (1u << 20)
#define DISK_BYTES (4 * MIB)

#define FILE_NODE "-blockdev '{\"driver\": \"file\", \"node-name\": \"n0\", \"filename\": \"%s\"}'"

static char *make_disk(MigPair *p, const char *name)
{
    char *path = mig_path(p, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, DISK_BYTES), ==, 0);
    close(fd);
    return path;
}

/* A pair whose content is on a disk, and moves through an iothread when @iothread. */
static MigPair *disk_pair(const char *accel, bool iothread, char **args)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *disk = make_disk(p, "disk");

    *args = g_strdup_printf("%s " FILE_NODE " -device virtio-blk-device,id=vd,drive=n0%s",
                            iothread ? "-object iothread,id=io0" : "", disk,
                            iothread ? ",iothread=io0" : "");
    p->guest = "disker";
    p->extra_args = *args;
    return p;
}

/* Whether another machine that wants to write to the disk is refused, and told why. */
static void assert_locked(const char *disk, bool locked)
{
    /* One that gets as far as its monitors ends there. */
    g_autofree char *args = g_strdup_printf("-display none -accel qtest -S " FILE_NODE
                                            " -device virtio-blk-device,drive=n0 -mon nosuch",
                                            disk);
    g_autofree char *err = NULL;

    g_assert_cmpint(qtest_run(args, NULL, &err), ==, 1);
    if (!!strstr(err, "lock") != locked) {
        g_test_message("%s", err);
    }
    g_assert_cmpint(!!strstr(err, "lock"), ==, locked);
}

/* ---- a guest with a disk ---- */

static void over_socket(const char *accel, bool iothread)
{
    g_autofree char *args = NULL;
    MigPair *p = disk_pair(accel, iothread, &args);
    g_autofree char *uri = mig_unix_uri(p, "mig");

    mig_start_src(p);
    mig_start_dst(p, uri);
    mig_migrate(&p->src, uri);
    mig_finish(p);
}

static void test_socket(const char *accel)
{
    over_socket(accel, false);
}

static void test_socket_iothread(const char *accel)
{
    over_socket(accel, true);
}

static void test_file(const char *accel)
{
    g_autofree char *args = NULL;
    MigPair *p = disk_pair(accel, false, &args);
    g_autofree char *path = mig_path(p, "save"), *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    mig_set_cap(&p->src, "direct-mapped", true);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    mig_start_dst(p, "defer");
    mig_set_cap(&p->dst, "direct-mapped", true);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_finish(p);
}

/*
 * The destination says no after the source gave the disk up: the source takes it back and goes on.
 */
static void test_refused(const char *accel)
{
    g_autofree char *args = NULL, *other = NULL;
    MigPair *p = disk_pair(accel, false, &args);
    g_autofree char *uri = mig_unix_uri(p, "mig"), *disk = mig_path(p, "disk");

    mig_start_src(p);
    other = g_strdup_printf("%s,queue-size=1024", args);
    p->extra_args = other;
    mig_start_dst(p, uri);
    p->extra_args = args;
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "failed");
    mig_assert_dst_refused(p, "virtio-blk");
    assert_locked(disk, true);
    mig_finish_after_failure(p);
}

/* ---- by hand ---- */

typedef struct Hand {
    MigPair *p;
    VirtioDriver src, dst;
    char *src_args, *dst_args;
} Hand;

static QTestState *hand_start(Hand *h, MigMachine *m, const char *args, const char *more)
{
    m->qts = qtest_initf("-m 64 %s %s", args, more);
    return m->qts;
}

static void hand_start_dst(Hand *h, const char *uri, const char *more)
{
    g_autofree char *text = g_strdup_printf("-incoming %s %s", uri, more);

    hand_start(h, &h->p->dst, h->dst_args, text);
    vd_init(&h->dst, h->p->dst.qts, 0);
}

/* The source's driver is the destination's from now on. */
static void hand_over(Hand *h)
{
    QTestState *qts = h->dst.qts;

    h->dst = h->src;
    h->dst.qts = qts;
}

static void hand_migrate(Hand *h, const char *uri)
{
    mig_migrate(&h->p->src, uri);
    mig_wait_status(&h->p->src, "completed");
    mig_wait_status(&h->p->dst, "completed");
    hand_over(h);
}

static void hand_free(Hand *h)
{
    mig_pair_free(h->p);
    g_free(h->src_args);
    g_free(h->dst_args);
}

static Hand hand_new(const char *src_node, const char *dst_node, const char *device)
{
    Hand h = { .p = mig_pair_new("qtest") };
    g_autofree char *disk = make_disk(h.p, "disk");
    g_autofree char *src = g_strdup_printf(src_node, disk), *dst = g_strdup_printf(dst_node, disk);

    h.src_args = g_strdup_printf("%s %s", src, device);
    h.dst_args = g_strdup_printf("%s %s", dst, device);
    return h;
}

static void fill(uint8_t *data, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++) {
        data[i] = i * 7 + seed;
    }
}

static void check_disk(Hand *h, uint64_t offset, const void *data, size_t bytes)
{
    g_autofree char *disk = mig_path(h->p, "disk");
    g_autofree void *found = g_malloc(bytes);
    int fd = open(disk, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(pread(fd, found, bytes, offset), ==, bytes);
    close(fd);
    g_assert_cmpmem(found, bytes, data, bytes);
}

static const char *run_state(QTestState *qts)
{
    static char state[32];
    struct json_object *status = qtest_qmp_assert_success_ref(qts, "{'execute': 'query-status'}");

    g_strlcpy(state, qtest_get_str(status, "status"), sizeof(state));
    json_object_put(status);
    return state;
}

/* Registers, rings and settings go along; the driver does not notice. */
static void test_state(void)
{
    Hand h =
        hand_new(FILE_NODE, FILE_NODE,
                 "-device virtio-blk-device,id=vd,drive=n0,num-queues=3,bus=virtio-mmio-bus.5");
    g_autofree char *uri = mig_unix_uri(h.p, "mig");
    uint8_t data[8192], in[8192];
    uint64_t wce;

    hand_start(&h, &h.p->src, h.src_args, "");
    vd_init(&h.src, h.p->src.qts, 5);
    vd_start(&h.src, VD_F_PLAIN | VD_F_EVENT_IDX, 3, 8);
    wce = h.src.base + VD_CONFIG + 32;
    fill(data, sizeof(data), 1);
    for (unsigned i = 0; i < 11; i++) {
        g_assert_cmpuint(vd_request(&h.src, &h.src.queues[i % 3], VD_OUT, i * 16, data, NULL,
                                    sizeof(data)), ==, VD_OK);
    }
    qtest_writeb(h.p->src.qts, wce, 0);
    vd_write(&h.src, VD_QUEUE_SEL, 2);
    vd_wait_register(&h.src, VD_ISR, 1);

    hand_start_dst(&h, uri, "");
    hand_migrate(&h, uri);
    g_assert_cmpuint(vd_read(&h.dst, VD_ISR), ==, 1);
    g_assert_cmphex(vd_read(&h.dst, VD_STATUS), ==, VD_S_ALL);
    g_assert_cmpuint(qtest_readb(h.p->dst.qts, wce), ==, 0);
    vd_write(&h.dst, VD_ISR_ACK, 1);
    for (unsigned i = 0; i < 11; i++) {
        g_assert_cmpuint(
            vd_request(&h.dst, &h.dst.queues[i % 3], VD_IN, i * 16, NULL, in, sizeof(in)), ==,
            VD_OK);
        g_assert_cmpmem(in, sizeof(in), data, sizeof(data));
    }
    hand_free(&h);
}

/*
 * What was put into a ring without a word, or while the machine stood, is found on the other side.
 */
static void test_untold(void)
{
    Hand h = hand_new(FILE_NODE, FILE_NODE, "-device virtio-blk-device,id=vd,drive=n0");
    g_autofree char *uri = mig_unix_uri(h.p, "mig");
    uint8_t data[4096];

    hand_start(&h, &h.p->src, h.src_args, "");
    vd_init(&h.src, h.p->src.qts, 0);
    vd_start(&h.src, VD_F_PLAIN, 1, 8);
    fill(data, sizeof(data), 2);
    qtest_qmp_assert_success(h.p->src.qts, "{'execute': 'stop'}");
    VdRequest r = vd_prepare(&h.src, &h.src.queues[0], VD_OUT, 64, data, sizeof(data));
    vd_kick(&h.src, &h.src.queues[0]);
    vd_read(&h.src, VD_STATUS);
    g_assert_false(vd_has_used(&h.src, &h.src.queues[0]));
    hand_start_dst(&h, uri, "");
    hand_migrate(&h, uri);
    g_assert_cmpuint(vd_status(&h.dst, &r), ==, VD_NOTHING);
    qtest_qmp_assert_success(h.p->dst.qts, "{'execute': 'cont'}");
    g_assert_cmpuint(vd_wait_used(&h.dst, &h.dst.queues[0], NULL), ==, r.head);
    g_assert_cmpuint(vd_status(&h.dst, &r), ==, VD_OK);
    check_disk(&h, 64 * 512, data, sizeof(data));
    hand_free(&h);
}

#define SLOW_NODE                                                                          \
    "-object throttle-group,id=tg,x-iops-total=2 -blockdev '{\"driver\": \"throttle\", "   \
    "\"node-name\": \"n0\", \"throttle-group\": \"tg\", \"file\": {\"driver\": \"file\", " \
    "\"filename\": "                                                                       \
    "\"%s\"}}'"

/* Requests that are under way when the machine stops end before it moves, however slow the disk. */
static void under_way(const char *device)
{
    Hand h = hand_new(SLOW_NODE, FILE_NODE, device);
    g_autofree char *uri = mig_unix_uri(h.p, "mig");
    VdRequest r[12];
    uint8_t data[12][4096];

    hand_start(&h, &h.p->src, h.src_args, "");
    vd_init(&h.src, h.p->src.qts, 0);
    vd_start(&h.src, VD_F_PLAIN, 1, 64);
    for (unsigned i = 0; i < G_N_ELEMENTS(r); i++) {
        fill(data[i], sizeof(data[i]), i);
        r[i] = vd_prepare(&h.src, &h.src.queues[0], VD_OUT, i * 100, data[i], sizeof(data[i]));
    }
    vd_kick(&h.src, &h.src.queues[0]);
    hand_start_dst(&h, uri, "");
    hand_migrate(&h, uri);
    for (unsigned i = 0; i < G_N_ELEMENTS(r); i++) {
        vd_wait_used(&h.dst, &h.dst.queues[0], NULL);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(r); i++) {
        g_assert_cmpuint(vd_status(&h.dst, &r[i]), ==, VD_OK);
        check_disk(&h, i * 100 * 512, data[i], sizeof(data[i]));
    }
    hand_free(&h);
}

static void test_under_way(void)
{
    under_way("-device virtio-blk-device,id=vd,drive=n0");
}

static void test_under_way_iothread(void)
{
    under_way("-object iothread,id=io0 -device virtio-blk-device,id=vd,drive=n0,iothread=io0");
}

#define FAILING_NODE                                                                        \
    "-blockdev '{\"driver\": \"blkdebug\", \"node-name\": \"n0\", \"image\": {\"driver\": " \
    "\"file\", \"filename\": \"%s\"}, \"inject-error\": [{\"iotype\": \"write\", "          \
    "\"errno\": 28}]}'"

/*
 * Requests that failed and stopped the machine are done again on the other side, where there is
 * room.
 */
static void failed(const char *more, const char *device)
{
    g_autofree char *all =
        g_strdup_printf("%s -device virtio-blk-device,id=vd,drive=n0,werror=stop%s", more, device);
    Hand h = hand_new(FAILING_NODE, FILE_NODE, all);
    g_autofree char *uri = mig_unix_uri(h.p, "mig");
    VdRequest r[3];
    uint8_t data[4096], in[4096];

    hand_start(&h, &h.p->src, h.src_args, "");
    vd_init(&h.src, h.p->src.qts, 0);
    vd_start(&h.src, VD_F_PLAIN, 1, 64);
    fill(data, sizeof(data), 3);
    for (unsigned i = 0; i < G_N_ELEMENTS(r); i++) {
        r[i] = vd_prepare(&h.src, &h.src.queues[0], VD_OUT, i * 8, data, sizeof(data));
    }
    vd_kick(&h.src, &h.src.queues[0]);
    qtest_qmp_eventwait(h.p->src.qts, "STOP");
    g_assert_cmpstr(run_state(h.p->src.qts), ==, "io-error");
    g_assert_false(vd_has_used(&h.src, &h.src.queues[0]));

    hand_start_dst(&h, uri, "");
    hand_migrate(&h, uri);
    g_assert_cmpstr(run_state(h.p->dst.qts), ==, "io-error");
    g_assert_false(vd_has_used(&h.dst, &h.dst.queues[0]));
    qtest_qmp_assert_success(h.p->dst.qts, "{'execute': 'cont'}");
    for (unsigned i = 0; i < G_N_ELEMENTS(r); i++) {
        vd_wait_used(&h.dst, &h.dst.queues[0], NULL);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(r); i++) {
        g_assert_cmpuint(vd_status(&h.dst, &r[i]), ==, VD_OK);
        check_disk(&h, i * sizeof(data), data, sizeof(data));
    }
    g_assert_cmpuint(vd_request(&h.dst, &h.dst.queues[0], VD_IN, 8, NULL, in, sizeof(in)), ==,
                     VD_OK);
    g_assert_cmpmem(in, sizeof(in), data, sizeof(data));
    hand_free(&h);
}

static void test_failed(void)
{
    failed("", "");
}

static void test_failed_iothread(void)
{
    failed("-object iothread,id=io0", ",iothread=io0");
}

/* One machine has the disk: the source until it gave it up, the destination from then on. */
static void test_ownership(void)
{
    Hand h = hand_new(FILE_NODE, FILE_NODE, "-device virtio-blk-device,id=vd,drive=n0");
    g_autofree char *uri = mig_unix_uri(h.p, "mig"), *disk = mig_path(h.p, "disk");
    uint8_t data[512];

    hand_start(&h, &h.p->src, h.src_args, "");
    vd_init(&h.src, h.p->src.qts, 0);
    vd_start(&h.src, VD_F_PLAIN, 1, 8);
    assert_locked(disk, true);
    mig_set_cap(&h.p->src, "pause-before-switchover", true);
    hand_start_dst(&h, uri, "");
    mig_migrate(&h.p->src, uri);
    mig_wait_status(&h.p->src, "pre-switchover");
    /* Stopped, and ours still: whoever wants to look at it from outside can prepare for it now. */
    assert_locked(disk, true);
    qtest_qmp_assert_success(h.p->src.qts, "{'execute': 'migrate-continue', 'arguments': {'state': "
                             "'pre-switchover'}}");
    mig_wait_status(&h.p->src, "completed");
    mig_wait_status(&h.p->dst, "completed");
    hand_over(&h);
    assert_locked(disk, true);
    struct json_object *error = qtest_qmp_assert_failure_ref(h.p->src.qts, "{'execute': 'cont'}");
    g_assert_nonnull(strstr(qtest_get_str(error, "desc"), "lock"));
    json_object_put(error);
    g_assert_cmpstr(run_state(h.p->src.qts), ==, "postmigrate");
    fill(data, sizeof(data), 9);
    g_assert_cmpuint(vd_request(&h.dst, &h.dst.queues[0], VD_OUT, 3, data, NULL, 512), ==, VD_OK);

    /*
     * The destination is gone: the source may go on, from its own memory, with the disk as it is.
     */
    mig_quit(&h.p->dst);
    assert_locked(disk, false);
    qtest_qmp_assert_success(h.p->src.qts, "{'execute': 'cont'}");
    g_assert_cmpuint(vd_request(&h.src, &h.src.queues[0], VD_IN, 3, NULL, data, 512), ==, VD_OK);
    check_disk(&h, 3 * 512, data, 512);
    hand_free(&h);
}

/* A cancelled migration leaves the source with its disk. */
static void test_cancelled(void)
{
    Hand h = hand_new(FILE_NODE, FILE_NODE, "-device virtio-blk-device,id=vd,drive=n0");
    g_autofree char *uri = mig_unix_uri(h.p, "mig"), *disk = mig_path(h.p, "disk");
    uint8_t data[512];

    hand_start(&h, &h.p->src, h.src_args, "");
    vd_init(&h.src, h.p->src.qts, 0);
    vd_start(&h.src, VD_F_PLAIN, 1, 8);
    mig_set_cap(&h.p->src, "pause-before-switchover", true);
    hand_start_dst(&h, uri, "");
    mig_migrate(&h.p->src, uri);
    mig_wait_status(&h.p->src, "pre-switchover");
    qtest_qmp_assert_success(h.p->src.qts, "{'execute': 'migrate_cancel'}");
    mig_wait_status(&h.p->src, "cancelled");
    g_assert_cmpstr(run_state(h.p->src.qts), ==, "running");
    assert_locked(disk, true);
    fill(data, sizeof(data), 4);
    g_assert_cmpuint(vd_request(&h.src, &h.src.queues[0], VD_OUT, 7, data, NULL, 512), ==, VD_OK);
    check_disk(&h, 7 * 512, data, 512);
    qtest_set_expected_status(h.p->dst.qts, 1);
    hand_free(&h);
}

/* A destination that cannot have the disk has the machine, paused; it can be started later. */
static void test_disk_taken(void)
{
    Hand h = hand_new(FILE_NODE, FILE_NODE, "-device virtio-blk-device,id=vd,drive=n0");
    g_autofree char *uri = mig_unix_uri(h.p, "mig"), *disk = mig_path(h.p, "disk"), *other = NULL;
    QTestState *thief;
    struct json_object *error;

    hand_start(&h, &h.p->src, h.src_args, "");
    vd_init(&h.src, h.p->src.qts, 0);
    vd_start(&h.src, VD_F_PLAIN, 1, 8);
    qtest_qmp_assert_success(h.p->src.qts, "{'execute': 'stop'}");
    /* To a file, so that somebody can come in between. */
    g_autofree char *save = mig_path(h.p, "save"), *file = g_strdup_printf("file:%s", save);
    mig_migrate(&h.p->src, file);
    mig_wait_status(&h.p->src, "completed");
    other = g_strdup_printf(FILE_NODE " -device virtio-blk-device,drive=n0", disk);
    thief = qtest_init(other);
    hand_start_dst(&h, file, "");
    mig_wait_status(&h.p->dst, "completed");
    hand_over(&h);
    g_assert_cmpstr(run_state(h.p->dst.qts), ==, "paused");
    qtest_wait_stderr(h.p->dst.qts, "the machine is loaded, but stays paused without its disks: ");
    error = qtest_qmp_assert_failure_ref(h.p->dst.qts, "{'execute': 'cont'}");
    g_assert_nonnull(strstr(qtest_get_str(error, "desc"), "lock"));
    json_object_put(error);
    qtest_quit(thief);
    qtest_qmp_assert_success(h.p->dst.qts, "{'execute': 'cont'}");
    g_assert_cmpuint(vd_request(&h.dst, &h.dst.queues[0], VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    hand_free(&h);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    mig_add_accel_tests("migration/disk/socket", test_socket);
    mig_add_accel_tests("migration/disk/socket-iothread", test_socket_iothread);
    mig_add_accel_tests("migration/disk/file", test_file);
    mig_add_accel_tests("migration/disk/refused", test_refused);
    qtest_add_func("migration/disk/state", test_state);
    qtest_add_func("migration/disk/untold", test_untold);
    qtest_add_func("migration/disk/under-way", test_under_way);
    qtest_add_func("migration/disk/under-way-iothread", test_under_way_iothread);
    qtest_add_func("migration/disk/failed", test_failed);
    qtest_add_func("migration/disk/failed-iothread", test_failed_iothread);
    qtest_add_func("migration/disk/ownership", test_ownership);
    qtest_add_func("migration/disk/cancelled", test_cancelled);
    qtest_add_func("migration/disk/disk-taken", test_disk_taken);
    return g_test_run();
}
