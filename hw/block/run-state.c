/*
 * The notifier is registered before those of all devices, so on a stop it is called when they
 * stand; what is left then are the requests of jobs and exports.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/block/run-state.h"

#include <glib.h>

#include "block/graph.h"
#include "system/runstate.h"

static void run_state_changed(void *opaque, bool running, RunState state)
{
    int ret;

    if (running) {
        return;
    }
    bdrv_drain_all();
    ret = bdrv_flush_all();
    if (ret < 0) {
        error_report("the machine stopped, but a disk could not be flushed: %s", g_strerror(-ret));
    }
}

static int activate_disks(Error **errp)
{
    return bdrv_activate_all(errp);
}

void block_follow_run_state(void)
{
    runstate_add_notifier(run_state_changed, NULL);
    runstate_set_start_check(activate_disks);
}
