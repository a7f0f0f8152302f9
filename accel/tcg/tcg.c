/*
 * The tcg accelerator: one vCPU emulated by the Unicorn library. It needs nothing of the host.
 *
 * Unicorn gives no interrupts and delivers no exceptions, so it runs guests that do their work
 * without: the test guests are such. Guest RAM is given to it by pointer; its stores are plain
 * stores of this process, which the pagemap tracker sees.
 *
 * Kicking. uc_emu_stop() from another thread cannot be used: translated blocks jump to each other
 * without storing the instruction pointer, and a stop from outside leaves it at some block that ran
 * earlier, while all other registers and memory have gone on. So nobody stops the engine but the
 * vCPU's own thread, in the hook at the start of every block, where everything is exact (engine.c).
 * A kick is just cpu->exit_request. The hook costs nothing that can be measured beside the
 * emulation.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include "accel/tcg/tcg-int.h"

TCG tcg = { .exception = -1 };

static const struct {
    const char *name;
    int model;
} models[] = {
    { "qemu64", UC_CPU_X86_QEMU64 },
    { "kvm64", UC_CPU_X86_KVM64 },
    { "phenom", UC_CPU_X86_PHENOM },
    { "core2duo", UC_CPU_X86_CORE2DUO },
    { "Conroe", UC_CPU_X86_CONROE },
    { "Penryn", UC_CPU_X86_PENRYN },
    { "Nehalem", UC_CPU_X86_NEHALEM },
    { "Westmere", UC_CPU_X86_WESTMERE },
    { "max", UC_CPU_X86_WESTMERE },     /* the last before AVX, which the library lacks */
};

static const char *tcg_cpu_model(unsigned i)
{
    return i < G_N_ELEMENTS(models) ? models[i].name : NULL;
}

static int parse_model(const char *cpu_model, Error **errp)
{
    g_autoptr(GString) known = g_string_new(NULL);

    if (!cpu_model || !*cpu_model) {
        tcg.model = UC_CPU_X86_QEMU64;
        return 0;
    }
    if (!strcmp(cpu_model, "host")) {
        error_setg(errp, "CPU model 'host' requires KVM");
        return -1;
    }
    if (strchr(cpu_model, ',')) {
        error_setg(errp, "-cpu %s: the tcg accelerator cannot change the features of a model",
                   cpu_model);
        return -1;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++) {
        if (!strcmp(models[i].name, cpu_model)) {
            tcg.model = models[i].model;
            return 0;
        }
        g_string_append_printf(known, "%s%s", i ? ", " : "", models[i].name);
    }
    error_setg(errp, "unable to find CPU model '%s' (there are: %s)", cpu_model, known->str);
    return -1;
}

/* ---- the vCPU ---- */

static CPUExit cannot_go_on(CPUState *cpu, uc_err err)
{
    if (tcg.exception >= 0) {
        cpu_report_internal_error(cpu, "the tcg accelerator does not deliver exceptions and "
                                  "interrupts to the guest; it met vector %d", tcg.exception);
        tcg.exception = -1;
    } else {
        cpu_report_internal_error(cpu, "the tcg accelerator cannot go on: %s", uc_strerror(err));
    }
    return CPU_EXIT_STOPPED;
}

static void tcg_vcpu_kick(CPUState *cpu)
{
    __atomic_store_n(&cpu->exit_request, 1, __ATOMIC_SEQ_CST);
}

static CPUExit tcg_vcpu_exec(CPUState *cpu)
{
    if (tcg.cannot_run || !tcg.uc) {
        cpu_report_internal_error(cpu, "%s", tcg.cannot_run ? tcg.cannot_run : "it has no state");
        return CPU_EXIT_STOPPED;
    }
    if (tcg.halted) {
        return CPU_EXIT_HALTED;
    }
    tcg.running = cpu;
    tcg.stopped = false;
    uc_err err = uc_emu_start(tcg.uc, tcg_reg(UC_X86_REG_RIP), 0, 0, 0);
    tcg.running = NULL;

    if (err != UC_ERR_OK || tcg.exception >= 0) {
        return cannot_go_on(cpu, err);
    }
    if (!tcg.stopped && tcg_stands_after_hlt()) {
        tcg.halted = true;
        return CPU_EXIT_HALTED;
    }
    return CPU_EXIT_AGAIN;
}

static int tcg_vcpu_init(CPUState *cpu, Error **errp)
{
    return 0;
}

static void tcg_vcpu_destroy(CPUState *cpu)
{
    tcg_engine_close();
}

/* ---- the machine ---- */

static int tcg_ram_mapped(const RAMRange *range, Error **errp)
{
    if (range->gpa >= TCG_PHYS_END || range->size > TCG_PHYS_END - range->gpa) {
        error_setg(errp, "the tcg accelerator cannot reach RAM block '%s' at 0x%" PRIx64 ": it has "
                   "40 bits of address", range->block->idstr, range->gpa);
        return -1;
    }
    g_array_append_val(tcg.ram, *range);
    return 0;
}

static int tcg_get_vm_state(AccelVMPart parts[VM_PARTS], Error **errp)
{
    memcpy(parts, tcg.vm_state, sizeof(tcg.vm_state));
    return 0;
}

static int tcg_put_vm_state(const AccelVMPart parts[VM_PARTS], Error **errp)
{
    if (tcg_can_carry_vm(parts, errp) < 0) {
        return -1;
    }
    memcpy(tcg.vm_state, parts, sizeof(tcg.vm_state));
    return 0;
}

static void tcg_reset(void)
{
    memset(tcg.vm_state, 0, sizeof(tcg.vm_state));
}

static int tcg_init(struct json_object *opts, const char *cpu_model, unsigned cpus, Error **errp)
{
    if (opts) {
        json_object_object_foreach(opts, key, value) {
            (void)value;
            error_setg(errp, "Property '%s' not found", key);
            return -1;
        }
    }
    if (parse_model(cpu_model, errp) < 0) {
        return -1;
    }
    tcg.ram = g_array_new(FALSE, FALSE, sizeof(RAMRange));
    tcg.exception = -1;
    tcg_reset();
    return 0;
}

static void tcg_cleanup(void)
{
    g_clear_pointer(&tcg.ram, g_array_unref);
    g_clear_pointer(&tcg.cannot_run, g_free);
}

const AccelClass accel_tcg = {
    .name = "tcg",
    .desc = "CPU emulation by the Unicorn library",
    .runs_cpus = true,
    .max_cpus = 1,
    .init = tcg_init,
    .cleanup = tcg_cleanup,
    .cpu_model = tcg_cpu_model,
    .vcpu_init = tcg_vcpu_init,
    .vcpu_destroy = tcg_vcpu_destroy,
    .vcpu_exec = tcg_vcpu_exec,
    .vcpu_kick = tcg_vcpu_kick,
    .get_state = tcg_get_state,
    .put_state = tcg_put_state,
    .get_vm_state = tcg_get_vm_state,
    .put_vm_state = tcg_put_vm_state,
    .ram_mapped = tcg_ram_mapped,
    .reset = tcg_reset,
};
