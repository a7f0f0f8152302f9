/*
 * Auto-converge: slow the vCPUs down while the machine dirties memory faster than it can be sent.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_AUTOCONVERGE_H
#define MIGRATION_AUTOCONVERGE_H

#include <stdint.h>

typedef struct AutoConverge {
    unsigned periods_too_fast;      /* since the throttle was last moved */
} AutoConverge;

/*
 * Tell of a period (a second or more) between two syncs of the dirty bitmap: @sent_bytes left,
 * @dirty_bytes were dirtied. Moves the throttle, by the live parameters, when the machine has been
 * too fast for two periods. Migration thread.
 */
void autoconverge_period(AutoConverge *ac, uint64_t sent_bytes, uint64_t dirty_bytes);
/*
 * The throttle that follows @now percent, given the period's figures; 0 < result <= 99.
 * autoconverge_period() uses it; apart for tests.
 */
int autoconverge_next(int now, uint64_t threshold_bytes, uint64_t dirty_bytes);
/* The vCPUs run freely again. */
void autoconverge_stop(AutoConverge *ac);

#endif
