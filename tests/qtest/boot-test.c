/*
 * A machine's life from the outside: options that print, options that are refused, start, stop,
 * reset and end, and guests that boot by every way a kernel can be given.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/qtest/libqtest.h"

/* ---- the command line alone ---- */

static const struct {
    const char *args;
    const char *texts[4];       /* all must be on stdout */
} printing[] = {
    { "-version", { "version " } },
    { "-help", { "-machine", "-accel", "-incoming" } },
    { "-machine help", { "Supported machines are:", "microvm", "(default)" } },
    { "-accel help", { "Accelerators supported", "kvm", "qtest" } },
    { "-cpu help", { "Available CPUs:", "  host       (kvm)", "  qemu64     (kvm" } },
    { "-chardev help", { "Available chardev backend types:", "  socket\n", "  stdio\n" } },
    { "-device help", { "name \"isa-serial\"", "name \"memstress\"" } },
    { "-device memstress,help", { "memstress options:", "rate=<uint64>" } },
    { "-object help", { "memory-backend-ram", "memory-backend-file", "memory-backend-memfd" } },
    { "-object memory-backend-file,help", { "mem-path", "share" } },
};

static void test_printing(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(printing); i++) {
        g_autofree char *out = NULL, *err = NULL;
        int code = qtest_run(printing[i].args, &out, &err);

        if (code) {
            qtest_fail(NULL, "'%s' ended with %d: %s", printing[i].args, code, err);
        }
        for (unsigned t = 0; t < 4 && printing[i].texts[t]; t++) {
            if (!strstr(out, printing[i].texts[t])) {
                qtest_fail(NULL, "'%s' does not print '%s' but: %s", printing[i].args,
                           printing[i].texts[t], out);
            }
        }
    }
}

static const struct {
    const char *args;
    const char *text;           /* on stderr */
} refused[] = {
    { "-frobnicate", "-frobnicate: invalid option" },
    { "-machine pc-9801", "unsupported machine type 'pc-9801'" },
    { "-machine microvm,rtc=off", "Property 'rtc' is not known to -machine" },
    { "-accel warp", "invalid accelerator warp" },
    { "-accel qtest -kernel /nonexistent/kernel",
      "Could not load the kernel: Could not open '/nonexistent/kernel': No such file or "
      "directory" },
    { "-accel qtest -smp 0",
      "Invalid CPU topology: CPU topology parameters must be greater than zero" },
    { "-accel qtest -m 1k", "Machine type microvm needs at least 2 MiB of RAM, not 4096 bytes" },
    { "-append x", "-append only allowed with -kernel option" },
};

static void test_refused(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autofree char *args = g_strdup_printf("%s -display none -nodefaults", refused[i].args);
        g_autofree char *err = NULL;
        int code = qtest_run(args, NULL, &err);

        if (code != 1 || !strstr(err, refused[i].text)) {
            qtest_fail(NULL, "'%s' should end with 1 and '%s', not with %d and: %s",
                       refused[i].args, refused[i].text, code, err);
        }
    }
}

/* ---- run states ---- */

static void assert_status(QTestState *s, const char *status, bool running)
{
    struct json_object *info = qtest_qmp_assert_success_ref(s, "{'execute': 'query-status'}");

    g_assert_cmpstr(qtest_get_str(info, "status"), ==, status);
    g_assert_cmpint(qtest_get_bool(info, "running"), ==, running);
    json_object_put(info);
}

static void test_run_states(void)
{
    QTestState *s = qtest_init("-S");

    assert_status(s, "prelaunch", false);
    qtest_qmp_assert_success(s, "{'execute': 'cont'}");
    qtest_qmp_eventwait(s, "RESUME");
    assert_status(s, "running", true);
    qtest_qmp_assert_success(s, "{'execute': 'stop'}");
    qtest_qmp_eventwait(s, "STOP");
    assert_status(s, "paused", false);
    qtest_qmp_assert_success(s, "{'execute': 'cont'}");
    qtest_qmp_eventwait(s, "RESUME");
    qtest_quit(s);

    s = qtest_init("");
    assert_status(s, "running", true);
    qtest_quit(s);
}

