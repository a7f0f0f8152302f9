/*
 * The "cpu" section: X86CPUState as a table.
 *
 * What every accelerator has is in the section itself; what only some have, or what is mostly
 * empty, is in subsections: the XSAVE area, the MSRs, the local APIC, pending events. A subsection
 * that is missing leaves its part absent, which an accelerator takes as the state after power-on.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stddef.h>
#include <string.h>
#include "hw/x86/vmstate.h"
#include "migration/vmstate.h"
#include "system/cpus.h"

static CPUState *cpu_of(void *env)
{
    return (CPUState *)((char *)env - offsetof(CPUState, env));
}

/* ---- parts ---- */

static const VMStateDescription vmstate_segment = {
    .name = "cpu/segment",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(selector, X86Segment),
        VMSTATE_UINT64(base, X86Segment),
        VMSTATE_UINT32(limit, X86Segment),
        VMSTATE_UINT8(type, X86Segment),
        VMSTATE_UINT8(s, X86Segment),
        VMSTATE_UINT8(dpl, X86Segment),
        VMSTATE_UINT8(present, X86Segment),
        VMSTATE_UINT8(avl, X86Segment),
        VMSTATE_UINT8(l, X86Segment),
        VMSTATE_UINT8(db, X86Segment),
        VMSTATE_UINT8(g, X86Segment),
        VMSTATE_UINT8(unusable, X86Segment),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_table = {
    .name = "cpu/table",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(base, X86Table),
        VMSTATE_UINT16(limit, X86Table),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_msr = {
    .name = "cpu/msr",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(index, X86MSR),
        VMSTATE_UINT64(value, X86MSR),
        VMSTATE_END_OF_LIST() },
};

/* ---- subsections ---- */

static bool events_needed(void *opaque)
{
    const X86CPUState *e = opaque;

    return e->exception_injected || e->exception_pending || e->interrupt_injected ||
           e->interrupt_shadow || e->nmi_injected || e->nmi_pending || e->nmi_masked ||
           e->sipi_vector || e->smi_smm || e->smi_pending || e->smi_inside_nmi ||
           e->smi_latched_init || e->triple_fault_pending;
}

static const VMStateDescription vmstate_events = {
    .name = "cpu/events",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = events_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(exception_injected, X86CPUState),
        VMSTATE_UINT8(exception_nr, X86CPUState),
        VMSTATE_UINT8(exception_has_error_code, X86CPUState),
        VMSTATE_UINT8(exception_pending, X86CPUState),
        VMSTATE_UINT32(exception_error_code, X86CPUState),
        VMSTATE_UINT8(exception_has_payload, X86CPUState),
        VMSTATE_UINT64(exception_payload, X86CPUState),
        VMSTATE_UINT8(interrupt_injected, X86CPUState),
        VMSTATE_UINT8(interrupt_nr, X86CPUState),
        VMSTATE_UINT8(interrupt_soft, X86CPUState),
        VMSTATE_UINT8(interrupt_shadow, X86CPUState),
        VMSTATE_UINT8(nmi_injected, X86CPUState),
        VMSTATE_UINT8(nmi_pending, X86CPUState),
        VMSTATE_UINT8(nmi_masked, X86CPUState),
        VMSTATE_UINT32(sipi_vector, X86CPUState),
        VMSTATE_UINT8(smi_smm, X86CPUState),
        VMSTATE_UINT8(smi_pending, X86CPUState),
        VMSTATE_UINT8(smi_inside_nmi, X86CPUState),
        VMSTATE_UINT8(smi_latched_init, X86CPUState),
        VMSTATE_UINT8(triple_fault_pending, X86CPUState),
        VMSTATE_UINT32(events_flags, X86CPUState),
        VMSTATE_END_OF_LIST() },
};

static bool xsave_needed(void *opaque)
{
    const X86CPUState *env = opaque;

    return env->xsave_len != 0;
}

