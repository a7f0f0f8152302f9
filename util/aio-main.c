/*
 * The main thread's context, and which context a thread is in.
 *
 * The main context is turned by GLib's loop: it is a source whose descriptor is the epoll set. GLib
 * sleeps in milliseconds, so the first timer's deadline is given to a timerfd in the set instead.
 *
 * With a big lock the main context's home moves: any thread that holds the lock may use it, and
 * turn it by aio_poll(), while the main thread sleeps in GLib's poll or waits for the lock. So
 * GLib's sleep is remembered apart from aio_poll()'s, and whatever is added is announced to both.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-internal.h"

#include <errno.h>
#include <sys/timerfd.h>

#include "util/mutex.h"

typedef struct AioSource {
    GSource source;
    AioContext *ctx;
    gpointer tag;
} AioSource;

static __thread AioContext *own_context;
static AioContext *main_context;        /* atomic; set once */
static pthread_t main_thread;           /* valid when main_context is set */
static Mutex main_lock;
static bool (*main_home)(void);         /* atomic */

static bool timers_due(AioContext *ctx)
{
    return ctx->timers->len && aio_timers_deadline(ctx) <= aio_clock_ns();
}

static bool something_to_do(AioContext *ctx)
{
    return aio_calls_pending(ctx) || aio_hooks_ready(ctx) || timers_due(ctx);
}

static void set_timer_fd(AioContext *ctx)
{
    int64_t deadline = aio_timers_deadline(ctx);
    struct itimerspec when = { 0 };

    if (deadline == ctx->timer_fd_deadline) {
        return;
    }
    ctx->timer_fd_deadline = deadline;
    if (deadline != INT64_MAX) {
        deadline = MAX(deadline, 1);    /* 0 would disarm it */
        when.it_value.tv_sec = deadline / 1000000000;
        when.it_value.tv_nsec = deadline % 1000000000;
    }
    if (timerfd_settime(ctx->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0) {
        g_error("cannot set the main loop's timer: %s", g_strerror(errno));
    }
}

static gboolean source_prepare(GSource *source, gint *timeout)
{
    AioContext *ctx = ((AioSource *)source)->ctx;

    *timeout = -1;
    aio_hooks_flush(ctx);
    __atomic_fetch_or(&ctx->sleeping, SLEEPING_IN_GLIB, __ATOMIC_SEQ_CST);
    __atomic_exchange_n(&ctx->notified, 0, __ATOMIC_SEQ_CST);
    if (something_to_do(ctx)) {
        return TRUE;
    }
    set_timer_fd(ctx);
    return FALSE;
}

static gboolean source_check(GSource *source)
{
    AioSource *self = (AioSource *)source;

    __atomic_fetch_and(&self->ctx->sleeping, ~SLEEPING_IN_GLIB, __ATOMIC_SEQ_CST);
    return g_source_query_unix_fd(source, self->tag) != 0 || something_to_do(self->ctx);
}

static gboolean source_dispatch(GSource *source, GSourceFunc callback, gpointer opaque)
{
    aio_poll(((AioSource *)source)->ctx, false);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs source_funcs = {
    .prepare = source_prepare, .check = source_check, .dispatch = source_dispatch,
};

static AioContext *main_context_new(void)
{
    AioContext *ctx = aio_context_new(&error_abort);
    AioSource *source;

    ctx->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (ctx->timer_fd < 0 || !aio_wake_fd_add(ctx, ctx->timer_fd)) {
        g_error("cannot make the main loop's timer: %s", g_strerror(errno));
    }
    source = (AioSource *)g_source_new(&source_funcs, sizeof(AioSource));
    source->ctx = ctx;
    source->tag = g_source_add_unix_fd(&source->source, ctx->epoll_fd, G_IO_IN);
    g_source_set_name(&source->source, "aio");
    g_source_set_can_recurse(&source->source, TRUE);
    g_source_attach(&source->source, NULL);
    g_source_unref(&source->source);
    return ctx;
}

AioContext *aio_context_main(void)
{
    AioContext *ctx = __atomic_load_n(&main_context, __ATOMIC_ACQUIRE);

    if (!ctx) {
        mutex_lock(&main_lock);
        if (!main_context) {
            main_thread = pthread_self();
            __atomic_store_n(&main_context, main_context_new(), __ATOMIC_RELEASE);
        }
        ctx = main_context;
        mutex_unlock(&main_lock);
    }
    return ctx;
}

void aio_set_main_home(bool (*is_home)(void))
{
    __atomic_store_n(&main_home, is_home, __ATOMIC_RELEASE);
}

/* Not inlined anywhere: a coroutine may have changed threads since the last call. */
AioContext *__attribute__((noinline)) aio_current(void)
{
    AioContext *ctx = own_context;
    bool (*is_home)(void);

    __asm__ volatile("");
    if (!ctx && (ctx = __atomic_load_n(&main_context, __ATOMIC_ACQUIRE))) {
        is_home = __atomic_load_n(&main_home, __ATOMIC_ACQUIRE);
        if (is_home ? !is_home() : !pthread_equal(pthread_self(), main_thread)) {
            ctx = NULL;
        }
    }
    return ctx;
}

void aio_set_current(AioContext *ctx)
{
    own_context = ctx;
}
