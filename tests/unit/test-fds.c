/*
 * Shelves of file descriptors: named ones, fdsets and how one of a set is chosen, and -add-fd.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>
#include "monitor/fds.h"

static char *dir, *file;

static int open_file(int flags)
{
    int fd = open(file, flags | O_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void expect_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_named(void)
{
    NamedFds *fds = named_fds_new();
    int a = open_file(O_RDONLY), b = open_file(O_RDONLY), c = open_file(O_RDONLY);
    Error *err = NULL;

    g_assert_true(named_fds_add(fds, "one", a, &error_abort));
    g_assert_true(named_fds_add(fds, "two", b, &error_abort));
    /* The same name again: the old one is closed. */
    g_assert_true(named_fds_add(fds, "one", c, &error_abort));
    g_assert_false(is_open(a));
    g_assert_cmpint(named_fds_take(fds, "one", &error_abort), ==, c);
    close(c);
    g_assert_cmpint(named_fds_take(fds, "one", &err), ==, -1);
    expect_error(g_steal_pointer(&err), "File descriptor named 'one' has not been found");
    g_assert_false(named_fds_close(fds, "one", &err));
    expect_error(g_steal_pointer(&err), "File descriptor named 'one' not found");
    g_assert_true(named_fds_close(fds, "two", &error_abort));
    g_assert_false(is_open(b));

    a = open_file(O_RDONLY);
    g_assert_false(named_fds_add(fds, "7up", a, &err));
    expect_error(g_steal_pointer(&err),
                 "Parameter 'fdname' expects a name not starting with a digit");
    g_assert_false(is_open(a));
    a = open_file(O_RDONLY);
    named_fds_add(fds, "last", a, &error_abort);
    named_fds_free(fds);
    g_assert_false(is_open(a));
}

static void test_named_limit(void)
{
    NamedFds *fds = named_fds_new();
    Error *err = NULL;

    for (int i = 0; i < NAMED_FDS_MAX; i++) {
        g_autofree char *name = g_strdup_printf("fd%d", i);
        named_fds_add(fds, name, open_file(O_RDONLY), &error_abort);
    }
    g_assert_false(named_fds_add(fds, "more", open_file(O_RDONLY), &err));
    expect_error(err, "Cannot keep file descriptor 'more': there are 128 already");
    named_fds_free(fds);
}

static void append_set(int64_t id, int fd, const char *text, void *opaque)
{
    g_string_append_printf(opaque, "%" PRId64 ":%s ", id, text ? text : "-");
}

static void expect_sets(const char *expect)
{
    g_autoptr(GString) s = g_string_new(NULL);

    fdset_foreach(append_set, s);
    g_assert_cmpstr(s->str, ==, expect);
}

static void test_sets(void)
{
    int a = open_file(O_RDONLY), b = open_file(O_RDONLY);
    Error *err = NULL;

    g_assert_cmpint(fdset_add(a, -1, "a", &error_abort), ==, 0);
    g_assert_cmpint(fdset_add(b, 2, "b", &error_abort), ==, 2);
    g_assert_cmpint(fdset_add(open_file(O_RDONLY), -1, NULL, &error_abort), ==, 1);
    g_assert_cmpint(fdset_add(open_file(O_RDONLY), -1, "c", &error_abort), ==, 3);
    g_assert_cmpint(fdset_add(open_file(O_RDONLY), 0, "d", &error_abort), ==, 0);
    expect_sets("0:a 0:d 1:- 2:b 3:c ");
    g_assert_true(fdset_remove(0, a, &error_abort));
    g_assert_false(is_open(a));
    expect_sets("0:d 1:- 2:b 3:c ");
    g_assert_true(fdset_remove(0, -1, &error_abort));
    g_assert_true(fdset_remove(2, b, &error_abort));
    expect_sets("1:- 3:c ");
    g_assert_false(fdset_remove(2, -1, &err));
    expect_error(g_steal_pointer(&err), "File descriptor named 'fdset-id:2' not found");
    g_assert_false(fdset_remove(1, 12345, &err));
    expect_error(g_steal_pointer(&err),
                 "File descriptor named 'fdset-id:1, fd:12345' not found");
    fdset_cleanup();
    expect_sets("");
}

