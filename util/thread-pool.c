/*
 * One queue, as many threads as are needed at once (at most THREADS_MAX). A thread that had nothing
 * to do for IDLE_S seconds ends. A result goes to the context of the coroutine that waits for it as
 * a call, so the coroutine sees it in its own loop only.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/thread-pool.h"

#include <errno.h>
#include <signal.h>

#include "util/aio-internal.h"
#include "util/mutex.h"

#define THREADS_MAX 64
#define IDLE_S 10

typedef struct Job Job;
struct Job {
    ThreadPoolFn *fn;
    void *opaque;
    int ret;
    bool done;                  /* in the context only */
    Coroutine *co;
    AioContext *ctx;
    AioCall finished;
    Job *next;
};

static Mutex lock;
static Cond work;
static Job *first, *last;
static unsigned n_threads, n_idle, n_queued;

static Job *queue_pop(void)
{
    Job *job = first;

    if (job) {
        first = job->next;
        n_queued--;
    }
    return job;
}

/*
 * The next job; NULL: there was none for so long that the thread is to end. Called with the lock.
 */
static Job *wait_for_job(void)
{
    gint64 until = g_get_monotonic_time() + IDLE_S * G_USEC_PER_SEC;
    bool in_time = true;
    Job *job;

    while (!(job = queue_pop()) && in_time) {
        n_idle++;
        in_time = cond_wait_until(&work, &lock, until);
        n_idle--;
    }
    return job;
}

static void *pool_thread(void *opaque)
{
    Job *job;

    pthread_setname_np(pthread_self(), "worker");
    mutex_lock(&lock);
    while ((job = wait_for_job())) {
        mutex_unlock(&lock);
        job->ret = job->fn(job->opaque);
        aio_call_push(job->ctx, &job->finished);
        mutex_lock(&lock);
    }
    n_threads--;
    mutex_unlock(&lock);
    return NULL;
}

/* One more thread. When there cannot be more, those that exist must do. Called with the lock. */
static void start_thread(void)
{
    sigset_t all, old;
    pthread_attr_t attr;
    pthread_t thread;
    int ret;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&thread, &attr, pool_thread, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (ret == 0) {
        n_threads++;
    } else if (n_threads == 0) {
        g_error("cannot start a worker thread: %s", g_strerror(ret));
    }
}

static void queue_push(Job *job)
{
    mutex_lock(&lock);
    if (first) {
        last->next = job;
    } else {
        first = job;
    }
    last = job;
    n_queued++;
    if (n_idle < n_queued && n_threads < THREADS_MAX) {
        start_thread();
    }
    if (n_idle > 0) {
        cond_signal(&work);
    }
    mutex_unlock(&lock);
}

static void job_finished(void *opaque)
{
    Job *job = opaque;

    job->done = true;
    aio_co_wake(job->co);
}

int coroutine_fn thread_pool_submit_co(ThreadPoolFn *fn, void *opaque)
{
    Job job = { .fn = fn, .opaque = opaque, .co = coroutine_self(), .ctx = aio_current() };

    g_assert(job.co && job.ctx);
    job.finished = (AioCall) { .fn = job_finished, .opaque = &job };
    queue_push(&job);
    while (!job.done) {
        coroutine_yield();
    }
    return job.ret;
}
