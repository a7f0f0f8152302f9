/*
 * Monitors over real sockets, in one process: the test is the client, and turns the main loop while
 * it waits for lines.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "chardev/char.h"
#include "monitor/monitor.h"
#include "monitor/monitor-internal.h"
#include "qapi/qapi-events-run-state.h"
#include "system/bql.h"
#include "system/main-loop.h"

#define DEADLINE_US (30 * G_USEC_PER_SEC)

static char *dir;

typedef struct Client {
    int fd;
    GString *in;
    bool eof;
} Client;

static char *socket_path(const char *id)
{
    return g_strdup_printf("%s/%s", dir, id);
}

/* A monitor on a listening socket that is named like it. */
static void make_monitor(const char *id, const char *mode)
{
    g_autofree char *chardev =
        g_strdup_printf("socket,id=%s,path=%s/%s,server=on,wait=off", id, dir, id);
    g_autofree char *mon = g_strdup_printf("chardev=%s,%s", id, mode);

    chardev_new_from_opts(chardev, &error_abort);
    g_assert_true(monitor_init_opts(mon, &error_abort));
}

static Client *client_connect(const char *id)
{
    Client *c = g_new0(Client, 1);
    g_autofree char *path = socket_path(id);
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(c->fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_cmpint(fcntl(c->fd, F_SETFL, O_NONBLOCK), ==, 0);
    c->in = g_string_new(NULL);
    return c;
}

static void client_close(Client *c)
{
    close(c->fd);
    g_string_free(c->in, TRUE);
    g_free(c);
    while (g_main_context_pending(NULL)) {
        main_loop_iterate(false);
    }
}

static void turn(void)
{
    main_loop_iterate(false);
    g_usleep(100);
}

static bool client_read(Client *c)
{
    char buf[65536];
    ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

    if (n > 0) {
        g_string_append_len(c->in, buf, n);
    }
    c->eof |= n == 0 || (n < 0 && errno != EAGAIN);
    return n > 0;
}

/* Send all of it, with the loop turning; false when the other side closed. */
static bool client_send(Client *c, const char *data, size_t size)
{
    gint64 deadline = g_get_monotonic_time() + DEADLINE_US;

    while (size > 0) {
        ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN) {
            return false;
        }
        if (n > 0) {
            data += n;
            size -= n;
            deadline = g_get_monotonic_time() + DEADLINE_US;
        }
        main_loop_iterate(false);
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    return true;
}

static void say(Client *c, const char *text)
{
    g_assert_true(client_send(c, text, strlen(text)));
}

/* Up to and with @until; the caller frees. */
static char *hear_until(Client *c, const char *until)
{
    gint64 deadline = g_get_monotonic_time() + DEADLINE_US;
    char *at, *text;

    while (!(at = strstr(c->in->str, until))) {
        if (!client_read(c)) {
            turn();
        }
        if (g_get_monotonic_time() >= deadline || c->eof) {
            g_error("waited for '%s', got '%s'%s", until, c->in->str, c->eof ? " (closed)" : "");
        }
    }
    at += strlen(until);
    text = g_strndup(c->in->str, at - c->in->str);
    g_string_erase(c->in, 0, at - c->in->str);
    return text;
}

static void hear(Client *c, const char *expect)
{
    g_autofree char *line = hear_until(c, "\r\n");

    line[strlen(line) - 2] = '\0';
    g_assert_cmpstr(line, ==, expect);
}

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 9, \"minor\": 1, \"micro\": 0}, " \
                 "\"package\": \"Ferry " FERRY_VERSION "\"}, \"capabilities\": []}}"

static Client *qmp_connect(const char *id)
{
    Client *c = client_connect(id);

    hear(c, GREETING);
    say(c, "{'execute':'qmp_capabilities'}");
    hear(c, "{\"return\": {}}");
    return c;
}

static void ask_and_hear(Client *c, const char *question, const char *answer)
{
    say(c, question);
    hear(c, answer);
}

/* The session works: it knows that it does not know a command. */
static void check_alive(Client *c)
{
    ask_and_hear(c, "{'execute':'no-such'}", "{\"error\": {\"class\": \"CommandNotFound\", "
                 "\"desc\": \"The command no-such has not been found\"}}");
}

/* ---- QMP ---- */

static void test_negotiation(void)
{
    Client *c = client_connect("qmp");

    hear(c, GREETING);
    ask_and_hear(c, "{'execute':'query-version','id':1}",
                 "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": "
                 "\"Expecting capabilities negotiation with 'qmp_capabilities'\"}, \"id\": 1}");
    ask_and_hear(c, "{'execute':'qmp_capabilities','arguments':{'enable':['oob']}}",
                 "{\"error\": {\"class\": \"GenericError\", \"desc\": "
                 "\"Capability oob not available\"}}");
    qapi_event_send_stop();     /* nobody is told before negotiation */
    ask_and_hear(c, "{'execute':'qmp_capabilities','arguments':{'enable':[]}}", "{\"return\": {}}");
    ask_and_hear(c, "{'execute':'qmp_capabilities'}",
                 "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": "
                 "\"Capabilities negotiation is already complete, command ignored\"}}");
    client_close(c);

    /* The next client begins anew. */
    c = client_connect("qmp");
    hear(c, GREETING);
    client_close(c);
}

static void test_id(void)
{
    Client *c = qmp_connect("qmp");

    for (int i = 0; i < 3; i++) {
        static const char *const ids[] = { "\"x\"", "{\"a\": [1, null]}", "null" };
        g_autofree char *ask = g_strdup_printf("{'execute':'no-such','id':%s}", ids[i]);
        g_autofree char *answer = NULL;
        g_autofree char *end = g_strdup_printf("}, \"id\": %s}\r\n", ids[i]);

        say(c, ask);
        answer = hear_until(c, "\r\n");
        g_assert_true(g_str_has_suffix(answer, end));
    }
    client_close(c);
}

static void test_pipelining(void)
{
    Client *c = qmp_connect("qmp");
    g_autoptr(GString) all = g_string_new(NULL);

    for (int i = 0; i < 2000; i++) {
        g_string_append_printf(all, "{'execute':'query-version','id':%d}", i);
    }
    say(c, all->str);
    for (int i = 0; i < 2000; i++) {
        g_autofree char *line = hear_until(c, "\r\n");
        g_autofree char *end = g_strdup_printf("}, \"id\": %d}\r\n", i);

        g_assert_true(g_str_has_suffix(line, end));
    }
    client_close(c);
}

static void test_errors(void)
{
    Client *c = qmp_connect("qmp");
#define GENERIC(text) "{\"error\": {\"class\": \"GenericError\", \"desc\": \"" text "\"}}"

    ask_and_hear(c, "[]", GENERIC("QMP input must be a JSON object"));
    ask_and_hear(c, "{}", GENERIC("QMP input lacks member 'execute'"));
    ask_and_hear(c, "{'execute':1}", GENERIC("QMP input member 'execute' must be a string"));
    ask_and_hear(c, "{'execute':'stop','arguments':1}",
                 GENERIC("QMP input member 'arguments' must be an object"));
    ask_and_hear(c, "{'execute':'stop','x':1}", GENERIC("QMP input member 'x' is unexpected"));
    ask_and_hear(c, "{'exec-oob':'stop'}", GENERIC("QMP input member 'exec-oob' is unexpected"));
    ask_and_hear(c, "{'execute':'getfd','arguments':{}}",
                 GENERIC("Parameter 'fdname' is missing"));
    ask_and_hear(c, "\xff\n", GENERIC("JSON parse error, stray '\\uFFFD'"));
    check_alive(c);
    client_close(c);
}

static void test_events(void)
{
    Client *a = qmp_connect("qmp"), *b = qmp_connect("qmp2");
    g_autofree char *from_a = NULL, *from_b = NULL;
    struct json_object *event, *v;

    qapi_event_send_shutdown(true, SHUTDOWN_CAUSE_GUEST_SHUTDOWN);
    from_a = hear_until(a, "\r\n");
    from_b = hear_until(b, "\r\n");
    g_assert_cmpstr(from_a, ==, from_b);
    event = json_tokener_parse(from_a);
    g_assert_true(json_object_object_get_ex(event, "event", &v));
    g_assert_cmpstr(json_object_get_string(v), ==, "SHUTDOWN");
    g_assert_true(json_object_object_get_ex(event, "data", &v));
    g_assert_cmpstr(json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN), ==,
                    "{\"guest\":true,\"reason\":\"guest-shutdown\"}");
    g_assert_true(json_object_object_get_ex(event, "timestamp", &v));
    g_assert_true(json_object_object_get_ex(v, "seconds", &v));
    g_assert_cmpint(ABS(json_object_get_int64(v) - g_get_real_time() / G_USEC_PER_SEC), <=, 60);
    json_object_put(event);
    client_close(a);
    client_close(b);
}

