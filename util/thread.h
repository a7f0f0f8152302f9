/*
 * Starting threads, as g_thread_new() does, for programs that must not end because one more could
 * not be had.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_THREAD_H
#define UTIL_THREAD_H

#include <glib.h>

#include "util/error.h"

/* NULL with @errp set when the system has no more threads for us. Join it with g_thread_join(). */
static inline GThread *thread_try_new(const char *name, GThreadFunc fn, void *opaque, Error **errp)
{
    g_autoptr(GError) err = NULL;
    GThread *thread = g_thread_try_new(name, fn, opaque, &err);

    if (!thread) {
        error_setg(errp, "cannot start thread '%s': %s", name, err->message);
    }
    return thread;
}

#endif
