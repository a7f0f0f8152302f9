/*
 * Dirty trackers: the conformance cases over pagemap, and how a tracker is chosen.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/unit/dirty-conformance.h"

static char *pagemap_set_up(void)
{
    Error *err = NULL;
    DirtyTracker *probe;
    char *reason;

    dirty_tracker_select("pagemap", &error_abort);
    probe = dirty_tracker_start(&err);
    if (probe) {
        dirty_tracker_stop(probe);
        return NULL;
    }
    reason = g_strdup(error_get_pretty(err));
    g_assert_true(g_str_has_prefix(reason, "Cannot track dirty pages: "));
    error_free(err);
    return reason;
}

static const TrackerUnderTest pagemap = {
    .klass = &dirty_tracker_pagemap,
    .set_up = pagemap_set_up,
};

/* A class that cannot start, and says why. */
static DirtyTracker *broken_start(Error **errp)
{
    error_setg(errp, "the log is on strike");
    return NULL;
}

static void test_select(void)
{
    static const DirtyTrackerClass broken = { .name = "broken", .start = broken_start };
    RAMBlock *block = ram_block_new("b", TARGET_PAGE_SIZE, NULL, &error_abort);
    Error *err = NULL;

    g_assert_cmpint(dirty_tracker_select("broken", &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "There is no dirty tracker 'broken' in this machine; there is 'pagemap'");
    error_free(err);
    err = NULL;

    /* The accelerator's own is the default, and its failure leaves nothing on. */
    dirty_tracker_register(&broken);
    g_assert_null(dirty_tracker_start(&err));
    g_assert_cmpstr(error_get_pretty(err), ==, "the log is on strike");
    error_free(err);
    err = NULL;
    g_assert_null(block->process_dirty);
    g_assert_cmpint(dirty_tracker_select("x", &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "There is no dirty tracker 'x' in this machine; there "
                    "are 'pagemap' and 'broken'");
    error_free(err);
    g_assert_cmpint(dirty_tracker_select("broken", &error_abort), ==, 0);
    g_assert_cmpint(dirty_tracker_select("pagemap", &error_abort), ==, 0);
    g_assert_cmpint(dirty_tracker_select(NULL, &error_abort), ==, 0);
    dirty_tracker_register(NULL);
    dirty_tracker_stop(NULL);
    ram_block_free(block);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dirty-tracker/select", test_select);
    dirty_conformance_add(&pagemap);
    return g_test_run();
}
