/*
 * Which character device goes to what, and QEMU's defaults where nothing was said.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chardev/char.h"
#include "hw/device.h"
#include "main/frontends.h"
#include "monitor/monitor.h"
#include "system/qtest.h"
#include "system/runstate.h"

#define SERIAL_PORTS_MAX 4

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
    if (!strcmp(option->text, "help") || !strcmp(option->text, "?")) {
        puts("Available chardev backend types:");
        for (int kind = 0; kind < CHARDEV_BACKEND_KIND__MAX; kind++) {
            printf("  %s\n", ChardevBackendKind_str(kind));
        }
        exit(EXIT_SUCCESS);
    }
    return chardev_new_from_opts(option->text, errp) ? 0 : -1;
}

/* ---- serial ports ---- */

/* COM(n + 1) on the character device @spec. With mon: a monitor shares it, and starts hidden. */
static int create_serial(unsigned n, const char *spec, Error **errp)
{
    g_autofree char *id = g_strdup_printf("serial%u", n);
    g_autofree char *monitor = g_strdup_printf("chardev=%s,mode=readline", id);
    Error *err = NULL;
    Chardev *chr = chardev_new_legacy(id, spec, true, &err);
    DeviceState *dev;

    if (!chr) {
        error_propagate(errp, err);
        return err ? -1 : 0;
    }
    dev = device_new("isa-serial", NULL, errp);
    if (!dev) {
        return -1;
    }
    if (!device_set_uint(dev, "index", n, errp) ||
        !device_set_str(dev, "chardev", chardev_id(chr), errp) || !device_realize(dev, errp)) {
        device_delete(dev);
        return -1;
    }
    if (!g_str_has_prefix(spec, "mon:")) {
        return 0;
    }
    chardev_mux_keep_focus(chr);
    return monitor_init_opts(monitor, errp) ? 0 : -1;
}

static bool uses_terminal_as_monitor(const CommandLine *cl)
{
    for (guint i = 0; i < cl->serials->len; i++) {
        if (g_str_has_prefix(g_array_index(cl->serials, TextOption, i).text, "mon:")) {
            return true;
        }
    }
    return cl->monitors->len > 0;
}

/* What there is without -serial and -monitor. */
static int default_frontends(const CommandLine *cl, Error **errp)
{
    bool monitor_is_default = !uses_terminal_as_monitor(cl), serial_is_default = !cl->serials->len;

    if (cl->nodefaults) {
        return 0;
    }
    if (!cl->nographic) {
        return serial_is_default ? create_serial(0, "null", errp) : 0;
    }
    if (serial_is_default) {
        return create_serial(0, monitor_is_default ? "mon:stdio" : "stdio", errp);
    }
    return monitor_is_default && !monitor_init_device("stdio", MONITOR_MODE_READLINE, false, errp)
           ? -1 : 0;
}

int frontends_create_serials(const CommandLine *cl, Error **errp)
{
    for (guint i = 0; i < cl->serials->len; i++) {
        const TextOption *option = &g_array_index(cl->serials, TextOption, i);

        if (i >= SERIAL_PORTS_MAX) {
            error_setg(errp, "-serial %s: there are %d serial ports at most", option->text,
                       SERIAL_PORTS_MAX);
            return -1;
        }
        if (create_serial(i, option->text, errp) < 0) {
            error_prepend(errp, "-serial %s: ", option->text);
            return -1;
        }
    }
    return default_frontends(cl, errp);
}

/* ---- the rest ---- */

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

/* Ctrl-A x on a terminal that serial port and monitor share. */
static void quit_by_key(void)
{
    system_set_shutdown_action(SHUTDOWN_ACTION_POWEROFF);
    system_shutdown_request(SHUTDOWN_CAUSE_HOST_UI);
}

int frontends_create_chardevs(const CommandLine *cl, Error **errp)
{
    monitor_init_globals();
    chardev_mux_set_quit_handler(quit_by_key);
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
