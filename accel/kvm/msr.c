/*
 * Model-specific registers of a vCPU.
 *
 * Which there are is KVM's to say: its own list, and the memory type and machine check registers,
 * which older kernels leave out of it. Reading and writing go in one call each that stops at the
 * first register KVM does not like; from there one goes on with the next.
 *
 * A register that cannot be set is no reason to give up a guest when its value is the same already,
 * or when it only describes the CPU, or when what it counts is lost without harm. Anything else
 * that differs would change what the guest does, and is an error.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "accel/kvm/kvm-int.h"

#define MSR_IA32_TSC 0x10
#define MSR_IA32_APIC_BASE 0x1b
#define MSR_IA32_MCG_CAP 0x179
#define MSR_IA32_MCG_CTL 0x17b
#define MSR_IA32_TSC_DEADLINE 0x6e0
#define MSR_EFER 0xc0000080

/* Ours beside KVM's list: fixed and default memory types, and the variable ranges from 0x200. */
static const uint32_t mtrrs[] = {
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x2ff,
    0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
    0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
};

typedef struct MSRBatch {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[CPU_MSRS_MAX];
} MSRBatch;

/* Not in the list: they travel in members of their own. */
static bool travels_elsewhere(uint32_t index)
{
    return index == MSR_IA32_TSC || index == MSR_IA32_APIC_BASE || index == MSR_EFER;
}

static bool read_one(CPUState *cpu, uint32_t index, uint64_t *value)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = { .head.nmsrs = 1, .entry.index = index };

    if (kvm_vcpu_ioctl(cpu, KVM_GET_MSRS, &one) != 1) {
        return false;
    }
    *value = one.entry.data;
    return true;
}

static bool write_one(CPUState *cpu, uint32_t index, uint64_t value)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

    return kvm_vcpu_ioctl(cpu, KVM_SET_MSRS, &one) == 1;
}

static void consider(CPUState *cpu, GArray *list, uint32_t index)
{
    uint64_t value;

    if (travels_elsewhere(index) || list->len == CPU_MSRS_MAX) {
        return;
    }
    for (unsigned i = 0; i < list->len; i++) {
        if (g_array_index(list, uint32_t, i) == index) {
            return;
        }
    }
    if (read_one(cpu, index, &value)) {
        g_array_append_val(list, index);
    }
}

