/*
 * Mutexes and conditions for threads of this program: pthread's, because thread checkers know them
 * (GLib's are futexes of its own, which a checker cannot see through).
 *
 * Zeroed memory is an unlocked mutex and a condition nobody waits for, so static ones and members
 * of structs that g_new0() made need no initialisation. Misuse aborts.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_MUTEX_H
#define UTIL_MUTEX_H

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

typedef pthread_mutex_t Mutex;
typedef pthread_cond_t Cond;

static inline void mutex_init(Mutex *mutex)
{
    pthread_mutex_init(mutex, NULL);
}

static inline void mutex_destroy(Mutex *mutex)
{
    pthread_mutex_destroy(mutex);
}

static inline void mutex_lock(Mutex *mutex)
{
    if (pthread_mutex_lock(mutex) != 0) {
        g_error("a mutex cannot be locked");
    }
}

static inline void mutex_unlock(Mutex *mutex)
{
    if (pthread_mutex_unlock(mutex) != 0) {
        g_error("a mutex cannot be unlocked");
    }
}

static inline void cond_init(Cond *cond)
{
    pthread_cond_init(cond, NULL);
}

static inline void cond_destroy(Cond *cond)
{
    pthread_cond_destroy(cond);
}

static inline void cond_signal(Cond *cond)
{
    pthread_cond_signal(cond);
}

static inline void cond_broadcast(Cond *cond)
{
    pthread_cond_broadcast(cond);
}

static inline void cond_wait(Cond *cond, Mutex *mutex)
{
    pthread_cond_wait(cond, mutex);
}

/*
 * Wait until woken or until @deadline_us of g_get_monotonic_time(). Returns false when the time has
 * passed.
 */
static inline bool cond_wait_until(Cond *cond, Mutex *mutex, gint64 deadline_us)
{
    struct timespec until = {
        .tv_sec = deadline_us / G_USEC_PER_SEC,
        .tv_nsec = deadline_us % G_USEC_PER_SEC * 1000,
    };

    return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &until) != ETIMEDOUT;
}

#endif
