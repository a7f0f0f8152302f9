/*
 * A vCPU's state: everything that KVM can read out, between it and X86CPUState.
 *
 * Order matters when state is given back. Special registers come first: they decide which modes and
 * features the rest is checked against, and the APIC base must be in place before the APIC's
 * registers. General registers clear pending exceptions, so events come after them. The timer
 * deadline belongs to the local APIC's timer mode and comes after that.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "accel/kvm/kvm-int.h"

/* In the XSAVE area: what components are not in their initial state. */
#define XSAVE_XSTATE_BV_OFFSET 512

static int failed(CPUState *cpu, int r, const char *what, Error **errp)
{
    error_setg_errno(errp, -r, "KVM %s of vCPU %d", what, cpu->index);
    return -1;
}

static void segment_from_kvm(X86Segment *to, const struct kvm_segment *from)
{
    *to = (X86Segment) {
        .base = from->base, .limit = from->limit, .selector = from->selector,
        .type = from->type, .s = from->s, .dpl = from->dpl, .present = from->present,
        .avl = from->avl, .l = from->l, .db = from->db, .g = from->g,
        .unusable = from->unusable,
    };
}

static void segment_to_kvm(struct kvm_segment *to, const X86Segment *from)
{
    *to = (struct kvm_segment) {
        .base = from->base, .limit = from->limit, .selector = from->selector,
        .type = from->type, .s = from->s, .dpl = from->dpl, .present = from->present,
        .avl = from->avl, .l = from->l, .db = from->db, .g = from->g,
        .unusable = from->unusable,
    };
}

static int get_regs(CPUState *cpu, X86CPUState *env, Error **errp)
{
    struct kvm_regs r;
    int err = kvm_vcpu_ioctl(cpu, KVM_GET_REGS, &r);

    if (err < 0) {
        return failed(cpu, err, "does not give the registers", errp);
    }
    const uint64_t in_order[R_COUNT] = {
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15,
    };
    memcpy(env->regs, in_order, sizeof(in_order));
    env->rip = r.rip;
    env->rflags = r.rflags;
    return 0;
}

static int put_regs(CPUState *cpu, const X86CPUState *env, Error **errp)
{
    const uint64_t *g = env->regs;
    struct kvm_regs r = {
        .rax = g[R_RAX], .rcx = g[R_RCX], .rdx = g[R_RDX], .rbx = g[R_RBX],
        .rsp = g[R_RSP], .rbp = g[R_RBP], .rsi = g[R_RSI], .rdi = g[R_RDI],
        .r8 = g[R_R8], .r9 = g[R_R9], .r10 = g[R_R10], .r11 = g[R_R11],
        .r12 = g[R_R12], .r13 = g[R_R13], .r14 = g[R_R14], .r15 = g[R_R15],
        .rip = env->rip, .rflags = env->rflags,
    };
    int err = kvm_vcpu_ioctl(cpu, KVM_SET_REGS, &r);

    return err < 0 ? failed(cpu, err, "refuses the registers", errp) : 0;
}

static int get_sregs(CPUState *cpu, X86CPUState *env, Error **errp)
{
    struct kvm_sregs s;
    int err = kvm_vcpu_ioctl(cpu, KVM_GET_SREGS, &s);

    if (err < 0) {
        return failed(cpu, err, "does not give the special registers", errp);
    }
    const struct kvm_segment *segments[SEG_COUNT] = {
        [SEG_ES] = &s.es, [SEG_CS] = &s.cs, [SEG_SS] = &s.ss, [SEG_DS] = &s.ds,
        [SEG_FS] = &s.fs, [SEG_GS] = &s.gs, [SEG_LDT] = &s.ldt, [SEG_TR] = &s.tr,
    };
    for (int i = 0; i < SEG_COUNT; i++) {
        segment_from_kvm(&env->seg[i], segments[i]);
    }
    env->gdt = (X86Table) { s.gdt.base, s.gdt.limit };
    env->idt = (X86Table) { s.idt.base, s.idt.limit };
    env->cr0 = s.cr0;
    env->cr2 = s.cr2;
    env->cr3 = s.cr3;
    env->cr4 = s.cr4;
    env->cr8 = s.cr8;
    env->efer = s.efer;
    env->apic_base = s.apic_base;
    G_STATIC_ASSERT(sizeof(env->interrupt_bitmap) == sizeof(s.interrupt_bitmap));
    memcpy(env->interrupt_bitmap, s.interrupt_bitmap, sizeof(s.interrupt_bitmap));
    return 0;
}

