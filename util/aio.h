/*
 * AioContext: an event loop that one thread runs: file descriptors, timers, calls for later, and
 * completions of asynchronous I/O.
 *
 * There is one for the main thread (aio_context_main()), which is also a source of GLib's default
 * context, and one for each IOThread (util/iothread.h). A thread's own context is aio_current(); a
 * callback or coroutine runs in the context that it was registered or scheduled with.
 *
 * Threads. Functions that say "any thread" may be called from anywhere; all others only from the
 * context's home: the thread that runs it. The main context's home is the thread that holds the big
 * lock where there is one (aio_set_main_home()), else the main thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_AIO_H
#define UTIL_AIO_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/coroutine.h"
#include "util/error.h"

typedef struct AioContext AioContext;
typedef struct AioTimer AioTimer;
typedef void AioFn(void *opaque);

/*
 * Life ------------------------------------------------------------------------------------------
 */

/* A context that nobody runs yet; NULL with @errp set (no descriptors left). Any thread. */
AioContext *aio_context_new(Error **errp);
/*
 * References are counted; the last unref frees it, in a thread that is not inside aio_poll(). Any
 * thread.
 */
AioContext *aio_context_ref(AioContext *ctx);
void aio_context_unref(AioContext *ctx);

/*
 * The main thread's context: made at the first call, attached to GLib's default context, never
 * freed. Any thread.
 */
AioContext *aio_context_main(void);
/*
 * Tell who may run the main context besides the thread that first called aio_context_main():
 * @is_home returns whether the calling thread is it now (it holds the big lock).
 */
void aio_set_main_home(bool (*is_home)(void));

/* The context whose home the calling thread is; NULL in a thread that has none. */
AioContext *aio_current(void);
/* Make @ctx the calling thread's own (NULL: none). For whoever runs a context's loop. */
void aio_set_current(AioContext *ctx);

/*
 * Run one turn: what is ready, or, with @blocking, what becomes ready first. Home only; may be
 * called inside a callback (nested), not inside a coroutine.
 * Returns whether anything was run.
 */
bool aio_poll(AioContext *ctx, bool blocking);
/* Let a blocking aio_poll() of another thread return (having run nothing, perhaps). Any thread. */
void aio_notify(AioContext *ctx);

/*
 * How long a blocking aio_poll() looks again and again before it sleeps, at most, in nanoseconds
 * (0: it sleeps at once). Below that it adapts itself to how soon events come. Any thread.
 */
void aio_context_set_poll_max_ns(AioContext *ctx, int64_t max_ns);
int64_t aio_context_poll_max_ns(AioContext *ctx);
/*
 * How it adapts itself: by what the time is multiplied when events come soon after it (0: 2), and
 * by what it is divided when they come after the limit (0: it becomes nothing at once). Any thread.
 */
void aio_context_set_poll_factors(AioContext *ctx, unsigned grow, unsigned shrink);
/*
 * After how many requests an engine submits what was queued, even before the turn ends (0: as many
 * as it has room for). Any thread.
 */
void aio_context_set_max_batch(AioContext *ctx, unsigned max_batch);

/*
 * Whether the context's thread serves nothing that would suffer when a system call takes some
 * milliseconds: then what is usually quick, such as a write into the page cache, need not go to
 * another thread. (default: false). Any thread; aio_may_block() asks for the calling thread's own
 * context.
 */
void aio_context_set_may_block(AioContext *ctx, bool may_block);
bool aio_may_block(void);

/*
 * Calls for later -------------------------------------------------------------------------------
 */

/* Call @fn(@opaque) once from the context's loop; calls of one thread run in order. Any thread. */
void aio_bh_schedule_oneshot(AioContext *ctx, AioFn *fn, void *opaque);

/*
 * Descriptors -----------------------------------------------------------------------------------
 */

/*
 * Call @on_read(@opaque) while @fd is readable (or hung up), @on_write while it is writable;
 * replaces what was set for @fd. Both NULL: forget @fd, which must happen before it is closed. A
 * handler may change or remove any handler, its own too.
 */
