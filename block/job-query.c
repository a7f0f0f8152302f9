/*
 * What a job tells: its fields, one by one or as schema types, and its events.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/job-internal.h"
#include "qapi/qapi-events-job.h"

/* ---- fields ---- */

#define LOCKED(expr) ({ \
    typeof(0 + (expr)) value_; \
    job_lock(); \
    value_ = (expr); \
    job_unlock(); \
    value_; \
})

const char *job_id(const Job *job)
{
    return job->id;
}

const JobDriver *job_driver(const Job *job)
{
    return job->driver;
}

void *job_opaque(const Job *job)
{
    return job->opaque;
}

JobStatus job_status(const Job *job)
{
    return LOCKED(job->status);
}

int64_t job_speed(const Job *job)
{
    return LOCKED(job->speed);
}

bool job_is_ready(const Job *job)
{
    return LOCKED(job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY);
}

bool job_is_paused(const Job *job)
{
    return LOCKED(job->paused);
}

bool job_user_paused(const Job *job)
{
    return LOCKED(job->user_paused);
}

bool job_is_busy(const Job *job)
{
    return LOCKED(job->busy);
}

bool job_is_completed(const Job *job)
{
    return LOCKED(job->status >= JOB_STATUS_WAITING);
}

bool job_is_cancelled(const Job *job)
{
    return LOCKED(job->cancelled);
}

bool job_cancel_requested(const Job *job)
{
    return LOCKED(job->cancel_requested);
}

void job_progress(const Job *job, uint64_t *current, uint64_t *total)
{
    job_lock();
    *current = job->progress;
    *total = job->progress_total;
    job_unlock();
}

/* ---- progress ---- */

void job_progress_update(Job *job, uint64_t done)
{
    job_lock();
    job->progress += done;
    job_unlock();
}

void job_progress_set_remaining(Job *job, uint64_t remaining)
{
    job_lock();
    job->progress_total = job->progress + remaining;
    job_unlock();
}

void job_progress_increase_remaining(Job *job, uint64_t delta)
{
    job_lock();
    job->progress_total += delta;
    job_unlock();
}

/* ---- schema types ---- */

JobInfo *job_query(const Job *job)
{
    JobInfo *info = g_new0(JobInfo, 1);

    info->id = g_strdup(job->id);
    info->type = job->driver->type;
    job_lock();
    info->status = job->status;
    info->current_progress = job->progress;
    info->total_progress = job->progress_total;
    info->error = job->err ? g_strdup(error_get_pretty(job->err)) : NULL;
    job_unlock();
    return info;
}

BlockJobInfo *job_query_block_job(const Job *job)
{
    BlockJobInfo *info = g_new0(BlockJobInfo, 1);

    info->type = job->driver->type;
    info->device = g_strdup(job->id);
    info->auto_finalize = !(job->flags & JOB_MANUAL_FINALIZE);
    info->auto_dismiss = !(job->flags & JOB_MANUAL_DISMISS);
    job_lock();
    info->len = job->progress_total;
    info->offset = job->progress;
    info->busy = job->busy;
    info->paused = job->pause_count > 0;
    info->speed = job->speed;
    info->status = job->status;
    info->ready = job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY;
    info->error = job->err ? g_strdup(error_get_pretty(job->err)) : NULL;
    job_unlock();
    return info;
}

/* ---- events ---- */

void job_send_status(const Job *job)
{
    qapi_event_send_job_status_change(job->id, job->status);
    if (!job->driver->is_block_job) {
        return;
    }
    if (job->status == JOB_STATUS_READY) {
        qapi_event_send_block_job_ready(job->driver->type, job->id, job->progress_total,
                                        job->progress, job->speed);
    } else if (job->status == JOB_STATUS_PENDING && (job->flags & JOB_MANUAL_FINALIZE)) {
        qapi_event_send_block_job_pending(job->driver->type, job->id);
    }
}

void job_send_ended(const Job *job)
{
    if (!job->driver->is_block_job) {
        return;
    }
    if (job->cancelled) {
        qapi_event_send_block_job_cancelled(job->driver->type, job->id, job->progress_total,
                                            job->progress, job->speed);
    } else {
        qapi_event_send_block_job_completed(job->driver->type, job->id, job->progress_total,
                                            job->progress, job->speed,
                                            job->err ? error_get_pretty(job->err) : NULL);
    }
}
