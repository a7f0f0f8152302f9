/*
 * The human monitor on a terminal: prompt, line editing, banner; and human-monitor-command, which
 * is the same without a terminal.
 *
 * While a command has the monitor held (a migration that is waited for), no input is read; it stays
 * with the device and is used when the prompt comes back.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/hmp.h"
#include "monitor/monitor-internal.h"
#include "qapi/qapi-commands-misc.h"

typedef struct MonitorHMP {
    Monitor common;
    ReadLine *rl;
} MonitorHMP;

static MonitorHMP *to_hmp(Monitor *mon)
{
    return (MonitorHMP *)mon;
}

bool hmp_can_wait(Monitor *mon)
{
    return mon->has_device;
}

const char *hmp_history_line(Monitor *mon, unsigned n)
{
    return to_hmp(mon)->rl ? readline_history(to_hmp(mon)->rl, n) : NULL;
}

static void rl_write(void *opaque, const char *text)
{
    monitor_puts(opaque, text);
}

static void rl_execute(void *opaque, const char *line)
{
    Monitor *mon = opaque;
    Monitor *old = monitor_set_cur(mon);

    hmp_execute(mon, line);
    monitor_set_cur(old);
    if (!mon->suspended) {
        readline_start(to_hmp(mon)->rl);
    }
}

static void rl_complete(void *opaque, const char *line, Completions *c)
{
    Monitor *old = monitor_set_cur(opaque);

    hmp_complete(line, c);
    monitor_set_cur(old);
}

static const ReadLineOps rl_ops = {
    .write = rl_write,
    .execute = rl_execute,
    .complete = rl_complete,
};

static void hmp_opened(Monitor *mon)
{
    monitor_printf(mon, "Ferry " FERRY_VERSION " monitor - type 'help' for more information\n");
    readline_start(to_hmp(mon)->rl);
}

static void hmp_closed(Monitor *mon)
{
    readline_reset(to_hmp(mon)->rl);
    hmp_migration_forget(mon);
}

/* Ctrl-A c: the prompt again, unless the first one still waits to be shown. */
static void hmp_mux_in(Monitor *mon)
{
    if (monitor_out_pending(mon)) {
        return;
    }
    monitor_puts(mon, "\n");
    if (readline_active(to_hmp(mon)->rl)) {
        readline_show(to_hmp(mon)->rl);
    }
}

/* Up to the end of one line: what follows waits until the line's command is done. */
static size_t hmp_input(Monitor *mon, const char *data, size_t size)
{
    size_t n = 0;

    if (!readline_active(to_hmp(mon)->rl)) {
        readline_start(to_hmp(mon)->rl);
    }
    while (n < size) {
        char c = data[n++];

        readline_feed(to_hmp(mon)->rl, c);
        if (c == '\r' || c == '\n') {
            break;
        }
    }
    return n;
}

/* The command that held the monitor has ended. */
static void hmp_resumed(Monitor *mon)
{
    if (mon->open && !readline_active(to_hmp(mon)->rl)) {
        readline_start(to_hmp(mon)->rl);
    }
}

static void hmp_free(Monitor *mon)
{
    hmp_migration_forget(mon);
    monitor_data_destroy(mon);
    readline_free(to_hmp(mon)->rl);
    g_free(mon);
}

static const MonitorOps hmp_ops = {
    .opened = hmp_opened,
    .closed = hmp_closed,
    .mux_in = hmp_mux_in,
    .input = hmp_input,
    .resumed = hmp_resumed,
    .free = hmp_free,
};

bool monitor_init_hmp(Chardev *chr, Error **errp)
{
    MonitorHMP *mon = g_new0(MonitorHMP, 1);

    if (!monitor_data_init(&mon->common, &hmp_ops, false, chr, errp)) {
        g_free(mon);
        return false;
    }
    mon->rl = readline_new("(qemu) ", &rl_ops, mon);
    monitor_start(&mon->common);
    return true;
}

/* ---- human-monitor-command ---- */

char *qmp_human_monitor_command(const char *command_line, bool has_cpu_index, int64_t cpu_index,
                                Error **errp)
{
    MonitorHMP mon = { 0 };
    Monitor *caller = monitor_cur(), *old;
    NamedFds *own_fds;
    char *out;

    if (has_cpu_index && (cpu_index < 0 || cpu_index >= cpus_count())) {
        error_setg(errp, "Parameter 'cpu-index' expects a CPU number");
        return NULL;
    }
    monitor_data_init(&mon.common, &hmp_ops, false, NULL, &error_abort);
    mon.common.cpu_index = has_cpu_index ? cpu_index : 0;
    /* Descriptors that the caller passed are the command's as well. */
    own_fds = mon.common.fds;
    mon.common.parent = caller;
    if (caller) {
        mon.common.fds = caller->fds;
    }
    old = monitor_set_cur(&mon.common);
    hmp_execute(&mon.common, command_line);
    monitor_set_cur(old);
    mon.common.fds = own_fds;

    out = g_strdup(mon.common.out->str);
    monitor_data_destroy(&mon.common);
    return out;
}
