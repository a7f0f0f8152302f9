/*
 * Files as channels, and opening them: by name, by descriptor, out of a set of descriptors.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "io/fd-resolver.h"

static char *dir;
static char *path;

static void check_open_error(const char *name, int flags, const char *msg)
{
    g_autoptr(Error) err = NULL;

    g_assert_null(qio_channel_file_new_path(name, flags, 0600, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, msg);
}

static void test_errors(void)
{
    g_autoptr(Error) err = NULL, err2 = NULL;
    g_autofree char *is_dir = g_strdup_printf("Could not use file '%s': Is a directory", dir);

    check_open_error("/nonexistent/x", O_RDONLY,
                     "Could not open '/nonexistent/x': No such file or directory");
    check_open_error(dir, O_RDONLY, is_dir);
    check_open_error("/proc/version", O_RDONLY | O_DIRECT,
                     "Could not open '/proc/version': its file system does not support O_DIRECT");
    g_assert_null(qio_channel_file_new_fd(999999, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not use file descriptor 999999: Bad file descriptor");
    g_assert_null(qio_channel_file_new_dupfd(999999, &err2));
    g_assert_cmpstr(error_get_pretty(err2), ==,
                    "Could not duplicate file descriptor 999999: Bad file descriptor");
}

/* The system's reason reaches the caller, with the name. */
static void test_disk_full(void)
{
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(
        qio_channel_file_new_path("/dev/full", O_WRONLY, 0, &error_abort));
    g_autoptr(Error) err = NULL;

    g_assert_cmpint(qio_channel_write_all(ioc, "x", 1, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not write to file '/dev/full': No space left on device");
}

static void test_dupfd(void)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_file_new_dupfd(fd, &error_abort));
    char buf[4];

    g_assert_true(qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE));
    g_assert_nonnull(qio_channel_file_cast(ioc));
    g_assert_cmpint(qio_channel_get_fd(ioc), !=, fd);
    qio_channel_write_all(ioc, "data", 4, &error_abort);
    qio_channel_unref(ioc);
    g_assert_cmpint(pread(fd, buf, 4, 0), ==, 4);
    g_assert_cmpmem(buf, 4, "data", 4);
    close(fd);
}

/* A set as a monitor would keep it. */
static int set_fds[4];
static size_t set_size;

static int test_opener(int64_t id, int flags, Error **errp)
{
    if (id != 7) {
        error_setg(errp, "fdset %d is unknown", (int)id);
        return -1;
    }
    return io_fdset_pick(set_fds, set_size, id, flags, errp);
}

static void test_fdset(void)
{
    struct stat st;
    g_autofree char *big = g_strnfill(100, 'x');

    check_open_error("/dev/fdset/7", O_RDONLY,
                     "Could not open '/dev/fdset/7': there are no sets of file descriptors");
    io_fdset_set_opener(test_opener);
    g_assert_true(g_file_set_contents(path, big, -1, NULL));
    set_fds[0] = open(path, O_RDONLY | O_CLOEXEC);
    set_size = 1;
    check_open_error("/dev/fdset/8", O_RDONLY,
                     "Could not open '/dev/fdset/8': fdset 8 is unknown");
    check_open_error("/dev/fdset/x", O_RDONLY,
                     "Could not open '/dev/fdset/x': 'x' is not a number");
    check_open_error("/dev/fdset/7", O_WRONLY,
                     "Could not open '/dev/fdset/7': fdset 7 has no write-only file descriptor "
                     "without O_DIRECT");
    check_open_error("/dev/fdset/7", O_RDONLY | O_DIRECT,
                     "Could not open '/dev/fdset/7': fdset 7 has no read-only file descriptor "
                     "with O_DIRECT");

    int fd = io_open("/dev/fdset/7", O_RDONLY, 0, &error_abort);
    g_assert_cmpint(fd, !=, set_fds[0]);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    close(fd);

    /* The right one of several; O_TRUNC is carried out, O_CREAT is meaningless. */
    set_fds[1] = open(path, O_RDWR | O_CLOEXEC);
    set_size = 2;
    fd = io_open("/dev/fdset/7", O_RDWR | O_CREAT | O_TRUNC, 0600, &error_abort);
    g_assert_cmpint(fcntl(fd, F_GETFL) & O_ACCMODE, ==, O_RDWR);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 0);
    close(fd);
    close(set_fds[0]);
    close(set_fds[1]);
    io_fdset_set_opener(NULL);
}

/* The flag decides between two that are otherwise the same. */
static void test_fdset_direct(void)
{
    set_fds[0] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    set_fds[1] = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
    if (set_fds[1] < 0) {
        close(set_fds[0]);
        g_test_skip("the file system does not support O_DIRECT");
        return;
    }
    set_size = 2;
    io_fdset_set_opener(test_opener);
    for (int direct = 0; direct <= 1; direct++) {
        int want = direct ? O_DIRECT : 0;
        int fd = io_open("/dev/fdset/7", O_RDWR | want, 0, &error_abort);

        g_assert_cmpint(fcntl(fd, F_GETFL) & O_DIRECT, ==, want);
        close(fd);
    }
    close(set_fds[0]);
    close(set_fds[1]);
    io_fdset_set_opener(NULL);
}

static void test_fd_get(void)
{
    g_autoptr(Error) err = NULL, err2 = NULL, err3 = NULL, err4 = NULL;
    int fd = dup(0);
    g_autofree char *number = g_strdup_printf("%d", fd);

    g_assert_cmpint(fcntl(fd, F_GETFD), ==, 0);
    g_assert_cmpint(io_fd_peek(number, &error_abort), ==, fd);
    g_assert_cmpint(io_fd_get(number, &error_abort), ==, fd);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    /* Once; what this process opens itself is never to be had. */
    g_assert_cmpint(io_fd_get(number, &err4), ==, -1);
    g_autofree char *taken =
        g_strdup_printf("File descriptor %d was not inherited, or is in use already", fd);
    g_assert_cmpstr(error_get_pretty(err4), ==, taken);
    close(fd);

    g_assert_cmpint(io_fd_get("nobody", &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "File descriptor named 'nobody' has not been found");
    g_assert_cmpint(io_fd_get("3x", &err2), ==, -1);
    g_assert_cmpstr(error_get_pretty(err2), ==,
                    "Invalid file descriptor: '3x' is not a number");
    g_assert_cmpint(io_fd_get("2147483648", &err3), ==, -1);
    g_assert_cmpstr(error_get_pretty(err3), ==,
                    "Invalid file descriptor: '2147483648' is out of range: a number from 0 to "
                    "2147483647 is expected");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("ferry-test-XXXXXX", NULL);
    path = g_strdup_printf("%s/file", dir);
    g_test_add_func("/file/errors", test_errors);
    g_test_add_func("/file/disk-full", test_disk_full);
    g_test_add_func("/file/dupfd", test_dupfd);
    g_test_add_func("/file/fdset", test_fdset);
    g_test_add_func("/file/fdset-direct", test_fdset_direct);
    g_test_add_func("/file/fd-get", test_fd_get);
    int ret = g_test_run();
    g_unlink(path);
    g_rmdir(dir);
    g_free(path);
    g_free(dir);
    return ret;
}
