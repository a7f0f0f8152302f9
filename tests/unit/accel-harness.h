/*
 * A small machine around a real accelerator, and the cases that every accelerator that runs code
 * must pass. Guests are a few bytes of 64-bit code in ring 3 with IOPL 3, in an identity map of the
 * first GiB; they talk to the test by ports.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_UNIT_ACCEL_HARNESS_H
#define TESTS_UNIT_ACCEL_HARNESS_H

#include "system/accel.h"

#define HARNESS_RAM_BYTES (64u << 20)
/* A second block, mapped above the first with a hole between, and not from its beginning. */
#define HARNESS_HIGH_GPA 0x10000000u
#define HARNESS_HIGH_OFFSET 0x3000u
#define HARNESS_HIGH_BYTES (8u << 20)
#define HARNESS_UNMAPPED 0x20000000u

/* Pages that the writer of accel_harness_write_pages() writes all the time between two lists. */
#define HARNESS_PARK_PAGE 0x700

extern RAMBlock *harness_low, *harness_high;

/*
 * Create the machine with @cpus vCPUs that stand. Returns false when the accelerator cannot work
 * here; the reason is given to g_test_skip() of every case.
 */
bool harness_create(const AccelClass *klass, unsigned cpus);
void harness_destroy(void);

/* Add the common cases below "/NAME/". @cpus as above. */
void harness_add_cases(const AccelClass *klass, unsigned cpus);

/* Put @code at @gpa and @cpu's env at its start, in ring 3 with a clean register file. */
void harness_load_code(CPUState *cpu, uint64_t gpa, const uint8_t *code, size_t len);
/* The same, in ring 0. */
void harness_load_code_ring0(CPUState *cpu, uint64_t gpa, const uint8_t *code, size_t len);
void harness_push(CPUState *cpu);
void harness_sync(CPUState *cpu);

/*
 * Let the guest on @cpu write to the @n pages (numbers of guest physical pages) and wait until it
 * has. It goes on writing HARNESS_PARK_PAGE. The guest must run harness_start_writer()'s code.
 */
void harness_start_writer(CPUState *cpu);
void harness_write_pages(const uint32_t *pages, unsigned n);

#define HARNESS_SKIP_IF_ABSENT() do { \
        if (harness_absent) { \
            g_test_skip(harness_absent); \
            return; \
        } \
    } while (0)
extern const char *harness_absent;

#endif
