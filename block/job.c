/*
 * The life of a job: its states, the order in which they may follow, and what happens when run() is
 * over.
 *
 * One mutex protects the fields of all jobs. It is never held while a driver or a coroutine runs.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "block/job-internal.h"
#include "util/cutils.h"

#define BIT(status) (1u << JOB_STATUS_##status)

static GQueue jobs = G_QUEUE_INIT;
static Mutex mutex;

void job_lock(void)
{
    mutex_lock(&mutex);
}

void job_unlock(void)
{
    mutex_unlock(&mutex);
}

/* ---- states ---- */

/* What may follow each. */
static const unsigned next_states[JOB_STATUS__MAX] = {
    [JOB_STATUS_UNDEFINED] = BIT(CREATED),
    [JOB_STATUS_CREATED] = BIT(RUNNING) | BIT(ABORTING) | BIT(NULL),
    [JOB_STATUS_RUNNING] = BIT(PAUSED) | BIT(READY) | BIT(WAITING) | BIT(ABORTING),
    [JOB_STATUS_PAUSED] = BIT(RUNNING),
    [JOB_STATUS_READY] = BIT(STANDBY) | BIT(WAITING) | BIT(ABORTING),
    [JOB_STATUS_STANDBY] = BIT(READY),
    [JOB_STATUS_WAITING] = BIT(PENDING) | BIT(ABORTING),
    [JOB_STATUS_PENDING] = BIT(ABORTING) | BIT(CONCLUDED),
    [JOB_STATUS_ABORTING] = BIT(CONCLUDED),
    [JOB_STATUS_CONCLUDED] = BIT(NULL),
};

#define ALIVE (BIT(CREATED) | BIT(RUNNING) | BIT(PAUSED) | BIT(READY) | BIT(STANDBY))

/* In which states each can be asked for. */
static const unsigned verb_states[JOB_VERB__MAX] = {
    [JOB_VERB_CANCEL] = ALIVE | BIT(WAITING) | BIT(PENDING),
    [JOB_VERB_PAUSE] = ALIVE,
    [JOB_VERB_RESUME] = ALIVE,
    [JOB_VERB_SET_SPEED] = ALIVE,
    [JOB_VERB_COMPLETE] = BIT(READY),
    [JOB_VERB_FINALIZE] = BIT(PENDING),
    [JOB_VERB_DISMISS] = BIT(CONCLUDED),
};

void job_transition(Job *job, JobStatus status)
{
    g_assert(next_states[job->status] & (1u << status));
    job->status = status;
    job_send_status(job);
    aio_wait_kick();
}

bool job_verb_allowed(const Job *job, JobVerb verb, Error **errp)
{
    if (verb_states[verb] & (1u << job->status)) {
        return true;
    }
    error_setg(errp, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
               JobStatus_str(job->status), JobVerb_str(verb));
    return false;
}

static bool allowed(const Job *job, JobVerb verb, Error **errp)
{
    bool ok;

    job_lock();
    ok = job_verb_allowed(job, verb, errp);
    job_unlock();
    return ok;
}

static void transition(Job *job, JobStatus status)
{
    job_lock();
    job_transition(job, status);
    job_unlock();
}

/* ---- list and references ---- */

Job *job_by_id(const char *id)
{
    for (GList *l = jobs.head; l; l = l->next) {
        Job *job = l->data;

        if (!strcmp(job->id, id)) {
            return job;
        }
    }
    return NULL;
}

Job *job_next(Job *after)
{
    GList *link = after ? after->in_list.next : jobs.head;

    return link ? link->data : NULL;
}

Job *job_create(const char *id, const JobDriver *driver, AioContext *ctx, JobFlags flags,
                void *opaque, Error **errp)
{
    Job *job;

    if (!id_wellformed(id)) {
        error_setg(errp, "Invalid job ID '%s'", id);
        return NULL;
    }
    if (job_by_id(id)) {
        error_setg(errp, "Job ID '%s' already in use", id);
        return NULL;
    }
    job = g_new0(Job, 1);
    job->id = g_strdup(id);
    job->driver = driver;
    job->opaque = opaque;
    job->flags = flags;
    job->ctx = ctx;
    job->refcnt = 1;
    job->nodes = g_ptr_array_new_with_free_func((GDestroyNotify)blk_unref);
    job->in_list.data = job;
    g_queue_push_tail_link(&jobs, &job->in_list);
    transition(job, JOB_STATUS_CREATED);
    return job;
}

void job_ref(Job *job)
{
    job->refcnt++;
}

void job_unref(Job *job)
{
    g_assert(job->refcnt > 0);
    if (--job->refcnt) {
        return;
    }
    g_assert(job->status == JOB_STATUS_NULL);
    g_ptr_array_free(job->nodes, TRUE);
    if (job->driver->free) {
        job->driver->free(job->opaque);
    }
    error_free(job->err);
    g_free(job->id);
    g_free(job);
}

void job_start(Job *job)
{
    g_assert(!job->co);
    job->co = coroutine_create(job_co_entry, job);
    job_ref(job);                       /* for job_run_ended() */
    job_lock();
    job->busy = true;
    job_transition(job, JOB_STATUS_RUNNING);
    job_unlock();
    aio_co_schedule(job->ctx, job->co);
}

/* ---- the end ---- */

static void let_go(Job *job)
{
    g_queue_unlink(&jobs, &job->in_list);
    transition(job, JOB_STATUS_NULL);
    job_unref(job);
}

