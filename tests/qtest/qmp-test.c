/*
 * QMP from the outside: sessions, the schema's promises, descriptors, and clients that mean no
 * good. The machine must not notice any of them: its memory holds what it held, and its first
 * monitor answers.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/qtest/libqtest.h"
#include "tests/qtest/monitor-client.h"

#define PATTERN_ADDR 0x100000
#define PATTERN_BYTES 65536

static char *dir;

static char *path(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

/* A machine with a second QMP monitor at the socket "q" of the directory. */
static QTestState *start(void)
{
    QTestState *s = qtest_initf("-m 32 -qmp unix:%s/q,server=on,wait=off", dir);

    qtest_memset(s, PATTERN_ADDR, 0x5a, PATTERN_BYTES);
    return s;
}

static MonitorClient *connect_raw(void)
{
    g_autofree char *q = path("q");

    return monitor_client_new(q);
}

static MonitorClient *connect_qmp(void)
{
    MonitorClient *c = connect_raw();
    g_autofree char *greeting = monitor_client_hear(c, "\r\n");
    g_autofree char *answer = NULL;

    g_assert_true(g_str_has_prefix(greeting, "{\"QMP\": "));
    monitor_client_say(c, "{\"execute\": \"qmp_capabilities\"}");
    answer = monitor_client_hear(c, "\r\n");
    g_assert_cmpstr(answer, ==, "{\"return\": {}}\r\n");
    return c;
}

/* The answer to @request without its end. */
static char *ask(MonitorClient *c, const char *request)
{
    char *answer;

    monitor_client_say(c, request);
    answer = monitor_client_hear(c, "\r\n");
    answer[strlen(answer) - 2] = '\0';
    return answer;
}

static void assert_answer(MonitorClient *c, const char *request, const char *expect)
{
    g_autofree char *answer = ask(c, request);

    g_assert_cmpstr(answer, ==, expect);
}

/* Nothing has happened to the machine, and it still answers everybody. */
static void assert_unharmed(QTestState *s)
{
    g_autofree uint8_t *memory = g_malloc(PATTERN_BYTES);
    struct json_object *status = qtest_qmp_assert_success_ref(s, "{'execute': 'query-status'}");
    MonitorClient *c = connect_qmp();

    g_assert_true(qtest_get_bool(status, "running"));
    json_object_put(status);
    qtest_memread(s, PATTERN_ADDR, memory, PATTERN_BYTES);
    for (unsigned i = 0; i < PATTERN_BYTES; i++) {
        g_assert_cmpuint(memory[i], ==, 0x5a);
    }
    assert_answer(c, "{'execute': 'no-such'}", "{\"error\": {\"class\": \"CommandNotFound\", "
                  "\"desc\": \"The command no-such has not been found\"}}");
    monitor_client_free(c);
}

/* The most memory that the machine had, or has, in KiB. */
static long memory_kib(QTestState *s, const char *field)
{
    g_autofree char *file = g_strdup_printf("/proc/%d/status", qtest_pid(s));
    g_autofree char *text = NULL;
    char *at;

    g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
    at = strstr(text, field);
    g_assert_nonnull(at);
    return atol(at + strlen(field));
}

/* Whether memory is measured: an instrumented program has much of its own. */
static bool memory_counts(QTestState *s)
{
    g_autofree char *file = g_strdup_printf("/proc/%d/maps", qtest_pid(s));
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
    return !strstr(text, "libasan");
}

/* ---- sessions ---- */

static void test_greeting(void)
{
    QTestState *s = start();
    MonitorClient *c = connect_raw();
    g_autofree char *greeting = monitor_client_hear(c, "\r\n");
    struct json_object *obj = json_tokener_parse(greeting);

    g_assert_cmpint(qtest_get_int(obj, "QMP.version.qemu.major"), >=, 9);
    g_assert_true(g_str_has_prefix(qtest_get_str(obj, "QMP.version.package"), "Ferry "));
    g_assert_cmpint(json_object_array_length(qtest_get(obj, "QMP.capabilities")), ==, 0);
    json_object_put(obj);
    assert_answer(c, "{'execute': 'query-status'}", "{\"error\": {\"class\": \"CommandNotFound\", "
                  "\"desc\": \"Expecting capabilities negotiation with 'qmp_capabilities'\"}}");
    monitor_client_free(c);
    qtest_quit(s);
}

