/*
 * Choosing a dirty tracker, and adding to what it sees the pages that the process marked itself.
 *
 * A tracker class sees the writers of its kind; device models, monitors and loaders call
 * ram_block_mark_dirty(). The marks are switched on before the class starts and taken after each of
 * its syncs, so that no write falls between the two.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/dirty-tracker.h"

#include <string.h>

#include "system/ram-internal.h"
#include "util/bitmap.h"

static const DirtyTrackerClass *accel_class;
static const DirtyTrackerClass *selected_class;
static DirtyTracker *running;

void dirty_tracker_register(const DirtyTrackerClass *klass)
{
    g_assert(!running);
    if (selected_class == accel_class) {
        selected_class = NULL;
    }
    accel_class = klass;
}

int dirty_tracker_select(const char *name, Error **errp)
{
    if (!name) {
        selected_class = NULL;
    } else if (!strcmp(name, dirty_tracker_pagemap.name)) {
        selected_class = &dirty_tracker_pagemap;
    } else if (accel_class && !strcmp(name, accel_class->name)) {
        selected_class = accel_class;
    } else {
        error_setg(errp, "There is no dirty tracker '%s' in this machine; there %s '%s'%s%s%s",
                   name, accel_class ? "are" : "is", dirty_tracker_pagemap.name,
                   accel_class ? " and '" : "", accel_class ? accel_class->name : "",
                   accel_class ? "'" : "");
        return -1;
    }
    return 0;
}

DirtyTracker *dirty_tracker_start(Error **errp)
{
    const DirtyTrackerClass *klass = selected_class ?: accel_class ?: &dirty_tracker_pagemap;

    if (running) {
        error_setg(errp, "Dirty pages are tracked already, by '%s'", running->klass->name);
        return NULL;
    }
    if (!ram_dirty_marks_on(errp)) {
        return NULL;
    }
    running = klass->start(errp);
    if (!running) {
        ram_dirty_marks_off();
        return NULL;
    }
    running->klass = klass;
    return running;
}

int64_t dirty_tracker_sync(DirtyTracker *tracker, RAMBlock *block, unsigned long *bitmap,
                           Error **errp)
{
    int64_t found = tracker->klass->sync(tracker, block, bitmap, errp);

    if (found < 0) {
        return -1;
    }
    return found + bitmap_take_atomic(bitmap, block->process_dirty, block->pages);
}

void dirty_tracker_stop(DirtyTracker *tracker)
{
    if (!tracker) {
        return;
    }
    g_assert(tracker == running);
    tracker->klass->stop(tracker);
    running = NULL;
    ram_dirty_marks_off();
}
