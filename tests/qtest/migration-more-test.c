/*
 * Migrations seen from their weak sides: passes that follow one another while a destination waits,
 * limits that must hold, commands at the wrong moment, peers that stall or speak nonsense, and
 * what is left behind when it failed.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "migration-util.h"

#define MIB (1ull << 20)

/* ---- passes ---- */

/*
 * The second pass has far more to send than queues and sockets hold, on channels that wait for the
 * main stream to say that the first pass is over.
 */
static void test_multifd_second_pass(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    p->memory_mib = 256;
    p->rate_mib = 4000;
    mig_start_src(p);
    mig_set_cap(&p->src, "multifd", true);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_set_param_int(&p->src, "downtime-limit", 1);
    mig_start_dst(p, "defer");
    mig_set_cap(&p->dst, "multifd", true);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_migrate(&p->src, uri);
    gint64 deadline = qtest_deadline();
    for (int64_t passes = 0; passes < 4;) {
        struct json_object *info = mig_query(&p->src);
        g_assert_cmpstr(qtest_get_str(info, "status"), !=, "failed");
        passes = strcmp(qtest_get_str(info, "status"), "completed") == 0
                     ? 4 : qtest_get_int(info, "ram.dirty-sync-count");
        json_object_put(info);
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(p->src.qts, "no pass follows the other");
        }
        g_usleep(1000);
    }
    mig_set_param_int(&p->src, "downtime-limit", 20000);
    mig_finish(p);
}

/* ---- limits ---- */

static uint64_t transferred_at(MigMachine *m, double *seconds)
{
    struct json_object *info = mig_query(m);
    uint64_t bytes = qtest_get_int(info, "ram.transferred");

    g_assert_cmpstr(qtest_get_str(info, "status"), ==, "active");
    *seconds = qtest_get_int(info, "total-time") / 1000.0;
    json_object_put(info);
    return bytes;
}

/* A guest whose reports nobody reads would stand still before long. */
static void drain_serial(MigMachine *m)
{
    char buf[4096];

    while (m->serial >= 0 && recv(m->serial, buf, sizeof(buf), MSG_DONTWAIT) > 0) {
    }
}

/* Bytes per second between two moments, at least @mib MiB apart. */
static double measure_rate(MigMachine *m, unsigned mib)
{
    gint64 deadline = qtest_deadline();
    double begin_s, now_s;
    uint64_t begin = transferred_at(m, &begin_s), now;

    do {
        g_usleep(20000);
        drain_serial(m);
        now = transferred_at(m, &now_s);
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(m->qts, "the migration does not get on");
        }
    } while (now - begin < mib * MIB);
    return (now - begin) / (now_s - begin_s);
}

/* After the limit was changed: what was handed out before is on its way still, or made good. */
static void let_settle(MigMachine *m)
{
    for (unsigned i = 0; i < 25; i++) {
        g_usleep(20000);
        drain_serial(m);
    }
    measure_rate(m, 1);
}

/*
 * The limit is kept, and made use of where the host is that fast: what the host can do changes
 * while others work on it, so that what it does without a limit is measured in turn.
 */
static void check_limit(MigMachine *m, unsigned limit_mib)
{
    gint64 deadline = qtest_deadline();
    double with, without;

    do {
        mig_set_param_int(m, "max-bandwidth", limit_mib * MIB);
        let_settle(m);
        with = measure_rate(m, limit_mib * 3 / 2);
        g_assert_cmpfloat(with, <, limit_mib * MIB * 1.2);
        /* Hardly a limit, but the first pass is not over at once. */
        mig_set_param_int(m, "max-bandwidth", 8 * limit_mib * MIB);
        without = measure_rate(m, limit_mib);
        g_test_message("%.1f MiB/s at a limit of %u, %.1f without", with / MIB, limit_mib,
                       without / MIB);
    } while (with < MIN(limit_mib * MIB, without) / 2 && g_get_monotonic_time() < deadline);
    g_assert_cmpfloat(with, >=, MIN(limit_mib * MIB, without) / 2);
}