static void test_two_monitors(void)
{
    QTestState *s = start();
    MonitorClient *c = connect_qmp();
    g_autofree char *event = NULL;

    qtest_qmp_assert_success(s, "{'execute': 'stop'}");
    event = monitor_client_hear(c, "\r\n");
    g_assert_nonnull(strstr(event, "\"event\": \"STOP\""));
    qtest_qmp_eventwait(s, "STOP");

    /* The event of a command stands before its reply. */
    g_free(event);
    event = ask(c, "{'execute': 'cont', 'id': 'x'}");
    g_assert_nonnull(strstr(event, "\"event\": \"RESUME\""));
    g_free(event);
    event = monitor_client_hear(c, "\r\n");
    g_assert_cmpstr(event, ==, "{\"return\": {}, \"id\": \"x\"}\r\n");
    qtest_qmp_eventwait(s, "RESUME");

    monitor_client_free(c);
    assert_unharmed(s);
    qtest_quit(s);
}

/* ---- what the schema promises ---- */

static bool in_schema(struct json_object *schema, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(schema); i++) {
        struct json_object *entity = json_object_array_get_idx(schema, i);

        if (!strcmp(qtest_get_str(entity, "meta-type"), "command") &&
            !strcmp(qtest_get_str(entity, "name"), name)) {
            return true;
        }
    }
    return false;
}

static void test_schema(void)
{
    QTestState *s = start();
    struct json_object *schema = qtest_qmp_assert_success_ref(s, "{'execute': 'query-qmp-schema'}");
    struct json_object *commands = qtest_qmp_assert_success_ref(s, "{'execute': 'query-commands'}");

    g_assert_cmpint(json_object_array_length(commands), >, 20);
    for (size_t i = 0; i < json_object_array_length(commands); i++) {
        const char *name = qtest_get_str(json_object_array_get_idx(commands, i), "name");

        if (!in_schema(schema, name)) {
            qtest_fail(s, "command %s is not in the schema", name);
        }
    }
    json_object_put(schema);
    json_object_put(commands);
    qtest_quit(s);
}

/* Every query can be asked, without arguments and with wrong ones. */
static void test_queries(void)
{
    QTestState *s = start();
    struct json_object *commands = qtest_qmp_assert_success_ref(s, "{'execute': 'query-commands'}");

    for (size_t i = 0; i < json_object_array_length(commands); i++) {
        const char *name = qtest_get_str(json_object_array_get_idx(commands, i), "name");
        struct json_object *error;

        if (strcmp(name, "quit") && strcmp(name, "device_add")) {
            error = qtest_qmp_assert_failure_ref(s, "{'execute': %s, 'arguments': {'crash': 1}}",
                                                 name);
            g_assert_cmpstr(qtest_get_str(error, "class"), ==, "GenericError");
            json_object_put(error);
        }
        if (g_str_has_prefix(name, "query-")) {
            qtest_qmp_assert_success(s, "{'execute': %s}", name);
        }
    }
    json_object_put(commands);
    assert_unharmed(s);
    qtest_quit(s);
}

static void test_wrong_arguments(void)
{
    QTestState *s = start();

    qtest_qmp_assert_error(s, "Parameter 'fdname' is missing", "{'execute': 'closefd'}");
    qtest_qmp_assert_error(s, "Invalid parameter type for 'fdname', expected: string",
                           "{'execute': 'closefd', 'arguments': {'fdname': 1}}");
    qtest_qmp_assert_error(s, "Parameter 'x' is unexpected",
                           "{'execute': 'closefd', 'arguments': {'fdname': 'a', 'x': 1}}");
    qtest_qmp_assert_error(s, "QMP input member 'arguments' must be an object",
                           "{'execute': 'closefd', 'arguments': []}");
    qtest_qmp_assert_error(s, "QMP input member 'foo' is unexpected",
                           "{'execute': 'closefd', 'foo': 1}");
    qtest_quit(s);
}

