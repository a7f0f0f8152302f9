/*
 * Coroutines and contexts: who enters which coroutine where, and waiting for them from outside.
 *
 * A coroutine that was scheduled may still be on its way into its yield in another thread: the loop
 * that takes it from the queue waits until the thread that it left says that the stack is free,
 * which is a matter of instructions.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/coroutine-internal.h"

#include <sched.h>

#include "util/mutex.h"

void aio_co_resume(Coroutine *co)
{
    for (unsigned tries = 0; __atomic_load_n(&co->running, __ATOMIC_ACQUIRE); tries++) {
        if (tries < 1000) {
            __builtin_ia32_pause();
        } else {
            sched_yield();
        }
    }
    coroutine_enter(co);
}

static void enter_scheduled(void *opaque)
{
    Coroutine *co = opaque;

    __atomic_store_n(&co->scheduled, false, __ATOMIC_RELEASE);
    aio_co_resume(co);
}

/* A second wake-up before the first was heeded adds nothing. */
void aio_co_schedule(AioContext *ctx, Coroutine *co)
{
    if (!__atomic_exchange_n(&co->scheduled, true, __ATOMIC_ACQ_REL)) {
        co->call.fn = enter_scheduled;
        co->call.opaque = co;
        aio_call_push(ctx, &co->call);
    }
}

void aio_co_enter(AioContext *ctx, Coroutine *co)
{
    if (ctx == aio_current() && !in_coroutine() &&
        !__atomic_load_n(&co->scheduled, __ATOMIC_ACQUIRE)) {
        aio_co_resume(co);
    } else {
        aio_co_schedule(ctx, co);
    }
}

void aio_co_wake(Coroutine *co)
{
    aio_co_enter(aio_co_context(co), co);
}

AioContext *aio_co_context(Coroutine *co)
{
    AioContext *ctx = __atomic_load_n(&co->ctx, __ATOMIC_RELAXED);

    g_assert(ctx);
    return ctx;
}

void coroutine_fn aio_co_reschedule_self(AioContext *ctx)
{
    if (aio_current() != ctx) {
        aio_co_schedule(ctx, coroutine_self());
        coroutine_yield();
    }
}

static void wake_sleeper(void *opaque)
{
    aio_co_wake(opaque);
}

void coroutine_fn aio_co_sleep_ns(int64_t ns)
{
    AioTimer *timer = aio_timer_new(aio_current(), wake_sleeper, coroutine_self());
    int64_t deadline;

    if (__builtin_add_overflow(aio_clock_ns(), MAX(ns, 0), &deadline)) {
        deadline = INT64_MAX;
    }
    aio_timer_mod(timer, deadline);
    coroutine_yield();
    aio_timer_free(timer);
}

/*
 * Waiting outside of coroutines -----------------------------------------------------------------
 */

/* Contexts in which AIO_WAIT_WHILE waits, one entry for each wait. */
static Mutex waits_lock;
static GPtrArray *waits;        /* under waits_lock */
static int n_waits;             /* atomic */
/* Threads without a context wait for aio_co_run() here. */
static Cond foreign_done;

void aio_wait_begin(void)
{
    AioContext *ctx = aio_current();

    g_assert(ctx && !in_coroutine());
    mutex_lock(&waits_lock);
    if (!waits) {
        waits = g_ptr_array_new();
    }
    g_ptr_array_add(waits, ctx);
    mutex_unlock(&waits_lock);
    __atomic_fetch_add(&n_waits, 1, __ATOMIC_SEQ_CST);
}

void aio_wait_end(void)
{
    __atomic_fetch_sub(&n_waits, 1, __ATOMIC_SEQ_CST);
    mutex_lock(&waits_lock);
    g_ptr_array_remove_fast(waits, aio_current());
    mutex_unlock(&waits_lock);
}

/* Adding nothing orders the caller's store before the look at @n_waits. */
void aio_wait_kick(void)
{
    if (__atomic_fetch_add(&n_waits, 0, __ATOMIC_SEQ_CST) > 0) {
        mutex_lock(&waits_lock);
        for (unsigned i = 0; waits && i < waits->len; i++) {
            aio_notify(g_ptr_array_index(waits, i));
        }
        mutex_unlock(&waits_lock);
    }
}

typedef struct Run {
    CoroutineEntry *fn;
    void *opaque;
    bool foreign;
    bool done;                  /* atomic; when it is set, the struct may be gone */
} Run;

static void coroutine_fn run_entry(void *opaque)
{
    Run *run = opaque;

    run->fn(run->opaque);
    if (run->foreign) {
        mutex_lock(&waits_lock);
        __atomic_store_n(&run->done, true, __ATOMIC_RELEASE);
        cond_broadcast(&foreign_done);
        mutex_unlock(&waits_lock);
    } else {
        __atomic_store_n(&run->done, true, __ATOMIC_RELEASE);
        aio_wait_kick();
    }
}

void aio_co_run(AioContext *ctx, CoroutineEntry *fn, void *opaque)
{
    Run run = { .fn = fn, .opaque = opaque, .foreign = !aio_current() };
    Coroutine *co = coroutine_create(run_entry, &run);

    g_assert(!in_coroutine());
    aio_co_enter(ctx, co);
    if (run.foreign) {
        mutex_lock(&waits_lock);
        while (!__atomic_load_n(&run.done, __ATOMIC_ACQUIRE)) {
            cond_wait(&foreign_done, &waits_lock);
        }
        mutex_unlock(&waits_lock);
    } else {
        AIO_WAIT_WHILE(!__atomic_load_n(&run.done, __ATOMIC_ACQUIRE));
    }
}