static void check_bandwidth(const char *accel, bool multifd)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    /*
     * The first pass alone is longer than what is measured, however little time the host gives the
     * guest.
     */
    p->memory_mib = 256;
    p->rate_mib = 1000;
    mig_start_src(p);
    mig_set_cap(&p->src, "multifd", multifd);
    mig_set_param_int(&p->src, "max-bandwidth", 24 * MIB);
    mig_set_param_int(&p->src, "downtime-limit", 0);
    mig_start_dst(p, "defer");
    mig_set_cap(&p->dst, "multifd", multifd);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "active");
    check_limit(&p->src, 24);
    check_limit(&p->src, 8);
    /* A limit so high that it is none. */
    mig_set_param_int(&p->src, "max-bandwidth", INT64_MAX / 3);
    mig_set_param_int(&p->src, "downtime-limit", 2000);
    mig_finish(p);
}

static void test_bandwidth(const char *accel)
{
    check_bandwidth(accel, false);
    check_bandwidth(accel, true);
}

typedef struct Relay {
    int from, to;
    GThread *back;
    size_t piece;               /* bytes that pass in 100 ms, three times; later a quarter */
} Relay;

static gpointer relay_back(gpointer opaque)
{
    Relay *r = opaque;
    char buf[4096];
    ssize_t n;

    while ((n = read(r->to, buf, sizeof(buf))) > 0 && write(r->from, buf, n) == n) {
    }
    shutdown(r->from, SHUT_RDWR);
    return NULL;
}

/* A slow line: what comes at one end leaves the other at a limited rate; answers pass at once. */
static gpointer relay_forth(gpointer opaque)
{
    Relay *r = opaque;
    g_autofree char *buf = g_malloc(r->piece);
    ssize_t n;

    r->back = g_thread_new("back", relay_back, r);
    for (unsigned n_pieces = 0;; n_pieces++) {
        if (n_pieces == 3) {
            r->piece /= 4;
        }
        gint64 end = g_get_monotonic_time() + 100000;
        size_t sent = 0;

        while (sent < r->piece && (n = read(r->from, buf, r->piece - sent)) > 0) {
            g_assert_cmpint(send(r->to, buf, n, MSG_NOSIGNAL), ==, n);
            sent += n;
        }
        if (sent < r->piece) {
            break;
        }
        g_usleep(MAX(end - g_get_monotonic_time(), 0));
    }
    shutdown(r->to, SHUT_RDWR);
    g_thread_join(r->back);
    return NULL;
}

