/*
 * vCPUs: one thread each, started, stopped, kicked and throttled here; what a vCPU does while it
 * runs is the accelerator's (system/accel.h).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_CPUS_H
#define SYSTEM_CPUS_H

#include <glib.h>
#include <stdbool.h>
#include <pthread.h>
#include "system/cpu-state.h"
#include "util/error.h"

#define CPUS_MAX 16

typedef struct CPUState {
    int index;
    uint32_t apic_id;
    pthread_t thread;
    int thread_id;              /* gettid() */
    bool created;
    bool stop, stopped;         /* asked to stop; stands. Under the big lock */
    bool halted;                /* executed HLT and waits (accelerators without their own wait) */
    int exit_request;           /* atomic: leave guest code as soon as possible */
    X86CPUState env;            /* valid when env_valid; owned by the vCPU thread while it runs */
    bool env_valid;             /* env is newer than or equal to the accelerator's copy */
    bool env_dirty;             /* env must go to the accelerator before the vCPU runs */
    void *accel;                /* the accelerator's own */
} CPUState;

/* Create @count vCPUs, stopped, in reset state. Waits until their threads stand. */
int cpus_create(unsigned count, Error **errp);
unsigned cpus_count(void);
CPUState *cpu_get(unsigned index);
#define CPU_FOREACH(cpu) \
    for (unsigned cpu##_i = 0; cpu##_i < cpus_count(); cpu##_i++) \
        for (CPUState *cpu = cpu_get(cpu##_i); cpu; cpu = NULL)
/* The vCPU whose thread calls, or NULL. */
CPUState *cpu_current(void);

/* Under the big lock. vm_start() and vm_stop() call them. */
void cpus_resume_all(void);
void cpus_pause_all(void);      /* returns when every vCPU stands */
void cpus_destroy(void);        /* ends the threads */
/*
 * Make a vCPU leave guest code, or wake it from HALTED, and look around. The accelerator's set_irq
 * calls it when an interrupt became pending for a vCPU that the kernel does not wake by itself.
 */
void cpu_kick(CPUState *cpu);

/*
 * Put every vCPU into its reset state (in env only: cpus_push_all() follows when a boot protocol
 * has had its say). Under the big lock, vCPUs stopped.
 */
void cpus_reset_all(void);

/*
 * Run @fn on the vCPU's own thread, between guest runs, and wait for it; the caller holds the big
 * lock, which is dropped while waiting, and @fn runs with it held.
 */
void cpu_run_on(CPUState *cpu, void (*fn)(CPUState *cpu, void *opaque), void *opaque);

/* Bring env up to date with the accelerator (any vCPU, running or not); errors name the vCPU. */
int cpu_synchronize_state(CPUState *cpu, Error **errp);
/* Give env to the accelerator: after reset, boot set-up or load. */
int cpu_push_state(CPUState *cpu, Error **errp);
int cpus_synchronize_all(Error **errp);
int cpus_push_all(Error **errp);

/* Throttling for auto-converge: 0 (off) to 99 percent of each vCPU's time asleep. Any thread. */
void cpus_throttle_set(int percentage);
int cpus_throttle_get(void);

/* Stopped on an error (internal error, unknown exit): run state internal-error. vCPU thread. */
void cpu_report_internal_error(CPUState *cpu, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
