/*
 * A machine that dirties more than a share (throttle-trigger-threshold) of what was sent in the
 * same time will not become small enough to switch over. When that was so in two periods, its vCPUs
 * are put to sleep for cpu-throttle-initial percent of their time, later for cpu-throttle-increment
 * percent more each time, up to max-cpu-throttle. With cpu-throttle-tailslow a step is never larger
 * than what would, if dirtying goes down as run time does, just reach the threshold.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/autoconverge.h"

#include <glib.h>
#include "migration/options.h"
#include "system/cpus.h"

#define PERIODS_TO_TRIGGER 2

int autoconverge_next(int now, uint64_t threshold_bytes, uint64_t dirty_bytes)
{
    int step = migration_live_throttle_increment();

    if (now == 0) {
        return migration_live_throttle_initial();
    }
    if (migration_live_throttle_tailslow() && dirty_bytes) {
        int running = 100 - now;
        int enough = (double)running * threshold_bytes / dirty_bytes;
        step = MIN(step, running - enough);
    }
    return MIN(now + step, (int)migration_live_throttle_max());
}

void autoconverge_period(AutoConverge *ac, uint64_t sent_bytes, uint64_t dirty_bytes)
{
    uint64_t threshold_bytes = (double)sent_bytes * migration_live_throttle_trigger() / 100;

    if (dirty_bytes <= threshold_bytes || ++ac->periods_too_fast < PERIODS_TO_TRIGGER) {
        return;
    }
    ac->periods_too_fast = 0;
    cpus_throttle_set(autoconverge_next(cpus_throttle_get(), threshold_bytes, dirty_bytes));
}

void autoconverge_stop(AutoConverge *ac)
{
    ac->periods_too_fast = 0;
    cpus_throttle_set(0);
}
