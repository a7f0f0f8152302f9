/*
 * Inside of an AioContext, for util/ only.
 *
 * What other threads may touch is @incoming, @notified, @sleeping, @pushing and the atomic
 * settings; everything else belongs to the context's home.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_AIO_INTERNAL_H
#define UTIL_AIO_INTERNAL_H

#include "util/aio.h"

/*
 * A call that waits in a context's queue: part of a larger thing, which stays in place until then.
 */
typedef struct AioCall AioCall;
struct AioCall {
    AioCall *next;
    AioFn *fn;
    void *opaque;
};

/* Part of an asynchronous engine in a context. The loop calls all of them in every turn. */
typedef struct AioHook AioHook;
struct AioHook {
    AioHook *next;
    void (*flush)(AioHook *hook);       /* hand the kernel what was queued */
    bool (*reap)(AioHook *hook);        /* finish what is done; returns whether something was */
    bool (*ready)(AioHook *hook); /* whether reap would find something, without a system call */
    /* The loop is going to sleep (then asks @ready once more), or is awake. NULL: all the same. */
    void (*sleep)(AioHook *hook, bool sleeping);
    void (*destroy)(AioHook *hook);
};

typedef struct FdState FdState;

enum { AIO_HOOKS_MAX = 4 };

struct AioContext {
    int refcount;               /* atomic */
    int epoll_fd, event_fd;
    int timer_fd;               /* the main context's, whose sleep is GLib's; else -1 */
    int64_t timer_fd_deadline;

    AioCall *incoming;          /* atomic: a stack, pushed by any thread */
    int notified;               /* atomic: a wake-up is under way or remembered */
    int sleeping;               /* atomic: SLEEPING_* */
    int pushing;                /* atomic: other threads that are inside aio_call_push() */
    AioCall *todo, *todo_last;  /* taken from @incoming, in order */

    FdState **fds;              /* by descriptor */
    unsigned n_fds;
    FdState *dead_fds;          /* removed while events are being handed out */
    unsigned handing_out;       /* depth of aio_poll() calls that do so */
    uint64_t polls;             /* counts them: events got before a nested one are stale */

    GPtrArray *timers;          /* a heap, the first is the earliest */

    AioHook *hooks;
    void *engine[AIO_HOOKS_MAX];        /* by AioEngineKind; made at the first request */

    int64_t poll_max_ns;        /* these three are atomic */
    unsigned poll_grow, poll_shrink;
    bool may_block;             /* atomic */
    int64_t poll_ns;            /* what it is now */
    unsigned max_batch;         /* atomic */
    unsigned turns_awake;       /* turns since descriptors were looked at */
};

enum {
    SLEEPING_IN_POLL = 1,       /* a thread waits in aio_poll() */
    SLEEPING_IN_GLIB = 2,       /* the main thread waits in GLib's poll */
};

/* Have @call's function called from the loop. Any thread. */
void aio_call_push(AioContext *ctx, AioCall *call);
/* Whether calls wait. */
bool aio_calls_pending(AioContext *ctx);

void aio_hook_add(AioContext *ctx, AioHook *hook);
void aio_hooks_flush(AioContext *ctx);
bool aio_hooks_ready(AioContext *ctx);
/*
 * An eventfd or timerfd that only ends a sleep: nobody reads it, nothing is called. False: errno.
 */
bool aio_wake_fd_add(AioContext *ctx, int fd);

/* Descriptors (aio-fd.c): wait for events with epoll and hand them out. -1: for ever. */
bool aio_fds_wait(AioContext *ctx, int64_t timeout_ns);
void aio_fds_free(AioContext *ctx);

/* Timers (aio-timer.c). The earliest deadline; INT64_MAX: none. */
int64_t aio_timers_deadline(AioContext *ctx);
bool aio_timers_run(AioContext *ctx);

/* Enter a coroutine that was taken from the queue or belongs here (aio-co.c). */
void aio_co_resume(Coroutine *co);

#endif
