/*
 * Names of CPU features and where CPUID shows them. Names are those of QEMU's -cpu option.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef ACCEL_KVM_CPU_FEATURES_H
#define ACCEL_KVM_CPU_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

struct kvm_cpuid_entry2;

typedef enum CPUIDRegister { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX } CPUIDRegister;

typedef struct CPUFeature {
    uint32_t function, index;   /* the CPUID leaf */
    CPUIDRegister reg;
    unsigned bit;
} CPUFeature;

/* Returns: whether a feature of that name is known ('_' and '-' are the same); fills @feature. */
bool cpu_feature_find(const char *name, CPUFeature *feature);

/* The registers that hold features, in any order; bit is 0. */
unsigned cpu_feature_words_count(void);
CPUFeature cpu_feature_word(unsigned i);

/* The member of @entry that holds register @reg. */
uint32_t *cpuid_entry_register(struct kvm_cpuid_entry2 *entry, CPUIDRegister reg);

#endif
