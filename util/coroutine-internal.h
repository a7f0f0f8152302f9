/*
 * Inside of a coroutine, for util/ only.
 *
 * The struct lies at the top of the coroutine's own stack. What changes hands between threads is
 * @running (cleared by the thread that was left, once nothing uses the stack any more; whoever
 * enters next waits for it) and @scheduled (set by who puts @call into a context's queue, cleared
 * there).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_COROUTINE_INTERNAL_H
#define UTIL_COROUTINE_INTERNAL_H

#include <stddef.h>

#include "util/aio-internal.h"
#include "util/coroutine.h"

#if defined(__SANITIZE_ADDRESS__)
#define COROUTINE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COROUTINE_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define COROUTINE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define COROUTINE_TSAN 1
#endif
#endif

struct Coroutine {
    void *sp;                   /* where it goes on, while it does not run */
    void *caller_sp;            /* where its enterer goes on, while it runs */
    Coroutine *caller;          /* the coroutine that entered it */
    CoroutineEntry *entry;
    void *opaque;
    AioContext *ctx;            /* in which it last ran; atomic */
    AioCall call;               /* enters it from a context's loop */
    bool running;               /* atomic */
    bool scheduled;             /* atomic: @call is queued */
    bool ended;
    Coroutine *pool_next;
    char *stack;                /* the lowest byte above the guard page */
    size_t stack_bytes;         /* up to this struct */
#ifdef COROUTINE_ASAN
    const void *caller_stack;
    size_t caller_stack_bytes;
#endif
#ifdef COROUTINE_TSAN
    void *fiber, *caller_fiber;
#endif
};

/* Save the callee's registers and stack pointer in *@save, go on at @load (coroutine-x86_64.c). */
void coroutine_switch(void **save, void *load);
/*
 * Lay a first frame below @top, from which coroutine_switch() calls @fn(@arg); returns its @load.
 */
void *coroutine_first_frame(void *top, void (*fn)(void *arg), void *arg);

#endif