/* A line that was quick at first: how slow it is must be seen though each look sees little pass. */
static void test_slow_line(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    int left[2], right[2];

    p->memory_mib = 64;
    p->rate_mib = 1;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, left), ==, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, right), ==, 0);
    mig_start_src(p);
    mig_start_dst(p, "defer");
    if (p->src.serial < 0) {
        qtest_qmp_assert_success(p->src.qts, "{'execute': 'qom-set', 'arguments': {'path': "
                                 "'/machine/peripheral/ms0', 'property': 'running', "
                                 "'value': false}}");
    }
    qtest_qmp_fds_assert_success(p->src.qts, &left[0], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    qtest_qmp_fds_assert_success(p->dst.qts, &right[0], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    close(left[0]);
    close(right[0]);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_set_param_int(&p->src, "downtime-limit", 500);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': 'fd:mig'}}");
    mig_migrate(&p->src, "fd:mig");
    Relay relay = { .from = left[1], .to = right[1], .piece = 2 * MIB };
    GThread *thread = g_thread_new("relay", relay_forth, &relay);
    mig_wait_status(&p->src, "completed");
    struct json_object *info = mig_query(&p->src);
    /* Twice what half a second of the slow line carries, half of what the quick line would. */
    g_test_message("downtime %d ms", (int)qtest_get_int(info, "downtime"));
    g_assert_cmpint(qtest_get_int(info, "ram.downtime-bytes"), <, 5 * MIB);
    json_object_put(info);
    mig_finish(p);
    g_thread_join(thread);
    close(relay.from);
    close(relay.to);
}

/* A guest that writes faster than the line carries is slowed down until it fits. */
static void test_auto_converge(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");
    int64_t highest = 0;
    bool done = false;

    if (!strcmp(accel, "qtest")) {
        g_test_skip("no CPU runs that could be slowed down");
        mig_pair_free(p);
        return;
    }
    p->memory_mib = 40;
    p->rate_mib = 200;
    mig_start_src(p);
    mig_set_cap(&p->src, "auto-converge", true);
    /* So narrow that also a guest with little of a busy host is too fast, until that was seen. */
    mig_set_param_int(&p->src, "max-bandwidth", 4 * MIB);
    mig_set_param_int(&p->src, "downtime-limit", 200);
    mig_set_param_int(&p->src, "cpu-throttle-initial", 50);
    mig_set_param_int(&p->src, "cpu-throttle-increment", 20);
    mig_start_dst(p, uri);
    mig_migrate(&p->src, uri);
    for (gint64 deadline = qtest_deadline(); !done; g_usleep(5000)) {
        drain_serial(&p->src);
        struct json_object *info = mig_query(&p->src);
        if (qtest_has(info, "cpu-throttle-percentage")) {
            if (!highest) {
                mig_set_param_int(&p->src, "max-bandwidth", 16 * MIB);
            }
            highest = MAX(highest, qtest_get_int(info, "cpu-throttle-percentage"));
        }
        done = strcmp(qtest_get_str(info, "status"), "completed") == 0;
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(p->src.qts, "it does not converge: %s", json_object_to_json_string(info));
        }
        json_object_put(info);
    }
    g_test_message("throttled up to %d %%", (int)highest);
    g_assert_cmpint(highest, >=, 50);
    g_assert_cmpint(highest, <=, 99);
    struct json_object *info = mig_query(&p->src);
    g_assert_false(qtest_has(info, "cpu-throttle-percentage"));
    json_object_put(info);
    mig_finish(p);
}

/* ---- commands at the wrong moment ---- */

static void wait_pre_switchover(MigPair *p, const char *uri)
{
    mig_set_cap(&p->src, "pause-before-switchover", true);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "pre-switchover");
}

static void assert_run_state(MigMachine *m, const char *wanted)
{
    struct json_object *status =
        qtest_qmp_assert_success_ref(m->qts, "{'execute': 'query-status'}");

    g_assert_cmpstr(qtest_get_str(status, "status"), ==, wanted);
    json_object_put(status);
}

static void assert_refused(MigMachine *m, const char *text, const char *command)
{
    struct json_object *error = qtest_qmp_assert_failure_ref(m->qts, command);

    if (!strstr(qtest_get_str(error, "desc"), text)) {
        qtest_fail(m->qts, "%s: '%s' does not say '%s'", command, qtest_get_str(error, "desc"),
                   text);
    }
    json_object_put(error);
}

