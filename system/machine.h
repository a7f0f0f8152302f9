/*
 * The machine: its types, and the one that this process runs.
 *
 * A machine type gives RAM its place, makes the board's devices and knows how to boot a kernel.
 * Types are registered by main/; the command line picks one and fills in a Machine;
 * machine_create() builds it. All on the main thread, under the big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_MACHINE_H
#define SYSTEM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include "system/ramblock.h"
#include "util/error.h"

typedef struct Machine Machine;

typedef struct MachineClass {
    const char *name;
    const char *desc;
    const char *alias;              /* or NULL */
    bool is_default;
    unsigned max_cpus;
    uint64_t default_ram_bytes;
    const char *ram_id;             /* name of the RAMBlock when no memory-backend is given */
    const char *cpu_type;           /* vCPU model used without -cpu */
    /* Lay out RAM and make the board's own devices. vCPUs exist already. */
    int (*init)(Machine *machine, Error **errp);
    /*
     * Load kernel or boot sector, check them, and register what sets them up at each reset. After
     * @init and after all devices.
     */
    int (*boot)(Machine *machine, Error **errp);
    /* Free what @init and @boot made; may be called after either failed. */
    void (*destroy)(Machine *machine);
} MachineClass;

struct Machine {
    const MachineClass *klass;
    uint64_t ram_bytes;
    unsigned cpus, sockets, cores, threads;
    bool acpi;                      /* describe it by ACPI tables */
    bool auto_kernel_cmdline;       /* tell kernels of devices that nothing else tells of */
    /* From the command line, owned; NULL when absent. */
    char *memory_backend;
    char *kernel, *initrd, *append;
    char *boot_disk;                /* drive whose first sector is booted without a kernel */
    /* Set by machine_create(). */
    RAMBlock *ram;
    void *boot;                     /* the class's own, for later resets */
};

/* Make @klass known, before the command line is parsed; it is kept. */
void machine_register(const MachineClass *klass);
/* All of them in order of registration: NULL starts, NULL ends. */
const MachineClass *machine_class_next(const MachineClass *after);
/* By name or alias; NULL gives the default. */
const MachineClass *machine_class_find(const char *name);

/*
 * Build the machine: RAM by its memory-backend or by @machine->ram_bytes, vCPUs of the accelerator
 * in use, the board. On success it is the current one, and @machine must live as long as the
 * process.
 */
int machine_create(Machine *machine, Error **errp);
/* The machine built, or NULL. */
Machine *machine_current(void);
/* At the end of the process; vCPUs have been destroyed. */
void machine_destroy(void);

#endif
