/*
 * Locks and queues that make a coroutine wait, not its thread.
 *
 * All are safe between threads: a coroutine that is woken goes on in the AioContext in which it
 * waited. Zeroed memory is an initialised object of each kind. Waiters are served first come, first
 * served.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_COROUTINE_LOCK_H
#define UTIL_COROUTINE_LOCK_H

#include <stdbool.h>

#include "util/coroutine.h"
#include "util/mutex.h"

typedef struct CoWaiter CoWaiter;       /* on the waiting coroutine's stack */

typedef struct CoWaitList {
    CoWaiter *first, *last;
} CoWaitList;

/*
 * A mutex. Not recursive. It may be held across a yield and is released by the coroutine that took
 * it.
 */
typedef struct CoMutex {
    Mutex guard;
    Coroutine *holder;
    CoWaitList waiters;
} CoMutex;

void co_mutex_init(CoMutex *mutex);
void coroutine_fn co_mutex_lock(CoMutex *mutex);
void coroutine_fn co_mutex_unlock(CoMutex *mutex);
/* Whether some coroutine holds it; for assertions. */
bool co_mutex_is_locked(CoMutex *mutex);

/*
 * A queue of coroutines that wait for something. co_queue_wait() releases @mutex while it waits
 * (NULL: there is none, all users run in one AioContext) and takes it again. There are no spurious
 * wake-ups.
 */
typedef struct CoQueue {
    Mutex guard;
    CoWaitList waiters;
} CoQueue;

void co_queue_init(CoQueue *queue);
void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex);
/* Wake the first waiter, all waiters. From coroutines and from elsewhere. False: nobody waited. */
bool co_queue_next(CoQueue *queue);
void co_queue_restart_all(CoQueue *queue);
bool co_queue_empty(CoQueue *queue);

/* Many readers or one writer, in order of arrival. */
typedef struct CoRwlock {
    Mutex guard;
    CoWaitList waiters;
    int owners;                 /* readers, or -1: a writer */
} CoRwlock;

void co_rwlock_init(CoRwlock *lock);
void coroutine_fn co_rwlock_rdlock(CoRwlock *lock);
void coroutine_fn co_rwlock_wrlock(CoRwlock *lock);
void coroutine_fn co_rwlock_unlock(CoRwlock *lock);

#endif
