/*
 * Reading and writing pipes, terminals and other descriptors that shutdown(2) does not know.
 *
 * A thread that sleeps inside read(2) on a pipe can be woken by nobody, so none ever does: the
 * descriptor never blocks, and a blocking channel sleeps in poll(2) on it together with the eventfd
 * that qio_channel_shutdown() makes readable.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/channel-class.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

static gpointer ignore_sigpipe_once(gpointer unused)
{
    struct sigaction now;

    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN);
    }
    return NULL;
}

void qio_channel_ignore_sigpipe(void)
{
    static GOnce once = G_ONCE_INIT;

    g_once(&once, ignore_sigpipe_once, NULL);
}

int qio_channel_stream_setup(QIOChannel *ioc, int fd, Error **errp)
{
    int flags = fcntl(fd, F_GETFL);

    qio_channel_ignore_sigpipe();
    if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        return qio_channel_fail(ioc, "set the blocking mode of", errno, errp);
    }
    for (int i = 0; i < 2; i++) {
        if (ioc->wake_fd[i] < 0) {
            ioc->wake_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        }
        if (ioc->wake_fd[i] < 0) {
            return qio_channel_fail(ioc, "create an eventfd for", errno, errp);
        }
    }
    return 0;
}

ssize_t qio_channel_stream_readv(QIOChannel *ioc, int fd, const struct iovec *iov, size_t niov,
                                 Error **errp)
{
    for (;;) {
        ssize_t n = readv(fd, iov, MIN(niov, IOV_MAX));

        if (n >= 0) {
            return n;
        }
        /* The other side of a pseudo terminal is gone: the end, in the words of a tty. */
        if (errno == EIO) {
            return 0;
        }
        if (errno == EAGAIN) {
            if (!ioc->blocking) {
                return QIO_CHANNEL_ERR_BLOCK;
            }
            qio_channel_wait(ioc, G_IO_IN);
            if (qio_channel_ended(ioc, CHANNEL_ENDED_READ)) {
                return 0;
            }
        } else if (errno != EINTR) {
            return qio_channel_fail(ioc, "read from", errno, errp);
        }
    }
}

ssize_t qio_channel_stream_writev(QIOChannel *ioc, int fd, const struct iovec *iov, size_t niov,
                                  Error **errp)
{
    for (;;) {
        ssize_t n = writev(fd, iov, MIN(niov, IOV_MAX));

        if (n >= 0) {
            return n;
        }
        if (errno == EAGAIN) {
            if (!ioc->blocking) {
                return QIO_CHANNEL_ERR_BLOCK;
            }
            qio_channel_wait(ioc, G_IO_OUT);
            if (qio_channel_ended(ioc, CHANNEL_ENDED_WRITE)) {
                return qio_channel_fail(ioc, "write to", EPIPE, errp);
            }
        } else if (errno != EINTR) {
            return qio_channel_fail(ioc, "write to", errno, errp);
        }
    }
}

void qio_channel_stream_end_write(int fd)
{
    /* Not close(): another thread may be about to write, and would hit who gets the number next. */
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null >= 0) {
        dup3(null, fd, O_CLOEXEC);
        close(null);
    }
}
