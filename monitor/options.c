/*
 * Start and configuration: what the command line says becomes MonitorOptions, and those become a
 * monitor of one kind or the other.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/fd-resolver.h"
#include "monitor/monitor-internal.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-init-commands.h"
#include "qapi/qapi-visit-control.h"

/* What a name after "fd:" stands for: the descriptor that the current monitor's client gave. */
static int resolve_fd(const char *name, bool take, Error **errp)
{
    Monitor *mon = monitor_cur();

    if (!mon) {
        error_setg(errp, "File descriptor named '%s' has not been found", name);
        return -1;
    }
    return take ? monitor_get_fd(mon, name, errp) : monitor_peek_fd(mon, name, errp);
}

void monitor_init_globals(void)
{
    qmp_init_marshal(&qmp_commands);
    qmp_init_globals();
    io_fd_set_resolver(resolve_fd);
    io_fdset_set_opener(fdset_open);
}

bool monitor_init(MonitorOptions *opts, Error **errp)
{
    MonitorMode mode = opts->has_mode ? opts->mode : MONITOR_MODE_READLINE;
    Chardev *chr = chardev_find(opts->chardev);

    if (!chr) {
        error_setg(errp, "chardev \"%s\" not found", opts->chardev);
        return false;
    }
    if (mode == MONITOR_MODE_CONTROL) {
        return monitor_init_qmp(chr, opts->has_pretty && opts->pretty, errp);
    }
    if (opts->has_pretty) {
        error_setg(errp, "'pretty' is not compatible with HMP monitors");
        return false;
    }
    return monitor_init_hmp(chr, errp);
}

bool monitor_init_opts(const char *text, Error **errp)
{
    MonitorOptions *opts = NULL;
    Visitor *v = json_input_visitor_new_str(text, "chardev", errp);
    bool ok;

    if (!v) {
        return false;
    }
    ok = visit_type_MonitorOptions(v, NULL, &opts, errp) && monitor_init(opts, errp);
    visit_free(v);
    qapi_free_MonitorOptions(opts);
    return ok;
}

bool monitor_init_device(const char *device, MonitorMode mode, bool pretty, Error **errp)
{
    static unsigned count;
    g_autofree char *label = NULL;
    MonitorOptions opts = {
        .has_mode = true, .mode = mode,
        .has_pretty = mode == MONITOR_MODE_CONTROL, .pretty = pretty,
    };
    Error *err = NULL;
    Chardev *chr;

    label = g_strdup_printf("compat_monitor%u", count++);
    chr = chardev_new_legacy(label, device, false, &err);
    if (!chr && !err) {
        return true;            /* none */
    }
    if (!chr) {
        error_propagate(errp, err);
        return false;
    }
    opts.chardev = (char *)chardev_id(chr);
    return monitor_init(&opts, errp);
}
