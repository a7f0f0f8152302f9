/*
 * The machine's one accelerator: chosen once at start, connected to the memory map, so that it
 * learns of every range of RAM, and to the choice of dirty trackers.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/accel.h"

static const AccelClass *current;

static int tell_ram_range(const RAMRange *range, void *opaque, Error **errp)
{
    const AccelClass *klass = opaque;

    return klass->ram_mapped(range, errp);
}

int accel_init(const AccelClass *klass, struct json_object *opts, const char *cpu_model,
               unsigned cpus, Error **errp)
{
    g_assert(!current);

    if (klass->max_cpus && cpus > klass->max_cpus) {
        error_setg(errp, "Invalid SMP CPUs %u. The max CPUs supported by accelerator '%s' is %u",
                   cpus, klass->name, klass->max_cpus);
        return -1;
    }
    if (klass->init && klass->init(opts, cpu_model, cpus, errp) < 0) {
        return -1;
    }
    current = klass;
    if (klass->ram_mapped &&
        memory_set_listener(tell_ram_range, (void *)klass, errp) < 0) {
        current = NULL;
        if (klass->cleanup) {
            klass->cleanup();
        }
        return -1;
    }
    if (klass->dirty_tracker) {
        dirty_tracker_register(klass->dirty_tracker);
    }
    return 0;
}

const AccelClass *accel_current(void)
{
    return current;
}
