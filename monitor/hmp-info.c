/*
 * HMP: "info" about the program and the machine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include "monitor/hmp.h"
#include "qapi/qapi-commands-char.h"
#include "qapi/qapi-commands-control.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-commands-misc.h"
#include "qapi/qapi-commands-run-state.h"
#include "system/memory.h"

void hmp_info_version(Monitor *mon, HMPArgs *args)
{
    VersionInfo *info = qmp_query_version(&error_abort);

    monitor_printf(mon, "%" PRId64 ".%" PRId64 ".%" PRId64 " %s\n", info->qemu->major,
                   info->qemu->minor, info->qemu->micro, info->package);
    qapi_free_VersionInfo(info);
}

void hmp_info_status(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    StatusInfo *info = qmp_query_status(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    monitor_printf(mon, "VM status: %s", info->running ? "running" : "paused");
    if (!info->running && info->status != RUN_STATE_PAUSED) {
        monitor_printf(mon, " (%s)", RunState_str(info->status));
    }
    monitor_printf(mon, "\n");
    qapi_free_StatusInfo(info);
}

void hmp_info_name(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    NameInfo *info = qmp_query_name(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (info->name) {
        monitor_printf(mon, "%s\n", info->name);
    }
    qapi_free_NameInfo(info);
}

void hmp_info_uuid(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    UuidInfo *info = qmp_query_uuid(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    monitor_printf(mon, "%s\n", info->UUID);
    qapi_free_UuidInfo(info);
}

void hmp_info_cpus(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    CpuInfoFastList *list = qmp_query_cpus_fast(&err);
    CPUState *current = hmp_current_cpu(mon, NULL);

    for (CpuInfoFastList *c = list; c; c = c->next) {
        bool is_current = current && current->index == c->value->cpu_index;

        monitor_printf(mon, "%c CPU #%" PRId64 ": thread_id=%" PRId64 "\n",
                       is_current ? '*' : ' ', c->value->cpu_index, c->value->thread_id);
    }
    hmp_handle_error(mon, err);
    qapi_free_CpuInfoFastList(list);
}

static bool registers_of(Monitor *mon, CPUState *cpu)
{
    Error *err = NULL;
    g_autofree char *text = NULL;

    if (cpu_synchronize_state(cpu, &err) < 0) {
        hmp_handle_error(mon, err);
        return false;
    }
    text = x86_cpu_state_describe(&cpu->env);
    monitor_printf(mon, "\nCPU#%d\n", cpu->index);
    monitor_puts(mon, text);
    return true;
}

void hmp_info_registers(Monitor *mon, HMPArgs *args)
{
    int64_t index = hmp_int(args, "vcpu", -1);
    Error *err = NULL;
    CPUState *cpu;

    if (hmp_bool(args, "cpustate_all", false)) {
        CPU_FOREACH(c) {
            if (!registers_of(mon, c)) {
                return;
            }
        }
        return;
    }
    if (index >= cpus_count()) {
        monitor_printf(mon, "CPU#%" PRId64 " not available\n", index);
        return;
    }
    cpu = index >= 0 ? cpu_get(index) : hmp_current_cpu(mon, &err);
    if (!hmp_handle_error(mon, err)) {
        registers_of(mon, cpu);
    }
}

void hmp_info_mtree(Monitor *mon, HMPArgs *args)
{
    g_autofree char *text = memory_describe();

    monitor_puts(mon, text);
}

void hmp_info_history(Monitor *mon, HMPArgs *args)
{
    const char *line;

    for (unsigned n = 0; (line = hmp_history_line(mon, n)); n++) {
        monitor_printf(mon, "%u: '%s'\n", n, line);
    }
}

void hmp_info_chardev(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    ChardevInfoList *list = qmp_query_chardev(&err);

    for (ChardevInfoList *c = list; c; c = c->next) {
        monitor_printf(mon, "%s: filename=%s\n", c->value->label, c->value->filename);
    }
    hmp_handle_error(mon, err);
    qapi_free_ChardevInfoList(list);
}
