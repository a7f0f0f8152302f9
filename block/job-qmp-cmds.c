/*
 * QMP commands about jobs, whatever their kind.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/job.h"
#include "qapi/qapi-commands-job.h"
#include "qapi/util.h"

static Job *find(const char *id, Error **errp)
{
    Job *job = job_by_id(id);

    if (!job) {
        error_setg(errp, "Job '%s' not found", id);
    }
    return job;
}

void qmp_job_pause(const char *id, Error **errp)
{
    Job *job = find(id, errp);

    if (job) {
        job_user_pause(job, errp);
    }
}

void qmp_job_resume(const char *id, Error **errp)
{
    Job *job = find(id, errp);

    if (job) {
        job_user_resume(job, errp);
    }
}

void qmp_job_cancel(const char *id, Error **errp)
{
    Job *job = find(id, errp);

    if (job) {
        job_user_cancel(job, true, errp);
    }
}

void qmp_job_complete(const char *id, Error **errp)
{
    Job *job = find(id, errp);

    if (job) {
        job_complete(job, errp);
    }
}

void qmp_job_finalize(const char *id, Error **errp)
{
    Job *job = find(id, errp);

    if (job) {
        job_finalize(job, errp);
    }
}

void qmp_job_dismiss(const char *id, Error **errp)
{
    Job *job = find(id, errp);

    if (job) {
        job_dismiss(job, errp);
    }
}

JobInfoList *qmp_query_jobs(Error **errp)
{
    JobInfoList *list = NULL, **tail = &list;

    for (Job *job = job_next(NULL); job; job = job_next(job)) {
        QAPI_LIST_APPEND(tail, job_query(job));
    }
    return list;
}

BlockJobInfoList *qmp_query_block_jobs(Error **errp)
{
    BlockJobInfoList *list = NULL, **tail = &list;

    for (Job *job = job_next(NULL); job; job = job_next(job)) {
        if (job_driver(job)->is_block_job) {
            QAPI_LIST_APPEND(tail, job_query_block_job(job));
        }
    }
    return list;
}