static void test_commands(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");
    g_autofree char *uri2 = mig_unix_uri(p, "sock2");
    g_autofree char *uri3 = mig_unix_uri(p, "sock3");

    mig_start_src(p);
    mig_start_dst(p, uri);
    assert_refused(&p->dst, "Devices cannot be added", "{'execute': 'device_add', 'arguments': "
                   "{'driver': 'memstress', 'id': 'x', 'start': 1048576, 'size': 4096}}");
    assert_refused(&p->dst, "waiting for an incoming migration",
                   "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat >/dev/null'}}");
    assert_refused(&p->dst, "waits for an incoming migration", "{'execute': 'system_reset'}");
    wait_pre_switchover(p, uri);
    assert_run_state(&p->src, "finish-migrate");
    assert_refused(&p->src, "not finalized", "{'execute': 'cont'}");
    assert_refused(&p->src, "not finalized", "{'execute': 'system_reset'}");
    assert_refused(&p->src, "in progress",
                   "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat >/dev/null'}}");
    assert_refused(&p->src, "only in state 'pre-switchover'",
                   "{'execute': 'migrate-continue', 'arguments': {'state': 'device'}}");
    assert_refused(&p->src, "Capabilities cannot be changed",
                   "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': "
                   "[{'capability': 'events', 'state': true}]}}");
    assert_refused(&p->src, "Devices cannot be added", "{'execute': 'device_add', 'arguments': "
                   "{'driver': 'memstress', 'id': 'x', 'start': 1048576, 'size': 4096}}");
    /* A stop holds when the machine comes back, and twice cancelled is once cancelled. */
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'stop'}");
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
    mig_wait_status(&p->src, "cancelled");
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
    assert_run_state(&p->src, "paused");
    mig_kill(&p->dst);

    /* The stop is forgotten by the next. */
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'cont'}");
    mig_start_dst(p, uri2);
    wait_pre_switchover(p, uri2);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
    mig_wait_status(&p->src, "cancelled");
    mig_verify_src_runs(p);
    mig_kill(&p->dst);

    /* Moved away; the source may be woken all the same, and moved again. */
    mig_set_cap(&p->src, "pause-before-switchover", false);
    mig_start_dst(p, uri3);
    mig_migrate(&p->src, uri3);
    mig_wait_status(&p->src, "completed");
    assert_run_state(&p->src, "postmigrate");
    assert_refused(&p->src, "paused due to previous migration",
                   "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat >/dev/null'}}");
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
    mig_wait_status(&p->src, "completed");
    mig_quit(&p->dst);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'cont'}");
    g_autofree char *uri4 = mig_unix_uri(p, "sock4");
    mig_start_dst(p, uri4);
    mig_migrate(&p->src, uri4);
    mig_finish(p);
}

/* A machine that is quit while it waits for migrate-continue does not run again for a moment. */
static void test_quit_in_switchover(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");
    struct json_object *event;

    mig_start_src(p);
    mig_start_dst(p, uri);
    wait_pre_switchover(p, uri);
    qtest_qmp_clear_events(p->src.qts);
    qtest_qmp_send(p->src.qts, "{'execute': 'quit'}");
    while ((event = qtest_qmp_receive_dict(p->src.qts))) {
        g_assert_false(qtest_has(event, "event") &&
                       strcmp(qtest_get_str(event, "event"), "RESUME") == 0);
        json_object_put(event);
    }
    g_assert_cmpint(qtest_wait_exit(p->src.qts), ==, 0);
    mig_kill(&p->dst);
    mig_pair_free(p);
}

/* ---- events ---- */

static void test_events(const char *accel)
{
    static const char *const wanted[] = { "setup", "active", "pre-switchover", "device",
                                          "completed" };
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = mig_unix_uri(p, "sock");

    mig_start_src(p);
    mig_set_cap(&p->src, "events", true);
    mig_start_dst(p, uri);
    qtest_qmp_clear_events(p->src.qts);
    wait_pre_switchover(p, uri);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate-continue', 'arguments': "
                             "{'state': 'pre-switchover'}}");
    for (unsigned i = 0; i < G_N_ELEMENTS(wanted); i++) {
        struct json_object *event = qtest_qmp_eventwait_ref(p->src.qts, "MIGRATION");
        g_assert_cmpstr(qtest_get_str(event, "data.status"), ==, wanted[i]);
        json_object_put(event);
    }
    for (int64_t pass = 1; pass <= 3; pass++) {
        struct json_object *event = qtest_qmp_eventwait_ref(p->src.qts, "MIGRATION_PASS");
        g_assert_cmpint(qtest_get_int(event, "data.pass"), ==, pass);
        json_object_put(event);
    }
    struct json_object *event = qtest_qmp_event_ref(p->src.qts, "MIGRATION");
    g_assert_null(event);
    mig_finish(p);
}

/* ---- peers that stall, and quit ---- */