static const VMStateDescription vmstate_xsave = {
    .name = "cpu/xsave",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = xsave_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(xcr0, X86CPUState),
        VMSTATE_UINT32(xsave_len, X86CPUState),
        VMSTATE_VBUFFER_UINT32(xsave, X86CPUState, xsave_len),
        VMSTATE_END_OF_LIST() },
};

static bool msrs_needed(void *opaque)
{
    const X86CPUState *env = opaque;

    return env->n_msrs != 0;
}

static const VMStateDescription vmstate_msrs = {
    .name = "cpu/msrs",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = msrs_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(n_msrs, X86CPUState),
        VMSTATE_STRUCT_VARRAY_UINT32(msrs, X86CPUState, n_msrs, 0, vmstate_msr, X86MSR),
        VMSTATE_END_OF_LIST() },
};

static bool lapic_needed(void *opaque)
{
    const X86CPUState *env = opaque;

    return env->has_lapic;
}

static const VMStateDescription vmstate_lapic = {
    .name = "cpu/lapic",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = lapic_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(has_lapic, X86CPUState),
        VMSTATE_BUFFER(lapic, X86CPUState),
        VMSTATE_END_OF_LIST() },
};

/* ---- the section ---- */

static int cpu_pre_save(void *opaque, Error **errp)
{
    return cpu_synchronize_state(cpu_of(opaque), errp);
}

static int cpu_pre_load(void *opaque, Error **errp)
{
    X86CPUState *env = opaque;

    /* What no subsection brings must not stay from before. */
    memset(env, 0, sizeof(*env));
    env->xcr0 = 1;
    return 0;
}

static int cpu_post_load(void *opaque, int version_id, Error **errp)
{
    CPUState *cpu = cpu_of(opaque);

    cpu->env_valid = true;
    cpu->env_dirty = true;
    return cpu_push_state(cpu, errp);
}

static const VMStateDescription vmstate_cpu = {
    .name = "cpu",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = cpu_pre_save,
    .pre_load = cpu_pre_load,
    .post_load = cpu_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64_ARRAY(regs, X86CPUState, R_COUNT),
        VMSTATE_UINT64(rip, X86CPUState),
        VMSTATE_UINT64(rflags, X86CPUState),
        VMSTATE_STRUCT_ARRAY(seg, X86CPUState, SEG_COUNT, 0, vmstate_segment, X86Segment),
        VMSTATE_STRUCT(gdt, X86CPUState, 0, vmstate_table, X86Table),
        VMSTATE_STRUCT(idt, X86CPUState, 0, vmstate_table, X86Table),
        VMSTATE_UINT64(cr0, X86CPUState),
        VMSTATE_UINT64(cr2, X86CPUState),
        VMSTATE_UINT64(cr3, X86CPUState),
        VMSTATE_UINT64(cr4, X86CPUState),
        VMSTATE_UINT64(cr8, X86CPUState),
        VMSTATE_UINT64(efer, X86CPUState),
        VMSTATE_UINT64(apic_base, X86CPUState),
        VMSTATE_UINT64_ARRAY(interrupt_bitmap, X86CPUState, 4),
        VMSTATE_UINT64_ARRAY(dr, X86CPUState, 4),
        VMSTATE_UINT64(dr6, X86CPUState),
        VMSTATE_UINT64(dr7, X86CPUState),
        VMSTATE_UINT32(mp_state, X86CPUState),
        VMSTATE_UINT64(tsc, X86CPUState),
        VMSTATE_UINT32(tsc_khz, X86CPUState),
        VMSTATE_END_OF_LIST() },
    .subsections = (const VMStateDescription *const[]) {
        &vmstate_events, &vmstate_xsave, &vmstate_msrs, &vmstate_lapic, NULL },
};

int x86_cpu_vmstate_register(Error **errp)
{
    CPU_FOREACH(cpu) {
        if (vmstate_register("cpu", cpu->index, &vmstate_cpu, &cpu->env, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

void x86_cpu_vmstate_unregister(void)
{
    CPU_FOREACH(cpu) {
        vmstate_unregister(&vmstate_cpu, &cpu->env);
    }
}
