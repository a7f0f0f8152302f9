/*
 * Timers: a binary heap in an array, the earliest on top; each timer knows its place.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-internal.h"

#define NOT_ARMED (-1)

struct AioTimer {
    AioContext *ctx;
    AioFn *fn;
    void *opaque;
    int64_t deadline_ns;
    int place;                  /* in the heap, or NOT_ARMED */
};

static AioTimer *at(AioContext *ctx, int place)
{
    return g_ptr_array_index(ctx->timers, place);
}

static void put(AioContext *ctx, int place, AioTimer *timer)
{
    g_ptr_array_index(ctx->timers, place) = timer;
    timer->place = place;
}

static void sift_up(AioContext *ctx, AioTimer *timer)
{
    int place = timer->place;

    while (place > 0 && at(ctx, (place - 1) / 2)->deadline_ns > timer->deadline_ns) {
        put(ctx, place, at(ctx, (place - 1) / 2));
        place = (place - 1) / 2;
    }
    put(ctx, place, timer);
}

static void sift_down(AioContext *ctx, AioTimer *timer)
{
    int n = ctx->timers->len, place = timer->place, child;

    while ((child = place * 2 + 1) < n) {
        if (child + 1 < n && at(ctx, child + 1)->deadline_ns < at(ctx, child)->deadline_ns) {
            child++;
        }
        if (at(ctx, child)->deadline_ns >= timer->deadline_ns) {
            break;
        }
        put(ctx, place, at(ctx, child));
        place = child;
    }
    put(ctx, place, timer);
}

AioTimer *aio_timer_new(AioContext *ctx, AioFn *fn, void *opaque)
{
    AioTimer *timer = g_new0(AioTimer, 1);

    *timer = (AioTimer) { .ctx = ctx, .fn = fn, .opaque = opaque, .place = NOT_ARMED };
    return timer;
}

void aio_timer_mod(AioTimer *timer, int64_t deadline_ns)
{
    AioContext *ctx = timer->ctx;

    aio_timer_del(timer);
    timer->deadline_ns = deadline_ns;
    timer->place = ctx->timers->len;
    g_ptr_array_add(ctx->timers, timer);
    sift_up(ctx, timer);
    if (timer->place == 0) {
        aio_notify(ctx);        /* the main context's sleeper may be another thread */
    }
}

void aio_timer_del(AioTimer *timer)
{
    AioContext *ctx = timer->ctx;
    int place = timer->place;
    AioTimer *last;

    if (place == NOT_ARMED) {
        return;
    }
    timer->place = NOT_ARMED;
    last = at(ctx, ctx->timers->len - 1);
    g_ptr_array_set_size(ctx->timers, ctx->timers->len - 1);
    if (last != timer) {
        put(ctx, place, last);
        sift_up(ctx, last);
        sift_down(ctx, last);
    }
}

bool aio_timer_pending(const AioTimer *timer)
{
    return timer->place != NOT_ARMED;
}

void aio_timer_free(AioTimer *timer)
{
    if (timer) {
        aio_timer_del(timer);
        g_free(timer);
    }
}

int64_t aio_timers_deadline(AioContext *ctx)
{
    return ctx->timers->len ? at(ctx, 0)->deadline_ns : INT64_MAX;
}

/* Those that are due now; one that is armed again by its function waits for the next turn. */
bool aio_timers_run(AioContext *ctx)
{
    bool did = false;
    int64_t now;

    if (!ctx->timers->len) {
        return false;
    }
    now = aio_clock_ns();
    for (unsigned n = ctx->timers->len; n > 0 && aio_timers_deadline(ctx) <= now; n--) {
        AioTimer *timer = at(ctx, 0);

        aio_timer_del(timer);
        timer->fn(timer->opaque);
        did = true;
    }
    return did;
}
