/*
 * What the files of the job core share.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_JOB_INTERNAL_H
#define BLOCK_JOB_INTERNAL_H

#include "block/job.h"
#include "util/mutex.h"

struct Job {
    /* Never changes. */
    char *id;
    const JobDriver *driver;
    void *opaque;
    JobFlags flags;

    /* Main thread. */
    int refcnt;
    GList in_list;
    GPtrArray *nodes;           /* of BlockBackend */
    Coroutine *co;              /* NULL until it starts */

    /* All below: under job_lock(). */
    AioContext *ctx;
    JobStatus status;
    unsigned pause_count;       /* who wants it to pause: the user, and drains */
    bool user_paused;
    bool paused;                /* at a pause point */
    bool busy;                  /* run() goes on, or was told to */
    bool woken;                 /* job_enter() came while it was busy */
    bool run_ended;
    bool cancel_requested, cancelled;
    int ret;
    Error *err;
    uint64_t progress, progress_total;
    int64_t speed;
    int64_t throttled_until_ns;
};

void job_lock(void);
void job_unlock(void);
/* Locked. Move on to @status, which must follow the present one, and tell. */
void job_transition(Job *job, JobStatus status);
/* Locked. Whether its state lets @verb be applied; false with @errp set. */
bool job_verb_allowed(const Job *job, JobVerb verb, Error **errp);

/* job-run.c: the coroutine's entry; its end arrives by job_run_ended() on the main thread. */
void coroutine_fn job_co_entry(void *opaque);
/* job.c. Takes the reference that the coroutine held. */
void job_run_ended(void *opaque);
/* Ask for a pause, and take that back. Any thread. */
void job_pause(Job *job);
void job_resume(Job *job);

/* job-query.c. Locked. */
void job_send_status(const Job *job);
void job_send_ended(const Job *job);

#endif
