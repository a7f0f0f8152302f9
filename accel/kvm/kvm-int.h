/*
 * What the files of accel/kvm/ share: the VM, its memory slots, and what hangs on a vCPU.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef ACCEL_KVM_INT_H
#define ACCEL_KVM_INT_H

#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include "system/accel.h"

struct json_object;

/* One memory slot of the VM: a piece of a RAMRange that KVM takes in one go. */
typedef struct KVMSlot {
    uint32_t id;
    uint64_t gpa;
    uint64_t size;              /* bytes */
    RAMBlock *block;
    uint64_t offset;            /* of the slot's first byte in the block */
    bool readonly;
    bool logged;                /* KVM_MEM_LOG_DIRTY_PAGES is on */
} KVMSlot;

typedef struct KVM {
    int fd;                     /* /dev/kvm */
    int vm_fd;
    unsigned cpus;

    /* Capabilities, asked once. */
    int max_slots;
    bool manual_protect;        /* dirty log is cleared by a call of its own */
    bool can_readonly;
    bool can_smm;
    bool can_payload;
    bool can_triple_fault;
    bool can_tsc_control;
    uint32_t xsave_bytes;
    size_t run_bytes;           /* of the mapping shared with a vCPU */

    /* Memory slots; changed under @slots_lock only. */
    pthread_mutex_t slots_lock;
    GArray *slots;              /* of KVMSlot */
    bool logging;

    /* What every vCPU is told it is; the parts that differ are patched in on the way. */
    struct kvm_cpuid2 *cpuid;
    /* MSRs that can be read, by KVM's list and ours. */
    GArray *msrs;               /* of uint32_t */

    /* In-kernel devices: as created, and as they were when the machine last stopped. */
    AccelVMPart power_on[VM_PARTS];
    AccelVMPart stopped[VM_PARTS];
    bool stopped_valid;
} KVM;

extern KVM kvm;

typedef struct KVMVcpu {
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    bool io_pending;            /* the last exit's port or MMIO access is not completed yet */
    uint32_t tsc_khz;
    X86CPUState *power_on;      /* as created: what a reset returns parts to that env leaves out */
} KVMVcpu;

/* kvm.c */
int kvm_vm_ioctl(unsigned long request, void *arg);
int kvm_check_extension(int capability);

/* slots.c: guest memory. The listener gives a RAM range to the VM, in as many slots as needed. */
void kvm_slots_init(void);
void kvm_slots_cleanup(void);
int kvm_ram_mapped(const RAMRange *range, Error **errp);
/* Watch or stop watching writes of vCPUs; all slots or, with @errp set, none. */
int kvm_slots_set_logging(bool enable, Error **errp);
/* Largest slot in bytes; smaller in tests. */
extern uint64_t kvm_slot_max_bytes;

/* vcpu.c */
int kvm_vcpu_init(CPUState *cpu, Error **errp);
void kvm_vcpu_destroy(CPUState *cpu);
CPUExit kvm_vcpu_exec(CPUState *cpu);
void kvm_vcpu_kick(CPUState *cpu);
/*
 * Let KVM finish the port or MMIO access that made the vCPU exit, without running the guest: until
 * then its registers are those of the middle of an instruction.
 */
int kvm_vcpu_complete_io(CPUState *cpu, Error **errp);
int kvm_vcpu_ioctl(CPUState *cpu, unsigned long request, void *arg);

/* cpuid.c */
/* Work out kvm.cpuid from the -cpu option; NULL is the default model. */
int kvm_cpuid_init(const char *cpu_model, Error **errp);
/* As AccelClass.cpu_model. */
const char *kvm_cpu_model(unsigned i);
int kvm_cpuid_set_vcpu(CPUState *cpu, Error **errp);

/* state.c */
int kvm_get_state(CPUState *cpu, Error **errp);
int kvm_put_state(CPUState *cpu, Error **errp);
/* Read everything into @env, which need not be the vCPU's. */
int kvm_read_state(CPUState *cpu, X86CPUState *env, Error **errp);

/* msr.c */
/* Find the MSRs that this VM's vCPUs can read; @cpu is the first one created. */
int kvm_msrs_init(CPUState *cpu, Error **errp);
int kvm_get_msrs(CPUState *cpu, X86CPUState *env, Error **errp);
/* Set the MSRs of @env, and to @power_on's value those that it does not name. */
int kvm_put_msrs(CPUState *cpu, const X86CPUState *env, const X86CPUState *power_on, Error **errp);
/* The timer deadline: after the local APIC. */
int kvm_put_tsc_deadline(CPUState *cpu, const X86CPUState *env, Error **errp);

/* vm-state.c */
int kvm_vm_devices_create(Error **errp);
int kvm_get_vm_state(AccelVMPart parts[VM_PARTS], Error **errp);
int kvm_put_vm_state(const AccelVMPart parts[VM_PARTS], Error **errp);
void kvm_run_state_changed(bool running);
void kvm_set_irq(unsigned gsi, bool level);
void kvm_reset(void);

/* dirty-log.c */
extern const DirtyTrackerClass dirty_tracker_kvm;

#endif