/* The machine ends by itself, in time, when asked to. */
static void assert_quits(MigMachine *m)
{
    qtest_qmp_send(m->qts, "{'execute': 'quit'}");
    g_assert_cmpint(qtest_wait_exit(m->qts), ==, 0);
    mig_quit(m);
}

static int connect_unix(MigPair *p, const char *name)
{
    g_autofree char *path = mig_path(p, name);
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(sa.sun_path, path, sizeof(sa.sun_path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    return fd;
}

static void test_quit_waiting(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *save = g_strdup_printf("file:%s", path);
    g_autofree char *uri = mig_unix_uri(p, "sock");
    g_autofree char *stream = NULL;
    gsize size;

    mig_start_src(p);
    mig_migrate(&p->src, save);
    mig_wait_status(&p->src, "completed");
    g_assert_true(g_file_get_contents(path, &stream, &size, NULL));
    const gsize sent[] = { 0, 2, 8, 30, 5000, 1000000, size - 3000, size - 1 };
    mig_start_dst(p, uri);
    assert_quits(&p->dst);
    for (unsigned i = 0; i < G_N_ELEMENTS(sent); i++) {
        mig_start_dst(p, uri);
        int fd = connect_unix(p, "sock");
        for (gsize at = 0; at < sent[i];) {
            ssize_t n = send(fd, stream + at, MIN(sent[i] - at, 65536), MSG_NOSIGNAL);
            g_assert_cmpint(n, >, 0);
            at += n;
        }
        if (sent[i] >= 4) {
            mig_wait_status(&p->dst, "active");
        }
        qtest_qmp_send(p->dst.qts, "{'execute': 'quit'}");
        g_assert_cmpint(qtest_wait_exit(p->dst.qts), ==, 0);
        mig_quit(&p->dst);
        close(fd);
    }
    mig_pair_free(p);
}

static void test_quit_blocked(const char *accel)
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
    struct pollfd pfd = { .fd = pair[1], .events = POLLIN };
    g_assert_cmpint(poll(&pfd, 1, 60000), ==, 1);
    assert_quits(&p->src);
    close(pair[1]);
    mig_pair_free(p);
}

static void wait_file(MigPair *p, const char *path)
{
    for (gint64 deadline = qtest_deadline(); access(path, F_OK) < 0; g_usleep(1000)) {
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(p->src.qts, "%s does not appear", path);
        }
    }
}

/* A command that took everything and does not end: neither cancel nor quit wait for it. */
static void test_exec_lingers(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "all");
    g_autofree char *command = g_strdup_printf("exec:cat > /dev/null; : > %s; sleep 1000", path);

    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_migrate(&p->src, command);
    wait_file(p, path);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
    mig_wait_status(&p->src, "cancelled");
    mig_verify_src_runs(p);
    unlink(path);
    mig_migrate(&p->src, command);
    wait_file(p, path);
    assert_quits(&p->src);
    mig_pair_free(p);
}

static void test_exec_lingers_loading(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *save = g_strdup_printf("file:%s", path);
    g_autofree char *load = g_strdup_printf("exec:cat %s; sleep 1000", path);

    mig_start_src(p);
    mig_migrate(&p->src, save);
    mig_wait_status(&p->src, "completed");
    mig_start_dst(p, load);
    mig_finish(p);
}

/* A pipe by its name would keep whoever opens it until the other end is opened. */
static void test_file_is_pipe(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "pipe");

    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    mig_start_src(p);
    struct json_object *error = qtest_qmp_assert_failure_ref(
        p->src.qts, "{'execute': 'migrate', 'arguments': {'channels': [{'channel-type': 'main', "
        "'addr': {'transport': 'file', 'filename': %s, 'offset': 0}}]}}", path);
    json_object_put(error);
    mig_start_dst(p, "defer");
    error = qtest_qmp_assert_failure_ref(
        p->dst.qts, "{'execute': 'migrate-incoming', 'arguments': {'channels': [{'channel-type': "
        "'main', 'addr': {'transport': 'file', 'filename': %s, 'offset': 0}}]}}", path);
    g_assert_nonnull(
        strstr(qtest_get_str(error, "desc"), "neither a regular file nor a block device"));
    json_object_put(error);
    mig_verify_src_runs(p);
    mig_pair_free(p);
}

