/*
 * Which states the tcg accelerator can take over from another: it has no interrupts, no AVX and no
 * paravirtual clock. A guest that has turned one of them on would hang or fail later in a way that
 * nobody understands, so it is refused with the reason. What merely exists (a local APIC with
 * everything masked, an interrupt controller that nobody programmed) is kept and carried on.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <linux/kvm.h>
#include <string.h>
#include "accel/tcg/tcg-int.h"
#include "util/bswap.h"

/* CR4: all up to OSXMMEXCPT and UMIP; then FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP and younger. */
#define CR4_KNOWN 0xfffull

#define LAPIC_SVR 0xf0
#define LAPIC_SVR_ENABLED (1u << 8)
#define LAPIC_LVT_TIMER 0x320
#define LVT_MASKED (1u << 16)
#define REDIRECTION_MASKED (1u << 16)

static int refuse(Error **errp, const char *what)
{
    error_setg(errp, "the guest uses %s, which the tcg accelerator does not have", what);
    return -1;
}

static uint64_t msr_value(const X86CPUState *env, uint32_t index)
{
    for (unsigned i = 0; i < env->n_msrs; i++) {
        if (env->msrs[i].index == index) {
            return env->msrs[i].value;
        }
    }
    return 0;
}

/* Paravirtual services: bit 0 of each says that the guest has asked for it. */
static const struct {
    uint32_t index;
    const char *name;
} services[] = {
    { 0x12, "kvmclock" }, { 0x4b564d01, "kvmclock" },
    { 0x4b564d02, "KVM's asynchronous page faults" }, { 0x4b564d03, "KVM's steal time" },
    { 0x4b564d04, "KVM's paravirtual end of interrupt" },
};

int tcg_can_carry(const X86CPUState *env, Error **errp)
{
    if (env->cr4 & ~CR4_KNOWN) {
        error_setg(errp, "the guest uses processor features (CR4 0x%llx) that the tcg accelerator "
                   "does not have", (unsigned long long)(env->cr4 & ~CR4_KNOWN));
        return -1;
    }
    if (env->smi_smm || env->smi_pending) {
        return refuse(errp, "system management mode");
    }
    if (env->exception_injected || env->exception_pending || env->interrupt_injected ||
        env->nmi_injected || env->nmi_pending || env->triple_fault_pending) {
        return refuse(errp, "interrupts (one is being delivered)");
    }
    if (env->has_lapic && (ldl_le_p(env->lapic + LAPIC_SVR) & LAPIC_SVR_ENABLED) &&
        !(ldl_le_p(env->lapic + LAPIC_LVT_TIMER) & LVT_MASKED)) {
        return refuse(errp, "the local APIC's timer");
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(services); i++) {
        if (msr_value(env, services[i].index) & 1) {
            return refuse(errp, services[i].name);
        }
    }
    if (env->mp_state != 0 && env->mp_state != 3) {
        return refuse(errp, "more than one processor");
    }
    return 0;
}

static bool pic_in_use(const AccelVMPart *part)
{
    struct kvm_pic_state pic;

    memcpy(&pic, part->data, sizeof(pic));
    return part->len == sizeof(pic) && pic.irq_base && pic.imr != 0xff;
}

static bool ioapic_in_use(const AccelVMPart *part)
{
    struct kvm_ioapic_state ioapic;

    memcpy(&ioapic, part->data, sizeof(ioapic));
    for (int i = 0; part->len == sizeof(ioapic) && i < KVM_IOAPIC_NUM_PINS; i++) {
        if (!(ioapic.redirtbl[i].bits & REDIRECTION_MASKED)) {
            return true;
        }
    }
    return false;
}

int tcg_can_carry_vm(const AccelVMPart parts[VM_PARTS], Error **errp)
{
    if (pic_in_use(&parts[VM_PIC_MASTER]) || pic_in_use(&parts[VM_PIC_SLAVE])) {
        return refuse(errp, "interrupts (the 8259 is programmed)");
    }
    if (ioapic_in_use(&parts[VM_IOAPIC])) {
        return refuse(errp, "interrupts (the I/O APIC is programmed)");
    }
    return 0;
}