static void test_reset(void)
{
    QTestState *s = qtest_init("");
    struct json_object *event;

    qtest_qmp_assert_success(s, "{'execute': 'system_reset'}");
    event = qtest_qmp_eventwait_ref(s, "RESET");
    g_assert_false(qtest_get_bool(event, "data.guest"));
    g_assert_cmpstr(qtest_get_str(event, "data.reason"), ==, "host-qmp-system-reset");
    json_object_put(event);
    assert_status(s, "running", true);

    /* The guest's own way: the fast reset of port 0x92. */
    qtest_outb(s, 0x92, 1);
    event = qtest_qmp_eventwait_ref(s, "RESET");
    g_assert_true(qtest_get_bool(event, "data.guest"));
    g_assert_cmpstr(qtest_get_str(event, "data.reason"), ==, "guest-reset");
    json_object_put(event);
    qtest_quit(s);
}

static void test_quit(void)
{
    QTestState *s = qtest_init("");
    struct json_object *event;

    qtest_qmp_assert_success(s, "{'execute': 'quit'}");
    event = qtest_qmp_eventwait_ref(s, "SHUTDOWN");
    g_assert_false(qtest_get_bool(event, "data.guest"));
    g_assert_cmpstr(qtest_get_str(event, "data.reason"), ==, "host-qmp-quit");
    json_object_put(event);
    g_assert_cmpint(qtest_wait_exit(s), ==, 0);
    qtest_quit(s);
}

/* SIGTERM ends it in order, and says so. */
static void test_signal(void)
{
    QTestState *s = qtest_init("");
    struct json_object *event;

    kill(qtest_pid(s), SIGTERM);
    event = qtest_qmp_eventwait_ref(s, "SHUTDOWN");
    g_assert_cmpstr(qtest_get_str(event, "data.reason"), ==, "host-signal");
    json_object_put(event);
    g_assert_cmpint(qtest_wait_exit(s), ==, 0);
    qtest_quit(s);
}

static void test_debug_exit(void)
{
    QTestState *s = qtest_init("-device isa-debug-exit,iobase=0xf4,iosize=4");
    g_autofree char *sent = g_strdup("outl 0xf4 0x15\n");

    g_assert_cmpint(write(qtest_socket_fd(s), sent, strlen(sent)), ==, strlen(sent));
    g_assert_cmpint(qtest_wait_exit(s), ==, 0x15 << 1 | 1);
    qtest_set_expected_status(s, 0x15 << 1 | 1);
    qtest_quit(s);
}

/* Machines do not know of each other. */
static void test_many(void)
{
    QTestState *machines[4];

    for (unsigned i = 0; i < G_N_ELEMENTS(machines); i++) {
        machines[i] = qtest_initf("-m 16M -name vm%u", i);
        qtest_writel(machines[i], 0x1000, i);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(machines); i++) {
        g_autofree char *want = g_strdup_printf("vm%u", i);
        struct json_object *name = qtest_qmp_assert_success_ref(machines[i],
                                                                "{'execute': 'query-name'}");

        g_assert_cmpstr(qtest_get_str(name, "name"), ==, want);
        json_object_put(name);
        g_assert_cmpuint(qtest_readl(machines[i], 0x1000), ==, i);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(machines); i++) {
        qtest_quit(machines[i]);
    }
}

/* ---- guests ---- */

static bool skip_without(const char *accel)
{
    if (qtest_has_accel(accel)) {
        return false;
    }
    g_autofree char *reason = g_strdup_printf("there is no %s here", accel);
    g_test_skip(reason);
    return true;
}

/* The guest's own verdict is in what it prints. */
static void assert_guest_is_well(QTestState *s)
{
    g_autofree char *out = qtest_stdout(s);

    if (strstr(out, "BAD") || strstr(out, "CORRUPT") || strstr(out, "FAILED")) {
        qtest_fail(s, "the guest complains: %s", out);
    }
}

