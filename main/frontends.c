/*
 * Which character device goes to what, and QEMU's defaults where nothing was said.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "chardev/char.h"
#include "main/frontends.h"
#include "monitor/monitor.h"
#include "system/qtest.h"

static int each(const GArray *texts, int (*fn)(const TextOption *option, Error **errp),
                Error **errp)
{
    for (guint i = 0; i < texts->len; i++) {
        const TextOption *option = &g_array_index(texts, TextOption, i);

        if (fn(option, errp) < 0) {
            error_prepend(errp, "-%s %s: ", option->option, option->text);
            return -1;
        }
    }
    return 0;
}

static int create_chardev(const TextOption *option, Error **errp)
{
    return chardev_new_from_opts(option->text, errp) ? 0 : -1;
}

static int create_monitor(const TextOption *option, Error **errp)
{
    bool qmp = g_str_has_prefix(option->option, "qmp"), ok;

    if (!strcmp(option->option, "mon")) {
        ok = monitor_init_opts(option->text, errp);
    } else {
        ok = monitor_init_device(option->text, qmp ? MONITOR_MODE_CONTROL : MONITOR_MODE_READLINE,
                                 !strcmp(option->option, "qmp-pretty"), errp);
    }
    return ok ? 0 : -1;
}

static int add_fds(const CommandLine *cl, Error **errp)
{
    for (guint i = 0; i < cl->add_fds->len; i++) {
        const AddFdOption *option = &g_array_index(cl->add_fds, AddFdOption, i);

        if (!fdset_add_inherited(option->fd, option->set, option->opaque, errp)) {
            error_prepend(errp, "-add-fd fd=%d: ", option->fd);
            return -1;
        }
    }
    fdset_close_inherited();
    return 0;
}

int frontends_create_chardevs(const CommandLine *cl, Error **errp)
{
    monitor_init_globals();
    return add_fds(cl, errp) < 0 ? -1 : each(cl->chardevs, create_chardev, errp);
}

int frontends_start(const CommandLine *cl, Error **errp)
{
    if (cl->qtest && qtest_server_init(cl->qtest, cl->qtest_log, errp) < 0) {
        error_prepend(errp, "-qtest %s: ", cl->qtest);
        return -1;
    }
    return each(cl->monitors, create_monitor, errp);
}

void frontends_cleanup(void)
{
    monitor_cleanup();
    qtest_server_cleanup();
    chardev_cleanup();
}