/* ---- who runs the machine ---- */

/* The stream of a whole machine, asking for answers after its configuration section. */
static GByteArray *stream_with_return_path(MigPair *p)
{
    static const uint8_t open_return_path[] = { 8, 0, 1, 0, 0 };
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *save = g_strdup_printf("file:%s", path);
    g_autofree char *stream = NULL;
    gsize size, at;

    mig_start_src(p);
    mig_migrate(&p->src, save);
    mig_wait_status(&p->src, "completed");
    g_assert_true(g_file_get_contents(path, &stream, &size, NULL));
    at = 8 + 1 + 4 + (uint8_t)stream[12];       /* header, 7, length, machine type */
    GByteArray *bytes = g_byte_array_sized_new(size + sizeof(open_return_path));
    g_byte_array_append(bytes, (uint8_t *)stream, at);
    g_byte_array_append(bytes, open_return_path, sizeof(open_return_path));
    g_byte_array_append(bytes, (uint8_t *)stream + at, size - at);
    return bytes;
}

static int connect_tcp(const char *port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(atoi(port)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    return fd;
}

static void send_all(int fd, const uint8_t *bytes, size_t len, int flags)
{
    while (len) {
        ssize_t n = send(fd, bytes, len, flags | MSG_NOSIGNAL);
        g_assert_cmpint(n, >, 0);
        bytes += n;
        len -= n;
    }
}

/* A source that was cancelled after its last byte: the destination must not run what it loaded. */
static void test_source_gave_up(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autoptr(GByteArray) stream = stream_with_return_path(p);

    for (unsigned gives_up = 0; gives_up < 2; gives_up++) {
        uint8_t answer[8];

        mig_start_dst(p, "tcp:127.0.0.1:0");
        struct json_object *info = mig_query(&p->dst);
        int fd = connect_tcp(qtest_get_str(info, "socket-address.0.port"));
        json_object_put(info);
        /* The end of the connection travels with the last byte. */
        send_all(fd, stream->data, stream->len - 1, 0);
        send_all(fd, stream->data + stream->len - 1, 1, gives_up ? MSG_MORE : 0);
        if (gives_up) {
            shutdown(fd, SHUT_RDWR);
            g_assert_cmpint(qtest_wait_exit(p->dst.qts), ==, 1);
            g_autofree char *err = qtest_stderr(p->dst.qts);
            g_assert_nonnull(strstr(err, "the source did not wait"));
            qtest_set_expected_status(p->dst.qts, 1);
        } else {
            g_assert_cmpint(recv(fd, answer, sizeof(answer), MSG_WAITALL), ==, 8);
            g_assert_cmpint(answer[1], ==, 1);
            g_assert_cmpint(answer[7], ==, 0);
            mig_wait_status(&p->dst, "completed");
        }
        close(fd);
        mig_quit(&p->dst);
    }
    mig_pair_free(p);
}

/* A destination that talks and talks. */
static void test_endless_answers(const char *accel)
{
    static const uint8_t pong[8] = { 0, 2, 0, 4, 0, 0, 0, 1 };
    MigPair *p = mig_pair_new(accel);
    char buf[65536];
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    qtest_qmp_fds_assert_success(p->src.qts, &pair[0], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    close(pair[0]);
    mig_migrate(&p->src, "fd:mig");
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    for (ssize_t n; (n = read(pair[1], buf, sizeof(buf))) != 0;) {
        bool sent = send(pair[1], pong, sizeof(pong), MSG_NOSIGNAL) > 0;
        if (n < 0 && errno != EAGAIN) {
            break;
        }
        if (n < 0 && !sent) {
            struct pollfd pfd = { .fd = pair[1], .events = POLLIN | POLLOUT };
            poll(&pfd, 1, 1000);
        }
    }
    close(pair[1]);
    mig_wait_status(&p->src, "failed");
    g_autofree char *error = mig_error(&p->src);
    g_assert_nonnull(strstr(error, "messages and no confirmation"));
    mig_verify_src_runs(p);
    mig_pair_free(p);
}

/* ---- what is left behind ---- */

static unsigned count_entries(pid_t pid, const char *what)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)pid, what);
    GDir *dir = g_dir_open(path, 0, NULL);
    unsigned n = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