static void *send_events(void *opaque)
{
    for (int i = 0; i < 1000; i++) {
        qapi_event_send_resume();
    }
    return NULL;
}

/* Events of other threads never land within a reply. */
static void test_events_from_threads(void)
{
    Client *c = qmp_connect("qmp");
    GThread *threads[3];
    g_autoptr(GString) all = g_string_new(NULL);
    int events = 0, replies = 0;

    for (int i = 0; i < 3; i++) {
        threads[i] = g_thread_new("events", send_events, NULL);
    }
    for (int i = 0; i < 300; i++) {
        g_string_append(all, "{'execute':'query-version'}");
    }
    say(c, all->str);
    while (events < 3000 || replies < 300) {
        g_autofree char *line = hear_until(c, "\r\n");

        if (strstr(line, "\"event\": \"RESUME\"}\r\n")) {
            events++;
        } else {
            g_assert_true(g_str_has_prefix(line, "{\"return\": {\"qemu\""));
            replies++;
        }
    }
    for (int i = 0; i < 3; i++) {
        g_thread_join(threads[i]);
    }
    client_close(c);
}

static void test_pretty(void)
{
    Client *c = client_connect("pretty");
    g_autofree char *greeting = hear_until(c, "\r\n}\r\n");

    g_assert_true(g_str_has_prefix(greeting, "{\r\n    \"QMP\": {\r\n        \"version\": {"));
    say(c, "{'execute':'qmp_capabilities'}");
    hear(c, "{");
    hear(c, "    \"return\": {}");
    hear(c, "}");
    client_close(c);
}

