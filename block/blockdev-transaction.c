/*
 * Transactions: first what needs no standstill, then everything is drained and the actions are done
 * one after the other; when one fails, those before it are undone, the last first.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/block-action.h"
#include "qapi/qapi-commands-transaction.h"
#include "qapi/util.h"

static int abort_prepare(void *state, const TransactionAction *action, Error **errp)
{
    error_setg(errp, "Transaction aborted using Abort action");
    return -1;
}

static const BlockActionOps action_abort = { .prepare = abort_prepare };

static const BlockActionOps *const ops_of[TRANSACTION_ACTION_KIND__MAX] = {
    [TRANSACTION_ACTION_KIND_ABORT] = &action_abort,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD] = &action_bitmap_add,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE] = &action_bitmap_remove,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR] = &action_bitmap_clear,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE] = &action_bitmap_enable,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE] = &action_bitmap_disable,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE] = &action_bitmap_merge,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT] = &action_snapshot,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_SYNC] = &action_snapshot_sync,
};

typedef struct Step {
    const BlockActionOps *ops;
    const TransactionAction *action;
    void *state;
} Step;

static int prepare_all(const Step *steps, size_t n, Error **errp)
{
    for (size_t i = 0; i < n; i++) {
        if (steps[i].ops->prepare(steps[i].state, steps[i].action, errp) < 0) {
            while (i-- > 0) {
                if (steps[i].ops->abort) {
                    steps[i].ops->abort(steps[i].state);
                }
            }
            return -1;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (steps[i].ops->commit) {
            steps[i].ops->commit(steps[i].state);
        }
    }
    return 0;
}

int block_transaction(const TransactionActionList *list, Error **errp)
{
    size_t n = QAPI_LIST_LENGTH(list), opened;
    g_autofree Step *steps = g_new0(Step, n);
    int ret = 0;

    for (opened = 0; list && ret == 0; list = list->next) {
        Step *s = &steps[opened];

        *s = (Step){ .ops = ops_of[list->value->type], .action = list->value };
        s->state = g_malloc0(MAX(s->ops->state_bytes, 1));
        if (s->ops->open && s->ops->open(s->state, s->action, errp) < 0) {
            g_free(s->state);
            ret = -1;
        } else {
            opened++;
        }
    }
    if (ret == 0) {
        bdrv_drain_all_begin();
        ret = prepare_all(steps, n, errp);
        bdrv_drain_all_end();
    }
    for (size_t i = 0; i < opened; i++) {
        if (steps[i].ops->clean) {
            steps[i].ops->clean(steps[i].state);
        }
        g_free(steps[i].state);
    }
    return ret;
}

void block_action_run(const TransactionAction *action, Error **errp)
{
    TransactionActionList list = { .value = (TransactionAction *)action };

    block_transaction(&list, errp);
}

void qmp_transaction(TransactionActionList *actions, Error **errp)
{
    block_transaction(actions, errp);
}
