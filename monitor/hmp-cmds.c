/*
 * HMP: help, and commands that run, stop and end the machine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "monitor/hmp.h"
#include "monitor/monitor-internal.h"
#include "qapi/qapi-commands-control.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-commands-misc.h"

/* ---- help ---- */

static void help_one(Monitor *mon, const HMPCommand *cmd, const char *prefix)
{
    monitor_printf(mon, "%s%s%s%s %s -- %s\n", prefix, cmd->name, cmd->alias ? "|" : "",
                   cmd->alias ? cmd->alias : "", cmd->params, cmd->help);
}

static void help_table(Monitor *mon, const HMPCommand *table, const char *prefix)
{
    for (; table->name; table++) {
        help_one(mon, table, prefix);
    }
}

/* "help", "help NAME", "help info NAME"; a command with sub-commands lists them. */
void hmp_help(Monitor *mon, HMPArgs *args)
{
    const char *names = hmp_str(args, "name");
    g_auto(GStrv) words = g_strsplit_set(names ? names : "", " \t", -1);
    g_autoptr(GString) prefix = g_string_new(NULL);
    const HMPCommand *table = hmp_commands, *cmd = NULL;

    for (char **w = words; *w; w++) {
        if (!**w) {
            continue;
        }
        cmd = table ? hmp_find(table, *w) : NULL;
        if (!cmd) {
            monitor_printf(mon, "unknown command: '%s%s'\n", prefix->str, *w);
            return;
        }
        table = cmd->sub;
        if (table) {
            g_string_append_printf(prefix, "%s ", cmd->name);
        }
    }
    if (table) {
        help_table(mon, table, prefix->str);
    } else {
        help_one(mon, cmd, prefix->str);
    }
}

void hmp_info_help(Monitor *mon, HMPArgs *args)
{
    help_table(mon, hmp_find(hmp_commands, "info")->sub, "info ");
}

/* ---- run state ---- */

void hmp_quit(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_quit(&err);
    hmp_handle_error(mon, err);
}

void hmp_stop(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_stop(&err);
    hmp_handle_error(mon, err);
}

void hmp_cont(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_cont(&err);
    hmp_handle_error(mon, err);
}

void hmp_system_reset(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_system_reset(&err);
    hmp_handle_error(mon, err);
}

void hmp_system_powerdown(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_system_powerdown(&err);
    hmp_handle_error(mon, err);
}

/* ---- the monitor itself ---- */

void hmp_cpu(Monitor *mon, HMPArgs *args)
{
    int64_t index = hmp_int(args, "index", 0);

    if (index < 0 || index >= cpus_count()) {
        monitor_printf(mon, "invalid CPU index\n");
        return;
    }
    mon->cpu_index = index;
}

void hmp_getfd(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_getfd(hmp_str(args, "fdname"), &err);
    hmp_handle_error(mon, err);
}

void hmp_closefd(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_closefd(hmp_str(args, "fdname"), &err);
    hmp_handle_error(mon, err);
}
