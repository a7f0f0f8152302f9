/*
 * Threads that turn a context until they are told to stop. The list belongs to the main thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/iothread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "util/mutex.h"

struct IOThread {
    char *id;
    AioContext *ctx;
    pthread_t thread;
    unsigned users;
    int stopping;               /* atomic */
    Mutex lock;
    Cond started;
    int64_t thread_id;          /* under lock; 0: it has not begun yet */
};

static GPtrArray *iothreads;

static void *iothread_run(void *opaque)
{
    IOThread *iothread = opaque;
    char name[16];

    g_strlcpy(name, "IO ", sizeof(name));
    g_strlcat(name, iothread->id, sizeof(name));
    pthread_setname_np(pthread_self(), name);
    aio_set_current(iothread->ctx);

    mutex_lock(&iothread->lock);
    iothread->thread_id = gettid();
    cond_signal(&iothread->started);
    mutex_unlock(&iothread->lock);

    while (!__atomic_load_n(&iothread->stopping, __ATOMIC_ACQUIRE)) {
        aio_poll(iothread->ctx, true);
    }
    /* What came in before the word to stop is done. */
    while (aio_poll(iothread->ctx, false)) {
    }
    aio_set_current(NULL);
    return NULL;
}

static void iothread_destroy(IOThread *iothread)
{
    aio_context_unref(iothread->ctx);
    mutex_destroy(&iothread->lock);
    cond_destroy(&iothread->started);
    g_free(iothread->id);
    g_free(iothread);
}

/* Signals are the main thread's. */
static int start_thread(IOThread *iothread)
{
    sigset_t all, old;
    int ret;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&iothread->thread, NULL, iothread_run, iothread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret;
}

IOThread *iothread_new(const char *id, int64_t poll_max_ns, Error **errp)
{
    IOThread *iothread;
    AioContext *ctx;
    int ret;

    if (iothread_by_id(id)) {
        error_setg(errp, "an iothread '%s' exists already", id);
        return NULL;
    }
    ctx = aio_context_new(errp);
    if (!ctx) {
        error_prepend(errp, "iothread '%s': ", id);
        return NULL;
    }
    aio_context_set_poll_max_ns(ctx, poll_max_ns);
    iothread = g_new0(IOThread, 1);
    iothread->id = g_strdup(id);
    iothread->ctx = ctx;
    mutex_init(&iothread->lock);
    cond_init(&iothread->started);
    ret = start_thread(iothread);
    if (ret != 0) {
        error_setg_errno(errp, ret, "cannot start the thread of iothread '%s'", id);
        iothread_destroy(iothread);
        return NULL;
    }
    mutex_lock(&iothread->lock);
    while (!iothread->thread_id) {
        cond_wait(&iothread->started, &iothread->lock);
    }
    mutex_unlock(&iothread->lock);
    if (!iothreads) {
        iothreads = g_ptr_array_new();
    }
    g_ptr_array_add(iothreads, iothread);
    return iothread;
}

void iothread_free(IOThread *iothread)
{
    g_assert(iothread->users == 0);
    g_ptr_array_remove(iothreads, iothread);
    __atomic_store_n(&iothread->stopping, 1, __ATOMIC_RELEASE);
    aio_notify(iothread->ctx);
    pthread_join(iothread->thread, NULL);
    iothread_destroy(iothread);
}

IOThread *iothread_by_id(const char *id)
{
    for (unsigned i = 0; iothreads && i < iothreads->len; i++) {
        IOThread *iothread = g_ptr_array_index(iothreads, i);

        if (strcmp(iothread->id, id) == 0) {
            return iothread;
        }
    }
    return NULL;
}

AioContext *iothread_context(IOThread *iothread)
{
    return iothread->ctx;
}

const char *iothread_id(const IOThread *iothread)
{
    return iothread->id;
}

int64_t iothread_thread_id(const IOThread *iothread)
{
    return iothread->thread_id;
}

void iothread_get(IOThread *iothread)
{
    iothread->users++;
}

void iothread_put(IOThread *iothread)
{
    g_assert(iothread->users > 0);
    iothread->users--;
}

unsigned iothread_users(const IOThread *iothread)
{
    return iothread->users;
}

void iothread_foreach(void (*fn)(IOThread *iothread, void *opaque), void *opaque)
{
    for (unsigned i = 0; iothreads && i < iothreads->len; i++) {
        fn(g_ptr_array_index(iothreads, i), opaque);
    }
}
