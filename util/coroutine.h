/*
 * Coroutines: functions that can stop in the middle and go on later, each on a stack of its own.
 *
 * The block layer's requests are coroutines: code that waits for a disk reads from top to bottom,
 * and the thread does other things meanwhile. A coroutine runs in the thread that enters it until
 * it yields or returns; it is never interrupted. One that yielded may be entered by another thread,
 * but who does that uses aio_co_schedule() or aio_co_wake() (util/aio.h), which put it into the
 * right one.
 *
 * A function marked coroutine_fn may yield: only a coroutine may call it, and whatever can change
 * while it waits must be looked at again afterwards. Thread-local variables must not be kept in
 * pointers across a yield.
 *
 * Stacks are mapped with a guard page below them and kept in a pool for the next coroutine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_COROUTINE_H
#define UTIL_COROUTINE_H

#include <stdbool.h>

/* Marks a function that may yield. For readers; the compiler knows nothing of it. */
#define coroutine_fn

typedef struct Coroutine Coroutine;
typedef void coroutine_fn CoroutineEntry(void *opaque);

/*
 * A coroutine that will call @entry(@opaque) when it is first entered, and is gone when that
 * returns.
 */
Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque);

/*
 * Run @co until it yields or ends. It must not be running. Coroutines that it schedules by
 * coroutine_enter() nest: the caller goes on when @co yields.
 */
void coroutine_enter(Coroutine *co);

/* Go back to whoever entered this coroutine; returns when it is entered again. */
void coroutine_fn coroutine_yield(void);

/* The coroutine that is running in this thread; NULL outside of one. */
Coroutine *coroutine_self(void);
static inline bool in_coroutine(void)
{
    return coroutine_self() != 0;
}

/* Whether @co has been entered and has not yielded since. */
bool coroutine_entered(Coroutine *co);

#endif