/* ---- hostile clients ---- */

static void test_garbage(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    g_autofree char *junk = g_malloc(256 * 1024);
    Client *c;

    for (int i = 0; i < 256 * 1024; i++) {
        junk[i] = (char)g_rand_int(rand);
    }
    c = client_connect("qmp");
    hear(c, GREETING);
    /*
     * Its replies are not read: at some point its input is not read either, so it may have to
     * leave.
     */
    for (size_t at = 0; at < 256 * 1024; at += 1024) {
        send(c->fd, junk + at, 1024, MSG_NOSIGNAL);
        main_loop_iterate(false);
    }
    client_close(c);
    c = qmp_connect("qmp");
    check_alive(c);
    client_close(c);
}

static void test_nesting(void)
{
    Client *c = qmp_connect("qmp");
    g_autofree char *deep = g_strnfill(100000, '[');

    say(c, "{'execute':");
    say(c, deep);
    say(c, "\n");
    hear(c, GENERIC("JSON nesting depth limit exceeded"));
    check_alive(c);
    client_close(c);
}

static void test_disconnect_in_the_middle(void)
{
    static const char message[] = "{\"execute\": \"query-version\", \"id\": [1, \"\\u00e4\"]}";

    for (size_t n = 0; n < sizeof(message); n++) {
        Client *c = qmp_connect("qmp");

        g_assert_true(client_send(c, message, n));
        client_close(c);
    }
    client_close(qmp_connect("qmp"));
}

static Monitor *monitor_of(const char *id)
{
    for (guint i = 0; i < monitor_list->len; i++) {
        Monitor *mon = monitor_list->pdata[i];
        if (!strcmp(chardev_id(mon->chr.chr), id)) {
            return mon;
        }
    }
    return NULL;
}

