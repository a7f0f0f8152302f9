/*
 * Accelerators: what runs guest code.
 *
 * One is chosen at start; accel/kvm/, accel/tcg/ and accel/qtest/ each give one AccelClass, and
 * main/ lists them. Functions run under the big lock unless said otherwise. A function that is NULL
 * does nothing and succeeds.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_ACCEL_H
#define SYSTEM_ACCEL_H

#include "system/cpus.h"
#include "system/dirty-tracker.h"
#include "system/memory.h"

struct json_object;

typedef enum CPUExit {
    CPU_EXIT_AGAIN,             /* kicked or interrupted: look at requests and run again */
    CPU_EXIT_HALTED,            /* HLT with nothing pending: sleep until kicked */
    CPU_EXIT_STOPPED,           /* a handler stopped the machine (shutdown, reset, error) */
} CPUExit;

/* A named piece of VM-wide state (interrupt controllers, PIT, clock) as opaque bytes. */
typedef struct AccelVMPart {
    const char *name;           /* "pic-master", "pic-slave", "ioapic", "pit", "clock" */
    uint8_t data[1024];
    uint32_t len;               /* 0: this accelerator has no such part */
} AccelVMPart;
enum { VM_PIC_MASTER, VM_PIC_SLAVE, VM_IOAPIC, VM_PIT, VM_CLOCK, VM_PARTS };

typedef struct AccelClass {
    const char *name;           /* "kvm", "tcg", "qtest" */
    const char *desc;
    bool runs_cpus;             /* false: vCPU threads only wait (qtest) */
    unsigned max_cpus;

    /*
     * @opts: the -accel option's key=value pairs after the name, a json object or NULL; unknown
     * keys are an error that names them. Fails with the reason when the host cannot. @cpu_model:
     * the -cpu option (a model, with ",+feature,-feature") or NULL.
     */
    int (*init)(struct json_object *opts, const char *cpu_model, unsigned cpus, Error **errp);
    void (*cleanup)(void);
    /*
     * The name of CPU model @i, from 0; NULL after the last. For -cpu help; NULL: there are none.
     */
    const char *(*cpu_model)(unsigned i);

    /* On the vCPU's thread. */
    int (*vcpu_init)(CPUState *cpu, Error **errp);
    void (*vcpu_destroy)(CPUState *cpu);
    /* Run guest code until something needs attention. Called without the big lock. */
    CPUExit (*vcpu_exec)(CPUState *cpu);
    /* Make vcpu_exec return soon; any thread, no lock. */
    void (*vcpu_kick)(CPUState *cpu);
    /* Read all state into cpu->env; write all of cpu->env. On the vCPU's thread. */
    int (*get_state)(CPUState *cpu, Error **errp);
    int (*put_state)(CPUState *cpu, Error **errp);

    int (*get_vm_state)(AccelVMPart parts[VM_PARTS], Error **errp);
    int (*put_vm_state)(const AccelVMPart parts[VM_PARTS], Error **errp);
    /* vCPUs are about to run, or stand now: stop and start clocks. */
    void (*run_state_changed)(bool running);

    int (*ram_mapped)(const RAMRange *range, Error **errp);
    void (*set_irq)(unsigned gsi, bool level);
    /* Reset of in-kernel devices, before vCPU states are pushed. */
    void (*reset)(void);

    const DirtyTrackerClass *dirty_tracker;     /* NULL: pagemap is used */
} AccelClass;

/* Try @class; on success it is the machine's accelerator. */
int accel_init(const AccelClass *klass, struct json_object *opts, const char *cpu_model,
               unsigned cpus, Error **errp);
/* The accelerator in use; NULL before accel_init() succeeded. */
const AccelClass *accel_current(void);

/*
 * Device access from vcpu_exec: ports and MMIO by the address space (system/memory.h), which takes
 * the big lock.
 */
extern const AccelClass accel_kvm, accel_tcg, accel_qtest;

#endif