static void test_ticker(const void *accel)
{
    QTestState *s;

    if (skip_without(accel)) {
        return;
    }
    s = qtest_initf("-accel %s -m 64M -serial stdio -kernel %s -append period=10", (char *)accel,
                    qtest_guest("ticker"));
    qtest_wait_stdout(s, "ticker: start pages=16 ram=");
    qtest_wait_stdout(s, "\ntick 5\n");
    qtest_qmp_assert_success(s, "{'execute': 'stop'}");
    qtest_qmp_eventwait(s, "STOP");
    qtest_qmp_assert_success(s, "{'execute': 'cont'}");
    qtest_wait_stdout(s, "\ntick 10\n");
    assert_guest_is_well(s);
    qtest_quit(s);
}

/* The guest ends the machine through the debug exit device, status (0 << 1) | 1: event and end. */
static void test_power_off(const void *accel)
{
    struct json_object *event;
    QTestState *s;

    if (skip_without(accel)) {
        return;
    }
    s = qtest_initf("-accel %s -m 64M -serial stdio -kernel %s -append 'period=10 count=3' "
                    "-device isa-debug-exit", (char *)accel, qtest_guest("ticker"));
    event = qtest_qmp_eventwait_ref(s, "SHUTDOWN");
    g_assert_true(qtest_get_bool(event, "data.guest"));
    g_assert_cmpstr(qtest_get_str(event, "data.reason"), ==, "guest-shutdown");
    json_object_put(event);
    g_assert_cmpint(qtest_wait_exit(s), ==, 1);
    qtest_set_expected_status(s, 1);
    qtest_wait_stdout(s, "\ntick 3\n");
    assert_guest_is_well(s);
    qtest_quit(s);
}

/* The round of the dirtier's last whole report, 0 before there is one. */
static unsigned long reported_round(const char *out)
{
    static const char report[] = "dirtier: round ";
    const char *last = g_strrstr_len(out, -1, "ok pages=");
    const char *line = last ? g_strrstr_len(out, last - out, report) : NULL;

    return line ? strtoul(line + strlen(report), NULL, 10) : 0;
}

/* A report comes each period, not each round: rounds 2 and 3 may both pass between two of them. */
static void test_dirtier(const void *accel)
{
    unsigned cpus = !strcmp(accel, "kvm") ? 2 : 1;
    g_autofree char *start = g_strdup_printf(" cpus=%u\n", cpus);
    g_autofree char *out = NULL;
    QTestState *s;

    if (skip_without(accel)) {
        return;
    }
    s = qtest_initf("-accel %s -smp %u -m 64M -serial stdio -kernel %s "
                    "-append 'size=2M report=100'", (char *)accel, cpus, qtest_guest("dirtier"));
    qtest_wait_stdout(s, start);
    qtest_wait_stdout(s, "dirtier: ready pages=512 ");
    for (;;) {
        g_free(out);
        out = qtest_stdout(s);
        if (reported_round(out) >= 2) {
            break;
        }
        qtest_wait_more_stdout(s, strlen(out));
    }
    assert_guest_is_well(s);
    qtest_quit(s);
}

/* After a reset the guest starts from the beginning. */
static void test_guest_reset(const void *accel)
{
    QTestState *s;
    g_autofree char *out = NULL;

    if (skip_without(accel)) {
        return;
    }
    s = qtest_initf("-accel %s -m 64M -serial stdio -kernel %s -append period=10", (char *)accel,
                    qtest_guest("ticker"));
    qtest_wait_stdout(s, "\ntick 2\n");
    qtest_qmp_assert_success(s, "{'execute': 'stop'}");
    qtest_qmp_assert_success(s, "{'execute': 'system_reset'}");
    qtest_qmp_eventwait(s, "RESET");
    qtest_qmp_assert_success(s, "{'execute': 'cont'}");
    for (;;) {
        const char *first, *again;

        g_free(out);
        out = qtest_stdout(s);
        first = strstr(out, "ticker: start");
        again = first ? strstr(first + 1, "ticker: start") : NULL;
        if (again && strstr(again, "\ntick 2\n")) {
            break;
        }
        qtest_wait_more_stdout(s, strlen(out));
    }
    assert_guest_is_well(s);
    qtest_quit(s);
}