/* ---- file descriptors ---- */

static void test_fd_by_name(void)
{
    QTestState *s = start();
    int fds[2];
    char magic[4];

    g_assert_cmpint(pipe(fds), ==, 0);
    qtest_qmp_fds_assert_success(s, &fds[1], 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}");
    close(fds[1]);
    /* What comes out of the pipe is the machine. */
    qtest_qmp_assert_success(s, "{'execute': 'migrate', 'arguments': {'uri': 'fd:a'}}");
    for (size_t got = 0; got < sizeof(magic);) {
        ssize_t n = read(fds[0], magic + got, sizeof(magic) - got);
        g_assert_cmpint(n, >, 0);
        got += n;
    }
    g_assert_cmpmem(magic, 4, "QEVM", 4);
    qtest_qmp_assert_success(s, "{'execute': 'migrate_cancel'}");
    close(fds[0]);
    /* It was taken. */
    qtest_qmp_assert_error(s, "File descriptor named 'a' not found",
                           "{'execute': 'closefd', 'arguments': {'fdname': 'a'}}");
    qtest_qmp_assert_error(s, "No file descriptor supplied via SCM_RIGHTS",
                           "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}");
    qtest_quit(s);
}

static void test_fdset(void)
{
    QTestState *s = start();
    g_autofree char *file = path("fdset");
    struct json_object *info, *sets, *error;
    int fd = open(file, O_CREAT | O_RDONLY | O_CLOEXEC, 0600);

    info = qtest_qmp_fds(s, &fd, 1,
                         "{'execute': 'add-fd', 'arguments': {'fdset-id': 7, 'opaque': 'r'}}");
    g_assert_cmpint(qtest_get_int(info, "return.fdset-id"), ==, 7);
    close(fd);
    sets = qtest_qmp_assert_success_ref(s, "{'execute': 'query-fdsets'}");
    g_assert_cmpint(json_object_array_length(sets), ==, 1);
    g_assert_cmpint(qtest_get_int(sets, "0.fdset-id"), ==, 7);
    g_assert_cmpint(qtest_get_int(sets, "0.fds.0.fd"), ==, qtest_get_int(info, "return.fd"));
    g_assert_cmpstr(qtest_get_str(sets, "0.fds.0.opaque"), ==, "r");
    json_object_put(info);
    json_object_put(sets);

    /* It cannot be written to, and the reason says what would be needed. */
    error = qtest_qmp_assert_failure_ref(s, "{'execute': 'migrate', 'arguments': "
                                         "{'uri': 'file:/dev/fdset/7'}}");
    g_assert_nonnull(strstr(qtest_get_str(error, "desc"),
                            "fdset 7 has no write-only file descriptor without O_DIRECT"));
    json_object_put(error);

    qtest_qmp_assert_success(s, "{'execute': 'remove-fd', 'arguments': {'fdset-id': 7}}");
    sets = qtest_qmp_assert_success_ref(s, "{'execute': 'query-fdsets'}");
    g_assert_cmpint(json_object_array_length(sets), ==, 0);
    json_object_put(sets);
    qtest_quit(s);
    g_unlink(file);
}

/* ---- clients that mean no good ---- */

static void test_recovery(void)
{
    static const char *const bad[] = {
        "{]", "[}", "}", "{\"execute\": }", "{\"execute\" \"x\"}", "{'execute': 'no-such'",
        "nonsense", "\"\\ud800\"", "\"\xc3\x28\"", "{\"a\": 1, \"a\": 2}", "GET / HTTP/1.0\r\n\r\n",
        "01", "1.e5", "-", "\x01\x02\x03", "{\"execute\": \"\xff\"}", "[1,]", "\xef\xbb\xbf{}",
    };
    QTestState *s = start();
    MonitorClient *c = connect_qmp();

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        monitor_client_say(c, bad[i]);
        /* The byte that makes a parser start afresh, as clients send it when they lost track. */
        monitor_client_say(c, "\xff\n{'execute': 'no-such', 'id': 'recovered'}");
        g_free(monitor_client_hear(c, "\"id\": \"recovered\"}\r\n"));
    }
    monitor_client_free(c);
    assert_unharmed(s);
    qtest_quit(s);
}