/* A client that sends and never reads: it is left in its own queue. */
static void test_never_reads(void)
{
    Client *c = qmp_connect("qmp"), *other;
    static const char ask[] = "{'execute':'query-commands'}";
    size_t most = 0;
    int refused = 0;

    while (refused < 2000) {
        refused += send(c->fd, ask, strlen(ask), MSG_NOSIGNAL) < 0;
        main_loop_iterate(false);
        most = MAX(most, monitor_out_pending(monitor_of("qmp")));
    }
    g_assert_cmpuint(most, <, 2 * MONITOR_OUT_PAUSE_BYTES);
    other = qmp_connect("qmp2");
    check_alive(other);
    client_close(other);
    /* It may still change its mind. */
    for (int i = 0; i < 50; i++) {
        g_autofree char *line = hear_until(c, "\r\n");
        g_assert_true(g_str_has_prefix(line, "{\"return\": [{\"name\": "));
    }
    client_close(c);
}

/* A client that does not read events either is sent away. */
static void test_never_reads_events(void)
{
    Client *c = qmp_connect("qmp");
    Monitor *mon = monitor_of("qmp");
    gint64 deadline = g_get_monotonic_time() + DEADLINE_US;
    size_t most = 0;

    while (mon->open) {
        qapi_event_send_stop();
        most = MAX(most, monitor_out_pending(mon));
        if (most > MONITOR_OUT_MAX_BYTES) {
            main_loop_iterate(false);
        }
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    g_assert_cmpuint(most, >, MONITOR_OUT_MAX_BYTES);
    g_assert_cmpuint(most, <, MONITOR_OUT_MAX_BYTES + 4096);
    while (!c->eof) {
        client_read(c);
    }
    client_close(c);
    client_close(qmp_connect("qmp"));
}

static void test_long_message(void)
{
    Client *c = qmp_connect("qmp");
    g_autofree char *chunk = g_strnfill(1 << 20, 'x');
    struct rusage before, after;

    getrusage(RUSAGE_SELF, &before);
    say(c, "{'execute':'");
    for (int i = 0; i < 1024; i++) {
        g_assert_true(client_send(c, chunk, 1 << 20));
    }
    say(c, "\n");
    hear(c, GENERIC("JSON token size limit exceeded"));
    check_alive(c);
    getrusage(RUSAGE_SELF, &after);
#ifndef __SANITIZE_ADDRESS__
    g_assert_cmpint(after.ru_maxrss - before.ru_maxrss, <, 400 * 1024);
#endif
    client_close(c);
}

/* ---- file descriptors ---- */

static void send_with_fds(Client *c, const char *text, const int *fds, int n)
{
    struct iovec iov = { (char *)text, strlen(text) };
    union {
        char buf[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
                          .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
    g_assert_cmpint(sendmsg(c->fd, &msg, MSG_NOSIGNAL), ==, strlen(text));
}

static unsigned count_open_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 512; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static void test_getfd(void)
{
    Client *c = qmp_connect("qmp");
    int pipe_fds[2], fd;

    ask_and_hear(c, "{'execute':'getfd','arguments':{'fdname':'a'}}",
                 GENERIC("No file descriptor supplied via SCM_RIGHTS"));
    g_assert_cmpint(pipe(pipe_fds), ==, 0);
    send_with_fds(c, "{'execute':'getfd','arguments':{'fdname':'a'}}", pipe_fds, 1);
    hear(c, "{\"return\": {}}");
    send_with_fds(c, "{'execute':'getfd','arguments':{'fdname':'1'}}", pipe_fds, 1);
    hear(c, GENERIC("Parameter 'fdname' expects a name not starting with a digit"));
    fd = monitor_get_fd(monitor_of("qmp"), "a", &error_abort);
    g_assert_cmpint(write(pipe_fds[1], "x", 1), ==, 1);
    g_assert_cmpint(read(fd, (char[1]) { 0 }, 1), ==, 1);
    close(fd);
    ask_and_hear(c, "{'execute':'closefd','arguments':{'fdname':'a'}}",
                 GENERIC("File descriptor named 'a' not found"));
    client_close(c);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void test_add_fd(void)
{
    Client *c = qmp_connect("qmp");
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    g_autofree char *answer = NULL;

    send_with_fds(c, "{'execute':'add-fd','arguments':{'fdset-id':-1}}", &fd, 1);
    hear(c, GENERIC("Parameter 'fdset-id' expects a non-negative value"));
    send_with_fds(c, "{'execute':'add-fd','arguments':{'fdset-id':3,'opaque':'x'}}", &fd, 1);
    answer = hear_until(c, "\r\n");
    g_assert_true(g_str_has_prefix(answer, "{\"return\": {\"fdset-id\": 3, \"fd\": "));
    say(c, "{'execute':'query-fdsets'}");
    g_free(answer);
    answer = hear_until(c, "\r\n");
    g_assert_nonnull(strstr(answer, "\"opaque\": \"x\""));
    ask_and_hear(c, "{'execute':'remove-fd','arguments':{'fdset-id':3}}", "{\"return\": {}}");
    ask_and_hear(c, "{'execute':'query-fdsets'}", "{\"return\": []}");
    ask_and_hear(c, "{'execute':'remove-fd','arguments':{'fdset-id':3,'fd':77}}",
                 GENERIC("File descriptor named 'fdset-id:3, fd:77' not found"));
    client_close(c);
    close(fd);
}

/* Descriptors that no command asks for do not pile up. */
static void test_unwanted_fds(void)
{
    Client *c = qmp_connect("qmp");
    int fds[8];
    unsigned before = count_open_fds();

    for (int i = 0; i < 8; i++) {
        fds[i] = STDERR_FILENO;
    }
    for (int i = 0; i < 50; i++) {
        send_with_fds(c, "{'execute':'no-such'}", fds, 8);
        hear(c, "{\"error\": {\"class\": \"CommandNotFound\", "
             "\"desc\": \"The command no-such has not been found\"}}");
    }
    g_assert_cmpuint(count_open_fds(), <=, before + 8);
    client_close(c);
    g_assert_cmpuint(count_open_fds(), <, before);
}

/* ---- HMP ---- */

static void hmp_ask(Client *c, const char *line, const char *answer)
{
    g_autofree char *with_cr = g_strconcat(line, "\r", NULL);
    g_autofree char *expect = g_strdup_printf("%s\r\n%s(qemu) ", line, answer);
    g_autofree char *got = NULL;

    say(c, with_cr);
    got = hear_until(c, "(qemu) ");
    g_assert_cmpstr(got, ==, expect);
}

static Client *hmp_connect(void)
{
    Client *c = client_connect("hmp");
    g_autofree char *banner = hear_until(c, "(qemu) ");

    g_assert_cmpstr(banner, ==, "Ferry " FERRY_VERSION
                    " monitor - type 'help' for more information\r\n(qemu) ");
    return c;
}

static void test_hmp(void)
{
    Client *c = hmp_connect();

    hmp_ask(c, "info version", "9.1.0 Ferry " FERRY_VERSION "\r\n");
    hmp_ask(c, "", "");
    hmp_ask(c, "foo", "unknown command: 'foo'\r\n");
    hmp_ask(c, "info foo", "unknown command: 'info foo'\r\n");
    hmp_ask(c, "print 1+2", "0x3\r\n");
    hmp_ask(c, "p/d 0-5", "-5\r\n");
    hmp_ask(c, "p/c 'a'", "'a'\r\n");
    hmp_ask(c, "p/x 16", "0x10\r\n");
    hmp_ask(c, "help print", "print|p /fmt expr -- print expression value "
            "(use $reg for CPU register access)\r\n");
    hmp_ask(c, "help info name", "info name  -- show the current VM name\r\n");
    hmp_ask(c, "help nothing", "unknown command: 'nothing'\r\n");
    hmp_ask(c, "sum 1", "sum: integer expected\r\nTry \"help sum\" for more information\r\n");
    hmp_ask(c, "migrate_set_capability", "migrate_set_capability: string expected\r\n"
            "Try \"help migrate_set_capability\" for more information\r\n");
    hmp_ask(c, "info history x", "history: extraneous characters at the end of line\r\n"
            "Try \"help info history\" for more information\r\n");
    client_close(c);
}

static void test_hmp_completion(void)
{
    Client *c = hmp_connect();
    g_autofree char *list = NULL, *more = NULL, *file = NULL;

    say(c, "inf\tmig\t");
    g_free(hear_until(c, "info migrate"));
    say(c, "\t");
    list = hear_until(c, "(qemu) info migrate");
    g_assert_cmpstr(list, ==, "\r\nmigrate               migrate_capabilities  "
                    "migrate_parameters\r\n(qemu) info migrate");
    say(c, "_p\t");
    more = hear_until(c, "_parameters ");
    say(c, "\025migrate_set_capability direct-m\t o\025");
    g_free(hear_until(c, "direct-mapped "));
    say(c, "\025memsave 0 0 /dev/nul\t");
    file = hear_until(c, "/dev/null ");
    client_close(c);
}

static void test_human_monitor_command(void)
{
    Client *c = qmp_connect("qmp");

    ask_and_hear(c,
                 "{'execute':'human-monitor-command','arguments':{'command-line':'info version'}}",
                 "{\"return\": \"9.1.0 Ferry " FERRY_VERSION "\\r\\n\"}");
    ask_and_hear(c, "{'execute':'human-monitor-command','arguments':{'command-line':'foo'}}",
                 "{\"return\": \"unknown command: 'foo'\\r\\n\"}");
    ask_and_hear(c, "{'execute':'human-monitor-command','arguments':{'command-line':''}}",
                 "{\"return\": \"\"}");
    ask_and_hear(c, "{'execute':'human-monitor-command','arguments':"
                 "{'command-line':'info cpus','cpu-index':99}}",
                 GENERIC("Parameter 'cpu-index' expects a CPU number"));
    client_close(c);
}

static void test_options(void)
{
    Error *err = NULL;

    g_assert_false(monitor_init_opts("chardev=nothing", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "chardev \"nothing\" not found");
    g_clear_pointer(&err, error_free);
    g_assert_false(monitor_init_opts("chardev=qmp,mode=control", &err));
    g_assert_nonnull(err);      /* in use */
    g_clear_pointer(&err, error_free);
    g_assert_false(monitor_init_opts("chardev=qmp,mode=readline,pretty=on", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "'pretty' is not compatible with HMP monitors");
    g_clear_pointer(&err, error_free);
    g_assert_false(monitor_init_opts("chardev=qmp,mode=foo", &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "mode"));
    g_clear_pointer(&err, error_free);
    g_assert_true(monitor_init_device("none", MONITOR_MODE_READLINE, false, &error_abort));
}

int main(int argc, char **argv)
{
    int result;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("ferry-test-monitor-XXXXXX", NULL);
    main_loop_init();
    bql_lock();
    monitor_init_globals();
    make_monitor("qmp", "mode=control");
    make_monitor("qmp2", "mode=control,pretty=off");
    make_monitor("pretty", "mode=control,pretty=on");
    make_monitor("hmp", "mode=readline");

    g_test_add_func("/qmp/negotiation", test_negotiation);
    g_test_add_func("/qmp/id", test_id);
    g_test_add_func("/qmp/pipelining", test_pipelining);
    g_test_add_func("/qmp/errors", test_errors);
    g_test_add_func("/qmp/events", test_events);
    g_test_add_func("/qmp/events-from-threads", test_events_from_threads);
    g_test_add_func("/qmp/pretty", test_pretty);
    g_test_add_func("/qmp/hostile/garbage", test_garbage);
    g_test_add_func("/qmp/hostile/nesting", test_nesting);
    g_test_add_func("/qmp/hostile/disconnect", test_disconnect_in_the_middle);
    g_test_add_func("/qmp/hostile/never-reads", test_never_reads);
    g_test_add_func("/qmp/hostile/never-reads-events", test_never_reads_events);
    g_test_add_func("/qmp/hostile/long-message", test_long_message);
    g_test_add_func("/qmp/fds/getfd", test_getfd);
    g_test_add_func("/qmp/fds/add-fd", test_add_fd);
    g_test_add_func("/qmp/fds/unwanted", test_unwanted_fds);
    g_test_add_func("/hmp/commands", test_hmp);
    g_test_add_func("/hmp/completion", test_hmp_completion);
    g_test_add_func("/hmp/human-monitor-command", test_human_monitor_command);
    g_test_add_func("/monitor/options", test_options);
    result = g_test_run();

    monitor_cleanup();
    chardev_cleanup();
    bql_unlock();
    g_rmdir(dir);
    g_free(dir);
    return result;
}
