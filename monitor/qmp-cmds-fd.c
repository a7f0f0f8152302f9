/*
 * Commands that pass file descriptors. A descriptor travels beside the command's bytes on a UNIX
 * socket; the character device keeps it until a command asks for it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>
#include "monitor/monitor-internal.h"
#include "qapi/qapi-commands-misc.h"

static int take_msgfd(Error **errp)
{
    Monitor *mon = monitor_cur();
    int fd = mon ? monitor_take_msgfd(mon) : -1;

    if (fd < 0) {
        error_setg(errp, "No file descriptor supplied via SCM_RIGHTS");
    }
    return fd;
}

void qmp_getfd(const char *fdname, Error **errp)
{
    int fd = take_msgfd(errp);

    if (fd >= 0) {
        named_fds_add(monitor_cur()->fds, fdname, fd, errp);
    }
}

void qmp_closefd(const char *fdname, Error **errp)
{
    named_fds_close(monitor_cur()->fds, fdname, errp);
}

AddfdInfo *qmp_add_fd(bool has_fdset_id, int64_t fdset_id, const char *opaque, Error **errp)
{
    int fd = take_msgfd(errp);
    int64_t id;
    AddfdInfo *info;

    if (fd < 0) {
        return NULL;
    }
    if (has_fdset_id && fdset_id < 0) {
        error_setg(errp, "Parameter 'fdset-id' expects a non-negative value");
        close(fd);
        return NULL;
    }
    id = fdset_add(fd, has_fdset_id ? fdset_id : -1, opaque, errp);
    if (id < 0) {
        return NULL;
    }
    info = g_new0(AddfdInfo, 1);
    info->fdset_id = id;
    info->fd = fd;
    return info;
}

void qmp_remove_fd(int64_t fdset_id, bool has_fd, int64_t fd, Error **errp)
{
    if (fdset_id < 0 || (has_fd && (fd < 0 || fd > INT_MAX))) {
        error_setg(errp, "File descriptor named 'fdset-id:%" PRId64 ", fd:%" PRId64 "' not found",
                   fdset_id, has_fd ? fd : -1);
        return;
    }
    fdset_remove(fdset_id, has_fd ? (int)fd : -1, errp);
}

typedef struct ListSets {
    FdsetInfoList **set_tail;
    FdsetInfo *set;
    FdsetFdInfoList **fd_tail;
} ListSets;

static void list_fd(int64_t id, int fd, const char *text, void *opaque)
{
    ListSets *l = opaque;
    FdsetFdInfo *info = g_new0(FdsetFdInfo, 1);

    if (!l->set || l->set->fdset_id != id) {
        l->set = g_new0(FdsetInfo, 1);
        l->set->fdset_id = id;
        l->fd_tail = &l->set->fds;
        QAPI_LIST_APPEND(l->set_tail, l->set);
    }
    info->fd = fd;
    info->opaque = g_strdup(text);
    QAPI_LIST_APPEND(l->fd_tail, info);
}

FdsetInfoList *qmp_query_fdsets(Error **errp)
{
    FdsetInfoList *list = NULL;
    ListSets l = { .set_tail = &list };

    fdset_foreach(list_fd, &l);
    return list;
}