static int put_sregs(CPUState *cpu, const X86CPUState *env, Error **errp)
{
    struct kvm_sregs s = {
        .gdt = { .base = env->gdt.base, .limit = env->gdt.limit },
        .idt = { .base = env->idt.base, .limit = env->idt.limit },
        .cr0 = env->cr0, .cr2 = env->cr2, .cr3 = env->cr3, .cr4 = env->cr4, .cr8 = env->cr8,
        .efer = env->efer, .apic_base = env->apic_base,
    };
    struct kvm_segment *segments[SEG_COUNT] = {
        [SEG_ES] = &s.es, [SEG_CS] = &s.cs, [SEG_SS] = &s.ss, [SEG_DS] = &s.ds,
        [SEG_FS] = &s.fs, [SEG_GS] = &s.gs, [SEG_LDT] = &s.ldt, [SEG_TR] = &s.tr,
    };

    for (int i = 0; i < SEG_COUNT; i++) {
        segment_to_kvm(segments[i], &env->seg[i]);
    }
    memcpy(s.interrupt_bitmap, env->interrupt_bitmap, sizeof(s.interrupt_bitmap));
    int err = kvm_vcpu_ioctl(cpu, KVM_SET_SREGS, &s);
    if (err < 0) {
        error_setg_errno(errp, -err, "KVM refuses the special registers of vCPU %d (CR0 0x%" PRIx64
                         ", CR4 0x%" PRIx64 ", EFER 0x%" PRIx64 "); does this host's CPU model "
                         "have the features they turn on?", cpu->index, env->cr0, env->cr4,
                         env->efer);
        return -1;
    }
    return 0;
}

static int get_xstate(CPUState *cpu, X86CPUState *env, Error **errp)
{
    unsigned long request = kvm.xsave_bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2
                                                                       : KVM_GET_XSAVE;
    int err = kvm_vcpu_ioctl(cpu, request, env->xsave);
    if (err < 0) {
        return failed(cpu, err, "does not give the XSAVE state", errp);
    }
    env->xsave_len = kvm.xsave_bytes;

    struct kvm_xcrs x = { 0 };
    err = kvm_vcpu_ioctl(cpu, KVM_GET_XCRS, &x);
    if (err < 0) {
        return failed(cpu, err, "does not give the extended control registers", errp);
    }
    env->xcr0 = 1;
    for (unsigned i = 0; i < MIN(x.nr_xcrs, KVM_MAX_XCRS); i++) {
        if (x.xcrs[i].xcr == 0) {
            env->xcr0 = x.xcrs[i].value;
        }
    }
    return 0;
}

static int put_xcr0(CPUState *cpu, uint64_t xcr0, Error **errp)
{
    struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = xcr0 } } };
    struct kvm_xcrs now = { 0 };

    /* Without XSAVE there is no XCR0, and some KVMs refuse to hear of it. */
    if (kvm_vcpu_ioctl(cpu, KVM_GET_XCRS, &now) == 0 &&
        (now.nr_xcrs == 0 || now.xcrs[0].value == xcr0)) {
        return 0;
    }
    int err = kvm_vcpu_ioctl(cpu, KVM_SET_XCRS, &x);
    if (err < 0) {
        error_setg_errno(errp, -err, "KVM refuses XCR0 0x%" PRIx64 " of vCPU %d", xcr0,
                         cpu->index);
        return -1;
    }
    return 0;
}

static int put_xstate(CPUState *cpu, const X86CPUState *env, const X86CPUState *power_on,
                      Error **errp)
{
    const X86CPUState *from = env->xsave_len ? env : power_on;
    uint32_t bytes = MIN(from->xsave_len, kvm.xsave_bytes);
    g_autofree uint8_t *area = g_malloc0(kvm.xsave_bytes);

    for (uint32_t i = bytes; i < from->xsave_len; i++) {
        if (from->xsave[i]) {
            error_setg(errp, "vCPU %d uses %u bytes of XSAVE state, and vCPUs here have only %u",
                       cpu->index, from->xsave_len, kvm.xsave_bytes);
            return -1;
        }
    }
    if (put_xcr0(cpu, env->xcr0 ? env->xcr0 : 1, errp) < 0) {
        return -1;
    }
    memcpy(area, from->xsave, bytes);
    int err = kvm_vcpu_ioctl(cpu, KVM_SET_XSAVE, area);
    if (err < 0) {
        uint64_t components;

        memcpy(&components, area + XSAVE_XSTATE_BV_OFFSET, sizeof(components));
        error_setg_errno(errp, -err, "KVM refuses the XSAVE state of vCPU %d (components 0x%" PRIx64
                         "); does this host's CPU model have them?", cpu->index, components);
        return -1;
    }
    return 0;
}

