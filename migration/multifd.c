/*
 * The pool: one mutex, a short queue a worker, two kinds of waiting.
 *
 * Jobs are runs of pages, megabytes where memory allows, so one lock for all is no bottleneck. A
 * worker sleeps on its own condition until it has a job, a sync to make, or the end; the thread
 * that hands out sleeps on the pool's until a queue has room or all syncs are made. A queue is
 * short: what stands in it was looked at long ago when its turn comes, and a page that changes
 * meanwhile is sent twice.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/multifd.h"
#include "util/mutex.h"
#include "util/thread.h"

#include <string.h>

#define QUEUE_JOBS 8

typedef struct WorkerThread {
    MultifdWorker worker;
    GThread *thread;            /* NULL: the caller does the work */
    Cond wake;
    MultifdJob jobs[QUEUE_JOBS];
    unsigned first_job, njobs;
    bool busy;
    bool want_sync;
    bool started;               /* start() was called */
} WorkerThread;

struct MultifdPool {
    const MultifdOps *ops;
    WorkerThread *threads;
    unsigned n;
    Mutex lock;
    Cond progress;
    bool quit;
    Error *err;                 /* the first; under lock */
};

/* Take @err of @id as the pool's if it is the first, and wake everybody. */
static void pool_fail(MultifdPool *pool, unsigned id, Error *err)
{
    error_prepend(&err, "multifd channel %u: ", id);
    mutex_lock(&pool->lock);
    if (pool->err) {
        error_free(err);
        mutex_unlock(&pool->lock);
        return;
    }
    pool->err = err;
    for (unsigned i = 0; i < pool->n; i++) {
        pool->threads[i].njobs = 0;
        cond_signal(&pool->threads[i].wake);
    }
    cond_broadcast(&pool->progress);
    mutex_unlock(&pool->lock);
    for (unsigned i = 0; pool->n > 1 && i < pool->n; i++) {
        qio_channel_shutdown(pool->threads[i].worker.ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    }
}

/* Under the lock. */
static int pool_check(MultifdPool *pool, Error **errp)
{
    if (!pool->err) {
        return 0;
    }
    error_propagate(errp, error_copy(pool->err));
    return -1;
}

/* Do what the worker has to do next; the lock is held on entry and return, not while working. */
static void worker_step(WorkerThread *wt, Error **errp)
{
    MultifdPool *pool = wt->worker.pool;
    bool sync = !wt->njobs;
    MultifdJob job;

    if (!sync) {
        job = wt->jobs[wt->first_job];
        wt->first_job = (wt->first_job + 1) % QUEUE_JOBS;
        wt->njobs--;
        cond_broadcast(&pool->progress);
    }
    wt->busy = true;
    mutex_unlock(&pool->lock);
    if (sync) {
        pool->ops->sync(&wt->worker, errp);
    } else {
        pool->ops->job(&wt->worker, &job, errp);
    }
    if (!sync) {
        counter_sub(wt->worker.ctx->counters.outstanding_bytes, job.pages * TARGET_PAGE_SIZE);
    }
    mutex_lock(&pool->lock);
    wt->busy = false;
    if (sync) {
        wt->want_sync = false;
        cond_broadcast(&pool->progress);
    }
}

static gpointer worker_thread(gpointer opaque)
{
    WorkerThread *wt = opaque;
    MultifdPool *pool = wt->worker.pool;
    Error *err = NULL;

    wt->started = true;
    if (pool->ops->start && pool->ops->start(&wt->worker, &err) < 0) {
        pool_fail(pool, wt->worker.id, err);
        err = NULL;
    }
    mutex_lock(&pool->lock);
    while (!pool->quit && !pool->err) {
        if (!wt->njobs && !wt->want_sync) {
            cond_wait(&wt->wake, &pool->lock);
            continue;
        }
        worker_step(wt, &err);
        if (err) {
            mutex_unlock(&pool->lock);
            pool_fail(pool, wt->worker.id, err);
            err = NULL;
            mutex_lock(&pool->lock);
        }
    }
    mutex_unlock(&pool->lock);
    if (pool->ops->end) {
        pool->ops->end(&wt->worker);
    }
    return NULL;
}

MultifdPool *multifd_pool_new(MigrationContext *ctx, const MultifdOps *ops, void *opaque,
                              const GPtrArray *channels, bool threads, Error **errp)
{
    MultifdPool *pool = g_new0(MultifdPool, 1);

    g_assert(channels->len && (threads || channels->len == 1));
    pool->ops = ops;
    pool->n = channels->len;
    pool->threads = g_new0(WorkerThread, pool->n);
    mutex_init(&pool->lock);
    cond_init(&pool->progress);
    for (unsigned i = 0; i < pool->n; i++) {
        WorkerThread *wt = &pool->threads[i];

        wt->worker = (MultifdWorker) {
            .pool = pool, .ctx = ctx, .id = i, .opaque = opaque,
            .ioc = qio_channel_ref(g_ptr_array_index(channels, i)),
            .bytes = threads ? &ctx->counters.multifd_bytes : &ctx->counters.mapped_bytes,
        };
        cond_init(&wt->wake);
    }
    if (threads) {
        counter_set(ctx->counters.channels, pool->n);
        for (unsigned i = 0; i < pool->n; i++) {
            g_autofree char *name = g_strdup_printf("%s_%u", ops->name, i);
            pool->threads[i].thread =
                thread_try_new(name, worker_thread, &pool->threads[i], errp);
            if (!pool->threads[i].thread) {
                multifd_pool_free(pool);
                return NULL;
            }
        }
    } else {
        pool->threads[0].started = true;
        if (ops->start && ops->start(&pool->threads[0].worker, errp) < 0) {
            multifd_pool_free(pool);
            return NULL;
        }
    }
    return pool;
}

void multifd_pool_free(MultifdPool *pool)
{
    if (!pool) {
        return;
    }
    mutex_lock(&pool->lock);
    pool->quit = true;
    for (unsigned i = 0; i < pool->n; i++) {
        cond_signal(&pool->threads[i].wake);
    }
    mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n; i++) {
        WorkerThread *wt = &pool->threads[i];

        if (wt->thread) {
            g_thread_join(wt->thread);
        } else if (wt->started && pool->ops->end) {
            pool->ops->end(&wt->worker);
        }
        qio_channel_unref(wt->worker.ioc);
        cond_destroy(&wt->wake);
    }
    cond_destroy(&pool->progress);
    mutex_destroy(&pool->lock);
    error_free(pool->err);
    g_free(pool->threads);
    g_free(pool);
}

