/*
 * Disks follow the run state of the machine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_BLOCK_RUN_STATE_H
#define HW_BLOCK_RUN_STATE_H

/*
 * From now on: when the machine has stopped, every request is done and all that was written is on
 * stable storage; before it starts, every node is active, or it does not start. Main thread, once,
 * before any device is made.
 */
void block_follow_run_state(void);

#endif
