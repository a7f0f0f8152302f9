/*
 * Machines, content and steps for the migration tests.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration-util.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* After so many passes a migration that should complete is let, whatever the downtime. */
#define PASSES_PATIENT 6
#define DOWNTIME_LARGE_MS 60000
#define MIB (1ull << 20)

static bool has_guest(const MigPair *p)
{
    return strcmp(p->accel, "qtest") != 0;
}

MigPair *mig_pair_new(const char *accel)
{
    MigPair *p = g_new0(MigPair, 1);

    p->accel = accel;
    p->guest = "dirtier";
    p->memory_mib = strcmp(accel, "tcg") == 0 ? 48 : 96;
    p->cpus = 1;
    p->rate_mib = strcmp(accel, "tcg") == 0 ? 5 : 20;
    p->dir = g_dir_make_tmp("ferry-mig-XXXXXX", NULL);
    g_assert_nonnull(p->dir);
    p->src.serial = p->dst.serial = -1;
    return p;
}

static void machine_forget(MigMachine *m)
{
    if (m->serial >= 0) {
        close(m->serial);
    }
    m->serial = -1;
    if (m->serial_text) {
        g_string_free(m->serial_text, TRUE);
    }
    m->serial_text = NULL;
    m->qts = NULL;
}

void mig_quit(MigMachine *m)
{
    if (m->qts) {
        qtest_quit(m->qts);
    }
    machine_forget(m);
}

void mig_kill(MigMachine *m)
{
    if (m->qts) {
        qtest_kill(m->qts);
    }
    machine_forget(m);
}

void mig_pair_free(MigPair *p)
{
    GDir *dir;
    const char *name;

    mig_quit(&p->src);
    mig_quit(&p->dst);
    dir = g_dir_open(p->dir, 0, NULL);
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(p->dir, name, NULL);
        g_unlink(path);
    }
    if (dir) {
        g_dir_close(dir);
    }
    g_rmdir(p->dir);
    g_free(p->dir);
    g_free(p);
}

char *mig_path(MigPair *p, const char *name)
{
    return g_build_filename(p->dir, name, NULL);
}

char *mig_unix_uri(MigPair *p, const char *name)
{
    g_autofree char *path = mig_path(p, name);

    return g_strdup_printf("unix:%s", path);
}

/* ---- the guest's serial port ---- */

