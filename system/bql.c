/*
 * The big lock is one mutex and, in each thread, a note whether that thread holds it. The note
 * makes bql_locked() cheap and turns a double lock, which would hang, into an abort with a stack to
 * read.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <glib.h>
#include <time.h>
#include "system/bql.h"

static pthread_mutex_t bql = PTHREAD_MUTEX_INITIALIZER;
static __thread bool held;

void bql_lock(void)
{
    g_assert(!held);
    pthread_mutex_lock(&bql);
    held = true;
}

void bql_unlock(void)
{
    g_assert(held);
    held = false;
    pthread_mutex_unlock(&bql);
}

bool bql_locked(void)
{
    return held;
}

void bql_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

void bql_cond_wait(pthread_cond_t *cond)
{
    g_assert(held);
    held = false;
    pthread_cond_wait(cond, &bql);
    held = true;
}

bool bql_cond_wait_until(pthread_cond_t *cond, int64_t deadline_us)
{
    struct timespec deadline = {
        .tv_sec = deadline_us / G_USEC_PER_SEC,
        .tv_nsec = deadline_us % G_USEC_PER_SEC * 1000,
    };
    int ret;

    g_assert(held);
    held = false;
    ret = pthread_cond_timedwait(cond, &bql, &deadline);
    held = true;
    return ret != ETIMEDOUT;
}
