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

#include <stdbool.h>

void bql_lock(void);
void bql_unlock(void);
/* Whether the calling thread holds the lock. */
bool bql_locked(void);

#endif
