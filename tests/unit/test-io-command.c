/*
 * Commands as channels: how a child ends and what closing makes of it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "io/channel-command.h"

static QIOChannel *spawn(const char *script, int flags)
{
    const char *argv[] = { "/bin/sh", "-c", script, NULL };

    return QIO_CHANNEL(qio_channel_command_new_spawn(argv, flags, &error_abort));
}

static pid_t pid_of(QIOChannel *ioc)
{
    return qio_channel_command_get_pid((QIOChannelCommand *)ioc);
}

/* Everything that it writes, as text. */
static char *read_text(QIOChannel *ioc)
{
    GString *text = g_string_new(NULL);
    char c;

    while (qio_channel_read_all_eof(ioc, &c, 1, &error_abort) == 1) {
        g_string_append_c(text, c);
    }
    return g_string_free(text, FALSE);
}

static void test_read(void)
{
    g_autoptr(QIOChannel) ioc = spawn("printf one; printf two", O_RDONLY);
    g_autofree char *text = read_text(ioc);
    g_autoptr(Error) err = NULL;

    g_assert_cmpstr(text, ==, "onetwo");
    g_assert_cmpint(qio_channel_write(ioc, "x", 1, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not write to command '/bin/sh -c printf one; printf two': "
                    "Bad file descriptor");
    g_assert_cmpint(qio_channel_close(ioc, &error_abort), ==, 0);
    g_assert_cmpint(pid_of(ioc), ==, -1);
}

/* Closing waits until what was written has been worked on. */
static void test_write(void)
{
    g_autofree char *dir = g_dir_make_tmp("ferry-test-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/out", dir);
    g_autofree char *script = g_strdup_printf("cat > %s.new && mv %s.new %s", path, path, path);
    g_autofree char *text = NULL;
    g_autoptr(QIOChannel) ioc = spawn(script, O_WRONLY);

    g_assert_cmpint(qio_channel_write_all(ioc, "payload", 7, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_close(ioc, &error_abort), ==, 0);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "payload");
    unlink(path);
    rmdir(dir);
}

/* The end of its input lets it finish while we still read. */
static void test_filter(void)
{
    g_autoptr(QIOChannel) ioc = spawn("sort", O_RDWR);

    qio_channel_write_all(ioc, "c\na\nb\n", 6, &error_abort);
    g_assert_cmpint(qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_WRITE, &error_abort), ==, 0);
    g_autofree char *text = read_text(ioc);
    g_assert_cmpstr(text, ==, "a\nb\nc\n");
    g_assert_cmpint(qio_channel_get_fd(ioc), ==, -1);
    g_assert_cmpint(qio_channel_close(ioc, &error_abort), ==, 0);
}

static void check_close_error(const char *script, int flags, const char *msg)
{
    g_autoptr(QIOChannel) ioc = spawn(script, flags);
    g_autoptr(Error) err = NULL;

    g_assert_cmpint(qio_channel_close(ioc, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, msg);
}

static void test_status(void)
{
    g_autoptr(Error) err = NULL;
    static const char *const missing[] = { "/nonexistent/program", "x", NULL };

    check_close_error("exit 3", O_WRONLY,
                      "Command '/bin/sh -c exit 3' failed with exit status 3");
    check_close_error("kill -TERM $$", O_RDONLY,
                      "Command '/bin/sh -c kill -TERM $$' was killed by signal 15 (Terminated)");
    g_assert_null(qio_channel_command_new_spawn(missing, O_RDONLY, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not start command '/nonexistent/program x': "
                    "No such file or directory");
}

/* We stop reading what never ends: its death by SIGPIPE is our doing. */
static void test_not_read_to_end(void)
{
    g_autoptr(QIOChannel) ioc = spawn("exec yes", O_RDONLY);
    char buf[4];

    g_assert_cmpint(qio_channel_read_all(ioc, buf, 4, &error_abort), ==, 0);
    g_assert_cmpmem(buf, 4, "y\ny\n", 4);
    g_assert_cmpint(qio_channel_close(ioc, &error_abort), ==, 0);
}

/* A child that goes away is an error for who writes, not a signal. */
static void test_broken_pipe(void)
{
    g_autoptr(QIOChannel) ioc = spawn("exec <&-; echo closed; exec cat /dev/null", O_RDWR);
    g_autofree char *text = read_text(ioc);
    g_autoptr(Error) err = NULL;

    g_assert_cmpstr(text, ==, "closed\n");
    g_assert_cmpint(qio_channel_write_all(ioc, "x", 1, &err), ==, -1);
    g_assert_true(g_str_has_suffix(error_get_pretty(err), ": Broken pipe"));
}

/* Cancelled: neither an end of input nor SIGTERM impresses it, nor its child. */
static void test_cancel(void)
{
    g_autoptr(QIOChannel) ioc = spawn("trap '' TERM HUP; echo ready; while :; do sleep 60; done",
                                      O_RDWR);
    pid_t pid = pid_of(ioc);
    char buf[6];

    g_assert_cmpint(qio_channel_read_all(ioc, buf, 6, &error_abort), ==, 0);
    g_assert_cmpint(getpgid(pid), ==, pid);
    qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_BOTH, &error_abort);
    g_assert_cmpint(qio_channel_close(ioc, &error_abort), ==, 0);
    /* Nothing of its process group is left but what init has yet to collect. */
    g_assert_cmpint(kill(pid, 0), ==, -1);
    g_assert_cmpint(errno, ==, ESRCH);
}

/* It gets the standard streams and no other descriptor of ours, inheritable or not. */
static void test_no_leaks(void)
{
    int leak = dup(0);
    g_autoptr(QIOChannel) ioc = spawn("exec ls /proc/self/fd", O_RDONLY);
    g_autofree char *text = read_text(ioc);

    /* 3 is the directory that ls reads. */
    g_assert_cmpstr(text, ==, "0\n1\n2\n3\n");
    close(leak);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/command/read", test_read);
    g_test_add_func("/command/write", test_write);
    g_test_add_func("/command/filter", test_filter);
    g_test_add_func("/command/status", test_status);
    g_test_add_func("/command/not-read-to-end", test_not_read_to_end);
    g_test_add_func("/command/broken-pipe", test_broken_pipe);
    g_test_add_func("/command/cancel", test_cancel);
    g_test_add_func("/command/no-leaks", test_no_leaks);
    return g_test_run();
}