static int serial_connect(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    g_strlcpy(sa.sun_path, path, sizeof(sa.sun_path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    return fd;
}

/* The next whole line, or NULL when none is there yet. */
static char *serial_take_line(MigMachine *m)
{
    char *end = strchr(m->serial_text->str, '\n');

    if (!end) {
        return NULL;
    }
    char *line = g_strndup(m->serial_text->str, end - m->serial_text->str);
    g_string_erase(m->serial_text, 0, end - m->serial_text->str + 1);
    return g_strchomp(line);
}

/* Wait for a line that contains @text; the guest's complaints fail the test. */
static void serial_wait(MigMachine *m, const char *text)
{
    gint64 deadline = qtest_deadline();

    for (;;) {
        g_autofree char *line = serial_take_line(m);
        if (line) {
            if (strstr(line, "CORRUPT") || strstr(line, "FAILED")) {
                qtest_fail(m->qts, "the guest says: %s", line);
            }
            if (strstr(line, text)) {
                return;
            }
            continue;
        }

        gint64 left = (deadline - g_get_monotonic_time()) / 1000;
        struct pollfd pfd = { .fd = m->serial, .events = POLLIN };
        char buf[4096];
        if (left <= 0 || poll(&pfd, 1, left) != 1) {
            qtest_fail(m->qts, "the guest did not print '%s' in time", text);
        }
        ssize_t n = read(m->serial, buf, sizeof(buf));
        if (n <= 0) {
            qtest_fail(m->qts, "the serial port closed while '%s' was awaited", text);
        }
        g_string_append_len(m->serial_text, buf, n);
    }
}

static void serial_send(MigMachine *m, char c)
{
    g_assert_cmpint(write(m->serial, &c, 1), ==, 1);
}

/* ---- starting ---- */

static char *machine_args(MigPair *p, const char *serial_path)
{
    GString *args = g_string_new(NULL);

    g_string_append_printf(args, "-accel %s -m %u -smp %u", p->accel, p->memory_mib, p->cpus);
    if (has_guest(p)) {
        g_string_append_printf(args,
                               " -kernel %s -append 'size=%uM rate=%u report=100 cpus=%u'"
                               " -serial unix:%s,server=on,wait=off",
                               qtest_guest(p->guest), p->memory_mib / 2, p->rate_mib,
                               p->cpus, serial_path);
    } else {
        g_string_append_printf(args, " -device memstress,id=ms0,start=1M,size=%uM,rate=%llu",
                               p->memory_mib / 2, p->rate_mib * MIB / 4096);
    }
    if (p->extra_args) {
        g_string_append_printf(args, " %s", p->extra_args);
    }
    return g_string_free(args, FALSE);
}

static void machine_start(MigPair *p, MigMachine *m, const char *more)
{
    g_autofree char *name = g_strdup_printf("serial%u", p->n_started++);
    g_autofree char *serial_path = mig_path(p, name);
    g_autofree char *args = machine_args(p, serial_path);

    m->qts = qtest_initf("%s %s", args, more);
    m->serial_text = g_string_new(NULL);
    if (has_guest(p)) {
        m->serial = serial_connect(serial_path);
    }
}

void mig_start_src(MigPair *p)
{
    machine_start(p, &p->src, "");
    if (has_guest(p)) {
        g_autofree char *ready = g_strdup_printf("%s: ready", p->guest);

        serial_wait(&p->src, ready);
        serial_wait(&p->src, ": round");
    } else {
        /*
         * Something recognisable outside the device's region as well, and enough to take a while.
         */
        qtest_memset(p->src.qts, (p->memory_mib / 2 + 2) * MIB, 0x5a, p->memory_mib / 4 * MIB);
        for (uint64_t at = (p->memory_mib / 2 + 2) * MIB; at < p->memory_mib * MIB; at += MIB) {
            qtest_writeq(p->src.qts, at, at * 3 + 1);
        }
        qtest_qmp_assert_success(
            p->src.qts, "{'execute': 'qom-set', 'arguments': {'path': "
                        "'/machine/peripheral/ms0', 'property': 'running', 'value': true}}");
    }
}

void mig_start_dst(MigPair *p, const char *incoming)
{
    g_autofree char *quoted = g_shell_quote(incoming);
    g_autofree char *more = g_strdup_printf("-S -incoming %s", quoted);

    machine_start(p, &p->dst, more);
}

void mig_start_loading(MigPair *p, const char *uri)
{
    mig_start_dst(p, "defer");
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
}

/* ---- steps ---- */

void mig_migrate(MigMachine *m, const char *uri)
{
    qtest_qmp_assert_success(m->qts, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
}

struct json_object *mig_query(MigMachine *m)
{
    return qtest_qmp_assert_success_ref(m->qts, "{'execute': 'query-migrate'}");
}

char *mig_error(MigMachine *m)
{
    struct json_object *info = mig_query(m);
    char *text = qtest_has(info, "error-desc") ? g_strdup(qtest_get_str(info, "error-desc")) : NULL;

    json_object_put(info);
    return text;
}

/*
 * Whether the migration is one that a busy host keeps from coming to its end: channels get less
 * done than the content changes. Who waits for the end wants it, as a person would.
 */
static bool does_not_converge(struct json_object *info)
{
    return qtest_has(info, "ram.dirty-sync-count") &&
           strcmp(qtest_get_str(info, "status"), "active") == 0 &&
           qtest_get_int(info, "ram.dirty-sync-count") > PASSES_PATIENT;
}

const char *mig_wait_status_any(MigMachine *m, const char *const *wanted)
{
    gint64 deadline = qtest_deadline();
    bool helped = false;

    for (;;) {
        struct json_object *info = mig_query(m);
        const char *status = qtest_has(info, "status") ? qtest_get_str(info, "status") : "none";
        for (unsigned i = 0; wanted[i]; i++) {
            if (strcmp(status, wanted[i]) == 0) {
                json_object_put(info);
                return wanted[i];
            }
        }
        if (g_get_monotonic_time() > deadline || strcmp(status, "failed") == 0 ||
            strcmp(status, "completed") == 0 || strcmp(status, "cancelled") == 0) {
            qtest_fail(m->qts, "migration state '%s' instead of '%s': %s", status, wanted[0],
                       json_object_to_json_string(info));
        }
        if (!helped && strcmp(wanted[0], "completed") == 0 && does_not_converge(info)) {
            mig_set_param_int(m, "downtime-limit", DOWNTIME_LARGE_MS);
            helped = true;
        }
        json_object_put(info);
        g_usleep(1000);
    }
}

void mig_wait_status(MigMachine *m, const char *wanted)
{
    mig_wait_status_any(m, (const char *const[]) { wanted, NULL });
}

void mig_set_cap(MigMachine *m, const char *cap, bool on)
{
    qtest_qmp_assert_success(m->qts, "{'execute': 'migrate-set-capabilities', 'arguments': "
                             "{'capabilities': [{'capability': %s, 'state': %i}]}}", cap, on);
}

void mig_set_param_int(MigMachine *m, const char *param, int64_t value)
{
    qtest_qmp_assert_success(m->qts, "{'execute': 'migrate-set-parameters', 'arguments': "
                             "{%s: %" PRId64 "}}", param, value);
}

void mig_set_param_str(MigMachine *m, const char *param, const char *value)
{
    qtest_qmp_assert_success(m->qts, "{'execute': 'migrate-set-parameters', 'arguments': "
                             "{%s: %s}}", param, value);
}

/* ---- content ---- */

static void *dump_memory(MigPair *p, MigMachine *m, const char *name, size_t size)
{
    g_autofree char *path = mig_path(p, name);
    void *map;
    int fd;

    qtest_qmp_assert_success(m->qts, "{'execute': 'pmemsave', 'arguments': {'val': 0, 'size': "
                             "%" PRIu64 ", 'filename': %s}}", (uint64_t)size, path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    g_assert_true(map != MAP_FAILED);
    close(fd);
    g_unlink(path);
    return map;
}

void mig_compare_memory(MigPair *p)
{
    size_t size = p->memory_mib * MIB;
    uint8_t *a = dump_memory(p, &p->src, "src.mem", size);
    uint8_t *b = dump_memory(p, &p->dst, "dst.mem", size);

    for (size_t page = 0; page < size / 4096; page++) {
        if (memcmp(a + page * 4096, b + page * 4096, 4096) != 0) {
            qtest_fail(p->dst.qts, "page %zu differs between source and destination", page);
        }
    }
    munmap(a, size);
    munmap(b, size);
}

static void verify_content(MigPair *p, MigMachine *m)
{
    static const char *const path = "/machine/peripheral/ms0";

    if (has_guest(p)) {
        serial_wait(m, ": round");
        serial_send(m, 'v');
        serial_wait(m, "verify ok");
        return;
    }
    qtest_qmp_assert_success(m->qts, "{'execute': 'qom-set', 'arguments': {'path': %s, "
                             "'property': 'verify', 'value': true}}", path);
    struct json_object *errors = qtest_qmp_assert_success_ref(
        m->qts, "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': 'verify-errors'}}",
        path);
    g_assert_cmpint(json_object_get_int64(errors), ==, 0);
    json_object_put(errors);
    for (uint64_t at = (p->memory_mib / 2 + 2) * MIB; at < p->memory_mib * MIB; at += MIB) {
        g_assert_cmphex(qtest_readq(m->qts, at), ==, at * 3 + 1);
    }
}

static void assert_run_state(MigMachine *m, const char *wanted)
{
    struct json_object *status =
        qtest_qmp_assert_success_ref(m->qts, "{'execute': 'query-status'}");

    g_assert_cmpstr(qtest_get_str(status, "status"), ==, wanted);
    json_object_put(status);
}

void mig_verify_dst(MigPair *p)
{
    assert_run_state(&p->dst, "paused");
    qtest_qmp_assert_success(p->dst.qts, "{'execute': 'cont'}");
    assert_run_state(&p->dst, "running");
    verify_content(p, &p->dst);
}

void mig_verify_src_runs(MigPair *p)
{
    assert_run_state(&p->src, "running");
    if (p->src.serial_text) {
        g_string_truncate(p->src.serial_text, 0);
    }
    verify_content(p, &p->src);
}

/* ---- registration ---- */

/* ---- verdicts ---- */

void mig_assert_error(MigMachine *m, const char *text)
{
    g_autofree char *error = mig_error(m);

    if (!error || !strstr(error, text)) {
        qtest_fail(m->qts, "error-desc is '%s', it does not say '%s'", error ?: "(none)", text);
    }
}

void mig_assert_dst_refused(MigPair *p, const char *text)
{
    g_assert_cmpint(qtest_wait_exit(p->dst.qts), ==, 1);
    g_autofree char *err = qtest_stderr(p->dst.qts);

    if (!strstr(err, "load of migration failed") || !strstr(err, text)) {
        qtest_fail(p->dst.qts, "the destination did not say '%s'", text);
    }
    qtest_set_expected_status(p->dst.qts, 1);
}

void mig_finish(MigPair *p)
{
    mig_wait_status(&p->src, "completed");
    mig_wait_status(&p->dst, "completed");
    mig_compare_memory(p);
    mig_verify_dst(p);
    mig_pair_free(p);
}

void mig_finish_after_failure(MigPair *p)
{
    static unsigned n;
    g_autofree char *name = g_strdup_printf("again%u", n++);
    g_autofree char *uri = mig_unix_uri(p, name);

    mig_verify_src_runs(p);
    mig_kill(&p->dst);
    mig_start_dst(p, uri);
    mig_set_cap(&p->src, "direct-mapped", false);
    mig_set_cap(&p->src, "bypass-cache", false);
    mig_set_cap(&p->src, "multifd", false);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_migrate(&p->src, uri);
    mig_finish(p);
}

typedef struct AccelTest {
    void (*fn)(const char *accel);
    const char *accel;
} AccelTest;

static void run_accel_test(const void *data)
{
    const AccelTest *t = data;
    t->fn(t->accel);
}

bool mig_begin_fault(const char *path, const char *fault, const char *value)
{
    /* Preloading does not go together with the sanitizers' run time. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(self);
    g_autofree char *preload = g_build_filename(dir, "faulty-io.so", NULL);

    g_assert_true(g_file_test(preload, G_FILE_TEST_EXISTS));
    qtest_setenv("LD_PRELOAD", preload);
    qtest_setenv("FERRY_TEST_FAULT_FILE", path);
    qtest_setenv(fault, value);
    return true;
#else
    g_test_skip("not with a sanitizer");
    return false;
#endif
}

void mig_end_fault(const char *fault)
{
    qtest_setenv("LD_PRELOAD", NULL);
    qtest_setenv("FERRY_TEST_FAULT_FILE", NULL);
    qtest_setenv(fault, NULL);
}

void mig_add_accel_tests(const char *path, void (*fn)(const char *accel))
{
    static const char *const accels[] = { "kvm", "tcg", "qtest" };

    for (unsigned i = 0; i < G_N_ELEMENTS(accels); i++) {
        if (qtest_has_accel(accels[i])) {
            AccelTest *t = g_new(AccelTest, 1);
            g_autofree char *full = g_strdup_printf("%s/%s", path, accels[i]);
            t->fn = fn;
            t->accel = accels[i];
            qtest_add_data_func_full(full, t, run_accel_test, g_free);
        }
    }
}
