/*
 * File descriptors by name, and opening files.
 *
 * Duplicates of a descriptor share its file position and flags, so that what is asked of a set must
 * match what is in it: setting O_DIRECT on a duplicate would set it on all.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/fd-resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cutils.h"

#define FDSET_PREFIX "/dev/fdset/"

static IoFdResolver *fd_resolver;
static IoFdsetOpener *fdset_opener;

void io_fd_set_resolver(IoFdResolver *resolver)
{
    fd_resolver = resolver;
}

void io_fdset_set_opener(IoFdsetOpener *opener)
{
    fdset_opener = opener;
}

static int resolve(const char *name, bool take, Error **errp)
{
    if (fd_resolver) {
        return fd_resolver(name, take, errp);
    }
    error_setg(errp, "File descriptor named '%s' has not been found", name);
    return -1;
}

/* Descriptors that were inherited came through an exec, so they are not close-on-exec. */
static int inherited(const char *number, Error **errp)
{
    uint64_t fd;
    int flags;

    if (!parse_uint64_range(number, 0, INT_MAX, &fd, errp)) {
        error_prepend(errp, "Invalid file descriptor: ");
        return -1;
    }
    flags = fcntl(fd, F_GETFD);
    if (flags < 0) {
        error_setg_errno(errp, errno, "Could not use file descriptor %s", number);
        return -1;
    }
    if (flags & FD_CLOEXEC) {
        error_setg(errp, "File descriptor %s was not inherited, or is in use already", number);
        return -1;
    }
    return fd;
}

/* Standard streams keep their numbers, or others would get them and be written to by mistake. */
static int replace_standard(int fd, Error **errp)
{
    int ours = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (ours < 0 || null < 0) {
        error_setg_errno(errp, errno, "Could not take file descriptor %d over", fd);
        if (ours >= 0) {
            close(ours);
        }
        ours = -1;
    } else {
        dup2(null, fd);
    }
    if (null >= 0) {
        close(null);
    }
    return ours;
}

int io_fd_peek(const char *name, Error **errp)
{
    return g_ascii_isdigit(*name) ? inherited(name, errp) : resolve(name, false, errp);
}

int io_fd_get(const char *name, Error **errp)
{
    int fd;

    if (!g_ascii_isdigit(*name)) {
        return resolve(name, true, errp);
    }
    fd = inherited(name, errp);
    if (fd >= 0 && fd <= STDERR_FILENO) {
        return replace_standard(fd, errp);
    }
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd;
}

static const char *access_name(int flags)
{
    switch (flags & O_ACCMODE) {
    case O_RDONLY:
        return "read-only";
    case O_WRONLY:
        return "write-only";
    default:
        return "read-write";
    }
}

int io_fdset_pick(const int *fds, size_t n, int64_t id, int flags, Error **errp)
{
    for (size_t i = 0; i < n; i++) {
        int has = fcntl(fds[i], F_GETFL);

        if (has < 0 || (has ^ flags) & (O_ACCMODE | O_DIRECT)) {
            continue;
        }
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            error_setg_errno(errp, errno, "Could not duplicate file descriptor %d of fdset %"
                             PRId64, fds[i], id);
        }
        return fd;
    }
    error_setg(errp, "fdset %" PRId64 " has no %s file descriptor %s O_DIRECT", id,
               access_name(flags), flags & O_DIRECT ? "with" : "without");
    return -1;
}

static int open_from_set(const char *path, int flags, Error **errp)
{
    uint64_t id;
    struct stat st;

    if (!parse_uint64_range(path + strlen(FDSET_PREFIX), 0, INT64_MAX, &id, errp)) {
        return -1;
    }
    if (!fdset_opener) {
        error_setg(errp, "there are no sets of file descriptors");
        return -1;
    }

    int fd = fdset_opener(id, flags, errp);
    if (fd >= 0 && flags & O_TRUNC && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        ftruncate(fd, 0) < 0) {
        error_setg_errno(errp, errno, "could not truncate it");
        close(fd);
        return -1;
    }
    return fd;
}

int io_open(const char *path, int flags, mode_t mode, Error **errp)
{
    int fd;

    if (g_str_has_prefix(path, FDSET_PREFIX)) {
        fd = open_from_set(path, flags, errp);
        if (fd < 0) {
            error_prepend(errp, "Could not open '%s': ", path);
        }
        return fd;
    }

    do {
        fd = open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0 && errno == EINVAL && flags & O_DIRECT) {
        error_setg(errp, "Could not open '%s': its file system does not support O_DIRECT", path);
    } else if (fd < 0) {
        error_setg_errno(errp, errno, "Could not open '%s'", path);
    }
    return fd;
}
