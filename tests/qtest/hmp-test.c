/*
 * The human monitor from the outside: every command can be typed, with and without sense; what is
 * printed has the customary layout; and "migrate" on a terminal waits without holding anybody else.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib/gstdio.h>
#include <string.h>

#include "tests/qtest/libqtest.h"
#include "tests/qtest/monitor-client.h"

static char *dir;

static void assert_hmp(QTestState *s, const char *line, const char *expect)
{
    g_autofree char *text = qtest_hmp(s, "%s", line);

    if (strcmp(text, expect)) {
        qtest_fail(s, "'%s' should print '%s', not '%s'", line, expect, text);
    }
}

static void assert_hmp_has(QTestState *s, const char *line, const char *expect)
{
    g_autofree char *text = qtest_hmp(s, "%s", line);

    if (!strstr(text, expect)) {
        qtest_fail(s, "'%s' should print '%s', not '%s'", line, expect, text);
    }
}

/* The commands that "help" or "help info" lists. */
static GPtrArray *listed(QTestState *s, const char *help)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *text = qtest_hmp(s, "%s", help);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **l = lines; *l; l++) {
        const char *name =
            g_str_has_prefix(*l, "info ") && !strcmp(help, "help info") ? *l + 5 : *l;

        if (**l && **l != '\t') {
            g_ptr_array_add(names, g_strndup(name, strcspn(name, " |")));
        }
    }
    return names;
}

static void test_every_command(void)
{
    static const char *const arguments[] = {
        "", " x", " 0", " 0 0", " -x", " /x 0", " \"", " 1/0", " on off", " / / /", " $rip",
        " 0xffffffffffffffff 0xffffffffffffffff", " ((((", " a b c d e f",
    };
    QTestState *s = qtest_init("-S -m 32");
    g_autoptr(GPtrArray) names = listed(s, "help"), infos = listed(s, "help info");

    g_assert_cmpuint(names->len, >, 20);
    g_assert_cmpuint(infos->len, >, 8);
    for (guint i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];
        g_autofree char *help = g_strdup_printf("help %s", name);

        assert_hmp_has(s, help, name);
        for (unsigned a = 0; a < G_N_ELEMENTS(arguments); a++) {
            if (strcmp(name, "quit")) {
                g_free(qtest_hmp(s, "%s%s", name, arguments[a]));
            }
        }
    }
    for (guint i = 0; i < infos->len; i++) {
        const char *name = infos->pdata[i];
        g_autofree char *help = g_strdup_printf("help info %s", name);

        assert_hmp_has(s, help, name);
        g_free(qtest_hmp(s, "info %s", name));
        g_free(qtest_hmp(s, "info %s x y z", name));
    }
    assert_hmp_has(s, "info status", "VM status: ");
    qtest_quit(s);
}

static void test_state(void)
{
    QTestState *s =
        qtest_init("-S -m 32 -name guest=me -uuid 01020304-0506-0708-090a-0b0c0d0e0f10");

    assert_hmp(s, "info status", "VM status: paused (prelaunch)\n");
    assert_hmp(s, "c", "");
    qtest_qmp_eventwait(s, "RESUME");
    assert_hmp(s, "info status", "VM status: running\n");
    assert_hmp(s, "stop", "");
    assert_hmp(s, "info status", "VM status: paused\n");
    assert_hmp(s, "info name", "me\n");
    assert_hmp(s, "info uuid", "01020304-0506-0708-090a-0b0c0d0e0f10\n");
    assert_hmp_has(s, "info cpus", "* CPU #0: thread_id=");
    assert_hmp_has(s, "info registers", "\nCPU#0\n");
    assert_hmp_has(s, "info mtree", "address-space: memory\n");
    assert_hmp(s, "cpu 1", "invalid CPU index\n");
    assert_hmp(s, "foo", "unknown command: 'foo'\n");
    assert_hmp(s, "system_reset now", "system_reset: extraneous characters at the end of line\n"
               "Try \"help system_reset\" for more information\n");
    assert_hmp(s, "closefd a", "Error: File descriptor named 'a' not found\n");
    qtest_quit(s);
}

