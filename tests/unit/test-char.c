/*
 * Character devices: each kind with a real other end, the options, the bounds on output.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "char-harness.h"
#include "qapi/qapi-commands-char.h"
#include "qapi/util.h"

static void check_filename(Chardev *chr, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *want = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_autofree char *got = chardev_filename(chr);
    g_assert_cmpstr(got, ==, want);
}

/* Options ------------------------------------------------------------------------------------ */

static void test_bad_options(void)
{
    static const struct {
        const char *opts, *msg;
    } bad[] = {
        { "null", "chardev: no id specified" },
        { "id=x", "chardev: \"x\" missing backend" },
        { "nothing,id=x", "'nothing' is not a valid char driver name" },
        { "null,id=9", "Parameter 'id' expects an identifier, not '9'" },
        { "file,id=x", "Parameter 'out' is missing" },
        { "null,id=x,speed=9", "Parameter 'speed' is unexpected" },
        { "stdio,id=x,signal=maybe", "Parameter 'signal' expects 'on' or 'off'" },
        { "null,id=x,mux=maybe", "Parameter 'mux' expects 'on' or 'off', not 'maybe'" },
        { "socket,id=x", "chardev: socket: exactly one of 'path', 'port' and 'fd' is required" },
        { "socket,id=x,path=/a,port=1",
          "chardev: socket: exactly one of 'path', 'port' and 'fd' is required" },
        { "socket,id=x,path=/nonexistent/a,telnet=on", "Parameter 'telnet' is unexpected" },
        { "socket,id=x,path=/nonexistent/a,wait=on",
          "'wait' option is incompatible with socket in client connect mode" },
        { "socket,id=x,path=/nonexistent/a,server=on,reconnect=1",
          "'reconnect' option is incompatible with socket in server listen mode" },
        { "socket,id=x,path=/nonexistent/a,reconnect=1,reconnect-ms=5",
          "'reconnect' and 'reconnect-ms' are mutually exclusive" },
        { "socket,id=x,path=/nonexistent/a",
          "Failed to connect to '/nonexistent/a': No such file or directory" },
        { "file,id=x,path=/nonexistent/a",
          "Could not open '/nonexistent/a': No such file or directory" },
        { "pipe,id=x,path=/nonexistent/a",
          "Could not open '/nonexistent/a': No such file or directory" },
        { "fd,id=x,fd=999999", "Could not use file descriptor 999999: Bad file descriptor" },
        { "mux,id=x,chardev=y", "mux: base chardev y not found" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(Error) err = NULL;

        g_assert_null(chardev_new_from_opts(bad[i].opts, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, bad[i].msg);
        g_assert_null(chardev_find("x"));
    }
}

static void test_legacy(void)
{
    static const char *const bad[] = { "", "nothing", "file:", "tcp:1", "tcp:", "mon:stdio", "vc" };
    g_autofree char *file = g_strdup_printf("file:%s/a,b", char_test_dir);
    g_autofree char *path = g_strdup_printf("%s/a,b", char_test_dir);

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(Error) err = NULL;
        g_autofree char *msg = g_strdup_printf("'%s' is not a valid char driver", bad[i]);

        g_assert_null(chardev_new_legacy("x", bad[i], false, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, msg);
    }

    g_autoptr(Error) none = NULL, missing = NULL;
    g_assert_null(chardev_new_legacy("x", "none", false, &none));
    g_assert_null(none);
    g_assert_null(chardev_new_legacy("x", "chardev:x", false, &missing));
    g_assert_cmpstr(error_get_pretty(missing), ==, "chardev \"x\" not found");

    Chardev *chr = chardev_new_legacy("x", "null", false, &error_abort);
    g_assert_true(chardev_new_legacy("y", "chardev:x", false, &error_abort) == chr);
    g_assert_cmpstr(chardev_id(chr), ==, "x");
    g_assert_true(chardev_delete("x", &error_abort));

    g_assert_nonnull(chardev_new_legacy("x", file, false, &error_abort));
    g_assert_true(chardev_delete("x", &error_abort));
    g_assert_cmpint(g_unlink(path), ==, 0);

    chr = chardev_new_legacy("x", "tcp:127.0.0.1:0,server,nowait", false, &error_abort);
    g_autofree char *filename = chardev_filename(chr);
    g_assert_true(g_str_has_prefix(filename, "disconnected:tcp:127.0.0.1:"));
    g_assert_true(g_str_has_suffix(filename, ",server=on"));
    g_assert_true(chardev_delete("x", &error_abort));
}

static void test_ids(void)
{
    g_autoptr(Error) twice = NULL, busy = NULL, missing = NULL, used = NULL;
    Chardev *chr = make_chardev("null,id=one");
    CharFrontend other;
    Port p;

    g_assert_null(chardev_new_from_opts("null,id=one", &twice));
    g_assert_cmpstr(error_get_pretty(twice), ==, "Chardev with id 'one' already exists");
    port_init(&p, chr);
    g_assert_cmpint(p.opened, ==, 1);
    g_assert_false(chr_fe_init(&other, chr, &used));
    g_assert_cmpstr(error_get_pretty(used), ==, "Chardev 'one' is in use");
    g_assert_false(chardev_delete("one", &busy));
    g_assert_cmpstr(error_get_pretty(busy), ==, "Chardev 'one' is busy");
    g_assert_cmpint(chr_fe_write(&p.fe, "x", 1), ==, 1);

    ChardevInfoList *list = qmp_query_chardev(&error_abort);
    g_assert_cmpstr(list->value->label, ==, "one");
    g_assert_cmpstr(list->value->filename, ==, "null");
    g_assert_true(list->value->frontend_open);
    g_assert_null(list->next);
    qapi_free_ChardevInfoList(list);

    port_free(&p, true);
    g_assert_false(chardev_delete("one", &missing));
    g_assert_cmpstr(error_get_pretty(missing), ==, "Chardev 'one' not found");
}

/* Files -------------------------------------------------------------------------------------- */

static void test_file(void)
{
    g_autofree char *path = g_strdup_printf("%s/out", char_test_dir);
    g_autofree char *text = NULL;
    Port p;

    for (int i = 0; i < 3; i++) {
        port_init(&p, make_chardev("file,id=f,path=%s%s", path, i == 2 ? ",append=on" : ""));
        g_assert_cmpint(chr_fe_printf(&p.fe, "line %d\n", i), ==, 7);
        port_free(&p, true);
    }
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "line 1\nline 2\n");
    g_unlink(path);
}

static void test_pipe(void)
{
    g_autofree char *in = g_strdup_printf("%s/p.in", char_test_dir);
    g_autofree char *out = g_strdup_printf("%s/p.out", char_test_dir);
    char buf[5];
    Port p;

    g_assert_cmpint(mkfifo(in, 0600), ==, 0);
    g_assert_cmpint(mkfifo(out, 0600), ==, 0);
    port_init(&p, make_chardev("pipe,id=p,path=%s/p", char_test_dir));
    int to = open(in, O_WRONLY), from = open(out, O_RDONLY);
    g_assert_cmpint(write(to, "typed", 5), ==, 5);
    check_got(&p, "typed");
    g_assert_cmpint(chr_fe_write(&p.fe, "shown", 5), ==, 5);
    g_assert_cmpint(read(from, buf, 5), ==, 5);
    g_assert_cmpmem(buf, 5, "shown", 5);
    close(to);
    close(from);
    port_free(&p, true);
    g_unlink(in);
    g_unlink(out);
}

static void test_fd(void)
{
    int fds[2];
    char buf[5];
    Port p;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    fcntl(fds[0], F_SETFD, 0);          /* as one that was inherited */
    port_init(&p, make_chardev("fd,id=f,fd=%d", fds[0]));
    g_assert_cmpint(write(fds[1], "typed", 5), ==, 5);
    check_got(&p, "typed");
    g_assert_cmpint(chr_fe_write(&p.fe, "shown", 5), ==, 5);
    g_assert_cmpint(read(fds[1], buf, 5), ==, 5);
    close(fds[1]);
    WAIT_FOR(p.closed);
    g_assert_cmpint(chr_fe_write(&p.fe, "dropped", 7), ==, 7);
    port_free(&p, true);
}

static void test_pty(void)
{
    Chardev *chr = make_chardev("pty,id=t");
    g_autofree char *filename = chardev_filename(chr);
    struct termios tty;
    char buf[5];
    Port p;

    g_assert_true(g_str_has_prefix(filename, "pty:/dev/"));
    port_init(&p, chr);
    g_assert_cmpint(p.opened, ==, 0);
    for (int round = 1; round <= 2; round++) {
        int fd = open(filename + 4, O_RDWR | O_NOCTTY);

        WAIT_FOR(p.opened == round);
        tcgetattr(fd, &tty);
        g_assert_cmpint(tty.c_lflag & (ECHO | ICANON), ==, 0);
        g_assert_cmpint(write(fd, "typed", 5), ==, 5);
        check_got(&p, "typed");
        g_assert_cmpint(chr_fe_write(&p.fe, "shown", 5), ==, 5);
        g_assert_cmpint(read(fd, buf, 5), ==, 5);
        g_assert_cmpmem(buf, 5, "shown", 5);
        close(fd);
        WAIT_FOR(p.closed == round);
        g_assert_cmpint(chr_fe_write(&p.fe, "dropped", 7), ==, 7);
    }
    port_free(&p, true);
}

/* Standard input and output replaced for a while by a terminal or by pipes. */
static void test_stdio_tty(void)
{
    g_autoptr(Error) err = NULL;
    int master, slave, keep[2] = { dup(0), dup(1) };
    struct termios tty;
    char buf[5];
    Port p;

    g_assert_cmpint(openpty(&master, &slave, NULL, NULL, NULL), ==, 0);
    int flags = fcntl(slave, F_GETFL);
    dup2(slave, 0);
    dup2(slave, 1);
    port_init(&p, make_chardev("stdio,id=s,signal=off"));
    g_assert_null(chardev_new_from_opts("stdio,id=s2", &err));
    g_assert_cmpint(fcntl(slave, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    g_assert_cmpint(write(master, "key\n\n", 5), ==, 5);
    check_got(&p, "key\n\n");
    tcgetattr(slave, &tty);
    tty.c_oflag &= ~OPOST;
    tty.c_lflag &= ~ECHO;
    tcsetattr(slave, TCSANOW, &tty);
    g_assert_cmpint(chr_fe_write(&p.fe, "shown", 5), ==, 5);
    while (read(master, buf, 1) == 1 && buf[0] != 'n') {
        continue;
    }
    port_free(&p, true);
    g_assert_cmpint(fcntl(slave, F_GETFL), ==, flags);
    dup2(keep[0], 0);
    dup2(keep[1], 1);
    close(keep[0]);
    close(keep[1]);
    close(master);
    close(slave);
    g_assert_cmpstr(error_get_pretty(err), ==, "cannot use stdio by multiple character devices");
}

/* Input at its end does not end output. */
static void test_stdio_eof(void)
{
    int fds[2], keep[2] = { dup(0), dup(1) };
    char buf[5];
    Port p;

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, 0);
    dup2(fds[1], 1);
    port_init(&p, make_chardev("stdio,id=s"));
    settle();
    g_assert_cmpint(chr_fe_write(&p.fe, "shown", 5), ==, 5);
    g_assert_cmpint(read(fds[0], buf, 5), ==, 5);
    g_assert_cmpint(p.closed, ==, 0);
    port_free(&p, true);
    dup2(keep[0], 0);
    dup2(keep[1], 1);
    close(keep[0]);
    close(keep[1]);
    close(null);
    close(fds[0]);
    close(fds[1]);
}

/* Sockets ------------------------------------------------------------------------------------ */

static void test_server(void)
{
    Chardev *chr = make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir);
    Port p;

    check_filename(chr, "disconnected:unix:%s/s,server=on", char_test_dir);
    port_init(&p, chr);
    g_assert_cmpint(p.opened, ==, 0);
    for (int round = 1; round <= 2; round++) {
        QIOChannel *client = dial("s");

        WAIT_FOR(p.opened == round);
        check_filename(chr, "unix:%s/s,server=on", char_test_dir);
        say(client, "typed");
        check_got(&p, "typed");
        chr_fe_write(&p.fe, "shown", 5);
        expect(client, "shown");
        /* What was said before the end arrives before the end. */
        say(client, "bye");
        qio_channel_unref(client);
        check_got(&p, "bye");
        WAIT_FOR(p.closed == round);
        g_assert_cmpint(chr_fe_write(&p.fe, "dropped", 7), ==, 7);
    }
    port_free(&p, true);
    g_autofree char *path = g_strdup_printf("%s/s", char_test_dir);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

/* A second client waits until the first has gone. */
static void test_second_client(void)
{
    g_autoptr(QIOChannel) first = NULL, second = NULL;
    char c;
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    first = dial("s");
    WAIT_FOR(p.opened == 1);
    second = dial("s");
    say(second, "me");
    settle();
    g_assert_cmpint(p.opened, ==, 1);
    g_assert_cmpuint(p.got->len, ==, 0);

    chr_fe_disconnect(&p.fe);
    g_assert_cmpint(p.closed, ==, 1);
    g_assert_cmpint(qio_channel_read_all_eof(first, &c, 1, &error_abort), ==, 0);
    check_got(&p, "me");
    g_assert_cmpint(p.opened, ==, 2);
    port_free(&p, true);
}

static gpointer dial_thread(gpointer unused)
{
    g_autofree char *path = g_strdup_printf("%s/s", char_test_dir);

    /* The device is made by the other thread: it appears. */
    while (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        g_thread_yield();
    }
    for (;;) {
        g_autofree char *uri = g_strdup_printf("unix:%s", path);
        g_autoptr(SocketAddress) addr = socket_parse(uri, &error_abort);
        QIOChannelSocket *s = qio_channel_socket_connect_sync(addr, -1, NULL);

        if (s) {
            return s;
        }
    }
}

static void test_wait(void)
{
    GThread *thread = g_thread_new("dial", dial_thread, NULL);
    Port p;

    g_test_message("the next line of standard error belongs to the test");
    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on", char_test_dir));
    g_assert_cmpint(p.opened, ==, 1);
    g_autoptr(QIOChannel) client = g_thread_join(thread);
    say(client, "typed");
    check_got(&p, "typed");
    port_free(&p, true);
}

static void test_client(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/l", char_test_dir);
    g_autoptr(SocketAddress) addr = socket_parse(uri, &error_abort);
    QIOChannelSocket *l = qio_channel_socket_listen_sync(addr, 1, &error_abort);
    Port p;

    Chardev *chr = make_chardev("socket,id=s,path=%s/l", char_test_dir);
    port_init(&p, chr);
    check_filename(chr, "unix:%s/l", char_test_dir);
    g_assert_cmpint(p.opened, ==, 1);
    g_autoptr(QIOChannel) server = QIO_CHANNEL(qio_channel_socket_accept(l, &error_abort));
    say(server, "typed");
    check_got(&p, "typed");
    qio_channel_close(server, &error_abort);
    WAIT_FOR(p.closed == 1);
    port_free(&p, true);
    qio_channel_unref(QIO_CHANNEL(l));
}

/* It comes back, to a server that comes up late and one that goes and returns. */
static void test_reconnect(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/l", char_test_dir);
    g_autoptr(SocketAddress) addr = socket_parse(uri, &error_abort);
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/l,reconnect-ms=1", char_test_dir));
    g_assert_cmpint(p.opened, ==, 0);
    for (int round = 1; round <= 2; round++) {
        QIOChannelSocket *l = qio_channel_socket_listen_sync(addr, 1, &error_abort);

        WAIT_FOR(p.opened == round);
        g_autoptr(QIOChannel) server = QIO_CHANNEL(qio_channel_socket_accept(l, &error_abort));
        say(server, "typed");
        check_got(&p, "typed");
        qio_channel_unref(QIO_CHANNEL(l));
        qio_channel_close(server, &error_abort);
        WAIT_FOR(p.closed == round);
    }
    /* Removed while it tries. */
    port_free(&p, true);
}

static void test_fds(void)
{
    int send[3] = { 0, 1, 2 }, fds[8];
    struct iovec iov = { "x", 1 };
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    g_autoptr(QIOChannel) client = dial("s");
    WAIT_FOR(p.opened == 1);
    g_assert_cmpint(chr_fe_get_msgfd(&p.fe), ==, -1);
    qio_channel_writev_full_all(client, &iov, 1, send, 3, &error_abort);
    check_got(&p, "x");
    g_assert_cmpint(chr_fe_get_msgfds(&p.fe, fds, 2), ==, 2);
    g_assert_cmpint(fcntl(fds[0], F_GETFD), ==, FD_CLOEXEC);
    close(fds[0]);
    close(fds[1]);
    int third = chr_fe_get_msgfd(&p.fe);
    g_assert_cmpint(third, >=, 0);
    close(third);
    g_assert_cmpint(chr_fe_get_msgfd(&p.fe), ==, -1);

    /* Not taken: closed when others come, and at the end. */
    qio_channel_writev_full_all(client, &iov, 1, send, 2, &error_abort);
    check_got(&p, "x");
    qio_channel_writev_full_all(client, &iov, 1, send, 1, &error_abort);
    check_got(&p, "x");
    g_assert_cmpint(chr_fe_get_msgfds(&p.fe, fds, 8), ==, 1);
    close(fds[0]);
    port_free(&p, true);
}

/* Flow and bounds ------------------------------------------------------------------------------ */

static void test_can_read(void)
{
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    p.room = 0;
    g_autoptr(QIOChannel) client = dial("s");
    WAIT_FOR(p.opened == 1);
    say(client, "abcdef");
    settle();
    g_assert_cmpuint(p.got->len, ==, 0);
    p.room = 2;
    chr_fe_accept_input(&p.fe);
    check_got(&p, "ab");
    settle();
    g_assert_cmpuint(p.got->len, ==, 0);
    p.room = 100;
    chr_fe_accept_input(&p.fe);
    check_got(&p, "cdef");
    port_free(&p, true);
}

static char block[65536];

static gboolean on_watch(void *unused, GIOCondition condition, void *opaque)
{
    *(GIOCondition *)opaque |= condition;
    return G_SOURCE_REMOVE;
}

/* A client that never reads: output is bounded, and told so. */
static void test_slow_client(void)
{
    GIOCondition seen = 0;
    size_t written = 0;
    int n;
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    g_autoptr(QIOChannel) client = dial("s");
    WAIT_FOR(p.opened == 1);

    while ((n = chr_fe_write(&p.fe, block, sizeof(block))) > 0) {
        written += n;
    }
    g_assert_cmpint(n, ==, 0);
    chr_fe_add_watch(&p.fe, G_IO_OUT, on_watch, &seen);
    settle();
    g_assert_cmpint(seen, ==, 0);

    chr_fe_set_output_limit(&p.fe, 2 * sizeof(block));
    g_assert_cmpint(chr_fe_write_all(&p.fe, block, sizeof(block)), ==, sizeof(block));
    g_assert_cmpint(chr_fe_write_all(&p.fe, block, sizeof(block)), ==, sizeof(block));
    g_assert_cmpint(chr_fe_write_all(&p.fe, "x", 1), ==, -1);
    g_assert_cmpint(chr_fe_write(&p.fe, "x", 1), ==, 0);
    written += 2 * sizeof(block);

    /* When it reads again, all of that arrives, and the watch fires. */
    qio_channel_set_blocking(client, false, &error_abort);
    while (written) {
        ssize_t got = qio_channel_read(client, block, sizeof(block), &error_abort);

        if (got == QIO_CHANNEL_ERR_BLOCK) {
            g_main_context_iteration(NULL, FALSE);
        } else {
            written -= got;
        }
    }
    WAIT_FOR(seen);
    g_assert_cmpint(seen & G_IO_OUT, ==, G_IO_OUT);
    port_free(&p, true);
}

/* A watch on a client that goes away fires too; one on nobody fires at once. */
static void test_watch_hangup(void)
{
    GIOCondition seen = 0;
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    chr_fe_add_watch(&p.fe, G_IO_OUT, on_watch, &seen);
    WAIT_FOR(seen);

    g_autoptr(QIOChannel) client = dial("s");
    WAIT_FOR(p.opened == 1);
    while (chr_fe_write(&p.fe, block, sizeof(block)) > 0) {
        continue;
    }
    seen = 0;
    chr_fe_add_watch(&p.fe, G_IO_OUT, on_watch, &seen);
    guint unwanted = chr_fe_add_watch(&p.fe, G_IO_OUT, on_watch, NULL);
    g_source_remove(unwanted);
    chr_fe_disconnect(&p.fe);
    WAIT_FOR(seen);
    g_assert_cmpint(seen & G_IO_HUP, ==, G_IO_HUP);
    port_free(&p, true);
}

/* The client closes while nobody reads: the write finds out, and the event follows. */
static void test_broken_write(void)
{
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    QIOChannel *client = dial("s");
    WAIT_FOR(p.opened == 1);
    p.room = 0;
    settle();
    qio_channel_unref(client);
    while (chr_fe_write(&p.fe, "x", 1) == 1) {
        continue;
    }
    g_assert_cmpint(p.closed, ==, 0);
    WAIT_FOR(p.closed == 1);
    port_free(&p, true);
}

/* The same while nothing is written either, with and without input that nobody wanted. */
static void test_gone_unread(void)
{
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    p.room = 0;
    for (int round = 1; round <= 2; round++) {
        QIOChannel *client = dial("s");

        WAIT_FOR(p.opened == round);
        if (round == 2) {
            say(client, "unread");
        }
        settle();
        qio_channel_unref(client);
        WAIT_FOR(p.closed == round);
    }
    /* Who takes it in time gets it. */
    QIOChannel *client = dial("s");
    WAIT_FOR(p.opened == 3);
    say(client, "read");
    settle();
    qio_channel_unref(client);
    settle();
    g_assert_cmpint(p.closed, ==, 2);
    p.room = 100;
    chr_fe_accept_input(&p.fe);
    check_got(&p, "read");
    WAIT_FOR(p.closed == 3);
    port_free(&p, true);
}

/* A stopped program's terminal and descriptors are put right when it goes on. */
static void test_stdio_continue(void)
{
    int fds[2], keep = dup(0);

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    dup2(fds[0], 0);
    make_chardev("stdio,id=s");
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) & ~O_NONBLOCK);
    raise(SIGCONT);
    g_assert_cmpint(fcntl(0, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    g_assert_true(chardev_delete("s", &error_abort));
    g_assert_cmpint(fcntl(0, F_GETFL) & O_NONBLOCK, ==, 0);
    dup2(keep, 0);
    close(keep);
    close(fds[0]);
    close(fds[1]);
}

#define WRITES 2000

static gpointer vcpu_thread(gpointer opaque)
{
    Port *p = opaque;

    for (int i = 0; i < WRITES; i++) {
        char line[16];

        g_snprintf(line, sizeof(line), "%07d", i);
        for (int done = 0; done < 8;) {
            int n = chr_fe_write(&p->fe, line + done, 8 - done);
            g_assert_cmpint(n, >=, 0);
            done += n;
        }
        chr_fe_accept_input(&p->fe);
    }
    return NULL;
}

/* Another thread writes while the main loop reads. */
static void test_threads(void)
{
    g_autoptr(GString) back = g_string_new(NULL);
    size_t sent = 0;
    Port p;

    port_init(&p, make_chardev("socket,id=s,path=%s/s,server=on,wait=off", char_test_dir));
    g_autoptr(QIOChannel) client = dial("s");
    WAIT_FOR(p.opened == 1);
    qio_channel_set_blocking(client, false, &error_abort);
    GThread *thread = g_thread_new("vcpu", vcpu_thread, &p);
    while (back->len < WRITES * 8 || p.got->len < WRITES) {
        char buf[512];
        ssize_t n = qio_channel_read(client, buf, sizeof(buf), &error_abort);

        if (n > 0) {
            g_string_append_len(back, buf, n);
        }
        if (sent < WRITES && qio_channel_write(client, "y", 1, &error_abort) == 1) {
            sent++;
        }
        g_main_context_iteration(NULL, FALSE);
    }
    g_thread_join(thread);
    for (int i = 0; i < WRITES; i++) {
        g_assert_cmpint(atoi(back->str + i * 8), ==, i);
    }
    port_free(&p, true);
}

/* QMP ---------------------------------------------------------------------------------------- */

static void test_qmp(void)
{
    UnixSocketAddress path = { .path = g_strdup_printf("%s/q", char_test_dir) };
    SocketAddressLegacy addr = { .type = SOCKET_ADDRESS_TYPE_UNIX, .u.q_unix.data = &path };
    ChardevSocket sock = { .addr = &addr, .has_wait = true, .wait = true };
    ChardevBackend backend = { .type = CHARDEV_BACKEND_KIND_SOCKET, .u.socket.data = &sock };
    g_autoptr(Error) err = NULL;
    Error *err2 = NULL;

    g_assert_null(qmp_chardev_add("q", &backend, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "'wait' is not possible here: the monitor would stop answering");
    sock.wait = false;
    qapi_free_ChardevReturn(qmp_chardev_add("q", &backend, &error_abort));
    g_autoptr(QIOChannel) client = dial("q");
    qmp_chardev_remove("q", &err2);
    g_assert_null(err2);

    ChardevCommon none = { 0 };
    ChardevBackend pty = { .type = CHARDEV_BACKEND_KIND_PTY, .u.pty.data = &none };
    ChardevReturn *ret = qmp_chardev_add("t", &pty, &error_abort);
    g_assert_true(g_str_has_prefix(ret->pty, "/dev/"));
    qapi_free_ChardevReturn(ret);
    g_free(path.path);

    ChardevBackendInfoList *kinds = qmp_query_chardev_backends(&error_abort);
    g_assert_cmpuint(QAPI_LIST_LENGTH(kinds), ==, CHARDEV_BACKEND_KIND__MAX);
    qapi_free_ChardevBackendInfoList(kinds);
    chardev_cleanup();
    g_assert_null(chardev_find("t"));
}

int main(int argc, char **argv)
{
    char_test_init(&argc, &argv);
    g_test_add_func("/char/bad-options", test_bad_options);
    g_test_add_func("/char/legacy", test_legacy);
    g_test_add_func("/char/ids", test_ids);
    g_test_add_func("/char/file", test_file);
    g_test_add_func("/char/pipe", test_pipe);
    g_test_add_func("/char/fd", test_fd);
    g_test_add_func("/char/pty", test_pty);
    g_test_add_func("/char/stdio-tty", test_stdio_tty);
    g_test_add_func("/char/stdio-eof", test_stdio_eof);
    g_test_add_func("/char/server", test_server);
    g_test_add_func("/char/second-client", test_second_client);
    g_test_add_func("/char/wait", test_wait);
    g_test_add_func("/char/client", test_client);
    g_test_add_func("/char/reconnect", test_reconnect);
    g_test_add_func("/char/fds", test_fds);
    g_test_add_func("/char/can-read", test_can_read);
    g_test_add_func("/char/slow-client", test_slow_client);
    g_test_add_func("/char/watch-hangup", test_watch_hangup);
    g_test_add_func("/char/broken-write", test_broken_write);
    g_test_add_func("/char/gone-unread", test_gone_unread);
    g_test_add_func("/char/stdio-continue", test_stdio_continue);
    g_test_add_func("/char/threads", test_threads);
    g_test_add_func("/char/qmp", test_qmp);
    return char_test_run();
}
