/*
 * The main loop: the main thread's GMainContext (the default one), run with the big lock held while
 * callbacks run and released while it polls. Monitors, chardevs, timers and signals are sources of
 * this context; whoever attaches one need not think of the lock.
 *
 * The main AioContext (util/aio.h) is one of its sources. Whoever holds the big lock, in whatever
 * thread, is at home there; a blocking aio_poll() of it, and so AIO_WAIT_WHILE() and aio_co_run(),
 * keeps the lock while it waits: what is waited for must not need it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_MAIN_LOOP_H
#define SYSTEM_MAIN_LOOP_H

#include <stdbool.h>

/* Once, on the main thread, before any source is attached. Does not take the lock. */
void main_loop_init(void);

/*
 * Dispatch events until main_loop_quit(). The caller holds the big lock, and holds it again when
 * this returns. Main thread only. Returns the status given to main_loop_quit().
 */
int main_loop_run(void);

/* Let main_loop_run() return @status; the first call counts. Any thread, lock or no lock. */
void main_loop_quit(int status);

/*
 * Dispatch what is ready, or wait for one event first when @may_block. For code on the main thread
 * that must let the loop turn, with the big lock held.
 */
void main_loop_iterate(bool may_block);

/* Whether the calling thread is the one that called main_loop_init(). */
bool main_loop_is_main_thread(void);

/*
 * Call @fn(@opaque) once on the main thread, from the loop, with the big lock held. Any thread,
 * lock or no lock; calls posted by one thread run in the order in which they were posted.
 */
typedef void MainLoopFn(void *opaque);
void main_loop_post(MainLoopFn *fn, void *opaque);

#endif