static void test_memory(void)
{
    QTestState *s = qtest_init("-S -m 32");
    g_autofree char *file = g_build_filename(dir, "memory", NULL);
    g_autofree char *save = g_strdup_printf("pmemsave 0x1000 16 %s", file);
    g_autofree char *bad = g_strdup_printf("pmemsave 0x1000 16 \"%s/no/such\"", dir);
    g_autofree char *content = NULL;
    gsize size;

    qtest_memwrite(s, 0x1000, "ABC\n\x80\xff\x00\x01hello\'\\w", 16);
    assert_hmp(s, "xp /4xw 0x1000",
               "0000000000001000: 0x0a434241 0x0100ff80 0x6c6c6568 0x775c276f\n");
    assert_hmp(s, "xp/4xb 0x1000", "0000000000001000: 0x41 0x42 0x43 0x0a\n");
    assert_hmp(s, "xp/2dh 0x1004", "0000000000001004:  -128   256\n");
    assert_hmp(s, "xp/1ug 0x1000", "0000000000001000:    72338519431004737\n");
    assert_hmp(s, "xp/5ob 0x1000", "0000000000001000: 0101 0102 0103 012 0200\n");
    assert_hmp(s, "xp/16c 0x1000",
               "0000000000001000: 'A' 'B' 'C' '\\n' '\\x80' '\\xff' '\\x00' '\\x01'\n"
               "0000000000001008: 'h' 'e' 'l' 'l' 'o' '\\'' '\\\\' 'w'\n");
    /* The format stays. */
    assert_hmp(s, "xp/1xh 0x1000", "0000000000001000: 0x4241\n");
    assert_hmp(s, "xp 0x1000", "0000000000001000: 0x4241\n");
    assert_hmp(s, "xp/2xw 0x20000000", "0000000020000000: Cannot access memory\n");
    assert_hmp(s, "xp/1i 0x1000", "Format 'i' is not supported: there is no disassembler\n");
    assert_hmp(s, "xp/10000000xb 0", "Too much memory for one command: at most 1048576 bytes\n");
    assert_hmp(s, "sum 0x1000 3", "16500\n");
    assert_hmp(s, "p/x 0x1000 + 4*2", "0x1008\n");
    assert_hmp(s, save, "");
    g_assert_true(g_file_get_contents(file, &content, &size, NULL));
    g_assert_cmpmem(content, size, "ABC\n\x80\xff\x00\x01hello\'\\w", 16);
    assert_hmp_has(s, bad, "Error: ");
    g_unlink(file);

    /* The RTC's index port reads back as all ones where nothing is. */
    assert_hmp(s, "i /b 0x1234", "portb[0x1234] = 0xff\n");
    assert_hmp(s, "i /h 0x1234", "portw[0x1234] = 0xffff\n");
    assert_hmp(s, "i /w 0x1234", "portl[0x1234] = 0xffffffff\n");
    qtest_quit(s);
}

static void test_migration_settings(void)
{
    QTestState *s = qtest_init("-S -m 32");

    assert_hmp(s, "info migrate", "");
    assert_hmp_has(s, "info migrate_capabilities", "events: off\n");
    assert_hmp(s, "migrate_set_capability events on", "");
    assert_hmp_has(s, "info migrate_capabilities", "events: on\n");
    assert_hmp(s, "migrate_set_capability events maybe", "Expected 'on' or 'off'\n"
               "Try \"help migrate_set_capability\" for more information\n");
    assert_hmp(s, "migrate_set_capability warp on", "Error: invalid parameter value: warp\n");
    assert_hmp(s, "migrate_set_parameter max-bandwidth 10", "");
    assert_hmp_has(s, "info migrate_parameters", "max-bandwidth: 10485760 bytes/second\n");
    assert_hmp(s, "migrate_set_parameter max-bandwidth 1G", "");
    assert_hmp_has(s, "info migrate_parameters", "max-bandwidth: 1073741824 bytes/second\n");
    assert_hmp(s, "migrate_set_parameter downtime-limit 77", "");
    assert_hmp_has(s, "info migrate_parameters", "downtime-limit: 77 ms\n");
    assert_hmp_has(s, "migrate_set_parameter warp 9", "Error: ");
    assert_hmp_has(s, "migrate_set_parameter downtime-limit soon", "Error: ");
    assert_hmp_has(s, "migrate_pause", "Error: ");
    assert_hmp_has(s, "migrate nonsense:", "Error: ");
    assert_hmp_has(s, "migrate_continue warp", "Error: invalid parameter value: warp\n");
    assert_hmp(s, "migrate_cancel", "");
    qtest_quit(s);
}

/* ---- a terminal ---- */

static QTestState *start_with_terminal(MonitorClient **c)
{
    g_autofree char *socket = g_build_filename(dir, "hmp", NULL);
    QTestState *s = qtest_initf("-m 32 -monitor unix:%s,server=on,wait=off", socket);
    g_autofree char *banner = NULL;

    *c = monitor_client_new(socket);
    banner = monitor_client_hear(*c, "(qemu) ");
    g_assert_true(g_str_has_prefix(banner, "Ferry "));
    return s;
}

