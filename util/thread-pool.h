/*
 * Threads that do what would block an event loop: one pool for the process, which grows with demand
 * up to a limit and shrinks again when there is nothing to do.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_THREAD_POOL_H
#define UTIL_THREAD_POOL_H

#include "util/coroutine.h"

/* Runs in a thread of the pool; returns 0 or more, or a negative errno. */
typedef int ThreadPoolFn(void *opaque);

/* Call @fn(@opaque) in a thread of the pool; returns what it returned, in the caller's context. */
int coroutine_fn thread_pool_submit_co(ThreadPoolFn *fn, void *opaque);

#endif
