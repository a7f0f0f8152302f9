/*
 * Channels over files, devices, pipes and terminals.
 *
 * What a descriptor is decides fstat() once: with a position it is read and written directly and
 * never waits, without one it is a stream (channel-stream.c).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/channel-file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/channel-class.h"
#include "io/fd-resolver.h"

struct QIOChannelFile {
    QIOChannel parent;
    int fd;
    bool stream;
};

static ssize_t file_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                          size_t *nfds, Error **errp)
{
    QIOChannelFile *f = (QIOChannelFile *)ioc;
    ssize_t n;

    if (f->stream) {
        return qio_channel_stream_readv(ioc, f->fd, iov, niov, errp);
    }
    do {
        n = readv(f->fd, iov, MIN(niov, IOV_MAX));
    } while (n < 0 && errno == EINTR);
    return n < 0 ? qio_channel_fail(ioc, "read from", errno, errp) : n;
}

static ssize_t file_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, const int *fds,
                           size_t nfds, Error **errp)
{
    QIOChannelFile *f = (QIOChannelFile *)ioc;
    ssize_t n;

    if (f->stream) {
        return qio_channel_stream_writev(ioc, f->fd, iov, niov, errp);
    }
    do {
        n = writev(f->fd, iov, MIN(niov, IOV_MAX));
    } while (n < 0 && errno == EINTR);
    return n < 0 ? qio_channel_fail(ioc, "write to", errno, errp) : n;
}

static ssize_t file_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           Error **errp)
{
    QIOChannelFile *f = (QIOChannelFile *)ioc;
    ssize_t n;

    do {
        n = preadv(f->fd, iov, MIN(niov, IOV_MAX), offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? qio_channel_fail(ioc, "read from", errno, errp) : n;
}

static ssize_t file_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            Error **errp)
{
    QIOChannelFile *f = (QIOChannelFile *)ioc;
    ssize_t n;

    do {
        n = pwritev(f->fd, iov, MIN(niov, IOV_MAX), offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? qio_channel_fail(ioc, "write to", errno, errp) : n;
}

static off_t file_seek(QIOChannel *ioc, off_t offset, int whence, Error **errp)
{
    off_t at = lseek(((QIOChannelFile *)ioc)->fd, offset, whence);

    return at < 0 ? qio_channel_fail(ioc, "seek in", errno, errp) : at;
}

static int file_shutdown(QIOChannel *ioc, QIOChannelShutdown how, Error **errp)
{
    QIOChannelFile *f = (QIOChannelFile *)ioc;
    int flags = fcntl(f->fd, F_GETFL);

    if (f->stream && how != QIO_CHANNEL_SHUTDOWN_READ && (flags & O_ACCMODE) == O_WRONLY) {
        qio_channel_stream_end_write(f->fd);
    }
    return 0;
}

static int file_close(QIOChannel *ioc, Error **errp)
{
    QIOChannelFile *f = (QIOChannelFile *)ioc;

    return close(f->fd) < 0 ? qio_channel_fail(ioc, "close", errno, errp) : 0;
}

static int file_poll_fd(QIOChannel *ioc, GIOCondition direction)
{
    return ((QIOChannelFile *)ioc)->fd;
}

static const QIOChannelClass file_class = {
    .type_name = "file",
    .readv = file_readv,
    .writev = file_writev,
    .preadv = file_preadv,
    .pwritev = file_pwritev,
    .seek = file_seek,
    .shutdown = file_shutdown,
    .close = file_close,
    .poll_fd = file_poll_fd,
};

QIOChannelFile *qio_channel_file_cast(QIOChannel *ioc)
{
    return qio_channel_is(ioc, &file_class) ? (QIOChannelFile *)ioc : NULL;
}

/* @target says in messages what the descriptor is open on; takes ownership of it and of @fd. */
static QIOChannelFile *file_new(int fd, char *target, Error **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not use file descriptor %d", fd);
        g_free(target);
        return NULL;
    }

    QIOChannelFile *f = qio_channel_alloc(sizeof(*f), &file_class);
    QIOChannel *ioc = &f->parent;
    f->fd = fd;
    ioc->target = target;
    if (S_ISDIR(st.st_mode)) {
        qio_channel_fail(ioc, "use", EISDIR, errp);
        qio_channel_unref(ioc);
        return NULL;
    }
    if ((S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) && lseek(fd, 0, SEEK_CUR) >= 0) {
        qio_channel_set_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE);
        return f;
    }
    f->stream = true;
    if (qio_channel_stream_setup(ioc, fd, errp) < 0) {
        qio_channel_unref(ioc);
        return NULL;
    }
    return f;
}

QIOChannelFile *qio_channel_file_new_path(const char *path, int flags, mode_t mode, Error **errp)
{
    int fd = io_open(path, flags, mode, errp);

    return fd < 0 ? NULL : file_new(fd, g_strdup(path), errp);
}

QIOChannelFile *qio_channel_file_new_fd(int fd, Error **errp)
{
    return file_new(fd, g_strdup_printf("fd %d", fd), errp);
}

QIOChannelFile *qio_channel_file_new_dupfd(int fd, Error **errp)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy < 0) {
        error_setg_errno(errp, errno, "Could not duplicate file descriptor %d", fd);
        return NULL;
    }
    return file_new(copy, g_strdup_printf("fd %d", fd), errp);
}
