/*
 * Reset handlers: a list in order of registration.
 *
 * A handler may take itself or another out while the list runs: then its place is emptied, and the
 * list is tidied when the outermost run ends.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/reset.h"

#include <glib.h>

typedef struct ResetEntry {
    ResetHandler *handler;      /* NULL: taken out during a run */
    void *opaque;
} ResetEntry;

static GArray *entries;
static unsigned runs_nested;

void reset_register(ResetHandler *handler, void *opaque)
{
    ResetEntry entry = { handler, opaque };

    if (!entries) {
        entries = g_array_new(FALSE, FALSE, sizeof(ResetEntry));
    }
    g_array_append_val(entries, entry);
}

void reset_unregister(ResetHandler *handler, void *opaque)
{
    for (guint i = 0; entries && i < entries->len; i++) {
        ResetEntry *entry = &g_array_index(entries, ResetEntry, i);

        if (entry->handler == handler && entry->opaque == opaque) {
            if (runs_nested) {
                entry->handler = NULL;
            } else {
                g_array_remove_index(entries, i);
            }
            return;
        }
    }
}

static void tidy(void)
{
    for (guint i = entries->len; i-- > 0;) {
        if (!g_array_index(entries, ResetEntry, i).handler) {
            g_array_remove_index(entries, i);
        }
    }
}

void reset_run(void)
{
    if (!entries) {
        return;
    }
    runs_nested++;
    for (guint i = 0; i < entries->len; i++) {
        ResetEntry entry = g_array_index(entries, ResetEntry, i);

        if (entry.handler) {
            entry.handler(entry.opaque);
        }
    }
    if (--runs_nested == 0) {
        tidy();
    }
}
