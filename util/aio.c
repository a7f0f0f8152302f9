/*
 * The loop. One turn: run the calls that wait, the timers that are due and what engines have
 * finished; only when there was nothing of that kind (or for the sixteenth time in a row) look at
 * descriptors, and sleep there when the caller wants to wait.
 *
 * Waking a sleeper. Who has something for the loop stores it (a call in @incoming, a condition of
 * AIO_WAIT_WHILE), then sets @notified, then looks at @sleeping, and writes the eventfd when it is
 * set and @notified was not. A loop that is going to sleep sets @sleeping, clears @notified, and
 * then looks for work. So either the loop sees the work or the other one sees that it sleeps. The
 * eventfd is watched edge-triggered and never read.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-internal.h"

#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define TURNS_AWAKE_MAX 16
#define POLL_NS_FIRST 4000

int64_t aio_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/*
 * Life ------------------------------------------------------------------------------------------
 */

bool aio_wake_fd_add(AioContext *ctx, int fd)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLET };

    return epoll_ctl(ctx->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

AioContext *aio_context_new(Error **errp)
{
    AioContext *ctx = g_new0(AioContext, 1);

    ctx->refcount = 1;
    ctx->timer_fd = -1;
    ctx->timer_fd_deadline = INT64_MAX;
    ctx->timers = g_ptr_array_new();
    ctx->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ctx->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ctx->epoll_fd < 0 || ctx->event_fd < 0 || !aio_wake_fd_add(ctx, ctx->event_fd)) {
        error_setg_errno(errp, errno, "cannot make an event loop");
        aio_context_unref(ctx);
        return NULL;
    }
    return ctx;
}

