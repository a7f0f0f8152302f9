/*
 * Transport exec: the standard input (saving) or output (loading) of a command.
 *
 * When saving, the command's exit status is part of the result: a filter that failed did not store
 * the machine. When loading, the stream itself says whether it is whole.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include "io/channel-command.h"

static int exec_check(MigrationChannels *mc, Error **errp)
{
    if (!mc->addr->u.exec.args) {
        error_setg(errp, "transport 'exec': the list 'args' is empty, there is no command to run");
        return -1;
    }
    return 0;
}

static QIOChannel *exec_spawn(MigrationChannels *mc, int flags, Error **errp)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    for (strList *arg = mc->addr->u.exec.args; arg; arg = arg->next) {
        g_ptr_array_add(argv, arg->value);
    }
    g_ptr_array_add(argv, NULL);
    return QIO_CHANNEL(qio_channel_command_new_spawn((const char *const *)argv->pdata, flags,
                                                     errp));
}

static QIOChannel *exec_connect(MigrationChannels *mc, Error **errp)
{
    return exec_spawn(mc, O_WRONLY, errp);
}

static QIOChannel *exec_accept(MigrationChannels *mc, Error **errp)
{
    return exec_spawn(mc, O_RDONLY, errp);
}

/*
 * End of input for the command; what it then says with its exit status is the result. It may take
 * its time, and a cancel does not wait for it.
 */
static int exec_finish(MigrationChannels *mc, Error **errp)
{
    int pidfd = pidfd_open(qio_channel_command_get_pid((QIOChannelCommand *)mc->main), 0);
    struct pollfd fds[] = {
        { .fd = pidfd, .events = POLLIN },
        { .fd = mc->cancel_fd, .events = POLLIN },
    };
    int ret;

    if (pidfd < 0) {
        error_setg_errno(errp, errno, "cannot wait for the %s", mc->describe);
        return -1;
    }
    mutex_lock(&mc->lock);
    if (!mc->shut) {
        qio_channel_shutdown(mc->main, QIO_CHANNEL_SHUTDOWN_WRITE, NULL);
    }
    mutex_unlock(&mc->lock);
    while ((ret = poll(fds, G_N_ELEMENTS(fds), -1)) < 0 && errno == EINTR) {
    }
    close(pidfd);

    mutex_lock(&mc->lock);
    if (mc->shut || ret < 0) {
        error_setg(errp, "the migration was cancelled");
        ret = -1;
    } else {
        ret = qio_channel_close(mc->main, errp);
    }
    mutex_unlock(&mc->lock);
    return ret;
}

const MigrationTransport transport_exec = {
    .name = "exec",
    .outgoing = exec_check,
    .incoming = exec_check,
    .connect = exec_connect,
    .accept = exec_accept,
    .finish = exec_finish,
};