static void check_open(int64_t id, int flags)
{
    int fd = fdset_open(id, flags, &error_abort);

    g_assert_cmpint(fcntl(fd, F_GETFL) & (O_ACCMODE | O_DIRECT), ==,
                    flags & (O_ACCMODE | O_DIRECT));
    g_assert_cmpint(fcntl(fd, F_GETFD) & FD_CLOEXEC, !=, 0);
    close(fd);
}

static void test_open(void)
{
    Error *err = NULL;

    g_assert_cmpint(fdset_open(5, O_RDONLY, &err), ==, -1);
    expect_error(g_steal_pointer(&err), "fdset 5 does not exist");

    fdset_add(open_file(O_WRONLY), 5, NULL, &error_abort);
    check_open(5, O_WRONLY);
    g_assert_cmpint(fdset_open(5, O_RDONLY, &err), ==, -1);
    expect_error(g_steal_pointer(&err),
                 "fdset 5 has no read-only file descriptor without O_DIRECT");
    g_assert_cmpint(fdset_open(5, O_WRONLY | O_DIRECT, &err), ==, -1);
    expect_error(g_steal_pointer(&err),
                 "fdset 5 has no write-only file descriptor with O_DIRECT");

    fdset_add(open_file(O_RDONLY), 5, NULL, &error_abort);
    check_open(5, O_RDONLY);
    check_open(5, O_WRONLY);
    fdset_cleanup();
}

static void test_open_direct(void)
{
    int direct = open(file, O_WRONLY | O_DIRECT | O_CLOEXEC);

    if (direct < 0) {
        g_assert_cmpint(errno, ==, EINVAL);
        g_test_skip("this file system has no O_DIRECT");
        return;
    }
    fdset_add(open_file(O_WRONLY), 1, NULL, &error_abort);
    fdset_add(direct, 1, NULL, &error_abort);
    check_open(1, O_WRONLY);
    check_open(1, O_WRONLY | O_DIRECT);
    fdset_cleanup();
}

static void test_inherited(void)
{
    int fd = open(file, O_RDONLY);
    Error *err = NULL;

    g_assert_true(fdset_add_inherited(fd, 4, "text", &error_abort));
    g_assert_true(fdset_add_inherited(fd, 6, NULL, &error_abort));
    expect_sets("4:text 6:- ");
    g_assert_true(is_open(fd));
    fdset_close_inherited();
    g_assert_false(is_open(fd));
    check_open(4, O_RDONLY);
    fdset_cleanup();

    fd = open_file(O_RDONLY);
    g_assert_false(fdset_add_inherited(fd, 4, NULL, &err));
    expect_error(g_steal_pointer(&err), "fd is not valid or already in use");
    close(fd);
    g_assert_false(fdset_add_inherited(fd, 4, NULL, &err));
    expect_error(g_steal_pointer(&err), "fd is not valid or already in use");
    g_assert_false(fdset_add_inherited(1, 4, NULL, &err));
    expect_error(g_steal_pointer(&err), "fd cannot be a standard I/O stream");
    expect_sets("");
}

int main(int argc, char **argv)
{
    int result;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("ferry-test-fds-XXXXXX", NULL);
    file = g_build_filename(dir, "file", NULL);
    g_assert_true(g_file_set_contents(file, "x", 1, NULL));
    g_test_add_func("/fds/named", test_named);
    g_test_add_func("/fds/named-limit", test_named_limit);
    g_test_add_func("/fdset/sets", test_sets);
    g_test_add_func("/fdset/open", test_open);
    g_test_add_func("/fdset/open-direct", test_open_direct);
    g_test_add_func("/fdset/inherited", test_inherited);
    result = g_test_run();
    g_unlink(file);
    g_rmdir(dir);
    g_free(file);
    g_free(dir);
    return result;
}