static int get_events(CPUState *cpu, X86CPUState *env, Error **errp)
{
    struct kvm_vcpu_events e = { 0 };
    int err = kvm_vcpu_ioctl(cpu, KVM_GET_VCPU_EVENTS, &e);

    if (err < 0) {
        return failed(cpu, err, "does not give the pending events", errp);
    }
    env->exception_injected = e.exception.injected;
    env->exception_nr = e.exception.nr;
    env->exception_has_error_code = e.exception.has_error_code;
    env->exception_pending = e.exception.pending;
    env->exception_error_code = e.exception.error_code;
    env->exception_payload = e.exception_payload;
    env->exception_has_payload = e.exception_has_payload;
    env->interrupt_injected = e.interrupt.injected;
    env->interrupt_nr = e.interrupt.nr;
    env->interrupt_soft = e.interrupt.soft;
    env->interrupt_shadow = e.interrupt.shadow;
    env->nmi_injected = e.nmi.injected;
    env->nmi_pending = e.nmi.pending;
    env->nmi_masked = e.nmi.masked;
    env->sipi_vector = e.sipi_vector;
    env->smi_smm = e.smi.smm;
    env->smi_pending = e.smi.pending;
    env->smi_inside_nmi = e.smi.smm_inside_nmi;
    env->smi_latched_init = e.smi.latched_init;
    env->triple_fault_pending = e.triple_fault.pending;
    env->events_flags = e.flags;
    return 0;
}

/* Every part is said to be valid, so that what env does not have pending is cleared. */
static uint32_t event_flags(const X86CPUState *env)
{
    uint32_t flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
        KVM_VCPUEVENT_VALID_SHADOW;

    if (kvm.can_smm) {
        flags |= KVM_VCPUEVENT_VALID_SMM;
    }
    if (kvm.can_payload) {
        flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
    }
    if (kvm.can_triple_fault) {
        flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
    }
    return flags;
}

static int put_events(CPUState *cpu, const X86CPUState *env, Error **errp)
{
    if (!kvm.can_smm && (env->smi_smm || env->smi_pending)) {
        error_setg(errp, "vCPU %d is in system management mode, which this host's KVM lacks",
                   cpu->index);
        return -1;
    }
    struct kvm_vcpu_events e = {
        .exception = {
            .injected = env->exception_injected, .nr = env->exception_nr,
            .has_error_code = env->exception_has_error_code,
            .error_code = env->exception_error_code,
        },
        .interrupt = {
            .injected = env->interrupt_injected, .nr = env->interrupt_nr,
            .soft = env->interrupt_soft, .shadow = env->interrupt_shadow,
        },
        .nmi = {
            .injected = env->nmi_injected, .pending = env->nmi_pending,
            .masked = env->nmi_masked,
        },
        .sipi_vector = env->sipi_vector,
        .flags = event_flags(env),
    };
    if (kvm.can_payload) {
        e.exception.pending = env->exception_pending;
        e.exception_has_payload = env->exception_has_payload;
        e.exception_payload = env->exception_payload;
    } else {
        e.exception.injected |= env->exception_pending;
    }
    if (kvm.can_smm) {
        e.smi.smm = env->smi_smm;
        e.smi.pending = env->smi_pending;
        e.smi.smm_inside_nmi = env->smi_inside_nmi;
        e.smi.latched_init = env->smi_latched_init;
    }
    if (kvm.can_triple_fault) {
        e.triple_fault.pending = env->triple_fault_pending;
    }
    int err = kvm_vcpu_ioctl(cpu, KVM_SET_VCPU_EVENTS, &e);
    return err < 0 ? failed(cpu, err, "refuses the pending events", errp) : 0;
}

static int get_debugregs(CPUState *cpu, X86CPUState *env, Error **errp)
{
    struct kvm_debugregs d = { 0 };
    int err = kvm_vcpu_ioctl(cpu, KVM_GET_DEBUGREGS, &d);

    if (err < 0) {
        return failed(cpu, err, "does not give the debug registers", errp);
    }
    for (int i = 0; i < 4; i++) {
        env->dr[i] = d.db[i];
    }
    env->dr6 = d.dr6;
    env->dr7 = d.dr7;
    return 0;
}

static int put_debugregs(CPUState *cpu, const X86CPUState *env, Error **errp)
{
    struct kvm_debugregs d = {
        .db = { env->dr[0], env->dr[1], env->dr[2], env->dr[3] },
        .dr6 = env->dr6, .dr7 = env->dr7,
    };
    int err = kvm_vcpu_ioctl(cpu, KVM_SET_DEBUGREGS, &d);

    return err < 0 ? failed(cpu, err, "refuses the debug registers", errp) : 0;
}