/* The driver has cleaned up. */
static void conclude(Job *job)
{
    job_remove_nodes(job);
    job_lock();
    job_send_ended(job);
    job_transition(job, JOB_STATUS_CONCLUDED);
    job_unlock();
    if (!(job->flags & JOB_MANUAL_DISMISS) || !job->co) {
        let_go(job);
    }
}

static void abort_job(Job *job)
{
    transition(job, JOB_STATUS_ABORTING);
    if (job->driver->abort) {
        job->driver->abort(job, job->opaque);
    }
    if (job->driver->clean) {
        job->driver->clean(job, job->opaque);
    }
    conclude(job);
}

static void fail(Job *job, Error *err)
{
    job_lock();
    job->ret = -1;
    if (!job->err) {
        job->err = g_steal_pointer(&err);
    }
    job_unlock();
    error_free(err);
}

static void fail_as_cancelled(Job *job)
{
    Error *err = NULL;

    error_setg(&err, "%s", g_strerror(ECANCELED));
    fail(job, err);
}

/* From pending: what can fail first, then what cannot. */
static void finalize(Job *job)
{
    Error *err = NULL;

    if (job->driver->prepare && job->driver->prepare(job, job->opaque, &err) < 0) {
        fail(job, err);
        abort_job(job);
        return;
    }
    if (job->driver->commit) {
        job->driver->commit(job, job->opaque);
    }
    if (job->driver->clean) {
        job->driver->clean(job, job->opaque);
    }
    conclude(job);
}

/* run() is over, or will never begin. */
static void completed(Job *job)
{
    if (job->ret == 0 && job_is_cancelled(job)) {
        fail_as_cancelled(job);
    }
    if (job->ret < 0) {
        abort_job(job);
        return;
    }
    transition(job, JOB_STATUS_WAITING);
    transition(job, JOB_STATUS_PENDING);
    if (!(job->flags & JOB_MANUAL_FINALIZE)) {
        finalize(job);
    }
}

void job_run_ended(void *opaque)
{
    Job *job = opaque;

    completed(job);
    job_unref(job);
}

/* ---- what users want ---- */

int job_user_pause(Job *job, Error **errp)
{
    job_lock();
    if (!job_verb_allowed(job, JOB_VERB_PAUSE, errp)) {
        job_unlock();
        return -1;
    }
    if (job->user_paused) {
        error_setg(errp, "Job is already paused");
        job_unlock();
        return -1;
    }
    job->user_paused = true;
    job_unlock();
    job_pause(job);
    return 0;
}

int job_user_resume(Job *job, Error **errp)
{
    job_lock();
    if (!job->user_paused) {
        error_setg(errp, "Can't resume a job that was not paused");
        job_unlock();
        return -1;
    }
    if (!job_verb_allowed(job, JOB_VERB_RESUME, errp)) {
        job_unlock();
        return -1;
    }
    job->user_paused = false;
    job_unlock();
    job_resume(job);
    return 0;
}

static void cancel(Job *job, bool force)
{
    bool at_once = !job->driver->cancel || job->driver->cancel(job, job->opaque, force), was_paused,
         ended;

    job_lock();
    was_paused = job->user_paused;
    job->user_paused = false;
    job->cancel_requested = true;
    job->cancelled = job->cancelled || at_once || force;
    ended = job->status == JOB_STATUS_PENDING;
    job_unlock();
    if (was_paused) {
        job_resume(job);
    }
    if (ended) {
        fail_as_cancelled(job);
        abort_job(job);
    } else if (!job->co) {
        completed(job);
    } else {
        job_enter(job);
    }
}

int job_user_cancel(Job *job, bool force, Error **errp)
{
    if (!allowed(job, JOB_VERB_CANCEL, errp)) {
        return -1;
    }
    cancel(job, force);
    return 0;
}

int job_complete(Job *job, Error **errp)
{
    if (!allowed(job, JOB_VERB_COMPLETE, errp)) {
        return -1;
    }
    if (job_cancel_requested(job) || !job->driver->complete) {
        error_setg(errp, "The active block job '%s' cannot be completed", job->id);
        return -1;
    }
    return job->driver->complete(job, job->opaque, errp);
}

int job_finalize(Job *job, Error **errp)
{
    if (!allowed(job, JOB_VERB_FINALIZE, errp)) {
        return -1;
    }
    finalize(job);
    return 0;
}

int job_dismiss(Job *job, Error **errp)
{
    if (!allowed(job, JOB_VERB_DISMISS, errp)) {
        return -1;
    }
    let_go(job);
    return 0;
}

int job_set_speed(Job *job, int64_t speed, Error **errp)
{
    if (!allowed(job, JOB_VERB_SET_SPEED, errp)) {
        return -1;
    }
    if (speed < 0) {
        error_setg(errp, "Parameter 'speed' expects a non-negative value");
        return -1;
    }
    job_lock();
    job->speed = speed;
    job->throttled_until_ns = 0;
    job_unlock();
    job_enter(job);
    return 0;
}

void job_cancel_sync(Job *job)
{
    job_ref(job);
    if (allowed(job, JOB_VERB_CANCEL, NULL)) {
        cancel(job, true);
    }
    AIO_WAIT_WHILE(job_status(job) != JOB_STATUS_CONCLUDED && job_status(job) != JOB_STATUS_NULL);
    job_unref(job);
}

void job_cancel_sync_all(void)
{
    Job *job;

    while ((job = job_next(NULL)) != NULL) {
        job_ref(job);
        job_cancel_sync(job);
        job_dismiss(job, NULL);
        job_unref(job);
    }
}
