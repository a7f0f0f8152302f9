/*
 * The qtest accelerator: a machine whose CPUs never run.
 *
 * Devices, memory and interrupts are real and driven over the qtest protocol. vCPU state lives in
 * CPUState.env alone, and the parts of the VM's state in an array here, so a machine that was saved
 * under another accelerator can be loaded, looked at and saved again with nothing lost.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <json-c/json.h>
#include <string.h>
#include "system/accel.h"

static AccelVMPart vm_state[VM_PARTS];

static int qtest_init(struct json_object *opts, const char *cpu_model, unsigned cpus, Error **errp)
{
    if (opts) {
        json_object_object_foreach(opts, key, value) {
            (void)value;
            error_setg(errp, "Property '%s' not found", key);
            return -1;
        }
    }
    memset(vm_state, 0, sizeof(vm_state));
    return 0;
}

static int qtest_get_vm_state(AccelVMPart parts[VM_PARTS], Error **errp)
{
    memcpy(parts, vm_state, sizeof(vm_state));
    return 0;
}

static int qtest_put_vm_state(const AccelVMPart parts[VM_PARTS], Error **errp)
{
    memcpy(vm_state, parts, sizeof(vm_state));
    return 0;
}

const AccelClass accel_qtest = {
    .name = "qtest",
    .desc = "no CPU runs: the qtest protocol drives the machine",
    .runs_cpus = false,
    .max_cpus = CPUS_MAX,
    .init = qtest_init,
    .get_vm_state = qtest_get_vm_state,
    .put_vm_state = qtest_put_vm_state,
};