static int get_lapic(CPUState *cpu, X86CPUState *env, Error **errp)
{
    struct kvm_lapic_state lapic;
    int err = kvm_vcpu_ioctl(cpu, KVM_GET_LAPIC, &lapic);

    if (err < 0) {
        return failed(cpu, err, "does not give the local APIC", errp);
    }
    G_STATIC_ASSERT(sizeof(lapic.regs) == CPU_LAPIC_BYTES);
    memcpy(env->lapic, lapic.regs, sizeof(lapic.regs));
    env->has_lapic = 1;
    return 0;
}

static int put_lapic(CPUState *cpu, const X86CPUState *env, const X86CPUState *power_on,
                     Error **errp)
{
    struct kvm_lapic_state lapic;
    int err;

    memcpy(lapic.regs, env->has_lapic ? env->lapic : power_on->lapic, sizeof(lapic.regs));
    err = kvm_vcpu_ioctl(cpu, KVM_SET_LAPIC, &lapic);
    return err < 0 ? failed(cpu, err, "refuses the local APIC", errp) : 0;
}

static int get_mp_state(CPUState *cpu, X86CPUState *env, Error **errp)
{
    struct kvm_mp_state mp;
    int err = kvm_vcpu_ioctl(cpu, KVM_GET_MP_STATE, &mp);

    if (err < 0) {
        return failed(cpu, err, "does not give the run state", errp);
    }
    env->mp_state = mp.mp_state;
    return 0;
}

static int put_mp_state(CPUState *cpu, const X86CPUState *env, Error **errp)
{
    struct kvm_mp_state mp = { .mp_state = env->mp_state };
    int err = kvm_vcpu_ioctl(cpu, KVM_SET_MP_STATE, &mp);

    return err < 0 ? failed(cpu, err, "refuses the run state", errp) : 0;
}

/* The guest's clock must go on at the rate it knows. */
static int put_tsc_khz(CPUState *cpu, const X86CPUState *env, Error **errp)
{
    KVMVcpu *vcpu = cpu->accel;
    uint32_t khz = env->tsc_khz ? env->tsc_khz : vcpu->power_on->tsc_khz;

    if (khz == vcpu->tsc_khz) {
        return 0;
    }
    if (kvm_vcpu_ioctl(cpu, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz) >= 0) {
        vcpu->tsc_khz = khz;
        return 0;
    }
    /* Clocks of equal machines differ by a few hundred parts in a million when measured. */
    int64_t difference = llabs((int64_t)khz - vcpu->tsc_khz);
    if (difference * 4000 > khz && cpu->index == 0) {
        warn_report("the guest's time stamp counter ran at %u kHz and runs at %u kHz here, which "
                    "KVM cannot change: time in the guest may drift", khz, vcpu->tsc_khz);
    }
    return 0;
}

int kvm_read_state(CPUState *cpu, X86CPUState *env, Error **errp)
{
    KVMVcpu *vcpu = cpu->accel;

    /* The run state first: reading it makes KVM act on INIT and SIPI that wait in the APIC. */
    if (get_mp_state(cpu, env, errp) < 0 || get_regs(cpu, env, errp) < 0 ||
        get_xstate(cpu, env, errp) < 0 || get_sregs(cpu, env, errp) < 0 ||
        get_debugregs(cpu, env, errp) < 0 || get_lapic(cpu, env, errp) < 0 ||
        get_events(cpu, env, errp) < 0 || kvm_get_msrs(cpu, env, errp) < 0) {
        return -1;
    }
    env->tsc_khz = vcpu->tsc_khz;
    return 0;
}

int kvm_get_state(CPUState *cpu, Error **errp)
{
    if (kvm_vcpu_complete_io(cpu, errp) < 0) {
        return -1;
    }
    return kvm_read_state(cpu, &cpu->env, errp);
}

int kvm_put_state(CPUState *cpu, Error **errp)
{
    KVMVcpu *vcpu = cpu->accel;
    const X86CPUState *env = &cpu->env, *power_on = vcpu->power_on;

    /* Its completion would write to a register after we have set it. */
    if (kvm_vcpu_complete_io(cpu, errp) < 0) {
        return -1;
    }
    if (put_tsc_khz(cpu, env, errp) < 0 || put_sregs(cpu, env, errp) < 0 ||
        put_regs(cpu, env, errp) < 0 || put_xstate(cpu, env, power_on, errp) < 0 ||
        put_debugregs(cpu, env, errp) < 0 || kvm_put_msrs(cpu, env, power_on, errp) < 0 ||
        put_lapic(cpu, env, power_on, errp) < 0 || kvm_put_tsc_deadline(cpu, env, errp) < 0 ||
        put_events(cpu, env, errp) < 0 || put_mp_state(cpu, env, errp) < 0) {
        return -1;
    }
    return 0;
}