unsigned multifd_pool_channels(const MultifdPool *pool)
{
    return pool->n;
}

/* Who has least to do, from the one after the last choice on. Under the lock. */
static WorkerThread *least_busy(MultifdPool *pool)
{
    WorkerThread *best = &pool->threads[0];

    for (unsigned i = 1; i < pool->n; i++) {
        WorkerThread *wt = &pool->threads[i];

        if (wt->njobs + wt->busy < best->njobs + best->busy) {
            best = wt;
        }
    }
    return best;
}

/* The caller does the work itself. */
static int run_inline(MultifdPool *pool, const MultifdJob *job, Error **errp)
{
    MultifdWorker *worker = &pool->threads[0].worker;

    return job ? pool->ops->job(worker, job, errp) : pool->ops->sync(worker, errp);
}

int multifd_pool_submit(MultifdPool *pool, int channel, const MultifdJob *job, Error **errp)
{
    WorkerThread *wt;
    int ret;

    if (migration_context_cancelled(pool->threads[0].worker.ctx)) {
        error_setg(errp, "the migration was cancelled");
        return -1;
    }
    if (!pool->threads[0].thread) {
        return run_inline(pool, job, errp);
    }
    mutex_lock(&pool->lock);
    for (;;) {
        wt = channel == MULTIFD_ANY_CHANNEL ? least_busy(pool) : &pool->threads[channel];
        if (wt->njobs < QUEUE_JOBS || pool->err) {
            break;
        }
        cond_wait(&pool->progress, &pool->lock);
    }
    ret = pool_check(pool, errp);
    if (ret == 0) {
        counter_add(wt->worker.ctx->counters.outstanding_bytes, job->pages * TARGET_PAGE_SIZE);
        wt->jobs[(wt->first_job + wt->njobs) % QUEUE_JOBS] = *job;
        wt->njobs++;
        cond_signal(&wt->wake);
    }
    mutex_unlock(&pool->lock);
    return ret;
}

static bool all_synced(MultifdPool *pool)
{
    for (unsigned i = 0; i < pool->n; i++) {
        if (pool->threads[i].want_sync) {
            return false;
        }
    }
    return true;
}

int multifd_pool_sync(MultifdPool *pool, Error **errp)
{
    int ret;

    if (!pool->threads[0].thread) {
        return run_inline(pool, NULL, errp);
    }
    mutex_lock(&pool->lock);
    for (unsigned i = 0; i < pool->n; i++) {
        pool->threads[i].want_sync = true;
        cond_signal(&pool->threads[i].wake);
    }
    while (!all_synced(pool) && !pool->err) {
        cond_wait(&pool->progress, &pool->lock);
    }
    ret = pool_check(pool, errp);
    mutex_unlock(&pool->lock);
    return ret;
}

GPtrArray *multifd_open_channels(MigrationContext *ctx, unsigned n, bool direct_io, Error **errp)
{
    g_autoptr(GPtrArray) channels =
        g_ptr_array_new_with_free_func((GDestroyNotify)qio_channel_unref);

    for (unsigned i = 0; i < n; i++) {
        QIOChannel *ioc = ctx->incoming
            ? migration_channels_accept_extra(ctx->channels, direct_io, errp)
            : migration_channels_open_extra(ctx->channels, direct_io, errp);

        if (!ioc) {
            if (n > 1) {
                error_prepend(errp, "multifd channel %u of %u: ", i, n);
            }
            return NULL;
        }
        g_ptr_array_add(channels, ioc);
    }
    return g_steal_pointer(&channels);
}
