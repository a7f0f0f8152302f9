/*
 * GLib asks a context's poll function to wait; ours lets go of the big lock around the wait. That
 * is the one place where the main thread gives the lock away, so every callback of every source
 * runs with it held and none has to know.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include "system/bql.h"
#include "system/main-loop.h"
#include "util/aio.h"

static GThread *main_thread;
static int quit_requested;      /* atomic */
static int quit_status;

typedef struct Posted {
    MainLoopFn *fn;
    void *opaque;
} Posted;

static pthread_mutex_t posted_lock = PTHREAD_MUTEX_INITIALIZER;
static GArray *posted_calls;    /* of Posted; not NULL: a source that runs them is attached */

static int poll_without_lock(GPollFD *fds, guint n, int timeout_ms)
{
    bool locked = bql_locked();
    int ret;

    if (locked) {
        bql_unlock();
    }
    ret = g_poll(fds, n, timeout_ms);
    if (locked) {
        bql_lock();
    }
    return ret;
}

void main_loop_init(void)
{
    main_thread = g_thread_self();
    g_main_context_set_poll_func(NULL, poll_without_lock);
    aio_context_main();
    aio_set_main_home(bql_locked);
}

bool main_loop_is_main_thread(void)
{
    return g_thread_self() == main_thread;
}

void main_loop_iterate(bool may_block)
{
    g_assert(bql_locked() && main_loop_is_main_thread());
    g_main_context_iteration(NULL, may_block);
}

int main_loop_run(void)
{
    while (!g_atomic_int_get(&quit_requested)) {
        main_loop_iterate(true);
    }
    return g_atomic_int_get(&quit_status);
}

void main_loop_quit(int status)
{
    static int taken;

    if (g_atomic_int_compare_and_exchange(&taken, 0, 1)) {
        g_atomic_int_set(&quit_status, status);
        g_atomic_int_set(&quit_requested, 1);
    }
    g_main_context_wakeup(NULL);
}

static gboolean run_posted(gpointer opaque)
{
    GArray *calls;

    pthread_mutex_lock(&posted_lock);
    calls = g_steal_pointer(&posted_calls);
    pthread_mutex_unlock(&posted_lock);
    for (guint i = 0; i < calls->len; i++) {
        Posted call = g_array_index(calls, Posted, i);

        call.fn(call.opaque);
    }
    g_array_free(calls, TRUE);
    return G_SOURCE_REMOVE;
}

void main_loop_post(MainLoopFn *fn, void *opaque)
{
    Posted call = { .fn = fn, .opaque = opaque };

    pthread_mutex_lock(&posted_lock);
    if (!posted_calls) {
        posted_calls = g_array_new(FALSE, FALSE, sizeof(Posted));
        g_idle_add_full(G_PRIORITY_DEFAULT, run_posted, NULL, NULL);
    }
    g_array_append_val(posted_calls, call);
    pthread_mutex_unlock(&posted_lock);
}