static void test_terminal(void)
{
    MonitorClient *c;
    QTestState *s = start_with_terminal(&c);
    g_autofree char *status = monitor_client_hmp(c, "info status"), *history = NULL;

    g_assert_cmpstr(status, ==, "VM status: running\r\n");
    history = monitor_client_hmp(c, "info history");
    g_assert_cmpstr(history, ==, "0: 'info status'\r\n1: 'info history'\r\n");
    monitor_client_say(c, "migrate_set_cap\tpause\t");
    g_free(monitor_client_hear(c, "pause-before-switchover "));
    monitor_client_say(c, "\025info  version\r");
    g_free(monitor_client_hear(c, "Ferry "));
    g_free(monitor_client_hear(c, "(qemu) "));
    /* The end of the machine begins with its last prompt. */
    monitor_client_say(c, "quit\r");
    monitor_client_wait_eof(c);
    monitor_client_free(c);
    g_assert_cmpint(qtest_wait_exit(s), ==, 0);
    qtest_quit(s);
}

/* A migration that stays before its switchover: the terminal waits, QMP does not. */
static void test_migrate_waits(void)
{
    MonitorClient *c;
    QTestState *s = start_with_terminal(&c);
    g_autofree char *end = NULL, *info = NULL, *socket = g_build_filename(dir, "hmp", NULL);
    struct json_object *migration;

    qtest_qmp_assert_success(s, "{'execute': 'migrate-set-parameters', 'arguments': "
                             "{'max-bandwidth': 4096}}");
    qtest_memset(s, 0, 0x11, 16 << 20);
    monitor_client_say(c, "migrate \"exec:cat > /dev/null\"\r");
    g_free(monitor_client_hear(c, "Completed "));
    migration = qtest_qmp_assert_success_ref(s, "{'execute': 'query-migrate'}");
    g_assert_cmpstr(qtest_get_str(migration, "status"), ==, "active");
    json_object_put(migration);
    g_assert_null(strstr(c->in->str, "(qemu) "));
    qtest_qmp_assert_success(s, "{'execute': 'migrate_cancel'}");
    end = monitor_client_hear(c, "(qemu) ");
    g_assert_nonnull(strstr(end, "Migration status: cancelled\r\n(qemu) "));

    /* A client that leaves while it waits: the next has its prompt. */
    monitor_client_say(c, "migrate \"exec:cat > /dev/null\"\r");
    g_free(monitor_client_hear(c, "Completed "));
    monitor_client_free(c);
    c = monitor_client_new(socket);
    g_free(monitor_client_hear(c, "(qemu) "));
    g_free(monitor_client_hmp(c, "migrate_cancel"));
    monitor_client_free(c);
    qtest_quit(s);
}

static void test_migrate_completes(void)
{
    MonitorClient *c;
    QTestState *s = start_with_terminal(&c);
    g_autofree char *text = monitor_client_hmp(c, "migrate \"exec:cat > /dev/null\"");
    g_autofree char *status = monitor_client_hmp(c, "info status"), *info = NULL, *failed = NULL;

    g_assert_null(strstr(text, "Error"));
    g_assert_cmpstr(status, ==, "VM status: paused (postmigrate)\r\n");
    info = monitor_client_hmp(c, "info migrate");
    g_assert_true(g_str_has_prefix(info, "Migration status: completed\r\ntotal time: "));
    g_assert_nonnull(strstr(info, "\r\ntotal ram: 32768 kbytes\r\n"));
    g_assert_nonnull(strstr(info, "\r\npage size: 4 kbytes\r\n"));
    g_free(monitor_client_hmp(c, "cont"));
    failed = monitor_client_hmp(c, "migrate unix:/nonexistent/socket");
    g_assert_nonnull(strstr(failed, "Error: "));
    if (!strstr(failed, "/nonexistent/socket")) {
        qtest_fail(s, "no reason in: %s", failed);
    }
    monitor_client_free(c);
    qtest_quit(s);
}

int main(int argc, char **argv)
{
    int result;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("ferry-hmp-test-XXXXXX", NULL);
    qtest_add_func("/hmp/every-command", test_every_command);
    qtest_add_func("/hmp/state", test_state);
    qtest_add_func("/hmp/memory", test_memory);
    qtest_add_func("/hmp/migration-settings", test_migration_settings);
    qtest_add_func("/hmp/terminal", test_terminal);
    qtest_add_func("/hmp/migrate-waits", test_migrate_waits);
    qtest_add_func("/hmp/migrate-completes", test_migrate_completes);
    result = g_test_run();
    g_rmdir(dir);
    g_free(dir);
    return result;
}
