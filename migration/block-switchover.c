/*
 * A source gives its disks up before it sends the devices, so that no word that would let the
 * destination start is out while both could write. A destination takes them when it has told the
 * source that all is well; if it cannot, it has the machine all the same, and stands until its
 * disks can be had.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/block-switchover.h"

#include "block/graph.h"
#include "system/bql.h"

int block_give_up(Error **errp)
{
    g_assert(bql_locked());
    return bdrv_inactivate_all(errp);
}

int block_take(Error **errp)
{
    g_assert(bql_locked());
    return bdrv_activate_all(errp);
}
