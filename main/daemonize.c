/*
 * Two forks: the first child leads a new session, the second cannot get a terminal again. The first
 * parent waits at the end of a pipe; what comes out, a byte or the end, is how the start went.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "main/daemonize.h"

static int ready_fd = -1;
static char *pidfile_path;
static int pidfile_fd = -1;

static G_GNUC_NORETURN void wait_for_child(int fd)
{
    char byte;
    ssize_t n;

    do {
        n = read(fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    _exit(n == 1 ? 0 : 1);
}

int daemonize_begin(Error **errp)
{
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_setg_errno(errp, errno, "Could not create a pipe");
        return -1;
    }
    pid = fork();
    if (pid < 0) {
        error_setg_errno(errp, errno, "Could not fork");
        return -1;
    }
    if (pid > 0) {
        close(fds[1]);
        wait_for_child(fds[0]);
    }
    close(fds[0]);
    ready_fd = fds[1];
    setsid();
    pid = fork();
    if (pid != 0) {
        _exit(pid < 0 ? 1 : 0);
    }
    umask(027);
    signal(SIGTSTP, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    signal(SIGTTIN, SIG_IGN);
    return 0;
}

int daemonize_finish(Error **errp)
{
    int null;
    ssize_t n;

    if (ready_fd < 0) {
        return 0;
    }
    if (chdir("/") < 0) {
        error_setg_errno(errp, errno, "Could not change directory to /");
        return -1;
    }
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) {
        error_setg_errno(errp, errno, "Could not open /dev/null");
        return -1;
    }
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    close(null);
    do {
        n = write(ready_fd, "", 1);
    } while (n < 0 && errno == EINTR);
    close(ready_fd);
    ready_fd = -1;
    return 0;
}

static void remove_pidfile(void)
{
    if (pidfile_path) {
        unlink(pidfile_path);
    }
}

/* The locked file may have been removed by its owner's end between open and lock: look again. */
static bool is_still_there(int fd, const char *path)
{
    struct stat by_fd, by_path;

    return fstat(fd, &by_fd) == 0 && stat(path, &by_path) == 0 && by_fd.st_ino == by_path.st_ino &&
           by_fd.st_dev == by_path.st_dev;
}

int pidfile_create(const char *path, Error **errp)
{
    char text[32];
    int fd, length;

    for (;;) {
        fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
        if (fd < 0) {
            error_setg_errno(errp, errno, "Cannot open pid file '%s'", path);
            return -1;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            error_setg_errno(errp, errno, "Cannot lock pid file '%s'", path);
            close(fd);
            return -1;
        }
        if (is_still_there(fd, path)) {
            break;
        }
        close(fd);
    }
    length = g_snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || write(fd, text, length) != length) {
        error_setg_errno(errp, errno, "Cannot write pid file '%s'", path);
        unlink(path);
        close(fd);
        return -1;
    }
    pidfile_fd = fd;                    /* kept open: the lock lives as long as it */
    pidfile_path = g_canonicalize_filename(path, NULL);
    atexit(remove_pidfile);
    return 0;
}