void aio_set_fd_handler(AioContext *ctx, int fd, AioFn *on_read, AioFn *on_write, void *opaque);
/*
 * Forget a descriptor that coroutines have waited for in @ctx (aio_co_wait_fd()), which must happen
 * before it is closed, or waited for in another context. Nobody waits for it now.
 */
void aio_forget_fd(AioContext *ctx, int fd);

/*
 * Timers ----------------------------------------------------------------------------------------
 */

/* CLOCK_MONOTONIC in nanoseconds. Any thread. */
int64_t aio_clock_ns(void);
/* A timer that is not armed. Everything about a timer: home of @ctx only. */
AioTimer *aio_timer_new(AioContext *ctx, AioFn *fn, void *opaque);
/*
 * Call the function once at @deadline_ns of aio_clock_ns(), or right after it. Re-arms an armed
 * one.
 */
void aio_timer_mod(AioTimer *timer, int64_t deadline_ns);
void aio_timer_del(AioTimer *timer);
bool aio_timer_pending(const AioTimer *timer);
/* Disarm and free; NULL is allowed. */
void aio_timer_free(AioTimer *timer);

/*
 * Coroutines ------------------------------------------------------------------------------------
 */

/*
 * Enter @co, which is new or has yielded (or is about to), from the loop of @ctx; from then on @ctx
 * is the coroutine's. Any thread.
 */
void aio_co_schedule(AioContext *ctx, Coroutine *co);
/*
 * Let @co go on in the context in which it last ran: at once when that is the calling thread's and
 * no coroutine is running there, else from the loop. Any thread. The usual end of a wait:
 *     req.co = coroutine_self(); start(&req); while (!req.done) coroutine_yield();
 * where req.done is set in the coroutine's own context, right before the wake-up. Who is done in
 * another thread wakes a coroutine that yields once, without a condition, or sets req.done in a
 * call that it schedules: a coroutine that saw the flag early would be gone when it is woken.
 * Waking a coroutine again before it went on adds nothing.
 */
void aio_co_wake(Coroutine *co);
/*
 * The same at a known context, for a coroutine that never ran: enters it at once where that may be.
 */
void aio_co_enter(AioContext *ctx, Coroutine *co);
/* The context in which @co last ran (a new one: the creator's). Any thread. */
AioContext *aio_co_context(Coroutine *co);
/* Go on in the loop of @ctx; returns there. Does nothing when it is there already. */
void coroutine_fn aio_co_reschedule_self(AioContext *ctx);
/* Sleep; other coroutines run. */
void coroutine_fn aio_co_sleep_ns(int64_t ns);
/*
 * Wait until @fd is readable (@write: writable); for who has tried and got EAGAIN: what was there
 * before the last wait may not end this one. May return for no reason, so try again. A file never
 * waits. One coroutine a direction of a descriptor at a time, in one context; no handler is set for
 * it. Ends early when aio_co_wake() is called on the coroutine from its context's home.
 * aio_forget_fd() before the descriptor is closed.
 */
void coroutine_fn aio_co_wait_fd(int fd, bool write);

/*
 * Waiting outside of coroutines -----------------------------------------------------------------
 */

/*
 * Call @fn(@opaque) in a coroutine in @ctx and return when it has returned. Outside of coroutines,
 * in a thread that is home of @ctx (whose loop is turned) or of the main context (whose loop is
 * turned while
 * @ctx's thread works), or of none (the thread sleeps).
 */
void aio_co_run(AioContext *ctx, CoroutineEntry *fn, void *opaque);

/*
 * AIO_WAIT_WHILE(cond): turn the calling thread's loop while @cond. Whoever makes @cond false in
 * another thread calls aio_wait_kick() after it (@cond is read anew each time and must be atomic).
 * Main context's home or an iothread for its own; not in a coroutine.
 */
void aio_wait_kick(void);
void aio_wait_begin(void);
void aio_wait_end(void);
#define AIO_WAIT_WHILE(cond) do { \
    aio_wait_begin(); \
    while (cond) { \
        aio_poll(aio_current(), true); \
    } \
    aio_wait_end(); \
} while (0)

#endif