int kvm_msrs_init(CPUState *cpu, Error **errp)
{
    if (kvm.msrs) {
        return 0;
    }
    struct kvm_msr_list count = { .nmsrs = 0 };
    if (ioctl(kvm.fd, KVM_GET_MSR_INDEX_LIST, &count) == 0 || errno != E2BIG ||
        count.nmsrs > 65536) {
        error_setg(errp, "KVM does not say which MSRs it has");
        return -1;
    }
    g_autofree struct kvm_msr_list *known =
        g_malloc0(sizeof(*known) + count.nmsrs * sizeof(known->indices[0]));
    known->nmsrs = count.nmsrs;
    if (ioctl(kvm.fd, KVM_GET_MSR_INDEX_LIST, known) < 0) {
        error_setg_errno(errp, errno, "KVM does not list its MSRs");
        return -1;
    }

    GArray *list = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    for (unsigned i = 0; i < known->nmsrs; i++) {
        consider(cpu, list, known->indices[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(mtrrs); i++) {
        consider(cpu, list, mtrrs[i]);
    }
    uint64_t mcg_cap = 0;
    if (read_one(cpu, MSR_IA32_MCG_CAP, &mcg_cap)) {
        consider(cpu, list, MSR_IA32_MCG_CTL);
        for (unsigned i = 0; i < 4 * (mcg_cap & 0xff); i++) {
            consider(cpu, list, 0x400 + i);
        }
    }
    kvm.msrs = list;
    return 0;
}

int kvm_get_msrs(CPUState *cpu, X86CPUState *env, Error **errp)
{
    g_autofree MSRBatch *batch = g_new0(MSRBatch, 1);
    unsigned total = kvm.msrs->len;

    if (!read_one(cpu, MSR_IA32_TSC, &env->tsc)) {
        error_setg(errp, "KVM does not give the time stamp counter of vCPU %d", cpu->index);
        return -1;
    }
    env->n_msrs = 0;
    for (unsigned next = 0; next < total; ) {
        unsigned n = total - next;

        for (unsigned i = 0; i < n; i++) {
            batch->entries[i].index = g_array_index(kvm.msrs, uint32_t, next + i);
        }
        batch->head.nmsrs = n;
        int got = kvm_vcpu_ioctl(cpu, KVM_GET_MSRS, batch);
        if (got < 0) {
            error_setg_errno(errp, -got, "KVM does not give the MSRs of vCPU %d", cpu->index);
            return -1;
        }
        for (int i = 0; i < got; i++) {
            env->msrs[env->n_msrs++] = (X86MSR) { batch->entries[i].index,
                                                  batch->entries[i].data };
        }
        /* One that cannot be read just now is left out. */
        next += got + (got < (int)n);
    }
    return 0;
}

/*
 * What the CPU can do, not what it does: microcode, capabilities, platform, VMX and PMU abilities.
 */
static bool describes_the_cpu(uint32_t index)
{
    switch (index) {
    case 0x17: case 0x8b: case 0xcd: case 0xce: case 0xcf: case 0x10a: case 0x140:
    case 0x179: case 0x345: case 0xc0010015: case 0xc001001f: case 0xc0011029: case 0x4b564d05:
        return true;
    default:
        return index >= 0x480 && index <= 0x493;
    }
}

/* Counters, last branches and errors seen: nothing depends on them after a move. */
static bool is_a_record(uint32_t index)
{
    return (index >= 0x186 && index <= 0x18d) || (index >= 0xc1 && index <= 0xc8) ||
           (index >= 0x309 && index <= 0x30c) || (index >= 0x38d && index <= 0x390) ||
           (index >= 0x4c1 && index <= 0x4c8) || (index >= 0xc0010000 && index <= 0xc0010007) ||
           (index >= 0xc0010200 && index <= 0xc001020b) ||
           (index >= 0xc0000300 && index <= 0xc0000303) || (index >= 0x400 && index < 0x480) ||
           (index >= 0x1db && index <= 0x1de) || index == 0x34 || index == 0xe7 || index == 0xe8;
}

/* KVM refused @value. Returns 0 when that does no harm. */
static int weigh_refusal(CPUState *cpu, uint32_t index, uint64_t value, Error **errp)
{
    uint64_t now = 0;
    bool known = read_one(cpu, index, &now);

    /* A register that is not there holds nothing. */
    if (now == value) {
        return 0;
    }
    if (!describes_the_cpu(index) && !is_a_record(index)) {
        error_setg(errp, "KVM %s MSR 0x%x, which is 0x%" PRIx64 " in vCPU %d",
                   known ? "refuses to set" : "does not have", index, value, cpu->index);
        return -1;
    }
    if (cpu->index == 0) {
        warn_report("MSR 0x%x stays 0x%" PRIx64 ": KVM does not set it to 0x%" PRIx64, index, now,
                    value);
    }
    return 0;
}

static int write_all(CPUState *cpu, const struct kvm_msr_entry *entries, unsigned total,
                     Error **errp)
{
    g_autofree MSRBatch *batch = g_new0(MSRBatch, 1);

    for (unsigned next = 0; next < total; ) {
        unsigned n = total - next;

        memcpy(batch->entries, entries + next, n * sizeof(entries[0]));
        batch->head.nmsrs = n;
        int set = kvm_vcpu_ioctl(cpu, KVM_SET_MSRS, batch);
        if (set < 0) {
            error_setg_errno(errp, -set, "KVM does not set the MSRs of vCPU %d", cpu->index);
            return -1;
        }
        next += set;
        if (set < (int)n) {
            if (weigh_refusal(cpu, entries[next].index, entries[next].data, errp) < 0) {
                return -1;
            }
            next++;
        }
    }
    return 0;
}

static const X86MSR *find_msr(const X86CPUState *env, uint32_t index)
{
    for (unsigned i = 0; i < env->n_msrs; i++) {
        if (env->msrs[i].index == index) {
            return &env->msrs[i];
        }
    }
    return NULL;
}

int kvm_put_msrs(CPUState *cpu, const X86CPUState *env, const X86CPUState *power_on, Error **errp)
{
    g_autofree struct kvm_msr_entry *entries = g_new0(struct kvm_msr_entry, 2 * CPU_MSRS_MAX + 1);
    unsigned n = 0;

    if (!write_one(cpu, MSR_IA32_TSC, env->tsc)) {
        error_setg(errp, "KVM does not set the time stamp counter of vCPU %d", cpu->index);
        return -1;
    }
    for (unsigned i = 0; i < power_on->n_msrs; i++) {
        const X86MSR *msr = &power_on->msrs[i];

        if (!find_msr(env, msr->index)) {
            entries[n++] = (struct kvm_msr_entry) { .index = msr->index, .data = msr->value };
        }
    }
    for (unsigned i = 0; i < env->n_msrs; i++) {
        const X86MSR *msr = &env->msrs[i];

        if (!travels_elsewhere(msr->index) && msr->index != MSR_IA32_TSC_DEADLINE) {
            entries[n++] = (struct kvm_msr_entry) { .index = msr->index, .data = msr->value };
        }
    }
    /* At most CPU_MSRS_MAX in a call. */
    for (unsigned done = 0; done < n; done += CPU_MSRS_MAX) {
        if (write_all(cpu, entries + done, MIN(n - done, CPU_MSRS_MAX), errp) < 0) {
            return -1;
        }
    }
    return 0;
}

int kvm_put_tsc_deadline(CPUState *cpu, const X86CPUState *env, Error **errp)
{
    const X86MSR *msr = find_msr(env, MSR_IA32_TSC_DEADLINE);

    if (msr && !write_one(cpu, msr->index, msr->value)) {
        return weigh_refusal(cpu, msr->index, msr->value, errp);
    }
    return 0;
}
