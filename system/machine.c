/*
 * A short list of machine types and the order in which a machine comes into being: RAM, vCPUs,
 * board. Devices of the command line follow, then the kernel, which must not be disturbed by
 * either.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "system/accel.h"
#include "system/bql.h"
#include "system/identity.h"
#include "system/machine.h"
#include "system/memory-backend.h"

#define CLASSES_MAX 8

static const MachineClass *classes[CLASSES_MAX];
static unsigned class_count;
static Machine *current;

void machine_register(const MachineClass *klass)
{
    g_assert(class_count < CLASSES_MAX);
    classes[class_count++] = klass;
}

const MachineClass *machine_class_next(const MachineClass *after)
{
    unsigned i = 0;

    while (after && i < class_count && classes[i++] != after) {
        continue;
    }
    return i < class_count ? classes[i] : NULL;
}

const MachineClass *machine_class_find(const char *name)
{
    for (unsigned i = 0; i < class_count; i++) {
        if (name ? !strcmp(name, classes[i]->name) || !g_strcmp0(name, classes[i]->alias)
                 : classes[i]->is_default) {
            return classes[i];
        }
    }
    return NULL;
}

/*
 * RAM of the machine's own, or a memory backend, whose size is the machine's unless -m says the
 * same.
 */
static int create_ram(Machine *machine, Error **errp)
{
    const char *id = machine->memory_backend;

    if (!id) {
        machine->ram = ram_block_new(machine->klass->ram_id, machine->ram_bytes, NULL, errp);
        return machine->ram ? 0 : -1;
    }
    machine->ram = memory_backend_claim(id, errp);
    if (!machine->ram) {
        return -1;
    }
    if (machine->ram_bytes && machine->ram_bytes != machine->ram->used_length) {
        error_setg(errp, "Size of RAM, %" PRIu64 " bytes, and of memory backend '%s', %" PRIu64
                   " bytes, differ", machine->ram_bytes, id, machine->ram->used_length);
        return -1;
    }
    machine->ram_bytes = machine->ram->used_length;
    return 0;
}

int machine_create(Machine *machine, Error **errp)
{
    g_assert(bql_locked() && !current);

    identity_set_machine_type(machine->klass->name);
    if (machine->cpus > machine->klass->max_cpus) {
        error_setg(errp, "Invalid SMP CPUs %u. The max CPUs supported by machine '%s' is %u",
                   machine->cpus, machine->klass->name, machine->klass->max_cpus);
        return -1;
    }
    if (create_ram(machine, errp) < 0 || cpus_create(machine->cpus, errp) < 0 ||
        machine->klass->init(machine, errp) < 0) {
        return -1;
    }
    current = machine;
    return 0;
}

Machine *machine_current(void)
{
    return current;
}

void machine_destroy(void)
{
    if (current && current->klass->destroy) {
        current->klass->destroy(current);
    }
    current = NULL;
}
