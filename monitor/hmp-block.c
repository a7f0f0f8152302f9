/*
 * HMP: disks and what goes on with them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include "monitor/hmp.h"
#include "qapi/qapi-commands-job.h"

void hmp_info_block_jobs(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    BlockJobInfoList *list = qmp_query_block_jobs(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (!list) {
        monitor_printf(mon, "No active jobs\n");
    }
    for (BlockJobInfoList *j = list; j; j = j->next) {
        monitor_printf(mon, "Type %s, device %s: Completed %" PRId64 " of %" PRId64
                       " bytes, speed limit %" PRId64 " bytes/s\n", JobType_str(j->value->type),
                       j->value->device, j->value->offset, j->value->len, j->value->speed);
    }
    qapi_free_BlockJobInfoList(list);
}
