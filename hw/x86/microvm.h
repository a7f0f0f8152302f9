/*
 * The machine type microvm: RAM, one legacy interrupt controller pair and I/O APIC, timer, RTC,
 * ports for reset and exit, slots for virtio devices, and whatever the command line adds; no PCI,
 * no firmware. ACPI describes it unless -machine acpi=off says no.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_X86_MICROVM_H
#define HW_X86_MICROVM_H

#include "system/machine.h"

extern const MachineClass machine_microvm;

#endif
