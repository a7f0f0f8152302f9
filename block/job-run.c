/*
 * The working side of a job: what run() calls, in the job's context, and how the main thread
 * reaches it there.
 *
 * run() is either busy or waits in job_wait(); who wants something of it changes a field and calls
 * job_enter(). A wake-up that comes while it is busy is remembered, so none is lost between its
 * last look at the fields and its wait.
 *
 * Draining a node of the job pauses it: the drain ends when run() has reached a pause point. Its
 * own requests meanwhile go through, for they are what leads there.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/job-internal.h"

#define NS_PER_S INT64_C(1000000000)
/* A job that was held up may catch up with its speed for that long. */
#define THROTTLE_SLICE_NS (NS_PER_S / 10)

/* ---- waiting and waking ---- */

/* Locked; unlocked while it waits. */
static void coroutine_fn job_wait(Job *job)
{
    if (job->woken) {
        job->woken = false;
        return;
    }
    job->busy = false;
    job_unlock();
    aio_wait_kick();
    coroutine_yield();
    job_lock();
    job->woken = false;
}

void job_enter(Job *job)
{
    AioContext *ctx = NULL;

    job_lock();
    if (job->co && !job->run_ended) {
        if (job->busy) {
            job->woken = true;
        } else {
            job->busy = true;
            ctx = job->ctx;
        }
    }
    job_unlock();
    if (ctx) {
        aio_co_schedule(ctx, job->co);
    }
}

void job_pause(Job *job)
{
    job_lock();
    job->pause_count++;
    job_unlock();
    job_enter(job);
}

void job_resume(Job *job)
{
    job_lock();
    g_assert(job->pause_count > 0);
    job->pause_count--;
    job_unlock();
    job_enter(job);
}

/* Locked. */
static bool should_pause(const Job *job)
{
    return job->pause_count > 0 && !job->cancelled;
}

static void coroutine_fn pause_now(Job *job)
{
    JobStatus status = job->status;

    job_transition(job, status == JOB_STATUS_READY ? JOB_STATUS_STANDBY : JOB_STATUS_PAUSED);
    job->paused = true;
    while (should_pause(job)) {
        job_wait(job);
    }
    job->paused = false;
    job_transition(job, status);
}

void coroutine_fn job_pause_point(Job *job)
{
    bool pause;

    job_lock();
    pause = should_pause(job);
    job_unlock();
    if (!pause) {
        return;
    }
    if (job->driver->pause) {
        job->driver->pause(job, job->opaque);
    }
    job_lock();
    if (should_pause(job)) {
        pause_now(job);
    }
    job_unlock();
    if (job->driver->resume) {
        job->driver->resume(job, job->opaque);
    }
}

void coroutine_fn job_yield(Job *job)
{
    job_lock();
    if (!should_pause(job) && !job->cancelled) {
        job_wait(job);
    }
    job_unlock();
    job_pause_point(job);
}

static void wake_by_timer(void *opaque)
{
    job_enter(opaque);
}

void coroutine_fn job_sleep_ns(Job *job, int64_t ns)
{
    AioTimer *timer = aio_timer_new(aio_current(), wake_by_timer, job);

    aio_timer_mod(timer, aio_clock_ns() + ns);
    job_lock();
    if (!should_pause(job) && !job->cancelled) {
        job_wait(job);
    }
    job_unlock();
    /* A pause may end in another context: the timer is gone by then. */
    aio_timer_free(timer);
    job_pause_point(job);
}

/* When the next bytes may be moved, after @bytes; 0: at once. */
static int64_t account(Job *job, uint64_t bytes)
{
    int64_t now = aio_clock_ns(), until;

    job_lock();
    if (job->speed > 0) {
        double cost_ns = (double)bytes * NS_PER_S / job->speed;

        job->throttled_until_ns = MAX(job->throttled_until_ns, now - THROTTLE_SLICE_NS) +
                                  (int64_t)MIN(cost_ns, (double)(INT64_MAX / 4));
    }
    until = job->throttled_until_ns;
    job_unlock();
    return until;
}

void coroutine_fn job_throttle(Job *job, uint64_t bytes)
{
    int64_t until = account(job, bytes), now;

    job_pause_point(job);
    while ((now = aio_clock_ns()) < until && !job_is_cancelled(job)) {
        job_sleep_ns(job, until - now);
        /* The limit may be another one by now. */
        until = account(job, 0);
    }
}

void coroutine_fn job_transition_to_ready(Job *job)
{
    job_lock();
    job_transition(job, JOB_STATUS_READY);
    job_unlock();
}

/* ---- from beginning to end ---- */

void coroutine_fn job_co_entry(void *opaque)
{
    Job *job = opaque;
    Error *err = NULL;
    int ret = 0;

    job_pause_point(job);
    if (!job_is_cancelled(job)) {
        ret = job->driver->run(job, job->opaque, &err);
    }
    job_lock();
    job->ret = ret < 0 ? -1 : 0;
    job->err = err;
    job->run_ended = true;
    job->busy = false;
    job_unlock();
    aio_wait_kick();
    aio_bh_schedule_oneshot(aio_context_main(), job_run_ended, job);
}

/* ---- nodes ---- */

static void node_drained_begin(void *opaque)
{
    job_pause(opaque);
}

static void node_drained_end(void *opaque)
{
    job_resume(opaque);
}

static bool node_drained_poll(void *opaque)
{
    Job *job = opaque;
    bool working;

    job_lock();
    working = job->co && !job->run_ended && !(job->paused && !job->busy);
    job_unlock();
    return working;
}

static char *node_describe(void *opaque)
{
    return g_strdup_printf("job '%s'", job_id(opaque));
}

static void node_context_changed(void *opaque, AioContext *ctx)
{
    Job *job = opaque;

    job_lock();
    job->ctx = ctx;
    job_unlock();
}

static const BlockDevOps node_ops = {
    .drained_begin = node_drained_begin,
    .drained_end = node_drained_end,
    .drained_poll = node_drained_poll,
    .describe = node_describe,
    .context_changed = node_context_changed,
};

BlockBackend *job_add_node(Job *job, BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                           Error **errp)
{
    BlockBackend *blk = blk_new(perm, shared_perm);

    g_assert(!job->co);
    blk_set_dev_ops(blk, &node_ops, job);
    blk_set_disable_request_queuing(blk, true);
    blk_set_allow_aio_context_change(blk, true);
    if (blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    g_ptr_array_add(job->nodes, blk);
    node_context_changed(job, blk_get_aio_context(blk));
    return blk;
}

void job_remove_nodes(Job *job)
{
    g_ptr_array_set_size(job->nodes, 0);
}