/* The guest bootsect in a temporary file that is a disk. Caller unlinks and frees. */
static char *boot_disk(void)
{
    g_autofree char *dir = g_path_get_dirname(qtest_guest("dirtier"));
    g_autofree char *bin = g_build_filename(dir, "bootsect.bin", NULL);
    g_autofree char *contents = NULL;
    char *path;
    gsize size;
    int fd;

    g_assert_true(g_file_get_contents(bin, &contents, &size, NULL));
    g_assert_cmpuint(size, ==, 512);
    fd = g_file_open_tmp("ferry-boot-XXXXXX", &path, NULL);
    g_assert_cmpint(write(fd, contents, size), ==, size);
    close(fd);
    return path;
}

static QTestState *start_sector(const char *accel, const char *path, const char *more)
{
    return qtest_initf("-accel %s -m 16M -nodefaults -serial stdio -drive file=%s,format=raw %s",
                       accel, path, more);
}

/* From a real-mode start by way of 32-bit code into another process, counting all the while. */
static void test_boot_sector(const void *accel)
{
    g_autofree char *path = NULL, *uri = NULL, *out = NULL;
    QTestState *src, *dst;

    if (skip_without(accel)) {
        return;
    }
    path = boot_disk();
    uri = g_strdup_printf("unix:%s/sector", qtest_tmpdir());
    src = start_sector(accel, path, "");
    qtest_wait_stdout(src, "bootsect: real\nbootsect: protected\npass\n");
    dst = start_sector(accel, path, "-incoming defer");
    g_unlink(path);
    qtest_qmp_assert_success(dst, "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    qtest_qmp_assert_success(src, "{'execute': 'migrate-set-parameters', 'arguments': "
                             "{'max-bandwidth': 0, 'downtime-limit': 5000}}");
    qtest_qmp_assert_success(src, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    qtest_qmp_eventwait(dst, "RESUME");
    qtest_wait_stdout(dst, "pass\npass\npass\n");
    out = qtest_stdout(dst);
    g_assert_null(strstr(out, "CORRUPT"));
    g_assert_null(strstr(out, "bootsect"));
    qtest_quit(src);
    qtest_quit(dst);
}

/* Not refused: memory may be filled by other means before the machine starts. */
static void test_nothing_to_boot(void)
{
    QTestState *s = qtest_init("-accel kvm -accel tcg -S -nodefaults");
    g_autofree char *err = qtest_stderr(s);

    g_assert_nonnull(strstr(err, "warning: there is nothing to boot: "
                                 "neither -kernel nor -drive was given"));
    qtest_quit(s);
}

static void add_guest_tests(const char *accel)
{
    static const struct {
        const char *name;
        void (*fn)(const void *accel);
    } tests[] = {
        { "ticker", test_ticker },
        { "power-off", test_power_off },
        { "dirtier", test_dirtier },
        { "reset", test_guest_reset },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/boot/guest/%s/%s", tests[i].name, accel);

        qtest_add_data_func(path, accel, tests[i].fn);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/boot/printing", test_printing);
    qtest_add_func("/boot/refused", test_refused);
    qtest_add_func("/boot/run-states", test_run_states);
    qtest_add_func("/boot/reset", test_reset);
    qtest_add_func("/boot/quit", test_quit);
    qtest_add_func("/boot/signal", test_signal);
    qtest_add_func("/boot/debug-exit", test_debug_exit);
    qtest_add_func("/boot/many", test_many);
    qtest_add_data_func("/boot/boot-sector/kvm", "kvm", test_boot_sector);
    qtest_add_data_func("/boot/boot-sector/tcg", "tcg", test_boot_sector);
    if (qtest_has_accel("kvm") || qtest_has_accel("tcg")) {
        qtest_add_func("/boot/nothing-to-boot", test_nothing_to_boot);
    }
    add_guest_tests("kvm");
    add_guest_tests("tcg");
    return g_test_run();
}
