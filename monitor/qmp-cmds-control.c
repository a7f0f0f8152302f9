/*
 * Commands about the program itself: versions, the list of commands, its end.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/monitor.h"
#include "qapi/qapi-commands-control.h"
#include "system/runstate.h"

/* The version of QEMU whose interface ours follows. */
#define INTERFACE_MAJOR 9
#define INTERFACE_MINOR 1
#define INTERFACE_MICRO 0

VersionInfo *qmp_query_version(Error **errp)
{
    VersionInfo *info = g_new0(VersionInfo, 1);

    info->qemu = g_new0(VersionTriple, 1);
    info->qemu->major = INTERFACE_MAJOR;
    info->qemu->minor = INTERFACE_MINOR;
    info->qemu->micro = INTERFACE_MICRO;
    info->package = g_strdup("Ferry " FERRY_VERSION);
    return info;
}

static void add_command(const QmpCommand *cmd, void *opaque)
{
    CommandInfoList **list = opaque;
    CommandInfo *info;

    if (cmd->enabled) {
        info = g_new0(CommandInfo, 1);
        info->name = g_strdup(cmd->name);
        QAPI_LIST_PREPEND(*list, info);
    }
}

CommandInfoList *qmp_query_commands(Error **errp)
{
    CommandInfoList *list = NULL;

    qmp_for_each_command(&qmp_commands, add_command, &list);
    return list;
}

void qmp_quit(Error **errp)
{
    /* -no-shutdown is about the guest's wish, not about ours. */
    system_set_shutdown_action(SHUTDOWN_ACTION_POWEROFF);
    system_shutdown_request(SHUTDOWN_CAUSE_HOST_QMP_QUIT);
}