AioContext *aio_context_ref(AioContext *ctx)
{
    __atomic_fetch_add(&ctx->refcount, 1, __ATOMIC_RELAXED);
    return ctx;
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void aio_context_unref(AioContext *ctx)
{
    if (__atomic_sub_fetch(&ctx->refcount, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    /* Who pushed the last call may not have come back yet from waking us. */
    while (__atomic_load_n(&ctx->pushing, __ATOMIC_ACQUIRE) > 0) {
        sched_yield();
    }
    g_assert(!aio_calls_pending(ctx) && !ctx->handing_out);
    while (ctx->hooks) {
        AioHook *hook = ctx->hooks;

        ctx->hooks = hook->next;
        hook->destroy(hook);
    }
    aio_fds_free(ctx);
    g_assert(ctx->timers->len == 0);
    g_ptr_array_free(ctx->timers, TRUE);
    close_fd(ctx->epoll_fd);
    close_fd(ctx->event_fd);
    g_free(ctx);
}

/*
 * Calls for later -------------------------------------------------------------------------------
 */

void aio_notify(AioContext *ctx)
{
    uint64_t one = 1;

    if (__atomic_exchange_n(&ctx->notified, 1, __ATOMIC_SEQ_CST) == 0 &&
        __atomic_load_n(&ctx->sleeping, __ATOMIC_SEQ_CST) != 0) {
        while (write(ctx->event_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
        }
    }
}

static void push(AioContext *ctx, AioCall *call)
{
    AioCall *first = __atomic_load_n(&ctx->incoming, __ATOMIC_RELAXED);

    do {
        call->next = first;
    } while (!__atomic_compare_exchange_n(&ctx->incoming, &first, call, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
    aio_notify(ctx);
}

/*
 * The call may be the last thing that its context ever does: once it is pushed, another thread's
 * right to touch the context is over, except that the context's end waits for @pushing.
 */
void aio_call_push(AioContext *ctx, AioCall *call)
{
    if (aio_current() == ctx) {
        push(ctx, call);
    } else {
        __atomic_fetch_add(&ctx->pushing, 1, __ATOMIC_RELAXED);
        push(ctx, call);
        __atomic_fetch_sub(&ctx->pushing, 1, __ATOMIC_RELEASE);
    }
}

bool aio_calls_pending(AioContext *ctx)
{
    return ctx->todo || __atomic_load_n(&ctx->incoming, __ATOMIC_ACQUIRE);
}

/* Move what came in to the end of @todo, turning the stack into a queue; returns the last call. */
static AioCall *take_incoming(AioContext *ctx)
{
    AioCall *call, *first = NULL;

    if (__atomic_load_n(&ctx->incoming, __ATOMIC_RELAXED)) {
        call = __atomic_exchange_n(&ctx->incoming, NULL, __ATOMIC_ACQUIRE);
        AioCall *last = call;

        while (call) {
            AioCall *next = call->next;

            call->next = first;
            first = call;
            call = next;
        }
        if (ctx->todo) {
            ctx->todo_last->next = first;
        } else {
            ctx->todo = first;
        }
        ctx->todo_last = last;
    }
    return ctx->todo ? ctx->todo_last : NULL;
}

/* Run the calls that wait now; what they add comes in the next turn. */
static bool run_calls(AioContext *ctx)
{
    AioCall *last = take_incoming(ctx), *call;

    if (!last) {
        return false;
    }
    /* A nested aio_poll() may have run all of them. */
    while ((call = ctx->todo)) {
        AioFn *fn = call->fn;

        ctx->todo = call->next;
        fn(call->opaque);
        if (call == last) {
            break;
        }
    }
    return true;
}

typedef struct Oneshot {
    AioCall call;
    AioFn *fn;
    void *opaque;
} Oneshot;

static void run_oneshot(void *opaque)
{
    Oneshot oneshot = *(Oneshot *)opaque;

    g_free(opaque);
    oneshot.fn(oneshot.opaque);
}

void aio_bh_schedule_oneshot(AioContext *ctx, AioFn *fn, void *opaque)
{
    Oneshot *oneshot = g_new(Oneshot, 1);

    *oneshot = (Oneshot) {
        .call = { .fn = run_oneshot, .opaque = oneshot }, .fn = fn, .opaque = opaque,
    };
    aio_call_push(ctx, &oneshot->call);
}

/*
 * Hooks -----------------------------------------------------------------------------------------
 */

void aio_hook_add(AioContext *ctx, AioHook *hook)
{
    hook->next = ctx->hooks;
    ctx->hooks = hook;
}

void aio_hooks_flush(AioContext *ctx)
{
    for (AioHook *hook = ctx->hooks; hook; hook = hook->next) {
        hook->flush(hook);
    }
}

static bool hooks_reap(AioContext *ctx)
{
    bool done = false;

    for (AioHook *hook = ctx->hooks; hook; hook = hook->next) {
        done |= hook->reap(hook);
    }
    return done;
}

bool aio_hooks_ready(AioContext *ctx)
{
    for (AioHook *hook = ctx->hooks; hook; hook = hook->next) {
        if (hook->ready(hook)) {
            return true;
        }
    }
    return false;
}

/*
 * Turns -----------------------------------------------------------------------------------------
 */

void aio_context_set_poll_max_ns(AioContext *ctx, int64_t max_ns)
{
    g_assert(max_ns >= 0);
    __atomic_store_n(&ctx->poll_max_ns, max_ns, __ATOMIC_RELAXED);
    aio_notify(ctx);
}

int64_t aio_context_poll_max_ns(AioContext *ctx)
{
    return __atomic_load_n(&ctx->poll_max_ns, __ATOMIC_RELAXED);
}

void aio_context_set_poll_factors(AioContext *ctx, unsigned grow, unsigned shrink)
{
    __atomic_store_n(&ctx->poll_grow, grow, __ATOMIC_RELAXED);
    __atomic_store_n(&ctx->poll_shrink, shrink, __ATOMIC_RELAXED);
}

void aio_context_set_may_block(AioContext *ctx, bool may_block)
{
    __atomic_store_n(&ctx->may_block, may_block, __ATOMIC_RELAXED);
}

bool aio_may_block(void)
{
    AioContext *ctx = aio_current();

    return ctx && __atomic_load_n(&ctx->may_block, __ATOMIC_RELAXED);
}

void aio_context_set_max_batch(AioContext *ctx, unsigned max_batch)
{
    __atomic_store_n(&ctx->max_batch, max_batch, __ATOMIC_RELAXED);
}

static bool run_what_waits(AioContext *ctx)
{
    bool did = run_calls(ctx);

    did |= aio_timers_run(ctx);
    aio_hooks_flush(ctx);
    did |= hooks_reap(ctx);
    return did;
}

/* Nanoseconds until the first timer is due, -1: there is none. */
static int64_t time_to_sleep(AioContext *ctx)
{
    int64_t deadline = aio_timers_deadline(ctx), left;

    if (deadline == INT64_MAX) {
        return -1;
    }
    /* Not inside MAX(), which looks twice: the second look may find it negative, "for ever". */
    left = deadline - aio_clock_ns();
    return MAX(left, 0);
}

static void hooks_sleep(AioContext *ctx, bool sleeping)
{
    for (AioHook *hook = ctx->hooks; hook; hook = hook->next) {
        if (hook->sleep) {
            hook->sleep(hook, sleeping);
        }
    }
}

static bool sleep_in_poll(AioContext *ctx)
{
    int64_t timeout_ns;
    bool did;

    hooks_sleep(ctx, true);
    __atomic_fetch_or(&ctx->sleeping, SLEEPING_IN_POLL, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&ctx->notified, 0, __ATOMIC_SEQ_CST) || aio_calls_pending(ctx) ||
        aio_hooks_ready(ctx)) {
        timeout_ns = 0;
    } else {
        timeout_ns = time_to_sleep(ctx);
    }
    did = aio_fds_wait(ctx, timeout_ns);
    hooks_sleep(ctx, false);
    return did;
}

/*
 * Look again and again for as long as it is thought worth while. Returns whether there is, or was,
 * something to do.
 */
static bool spin(AioContext *ctx, int64_t start, bool *did)
{
    int64_t end = MIN(start + ctx->poll_ns, aio_timers_deadline(ctx));

    do {
        if (__atomic_load_n(&ctx->notified, __ATOMIC_RELAXED) || aio_calls_pending(ctx) ||
            aio_hooks_ready(ctx)) {
            return true;
        }
        if (aio_fds_wait(ctx, 0)) {
            *did = true;
            return true;
        }
    } while (aio_clock_ns() < end);
    return false;
}

/* Events come just too late for the time to spin, but within the limit: more of it. */
static int64_t more_spinning(AioContext *ctx, int64_t max_ns)
{
    unsigned grow = __atomic_load_n(&ctx->poll_grow, __ATOMIC_RELAXED);
    int64_t ns;

    if (ctx->poll_ns == 0) {
        return MIN(POLL_NS_FIRST, max_ns);
    }
    return __builtin_mul_overflow(ctx->poll_ns, grow ? grow : 2, &ns) ? max_ns : MIN(ns, max_ns);
}

/* They come too rarely to wait for them awake: less of it. */
static int64_t less_spinning(AioContext *ctx)
{
    unsigned shrink = __atomic_load_n(&ctx->poll_shrink, __ATOMIC_RELAXED);

    return shrink ? ctx->poll_ns / shrink : 0;
}

static bool spin_then_sleep(AioContext *ctx, int64_t max_ns)
{
    int64_t start = aio_clock_ns();
    bool did = false;

    ctx->poll_ns = MIN(ctx->poll_ns, max_ns);
    if (ctx->poll_ns > 0 && spin(ctx, start, &did)) {
        /* A wake-up that was seen here need not be seen by who sleeps next. */
        __atomic_exchange_n(&ctx->notified, 0, __ATOMIC_SEQ_CST);
        return did;
    }
    did = sleep_in_poll(ctx);
    ctx->poll_ns = aio_clock_ns() - start <= max_ns ? more_spinning(ctx, max_ns)
                                                    : less_spinning(ctx);
    return did;
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    int64_t max_ns = __atomic_load_n(&ctx->poll_max_ns, __ATOMIC_RELAXED);
    bool did;

    g_assert(aio_current() == ctx && !in_coroutine());
    did = run_what_waits(ctx);
    if (did && ctx->turns_awake++ < TURNS_AWAKE_MAX) {
        return true;
    }
    ctx->turns_awake = 0;
    if (did || !blocking) {
        did |= aio_fds_wait(ctx, 0);
    } else if (max_ns > 0) {
        did |= spin_then_sleep(ctx, max_ns);
    } else {
        did |= sleep_in_poll(ctx);
    }
    did |= run_what_waits(ctx);
    return did;
}
