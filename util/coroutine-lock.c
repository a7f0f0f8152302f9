/*
 * Waiting coroutines are kept in lists, each guarded by a mutex that is held for a few
 * instructions. What is waited for is handed over: whoever unlocks makes the first waiter the
 * holder before it wakes it, so nobody can overtake and nobody wakes for nothing.
 *
 * A waiter lies on the stack of its coroutine: it is taken off the list before the wake-up and not
 * touched after it. The waker may be faster than the waiter's yield: aio_co_wake() sees to that.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/coroutine-lock.h"

#include <glib.h>

#include "util/aio.h"

struct CoWaiter {
    Coroutine *co;
    CoWaiter *next;
    bool write;
};

static void list_append(CoWaitList *list, CoWaiter *waiter)
{
    waiter->next = NULL;
    if (list->last) {
        list->last->next = waiter;
    } else {
        list->first = waiter;
    }
    list->last = waiter;
}

static CoWaiter *list_pop(CoWaitList *list)
{
    CoWaiter *waiter = list->first;

    if (waiter) {
        list->first = waiter->next;
        if (!list->first) {
            list->last = NULL;
        }
    }
    return waiter;
}

static void wake_all(CoWaitList *list)
{
    CoWaiter *waiter;

    while ((waiter = list_pop(list))) {
        aio_co_wake(waiter->co);
    }
}

void co_mutex_init(CoMutex *mutex)
{
    *mutex = (CoMutex) { 0 };
    mutex_init(&mutex->guard);
}

void coroutine_fn co_mutex_lock(CoMutex *mutex)
{
    CoWaiter waiter = { .co = coroutine_self() };

    g_assert(waiter.co);
    mutex_lock(&mutex->guard);
    if (!mutex->holder) {
        mutex->holder = waiter.co;
        mutex_unlock(&mutex->guard);
        return;
    }
    g_assert(mutex->holder != waiter.co);
    list_append(&mutex->waiters, &waiter);
    mutex_unlock(&mutex->guard);
    coroutine_yield();
    g_assert(mutex->holder == waiter.co);
}

void coroutine_fn co_mutex_unlock(CoMutex *mutex)
{
    CoWaiter *next;
    Coroutine *co;

    mutex_lock(&mutex->guard);
    g_assert(mutex->holder && mutex->holder == coroutine_self());
    next = list_pop(&mutex->waiters);
    co = next ? next->co : NULL;
    mutex->holder = co;
    mutex_unlock(&mutex->guard);
    if (co) {
        aio_co_wake(co);
    }
}

bool co_mutex_is_locked(CoMutex *mutex)
{
    bool locked;

    mutex_lock(&mutex->guard);
    locked = mutex->holder != NULL;
    mutex_unlock(&mutex->guard);
    return locked;
}

void co_queue_init(CoQueue *queue)
{
    *queue = (CoQueue) { 0 };
    mutex_init(&queue->guard);
}

void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex)
{
    CoWaiter waiter = { .co = coroutine_self() };

    g_assert(waiter.co);
    mutex_lock(&queue->guard);
    list_append(&queue->waiters, &waiter);
    mutex_unlock(&queue->guard);
    if (mutex) {
        co_mutex_unlock(mutex);
    }
    coroutine_yield();
    if (mutex) {
        co_mutex_lock(mutex);
    }
}

bool co_queue_next(CoQueue *queue)
{
    CoWaiter *waiter;

    mutex_lock(&queue->guard);
    waiter = list_pop(&queue->waiters);
    mutex_unlock(&queue->guard);
    if (waiter) {
        aio_co_wake(waiter->co);
    }
    return waiter != NULL;
}

void co_queue_restart_all(CoQueue *queue)
{
    CoWaitList all;

    mutex_lock(&queue->guard);
    all = queue->waiters;
    queue->waiters = (CoWaitList) { 0 };
    mutex_unlock(&queue->guard);
    wake_all(&all);
}

bool co_queue_empty(CoQueue *queue)
{
    bool empty;

    mutex_lock(&queue->guard);
    empty = !queue->waiters.first;
    mutex_unlock(&queue->guard);
    return empty;
}

void co_rwlock_init(CoRwlock *lock)
{
    *lock = (CoRwlock) { 0 };
    mutex_init(&lock->guard);
}

static bool rwlock_grant(CoRwlock *lock, bool write)
{
    if (write ? lock->owners != 0 : lock->owners < 0) {
        return false;
    }
    lock->owners += write ? -1 : 1;
    return true;
}

static void coroutine_fn rwlock_lock(CoRwlock *lock, bool write)
{
    CoWaiter waiter = { .co = coroutine_self(), .write = write };

    g_assert(waiter.co);
    mutex_lock(&lock->guard);
    if (!lock->waiters.first && rwlock_grant(lock, write)) {
        mutex_unlock(&lock->guard);
        return;
    }
    list_append(&lock->waiters, &waiter);
    mutex_unlock(&lock->guard);
    coroutine_yield();
}

void coroutine_fn co_rwlock_rdlock(CoRwlock *lock)
{
    rwlock_lock(lock, false);
}

void coroutine_fn co_rwlock_wrlock(CoRwlock *lock)
{
    rwlock_lock(lock, true);
}

void coroutine_fn co_rwlock_unlock(CoRwlock *lock)
{
    CoWaitList granted = { 0 };

    mutex_lock(&lock->guard);
    g_assert(lock->owners != 0);
    lock->owners += lock->owners < 0 ? 1 : -1;
    while (lock->waiters.first && rwlock_grant(lock, lock->waiters.first->write)) {
        list_append(&granted, list_pop(&lock->waiters));
    }
    mutex_unlock(&lock->guard);
    wake_all(&granted);
}
