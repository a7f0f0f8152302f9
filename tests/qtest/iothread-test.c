/*
 * IOThreads as objects: made on the command line and over QMP, listed, refused.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>

#include "tests/qtest/libqtest.h"

static void assert_refused(const char *args, const char *text)
{
    g_autofree char *line = g_strdup_printf("-accel qtest -nodefaults -display none %s", args);
    g_autofree char *err = NULL;
    int code = qtest_run(line, NULL, &err);

    if (code != 1 || !strstr(err, text)) {
        qtest_fail(NULL, "'%s' should end with 1 and '%s', not with %d and: %s", args, text, code,
                   err);
    }
}

/* The thread is there under its number, with the object's name. */
static void assert_thread(QTestState *s, int64_t tid, const char *name)
{
    g_autofree char *path =
        g_strdup_printf("/proc/%d/task/%" PRId64 "/comm", (int)qtest_pid(s), tid);
    g_autofree char *comm = NULL;

    g_assert_true(g_file_get_contents(path, &comm, NULL, NULL));
    g_assert_cmpstr(g_strchomp(comm), ==, name);
}

static void test_command_line(void)
{
    QTestState *s = qtest_init("-object iothread,id=io0 -object iothread,id=disk.1,poll-max-ns=0,"
                               "poll-grow=3,poll-shrink=4,aio-max-batch=5");
    struct json_object *list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-iothreads'}");
    g_autofree char *hmp = qtest_hmp(s, "info iothreads"), *want = NULL;

    g_assert_cmpstr(qtest_get_str(list, "0.id"), ==, "io0");
    g_assert_cmpint(qtest_get_int(list, "0.poll-max-ns"), ==, 32768);
    g_assert_cmpint(qtest_get_int(list, "0.poll-grow"), ==, 0);
    g_assert_cmpint(qtest_get_int(list, "0.poll-shrink"), ==, 0);
    g_assert_cmpint(qtest_get_int(list, "0.aio-max-batch"), ==, 0);
    assert_thread(s, qtest_get_int(list, "0.thread-id"), "IO io0");
    g_assert_cmpstr(qtest_get_str(list, "1.id"), ==, "disk.1");
    g_assert_cmpint(qtest_get_int(list, "1.poll-max-ns"), ==, 0);
    g_assert_cmpint(qtest_get_int(list, "1.poll-grow"), ==, 3);
    g_assert_cmpint(qtest_get_int(list, "1.poll-shrink"), ==, 4);
    g_assert_cmpint(qtest_get_int(list, "1.aio-max-batch"), ==, 5);
    assert_thread(s, qtest_get_int(list, "1.thread-id"), "IO disk.1");
    g_assert_false(qtest_has(list, "2"));

    want = g_strdup_printf("io0:\n  thread_id=%" PRId64 "\n  poll-max-ns=32768\n"
                           "  poll-grow=0\n  poll-shrink=0\n  aio-max-batch=0\n"
                           "disk.1:\n  thread_id=%" PRId64 "\n  poll-max-ns=0\n"
                           "  poll-grow=3\n  poll-shrink=4\n  aio-max-batch=5\n",
                           qtest_get_int(list, "0.thread-id"), qtest_get_int(list, "1.thread-id"));
    g_assert_cmpstr(hmp, ==, want);
    json_object_put(list);
    qtest_quit(s);
}

static void test_over_qmp(void)
{
    QTestState *s = qtest_init("");
    struct json_object *list;

    for (int i = 0; i < 20; i++) {
        qtest_qmp_assert_success(s,
                                 "{'execute': 'object-add', 'arguments': {'qom-type': 'iothread', "
                                 "'id': 'io', 'poll-max-ns': %d}}",
                                 i * 1000);
        list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-iothreads'}");
        g_assert_cmpint(qtest_get_int(list, "0.poll-max-ns"), ==, i * 1000);
        g_assert_false(qtest_has(list, "1"));
        json_object_put(list);
        qtest_qmp_assert_error(s, "There is an object 'io' already",
                               "{'execute': 'object-add', 'arguments': {'qom-type': 'iothread', "
                               "'id': 'io'}}");
        qtest_qmp_assert_success(s, "{'execute': 'object-del', 'arguments': {'id': 'io'}}");
        list = qtest_qmp_assert_success_ref(s, "{'execute': 'query-iothreads'}");
        g_assert_false(qtest_has(list, "0"));
        json_object_put(list);
    }
    qtest_qmp_assert_error(s, "poll-max-ns value must be in range [0, 9223372036854775807]",
                           "{'execute': 'object-add', 'arguments': {'qom-type': 'iothread', "
                           "'id': 'io', 'poll-max-ns': -1}}");
    qtest_qmp_assert_error(s, "aio-max-batch value must be in range [0, 2147483647]",
                           "{'execute': 'object-add', 'arguments': {'qom-type': 'iothread', "
                           "'id': 'io', 'aio-max-batch': 2147483648}}");
    qtest_quit(s);
}

static void test_refused(void)
{
    assert_refused("-object iothread", "Parameter 'id' is missing");
    assert_refused("-object iothread,id=a -object iothread,id=a", "There is an object 'a' already");
    assert_refused("-object iothread,id=a,poll-shrink=-2",
                   "poll-shrink value must be in range [0, 2147483647]");
    /* The pool of threads is one for the program: what QEMU can set here is not there. */
    assert_refused("-object iothread,id=a,thread-pool-max=3",
                   "Parameter 'thread-pool-max' is unexpected");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/iothread/command-line", test_command_line);
    qtest_add_func("/iothread/over-qmp", test_over_qmp);
    qtest_add_func("/iothread/refused", test_refused);
    return g_test_run();
}
