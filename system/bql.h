/*
 * The big lock: guards the machine (devices, run state, memory map, monitors).
 *
 * The main loop holds it except while it waits for events. A vCPU thread runs guest code without it
 * and takes it to handle an exit. Every other thread takes it for as short as it can and never
 * while it waits for a peer. It is not recursive.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_BQL_H
#define SYSTEM_BQL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Not recursive: a thread that holds it must not ask for it again. */
void bql_lock(void);
void bql_unlock(void);
/* Whether the calling thread holds the lock. */
bool bql_locked(void);

/*
 * Wait for @cond, which is signalled under the lock. The caller holds the lock; it is dropped while
 * waiting and held again on return. May wake for no reason, like all condition variables.
 */
void bql_cond_wait(pthread_cond_t *cond);
/*
 * The same until @deadline_us on the clock of g_get_monotonic_time(); @cond must have been made by
 * bql_cond_init(). Returns false when the time had come.
 */
bool bql_cond_wait_until(pthread_cond_t *cond, int64_t deadline_us);
/* Initialise a condition for bql_cond_wait_until(); pthread_cond_destroy() ends it. */
void bql_cond_init(pthread_cond_t *cond);

#endif