static bool has_children(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/children", (int)pid, (int)pid);
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) && text[0];
}

/* One attempt of the kind @i, which fails. */
static void fail_once(MigPair *p, unsigned i)
{
    g_autofree char *missing = mig_unix_uri(p, "nobody");
    int pair[2];

    switch (i % 5) {
    case 0:
        mig_migrate(&p->src, missing);
        break;
    case 1:
        mig_migrate(&p->src, "exec:head -c 70000 > /dev/null; exit 1");
        break;
    case 2: {
        struct json_object *error = qtest_qmp_assert_failure_ref(
            p->src.qts, "{'execute': 'migrate', 'arguments': {'uri': 'file:/dev/full'}}");
        json_object_put(error);
        break;
    }
    default:
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
        qtest_qmp_fds_assert_success(p->src.qts, &pair[0], 1,
                                     "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
        close(pair[0]);
        mig_migrate(&p->src, "fd:mig");
        if (i % 5 == 4) {
            qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
        }
        close(pair[1]);
        break;
    }
}

static void test_nothing_left(const char *accel)
{
    static const char *const ends[] = { "failed", "cancelled", NULL };
    MigPair *p = mig_pair_new(accel);
    unsigned fds = 0, threads = 0;

    mig_start_src(p);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    for (unsigned i = 0; i < 60; i++) {
        fail_once(p, i);
        mig_wait_status_any(&p->src, ends);
        if (i == 9) {
            json_object_put(mig_query(&p->src));
            fds = count_entries(qtest_pid(p->src.qts), "fd");
            threads = count_entries(qtest_pid(p->src.qts), "task");
        }
    }
    json_object_put(mig_query(&p->src));
    g_assert_cmpint(count_entries(qtest_pid(p->src.qts), "fd"), ==, fds);
    g_assert_cmpint(count_entries(qtest_pid(p->src.qts), "task"), ==, threads);
    g_assert_false(has_children(qtest_pid(p->src.qts)));
    mig_verify_src_runs(p);
    mig_pair_free(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    mig_add_accel_tests("/migration/more/multifd-second-pass", test_multifd_second_pass);
    mig_add_accel_tests("/migration/more/bandwidth", test_bandwidth);
    mig_add_accel_tests("/migration/more/slow-line", test_slow_line);
    mig_add_accel_tests("/migration/more/auto-converge", test_auto_converge);
    mig_add_accel_tests("/migration/more/commands", test_commands);
    mig_add_accel_tests("/migration/more/quit-in-switchover", test_quit_in_switchover);
    mig_add_accel_tests("/migration/more/events", test_events);
    mig_add_accel_tests("/migration/more/quit-waiting", test_quit_waiting);
    mig_add_accel_tests("/migration/more/quit-blocked", test_quit_blocked);
    mig_add_accel_tests("/migration/more/exec-lingers", test_exec_lingers);
    mig_add_accel_tests("/migration/more/exec-lingers-loading", test_exec_lingers_loading);
    mig_add_accel_tests("/migration/more/file-is-pipe", test_file_is_pipe);
    mig_add_accel_tests("/migration/more/source-gave-up", test_source_gave_up);
    mig_add_accel_tests("/migration/more/endless-answers", test_endless_answers);
    mig_add_accel_tests("/migration/more/nothing-left", test_nothing_left);
    return g_test_run();
}
