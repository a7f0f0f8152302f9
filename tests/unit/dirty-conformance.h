/*
 * The conformance test of dirty trackers: one table of cases over every class.
 *
 * A test program describes its class, adds the cases and runs them:
 *
 *     static const TrackerUnderTest kvm = { .klass = &dirty_tracker_kvm, .set_up = ..., ... };
 *     int main(...) { g_test_init(...); dirty_conformance_add(&kvm); return g_test_run(); }
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_UNIT_DIRTY_CONFORMANCE_H
#define TESTS_UNIT_DIRTY_CONFORMANCE_H

#include "system/dirty-tracker.h"

typedef struct TrackerUnderTest {
    const DirtyTrackerClass *klass;
    /*
     * Called with every RAM block made and mapped in the address space, before the first start.
     * Returns NULL, or the reason why the class cannot be used here (the case is skipped); caller
     * frees.
     */
    char *(*set_up)(void);
    void (*tear_down)(void);
    /*
     * Store @value at @offset (a multiple of 8) of @block as a vCPU would. Any thread. NULL when
     * the class sees plain stores of this process: then those are used, and the cases in which the
     * kernel writes for the process as well.
     */
    void (*cpu_write)(RAMBlock *block, uint64_t offset, uint64_t value);
} TrackerUnderTest;

/* @tracker must stay valid until the tests have run. */
void dirty_conformance_add(const TrackerUnderTest *tracker);

#endif
