/*
 * QMP: what the machine is and is made of.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/cpus.h"
#include "system/identity.h"
#include "system/machine.h"
#include "qapi/util.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-commands-misc.h"

static CpuInstanceProperties *cpu_place(const Machine *machine, int index)
{
    CpuInstanceProperties *place = g_new0(CpuInstanceProperties, 1);

    place->has_socket_id = true;
    place->socket_id = index / machine->threads / machine->cores;
    place->has_core_id = true;
    place->core_id = index / machine->threads % machine->cores;
    place->has_thread_id = true;
    place->thread_id = index % machine->threads;
    return place;
}

CpuInfoFastList *qmp_query_cpus_fast(Error **errp)
{
    CpuInfoFastList *head = NULL, **tail = &head;

    CPU_FOREACH(cpu) {
        CpuInfoFast *info = g_new0(CpuInfoFast, 1);

        info->cpu_index = cpu->index;
        info->qom_path = g_strdup_printf("/machine/cpu[%d]", cpu->index);
        info->thread_id = cpu->thread_id;
        info->props = cpu_place(machine_current(), cpu->index);
        info->target = SYS_EMU_TARGET_X86_64;
        QAPI_LIST_APPEND(tail, info);
    }
    return head;
}

static MachineInfo *describe_class(const MachineClass *klass)
{
    MachineInfo *info = g_new0(MachineInfo, 1);

    info->name = g_strdup(klass->name);
    info->alias = g_strdup(klass->alias);
    info->has_is_default = klass->is_default;
    info->is_default = klass->is_default;
    info->cpu_max = klass->max_cpus;
    info->default_cpu_type = g_strdup(klass->cpu_type);
    info->default_ram_id = g_strdup(klass->ram_id);
    return info;
}

MachineInfoList *qmp_query_machines(Error **errp)
{
    MachineInfoList *head = NULL, **tail = &head;

    for (const MachineClass *klass = NULL; (klass = machine_class_next(klass));) {
        QAPI_LIST_APPEND(tail, describe_class(klass));
    }
    return head;
}

CurrentMachineParams *qmp_query_current_machine(Error **errp)
{
    return g_new0(CurrentMachineParams, 1);
}

MemoryInfo *qmp_query_memory_size_summary(Error **errp)
{
    MemoryInfo *info = g_new0(MemoryInfo, 1);

    info->base_memory = machine_current()->ram_bytes;
    info->has_plugged_memory = true;
    return info;
}

NameInfo *qmp_query_name(Error **errp)
{
    NameInfo *info = g_new0(NameInfo, 1);

    info->name = g_strdup(identity_name());
    return info;
}

UuidInfo *qmp_query_uuid(Error **errp)
{
    UuidInfo *info = g_new0(UuidInfo, 1);
    uint8_t uuid[16];
    char text[37];

    identity_uuid(uuid);
    identity_uuid_text(uuid, text);
    info->UUID = g_strdup(text);
    return info;
}