static void test_garbage(void)
{
    QTestState *s = start();
    g_autoptr(GRand) rand = g_rand_new_with_seed(42);
    g_autofree char *junk = g_malloc(65536);

    for (int round = 0; round < 20; round++) {
        MonitorClient *c = connect_raw();

        for (int i = 0; i < 65536; i++) {
            junk[i] = (char)g_rand_int(rand);
        }
        /* It does not read the answers, so the rest of it may not be taken. */
        g_assert_cmpint(monitor_client_try_send(c, junk, 65536), >, 0);
        monitor_client_free(c);
    }
    assert_unharmed(s);
    qtest_quit(s);
}

static void test_nesting(void)
{
    QTestState *s = start();
    MonitorClient *c = connect_qmp();
    g_autofree char *deep = g_strnfill(100000, '[');

    monitor_client_say(c, "{'execute': 'stop', 'id': ");
    monitor_client_say(c, deep);
    assert_answer(c, "\n", "{\"error\": {\"class\": \"GenericError\", "
                  "\"desc\": \"JSON nesting depth limit exceeded\"}}");
    monitor_client_free(c);
    assert_unharmed(s);
    qtest_quit(s);
}

/* A gibibyte in one message: an error, and the machine does not grow by it. */
static void long_message(const char *begin, const char *repeat, const char *desc)
{
    QTestState *s = start();
    MonitorClient *c = connect_qmp();
    g_autoptr(GString) chunk = g_string_new(NULL);
    g_autofree char *answer = NULL, *expect = NULL;
    long before = memory_kib(s, "VmRSS:");

    while (chunk->len < (1 << 20)) {
        g_string_append(chunk, repeat);
    }
    monitor_client_say(c, begin);
    for (uint64_t sent = 0; sent < (1ULL << 30); sent += chunk->len) {
        g_assert_true(monitor_client_send(c, chunk->str, chunk->len));
    }
    answer = ask(c, "\n");
    expect = g_strdup_printf("{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}}", desc);
    g_assert_cmpstr(answer, ==, expect);
    monitor_client_free(c);
    if (memory_counts(s)) {
        g_assert_cmpint(memory_kib(s, "VmHWM:") - before, <, 400 * 1024);
    }
    assert_unharmed(s);
    qtest_quit(s);
}

static void test_long_string(void)
{
    long_message("{\"execute\": \"", "aaaaaaaaaaaaaaaa", "JSON token size limit exceeded");
}

static void test_long_list(void)
{
    long_message("{\"execute\": \"stop\", \"id\": [1", ",{}", "JSON message size limit exceeded");
}

static void test_never_reads(void)
{
    QTestState *s = start();
    MonitorClient *c = connect_qmp();
    long before = memory_kib(s, "VmRSS:");
    static const char request[] = "{'execute': 'query-qmp-schema'}";
    unsigned refused = 0;
    uint64_t sent = 0;

    /*
     * Until nothing more is taken; the other monitor's answers show that the machine had its turn.
     */
    while (refused < 20) {
        ssize_t n = monitor_client_try_send(c, request, strlen(request));

        g_assert_cmpint(n, >=, 0);
        sent += n;
        if (n < (ssize_t)strlen(request)) {
            refused++;
            qtest_qmp_assert_success(s, "{'execute': 'query-version'}");
        }
        g_assert_cmpuint(sent, <, 64 << 20);
    }
    if (memory_counts(s)) {
        g_assert_cmpint(memory_kib(s, "VmHWM:") - before, <, 64 * 1024);
    }
    monitor_client_free(c);
    assert_unharmed(s);
    qtest_quit(s);
}

