/*
 * Channels to child processes.
 *
 * posix_spawn() does not copy our page tables, which matters when most of our memory is a guest's.
 * The child is waited for through a pidfd, so that a cancelled one can be given a deadline.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/channel-command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/channel-class.h"

#define CANCEL_GRACE_MS 500

extern char **environ;

struct QIOChannelCommand {
    QIOChannel parent;
    int read_fd;    /* the child's standard output, or -1 */
    int write_fd;   /* the child's standard input, or -1 */
    pid_t pid;
    bool read_eof;
};

static ssize_t command_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                             size_t *nfds, Error **errp)
{
    QIOChannelCommand *c = (QIOChannelCommand *)ioc;

    if (c->read_fd < 0) {
        return qio_channel_fail(ioc, "read from", EBADF, errp);
    }
    ssize_t n = qio_channel_stream_readv(ioc, c->read_fd, iov, niov, errp);
    c->read_eof |= n == 0;
    return n;
}

static ssize_t command_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                              const int *fds, size_t nfds, Error **errp)
{
    QIOChannelCommand *c = (QIOChannelCommand *)ioc;

    if (c->write_fd < 0) {
        return qio_channel_fail(ioc, "write to", EBADF, errp);
    }
    return qio_channel_stream_writev(ioc, c->write_fd, iov, niov, errp);
}

static int command_shutdown(QIOChannel *ioc, QIOChannelShutdown how, Error **errp)
{
    QIOChannelCommand *c = (QIOChannelCommand *)ioc;

    if (how != QIO_CHANNEL_SHUTDOWN_READ && c->write_fd >= 0) {
        qio_channel_stream_end_write(c->write_fd);
    }
    return 0;
}

/* Wait for the child to end, at most @timeout_ms (-1: for ever); false when it has not. */
static bool wait_child(int pidfd, int timeout_ms)
{
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    int ret;

    do {
        ret = poll(&p, 1, timeout_ms);
    } while (ret < 0 && errno == EINTR);
    return ret != 0;
}

/* Its pipes are closed and nobody wants its result: make it end soon. */
static void end_child(pid_t pid)
{
    int pidfd = pidfd_open(pid, 0);

    if (pidfd < 0) {
        kill(-pid, SIGKILL);
        return;
    }
    if (!wait_child(pidfd, CANCEL_GRACE_MS)) {
        kill(-pid, SIGTERM);
    }
    if (!wait_child(pidfd, CANCEL_GRACE_MS)) {
        kill(-pid, SIGKILL);
    }
    close(pidfd);
}

static int report_status(QIOChannelCommand *c, const siginfo_t *how, Error **errp)
{
    const char *command = c->parent.target;

    if (how->si_code == CLD_EXITED) {
        if (how->si_status == 0) {
            return 0;
        }
        error_setg(errp, "Command '%s' failed with exit status %d", command, how->si_status);
        return -1;
    }
    if (how->si_status == SIGPIPE && c->read_fd >= 0 && !c->read_eof) {
        return 0;
    }
    error_setg(errp, "Command '%s' was killed by signal %d (%s)", command, how->si_status,
               strsignal(how->si_status));
    return -1;
}

static int command_close(QIOChannel *ioc, Error **errp)
{
    QIOChannelCommand *c = (QIOChannelCommand *)ioc;
    bool cancelled = qio_channel_ended(ioc, CHANNEL_ENDED_READ) &&
                     qio_channel_ended(ioc, CHANNEL_ENDED_WRITE);
    siginfo_t how = { 0 };
    int ret;

    if (c->write_fd >= 0) {
        close(c->write_fd);
    }
    if (c->read_fd >= 0) {
        close(c->read_fd);
    }
    if (c->pid < 0) {
        return 0;
    }
    if (cancelled) {
        end_child(c->pid);
    }
    do {
        ret = waitid(P_PID, c->pid, &how, WEXITED);
    } while (ret < 0 && errno == EINTR);
    c->pid = -1;
    if (ret < 0) {
        return qio_channel_fail(ioc, "wait for", errno, errp);
    }
    return cancelled ? 0 : report_status(c, &how, errp);
}

static int command_poll_fd(QIOChannel *ioc, GIOCondition direction)
{
    QIOChannelCommand *c = (QIOChannelCommand *)ioc;

    return direction == G_IO_IN ? c->read_fd : c->write_fd;
}

static const QIOChannelClass command_class = {
    .type_name = "command",
    .readv = command_readv,
    .writev = command_writev,
    .shutdown = command_shutdown,
    .close = command_close,
    .poll_fd = command_poll_fd,
};

/* Start the child with @in and @out as its standard streams; an errno value, 0 for success. */
static int spawn(pid_t *pid, const char *const argv[], int in, int out)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, usual;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);

    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGINT);
    sigaddset(&usual, SIGTERM);
    sigaddset(&usual, SIGHUP);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &usual);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                             POSIX_SPAWN_SETPGROUP);

    int err = posix_spawnp(pid, argv[0], &actions, &attr, (char *const *)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

/*
 * Exchange @fd for a duplicate above the standard streams: one that is itself 0 or 1, because we
 * were started with those closed, would be overwritten when the child arranges its own.
 */
static bool move_up(int *fd)
{
    int high = *fd < 0 ? -1 : fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

    close_fd(fd);
    *fd = high;
    return high >= 0;
}

static bool open_pipe(int fds[2])
{
    return pipe2(fds, O_CLOEXEC) == 0 && move_up(&fds[0]) && move_up(&fds[1]);
}

QIOChannelCommand *qio_channel_command_new_spawn(const char *const argv[], int flags,
                                                 Error **errp)
{
    bool rd = (flags & O_ACCMODE) != O_WRONLY;
    bool wr = (flags & O_ACCMODE) != O_RDONLY;
    int in[2] = { -1, -1 }, out[2] = { -1, -1 };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    QIOChannelCommand *c = qio_channel_alloc(sizeof(*c), &command_class);
    QIOChannel *ioc = &c->parent;
    int err = 0;

    ioc->target = g_strjoinv(" ", (char **)argv);
    c->pid = -1;
    c->read_fd = c->write_fd = -1;
    if (!move_up(&null) || (rd && !open_pipe(out)) || (wr && !open_pipe(in))) {
        err = errno;
    } else {
        err = spawn(&c->pid, argv, wr ? in[0] : null, rd ? out[1] : null);
    }
    close_fd(&null);
    close_fd(&in[0]);
    close_fd(&out[1]);
    c->read_fd = out[0];
    c->write_fd = in[1];
    if (err) {
        c->pid = -1;
        qio_channel_fail(ioc, "start", err, errp);
    }
    if (err || (rd && qio_channel_stream_setup(ioc, c->read_fd, errp) < 0) ||
        (wr && qio_channel_stream_setup(ioc, c->write_fd, errp) < 0)) {
        qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
        qio_channel_unref(ioc);
        return NULL;
    }
    return c;
}

pid_t qio_channel_command_get_pid(QIOChannelCommand *c)
{
    return c->pid;
}
