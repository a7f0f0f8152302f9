/*
 * The migration sections of the processor and of what an accelerator keeps beside it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_X86_VMSTATE_H
#define HW_X86_VMSTATE_H

#include "util/error.h"

/*
 * Register "cpu" (one instance a vCPU) and, behind them, "i8259" (two instances), "ioapic", "i8254"
 * and "kvmclock". Once, when the vCPUs have been created, under the big lock.
 *
 * Saving reads the state out of the accelerator and loading gives it to the accelerator section by
 * section, so a state that this machine's accelerator cannot hold fails the load with its reason.
 * Sections of devices that the accelerator does not have are not written.
 *
 * Returns: 0, or -1 with @errp set when a section of such a name exists.
 */
int x86_vmstate_register(Error **errp);
void x86_vmstate_unregister(void);

/* The two halves. */
int x86_cpu_vmstate_register(Error **errp);
void x86_cpu_vmstate_unregister(void);
int x86_vm_vmstate_register(Error **errp);
void x86_vm_vmstate_unregister(void);

#endif