static void test_disconnect(void)
{
    static const char message[] = "{\"execute\": \"query-version\", \"id\": [1, \"\\u00e4\"]}";
    QTestState *s = start();

    for (size_t n = 1; n < sizeof(message); n++) {
        MonitorClient *c = connect_qmp();

        g_assert_true(monitor_client_send(c, message, n));
        monitor_client_free(c);
    }
    assert_unharmed(s);
    qtest_quit(s);
}

/* Descriptors that come with commands that do not want any do not pile up. */
static unsigned count_fds(QTestState *s)
{
    g_autofree char *name = g_strdup_printf("/proc/%d/fd", qtest_pid(s));
    GDir *d = g_dir_open(name, 0, NULL);
    unsigned n = 0;

    g_assert_nonnull(d);
    while (g_dir_read_name(d)) {
        n++;
    }
    g_dir_close(d);
    return n;
}

static void test_unwanted_fds(void)
{
    QTestState *s = start();
    int fds[16];
    unsigned before = count_fds(s);

    for (int i = 0; i < 16; i++) {
        fds[i] = STDERR_FILENO;
    }
    for (int i = 0; i < 100; i++) {
        json_object_put(qtest_qmp_fds(s, fds, 16, "{'execute': 'query-version'}"));
    }
    qtest_qmp_assert_success(s, "{'execute': 'query-version'}");
    g_assert_cmpuint(count_fds(s), <=, before + 16);
    assert_unharmed(s);
    qtest_quit(s);
}

/* ---- options ---- */

static void test_options(void)
{
    static const struct {
        const char *args, *text;
    } cases[] = {
        { "-mon chardev=nothing", "-mon chardev=nothing: chardev \"nothing\" not found" },
        { "-chardev null,id=n -mon n,mode=readline,pretty=on",
          "'pretty' is not compatible with HMP monitors" },
        { "-chardev null,id=n -mon n,mode=telepathy", "mode" },
        { "-chardev null,id=n -mon n,colour=red", "colour" },
        { "-qmp unix:/nonexistent/dir/socket,server=on,wait=off", "/nonexistent/dir/socket" },
        { "-add-fd fd=199,set=1", "fd is not valid or already in use" },
        { "-add-fd fd=1,set=1", "fd cannot be a standard I/O stream" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *args = g_strdup_printf("-accel qtest -display none -S %s", cases[i].args);
        g_autofree char *err = NULL;
        int status = qtest_run(args, NULL, &err);

        if (status != 1 || !strstr(err, cases[i].text)) {
            qtest_fail(NULL, "'%s' should end with 1 and '%s', not with %d and: %s", cases[i].args,
                       cases[i].text, status, err);
        }
    }
}

int main(int argc, char **argv)
{
    int result;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("ferry-qmp-test-XXXXXX", NULL);
    qtest_add_func("/qmp/greeting", test_greeting);
    qtest_add_func("/qmp/two-monitors", test_two_monitors);
    qtest_add_func("/qmp/schema", test_schema);
    qtest_add_func("/qmp/queries", test_queries);
    qtest_add_func("/qmp/wrong-arguments", test_wrong_arguments);
    qtest_add_func("/qmp/fd/name", test_fd_by_name);
    qtest_add_func("/qmp/fd/set", test_fdset);
    qtest_add_func("/qmp/fd/unwanted", test_unwanted_fds);
    qtest_add_func("/qmp/hostile/recovery", test_recovery);
    qtest_add_func("/qmp/hostile/garbage", test_garbage);
    qtest_add_func("/qmp/hostile/nesting", test_nesting);
    qtest_add_func("/qmp/hostile/long-string", test_long_string);
    qtest_add_func("/qmp/hostile/long-list", test_long_list);
    qtest_add_func("/qmp/hostile/never-reads", test_never_reads);
    qtest_add_func("/qmp/hostile/disconnect", test_disconnect);
    qtest_add_func("/qmp/options", test_options);
    result = g_test_run();
    g_rmdir(dir);
    g_free(dir);
    return result;
}
